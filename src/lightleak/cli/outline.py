"""What a verb's source says of its flags: enough to answer a wrong command line before anything heavy is imported.

A stand-in with the same arguments is made of the source of the verb's `main`, and the command line is given to that
first. What belongs to settings of other modules (`--recipe.epochs`, `attack:ppa` and all behind it) is set aside
unread: the real verb reads it. So the stand-in refuses nothing that the verb would take.
"""

import ast
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

PACKAGE = Path(__file__).parent.parent
NAMES: dict[str, Any] = {
    "str": str, "int": int, "float": float, "bool": bool, "Path": Path, "Literal": Literal, "tuple": tuple,
    "dict": dict, "None": None, "Annotated": Annotated, "tyro": tyro,
    "Settings": Annotated[dict[str, str], tyro.conf.arg(metavar="NAME VALUE ...")],
}  # fmt: skip
UNSAID: Any = object()


def described(verb: str) -> Callable[[], None]:
    """A function with the docstring of a verb, which stands for it in the help."""

    def main() -> None: ...

    main.__doc__ = ast.get_docstring(_main(verb))
    return main


def checked(verb: str, arguments: list[str]) -> tuple[Callable[..., None], list[str]]:
    """A stand-in for a verb, and the arguments that it can read."""
    function = _main(verb)
    parameters, hidden = [], []
    named = function.args.args
    defaults = [None] * (len(named) - len(function.args.defaults)) + list(function.args.defaults)
    for argument, default in zip(named, defaults):
        kind = _evaluated(argument.annotation)
        if kind is UNSAID:
            hidden.append((argument.arg, _fields(argument.annotation, verb)))
            continue
        value = inspect.Parameter.empty if default is None else _evaluated(default)
        if value is UNSAID:
            kind, value = kind | None, None
        place = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters.append(inspect.Parameter(argument.arg, place, default=value, annotation=kind))
    # An argument without a default may stand behind one with: only the verb itself must not be called so.
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]

    def main(**_: Any) -> None: ...

    main.__doc__ = ast.get_docstring(function)
    main.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    main.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
    return main, _readable(arguments, hidden)


def _readable(arguments: list[str], hidden: list[tuple[str, list[str]]]) -> list[str]:
    """The arguments without those of other modules' settings: these flags and all that follows up to the next one."""
    flags = {name for _, fields in hidden for name in fields}
    kept, aside = [], False
    for argument in arguments:
        name = argument.split("=", 1)[0].replace("_", "-")
        if any(argument.startswith(f"{group}:") for group, _ in hidden):
            return kept  # a choice of settings, and what it was chosen with
        if argument.startswith("--"):
            groups = [group.replace("_", "-") for group, _ in hidden]
            aside = name in flags or any(
                name.removeprefix("--no-").removeprefix("--").split(".")[0] == g for g in groups
            )
        if not aside:
            kept.append(argument)
    return kept


def _main(verb: str) -> ast.FunctionDef:
    tree = ast.parse((PACKAGE / "cli" / f"{verb}.py").read_text(encoding="utf-8"))
    return next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main")


def _evaluated(node: ast.AST | None) -> Any:
    """An annotation or a default of built-in names alone; UNSAID for any other."""
    if node is None:
        return UNSAID
    words = [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]
    if any(word not in NAMES for word in words):
        return UNSAID
    try:
        return eval(compile(ast.Expression(node), "", "eval"), {"__builtins__": {}}, dict(NAMES))  # type: ignore[arg-type]
    except (TypeError, ValueError, NameError, AttributeError):
        return UNSAID


def _fields(annotation: ast.expr | None, verb: str) -> list[str]:
    """The flags of a settings class whose fields stand without a prefix, as far as the source tells."""
    found = {part.id for part in ast.walk(annotation) if isinstance(part, ast.Name)} if annotation else set()
    names: list[str] = []
    for word in found:
        for field, boolean in _of_class(word, PACKAGE / "cli" / f"{verb}.py"):
            flag = field.replace("_", "-")
            names += [f"--{flag}", f"--no-{flag}"] if boolean else [f"--{flag}"]
    return names


def _of_class(name: str, file: Path, depth: int = 0) -> list[tuple[str, bool]]:
    """The fields of a class (and whether each is a switch), followed through imports and aliases."""
    if depth > 6 or not file.is_file():
        return []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef) and node.name == name:
            lines = [line for line in node.body if isinstance(line, ast.AnnAssign)]
            own = [(ast.unparse(line.target), ast.unparse(line.annotation) == "bool") for line in lines]
            parts = [part for line in lines for part in ast.walk(line.annotation) if isinstance(part, ast.Name)]
            words = {part.id for part in parts} - set(NAMES) | {ast.unparse(base) for base in node.bases}
            return [*own, *(field for word in sorted(words) for field in _of_class(word, file, depth + 1))]
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            inner = [part.id for part in ast.walk(node.value) if isinstance(part, ast.Name) and part.id != name]
            return [field for word in inner for field in _of_class(word, file, depth + 1)]
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lightleak"):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    path = PACKAGE.parent.joinpath(*str(node.module).split("."))
                    return _of_class(
                        alias.name, path / "__init__.py" if path.is_dir() else path.with_suffix(".py"), depth + 1
                    )
    return []
