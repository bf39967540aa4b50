"""What a difference speaks of: other people and other trainings, of one world or of several, or other worlds.

With several trainings of each network in each world, all worlds' people stand side by side in one table of trainings
and people; where some world has one training alone, worlds are the unit, one paired difference each.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

import torch
from torch import Tensor

from lightleak.metrics.evidence import Comparison, Measure, compare, over_worlds, seeds_interval, worlds_interval
from lightleak.report.trainings import ACCURACY, accuracies, everybody, groups, people_of, scored, table
from lightleak.report.verdicts import LEAST, SURELY
from lightleak.study.record import Record

Key = tuple[str, int]  # a world and a training seed
Scores = Mapping[Key, Tensor]  # what was found of each attacked person, C
Alike = Mapping[str, Tensor | None]  # by world: the families of its people
Own = TypeVar("Own")


@dataclass(frozen=True)
class Gap(Comparison):
    """A paired difference over worlds, trainings and people, and whether every world shows it by itself."""

    agree: bool = True


def scores_of(records: Mapping[Key, Record], metric: str) -> dict[Key, Tensor]:
    """What was found of each attacked person, where the metric was measured."""
    found = {key: scored([one], metric) for key, one in records.items()}
    return {key: own[0] for key, own in found.items() if own is not None}


def accuracy_of(record: Record) -> Tensor:
    """What each attacked person adds to natural accuracy, C, so that it can be held against what leaks of each.

    The mean is that of the T people who have test images. Each of them stands as far from it as C / T times the own
    accuracy does, and everybody else at it: so it varies as a mean over T people. No interval of a share is made of it.
    """
    known = accuracies(record)
    own = torch.tensor([known[person] for person in everybody(record)], dtype=torch.float64)
    there = own.isfinite()
    if not there.any():
        return torch.full_like(own, record.target.accuracy)
    mean = own[there].mean()
    return mean + torch.where(there, own - mean, 0.0) * (len(own) / int(there.sum()))


def natural_accuracy(records: Mapping[Key, Record]) -> Measure:
    """The natural accuracy of trainings, over all whom they know and who have test images, attacked or not."""
    found: dict[Key, Tensor] = {}
    alike: dict[str, Tensor | None] = {}
    for world in dict.fromkeys(world for world, _ in records):
        own = of_world(records, world)
        together = list(own.values())
        if (known := table(together, ACCURACY)) is None:
            return Measure(fmean(one.target.accuracy for one in records.values()))
        found |= dict(zip(own, known))
        alike[world] = groups(together, people_of(together, ACCURACY))
    return interval_of(found, alike)


def units_of(keys: Iterable[Key]) -> int:
    """Trainings in each world or, where some world has one alone, worlds."""
    each = _trainings(keys)
    return len(each) if by_world(keys) else min(each, default=0)


def by_world(keys: Iterable[Key]) -> bool:
    """Whether worlds are the unit: there are several, and not each of them has several trainings."""
    each = _trainings(keys)
    return len(each) > 1 and min(each) < LEAST


def _trainings(keys: Iterable[Key]) -> list[int]:
    """How many trainings each world has."""
    return list(Counter(world for world, _ in keys).values())


def paired(first: Scores, second: Scores, alike: Alike, rate: bool = True) -> Gap:
    """The mean over worlds of `first - second`, over the same people and trainings.

    With several trainings in each world, all their people are one table; with one a world, worlds are the unit.
    """
    keys = even(first)
    one, other = (tables_of({key: side[key] for key in keys}) for side in (first, second))
    if by_world(keys):
        return Gap(**vars(over_worlds(list(one.values()), list(other.values()), rate=rate)))
    found = compare(_together(one), _together(other), rate=rate, clusters=_families(one, alike))
    each = [compare(one[world], other[world], rate=rate, clusters=alike[world]) for world in one]
    agree = len(each) == 1 or all(own.p < SURELY and own.value * found.value > 0 for own in each)
    return Gap(**vars(found), agree=agree)


def interval_of(scores: Scores, alike: Alike, rate: bool = True) -> Measure:
    """A mean over worlds, trainings and people, with an interval made as that of `paired`."""
    tables = tables_of({key: scores[key] for key in even(scores)})
    if by_world(scores):
        return worlds_interval(list(tables.values()), rate=rate)
    return seeds_interval(_together(tables), rate=rate, clusters=_families(tables, alike))


def tables_of(scores: Scores) -> dict[str, Tensor]:
    """By world, seeds x people."""
    return {world: torch.stack(list(of_world(scores, world).values())) for world in dict.fromkeys(w for w, _ in scores)}


def even(keys: Iterable[Key]) -> list[Key]:
    """As many trainings of each world, the first seeds, where people of all worlds stand side by side; else all."""
    keys = sorted(keys)
    if by_world(keys):
        return keys
    seeds = min(_trainings(keys), default=0)
    each = {world: [key for key in keys if key[0] == world][:seeds] for world, _ in keys}
    return [key for own in each.values() for key in own]


def _together(tables: Mapping[str, Tensor]) -> Tensor:
    """All worlds' people beside each other."""
    return torch.cat(list(tables.values()), 1)


def _families(tables: Mapping[str, Tensor], alike: Alike) -> Tensor | None:
    """The families of all worlds' people; of a world without look-alikes everybody is one."""
    if all(alike[world] is None for world in tables):
        return None
    own, so_far = [], 0
    for world, one in tables.items():
        known = alike[world]
        own.append(so_far + (torch.arange(one.shape[1]) if known is None else known))
        so_far = int(own[-1].max()) + 1
    return torch.cat(own)


def of_world(found: Mapping[Key, Own], world: str) -> dict[Key, Own]:
    """What is of one world."""
    return {key: own for key, own in found.items() if key[0] == world}


def mean_of(scores: Scores) -> float:
    """The mean over worlds of the mean over their trainings and people, as of `interval_of`."""
    tables = tables_of({key: scores[key] for key in even(scores)})
    return float(torch.stack([own.double().mean() for own in tables.values()]).mean())
