"""Networks in StyleGAN2-ADA's pickles, read without executing anything.

Unpickling such a file runs its reductions and, through its "persistent classes", Python source that is stored in it.
Here the machine of `opcodes` walks over it instead and writes down the calls that it asks for, if their names are those
that such files are known to hold. Then `networks` looks for what the calls say.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightleak.errors import UserError
from lightleak.models.opcodes import (
    DICTIONARIES,
    MOST_BYTES,
    SETS,
    Call,
    Name,
    Refused,
    Vocabulary,
    flattened,
    read,
    strided,
)

NETWORK = "torch_utils.persistence._reconstruct_persistent_obj"
TENSOR, PARAMETER = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"
STORAGE = "torch.storage._load_from_bytes"
DTYPE, SCALARS = "numpy.dtype", ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
STORAGES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
KIND = "a StyleGAN2 pickle"
IN_FILE = Vocabulary(
    KIND, frozenset({NETWORK, TENSOR, PARAMETER, STORAGE, DTYPE, *SCALARS, *DICTIONARIES, *SETS}), stateful=(DTYPE,)
)
IN_STORAGE = Vocabulary(KIND, frozenset(STORAGES), outside=True)
MOST_SETTINGS = 500
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # how torch.save began before it wrote zip files


@dataclass(frozen=True)
class Network:
    """A network in a foreign file: its class's name, the arguments that built it, and its tensors by dotted name."""

    kind: str
    arguments: dict[str, Any]
    tensors: dict[str, Tensor]


def networks(path: str | Path, wanted: tuple[str, ...] = ("G_ema", "D")) -> dict[str, Network]:
    """Those of the requested networks that a StyleGAN2-ADA pickle holds.

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


# --- data to networks


def _network(node: Any, name: str, most: int) -> Network:
    """The network that a call describes, if its tensors are no larger than `most` bytes together."""
    kind, state = _object(node, name)
    given = state.get("_init_kwargs")
    if not isinstance(given, dict) or state.get("_init_args"):
        raise Refused(f"{name} does not say what it was built with")
    tensors = flattened(state, name, most, lambda node, part: _object(node, part)[1], _tensor)
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


def _tensor(node: Any, name: str) -> Tensor:
    match node:
        case Call(name="torch._utils._rebuild_parameter", arguments=(inner, *_)):
            node = inner
    match node:
        case Call(
            name="torch._utils._rebuild_tensor_v2",
            arguments=(Call(name="torch.storage._load_from_bytes", arguments=(bytes(data),)), offset, shape, steps, *_),
        ):
            values = _storage(data, name)
            found = strided(values, offset, shape, steps, name)
            if len(values) > 2 * found.numel() + 1024:
                raise Refused(f"{name} uses little of what is stored for it")
            return found
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
