"""The size of a data set on disk, from its file names alone, before any picture is opened."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

from lightleak.data import celeba, dogs, faces, facescrub
from lightleak.data.collections import Collection, Split
from lightleak.data.pictures import public as public_pictures
from lightleak.data.population import Finding

LOOKED_AT = ("facescrub", "celeba", "dogs")  # data sets that can be counted so
SHARES = {"train": 0.45, "judge": 0.3, "validation": 0.1}  # of the pictures that are not for testing, over their sum


@dataclass(frozen=True)
class Outlook:
    """How many people and pictures there are, by part, if all of them can be read."""

    people: int
    images: Mapping[str, int]  # by part
    size: int  # pixels a side
    public_people: int = 0
    findings: tuple[Finding, ...] = ()

    @property
    def bytes(self) -> int:
        """What all parts take in memory; the judge of a published split shares the training images with the target."""
        return sum(self.images.values()) * 3 * self.size**2


def outlook(source: str, **settings: Any) -> Outlook | None:
    """The size of what `data.load` would read or paint; None if it cannot be counted before. UserError as in `load`."""
    kind, _, path = source.partition(":")
    if kind == "faces":
        return _painted(settings)
    if kind not in LOOKED_AT:
        return None
    return _looked(kind, path, tuple(sorted((name, value) for name, value in settings.items() if value is not None)))


def _painted(settings: Mapping[str, Any]) -> Outlook:
    told = {name: one.default for name, one in signature(faces.population).parameters.items()} | dict(settings)
    each = {"train": "images", "validation": "validation_images", "test": "test_images", "judge": "judge_images"}
    images = {part: told["people"] * told[name] for part, name in each.items()}
    others = told["public_people"]
    return Outlook(told["people"], images | {"public": others * told["public_images"]}, told["size"], others)


@cache
def _looked(kind: str, path: str, settings: tuple[tuple[str, Any], ...]) -> Outlook:
    told = dict(settings)
    split: Split = told.get("split", "disjoint")
    lowres = kind == "celeba" and told.get("protocol", "lowres") == "lowres"
    size = told.get("size") or (64 if lowres else 224)
    public: Collection | None = public_pictures(told.get("public"), size)
    if kind == "facescrub":
        people = facescrub.collection(path)
    elif kind == "dogs":
        people = dogs.collection(path, told.get("cropped", False))
    elif not lowres:
        people = celeba.most_pictured(Path(path).expanduser(), told.get("images"))
    else:
        lists = tuple(told.get(f"{name}_list", f"{file}set.txt") for name, file in celeba.LISTS)
        root = Path(path).expanduser()
        people, rest = celeba.first_thousand(root, told.get("images"), lists, split, told.get("seed", 0))
        public = public or rest
    tested = Counter(picture.test for picture in people.pictures)
    images = {"test": tested[True], "public": len(public.pictures) if public else 0}
    if split == "published":
        images |= {"train": tested[False], "judge": tested[False], "validation": tested[True]}
    else:
        whole = sum(SHARES.values())
        images |= {part: round(tested[False] * share / whole) for part, share in SHARES.items()}
    return Outlook(len(people.names), images, size, len(public.names) if public else 0, people.findings)
