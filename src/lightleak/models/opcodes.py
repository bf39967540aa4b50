"""A pickle as plain data: a small machine walks over its opcodes and executes nothing.

Unpickling calls whatever functions a file names. This machine knows only the opcodes that plain data need, builds
nothing but dictionaries, lists, tuples, strings and numbers, and where the file asks for a call, it writes the call
down (`Call`), if the name is one of those in the `Vocabulary` of such files.

Sizes are taken from what is there, never from what a file claims: a tensor can be no larger than its storage.
"""

import pickletools
import re
import struct
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import IO, Any

import torch
from torch import Tensor

DICTIONARIES = ("collections.OrderedDict", "dnnlib.util.EasyDict")
FILLED = ("collections.Counter", "collections.defaultdict")  # dictionaries whose call has arguments
SETS = ("builtins.set", "__builtin__.set")
# What a real file needs is far below: 0.4 GB, some 120,000 opcodes, 1,500 modules, ten levels.
MOST_BYTES, MOST_OPCODES, MOST_MODULES, MOST_LEVELS = 2**32, 300_000, 5_000, 20


@dataclass(frozen=True)
class Name:
    """A name that the file refers to; it stays a name."""

    text: str


@dataclass
class Call:
    """A call that the file asks for; it is not made."""

    name: str
    arguments: tuple[Any, ...]
    state: Any = None


@dataclass(frozen=True)
class Vocabulary:
    """What files of one kind may contain."""

    kind: str  # "a StyleGAN2 pickle"
    names: frozenset[str]
    families: tuple[str, ...] = ()  # names may also begin with one of these
    stateful: tuple[str, ...] = ()  # calls whose state may be set begin with one of these
    outside: bool = False  # it may refer to what is stored beside it


class Refused(Exception):
    """Why a file is not read."""


