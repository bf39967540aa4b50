"""Any folder of folders: one folder per class, half of the classes private, the others public.

Images are found at any depth below a class folder, decoded once and kept as bytes in a cache file that is
keyed by the folder's path, the names, sizes and times of its files, and the image size. Nothing is left out
silently: what cannot be used is said in `Population.notes`.
"""

import json
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from lightleak.data.images import SUFFIXES, Frame, UnreadableImageError, decode, split
from lightleak.data.population import Finding, Images, Population
from lightleak.errors import UserError

FEWEST_IMAGES = 8  # per class: enough for every part of the split
FEWEST_CLASSES = 4  # two private ones to tell apart, two public ones to learn from
BATCH = 256  # files decoded between two chances to stop
VERSION = 1  # of the cache's content


@dataclass(frozen=True)
class Listing:
    """What lies in a folder per class, before any file is opened."""

    root: Path
    files: tuple[str, ...]  # relative to root, sorted; the first part is the class
    classes: tuple[str, ...]  # sorted, also those without images
    strangers: tuple[str, ...] = ()  # files that are no images by name, or lie outside of any class
    frames: tuple[Frame, ...] = ()  # what counts of each file; empty: the centre square of all
    part: str = ""  # which of a root's listings it is: each has a cache of its own


@dataclass(frozen=True)
class Decoded:
    """The readable images of a listing, and why the others are not."""

    pixels: Tensor  # uint8, N x 3 x S x S
    files: tuple[str, ...]  # N names
    problems: dict[str, str]  # name -> reason


def population(
    path: str | Path,
    size: int = 64,
    seed: int = 0,
    private: int | Sequence[str] | None = None,
    cache: str | Path | None = None,
    watch: Callable[..., None] | None = None,
) -> Population:
    """The images below `path`, one folder per class, as size x size pixels.

    `private` classes (a number, names, or None for half, rounded down) are drawn from the sorted names by the
    seed; the others are public. The private images are divided per class: 45 % train, 10 % validation, 15 %
    test, 30 % judge. `cache` is the folder for decoded images (default: the environment's LIGHTLEAK_CACHE,
    else ~/.cache/lightleak). `watch(done, total=...)` hears of progress. Raises UserError if fewer than 4
    classes have 8 usable images.
    """
    if size < 8:
        raise UserError(f"images need at least 8 pixels a side, got size {size}")
    listing = scan(Path(path).expanduser())  # the shell leaves the ~ of folder:~/pictures alone
    decoded, notes = decode_cached(listing, size, cache_folder(cache), watch)
    images, names, left_out = _usable(listing, decoded)
    notes = (*map(str, left_out), *notes)
    if len(names) < FEWEST_CLASSES:
        raise UserError(
            f"{path} needs at least {FEWEST_CLASSES} classes of {FEWEST_IMAGES} images, one folder each; "
            f"it has {len(names)}" + (f" ({'; '.join(notes)})" if notes else "")
        )
    private_names = choose_private(names, private, seed)
    public_names = tuple(name for name in names if name not in private_names)
    chosen = _relabel(images, names, private_names)
    train, validation, test, judge = (chosen.at(part) for part in split(chosen.labels, seed))
    public = _relabel(images, names, public_names)
    return Population(
        f"folder:{path}", private_names, train, validation, test, judge, public, None, None, notes, left_out
    )


def choose_private(names: tuple[str, ...], private: int | Sequence[str] | None, seed: int) -> tuple[str, ...]:
    """The private ones among sorted class names: those named, or as many as asked for, drawn by the seed."""
    if private is None or isinstance(private, int):
        count = len(names) // 2 if private is None else private
        if not 2 <= count <= len(names) - 1:
            raise UserError(f"of {len(names)} classes, 2 to {len(names) - 1} can be private, not {count}")
        order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
        return tuple(sorted(names[index] for index in order[:count]))
    wanted = sorted({private} if isinstance(private, str) else set(private))
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise UserError(f"no usable class is called {', '.join(unknown)}; there are {', '.join(names)}")
    if not 2 <= len(wanted) <= len(names) - 1:
        raise UserError(f"of {len(names)} classes, 2 to {len(names) - 1} can be private, not {len(wanted)}")
    return tuple(wanted)


