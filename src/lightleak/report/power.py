"""How large a study must be to find an effect: worlds, people, trainings and hours, from how earlier records varied."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import nct, t

from lightleak.errors import UserError
from lightleak.report.fairness import training_of
from lightleak.report.trainings import table
from lightleak.study.record import Record

MOST = 200  # worlds that are tried
SURELY = 0.05


@dataclass(frozen=True)
class Variances:
    """How a paired difference of two targets varies, as variances of a share, and the source of these."""

    world: float  # between worlds, of the defence's effect itself
    training: float  # between trainings of one world: of one training's mean
    person: float  # between people, of one training's difference
    source: str = "Lightleak's records of painted people"

    def of_a_world(self, people: int, trainings: int) -> float:
        """The variance of one world's difference."""
        return self.world + self.training / trainings + self.person / people


# True match @1 with and without RoLSS: standard deviations .083 between trainings of 32 people, .308 between people.
KNOWN = Variances(world=0.04**2, training=0.083**2, person=0.308**2)


@dataclass(frozen=True)
class Size:
    """The size of a study that finds the effect."""

    worlds: int
    people: int
    trainings: int
    power: float
    hours: float | None = None


def power(effect: float, variance: float, worlds: int, tests: int = 1) -> float:
    """How often a paired t test over so many worlds, corrected for `tests` of them (Bonferroni), finds the effect."""
    if worlds < 2:
        return 0.0
    freedom, shift = worlds - 1, abs(effect) * math.sqrt(worlds / variance)
    limit = float(t.ppf(1 - SURELY / tests / 2, freedom))
    return float(nct.sf(limit, freedom, shift) + nct.cdf(-limit, freedom, shift))


def check_effect(effect: float, wanted: float) -> None:
    """UserError unless the effect (a share) and the power are possible values."""
    if not 0 < abs(effect) <= 1 or not 0 < wanted < 1:
        raise UserError(
            f"expected an effect of up to 100 points and a power between 0 and 1, got {100 * effect:g} and {wanted:g}"
        )


def sizes(
    effect: float,
    wanted: float = 0.8,
    variances: Variances = KNOWN,
    tests: int = 1,
    people: Sequence[int] = (16, 32, 56),
    trainings: Sequence[int] = (1, 2, 3),
    seconds: float | None = None,
    seconds_people: float = 32,
) -> list[Size]:
    """For each number of people and trainings, the fewest worlds that find an effect (a share) with the power wanted.

    `seconds` is what one training of each target with its attacks costs for `seconds_people` people.
    Cheapest first: fewest trainings times people.
    """
    check_effect(effect, wanted)
    found = []
    for count in people:
        for each in trainings:
            variance = variances.of_a_world(count, each)
            enough = (n for n in range(2, MOST + 1) if power(effect, variance, n, tests) >= wanted)
            if (worlds := next(enough, None)) is not None:
                hours = None if seconds is None else seconds * worlds * each * count / seconds_people / 3600
                found.append(Size(worlds, count, each, power(effect, variance, worlds, tests), hours))
    return sorted(found, key=lambda one: one.worlds * one.trainings * one.people)


def varied(records: Iterable[Record], metric: str) -> Variances | None:
    """How differences to the first target varied in these records; None if there are too few."""
    kept: dict[str, dict[str, dict[int, Record]]] = {}  # by target, by world, by training
    for one in records:
        kept.setdefault(training_of(one.target), {}).setdefault(one.population.key, {})[one.target.seed] = one
    if len(kept) < 2:
        return None
    names = list(kept)
    worlds, trainings, people, count = [], [], [], 0
    for name in names[1:]:
        means = []
        for world, own in kept[name].items():
            base = kept[names[0]].get(world, {})
            both = [own[seed] for seed in own if seed in base], [base[seed] for seed in own if seed in base]
            tables = [table(side, metric) if side else None for side in both]
            if tables[0] is None or tables[1] is None or tables[0].shape != tables[1].shape:
                continue
            gap = (tables[0] - tables[1]).numpy()
            means.append(gap.mean())
            count = max(count, gap.shape[1])
            people.append(gap.var(axis=1, ddof=1).mean() if gap.shape[1] > 1 else 0.0)
            trainings += [gap.mean(1).var(ddof=1)] if len(gap) > 1 else []
        worlds += [np.var(means, ddof=1)] if len(means) > 1 else []
    if not people or not (worlds or trainings):
        return None
    person = float(np.mean(people))
    training = max(0.0, float(np.mean(trainings)) - person / count) if trainings else 0.0
    between = max(0.0, float(np.mean(worlds)) - person / count - training) if worlds else KNOWN.world
    return Variances(between, training, person, "the records of this study")
