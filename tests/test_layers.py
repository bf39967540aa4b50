"""Data flows one way: a module may import what stands above it in the design, nothing below."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "lightleak"
LAYERS = [
    "errors", "compat", "files", "surgery", "data", "models", "training", "defences", "priors", "attacks", "metrics",
    "study", "convert", "report", "doctor", "terminal", "cli",
]  # fmt: skip


def imports(path: Path) -> set[str]:
    """The layers of lightleak that a file imports, wherever in the file it does so."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "lightleak":
            rest = (node.module or "").split(".")[1:]
            found |= {rest[0]} if rest else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("lightleak.")}
    return found


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_only_go_up(path):
    layer = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if layer in ("__init__", "__main__"):
        return
    assert layer in LAYERS, f"{layer} is not in the design; add it where its data comes from"
    below = {name for name in imports(path) & set(LAYERS) if LAYERS.index(name) > LAYERS.index(layer)}
    assert not below, f"{path.name} in {layer} imports {', '.join(sorted(below))} from below"


def test_every_layer_exists():
    present = {p.name.removesuffix(".py") for p in SOURCE.iterdir() if p.name[0] != "_"}
    assert set(LAYERS) == present


def test_no_pickle_is_written_or_run():
    """Files of ours hold no pickles, and nothing loads a foreign one without the allow-list reader."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                call = ast.unparse(node.func)
                assert call not in {"pickle.load", "pickle.loads", "torch.save", "torch.load"}, (
                    f"{path.name} calls {call}"
                )
