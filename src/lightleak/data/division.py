"""Who is private and what each picture is for, decided for each by its own hash, so that adding pictures moves nobody.

A number in [0, 1) is made of the seed and the person's name, or the seed and what a picture shows. It does not depend
on what else lies in the folder. So a person who was private stays private when others come, a picture stays in its
part, and a judge is never trained on what a target was trained on, whenever and at whatever size the data are read.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from hashlib import sha256
from typing import TypeVar

from lightleak.errors import UserError

SCHEME = "by hash, 1"  # of `divide` and `choose`; another meaning needs another name
FEWEST = 2  # private people to tell apart
TRAIN, VALIDATION, TEST, JUDGE = range(4)

Key = TypeVar("Key", bound=Hashable)


def number(*key: object) -> float:
    """A number in [0, 1) that belongs to `key` alone."""
    text = "\0".join(map(str, key)).encode("utf-8", "surrogateescape")
    return int.from_bytes(sha256(text).digest()[:6], "big") / 2**48


def choose(names: Sequence[str], private: int | None, seed: int, fewest_public: int = FEWEST) -> tuple[str, ...]:
    """The private ones among `names`, in their order: about half (None), or as many as asked for.

    About half: those whose number is below one half, at least two, and at least `fewest_public` are left. They stay
    private when people are added; of a fixed count nobody can promise that.
    """
    ranked = sorted((number("person", seed, name), name) for name in names)
    if private is None:
        low = sum(value < 0.5 for value, _ in ranked)
        private = min(max(low, FEWEST), len(names) - fewest_public)
    chosen = {name for _, name in ranked[:private]}
    return tuple(name for name in names if name in chosen)


def named(names: Iterable[str], wanted: Iterable[str]) -> tuple[str, ...]:
    """`wanted` without duplicates, ascending; UserError unless all are among `names`."""
    known, asked = set(names), sorted(set(wanted))
    unknown = [name for name in asked if name not in known]
    if unknown:
        some = sorted(known)
        more = f" and {len(some) - 20} more" if len(some) > 20 else ""
        raise UserError(f"no usable class is called {', '.join(unknown)}; there are {', '.join(some[:20])}{more}")
    return tuple(asked)


def divide(
    keys: Sequence[str],
    labels: Sequence[int],
    seed: int,
    fractions: tuple[float, float, float, float],
    keep: bool = False,
) -> list[int | None]:
    """The part of each picture (train, validation, test, judge), by its key; None if its person is not used.

    A person to whom no training or no judge picture fell borrows the nearest one of its own from validation or test,
    never one of these two from the other; who can borrow none is left out, unless `keep`. The whole has at least one
    picture to validate and one to test: the nearest training picture of a person with two of them.
    """
    values = [number("picture", seed, key) for key in keys]
    edges = [sum(fractions[: part + 1]) / sum(fractions) for part in range(len(fractions))]
    parts: list[int | None] = [next((p for p, edge in enumerate(edges) if v < edge), JUDGE) for v in values]
    people: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        people[label].append(index)
    for members in people.values():
        for wanted, down in ((TRAIN, False), (JUDGE, True)):
            if fractions[wanted] and not any(parts[index] == wanted for index in members):
                spare = [index for index in members if parts[index] in (VALIDATION, TEST)]
                if spare:
                    parts[(max if down else min)(spare, key=lambda index: values[index])] = wanted
        short = not keep and any(
            fractions[part] and all(parts[index] != part for index in members) for part in (TRAIN, JUDGE)
        )
        if short:
            for index in members:
                parts[index] = None
    for wanted in (VALIDATION, TEST):
        if fractions[wanted] and wanted not in parts:
            counts = {label: [i for i in members if parts[i] == TRAIN] for label, members in people.items()}
            spare = [index for own in counts.values() if len(own) > 1 for index in own]
            if spare:
                parts[max(spare, key=lambda index: values[index])] = wanted
    return parts


def sample(keys: Sequence[str], count: int, seed: int) -> list[int]:
    """Places of `count` of the keys, ascending: the smallest numbers, so that one more displaces at most one."""
    ranked = sorted(range(len(keys)), key=lambda index: (number("sample", seed, keys[index]), index))
    return sorted(ranked[:count])
