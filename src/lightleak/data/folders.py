"""Load any folder of folders: one folder per class, about half of the classes private, the others public.

Images are found at any depth below a class folder, decoded once and kept as bytes in a cache file that is
keyed by the folder's path, the names, sizes and times of its files, and the image size. Nothing is left out
silently: what cannot be used is said in `Population.notes`. A folder may grow: see `data.division`.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import torch

from lightleak.data import division
from lightleak.data.collections import Reading, strangers
from lightleak.data.decoded import Decoded, cache_folder, decode_cached, findings_of
from lightleak.data.images import FRACTIONS, PARTS, check_size
from lightleak.data.images import split as draw
from lightleak.data.listing import Listing, printable, scan
from lightleak.data.naming import Order, Private, Split, ordered, private_names, read_names, unlisted
from lightleak.data.people import digest_of
from lightleak.data.pictures import public as public_pictures
from lightleak.data.population import Finding, Images, Population
from lightleak.errors import UserError

FEWEST_IMAGES = 8  # per class: enough for every part of the split
FEWEST_CLASSES = 4  # two private ones to tell apart, two public ones to learn from


@dataclass(frozen=True)
class Usable:
    """Images of classes that are large enough, without duplicates; `marks` are hashes of what they show in full."""

    images: Images  # labels are places in `names`
    names: tuple[str, ...]
    marks: tuple[str, ...]
    findings: tuple[Finding, ...] = ()

    def of(self, names: Sequence[str]) -> "Usable":
        """The images of some of the classes, labelled by their places in `names`."""
        place = {name: index for index, name in enumerate(names)}
        label = torch.tensor([place.get(name, -1) for name in self.names], dtype=torch.int64)[self.images.labels]
        kept = (label >= 0).nonzero().flatten()
        marks = tuple(self.marks[index] for index in kept.tolist())
        return Usable(Images(self.images.pixels[kept], label[kept]), tuple(names), marks)


def population(
    path: str | Path,
    size: int = 64,
    seed: int = 0,
    private: Private = None,
    cache: str | Path | None = None,
    watch: Callable[..., None] | None = None,
    public: str | None = None,
    classes: str | Path | Sequence[str] | None = None,
    order: Order | None = None,
    fewest: int = FEWEST_IMAGES,
    split: Split = "stable",
) -> Population:
    """The images below `path`, one folder per class, as size x size pixels.

    Private are about half of the classes (None), a number of them, "all", or those named; the others are public, beside
    the images that `public` names (folder:OTHER, ffhq:PATH ...; then all classes are private unless told otherwise).
    `classes`, names or a file of one name a line, says who is private and in which order a model numbers them; else
    the order is plain (1, 10, 2; None: with a note where it matters) or natural (1, 2, 10, as timm numbers folders).
    Of each private class about 45 % are for training, 10 % for validation, 15 % for tests, 30 % for the judge;
    `split="drawn"` divides as versions before this rule did, exactly but anew whenever the folder changes. `fewest`:
    usable images that a class needs. `cache` is the folder for decoded images (default: the environment's
    LIGHTLEAK_CACHE, else ~/.cache/lightleak). `watch(done, total=...)` hears of progress. Raises UserError if too few
    classes have enough usable images.
    """
    check_size(size)
    if split not in ("stable", "drawn"):
        raise UserError(f"a folder's split is stable or drawn, not {split!r}")
    if order not in (None, "plain", "natural"):
        raise UserError(f"the order of classes is plain or natural, not {order!r}")
    if classes is not None and order is not None:
        raise UserError("classes says in which order the model numbers its classes: leave order out")
    if fewest < division.FEWEST:
        raise UserError(f"a class needs at least {division.FEWEST} images, one to train on and one for the judge")
    listed = read_names(classes) if classes is not None else None
    listing = scan(Path(path).expanduser())  # the shell leaves the ~ of folder:~/pictures alone
    decoded, remarks = decode_cached(listing, size, cache_folder(cache), watch)
    usable = _usable(listing, decoded, fewest)
    findings = [*usable.findings, *findings_of(decoded, size)]
    bare = private is None and not listed and public is None
    if len(usable.names) < (needed := FEWEST_CLASSES if bare or isinstance(private, int) else division.FEWEST):
        enough = "; with the setting public folder:OTHER, or private all, two are enough"
        hint = enough if needed > division.FEWEST else ""
        raise UserError(
            f"{path} needs at least {needed} classes of {fewest} images, one folder each; it has {len(usable.names)}"
            + (f" ({'; '.join([*map(str, findings), *remarks])})" if findings or remarks else "")
            + hint
        )

    # 1. who is private, in which order
    names = private_names(usable.names, private, listed, seed, public is not None, split)
    if listed is None:
        names, numbered = ordered(names, order, {printable(name): name for name in listing.classes})
    else:
        numbered = unlisted(usable.names, names, private)
    mine = usable.of(names)

    # 2. which picture is for what
    parts = _divide(mine.marks, mine.images.labels.tolist(), seed, split)
    mine, parts, left_out = _without_empty(mine, parts, fixed=listed is not None)
    if len(mine.names) < division.FEWEST:
        raise UserError(f"{path}: {len(mine.names)} classes have pictures to train on and to judge by; 2 are needed")
    which = torch.tensor([-1 if part is None else part for part in parts])
    train, validation, test, judge = (mine.images.at(which == part) for part in range(len(PARTS)))

    # 3. who else there is
    taken = set(names)
    rest = usable.of(() if private == "all" else [name for name in usable.names if name not in taken]).images
    strange: list[Finding] = []
    if public is not None:
        how = Reading(size, seed, cache=cache, watch=watch)
        files = [file for file in decoded.files if printable(file.split("/", 1)[0]) in taken]
        source = public_pictures(public, size)
        more, strange = strangers(source, how, listing.root, files, mine.images.pixels, mine.names)
        more_labels = more.labels + (int(rest.labels.max()) + 1 if len(rest) else 0)
        rest = Images(torch.cat([rest.pixels, more.pixels]), torch.cat([rest.labels, more_labels]))
    findings += [*numbered, *left_out, *strange]
    pictures = sorted(f"{mine.names[label]}\0{mark}" for label, mark in zip(mine.images.labels.tolist(), mine.marks))
    return Population(
        name=f"folder:{path}",
        class_names=mine.names,
        train=train,
        validation=validation,
        test=test,
        judge=judge,
        public=rest,
        notes=(*map(str, findings), *remarks),
        findings=tuple(findings),
        division=f"{division.SCHEME if split == 'stable' else 'drawn'}, seed {seed}",
        pictures=digest_of(pictures),
    )


def _divide(marks: Sequence[str], labels: Sequence[int], seed: int, split: Split) -> list[int | None]:
    if split == "stable":
        return division.divide(marks, labels, seed, FRACTIONS)
    parts: list[int | None] = [None] * len(marks)
    for part, indices in enumerate(draw(torch.tensor(labels, dtype=torch.int64), seed)):
        for index in indices.tolist():
            parts[index] = part
    return parts


def _without_empty(
    mine: Usable, parts: list[int | None], fixed: bool
) -> tuple[Usable, list[int | None], list[Finding]]:
    """People of whom the division could use nothing are left out; in a `fixed` list of classes they stay."""
    labels = mine.images.labels.tolist()
    used = {label for label, part in zip(labels, parts) if part is not None}
    empty = sorted(set(labels) - used)
    told = "none of its pictures falls to training, or none to the judge; more pictures mend that"
    findings = [Finding("few", f"class {mine.names[label]!r} left out: {told}") for label in empty]
    untested = used - {label for label, part in zip(labels, parts) if part == division.TEST}
    if untested:
        text = f"{len(untested)} of {len(mine.names)} people have no test image, such as {mine.names[min(untested)]}"
        findings.append(Finding("division", text))
    if fixed or not empty:
        return mine, parts, findings
    gone = set(empty)
    kept = mine.of([name for label, name in enumerate(mine.names) if label not in gone])
    return kept, [part for label, part in zip(labels, parts) if label not in gone], findings


def _usable(listing: Listing, decoded: Decoded, fewest: int) -> Usable:
    """Images without duplicates, of classes that are large enough; and what was left out."""
    notes = _left_aside(listing, decoded)
    raw = [name.split("/", 1)[0] for name in decoded.files]
    title = {name: printable(name) for name in listing.classes}
    if len(set(title.values())) < len(title):
        twice = next(name for name, count in Counter(title.values()).items() if count > 1)
        raise UserError(f"{listing.root} has two folders that both read {twice!r}; rename one")
    copies = defaultdict(list)  # by what they show: also the same picture saved twice in different bytes
    for index, picture in enumerate(decoded.pixels):
        copies[sha256(picture.numpy().tobytes()).digest()].append(index)
    # Of copies that differ in full size the one with the smallest hash stays, whatever their names.
    groups = [sorted(same, key=lambda i: (decoded.marks[i], i)) for same in copies.values()]
    repeated = [same[1:] for same in groups if len({raw[i] for i in same}) == 1]
    contested = [same for same in groups if len({raw[i] for i in same}) > 1]
    for found, reason in ((repeated, "duplicate within its class"), (contested, "the same picture in several classes")):
        files = sorted(decoded.files[index] for group in found for index in group)
        if files:
            notes.append(_say("duplicate", "image", reason, files))
    drop = {index for group in (*repeated, *contested) for index in group}

    kept = [index for index in range(len(decoded.files)) if index not in drop]
    counts = Counter(raw[index] for index in kept)
    large = {name for name, count in counts.items() if count >= fewest}
    for name in listing.classes:
        if name not in large:
            what = f"{counts[name]} usable images, fewer than {fewest}" if counts[name] else "no usable image"
            notes.append(Finding("few", f"class {title[name]!r} left out: {what}"))
    names = tuple(sorted(title[name] for name in large))
    place = {name: index for index, name in enumerate(names)}
    kept = [index for index in kept if raw[index] in large]
    labels = torch.tensor([place[title[raw[index]]] for index in kept], dtype=torch.int64)
    marks = tuple(decoded.marks[index] for index in kept)
    return Usable(Images(decoded.pixels[kept], labels), names, marks, tuple(notes))


def _left_aside(listing: Listing, decoded: Decoded) -> list[Finding]:
    """What was never opened, or could not be read."""
    notes = []
    if listing.strangers:
        notes.append(_say("unreadable", "file", "no image by its name or in no class folder", listing.strangers))
    if listing.links:
        notes.append(_say("unreadable", "link", "to a folder, which is not followed", listing.links))
    if listing.closed:
        notes.append(_say("unreadable", "folder", "cannot be read: check permissions", listing.closed))
    reasons = defaultdict(list)
    for name, reason in decoded.problems.items():
        reasons[reason].append(name)
    return notes + [_say("unreadable", "image", reason, files) for reason, files in sorted(reasons.items())]


def _say(kind: Literal["unreadable", "duplicate"], what: str, reason: str, files: Sequence[str]) -> Finding:
    named = tuple(printable(file) for file in files)
    return Finding(kind, f"{len(files)} {what}{'s' if len(files) > 1 else ''} left out ({reason})", named)