def scan(root: Path) -> Listing:
    """What lies below `root`; hidden files and folders are passed over, links to folders not followed."""
    if not root.exists():
        raise UserError(f"there is no folder {root}; give a folder that holds one folder of images per class")
    if not root.is_dir():
        raise UserError(f"{root} is a file; give a folder that holds one folder of images per class")
    try:
        entries = sorted(entry for entry in root.iterdir() if not _hidden(entry.name))
    except OSError as error:
        raise UserError(f"{root} cannot be read ({error.strerror}); check its permissions") from None
    classes = tuple(entry.name for entry in entries if entry.is_dir())
    files, strangers = [], [entry.name for entry in entries if not entry.is_dir()]
    for name in classes:
        for folder, inner, found in os.walk(root / name):
            inner[:] = sorted(sub for sub in inner if not _hidden(sub))
            for file in sorted(found):
                if not _hidden(file):
                    target = files if Path(file).suffix.lower() in SUFFIXES else strangers
                    target.append((Path(folder) / file).relative_to(root).as_posix())
    if not classes:
        raise UserError(f"{root} holds {len(strangers)} files but no folders; give each class a folder of its own")
    if not files:
        raise UserError(f"{root} holds no images in its {len(classes)} folders; expected files like CLASS/NAME.jpg")
    return Listing(root, tuple(sorted(files)), classes, tuple(strangers))


def _hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def decode_files(listing: Listing, size: int, watch: Callable[..., None] | None = None) -> Decoded:
    """Every image of a listing, on a thread per core (Pillow's decoders release the lock)."""

    frames = dict(zip(listing.files, listing.frames))

    def attempt(name: str) -> np.ndarray | str:
        try:
            return decode(listing.root / name, size, frames.get(name, Frame()))
        except UnreadableImageError as reason:
            return str(reason)

    pixels = np.empty((len(listing.files), 3, size, size), np.uint8)
    good, problems = [], {}
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")  # Pillow's remarks on odd files; what matters is in `problems`
        for start in range(0, len(listing.files), BATCH):
            names = listing.files[start : start + BATCH]
            for name, result in zip(names, pool.map(attempt, names)):
                if isinstance(result, str):
                    problems[name] = result
                else:
                    pixels[len(good)] = result.transpose(2, 0, 1)
                    good.append(name)
            if watch:
                watch(start + len(names), total=len(listing.files))
    return Decoded(torch.from_numpy(pixels[: len(good)]), tuple(good), problems)


def cache_folder(cache: str | Path | None) -> Path:
    if cache is not None:
        return Path(cache).expanduser()
    return Path(os.environ.get("LIGHTLEAK_CACHE") or Path.home() / ".cache" / "lightleak")


def cache_path(listing: Listing, size: int, cache: Path) -> Path:
    """Where the decoded images of exactly these files at this size are kept."""
    frames = sorted({repr(frame) for frame in listing.frames})
    place = _digest(
        [str(listing.root.resolve()), str(size), str(VERSION), listing.part, *(frames if len(frames) < 9 else [])]
    )
    stamps = [] if len(frames) < 9 else [repr(frame) for frame in listing.frames]
    for name in listing.files:
        try:
            status = (listing.root / name).stat()
            stamps.append(f"{name}\0{status.st_size}\0{status.st_mtime_ns}")
        except OSError:  # a dangling link; decoding will say so
            stamps.append(f"{name}\0missing")
    return cache / f"folder-{place}-{_digest(stamps)}.safetensors"


def _digest(lines: Iterable[str]) -> str:
    return sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()[:16]


