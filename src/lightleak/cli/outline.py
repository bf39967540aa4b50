"""A verb as its source says it: enough to answer a wrong command line before anything heavy is imported.

A stand-in with the same arguments and settings is made of the source of the verb's `main` (`sources`), and the command
line is given to that first. An argument that the source alone does not explain is set aside unread: the verb itself
reads it. So the stand-in refuses nothing that the verb would take.
"""

import ast
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from functools import wraps
from inspect import signature
from typing import Any

from lightleak.cli import kinds
from lightleak.cli.light import held, light
from lightleak.cli.sources import REFUSED, Names, Reader, UnknownHere, may_be, refusing
from lightleak.errors import UserError

CHECK = "check_arguments"  # a function of a verb's module, if there is one, that checks arguments of its `main`


@dataclass
class Nothing:
    """Placeholder for a verb that was not called."""


def described(verb: str, whole: bool = True) -> type:
    """A class that stands for a verb: with its docstring, for the help; else with nothing but its name."""
    said = {"__doc__": ast.get_docstring(_main(Reader().names(_module(verb))))} if whole else {}
    return type(verb, (Nothing,), said)


def checked(verb: str, arguments: list[str]) -> tuple[Any, list[str]]:
    """A stand-in for a verb, whose instances `check()` what they hold, and the arguments that it can read.

    None where the source does not say which flags there are.
    """
    chosen = frozenset(word.partition(":")[2].replace("-", "") for word in arguments if ":" in word)
    reader = Reader(chosen)
    names = reader.names(_module(verb))
    function = _main(names)
    named, defaults = function.args.args, function.args.defaults
    parts, marks, hidden = [], {}, []
    for argument, default in zip(named, [None] * (len(named) - len(defaults)) + defaults):
        annotation = argument.annotation or ast.Name("str", ast.Load())
        try:
            given = () if default is None else (reader.value(default, names),)  # before what it is one of
            marks[argument.arg] = reader.value(annotation, names)
            kind = light(marks[argument.arg])
            parts.append((argument.arg, kind, *(_standing(held(kind, value)) for value in given)))
        except UnknownHere:
            if "Omit" in ast.unparse(annotation) or _is_alias(annotation, names):
                return None, arguments  # its flags have no common prefix
            hidden.append(argument.arg)

    def check(self: Any) -> None:
        _refusals(self, "")
        kinds.check({name: (kind, getattr(self, name)) for name, kind in marks.items()}, _listed)
        kinds.spare(vars(self))
        with suppress(UnknownHere):
            _checked_together(names[CHECK], vars(self))

    inside = {"__doc__": ast.get_docstring(function), "check": check}
    return make_dataclass(verb, parts, namespace=inside, kw_only=True), _readable(arguments, hidden)


def _checked_together(check: Callable[..., None], arguments: dict[str, Any]) -> None:
    """UserError for arguments that do not go together; what cannot be found out here is passed over."""
    try:
        with refusing():
            check(*(arguments[name] for name in signature(check).parameters))
    except UserError:
        raise
    except Exception:
        pass


def _standing(value: Any) -> Any:
    return field(default_factory=lambda: value)


def _is_alias(annotation: ast.expr, names: Names) -> bool:
    """Whether an annotation is a name for something with markers of tyro."""
    try:
        return "Omit" in ast.unparse(names.statement(ast.unparse(annotation)))
    except UnknownHere:
        return True


def _refusals(settings: Any, name: str) -> None:
    """UserError for what settings, or some within them, refused when they were made."""
    if (why := vars(settings).get(REFUSED)) is not None:
        raise UserError(f"{name}: {why}")
    for each in fields(settings):
        value = getattr(settings, each.name)
        if is_dataclass(value):
            _refusals(value, f"{name}.{each.name}".lstrip("."))


def checking(verb: Callable[..., None]) -> Callable[..., None]:
    """A verb that checks its arguments as its stand-in does."""

    @wraps(verb)
    def first(*arguments: Any, **named: Any) -> None:
        bound = signature(verb, eval_str=True).bind(*arguments, **named)
        bound.apply_defaults()
        annotations = signature(verb, eval_str=True).parameters
        kinds.check({name: (annotations[name].annotation, value) for name, value in bound.arguments.items()}, _listed)
        kinds.spare(bound.arguments)
        if together := getattr(sys.modules[verb.__module__], CHECK, None):
            together(*(bound.arguments[name] for name in signature(together).parameters))
        verb(*arguments, **named)

    return first


def _listed(module: str, name: str) -> list[str] | None:
    """The names in a table: of the module where it is imported, else of its source."""
    if (imported := getattr(sys.modules.get(module), name, None)) is not None:
        return list(imported)
    try:
        return Reader().listed(module, name)
    except UnknownHere:
        return None


def _readable(arguments: list[str], hidden: list[str]) -> list[str]:
    """The arguments without those of settings that are hidden: their flags and all that follows up to the next one."""
    groups = [name.replace("_", "-") for name in hidden]
    kept, aside = [], False
    for argument in arguments:
        group, colon, name = argument.partition(":")
        if colon and (group in groups or (group == "attack" and may_be("lightleak.attacks", name))):
            return kept  # a choice of settings that nobody knows here, and what it was chosen with
        if argument.startswith("--"):
            flag = argument.split("=", 1)[0].replace("_", "-")
            aside = flag.removeprefix("--no-").removeprefix("--").split(".")[0] in groups
        if not aside:
            kept.append(argument)
    return kept


def _module(verb: str) -> str:
    return f"lightleak.cli.{verb}"


def _main(names: Names) -> ast.FunctionDef:
    function = names.statement("main")
    assert isinstance(function, ast.FunctionDef), names.module
    return function
