"""Data flows one way: a module may import what stands above it in the design, nothing below."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "lightleak"
LAYERS = [
    "version", "errors", "shipped", "compat", "files", "renamed", "plugins", "notebook", "fingerprint", "ranking",
    "randomness", "place", "optimisers", "surgery", "data",
    "models", "training", "defences", "priors", "attacks", "metrics", "study",
    "convert", "report", "raters", "forecast", "audit", "doctor", "terminal", "cli", "lightleak",
]  # fmt: skip
ROOT = "lightleak"  # the package itself, with all its public names: below everything


def layer(module: str) -> str | None:
    """The layer of a module by its whole name: "lightleak.data.views" is of "data"; None of other packages."""
    parts = module.split(".")
    return None if parts[0] != ROOT else parts[1] if len(parts) > 1 else ROOT


def imports(text: str, package: str = ROOT) -> set[str]:
    """The layers of lightleak that a source imports, wherever and however in the file it does so."""
    found: set[str | None] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            if module == ROOT:  # a layer, or one of the public names, for which the package must know its home
                found |= {alias.name if alias.name in LAYERS else ROOT for alias in node.names}
            else:
                found.add(layer(module))
        elif isinstance(node, ast.Import):
            found |= {layer(alias.name) for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            said = node.args[0] if node.args else None
            said = said.values[0] if isinstance(said, ast.JoinedStr) else said
            if isinstance(said, ast.Constant):
                found.add(layer(str(said.value)))
    return {name for name in found if name is not None}


def from_below(text: str, own: str, package: str = ROOT) -> set[str]:
    return {name for name in imports(text, package) & set(LAYERS) if LAYERS.index(name) > LAYERS.index(own)}


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_only_go_up(path):
    parts = path.relative_to(SOURCE).parts
    own = parts[0].removesuffix(".py")
    if own in ("__init__", "__main__"):
        return
    assert own in LAYERS, f"{own} is not in the design; add it where its data comes from"
    below = from_below(path.read_text(), own, ".".join([ROOT, *parts[:-1]]))
    assert not below, f"{path.name} in {own} imports {', '.join(sorted(below))} from below"


@pytest.mark.parametrize(
    "text",
    [
        "import lightleak",
        "import lightleak as whole",
        "from lightleak import Classifier",
        "from lightleak import __version__",
        "from lightleak import report",
        "from lightleak.report import page",
        "import lightleak.report.page",
        "def later():\n    from lightleak.report import page",
        "from ..report import page",
        "from .. import report",
        "from .. import evaluate",
        "import_module('lightleak.report')",
        "importlib.import_module(f'lightleak.report.{name}')",
        "__import__('lightleak')",
    ],
)
def test_every_way_to_import_from_below_is_seen(text):
    assert from_below(text, "data", "lightleak.data")


@pytest.mark.parametrize(
    "text", ["from lightleak.errors import UserError", "from lightleak import errors", "from . import views",
             "from .views import View", "from ..files import publish", "import torch", "from lightleaks import data"]
)  # fmt: skip
def test_imports_from_above_are_none_of_these(text):
    assert not from_below(text, "data", "lightleak.data")


def test_every_layer_exists():
    present = {p.name.removesuffix(".py") for p in SOURCE.iterdir() if p.name[0] != "_"}
    assert set(LAYERS) - {ROOT} == present


def test_no_pickle_is_written_or_run():
    """Files of ours hold no pickles, and nothing loads a foreign one without the allow-list reader."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                call = ast.unparse(node.func)
                assert call not in {"pickle.load", "pickle.loads", "torch.save", "torch.load"}, (
                    f"{path.name} calls {call}"
                )


def test_nothing_reseeds_the_users_generator():
    """The global generator is seeded inside `fork_rng` alone, which puts it back."""
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        forked = [
            (node.lineno, node.end_lineno or node.lineno)
            for node in ast.walk(tree)
            if isinstance(node, ast.With) and any("fork_rng" in ast.unparse(item) for item in node.items)
        ]
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.manual_seed", "torch.seed"):
                inside = any(first <= node.lineno <= last for first, last in forked)
                assert inside, f"{path.name}, line {node.lineno}: use randomness.own"


def modules() -> dict[str, Path]:
    """Every module of the library by its whole name."""
    files = {".".join((ROOT, *path.relative_to(SOURCE).with_suffix("").parts)): path for path in SOURCE.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in files.items()}


def needed(path: Path, known: set[str]) -> set[str]:
    """The modules that a file imports when it runs, wherever in it."""
    tree = ast.parse(path.read_text())
    checks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    for_types = {id(inner) for check in checks for inner in ast.walk(check)}
    found = set()
    for node in ast.walk(tree):
        if id(node) in for_types or not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        above = [node.module or ""] if isinstance(node, ast.ImportFrom) else [""]
        for alias in node.names:
            whole = f"{above[0]}.{alias.name}".strip(".")
            found.add(whole if whole in known else above[0])
    return found & known


def test_no_modules_import_each_other_in_a_circle():
    files = modules()
    graph = {name: needed(path, set(files)) - {name} for name, path in files.items()}
    while leaves := [name for name, others in graph.items() if not others & set(graph)]:
        for name in leaves:
            del graph[name]
    assert not graph, f"each of these needs another one of them: {', '.join(sorted(graph))}"


def long_functions(text: str, most: int = 100) -> list[str]:
    """The functions of a source with more lines than that, not counting their docstrings."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            told = node.body[0].end_lineno - node.body[0].lineno + 1 if ast.get_docstring(node) else 0
            if node.end_lineno - node.lineno + 1 - told > most:
                found.append(node.name)
    return found


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_function_is_longer_than_a_page_or_two(path):
    assert not long_functions(path.read_text())


def test_a_long_function_is_seen_and_its_docstring_is_no_part_of_it():
    body = "    x = 1\n" * 99
    assert not long_functions("def f():\n" + body)
    assert long_functions("def f():\n" + body + "    x = 2\n") == ["f"]
    assert not long_functions('def f():\n    """One.\n\n    Two.\n    """\n' + body)