def read(data: bytes | IO[bytes], words: Vocabulary, mentioned: list[Call] | None = None) -> Any:
    """The contents of a pickle as plain data, `Name` and `Call`; Refused if it holds anything else.

    From a file it reads one pickle and stops behind it. What it says of things outside of itself is also added to
    `mentioned`, as `Call("persistent", (what it says,))`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pickletools on odd escapes in texts, which are refused anyway
        return _read(data, words, mentioned)


def _read(data: bytes | IO[bytes], words: Vocabulary, mentioned: list[Call] | None) -> Any:
    stack: list[Any] = []
    marks: list[int] = []  # where in the stack a collection begins
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        if not marks:
            raise Refused("it takes what is not there")
        first = marks.pop()
        items = stack[first:]
        del stack[first:]
        return items

    def pop(count: int = 1) -> list[Any]:
        if count > len(stack) - (marks[-1] if marks else 0):
            raise Refused("it takes what is not there")
        items = stack[-count:]
        del stack[-count:]
        return items

    def top(kind: type) -> Any:
        if not stack or type(stack[-1]) is not kind:
            raise Refused(f"it fills something that is no {kind.__name__}")
        return stack[-1]

    def fill(pairs: list[Any]) -> None:
        target = top(dict)
        if len(pairs) % 2 or not all(map(_is_key, pairs[::2])):
            raise Refused("it has a dictionary whose keys are no names")
        target.update(zip(pairs[::2], pairs[1::2], strict=True))

    for opcode, argument in _opcodes(data):
        match opcode:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                if len(stack) != 1 or marks:
                    raise Refused("it ends in the middle")
                return stack[0]
            case "MARK":
                marks.append(len(stack))
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "BINUNICODE8" | "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8" | "BINSTRING" | "SHORT_BINSTRING":
                stack.append(argument)
            case "EMPTY_LIST" | "EMPTY_SET":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(pop(int(opcode[-1]))))
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "APPEND":
                items = pop()
                top(list).extend(items)
            case "APPENDS" | "ADDITEMS":
                items = since_mark()
                top(list).extend(items)
            case "SETITEM":
                pairs = pop(2)
                fill(pairs)
            case "SETITEMS":
                pairs = since_mark()
                fill(pairs)
            case "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                if not stack:
                    raise Refused("it remembers what is not there")
                memo[len(memo) if opcode == "MEMOIZE" else argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                if argument not in memo:
                    raise Refused("it recalls what it never said")
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_named(argument.split(" ", 1), words))
            case "STACK_GLOBAL":
                stack.append(_named(pop(2), words))
            case "REDUCE" | "NEWOBJ":
                stack.append(_call(pop(2)))
            case "BUILD":
                target, state = pop(2)
                stack.append(_with_state(target, state, words))
            case "BINPERSID":
                if not words.outside:
                    raise Refused("it refers to objects outside of itself")
                stack.append(_beside(pop()[0]))
                if mentioned is not None and type(stack[-1]) is Call:
                    mentioned.append(stack[-1])
            case _:
                raise Refused(f"it uses the pickle opcode {opcode}, which networks do not need")
    raise Refused("it is cut off")


def _opcodes(data: bytes | IO[bytes]) -> Iterator[tuple[str, Any]]:
    """Names of opcodes and their arguments; nothing is done with them."""
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count >= MOST_OPCODES:
                raise Refused(f"it has more than {MOST_OPCODES:,} steps")
            yield opcode.name, argument
    except (ValueError, OverflowError, MemoryError, struct.error) as error:
        raise Refused(f"it is cut off or damaged ({' '.join(str(error).split())[:100]})") from None


def _is_key(value: Any) -> bool:
    """Names and numbers; what training loops note by class or by pairs lies beside the network, where nobody reads."""
    plain = (str, int, float, bool, bytes, type(None), Name)
    return type(value) in plain or (type(value) is tuple and all(type(each) in plain for each in value))


def _named(parts: list[Any], words: Vocabulary) -> Name:
    if any(type(part) is not str for part in parts):
        raise Refused("it names something by no name")
    text = ".".join(parts)
    if text not in words.names and not text.startswith(words.families):
        if text.startswith("dnnlib.tflib."):
            raise Refused("it is a TensorFlow pickle; convert it with StyleGAN2-ADA's legacy.py first")
        raise Refused(f"it names {text[:80]!r}, which {words.kind} does not need; nothing was executed")
    return Name(text)


def _call(wanted: list[Any]) -> Any:
    function, arguments = wanted
    if type(function) is not Name or type(arguments) is not tuple:
        raise Refused("it calls something that is no name")
    if function.text in DICTIONARIES:
        if arguments:
            raise Refused(f"it fills {function.text} in an unknown way")
        return {}
    if function.text in FILLED:
        return dict(arguments[0]) if arguments and type(arguments[0]) is dict else {}
    if function.text in SETS:
        return []
    return Call(function.text, arguments)


def _with_state(target: Any, state: Any, words: Vocabulary) -> Any:
    """A call with what the file sets on its result; what it sets on a dictionary (versions of modules) is left out."""
    if type(target) is dict and type(state) is dict and words.outside and set(state) <= {"_metadata"}:
        return target
    if type(target) is not Call or not target.name.startswith(words.stateful):
        raise Refused("it sets the state of something other than a number's type or a module")
    target.state = state
    return target


def _beside(node: Any) -> Any:
    """What a file says of something that is stored beside it: a storage, or a class with its source."""
    match node:
        case ("module", Name() as name, str() | None, str() | None):
            return name
    return Call("persistent", (node,))


# --- data to tensors


def strided(values: Tensor, offset: Any, shape: Any, strides: Any, name: str) -> Tensor:
    """A copy of the tensor of that shape in a storage; Refused if it claims more than the storage holds."""
    if type(offset) is not int or type(shape) is not tuple or type(strides) is not tuple:
        raise Refused(f"{name} is no tensor")
    sizes = (offset, *shape, *strides)
    if not all(type(size) is int and 0 <= size < 2**40 for size in sizes) or len(shape) != len(strides):
        raise Refused(f"{name} has an impossible shape")
    if len(shape) > 8:
        raise Refused(f"{name} has an impossible shape")
    if not prod(shape):
        return values.new_empty(shape)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if prod(shape) > len(values) or last >= len(values):
        raise Refused(f"{name} claims more values than it has")
    return values.as_strided(shape, strides, offset).clone(memory_format=torch.contiguous_format)


def flattened(
    state: dict[str, Any],
    name: str,
    most: int,
    inner: Callable[[Any, str], dict[str, Any]],
    tensor: Callable[[Any, str], Tensor],
) -> dict[str, Tensor]:
    """The tensors of a module by dotted name, at most `most` bytes in all.

    `inner(node, name)` gives the attributes of a module within, `tensor(node, name)` a value.
    """
    tensors: dict[str, Tensor] = {}
    modules = used = 0

    def walk(state: dict[str, Any], prefix: str, level: int) -> None:
        nonlocal modules, used
        modules += 1
        if modules > MOST_MODULES or level > MOST_LEVELS:
            raise Refused(f"{name} has more than {MOST_MODULES:,} parts or {MOST_LEVELS} levels")
        for kind in ("_parameters", "_buffers"):
            for part, value in _table(state, kind, prefix or name).items():
                if value is not None:
                    tensors[f"{prefix}{part}"] = found = tensor(value, f"{prefix}{part}")
                    used += found.nbytes
                    if used > most or len(tensors) > MOST_MODULES:  # the same bytes under many names
                        raise Refused(f"{name} claims more values than the file holds")
        for part, value in _table(state, "_modules", prefix or name).items():
            if value is not None:
                walk(inner(value, f"{prefix}{part}"), f"{prefix}{part}.", level + 1)

    walk(state, "", 0)
    return tensors


def _table(state: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    table = state.get(kind, {})
    if not isinstance(table, dict) or not all(type(part) is str and re.fullmatch(r"\w{1,64}", part) for part in table):
        raise Refused(f"{kind} of {name.removesuffix('.')} is no table of names")
    return table
