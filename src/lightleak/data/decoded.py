"""Decode pictures once and keep them as bytes in a cache file, keyed by path, names, sizes and times."""

import json
import os
import warnings
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from lightleak.data.images import DecodedImage, Frame, UnreadableImageError, look
from lightleak.data.listing import Listing
from lightleak.data.population import Finding
from lightleak.errors import UserError

BATCH = 256  # files decoded between two chances to stop
VERSION = 2  # of the cache's content


@dataclass(frozen=True)
class Decoded:
    """The readable images of a listing, and the reasons why the others are not readable."""

    pixels: Tensor  # uint8, N x 3 x S x S
    files: tuple[str, ...]  # N names
    problems: dict[str, str]  # name -> reason
    marks: tuple[str, ...] = ()  # N hashes of what the files show in full; empty unless the listing asks for them
    enlarged: tuple[str, ...] = ()  # files that are smaller than the images made of them
    shallow: dict[str, int] = field(default_factory=dict)  # grey in 16-bit files -> bits by which it was scaled


def decode_files(listing: Listing, size: int, watch: Callable[..., None] | None = None) -> Decoded:
    """Every image of a listing, on a thread per core (Pillow's decoders release the lock).

    Grey 16-bit files that do not state their depth are scaled alike: by the fewest bits that hold the largest value of
    all of them, so that a dark picture among bright ones stays dark.
    """
    frames = dict(zip(listing.files, listing.frames))

    def attempt(name: str, bits: int | None = None) -> DecodedImage | str:
        try:
            return look(listing.root / name, size, frames.get(name, Frame()), bits, listing.marked)
        except UnreadableImageError as reason:
            return str(reason)

    pixels = _room(len(listing.files), size)
    good: dict[str, DecodedImage] = {}
    problems = {}
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")  # Pillow's remarks on odd files; what matters is in `problems`
        for start in range(0, len(listing.files), BATCH):
            names = listing.files[start : start + BATCH]
            for name, result in zip(names, pool.map(attempt, names)):
                if isinstance(result, str):
                    problems[name] = result
                else:
                    pixels[len(good)] = result.pixels.transpose(2, 0, 1)
                    good[name] = replace(result, pixels=result.pixels[:0])
            if watch:
                watch(start + len(names), total=len(listing.files))
        unstated = [name for name, shown in good.items() if shown.bits and not shown.stated]
        joint = max((good[name].bits for name in unstated), default=0)
        place = {name: index for index, name in enumerate(good)}
        for name in unstated:
            if good[name].bits != joint:
                again = attempt(name, joint)
                if isinstance(again, DecodedImage):
                    pixels[place[name]] = again.pixels.transpose(2, 0, 1)
                    good[name] = replace(again, pixels=again.pixels[:0], bits=joint)
    return Decoded(
        torch.from_numpy(pixels[: len(good)]),
        tuple(good),
        problems,
        tuple(shown.mark for shown in good.values()) if listing.marked else (),
        tuple(name for name, shown in good.items() if shown.enlarged),
        {name: shown.bits for name, shown in good.items() if 0 < shown.bits < 16},
    )


def _room(count: int, size: int) -> np.ndarray:
    """Memory for so many images, not yet touched; UserError if there is none."""
    try:
        return np.empty((count, 3, size, size), np.uint8)
    except (MemoryError, ValueError):
        need = count * 3 * size * size / 2**30
        raise UserError(
            f"{count:,} images of {size} x {size} pixels need {need:,.0f} GiB of memory; try a smaller size"
        ) from None


def findings_of(decoded: Decoded, size: int) -> list[Finding]:
    """Findings about the pictures that were read."""
    found = []
    for bits in sorted(set(decoded.shallow.values())):
        files = tuple(name for name, value in decoded.shallow.items() if value == bits)
        text = f"{_count(files)} grey of {bits} bits in 16-bit files; white was taken to be {2**bits - 1:,}"
        found.append(Finding("departure", text, files))
    if decoded.enlarged:
        text = f"{_count(decoded.enlarged)} smaller than {size} x {size} pixels and enlarged"
        found.append(Finding("departure", text, decoded.enlarged))
    return found


def _count(files: tuple[str, ...]) -> str:
    return "1 image is" if len(files) == 1 else f"{len(files)} images are"


def cache_folder(cache: str | Path | None) -> Path:
    """Where decoded images are kept: `cache`, or the environment's LIGHTLEAK_CACHE, or ~/.cache/lightleak."""
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
    kept = _read_cache(path, listing, size)
    if kept is not None:
        return kept, ()
    decoded = decode_files(listing, size, watch)
    try:
        _write_cache(path, decoded)
    except OSError as error:
        return decoded, (f"decoded images could not be kept in {cache} ({error.strerror or error})",)
    return decoded, ()


def _read_cache(path: Path, listing: Listing, size: int) -> Decoded | None:
    try:
        with safe_open(path, framework="pt") as file:
            index = json.loads(file.metadata()["index"])
            pixels, check = file.get_tensor("pixels"), index.pop("check")
        files, marks, enlarged = (tuple(index[name]) for name in ("files", "marks", "enlarged"))
        kept = Decoded(pixels, files, dict(index["problems"]), marks, enlarged, dict(index["shallow"]))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RecursionError):
        return None  # absent or damaged: decode again
    whole = pixels.dtype == torch.uint8 and pixels.shape == (len(kept.files), 3, size, size)
    known = set(listing.files) == {*kept.files, *kept.problems}
    if not whole or check != _check(pixels):
        return None
    return kept if known and len(kept.marks) == len(kept.files) * listing.marked else None


def _check(pixels: Tensor) -> int:
    return zlib.crc32(pixels.contiguous().numpy().data.cast("B")) if pixels.numel() else 0


def _write_cache(path: Path, decoded: Decoded) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = ("files", "problems", "marks", "enlarged", "shallow")
    content = {name: getattr(decoded, name) for name in names} | {"check": _check(decoded.pixels)}
    index = json.dumps(content)
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
