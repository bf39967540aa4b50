"""Shared by published data sets: pictures in their published order, decoded once, divided and checked.

A data set's own file says which pictures there are, whom they show, and which of them are test images. Here they
become a `Population`. Two ways to divide are offered:

- `split="disjoint"` (default): test images are the published ones; the others are divided per person into train,
  judge and validation (45 : 30 : 10), so that the judge never saw what the target was trained on;
- `split="published"`: target and judge share all published training images, and the best epoch is chosen on the test
  images, as the papers' code does. For comparison with their numbers.

Class numbers are those of the published code, also where a person has lost all images, so that published networks fit.
"""

import filecmp
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lightleak.data import division
from lightleak.data.decoded import cache_folder, decode_cached, findings_of
from lightleak.data.images import Frame, check_size
from lightleak.data.listing import Listing
from lightleak.data.naming import Private, choose_private
from lightleak.data.people import digest_of, tests_mark
from lightleak.data.population import Finding, Images, Population
from lightleak.errors import UserError

Split = Literal["disjoint", "published"]
RELATIVE = (0.45, 0.1, 0.0, 0.3)  # train, validation, no test, judge: what training images are divided by
FULL = Frame(bilinear=True)  # torchvision's Resize: Pillow's bilinear filter
SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # what ImageFolder reads


@dataclass(frozen=True)
class Picture:
    """A file below a root, the person it shows, and the part of the picture that is used."""

    file: str
    label: int
    test: bool = False
    frame: Frame = FULL


@dataclass(frozen=True)
class Collection:
    """The pictures of a data set in their published order, before any of them is opened."""

    name: str
    root: Path
    pictures: tuple[Picture, ...]
    names: tuple[str, ...] = ()  # of the classes; empty where nobody knows who it is
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Reading:
    """How a collection is read: the settings that all published data sets share."""

    size: int
    seed: int = 0
    split: Split = "disjoint"
    private: Private = None
    public_count: int | None = None
    cache: str | Path | None = None
    watch: Callable[..., None] | None = None


def population(people: Collection, public: Collection | None, how: Reading) -> Population:
    """The population of a collection of people; `public` pictures of others are what an attacker may learn from.

    Of the people, `how.private` (a number, names, or None for all) are private and the others public.
    """
    if how.split not in ("disjoint", "published"):
        raise UserError(f"split is disjoint or published, not {how.split!r}")
    check_size(how.size)
    everybody = how.private is None or how.private == "all"
    names = people.names if everybody else choose_private(people.names, how.private, how.seed)
    first: dict[str, int] = {}
    for label, name in enumerate(people.names):
        first.setdefault(name, label)
    place = {label: label for label in range(len(names))} if everybody else {first[n]: i for i, n in enumerate(names)}
    mine = tuple(replace(p, label=place[p.label]) for p in people.pictures if p.label in place)
    rest = Counter(p.label for p in people.pictures if p.label not in place)
    other = {label: index for index, label in enumerate(sorted(rest))}
    theirs = tuple(replace(p, label=other[p.label]) for p in people.pictures if p.label in other)
    theirs, drawn = _sampled(theirs, public.pictures if public else (), how)
    public = replace(public, pictures=drawn) if public else None

    # 1. decode, once
    findings = [*people.findings, *(public.findings if public else ())]
    sets = [replace(people, pictures=mine), replace(people, pictures=theirs), public]
    read = [
        _read(one, part, how) if one and one.pictures else None for one, part in zip(sets, ("", "others", "public"))
    ]
    findings += [finding for one in read if one is not None for finding in one[2]]
    if read[0] is None or not len(read[0][0]):
        raise UserError(f"{people.root} has no usable image of {people.name}" + _first(findings))
    images, pictures, _ = read[0]

    # 2. what is there twice
    marks = [_mark(one[0].pixels) if one else [] for one in read]
    keep, doubled = _singles(marks[0], pictures, people, how.split)
    findings += doubled
    known = set(marks[0])
    same = (
        _same_files(people.root, [p.file for p in pictures], public.root, read[2][1]) if public and read[2] else set()
    )
    parts = []
    for one, seen in zip(read[1:], marks[1:]):
        if one is None:
            continue
        fresh, stolen = _fresh(one[0], one[1], seen, known, same if one is read[2] else set())
        findings += stolen
        parts.append(fresh)

    # 3. divide
    tested = torch.tensor([picture.test for picture in pictures])
    train, judge, validation = _divide(images.labels, keep & ~tested, pictures, how)
    test = keep & tested
    if how.split == "published":
        validation = test
        findings.append(
            Finding(
                "departure",
                "published split: target and judge share training images, the best epoch is chosen on test images",
            )
        )
    findings += _thin(images.labels, train, test, names)
    offset, shifted = len(other), []
    for index, part in enumerate(parts):
        is_people = index == 0 and read[1] is not None
        shifted.append(part if is_people else Images(part.pixels, part.labels + offset))
    divided = f"{how.split}, {division.SCHEME}, seed {how.seed}" if how.split == "disjoint" else how.split
    return Population(
        name=people.name,
        class_names=names,
        train=images.at(train),
        validation=images.at(validation),
        test=images.at(test),
        judge=images.at(judge),
        public=_together(shifted, how.size),
        notes=tuple(map(str, findings)),
        findings=tuple(findings),
        division=divided + tests_mark(picture.file for picture in pictures if picture.test),
        pictures=digest_of(sorted(f"{names[picture.label]}\0{picture.file}" for picture in pictures)),
    )


