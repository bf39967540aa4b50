"""Images of people (or digits, or anything with classes), some private, some public, and where to get
them.
"""

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from lightleak.data import celeba, digits, dogs, faces, facescrub, folders, pictures
from lightleak.data.people import People
from lightleak.data.population import Images, Population
from lightleak.errors import UserError, nearest
from lightleak.plugins import Registry

OURS: dict[str, Callable[..., Population]] = {
    "faces": faces.population,
    "digits": digits.population,
    "folder": folders.population,
    "facescrub": facescrub.population,
    "celeba": celeba.population,
    "dogs": dogs.population,
    "ffhq": pictures.ffhq,  # these three hold public images only
    "metfaces": pictures.metfaces,
    "afhq": pictures.afhq,
}
DATASETS: Registry[Callable[..., Population]] = Registry(
    "lightleak.datasets", OURS, callable, "function that returns a Population"
)
# Those whose seed draws other people; that of all others divides the pictures of the same people in another way.
DRAWN = frozenset({"faces"})

# What can be said of settings before anything is drawn or read.
CHECKS: dict[str, Callable[..., None]] = {"faces": faces.check, "digits": digits.check}

__all__ = ["DATASETS", "DRAWN", "Images", "People", "Population", "check", "load"]


def load(data: str, **settings: Any) -> Population:
    """The population that `data` names: "faces", "digits", "folder:PATH", "celeba:PATH" ..., with settings of its
    function in DATASETS.

    Raises UserError for an unknown name or setting, a path where none is taken, or a missing one.
    """
    _, function, path = check(data, **settings)
    return function(path, **settings) if path else function(**settings)


def check(data: str, **settings: Any) -> tuple[str, Callable[..., Population], str]:
    """The name, function and path that `data` stands for; UserError, as `load` raises it, before anything is read."""
    name, colon, path = data.partition(":")
    if name not in DATASETS:
        hint = f"; for your own images write folder:{data}" if Path(data).is_dir() else nearest(name, DATASETS)
        raise UserError(f"there is no data set {name!r}; choose one of {', '.join(DATASETS)}{hint}")
    function = DATASETS[name]
    known = inspect.signature(function).parameters
    unknown = sorted(set(settings) - set(known))
    if unknown:
        has = ", ".join(known) + nearest(unknown[0], known)
        raise UserError(f"data set {name!r} has no setting {', '.join(unknown)}; it has {has}")
    for setting, hint in _hints(function, settings).items():
        if not _fits(settings[setting], hint):
            raise UserError(f"data set {name!r}: {setting} is {_in_words(hint)}, not {settings[setting]!r:.60}")
    if isinstance(size := settings.get("size"), int) and size < 1:
        raise UserError(f"data set {name!r}: size must be at least 1 pixel, not {size}")
    if abs(settings.get("seed") or 0) >= 2**43:
        raise UserError(f"a seed is a number below 2^43, not {settings['seed']!r:.60}")
    if isinstance(public := settings.get("public"), str) and public:
        pictures.source_of(public)
    takes_path = "path" in known
    if takes_path and not path:
        raise UserError(f"data set {name!r} needs a path: write {name}:PATH")
    if colon and not takes_path:
        raise UserError(f"data set {name!r} takes no path; write {name}, not {data}")
    if name in CHECKS and function is OURS[name]:
        CHECKS[name](**settings)
    return name, function, path


def _hints(function: Callable[..., Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The types of these arguments of a function, as far as it says them."""
    said = {name: hint for name, hint in getattr(function, "__annotations__", {}).items() if name in settings}
    return get_type_hints(types.SimpleNamespace(__annotations__=said), getattr(function, "__globals__", None))


def _fits(value: object, hint: Any) -> bool:
    """Whether a setting's value is of the annotated type: numbers, texts, lists of texts, choices, None."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if origin is Sequence:
        return isinstance(value, list | tuple) and all(_fits(one, inner[0]) for one in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is types.NoneType:
        return value is None
    return isinstance(value, hint) if isinstance(hint, type) else callable(value)


def _in_words(hint: Any) -> str:
    """A type in words."""
    words = {int: "a whole number", float: "a number", str: "a text", bool: "True or False", Path: "a path"}
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_in_words(one) for one in inner if one is not types.NoneType))
    if origin is Literal:
        return " or ".join(map(str, inner))
    return "a list of names" if origin is Sequence else words.get(hint, getattr(hint, "__name__", str(hint)))
