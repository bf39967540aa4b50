"""Read files written by torch.save without executing anything: state dicts, training states and whole modules.

Such a file is a pickle with its tensors' values beside it: in a zip file since torch 1.6, behind the pickle before. The
machine of `opcodes` reads the pickle; class names in it (of a pickled DataParallel, say) stay names, source code in it
stays text. A file may hold several networks (raw weights beside their running average); each is an `Entry`. What is
wrong with one of them, or with what lies beside them, is no reason to refuse the others.
"""

import mmap
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from lightleak.errors import UserError
from lightleak.models.foreign import DTYPE, LEGACY_MAGIC, PARAMETER, SCALARS, STORAGES, TENSOR
from lightleak.models.opcodes import (
    DICTIONARIES,
    FILLED,
    MOST_BYTES,
    MOST_LEVELS,
    MOST_MODULES,
    SETS,
    Call,
    Name,
    Refused,
    Vocabulary,
    flattened,
    read,
    strided,
)

OLD_TENSOR = "torch._utils._rebuild_tensor"
ENCODE = "_codecs.encode"  # how protocol 2 writes bytes
ARRAYS = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
DTYPES = tuple(str(dtype) for dtype in dict.fromkeys(STORAGES.values()))
# Classes of whole modules: those of libraries, and of the published projects' own files.
MODULES = (
    *("torch.nn.modules.", "torch.nn.parallel.", "torchvision.models.", "torchvision.ops.misc.", "timm.models."),
    *(
        "__main__.",
        "timm.layers.",
        "models.",
        "classify.",
        "classifier.",
        "generator.",
        "discri.",
        "evolve.",
        "facenet.",
    ),
)
# What training loops put beside a network: paths, settings, the state of schedules. Nobody reads it; it stays names.
OPAQUE = (
    *("pathlib.", "datetime.", "enum.", "omegaconf.", "ml_collections.", "yacs.config.", "easydict.", "addict."),
    *("pytorch_lightning.", "lightning.", "lightning_fabric.", "torch.optim.", "typing.", "torchmetrics."),
)
TYPES = tuple(f"{home}.{kind}" for home in ("builtins", "__builtin__") for kind in ("int", "float", "bool", "str",
              "list", "dict", "tuple", "complex", "object"))  # fmt: skip
IN_FILE = Vocabulary(
    "a checkpoint",
    frozenset({TENSOR, OLD_TENSOR, PARAMETER, ENCODE, DTYPE, "numpy.ndarray", "torch.Size", "torch.device"})
    | frozenset({*SCALARS, *ARRAYS, *DTYPES, *STORAGES, *DICTIONARIES, *FILLED, *SETS, *TYPES, "argparse.Namespace"}),
    families=(*MODULES, *OPAQUE),
    stateful=(DTYPE, *ARRAYS, "argparse.Namespace", *MODULES, *OPAQUE),
    outside=True,
)
HEADER = Vocabulary("a checkpoint", frozenset())
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")  # where the network's tensors are
MAGIC = b"\x80\x02\x8a\x0a" + LEGACY_MAGIC.to_bytes(10, "little") + b"."  # the first pickle of an old file
MOST_ENTRIES = 20_000  # in a zip file
# What other files begin with.
STRANGERS = {
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "an HDF5 file",
    b"version https://git-lfs": "a pointer of Git LFS to a file that was not fetched",
    b"<": "a web page or XML",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"Rar!": "a RAR archive; unpack it first",
    b"7z": "a 7z archive; unpack it first",
}


@dataclass(frozen=True)
class Checkpoint:
    """A network's tensors by name, their place in the file, and the numbers and texts beside them."""

    tensors: dict[str, Tensor]
    place: str
    beside: dict[str, int | float | str]


@dataclass(frozen=True)
class Entry:
    """One of the networks in a file: where it is, and its tensors by name, or why they are not read."""

    place: str
    tensors: dict[str, Tensor]
    refused: str = ""


