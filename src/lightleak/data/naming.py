"""Which of a folder's people are private, and which label each one gets."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch

from lightleak.data import division
from lightleak.data.listing import printable
from lightleak.data.population import Finding
from lightleak.errors import UserError, nearest

Order = Literal["plain", "natural"]
Private = int | Literal["all"] | Sequence[str] | None  # how many, or who; None: about half
Split = Literal["stable", "drawn"]  # by each one's own hash, or as a draw among all that are there


def read_names(classes: str | Path | Sequence[str]) -> tuple[str, ...]:
    """Names of classes in the order of a model's labels: given as such, or the lines of a text file."""
    if isinstance(classes, str | Path):
        try:
            lines = Path(classes).expanduser().read_text(encoding="utf-8-sig").rstrip().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"the names of classes in {classes} cannot be read ({error}); one name a line") from None
    else:
        lines = [str(line) for line in classes]
    names = tuple(printable(line.strip()) for line in lines)
    if "" in names:
        raise UserError(f"name {names.index('') + 1} of the classes is empty; one name a line, in the order of labels")
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        raise UserError(f"the class {doubled[0]!r} is listed twice; labels would be ambiguous")
    if len(names) < division.FEWEST:
        raise UserError(f"at least {division.FEWEST} classes are needed, the list names {len(names)}")
    return names


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts 1, 2, 10, letters in lower case, as timm numbers the classes of a folder."""
    words = re.split(r"([0-9]+)", name.lower())
    return [(1, 0, word) if index % 2 == 0 else (0, int(word), "") for index, word in enumerate(words)]


def private_names(
    names: tuple[str, ...], private: Private, listed: tuple[str, ...] | None, seed: int, others: bool, split: Split
) -> tuple[str, ...]:
    """The private ones among names in plain order."""
    if listed is not None:
        if private not in (None, "all"):
            raise UserError("classes says who is private: leave private out, or write private=all")
        found = [name for name in listed if name in set(names)]
        if len(found) < division.FEWEST:
            raise UserError(
                f"of the {len(listed)} classes listed, {len(found)} have a folder of usable images; "
                f"the folders are {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
            )
        return listed
    most = len(names) if others else len(names) - 1
    if private == "all" or (private is None and others):
        return names
    return choose_private(names, private, seed, most, split)


def choose_private(
    names: tuple[str, ...], private: Private, seed: int, most: int | None = None, split: Split = "stable"
) -> tuple[str, ...]:
    """The private ones among sorted class names: those named, or as many as asked for, at most `most`."""
    most = len(names) - 1 if most is None else most
    if private is not None and not isinstance(private, int):
        chosen = division.named(names, [private] if isinstance(private, str) else private)
        if not division.FEWEST <= len(chosen) <= most:
            raise UserError(_impossible(len(names), most, len(chosen)))
        return chosen
    if private is not None and not division.FEWEST <= private <= most:
        raise UserError(_impossible(len(names), most, private))
    if split == "drawn":
        count = len(names) // 2 if private is None else private
        order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
        return tuple(sorted(names[index] for index in order[:count]))
    return division.choose(names, private, seed)


def _impossible(people: int, most: int, asked: int) -> str:
    hint = "; for all write private=all" if asked == people else ""
    return f"of {people} classes, 2 to {most} can be private, not {asked}{hint}"


def ordered(
    names: tuple[str, ...], order: Order | None, folders: Mapping[str, str]
) -> tuple[tuple[str, ...], list[Finding]]:
    """Names in the requested order, and a remark if none was requested and the two orders differ.

    What is sorted are the names that `folders` have on the disk, as torchvision and timm sort them: there an accent may
    be a sign of its own, so that Ángel comes before Bob.
    """
    plain = tuple(sorted(names, key=folders.__getitem__))
    other = tuple(sorted(names, key=lambda name: natural(folders[name])))
    if order == "natural" or plain == other or order == "plain":
        return (other if order == "natural" else plain), []
    label = next(index for index, pair in enumerate(zip(plain, other)) if pair[0] != pair[1])
    text = (
        f"classes are numbered in plain order, as by torchvision: label {label} is {plain[label]!r}; in natural order, "
        f"as by timm, it would be {other[label]!r}. Say order=plain or order=natural, or list them with classes"
    )
    return plain, [Finding("departure", text)]


def unlisted(found: tuple[str, ...], listed: tuple[str, ...], private: Private) -> list[Finding]:
    """People of the list without pictures, and folders that the list does not name."""
    known, there = set(listed), set(found)
    absent = [name for name in listed if name not in there]
    rest = tuple(name for name in found if name not in known)
    findings = []
    if absent:
        some = ", ".join(absent[:3]) + (" ..." if len(absent) > 3 else "") + nearest(absent[0], rest)
        have = "has" if len(absent) == 1 else "have"
        text = f"{len(absent)} of {len(listed)} listed classes {have} no usable images: {some}"
        findings.append(Finding("few", text))
    if rest and private == "all":
        folders, them = ("folder", "it") if len(rest) == 1 else ("folders", "them")
        text = f"{len(rest)} {folders} left out (the list of classes does not name {them})"
        findings.append(Finding("few", text, rest))
    return findings
