"""Divide pictures by a list of those that a model was trained on, if its owner has kept one."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from lightleak.data.decoded import cache_folder, decode_cached
from lightleak.data.listing import printable, scan
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


def folder_of(source: str) -> Path:
    """The folder of pictures that a list can belong to; UserError for other data."""
    if not source.startswith(FOLDER):
        raise UserError(f"a list of training pictures belongs to a folder of pictures, not to {source}")
    return Path(source.removeprefix(FOLDER)).expanduser()


def redivided(population: Population, source: str, listed: tuple[str, ...]) -> Population:
    """The population with listed pictures for training and all others held out, for validation, tests and judges.

    Files are named as below the folder, or with more folders before (the last ones decide). A picture counts by what it
    shows: a listed one under another name is the same. Held-out pictures that the division meant for training go to the
    judge. A note says which listed files match nothing; UserError if most do.
    """
    matched = _matched(source, listed, population.size)
    shown = {_mark(picture) for picture in matched.listed}
    sets = {name: getattr(population, name) for name in ("train", "validation", "test", "judge")}
    inside = {
        name: torch.tensor([_mark(picture) in shown for picture in images.pixels], dtype=torch.bool)
        for name, images in sets.items()
    }
    train = _together([images.at(inside[name]) for name, images in sets.items()])
    held = {name: images.at(~inside[name]) for name, images in sets.items()}
    judge = _together([held["judge"], held["train"]])
    moved = sum(int(inside[name].sum()) for name in ("validation", "test", "judge"))
    findings = [finding for finding in population.findings if finding.kind != "division"]
    gone = {str(finding) for finding in population.findings if finding.kind == "division"}
    notes = [note for note in population.notes if note not in gone]
    text = (
        f"{len(train)} pictures are on the list of the model's training; {moved} of them would have been held out, and "
        "are not"
    )
    new = [Finding("departure", text)]
    if matched.missed:
        text = f"listed training pictures that are there by another name count as held out; {matched.told}"
        new.append(Finding("missing", text, matched.missed))
    for what, images in (("training picture on the list", train), ("held-out test picture", held["test"])):
        absent = population.classes - len(images.labels.unique())
        if absent:
            new.append(Finding("division", f"{absent} of {population.classes} people have no {what}"))
    return replace(
        population,
        train=train,
        validation=held["validation"],
        test=held["test"],
        judge=judge,
        notes=(*notes, *map(str, new)),
        findings=(*findings, *new),
        division=f"{population.division}, by list",
    )


def unmatched(source: str, listed: tuple[str, ...], size: int) -> tuple[str, ...]:
    """The listed files that are no readable picture below the folder."""
    return _matched(source, listed, size).missed


def overlapping(missed: int | None, do: str, what: str) -> str:
    """The warning that pictures which `do` something may have been trained on; empty if the list tells of all.

    `missed`: how many listed pictures match none, None without a list.
    """
    if missed == 0:
        return ""
    why = (
        "The model's own training list was not given (--train-list)" if missed is None else
        f"Of the model's training list {missed} {'picture was' if missed == 1 else 'pictures were'} not found"
    )  # fmt: skip
    return f"{why}: pictures that {do} here may have been trained on, which flatters {what}."


@dataclass(frozen=True)
class _Matched:
    """A list held against the readable pictures of a folder."""

    listed: Tensor  # the pictures on the list, N x 3 x S x S bytes
    missed: tuple[str, ...]  # lines that match none
    told: str  # how many these are


def _matched(source: str, listed: tuple[str, ...], size: int) -> _Matched:
    """What a list names below the folder of `source`, accents composed; UserError if most of it is not there."""
    root = folder_of(source)
    decoded = decode_cached(scan(root), size, cache_folder(None), None)[0]
    names = [printable(name) for name in decoded.files]
    there = frozenset(names)
    found = {line: next((tail for tail in _tails(line, root) if tail in there), None) for line in listed}
    known, missed = set(found.values()), tuple(line for line, name in found.items() if name is None)
    verb = "is" if len(missed) == 1 else "are"
    told = f"{len(missed)} of {len(found)} listed training pictures {verb} not among the readable ones below {root}"
    if 2 * len(missed) > len(found):
        example = names[0] if names else "PERSON/1.png"
        raise UserError(f"{told}, such as {missed[0]}; name them as there, such as {example}")
    on_list = torch.tensor([name in known for name in names], dtype=torch.bool)
    return _Matched(decoded.pixels[on_list], missed, told)


def _tails(line: str, root: Path) -> Iterator[str]:
    """What a listed name may be called below the folder, the likeliest first."""
    path = PurePosixPath(printable(Path(line).as_posix()))
    for start in map(printable, (root.as_posix(), root.absolute().as_posix())):
        if path.is_relative_to(start):
            yield str(path.relative_to(start))
    for first in range(len(path.parts)):  # the list may have been written beside another copy of the folder
        yield "/".join(path.parts[first:])


def _together(parts: list[Images]) -> Images:
    return Images(torch.cat([part.pixels for part in parts]), torch.cat([part.labels for part in parts]))


def _mark(picture: torch.Tensor) -> bytes:
    return sha256(picture.contiguous().numpy().tobytes()).digest()
