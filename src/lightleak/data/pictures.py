"""Pictures of nobody in particular: FFHQ, MetFaces and AFHQ as published, for priors and as public images."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from lightleak.data.collections import SUFFIXES, Collection, Picture, Reading, folder, public_only
from lightleak.data.images import Frame
from lightleak.data.listing import printable, scan, walk
from lightleak.data.population import Finding, Population
from lightleak.errors import UserError

FFHQ, METFACES = 70_000, 1_336  # images, when whole
ATTACKED = 800 / 1024  # the centre of a 1,024-pixel face that PPA looks at
LOW = 88 / 128  # the centre of a 128-pixel thumbnail that the 64-pixel attacks look at
SMALL = 128  # pixels up to which the thumbnails are used, and their crop


def share_of(size: int) -> float:
    """The part of an aligned face that is used, at this size."""
    return LOW if size <= SMALL else ATTACKED


def ffhq_collection(path: str | Path, size: int) -> Collection:
    """FFHQ's thumbnails128x128 (up to 128 pixels) or images1024x1024, files like 00000/00000.png."""
    order = ("thumbnails128x128", "images1024x1024") if size <= SMALL else ("images1024x1024",)
    what = "FFHQ is published as images1024x1024/00000/00000.png and thumbnails128x128/00000/00000.png"
    root = folder(path, *order, "", what=what)
    files, passed = _found(root, what)
    numbers = {int(Path(file).stem) for file in files if Path(file).stem.isdigit()}
    absent = [f"{n // 1000 * 1000:05d}/{n:05d}.png" for n in range(FFHQ) if n not in numbers]
    return _collection("ffhq", root, files, share_of(size), absent, passed)


def metfaces_collection(path: str | Path, size: int) -> Collection:
    """MetFaces' folder images, 1,336 pictures of faces in paintings and sculptures."""
    what = "MetFaces is published as images/NAME.png"
    root = folder(path, "images", "", what=what)
    files, passed = _found(root, what)
    collection = _collection("metfaces", root, files, share_of(size), [], passed)
    if len(files) == METFACES:
        return collection
    finding = Finding("missing", f"MetFaces has {METFACES:,} images, here are {len(files):,}")
    return Collection("metfaces", root, collection.pictures, findings=(finding, *passed))


def afhq_collection(path: str | Path, animal: str = "dog") -> Collection:
    """AFHQ's training images of one kind of animal: train/dog, train/cat or train/wild."""
    what = "AFHQ is published as train/dog/NAME.jpg, train/cat and train/wild"
    if animal not in ("dog", "cat", "wild"):
        raise UserError(f"AFHQ has dog, cat and wild, not {animal!r}")
    root = folder(path, f"train/{animal}", f"afhq/train/{animal}", f"afhqv2/train/{animal}", what=what)
    files, passed = _found(root, what)
    return _collection(f"afhq {animal}", root, files, 1.0, [], passed)


def ffhq(
    path: str | Path,
    size: int = 64,
    public_count: int | None = None,
    seed: int = 0,
    cache: str | Path | None = None,
    watch: Callable[..., None] | None = None,
) -> Population:
    """FFHQ as public images, `public_count` of them drawn by the seed (None: all)."""
    how = Reading(size, seed, public_count=public_count, cache=cache, watch=watch)
    return public_only(ffhq_collection(path, size), how)


def metfaces(
    path: str | Path,
    size: int = 224,
    public_count: int | None = None,
    seed: int = 0,
    cache: str | Path | None = None,
    watch: Callable[..., None] | None = None,
) -> Population:
    """MetFaces as public images."""
    how = Reading(size, seed, public_count=public_count, cache=cache, watch=watch)
    return public_only(metfaces_collection(path, size), how)


def afhq(
    path: str | Path,
    size: int = 224,
    animal: Literal["dog", "cat", "wild"] = "dog",
    public_count: int | None = None,
    seed: int = 0,
    cache: str | Path | None = None,
    watch: Callable[..., None] | None = None,
) -> Population:
    """One kind of AFHQ's animals as public images."""
    how = Reading(size, seed, public_count=public_count, cache=cache, watch=watch)
    return public_only(afhq_collection(path, animal), how)


def folder_collection(path: str | Path) -> Collection:
    """The pictures of a folder with one folder per person; each one beside such folders is of a person without name."""
    root = Path(path).expanduser()
    listing = scan(root, loose=True)
    people = list(dict.fromkeys(file.split("/", 1)[0] for file in listing.files if "/" in file))
    place = {name: index for index, name in enumerate(people)}
    loose = (file for file in listing.files if "/" not in file)
    labels = {file: len(people) + index for index, file in enumerate(loose)}
    labels |= {file: place[file.split("/", 1)[0]] for file in listing.files if "/" in file}
    pictures = tuple(Picture(file, labels[file], frame=Frame()) for file in listing.files)
    findings = _passed_over(listing.strangers, listing.links, listing.closed)
    return Collection("folder", root, pictures, tuple(map(printable, people)), findings)


# What `public="NAME:PATH"` may name: (path, size) -> pictures.
PUBLIC: dict[str, Callable[[str, int], Collection]] = {
    "ffhq": ffhq_collection,
    "metfaces": metfaces_collection,
    "afhq": lambda path, size: afhq_collection(path),  # noqa: ARG005
    "folder": lambda path, size: folder_collection(path),  # noqa: ARG005
}


def public(source: str | None, size: int) -> Collection | None:
    """The pictures that "ffhq:PATH", "metfaces:PATH", "afhq:PATH" or "folder:PATH" names; None for none."""
    if not source:
        return None
    name, path = source_of(source)
    return PUBLIC[name](path, size)


def source_of(source: str) -> tuple[str, str]:
    """The name and the path in "ffhq:PATH"; UserError for another name, or where nothing is."""
    name, _, path = source.partition(":")
    if name not in PUBLIC or not path:
        raise UserError(f"public images are one of {', '.join(f'{one}:PATH' for one in PUBLIC)}, not {source!r}")
    if not Path(path).expanduser().exists():
        raise UserError(f"there is nothing at {path}, where public images {source} are looked for")
    return name, path


def _found(root: Path, what: str) -> tuple[list[str], tuple[Finding, ...]]:
    links: list[str] = []
    closed: list[str] = []
    files = [name for name in walk(root, links, closed) if name.lower().endswith(SUFFIXES)]
    if not files:
        raise UserError(f"{root} holds no images; {what}")
    return files, _passed_over((), tuple(links), tuple(closed))


def _passed_over(files: tuple[str, ...], links: tuple[str, ...], closed: tuple[str, ...]) -> tuple[Finding, ...]:
    found = (
        (files, "no images by their names"),
        (links, "links to folders, which are not followed"),
        (closed, "folders that cannot be read"),
    )
    return tuple(
        Finding("unreadable", f"public images: {len(names)} left out ({why})", tuple(map(printable, names)))
        for names, why in found
        if names
    )


def _collection(
    name: str, root: Path, files: list[str], share: float, absent: list[str], passed: tuple[Finding, ...]
) -> Collection:
    frame = Frame(share=share, bilinear=True)
    pictures = tuple(Picture(file, index, frame=frame) for index, file in enumerate(files))
    text = f"{len(absent):,} of {len(absent) + len(files):,} images are not there"
    missing = (Finding("missing", text, tuple(absent)),) if absent else ()
    return Collection(name, root, pictures, findings=(*missing, *passed))