def strangers(
    public: Collection | None,
    how: Reading,
    root: Path,
    files: Sequence[str],
    pixels: Tensor,
    names: Sequence[str],
) -> tuple[Images, list[Finding]]:
    """Public images to go with private ones, without any that is a private file (below `root`) or looks like one."""
    if public is None:
        return Images(pixels[:0], torch.empty(0, dtype=torch.int64)), []
    drawn = _drawn(public, how)
    images, pictures, problems = _read(drawn, "public", how)
    same = _same_files(root, files, drawn.root, pictures)
    fresh, stolen = _fresh(images, pictures, _mark(images.pixels), set(_mark(pixels)), same)
    findings = [*drawn.findings, *problems, *stolen]
    alike = sorted(set(public.names) & set(names))
    if alike:
        text = f"{len(alike)} private and public classes are called alike, such as {alike[0]!r}: are they other people?"
        findings.append(Finding("overlap", text))
    return fresh, findings


def _fresh(
    images: Images, pictures: list[Picture], marks: list[bytes], known: set[bytes], same: set[int]
) -> tuple[Images, list[Finding]]:
    """The images that are no private ones, and a finding about the others."""
    stolen = [index for index, mark in enumerate(marks) if mark in known or index in same]
    if not stolen:
        return images, []
    fresh = torch.ones(len(marks), dtype=torch.bool)
    fresh[stolen] = False
    files = tuple(pictures[index].file for index in stolen)
    finding = Finding("overlap", f"{len(stolen)} public images left out (they are private ones)", files)
    return images.at(fresh), [finding]


def public_only(pictures: Collection, how: Reading) -> Population:
    """A population of public images alone, for priors; nobody in it is private."""
    check_size(how.size)
    drawn = _drawn(pictures, how)
    images, _, problems = _read(drawn, "public", how)
    nobody = Images(torch.empty(0, 3, how.size, how.size, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))
    findings = (*drawn.findings, *problems)
    if not len(images):
        raise UserError(f"{pictures.root} has no usable image of {pictures.name}" + _first(list(findings)))
    notes = tuple(map(str, findings))
    return Population(pictures.name, (), nobody, nobody, nobody, nobody, images, notes=notes, findings=findings)


def tenth(count: int, seed: int = 42) -> list[bool]:
    """Which of `count` pictures are test images in PPA: the last tenth after one shuffle by NumPy's old generator."""
    order = list(range(count))
    np.random.RandomState(seed).shuffle(order)
    chosen = set(order[int(0.9 * count) :])
    return [index in chosen for index in range(count)]


def present(root: Path, files: Sequence[str]) -> tuple[set[str], tuple[Finding, ...]]:
    """The listed files that exist below `root`, and a finding that names the missing ones."""
    absent = tuple(dict.fromkeys(file for file in files if not (root / file).is_file()))
    found = set(files) - set(absent)
    return found, (Finding("missing", f"{len(absent)} listed images are not there", absent),) if absent else ()


def folder(path: str | Path, *within: str, what: str) -> Path:
    """The first of `within` (folders below `path`, "" for itself) that exists; UserError that names all of them."""
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; {what}")
    for name in within:
        if (root / name).is_dir():
            return root / name
    raise UserError(f"{root} holds none of the folders {', '.join(within)}; {what}")


def _drawn(public: Collection, how: Reading) -> Collection:
    return replace(public, pictures=_sampled((), public.pictures, how)[1])


def _sampled(
    theirs: tuple[Picture, ...], others: tuple[Picture, ...], how: Reading
) -> tuple[tuple[Picture, ...], tuple[Picture, ...]]:
    """As many public pictures as are asked for, drawn by the seed from the set's own people and others together."""
    count, pictures = how.public_count, (*theirs, *others)
    if count is None:
        return theirs, others
    if not pictures:
        raise UserError("public_count is of public pictures, and here are none; leave it out")
    if count < 1:
        raise UserError(f"public_count is at least 1, not {count}")
    keys = [*(f"own/{picture.file}" for picture in theirs), *(picture.file for picture in others)]
    chosen = division.sample(keys, count, how.seed)
    own = sum(place < len(theirs) for place in chosen)
    drawn = tuple(pictures[place] for place in chosen)
    return drawn[:own], drawn[own:]


