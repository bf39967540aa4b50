"""What a thing is, as a short text that no other thing shares; and what a kept state of long work was made by.

A tensor is its values, a network its structure and weights, a dataclass its class and fields, a function its code and
what it carries along. Where things lie, and on which device, does not count.
"""

import dataclasses
import functools
import types
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightleak.errors import StaleState

LATER = {"later": True}  # metadata of a field that its class got after results were kept: its default says nothing
OURS = "lightleak."  # functions of the library are known by name: an upgrade does not end a training


def told(settings: Any) -> dict[str, Any]:
    """A dataclass's fields as `dataclasses.asdict` has them, without later ones that say nothing."""
    silent = {f.name for f in dataclasses.fields(settings) if _silent(f, getattr(settings, f.name))}
    return {name: value for name, value in dataclasses.asdict(settings).items() if name not in silent}


def deciding(settings: Any) -> dict[str, str]:
    """A dataclass's fields that decide what comes of it, as text: at no depth those declared with `compare=False`."""
    return {one.name: _spelt(getattr(settings, one.name)) for one in dataclasses.fields(settings) if one.compare}


def versioned(thing: Any) -> str:
    """The name of a thing's class, with its `version` from the second on."""
    version = getattr(type(thing), "version", 1)
    return type(thing).__qualname__ + (f" version {version}" if isinstance(version, int) and version > 1 else "")


def fingerprint(*things: Any) -> str:
    """20 hexadecimal digits that change with any of `things`."""
    digest = sha256()
    for part in _parts(things, ()):
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")
    return digest.hexdigest()[:20]


def weights_of(net: nn.Module) -> str:
    """The mark of a network's weights, whatever they are called and whatever is around them; "" if it has none."""
    each = sorted(fingerprint(value) for value in net.parameters() if value.is_floating_point())
    return fingerprint(each) if each else ""


def check_made(kept: Any, made: Mapping[str, Any], place: Path) -> None:
    """StaleState that names what differs, unless the state kept at `place` was `made` by the very same."""
    if not isinstance(kept, Mapping):
        raise StaleState(f"{place} does not say what made it (an older version wrote it); delete it to train anew")
    differing = [name for name in {**made, **kept} if kept.get(name) != made.get(name) or name not in kept]
    if differing:
        raise StaleState(
            f"{place} belongs to other images, settings or another seed (what differs: {', '.join(differing)}); "
            "choose another folder or delete it to train anew"
        )


def _spelt(thing: Any) -> str:
    """Its repr, of the dataclasses in it what decides alone."""
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        inner = ", ".join(f"{name}={text}" for name, text in deciding(thing).items())
        return f"{versioned(thing)}({inner})"
    if isinstance(thing, tuple):
        return f"({', '.join(map(_spelt, thing))}{',' if len(thing) == 1 else ''})"
    if isinstance(thing, list):
        return f"[{', '.join(map(_spelt, thing))}]"
    if isinstance(thing, dict):
        return f"{{{', '.join(f'{_spelt(name)}: {_spelt(value)}' for name, value in thing.items())}}}"
    return repr(thing)


def _parts(thing: Any, inside: tuple[int, ...]) -> Iterator[str | bytes | memoryview]:
    if id(thing) in inside:
        yield "itself"
        return
    inside = (*inside, id(thing))

    def all_of(*things: Any) -> Iterator[str | bytes | memoryview]:
        for each in things:
            yield from _parts(each, inside)
        yield "."

    if isinstance(thing, Tensor):
        yield f"tensor {thing.dtype} {tuple(thing.shape)}"
        yield thing.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    elif isinstance(thing, nn.Module):
        for name, module in thing.named_modules():
            yield f"module {name} {_named(type(module))} {module.extra_repr()}"
        for name, value in (*thing.named_parameters(), *thing.named_buffers()):
            yield f"{name} {value.requires_grad}"
            yield from _parts(value, inside)
    elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        yield _named(type(thing))
        for field in dataclasses.fields(thing):
            value = getattr(thing, field.name)
            if field.compare and not _silent(field, value):
                yield from all_of(field.name, value)
    elif isinstance(thing, Mapping):
        yield "mapping"
        for name, value in thing.items():
            yield from all_of(name, value)
    elif isinstance(thing, list | tuple):
        yield "sequence"
        yield from all_of(*thing)
    elif isinstance(thing, set | frozenset):
        yield from all_of("set", *sorted(map(repr, thing)))
    elif isinstance(thing, types.MethodType):
        yield from all_of(thing.__func__, thing.__self__)
    elif isinstance(thing, functools.partial):
        yield from all_of("partial", thing.func, thing.args, thing.keywords)
    elif isinstance(thing, types.FunctionType):
        yield from all_of("function", f"{thing.__module__}.{thing.__qualname__}", thing.__defaults__)
        if not thing.__module__.startswith(OURS):
            yield from _parts(thing.__code__, inside)
        for cell in thing.__closure__ or ():
            try:
                yield from _parts(cell.cell_contents, inside)
            except ValueError:  # not filled yet
                yield "empty"
    elif isinstance(thing, types.CodeType):
        yield thing.co_code
        yield from all_of(*thing.co_consts, thing.co_names)
    elif isinstance(thing, type):
        yield _named(thing)
    elif thing is None or isinstance(thing, bool | int | float | complex | str | bytes | Path):
        yield f"{type(thing).__name__} {thing!r}"
    elif isinstance(thing, types.BuiltinFunctionType):
        yield f"{thing.__module__}.{thing.__qualname__}"
    elif isinstance(thing, np.ndarray | np.generic):
        yield f"array {thing.dtype} {thing.shape}"
        yield thing.tobytes()
    else:
        yield _named(type(thing))
        yield from _parts(vars(thing), inside) if hasattr(thing, "__dict__") else (repr(thing),)


def _silent(field: dataclasses.Field, value: Any) -> bool:
    """Whether a field came later, and has the value that says nothing."""
    return field.metadata == LATER and value == field.default


def _named(cls: type) -> str:
    return f"{cls.__module__}.{vars(cls).get('known_as', cls.__qualname__)}"