@dataclass(frozen=True)
class Unnamed:
    """Tensors in order but without names, of the shapes of a network's: as torch_ema keeps an average of parameters."""

    place: str
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True)
class Content:
    """All networks in a file, the usual places first, and what lay beside them."""

    entries: tuple[Entry, ...]
    beside: dict[str, int | float | str]
    class_names: tuple[str, ...] = ()  # in the order of the outputs, where the file says them
    unnamed: tuple[Unnamed, ...] = ()


def checkpoint(path: str | Path) -> Checkpoint:
    """The tensors of the first network in a file that torch.save wrote; UserError, in one line, for any other.

    Takes a bare state dict, one inside of a dictionary of a training state, or a whole pickled module. Refused are
    names that such files do not need, files that are cut off or damaged, and claims beyond what is there.
    `lightleak.models.weights` reads the others in the file, and other files.
    """
    found = contents(path)
    first = found.entries[0]
    if first.refused:
        raise UserError(f"{path} is refused: {first.refused}")
    return Checkpoint(first.tensors, first.place, found.beside)


def contents(path: str | Path) -> Content:
    """All networks in a file that torch.save wrote; UserError, in one line, for any other file, as `checkpoint`."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise UserError(f"{path} is larger than {MOST_BYTES // 2**30} GB, so it is no classifier's or GAN's file")
        if size == 0:
            raise Refused("it is empty")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as data:
            return _checkpoint(path, data, file)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except Refused as reason:
        raise UserError(f"{path} is refused: {reason}") from None


def _checkpoint(path: Path, data: mmap.mmap, file: IO[bytes]) -> Content:
    start = bytes(data[:64])
    if start[:4] == b"PK\x03\x04":
        with _archive(file) as archive:
            content, storage = _zipped(archive, len(data))
            return _content(content, storage, len(data))
    if start[:1] == b"\x80":
        content, storage = _legacy(data)
        return _content(content, storage, len(data))
    if bytes(data[257:262]) == b"ustar":
        raise UserError(f"{path} is a tar archive, not what torch.save writes; unpack it first")
    if start[8:9] == b"{":
        raise UserError(f"{path} is a safetensors file, not what torch.save wrote")
    found = next((what for prefix, what in STRANGERS.items() if start.startswith(prefix)), "something else")
    raise UserError(f"{path} is not what torch.save writes, but {found}")


# --- the two containers: both give the pickle's content, and the values of a storage by its key

Storage = Callable[[str, torch.dtype, int], Tensor]


def _archive(file: IO[bytes]) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError, OverflowError, struct.error, NotImplementedError) as error:
        raise Refused(f"it is cut off or damaged ({_line(error)})") from None


def _zipped(archive: zipfile.ZipFile, size: int) -> tuple[Any, Storage]:
    """Since torch 1.6: NAME/data.pkl, and each storage as a file of its own, NAME/data/KEY, uncompressed."""
    entries = archive.infolist()
    names = {entry.filename for entry in entries}
    pickles = [name for name in names if re.fullmatch(r"([^/]+/)?data\.pkl", name)]
    if len(entries) > MOST_ENTRIES or len(names) < len(entries):
        raise Refused("it has thousands of parts, or several of one name")
    if len(pickles) != 1:
        raise Refused("it is a zip file, but not one of torch.save's")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in names:
        raise Refused("it is a TorchScript program; save the state dict of its module instead")
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
        raise Refused("its parts are compressed or encrypted, which torch.save never does")
    if sum(entry.file_size for entry in entries) > size:
        raise Refused("its parts claim to be larger than the whole")

    def part(name: str) -> bytes:
        try:
            return archive.read(name)
        except KeyError:
            raise Refused(f"{name[:80]!r} is missing from it") from None
        except (zipfile.BadZipFile, OSError, ValueError, EOFError, struct.error, NotImplementedError) as error:
            raise Refused(f"it is cut off or damaged ({_line(error)})") from None

    if f"{root}byteorder" in names and part(f"{root}byteorder") != b"little":
        raise Refused("it was written by a big-endian machine")

    @cache
    def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
        return _values(part(f"{root}data/{key}"), dtype, count, key)

    return read(part(pickles[0]), IN_FILE), storage


def _legacy(data: mmap.mmap) -> tuple[Any, Storage]:
    """Before torch 1.6: a magic number, a version, the machine's habits, the content, the storages' keys, values."""
    source = cast(IO[bytes], data)
    if read(source, HEADER) != LEGACY_MAGIC:
        raise Refused("it is a pickle, but not one of torch.save's")
    read(source, HEADER)
    habits = read(source, HEADER)
    if not isinstance(habits, dict) or habits.get("little_endian") is not True:
        raise Refused("it was written by a big-endian machine")
    mentioned: list[Call] = []
    content = read(source, IN_FILE, mentioned)
    keys = read(source, HEADER)
    kinds = {key: (dtype, count) for key, dtype, count, _ in map(_parts, mentioned)}
    if not isinstance(keys, list) or any(type(key) is not str or key not in kinds for key in keys):
        raise Refused("it does not say what its values are")
    starts: dict[str, int] = {}
    place = data.tell()
    for key in keys:
        dtype, count = kinds[key]
        if int.from_bytes(data[place : place + 8], "little") != count:
            raise Refused("it is cut off, or its values are not where they should be")
        starts[key] = place + 8
        place += 8 + count * dtype.itemsize
        if place > len(data):
            raise Refused("it is cut off")

    @cache
    def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
        if key not in starts or kinds[key] != (dtype, count):
            raise Refused("it does not hold the values of all of its tensors")
        start = starts[key]
        return _values(data[start : start + count * dtype.itemsize], dtype, count, key)

    return content, storage


def _values(raw: bytes, dtype: torch.dtype, count: int, key: str) -> Tensor:
    if len(raw) != count * dtype.itemsize:
        raise Refused(f"part {key[:40]!r} of it holds {len(raw):,} bytes, not {count * dtype.itemsize:,}")
    return torch.frombuffer(bytearray(raw), dtype=dtype) if count else torch.empty(0, dtype=dtype)


def _parts(node: Any) -> tuple[str, torch.dtype, int, Any]:
    """Key, type, number of values and view of a storage that the pickle mentions."""
    match node:
        case Call(name="persistent", arguments=(("storage", Name(text=kind), str(key), str() | None, count, *view),)):
            if kind in STORAGES and type(count) is int and 0 <= count < 2**40 and len(view) < 2:
                return key, STORAGES[kind], count, view[0] if view else None
    raise Refused("it refers to something beside it that is no storage")


# --- from the content to the networks


def _content(content: Any, storage: Storage, most: int) -> Content:
    places = _places(content)
    if not places:
        if isinstance(content, dict) and content:
            names = ", ".join(str(key)[:40] for key in list(content)[:5])
            raise Refused(f"it holds no network: expected tensors or one of {', '.join(WRAPPERS)}, found {names!r}")
        raise Refused("it holds no network: expected a state dict or a module")
    entries = []
    for place, node in places:
        try:
            entries.append(Entry(place, _network(place, node, storage, most)))
        except Refused as reason:
            entries.append(Entry(place, {}, str(reason)))
    around = content if isinstance(content, dict) else {}
    beside = {str(key)[:40]: number for key, value in around.items() if (number := _number(value)) is not None}
    unnamed = tuple(_unnamed(around, entries, storage, most))
    return Content(tuple(entries), beside, _class_names(around), unnamed)


def _unnamed(around: dict[Any, Any], entries: list[Entry], storage: Storage, most: int) -> Iterator[Unnamed]:
    """The lists of tensors whose shapes are among those of a network in the file; others are not read."""
    networks = [Counter(tuple(value.shape) for value in entry.tensors.values()) for entry in entries]
    tensor = _reader(storage, most)
    for place, nodes in _lists(around, "", set()):
        wanted = Counter(map(_shape, nodes))
        if any(wanted <= shapes for shapes in networks):
            with suppress(Refused):  # what lies beside a network is no reason to refuse it
                yield Unnamed(place, tuple(tensor(node, place) for node in nodes))


def _lists(node: dict[Any, Any], place: str, seen: set[int]) -> Iterator[tuple[str, list[Any]]]:
    """The lists of tensors in dictionaries that are no optimiser's state, and where they are."""
    if {"state", "param_groups"} <= node.keys() or id(node) in seen or place.count(".") >= MOST_LEVELS:
        return
    seen.add(id(node))
    for key, value in node.items():
        inner = f"{place}.{str(key)[:40]}".lstrip(".")
        nodes = _in_order(value)
        if len(nodes) > 1 and all(map(_is_tensor, nodes)):
            yield inner, nodes
        elif isinstance(value, dict):
            yield from _lists(value, inner, seen)


