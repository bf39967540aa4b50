"""The notebook runs from top to bottom in a fresh kernel, shows pictures and a table, and is kept as it was run."""

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples" / "quickstart.ipynb"


def shown(notebook) -> str:
    """Everything that a notebook's cells show as HTML."""
    outputs = [one for cell in notebook.cells if cell.cell_type == "code" for one in cell.outputs]
    return "".join("".join(one.get("data", {}).get("text/html", "")) for one in outputs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of jupyter_client and zmq
def test_the_notebook_runs_and_shows_pictures():
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    kept = shown(notebook)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources={}).execute()
    now = shown(notebook)
    for told in (now, kept):  # as it lies there as well: that is what people look at first
        assert told.count("data:image/png;base64,") == 3
        assert "AttAcc@1" in told
        assert "null: never optimised" in told
        assert "skips" in told


def test_the_notebook_was_kept_after_a_whole_run():
    import json

    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(output["output_type"] in ("error", "stream") for cell in cells for output in cell["outputs"])
    assert NOTEBOOK.stat().st_size < 500_000
