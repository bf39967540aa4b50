"""Networks in StyleGAN2-ADA's pickles, read without executing anything.

Unpickling such a file runs its reductions and, through its "persistent classes", Python source that is stored in it.
Here a small machine walks over the opcodes instead. It knows only those that plain data need, builds nothing but
dictionaries, lists, tuples, strings and numbers, and where the file asks for a call, it writes the call down
(`Call`), if the name is one of those that such files are known to hold. Then `networks` looks for what the calls say.

Sizes are taken from what is there, never from what a file claims: a tensor can be no larger than the bytes of its
storage.
"""

import pickletools
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightleak.errors import UserError

NETWORK = "torch_utils.persistence._reconstruct_persistent_obj"
TENSOR, PARAMETER = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"
STORAGE = "torch.storage._load_from_bytes"
DTYPE, SCALARS = "numpy.dtype", ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
DICTIONARIES = ("collections.OrderedDict", "dnnlib.util.EasyDict")
SETS = ("builtins.set", "__builtin__.set")
STORAGES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
IN_FILE = frozenset({NETWORK, TENSOR, PARAMETER, STORAGE, DTYPE, *SCALARS, *DICTIONARIES, *SETS})
IN_STORAGE = frozenset(STORAGES)
# What a real file needs is far below: 0.4 GB, some 30,000 opcodes, 300 modules, five levels.
MOST_BYTES, MOST_OPCODES, MOST_MODULES, MOST_LEVELS, MOST_SETTINGS = 2**32, 300_000, 5_000, 20, 500
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # how torch.save began before it wrote zip files


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
class Network:
    """A network of a foreign file: its class's name, the arguments it was built with, its tensors by dotted name."""

    kind: str
    arguments: dict[str, Any]
    tensors: dict[str, Tensor]