def _in_order(node: Any) -> list[Any]:
    """What is in a list, or in a dictionary of 0, 1, 2... such as a ParameterList's; [] for anything else."""
    if isinstance(node, list | tuple):
        return list(node)
    numbers = range(len(node)) if isinstance(node, dict) else ()
    return list(node.values()) if numbers and list(node) in (list(numbers), list(map(str, numbers))) else []


def _network(place: str, node: Any, storage: Storage, most: int) -> dict[str, Tensor]:
    """The tensors of a module, or of a dictionary of tensors."""
    tensor = _reader(storage, most)
    if isinstance(node, Call):
        tensors = flattened(_attributes(node, place or "it"), place or "it", 2 * most, _attributes, tensor)
    else:
        named = {name: value for name, value in node.items() if _is_tensor(value)}
        wrong = [name for name in named if type(name) is not str or not re.fullmatch(r"[\w.\-]{1,200}", name)]
        if wrong or len(node) > MOST_MODULES:
            raise Refused("its tensors have no names, or more than a network's")
        if place and (lists := [name for name, value in node.items() if isinstance(value, list)]):
            raise Refused(f"{str(lists[0])[:80]} in it is no tensor")
        tensors = {name: tensor(value, name) for name, value in named.items()}
    if not tensors:
        raise Refused("it holds no tensors")
    return tensors


