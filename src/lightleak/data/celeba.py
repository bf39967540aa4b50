"""CelebA (Liu et al., ICCV 2015) as the 64-pixel attacks use it, and as PPA does.

- `protocol="lowres"` (GMI, KED-MI, LOMMA, PLG-MI, BiDO): aligned pictures, the centre 108 of 178 x 218 pixels, at 64
  pixels (112 for the judge). Private are the first 1,000 identities, in ascending number, of those with 30 pictures or
  more. Training, test and public pictures are lists that cannot be computed, only copied; without them the people are
  the same, and a tenth of each person's pictures is drawn for testing.
- `protocol="ppa"`: the 1,000 people with most pictures, HD crops (face factor 0.65) at 224 pixels.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch

from lightleak.data.collections import FULL, Collection, Picture, Reading, Split, present, tenth
from lightleak.data.collections import population as population_of
from lightleak.data.images import Frame
from lightleak.data.naming import Private
from lightleak.data.pictures import public as public_pictures
from lightleak.data.population import Finding, Population
from lightleak.errors import UserError
from lightleak.randomness import spread

PEOPLE = 1000
OFTEN = 30  # pictures that make an identity eligible in the 64-pixel protocol
PUBLIC = 30_000  # public pictures there
PUBLISHED = ("trainset.txt", "testset.txt", "ganset.txt")
LISTS = (("train", "train"), ("test", "test"), ("public", "gan"))  # settings that name them, and how they are called
LOW = Frame(share=108 / 178, bilinear=True)  # rows 55 to 162 and columns 35 to 142
FOLDERS = ("img_align_celeba", "img_align_celeba_png", "Img/img_align_celeba", "celeba/img_align_celeba")
IDENTITIES = ("identity_CelebA.txt", "Anno/identity_CelebA.txt", "celeba/identity_CelebA.txt")
LAYOUT = "CelebA is published as img_align_celeba/000001.jpg and identity_CelebA.txt"


def population(
    path: str | Path,
    protocol: Literal["lowres", "ppa"] = "lowres",
    size: int | None = None,
    images: str | None = None,
    train_list: str | None = None,
    test_list: str | None = None,
    public_list: str | None = None,
    seed: int = 0,
    split: Split = "disjoint",
    private: Private = None,
    public: str | None = None,
    public_count: int | None = None,
    cache: str | Path | None = None,
    watch: Callable[..., None] | None = None,
) -> Population:
    """CelebA's people by either protocol, 64 or 224 pixels unless `size` says otherwise.

    `images` is the folder of pictures below `path`, if it has another name. The 64-pixel protocol reads trainset.txt,
    testset.txt and ganset.txt where they are, or the lists that are named; without them it draws. Other people of
    CelebA are public in it unless `public` names ffhq:PATH. See `data.collections` for `split` and `private`.
    """
    if protocol not in ("lowres", "ppa"):
        raise UserError(f"CelebA is read by the protocol lowres or ppa, not {protocol!r}")
    size = size or (64 if protocol == "lowres" else 224)
    root = Path(path).expanduser()
    how = Reading(size, seed, split, private, public_count, cache, watch)
    others = public_pictures(public, size)
    named = (train_list, test_list, public_list)
    if protocol == "ppa":
        if named != (None, None, None):
            raise UserError("the protocol ppa has no lists: leave train_list, test_list and public_list out")
        return population_of(most_pictured(root, images), others, how)
    for name in named:
        if name is not None and not (root / name).is_file():
            raise UserError(f"there is no list {root / name}")
    if others is not None and public_list is not None:
        raise UserError("public names the public pictures: leave public_list out")
    lists = [name or published for name, published in zip(named, PUBLISHED)]
    people, rest = first_thousand(root, images, (lists[0], lists[1], lists[2]), split, seed)
    return population_of(people, others or rest, how)


def first_thousand(
    root: Path, images: str | None, lists: tuple[str, str, str], split: Split, seed: int
) -> tuple[Collection, Collection]:
    """The private and the public pictures of the 64-pixel protocol."""
    place = _place(root, images, FOLDERS)
    files = _files(root, place)
    train, test, public = (root / name for name in lists)
    identities = _identities(root, required=not train.is_file())
    if train.is_file() != test.is_file():
        absent = test if train.is_file() else train
        raise UserError(f"there is no {absent}; the lists of training and test images belong together")
    if train.is_file():
        people = _listed(root, place, files, train, test, identities)
    elif split == "published":
        raise UserError(f"there is no {train}; the published split cannot be computed, only copied")
    else:
        people = _computed(root, place, files, identities, seed)
    mine = {Path(picture.file).stem for picture in people.pictures}
    whose = {identities[stem] for stem in mine if stem in identities}
    return people, _public(root, place, files, public, identities, mine, whose, seed)


def most_pictured(root: Path, images: str | None) -> Collection:
    """PPA's people: class 0 has most pictures; ties go to the one who comes first in the file."""
    hd = [str(p.relative_to(root)) for p in sorted(root.glob("**/align_size*face_factor*/data"))]
    place = _place(root, images, (*hd, "img_align_celeba_hd", *FOLDERS))
    files = _files(root, place)
    identities = _identities(root, required=True)
    people = [identity for identity, _ in Counter(identities.values()).most_common(PEOPLE)]
    label = {identity: index for index, identity in enumerate(people)}
    wanted = [stem for stem, identity in identities.items() if identity in label]
    drawn = tenth(len(wanted))
    named = [files.get(stem, f"{place}/{stem}.jpg") for stem in wanted]
    there, findings = present(root, named)
    pictures = tuple(
        Picture(file, label[identities[stem]], test, FULL)
        for stem, file, test in zip(wanted, named, drawn)
        if file in there
    )
    if place in FOLDERS and images is None:
        text = (
            "PPA uses HD crops (HD-CelebA-Cropper, face factor 0.65, 224 pixels); these are the plain aligned pictures"
        )
        findings = (*findings, Finding("departure", text))
    return Collection("celeba", root, pictures, tuple(f"identity {identity}" for identity in people), findings)