def _read(collection: Collection, part: str, how: Reading) -> tuple[Images, list[Picture], list[Finding]]:
    """The readable pictures, and what is wrong with the others."""
    unique = {picture.file: picture for picture in collection.pictures}
    frames = tuple(picture.frame for picture in unique.values())
    listing = Listing(collection.root, tuple(unique), (), (), frames, f"{collection.name} {part}")
    decoded, remarks = decode_cached(listing, how.size, cache_folder(how.cache), how.watch)
    reasons = defaultdict(list)
    for file, reason in decoded.problems.items():
        reasons[reason].append(file)
    findings = [
        Finding("unreadable", f"{len(files)} images left out ({reason})", tuple(files))
        for reason, files in sorted(reasons.items())
    ]
    findings += findings_of(decoded, how.size)
    findings += [Finding("departure", remark) for remark in remarks]
    pictures = [unique[file] for file in decoded.files]
    labels = torch.tensor([picture.label for picture in pictures], dtype=torch.int64)
    return Images(decoded.pixels, labels), pictures, findings


def _mark(pixels: Tensor) -> list[bytes]:
    """What a picture shows, as a hash: equal for the same picture in another file."""
    return [sha256(picture.numpy().tobytes()).digest() for picture in pixels]


def _same_files(root: Path, private: Sequence[str], other: Path, public: list[Picture]) -> set[int]:
    """Places of public files that are private ones byte by byte: another crop of them would look different."""
    sizes = defaultdict(list)
    for name in private:
        sizes[(root / name).stat().st_size].append(root / name)
    found = set()
    for index, picture in enumerate(public):
        file = other / picture.file
        twins = sizes.get(file.stat().st_size, [])
        if twins and any(filecmp.cmp(file, twin, shallow=False) for twin in twins):
            found.add(index)
    return found


def _singles(
    marks: list[bytes], pictures: list[Picture], people: Collection, split: Split
) -> tuple[Tensor, list[Finding]]:
    """Which private pictures to keep, and what was found twice; the published split keeps all.

    Otherwise a picture stays once, as a test image if it is one, and nowhere if it is said to show several people.
    """
    places = defaultdict(list)
    for index, mark in enumerate(marks):
        places[mark].append(index)
    repeated, contested, leaked = [], [], []
    for same in places.values():
        if len(same) == 1:
            continue
        if len({pictures[index].label for index in same}) > 1:
            contested += same
            continue
        first, *others = sorted(same, key=lambda index: (not pictures[index].test, index))
        repeated += others
        leaked += [index for index in others if pictures[index].test != pictures[first].test]
    keep = torch.ones(len(marks), dtype=torch.bool)
    done = "kept" if split == "published" else "left out"
    findings = []
    for indices, reason in (
        (repeated, f"duplicate images of a person {done}"),
        (contested, f"images {done} that are said to show several people"),
    ):
        if indices:
            files = tuple(pictures[index].file for index in indices)
            findings.append(Finding("duplicate", f"{len(indices)} {reason}", files))
            if split == "disjoint":
                keep[indices] = False
    if leaked and split == "published":
        files = tuple(pictures[index].file for index in leaked)
        findings.append(
            Finding("overlap", f"{len(leaked)} training images of {people.name} are test images too", files)
        )
    return keep, findings


def _divide(labels: Tensor, free: Tensor, pictures: list[Picture], how: Reading) -> tuple[Tensor, Tensor, Tensor]:
    """Train, judge and validation as sorted indices; what a picture is for depends on the seed and its name alone."""
    everything = free.nonzero().flatten()
    if how.split == "published":
        return everything, everything, everything[:0]
    names = [str(Path(pictures[index].file).with_suffix("")) for index in everything.tolist()]
    found = division.divide(names, labels[everything].tolist(), how.seed, RELATIVE, keep=True)
    which = torch.tensor([part for part in found if part is not None], dtype=torch.int64)
    train, judge, validation = (everything[which == p] for p in (division.TRAIN, division.JUDGE, division.VALIDATION))
    return train, judge, validation


def _thin(labels: Tensor, train: Tensor, test: Tensor, names: tuple[str, ...]) -> list[Finding]:
    """People with too few images to be learnt or tested."""
    learnt = torch.bincount(labels[train], minlength=len(names))
    tested = torch.bincount(labels[test], minlength=len(names))
    findings = []
    for counts, what in ((learnt < 2, "fewer than 2 training images"), (tested == 0, "no test image")):
        who = [names[index] for index in counts.nonzero().flatten().tolist()]
        if who:
            text = f"{len(who)} of {len(names)} people have {what}, such as {who[0]}"
            findings.append(Finding("few", text))
    return findings


def _together(parts: list[Images], size: int) -> Images:
    if not parts:
        return Images(torch.empty(0, 3, size, size, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))
    if len(parts) == 1:
        return parts[0]
    return Images(torch.cat([part.pixels for part in parts]), torch.cat([part.labels for part in parts]))


def _first(findings: list[Finding]) -> str:
    return f" ({findings[0]})" if findings else ""