def _reader(storage: Storage, most: int) -> Callable[[Any, str], Tensor]:
    """Reads tensors one after the other; Refused once they claim more than a file of so many bytes can hold."""
    used = 0

    def tensor(value: Any, name: str) -> Tensor:
        nonlocal used
        found = _tensor(value, name, storage)
        used += found.nbytes
        if used > 2 * most:  # the same bytes under many names; tied weights are stored once
            raise Refused("its tensors claim more values than the file holds")
        return found

    return tensor


def _places(content: Any) -> list[tuple[str, Any]]:
    """Where the networks are: modules, and dictionaries with tensors; first those that WRAPPERS name, from outside in.

    An optimiser's state is none, nor is a dictionary of single numbers, unless there is nothing else.
    """
    found: list[tuple[tuple[bool, int, int, int], str, Any]] = []
    seen: set[int] = set()

    def walk(node: Any, place: str, group: int, rank: int, level: int) -> None:
        if id(node) in seen or len(seen) > MOST_MODULES:
            return
        seen.add(id(node))
        if isinstance(node, Call):
            if node.name.startswith(MODULES):
                found.append(((False, group, level, rank), place, node))
            return
        if not isinstance(node, dict) or {"state", "param_groups"} <= node.keys():
            return
        if any(_is_tensor(value) for value in node.values()):
            single = not any(map(_has_values, node.values()))
            found.append(((single, group, level, rank), place, node))
        for key, value in node.items() if level < MOST_LEVELS else ():
            if type(key) is str and isinstance(value, dict | Call):
                known = key in WRAPPERS and group < 2
                inner = (0, WRAPPERS.index(key)) if known else (2, 0)
                walk(value, f"{place}.{key[:40]}".lstrip("."), *inner, level + 1)

    walk(content, "", 1, 0, 0)
    ordered = sorted(found, key=lambda each: each[0])
    return [(place, node) for (single, *_), place, node in ordered if not single or ordered[0][0][0]]