def read_list(path: Path, labelled: bool | None = True) -> list[tuple[str, int]]:
    """The lines `NAME LABEL` of a list; `labelled` None: the label may be absent and is then -1.

    Raises UserError with the number of the first line that is something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the list {path} cannot be read ({error})") from None
    expected = "'NAME.jpg LABEL'" if labelled else "'NAME.jpg' or 'NAME.jpg LABEL'"
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        bare = labelled is None and len(words) == 1
        outside = words[0].startswith("/") or ".." in Path(words[0]).parts
        if outside or not (bare or (len(words) == 2 and words[1].isdigit())):
            raise UserError(f"{path}, line {number}: expected {expected}, got {line.strip()[:60]!r}")
        rows.append((words[0], -1 if bare else int(words[1])))
    if not rows:
        raise UserError(f"the list {path} is empty")
    return rows


def _place(root: Path, images: str | None, usual: Sequence[str]) -> str:
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; {LAYOUT}")
    choices = [images] if images is not None else list(usual)
    for name in choices:
        if (root / name).is_dir():
            return name
    raise UserError(f"{root} holds none of the folders {', '.join(choices)}; {LAYOUT}")


def _files(root: Path, place: str) -> dict[str, str]:
    """Stem -> file below the root: lists name .jpg or .png, whichever copy they were made from."""
    found = sorted(p.name for p in (root / place).iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    return {Path(name).stem: f"{place}/{name}" for name in found}


def _identities(root: Path, required: bool) -> dict[str, int]:
    """Stem -> identity, in the order of the file; empty if it is absent and not required."""
    for name in IDENTITIES:
        if (root / name).is_file():
            return {Path(file).stem: identity for file, identity in read_list(root / name)}
    if required:
        raise UserError(f"{root} has no identity_CelebA.txt (ask CelebA's authors for it); {LAYOUT}")
    return {}


def _listed(
    root: Path, place: str, files: dict[str, str], train: Path, test: Path, identities: dict[str, int]
) -> Collection:
    """The people of the published lists: a label is a person."""
    rows = [(*row, False) for row in read_list(train)] + [(*row, True) for row in read_list(test)]
    label_of: dict[str, int] = {}
    tested: dict[str, bool] = {}
    twice, leaked = [], []
    for name, label, is_test in rows:
        stem = Path(name).stem
        if label_of.setdefault(stem, label) != label:
            raise UserError(f"{name} has the labels {label_of[stem]} and {label} in {train.name} and {test.name}")
        if stem in tested:
            (twice if tested[stem] == is_test else leaked).append(name)
        tested[stem] = tested.get(stem, False) or is_test
    findings = []
    if twice:
        findings.append(Finding("duplicate", f"{len(twice)} images are listed twice", tuple(twice)))
    if leaked:
        text = f"{len(leaked)} images are in {train.name} and in {test.name}; they count as test images"
        findings.append(Finding("overlap", text, tuple(leaked)))
    named = {stem: files.get(stem, f"{place}/{stem}.jpg") for stem in label_of}
    there, absent = present(root, list(named.values()))
    people = max(label_of.values()) + 1
    names = [f"label {label:04d}" for label in range(people)]
    odd = []
    for stem, label in label_of.items():
        if stem not in identities:
            continue
        name = f"identity {identities[stem]}"
        if names[label].startswith("label"):
            names[label] = name
        elif names[label] != name:
            odd.append(named[stem])
    if odd:
        findings.append(
            Finding("overlap", f"{len(odd)} images belong to another identity than their label's", tuple(odd))
        )
    pictures = tuple(
        Picture(named[stem], label, tested[stem], LOW) for stem, label in label_of.items() if named[stem] in there
    )
    return Collection("celeba", root, pictures, tuple(names), (*findings, *absent))


def _computed(root: Path, place: str, files: dict[str, str], identities: dict[str, int], seed: int) -> Collection:
    """The same people without the lists: a tenth of each person's pictures, at least one, is for testing."""
    counts = Counter(identities.values())
    chosen = sorted(identity for identity, count in counts.items() if count >= OFTEN)[:PEOPLE]
    if not chosen:
        raise UserError(f"nobody in {root} has {OFTEN} pictures; is identity_CelebA.txt whole?")
    stems: dict[int, list[str]] = {identity: [] for identity in chosen}
    for stem, identity in identities.items():
        if identity in stems:
            stems[identity].append(stem)
    named = {stem: files.get(stem, f"{place}/{stem}.jpg") for group in stems.values() for stem in group}
    there, findings = present(root, list(named.values()))
    pictures = []
    for label, identity in enumerate(chosen):
        group = sorted(stems[identity])
        rng = torch.Generator().manual_seed(spread(seed, identity))
        order = torch.randperm(len(group), generator=rng).tolist()
        tested = set(order[: max(1, len(group) // 10)])
        pictures += [
            Picture(named[stem], label, index in tested, LOW)
            for index, stem in enumerate(group)
            if named[stem] in there
        ]
    remark = Finding("departure", "no list of the published split: the same people, another tenth for testing")
    names = tuple(f"identity {identity}" for identity in chosen)
    return Collection("celeba", root, tuple(pictures), names, (remark, *findings))


def _public(
    root: Path,
    place: str,
    files: dict[str, str],
    listed: Path,
    identities: dict[str, int],
    mine: set[str],
    whose: set[int],
    seed: int,
) -> Collection:
    """Pictures of other people: those of the list, or 30,000 drawn from people with few pictures."""
    findings: list[Finding] = []
    if listed.is_file():
        stems = list(dict.fromkeys(Path(name).stem for name, _ in read_list(listed, labelled=None)))
    else:
        counts = Counter(identities.values())
        pool = sorted(stem for stem, identity in identities.items() if counts[identity] < OFTEN)
        order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))[:PUBLIC]
        stems = [pool[index] for index in sorted(order.tolist())]
        text = f"no list of public pictures: {len(stems)} drawn of those of people with fewer than {OFTEN}"
        findings.append(Finding("departure", text))
    private = [stem for stem in stems if stem in mine]
    known = [stem for stem in stems if stem not in mine and identities.get(stem) in whose]
    for group, reason in ((private, "they are private images"), (known, "they show private people")):
        if group:
            names = tuple(f"{stem}.jpg" for stem in group)
            findings.append(Finding("overlap", f"{len(group)} public images left out ({reason})", names))
    left_out = {*private, *known}
    named = {stem: files.get(stem, f"{place}/{stem}.jpg") for stem in stems if stem not in left_out}
    there, absent = present(root, list(named.values()))
    people = {identity: index for index, identity in enumerate(sorted({identities.get(s, -1) for s in named}))}
    pictures = tuple(
        Picture(file, people[identities[stem]] if stem in identities else len(people) + index, frame=LOW)
        for index, (stem, file) in enumerate(named.items())
        if file in there
    )
    return Collection("celeba", root, pictures, findings=(*findings, *absent))
