"""The people that a model, a reconstruction or an evaluation is about: names, not only numbers.

A label is the place of a name in a list. Whatever is kept (a classifier, reconstructions, an evaluation) carries that
list, and is compared by it: a folder that has grown, or another order of its classes, is then noticed.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

from lightleak.errors import UserError

SHOWN = 3  # names that a message spells out


@dataclass(frozen=True)
class People:
    """Names of the classes in the order of their labels, and fingerprints of who they are; "" or () is unknown."""

    names: tuple[str, ...] = ()
    who: str = ""  # hash of what makes them these people where a name does not: a rendered world's factors
    division: str = ""  # how their images are divided into train, validation, test and judge, the seed included
    pictures: str = ""  # hash of all their images, whatever their size; a picture more changes it

    def __bool__(self) -> bool:
        return bool(self.names or self.who)

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return {**asdict(self), "names": list(self.names)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None, names: Iterable[str] = ()) -> "People":
        """The inverse of `to_json`; without data (an older file) only `names` are known.

        Raises UserError if it is something else.
        """
        if data is None:
            data = {"names": list(names)}
        texts = {name: data.get(name, "") for name in ("who", "division", "pictures")} if _mapping(data) else {}
        listed = data.get("names") if _mapping(data) else None
        if not isinstance(listed, list | tuple) or not all(isinstance(one, str) for one in (*listed, *texts.values())):
            raise UserError("the people in a file are a list of names and three hashes; here is something else")
        return cls(tuple(listed), **texts)


UNKNOWN = People()


def _mapping(data: object) -> bool:
    return isinstance(data, Mapping)


def differ(first: People, second: People, here: str, there: str) -> str | None:
    """One line that says why labels of `first` (called `here`) do not mean the people of `second` (`there`), or None.

    What either does not know is not compared.
    """
    if first.names and second.names and first.names != second.names:
        return _names_differ(first.names, second.names, here, there)
    if first.who and second.who and first.who != second.who:
        return f"{here} and {there} call their people alike, but they are others (another seed or other settings?)"
    return None


def _names_differ(first: tuple[str, ...], second: tuple[str, ...], here: str, there: str) -> str:
    if sorted(first) == sorted(second):
        label = next(index for index, (one, two) in enumerate(zip(first, second)) if one != two)
        return (
            f"{here} and {there} number the same people differently: "
            f"label {label} is {first[label]!r} in {here}, {second[label]!r} in {there}"
        )
    if len(first) != len(second):
        counts = f"{len(first)} people in {here}, {len(second)} in {there}"
    else:
        counts = f"{len(first)} people in both"
    known = set(second)
    strangers = [name for name in first if name not in known] or [name for name in second if name not in set(first)]
    whose = here if strangers and strangers[0] in set(first) else there
    told = ", ".join(repr(name) for name in strangers[:SHOWN])
    more = f" and {len(strangers) - SHOWN} more" if len(strangers) > SHOWN else ""
    return f"{here} and {there} are not about the same people ({counts}; only in {whose}: {told}{more})"


def remarks(first: People, second: People, here: str, there: str) -> tuple[str, ...]:
    """Remarks although labels agree: people who are unknown, divided differently, or have other pictures."""
    if not first or not second:
        what = here if not first else there
        return (
            f"{what} does not say whose labels it holds, as older files and bare weights do not ('lightleak convert' "
            "with --class-names makes a checkpoint that does): they were taken to be the same people",
        )
    found = []
    if not divided_alike(first, second):
        found.append(
            f"{here} and {there} divide pictures otherwise (another seed, split or list): what one was trained on may "
            "judge or test the other"
        )
    elif first.pictures and second.pictures and first.pictures != second.pictures:
        found.append(f"{here} and {there} know the same people by other pictures: the folder has changed in between")
    return tuple(found)


def tests_mark(files: Iterable[str]) -> str:
    """What a division says of the test pictures that a published list, and no hash of their own, has chosen."""
    return f", tests {digest_of(sorted(files))[:8]}"


def divided_alike(first: People, second: People) -> bool:
    """Whether pictures were divided alike, as far as is known; of other pictures, other tests tell nothing."""
    (ours, tests), (theirs, others) = (_TESTS.subn("", one.division) for one in (first, second))
    if not ours or not theirs:
        return True
    compared = tests and others and first.pictures == second.pictures
    return first.division == second.division if compared else ours == theirs


_TESTS = re.compile(r", tests [0-9a-f]{8}")  # older divisions do not say it


def digest_of(lines: Iterable[str | bytes]) -> str:
    """A short hash of what `lines` say, in their order."""
    total = sha256()
    for line in lines:
        part = line.encode("utf-8", "surrogateescape") if isinstance(line, str) else line
        total.update(len(part).to_bytes(8, "big") + part)
    return total.hexdigest()[:20]