def _has_values(node: Any) -> bool:
    """Whether this is a tensor of more than one value, as far as its call says."""
    return _is_tensor(node) and _shape(node) not in ((), (1,))


def _shape(node: Any) -> tuple[int, ...]:
    """The shape that a tensor's call says; (-1,) where it says none."""
    match node:
        case Call(name="torch._utils._rebuild_parameter", arguments=(inner, *_)):
            node = inner
    match node:
        case Call(arguments=(_, _, tuple(shape), *_)) if all(type(side) is int for side in shape):
            return shape
    return (-1,)


# What training loops call the names of classes, in order, by name or by number.
CLASS_NAMES = ("class_names", "classes", "class_to_idx", "idx_to_class", "id2label", "label_names", "labels")


def _class_names(around: dict[Any, Any]) -> tuple[str, ...]:
    """Names of classes in the order of the outputs, where a dictionary or the settings in it say them."""
    inner = [around, *(around[key] for key in ("hyper_parameters", "args", "config") if key in around)]
    for table in inner:
        table = table.state if isinstance(table, Call) else table  # an argparse.Namespace
        for key in CLASS_NAMES if isinstance(table, dict) else ():
            if found := names_of(table.get(key)):
                return found
    return ()


def names_of(node: Any) -> tuple[str, ...]:
    """Names of classes from a list of them, from name -> number, or from number -> name; () if it is none of these."""
    if isinstance(node, list | tuple) and node and all(type(each) is str for each in node):
        return tuple(node)
    if not isinstance(node, dict) or not node:
        return ()
    if all(type(name) is str and type(number) is int for name, number in node.items()):
        node = {number: name for name, number in node.items()}
    try:
        ordered = {int(number): name for number, name in node.items()}
    except (TypeError, ValueError):
        return ()
    whole = ordered.keys() == set(range(len(ordered))) and all(type(name) is str for name in ordered.values())
    return tuple(ordered[number] for number in range(len(ordered))) if whole else ()


def _attributes(node: Any, name: str) -> dict[str, Any]:
    """The attributes of a pickled module."""
    match node:
        case Call(name=kind, state=dict(state)) if kind.startswith(MODULES) and "_modules" in state:
            return state
    raise Refused(f"{name} in it is no module")


def _is_tensor(node: Any) -> bool:
    return isinstance(node, Call) and node.name in (TENSOR, OLD_TENSOR, PARAMETER)


def _tensor(node: Any, name: str, storage: Storage) -> Tensor:
    match node:
        case Call(name="torch._utils._rebuild_parameter", arguments=(inner, *_)):
            node = inner
    match node:
        case Call(name=("torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor"), arguments=arguments):
            if len(arguments) >= 4:
                values, offset, shape, strides = arguments[:4]
                key, dtype, count, view = _parts(values)
                found = storage(key, dtype, count)
                match view:
                    case (str(), int(first), int(size)):
                        found = found[first : first + size]
                    case None:
                        pass
                    case _:
                        raise Refused(f"{name} is no tensor")
                return strided(found, offset, shape, strides, name)
    raise Refused(f"{name} is no tensor")


def _number(node: Any) -> int | float | str | None:
    """A number or a short text, also NumPy's numbers; None for anything else."""
    match node:
        case bool() | int() | float():
            return node
        case str() if len(node) <= 200:
            return node
        case Call(name=name, arguments=(Call(name="numpy.dtype", arguments=(kind, *_)), raw)) if name in SCALARS:
            match raw:
                case Call(name="_codecs.encode", arguments=(str(text), "latin1")) if text.isascii() or max(text) < "Ā":
                    raw = text.encode("latin1")
            formats = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i"}
            if isinstance(raw, bytes) and kind in formats and len(raw) == struct.calcsize(formats[kind]):
                return struct.unpack(formats[kind], raw)[0]
    return None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:100]
