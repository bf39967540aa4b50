"""Every study of the paper at its own scale, executed: on miniatures in the published layouts, through to its page."""

import json
from pathlib import Path

import pytest
import rehearsal

from lightleak import cli

STUDIES = Path(__file__).parent.parent / "studies" / "paper"
TOY = {"epochs": 2, "judge_epochs": 1, "batch": 16, "candidates": 12, "attempts": 2, "keep": 1, "steps": 2, "views": 1}


def rehearse(name, out, **values):
    """Run a study through the command line; its pages' records, by title of the page."""
    cli.main(["study", str(STUDIES / f"{name}.py"), "--out", str(out), "--here", "1",
              *rehearsal.settings(scale="paper", **values)])  # fmt: skip
    pages = [out, *sorted(out.glob("page-*"))]
    assert (out / "report.html").stat().st_size > 10_000
    return [json.loads((page / "record.json").read_text()) for page in pages]


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    """FaceScrub, a converted StyleGAN2 and a judge, in miniature."""
    root = tmp_path_factory.mktemp("things")
    return {
        "data": f"facescrub:{rehearsal.facescrub(root / 'facescrub')}",
        "prior": rehearsal.prior(root),
        "judge": rehearsal.narrow_judge(root / "judge.safetensors"),
        "weights": rehearsal.weights(root / "weights", "torchvision:efficientnet_b0"),
        "size": 32,
        **TOY,
    }


def test_figure_3_runs_to_its_page(things, tmp_path):
    (record,) = rehearse("fig3_families", tmp_path, only="efficientnet_b0", accuracies=0.2, **things)
    rows = {row["name"]: row for row in record["rows"]}
    assert {"no defence", "RoLSS", "null: never optimised"} <= set(rows)
    assert set(record["curves"]) == {"no defence", "RoLSS"}