def networks(path: str | Path, wanted: tuple[str, ...] = ("G_ema", "D")) -> dict[str, Network]:
    """The wanted networks of a StyleGAN2-ADA pickle, those that it holds.

    UserError, in one line, for anything else: another kind of file, a name that such files do not hold, a file that
    is cut off, and one that claims more than it has or nests deeper than a network does.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path} is larger than {MOST_BYTES // 2**30} GB, so it is no StyleGAN2 pickle")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    if data[:1] != b"\x80":
        raise UserError(f"{path} is not what StyleGAN2-ADA writes: a pickle with the networks G, D and G_ema")
    try:
        content = read(data, IN_FILE)
        if not isinstance(content, dict):
            raise Refused("it holds no dictionary of networks")
        found = {name: _network(content[name], name, len(data)) for name in wanted if content.get(name) is not None}
    except Refused as reason:
        raise UserError(f"{path} is refused: {reason}") from None
    if not found:
        raise UserError(f"{path} holds none of the networks {', '.join(wanted)}")
    return found


class Refused(Exception):
    """Why a file is not read."""


# --- opcodes to data


def read(data: bytes | BytesIO, names: frozenset[str]) -> Any:
    """What a pickle says, as plain data, `Name` and `Call`; Refused if it says anything but that.

    From a BytesIO it reads one pickle and stops behind it.
    """
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
        if len(pairs) % 2 or any(type(key) not in (str, int) for key in pairs[::2]):
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
            case "BINUNICODE8" | "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8":
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
                stack.append(_named(argument.split(" ", 1), names))
            case "STACK_GLOBAL":
                stack.append(_named(pop(2), names))
            case "REDUCE" | "NEWOBJ":
                stack.append(_call(pop(2)))
            case "BUILD":
                target, state = pop(2)
                if type(target) is not Call or target.name != DTYPE:
                    raise Refused("it sets the state of something other than a number's type")
                target.state = state
                stack.append(target)
            case "BINPERSID":
                if names is not IN_STORAGE:
                    raise Refused("it refers to objects outside of itself")
                stack.append(Call("persistent", tuple(pop())))
            case _:
                raise Refused(f"it uses the pickle opcode {opcode}, which networks do not need")
    raise Refused("it is cut off")


def _opcodes(data: bytes | BytesIO) -> Iterator[tuple[str, Any]]:
    """Names of opcodes and their arguments; nothing is done with them."""
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count >= MOST_OPCODES:
                raise Refused(f"it has more than {MOST_OPCODES:,} steps")
            yield opcode.name, argument
    except (ValueError, OverflowError, MemoryError, struct.error) as error:
        raise Refused(f"it is cut off or damaged ({' '.join(str(error).split())[:100]})") from None


def _named(parts: list[Any], names: frozenset[str]) -> Name:
    if any(type(part) is not str for part in parts):
        raise Refused("it names something by no name")
    text = ".".join(parts)
    if text not in names:
        if text.startswith("dnnlib.tflib."):
            raise Refused("it is a TensorFlow pickle; convert it with StyleGAN2-ADA's legacy.py first")
        raise Refused(f"it names {text[:80]!r}, which a StyleGAN2 pickle does not need; nothing was executed")
    return Name(text)


def _call(wanted: list[Any]) -> Any:
    function, arguments = wanted
    if type(function) is not Name or type(arguments) is not tuple:
        raise Refused("it calls something that is no name")
    if function.text in DICTIONARIES:
        if arguments:
            raise Refused(f"it fills {function.text} in an unknown way")
        return {}
    if function.text in SETS:
        return []
    return Call(function.text, arguments)


# --- data to networks


def _network(node: Any, name: str, most: int) -> Network:
    """The network that a call describes, if its tensors are no larger than `most` bytes together."""
    kind, state = _object(node, name)
    given = state.get("_init_kwargs")
    if not isinstance(given, dict) or state.get("_init_args"):
        raise Refused(f"{name} does not say what it was built with")
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
                    tensors[f"{prefix}{part}"] = tensor = _tensor(value, f"{prefix}{part}")
                    used += tensor.nbytes
                    if used > most or len(tensors) > MOST_MODULES:  # the same bytes under many names
                        raise Refused(f"{name} claims more values than the file holds")
        for part, value in _table(state, "_modules", prefix or name).items():
            if value is not None:
                walk(_object(value, f"{prefix}{part}")[1], f"{prefix}{part}.", level + 1)

    walk(state, "", 0)
    return Network(kind, _plain(given, iter(range(MOST_SETTINGS))), tensors)


def _object(node: Any, name: str) -> tuple[str, dict[str, Any]]:
    """Class name and attributes of a module."""
    match node:
        case Call(
            name="torch_utils.persistence._reconstruct_persistent_obj",
            arguments=({"type": "class", "version": 6, "class_name": str(kind), "state": dict(state)},),
        ):
            return kind, state
    raise Refused(f"{name} is no network in StyleGAN2-ADA's format (persistent class, version 6)")


def _table(state: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    table = state.get(kind, {})
    if not isinstance(table, dict) or not all(type(part) is str and re.fullmatch(r"\w{1,64}", part) for part in table):
        raise Refused(f"{kind} of {name.removesuffix('.')} is no table of names")
    return table


def _tensor(node: Any, name: str) -> Tensor:
    match node:
        case Call(name="torch._utils._rebuild_parameter", arguments=(inner, *_)):
            node = inner
    match node:
        case Call(
            name="torch._utils._rebuild_tensor_v2",
            arguments=(
                Call(name="torch.storage._load_from_bytes", arguments=(bytes(data),)),
                int(offset),
                tuple(shape),
                tuple(strides),
                *_,
            ),
        ):
            values = _storage(data, name)
            sizes = (offset, *shape, *strides)
            if not all(type(size) is int and 0 <= size < 2**40 for size in sizes) or len(shape) != len(strides):
                raise Refused(f"{name} has an impossible shape")
            if len(shape) > 8 or not prod(shape):
                raise Refused(f"{name} has an impossible shape")
            last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
            if prod(shape) > len(values) or last >= len(values):
                raise Refused(f"{name} claims more values than it has")
            if len(values) > 2 * prod(shape) + 1024:
                raise Refused(f"{name} uses little of what is stored for it")
            return values.as_strided(shape, strides, offset).clone(memory_format=torch.contiguous_format)
    raise Refused(f"{name} is no tensor")


def _storage(data: bytes, name: str) -> Tensor:
    """The values in what torch.save wrote for a storage: five small pickles, a count, and raw little-endian values."""
    file = BytesIO(data)
    magic, _, system, stored, _ = (read(file, IN_STORAGE) for _ in range(5))
    match stored:
        case Call(name="persistent", arguments=(("storage", Name(text=kind), str(), str(), int(), None),)):
            raw, dtype = data[file.tell() :], STORAGES[kind]
            count = int.from_bytes(raw[:8], "little")
            whole = len(raw) == 8 + count * dtype.itemsize
            little = isinstance(system, dict) and system.get("little_endian") is True
            if magic == LEGACY_MAGIC and little and whole:
                return torch.frombuffer(bytearray(raw[8:]), dtype=dtype) if count else torch.empty(0, dtype=dtype)
    raise Refused(f"the values of {name} are damaged or not in the format of their time")


def _plain(value: Any, steps: Iterator[int]) -> Any:
    """A setting as plain data, in no more than so many steps; NumPy's numbers become Python's."""
    if next(steps, None) is None:
        raise Refused(f"it has more than {MOST_SETTINGS} settings")
    match value:
        case None | bool() | int() | float() | str():
            return value
        case list() | tuple():
            return [_plain(item, steps) for item in value]
        case dict():
            return {key: _plain(item, steps) for key, item in value.items()}
        case Call(name=name, arguments=(Call(name="numpy.dtype", arguments=("f8", *_)), bytes(data))):
            if name in SCALARS and len(data) == 8:
                return struct.unpack("<d", data)[0]
    raise Refused("its settings hold something other than numbers and names")
