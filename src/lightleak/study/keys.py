"""A task's settings as JSON data: two tasks share a key exactly when these are equal.

A setting is its value; a dataclass is its class, its version and its fields. A class of Lightleak is known by its name
and `version: ClassVar[int]` (1 where it has none), which is raised when its algorithm gives other results. Any other
class (of a study file, a module beside it, a package) is known by its source as well, comments aside: change it, and
what it made no longer counts. What a class calls outside of itself is not seen; raise its `version` then.
"""

import ast
import dataclasses
import hashlib
import inspect
import math
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

from lightleak.errors import UserError
from lightleak.fingerprint import LATER

OURS = "lightleak."  # begins the modules whose classes are known by name and version


class Keyed:
    """Something that others refer to by its class and key."""

    @property
    def name(self) -> str:
        """The class's name."""
        return called(type(self))

    @property
    def key(self) -> str:
        """Equal for objects with equal settings."""
        raise NotImplementedError(f"{type(self).__name__} has no key")


def called(cls: type) -> str:
    """The name of a class in keys: its own or, where it was renamed, `known_as`, so that older results still count."""
    return vars(cls).get("known_as", cls.__name__)


def identity(cls: type) -> dict[str, Any]:
    """What tells a class from every other one, and from itself with another algorithm: version and source."""
    own = {field.name for field in dataclasses.fields(cls)}
    said = None if "version" in own else next((vars(c)["version"] for c in cls.__mro__ if "version" in vars(c)), 1)
    version = {} if said is None else {"version": said}  # a field of that name speaks for itself
    return version | ({} if cls.__module__.startswith(OURS) else {"source": source(cls)})


@cache
def source(cls: type) -> str:
    """A hash of a class's source and that of its parents outside of Lightleak; of its full name where there is none."""
    parts = []
    for one in cls.__mro__:
        if one.__module__.startswith(OURS) or one.__module__ in ("builtins", "typing", "abc"):
            continue
        try:
            parts.append(ast.dump(ast.parse(textwrap.dedent(inspect.getsource(one)))))
            parts += _captured(one)
        except (OSError, TypeError, SyntaxError):  # typed at a prompt
            parts.append(f"{one.__module__}.{one.__qualname__}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20]


def _captured(cls: type) -> list[str]:
    """The plain values around a class made within a function that its methods use: they are no part of its source."""
    return [
        f"{name} {variable} {cell.cell_contents!r}"
        for name, method in sorted(vars(cls).items())
        if isinstance(method, FunctionType) and method.__code__.co_filename != "<string>"  # which a dataclass writes
        for variable, cell in zip(method.__code__.co_freevars, method.__closure__ or ())
        if variable != "__class__" and isinstance(cell.cell_contents, bool | int | float | str | bytes | tuple | None)
    ]


def fields_of(thing: Any) -> dict[str, Any]:
    """The values of a dataclass that can change a result, by name; a later field that says nothing is left out."""
    said = {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing) if field.compare}
    silent = {f.name for f in dataclasses.fields(thing) if f.metadata == LATER and said.get(f.name) == f.default}
    return {name: value for name, value in said.items() if name not in silent}


def canonical_fields(kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as JSON data; TypeError that names the field, such as "Train.rate"."""
    spec = {}
    for name, value in values.items():
        try:
            spec[name] = canonical(value)
        except TypeError as error:
            raise TypeError(f"{kind}.{name}: {error}") from None
    return spec


def canonical(value: Any) -> Any:
    """JSON data that are equal for two values exactly when they mean the same setting."""
    if isinstance(value, int) and abs(value) >= 1 << 63:
        raise UserError(f"whole numbers in a task have 64 bits with their sign, not {value.bit_length() + 1}")
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            return {"float": str(value)}
        return int(value) if value.is_integer() else value  # 1 and 1.0 are one setting
    if isinstance(value, tuple | list):
        return [canonical(item) for item in value]
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise TypeError("the names in a dict must be strings")
        return {"dict": {name: canonical(item) for name, item in value.items()}}
    if isinstance(value, Keyed):
        return {"task": f"{value.name}/{value.key}"}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        cls = type(value)
        return {"class": called(cls), **identity(cls), "fields": canonical_fields(cls.__name__, fields_of(value))}
    raise TypeError(
        f"a {type(value).__name__} cannot be part of a key; use strings, numbers, booleans, None, tuples, "
        "dicts, dataclasses or tasks"
    )


def keyed_in(value: Any) -> Iterator[Keyed]:
    """All keyed objects within a value, at any depth."""
    if isinstance(value, Keyed):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from keyed_in(item)
    elif isinstance(value, Mapping):
        yield from keyed_in(tuple(value.values()))
    elif dataclasses.is_dataclass(value):
        yield from keyed_in(tuple(getattr(value, field.name) for field in dataclasses.fields(value)))


def plain(value: Any) -> Any:
    """Numbers, tensors, arrays, dataclasses and containers as JSON data; NaN and infinity become None."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "tolist"):  # a tensor or an array
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON; return numbers, strings and containers")
