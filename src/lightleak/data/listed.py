"""Divide pictures by a list of those that a model was trained on, if its owner has kept one."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path, PurePosixPath

import torch

from lightleak.data.decoded import cache_folder, decode_cached
from lightleak.data.listing import scan
from lightleak.data.population import Finding, Images, Population
from lightleak.errors import UserError

FOLDER = "folder:"


def read_list(path: str | Path) -> tuple[str, ...]:
    """The files that a text file names, one per line; blank lines and lines that begin with # are skipped."""
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the list of training pictures {path} cannot be read ({error}); one file a line") from None
    names = tuple(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
    if not names:
        raise UserError(f"the list of training pictures {path} names no file; one file a line")
    return names


def redivided(population: Population, source: str, listed: tuple[str, ...]) -> Population:
    """The population with listed pictures for training and all others held out, for validation, tests and judges.

    Files are named as below the folder, or with more folders before (the last ones decide). A picture counts by what it
    shows: a listed one under another name is the same. Held-out pictures that the division meant for training go to the
    judge. UserError if no listed file is there.
    """
    root = _root(source)
    listing = scan(root)
    decoded = decode_cached(listing, population.size, cache_folder(None), None)[0]
    known = {_tail(name, root) for name in listed}
    shown = {_mark(picture) for name, picture in zip(decoded.files, decoded.pixels) if PurePosixPath(name) in known}
    if not shown:
        raise UserError(
            f"none of the {len(listed)} listed training pictures lies below {root}; name them as there, such as "
            f"{decoded.files[0] if decoded.files else 'PERSON/1.png'}"
        )
    sets = {name: getattr(population, name) for name in ("train", "validation", "test", "judge")}
    inside = {
        name: torch.tensor([_mark(picture) in shown for picture in images.pixels], dtype=torch.bool)
        for name, images in sets.items()
    }
    train = _together([images.at(inside[name]) for name, images in sets.items()])
    held = {name: images.at(~inside[name]) for name, images in sets.items()}
    judge = _together([held["judge"], held["train"]])
    moved = sum(int(inside[name].sum()) for name in ("validation", "test", "judge"))
    notes = [
        f"{len(train)} pictures are on the list of the model's training; {moved} of them would have been held out, and "
        "are not"
    ]
    for what, images in (("training picture on the list", train), ("held-out test picture", held["test"])):
        absent = population.classes - len(images.labels.unique())
        if absent:
            notes.append(f"{absent} of {population.classes} people have no {what}")
    findings = tuple(Finding("departure", note) for note in notes)
    return replace(
        population,
        train=train,
        validation=held["validation"],
        test=held["test"],
        judge=judge,
        notes=(*population.notes, *notes),
        findings=(*population.findings, *findings),
        division=f"{population.division}, by list",
    )


def _root(source: str) -> Path:
    if not source.startswith(FOLDER):
        raise UserError(f"a list of training pictures belongs to a folder of pictures, not to {source}")
    return Path(source.removeprefix(FOLDER)).expanduser()


def _tail(name: str, root: Path) -> PurePosixPath:
    """A listed name as it stands below the folder."""
    path = PurePosixPath(Path(name).as_posix())
    for start in (root, root.absolute()):
        if path.is_relative_to(start.as_posix()):
            return path.relative_to(start.as_posix())
    parts = [part for part in path.parts if part != "/"]
    for first in range(len(parts)):  # the list may have been written beside another copy of the folder
        tail = PurePosixPath(*parts[first:])
        if (root / tail).is_file():
            return tail
    return path


def _together(parts: list[Images]) -> Images:
    return Images(torch.cat([part.pixels for part in parts]), torch.cat([part.labels for part in parts]))


def _mark(picture: torch.Tensor) -> bytes:
    return sha256(picture.contiguous().numpy().tobytes()).digest()