def decode_cached(
    listing: Listing, size: int, cache: Path, watch: Callable[..., None] | None
) -> tuple[Decoded, tuple[str, ...]]:
    """Every image of a listing, from the cache if it is there; and remarks on a cache that cannot be written."""
    path = cache_path(listing, size, cache)
    kept = _read_cache(path)
    if kept is not None:
        return kept, ()
    decoded = decode_files(listing, size, watch)
    try:
        _write_cache(path, decoded)
    except OSError as error:
        return decoded, (f"decoded images could not be kept in {cache} ({error.strerror or error})",)
    return decoded, ()


def _read_cache(path: Path) -> Decoded | None:
    try:
        with safe_open(path, framework="pt") as file:
            index = json.loads(file.metadata()["index"])
            return Decoded(file.get_tensor("pixels"), tuple(index["files"]), index["problems"])
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return None  # absent or damaged: decode again


def _write_cache(path: Path, decoded: Decoded) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    index = json.dumps({"files": decoded.files, "problems": decoded.problems})
    with NamedTemporaryFile(dir=path.parent, prefix=".writing-", delete=False) as file:
        unfinished = Path(file.name)
    try:
        save_file({"pixels": decoded.pixels.numpy()}, unfinished, metadata={"index": index})
        os.replace(unfinished, path)
    except SafetensorError as error:
        raise OSError(str(error)) from None
    finally:
        unfinished.unlink(missing_ok=True)
    place = path.name.rsplit("-", 1)[0]
    for stale in path.parent.glob(f"{place}-*.safetensors"):
        if stale != path:
            stale.unlink(missing_ok=True)


def _usable(listing: Listing, decoded: Decoded) -> tuple[Images, tuple[str, ...], tuple[Finding, ...]]:
    """Images without duplicates, of classes that are large enough; their names; and what was left out."""
    notes = []
    if listing.strangers:
        notes.append(_say("unreadable", "file", "no image by its name or in no class folder", listing.strangers))
    reasons = defaultdict(list)
    for name, reason in decoded.problems.items():
        reasons[reason].append(name)
    notes += [_say("unreadable", "image", reason, files) for reason, files in sorted(reasons.items())]

    owner = [name.split("/", 1)[0] for name in decoded.files]
    copies = defaultdict(list)  # by what they show: also the same picture saved twice in different bytes
    for index, picture in enumerate(decoded.pixels):
        copies[sha256(picture.numpy().tobytes()).digest()].append(index)
    repeated = [same[1:] for same in copies.values() if len({owner[i] for i in same}) == 1]
    contested = [same for same in copies.values() if len({owner[i] for i in same}) > 1]
    for groups, reason in (
        (repeated, "duplicate within its class"),
        (contested, "the same picture in several classes"),
    ):
        files = [decoded.files[index] for group in groups for index in group]
        if files:
            notes.append(_say("duplicate", "image", reason, files))
    drop = {index for group in (*repeated, *contested) for index in group}

    kept = [index for index in range(len(decoded.files)) if index not in drop]
    counts = Counter(owner[index] for index in kept)
    names = tuple(name for name in listing.classes if counts[name] >= FEWEST_IMAGES)
    for name in listing.classes:
        if name not in names:
            what = f"{counts[name]} usable images, fewer than {FEWEST_IMAGES}" if counts[name] else "no usable image"
            notes.append(Finding("few", f"class {name!r} left out: {what}"))
    kept = [index for index in kept if owner[index] in names]
    labels = torch.tensor([names.index(owner[index]) for index in kept], dtype=torch.int64)
    return Images(decoded.pixels[kept], labels), names, tuple(notes)


def _say(kind: Literal["unreadable", "duplicate"], what: str, reason: str, files: Sequence[str]) -> Finding:
    return Finding(kind, f"{len(files)} {what}{'s' if len(files) > 1 else ''} left out ({reason})", tuple(files))


def _relabel(images: Images, names: tuple[str, ...], chosen: tuple[str, ...]) -> Images:
    """The images of the chosen classes, labelled by their place among the chosen."""
    new = torch.full((len(names),), -1)
    for place, name in enumerate(chosen):
        new[names.index(name)] = place
    labels = new[images.labels]
    return Images(images.pixels[labels >= 0], labels[labels >= 0])
