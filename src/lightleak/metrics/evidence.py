"""How sure are we? Intervals over people, trainings and worlds, paired comparisons, and the trade-off with utility.

The unit is the person, since images of one person are not independent: every score is first averaged per person. Where
people look alike the unit is their family. Trainings (seeds) are crossed with people, as the same people stand behind
each of them; worlds, with other people and another training each, are independent, and the best unit there is.

A share's interval is Wilson's, with Student's t for the normal quantile and an effective number of people
n = p (1 - p) / v, where v is the estimated variance of the share; where v is zero, as in zero successes of any number
of trainings, n is the number of people, or of families. So no count, however extreme, is certain.

Sources: Wilson 1927, Satterthwaite 1946, Bonett and Price 2012 (paired shares), Fieller 1954 (ratios), Holm 1979,
Phipson and Smyth 2010 (permutation p values are never zero), RoLSS (ECCV 2024) for Delta.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from scipy.special import bdtrc, stdtr, stdtrit
from torch import Tensor

from lightleak.errors import UserError


@dataclass(frozen=True)
class Measure:
    """A number with its interval; `low` and `high` are None with fewer than two people."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Comparison:
    """A paired difference (first minus second), its interval, and the two-sided p value of that same interval."""

    value: float
    low: float | None
    high: float | None
    p: float


@dataclass(frozen=True)
class TradeOff:
    """Delta of the paper: attack points lost per natural accuracy point lost; None, with the reason, if
    undefined.
    """

    value: float | None
    leak_drop: float
    accuracy_loss: float
    warning: str | None = None
    low: float | None = None
    high: float | None = None


def interval(
    per_class: Tensor,
    rng: torch.Generator | None = None,  # noqa: ARG001
    level: float = 0.95,
    draws: int = 0,  # noqa: ARG001
    rate: bool = False,
    clusters: Tensor | None = None,
) -> Measure:
    """The mean over people of `per_class` (C) with an interval that speaks of other people, given this training.

    `rate` says that the values are shares in [0, 1]; `clusters` (C) who belongs to which family of look-alikes. `rng`
    and `draws` are of older versions, which resampled; nothing is drawn.
    """
    return seeds_interval(_checked(per_class, 1)[None], level, rate, clusters)


def seeds_interval(
    values: Tensor, level: float = 0.95, rate: bool | None = None, clusters: Tensor | None = None
) -> Measure:
    """The mean of `values` (S seeds x C people) with an interval that speaks of other seeds *and* other people.

    Seeds and people are crossed random effects (the same people stand behind every seed), so the variance of the mean
    is (MS_seed + MS_person - MS_rest) / (S C), never below what people alone say, with Satterthwaite's degrees of
    freedom. `rate` says that the values are shares in [0, 1]; by default they are where each is 0 or 1. `clusters` (C)
    says who belongs to which family of look-alikes; the family is then the unit.
    """
    table = _checked(values, 2).reshape(-1, values.shape[-1]).numpy()
    spread = _spread(table, clusters)
    if spread is None:
        return Measure(float(table.mean()))
    t = _student(level, spread.freedom)
    low, high = spread.limits(t) if _is_rate(rate, table) else spread.around(t)
    return Measure(spread.mean, low, high)


def wilson(successes: int, trials: int, level: float = 0.95) -> Measure:
    """Wilson's score interval of a proportion: never empty, never outside [0, 1]."""
    if not 0 <= successes <= trials or trials == 0:
        raise UserError(f"expected 0 <= successes <= trials and trials > 0, got {successes} of {trials}")
    share = successes / trials
    return Measure(share, *_wilson(share, trials, NormalDist().inv_cdf((1 + level) / 2)))


def compare(
    first: Tensor,
    second: Tensor,
    rng: torch.Generator | None = None,  # noqa: ARG001
    level: float = 0.95,
    draws: int = 0,  # noqa: ARG001
    rate: bool | None = None,
    clusters: Tensor | None = None,
) -> Comparison:
    """The mean of `first - second` over the same people (C, or S x C for S training seeds), with its interval.

    A column must hold the same person in both, a row the same seed. One row speaks of other people given these two
    trained models; only rows speak of the defence. The p value is that of the interval's own t: below 1 - `level`
    exactly where the interval leaves out zero. `rate` and `clusters` as for `seeds_interval`; where a side is at 0 or
    1, the interval holds what that side's own leaves open, so that ones against zeros are not certain either. `rng`
    and `draws` are of older versions.
    """
    if first.shape != second.shape:
        raise UserError(
            f"a paired comparison needs the same identities on both sides, got {tuple(first.shape)} and "
            f"{tuple(second.shape)}"
        )
    sides = [_checked(side, 2).reshape(-1, side.shape[-1]).numpy() for side in (first, second)]
    spreads = [_spread(table, clusters) for table in (*sides, sides[0] - sides[1])]
    one, other, gap = spreads
    if one is None or other is None or gap is None:
        return Comparison(float((sides[0] - sides[1]).mean()), None, None, 1.0)
    if _is_rate(rate, *sides):
        return _compared_shares(_Gap(one, other, gap, sides[0].size), level)
    return _compared(gap, level)


def over_worlds(
    first: Sequence[Tensor], second: Sequence[Tensor], level: float = 0.95, rate: bool = False
) -> Comparison:
    """The mean over worlds of `first - second`, with the interval and p value of a paired t test over worlds.

    Each world is a table (C, or S x C) of its own people. A world counts once, whatever its size: it has other people,
    look-alikes and all, and another training, so worlds are independent and nothing within them need be modelled.
    """
    if len(first) != len(second) or not first:
        raise UserError(f"a comparison over worlds needs the same worlds twice, got {len(first)} and {len(second)}")
    for one, other in zip(first, second):
        if one.shape[-1] != other.shape[-1]:
            raise UserError(f"expected the same people in a world, got {one.shape[-1]} and {other.shape[-1]}")
    means = [np.array([float(_checked(table, 2).mean()) for table in side]) for side in (first, second)]
    if len(first) < 2:
        return Comparison(float((means[0] - means[1]).mean()), None, None, 1.0)
    people = sum(table.shape[-1] for table in first)
    one, other, gap = (_of_units(values, people) for values in (*means, means[0] - means[1]))
    return _compared_shares(_Gap(one, other, gap, people), level) if rate else _compared(gap, level)


def worlds_interval(worlds: Sequence[Tensor], level: float = 0.95, rate: bool = False) -> Measure:
    """The mean over worlds of each world's mean (tables C, or S x C), with Student's interval over worlds."""
    means = np.array([float(_checked(table, 2).mean()) for table in worlds])
    if len(means) < 2:
        return Measure(float(means.mean()))
    spread = _of_units(means, sum(table.shape[-1] for table in worlds))
    t = _student(level, spread.freedom)
    return Measure(spread.mean, *(spread.limits(t) if rate else spread.around(t)))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's corrected p values of a family of tests, in the order given; UserError for NaN, which no family holds."""
    if not all(0 <= value <= 1 for value in p):
        raise UserError(f"expected p values in [0, 1], got {list(p)}; leave out what could not be tested")
    corrected, largest = [0.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[place]))
        corrected[place] = largest
    return corrected


def above_chance(successes: int, trials: int, chance: float) -> float:
    """One-sided p value of so many successes where each trial succeeds by `chance`: exact, binomial."""
    if not 0 <= successes <= trials or trials == 0 or not 0 <= chance <= 1:
        raise UserError(f"expected successes of trials and a chance in [0, 1], got {successes}, {trials}, {chance}")
    return 1.0 if successes == 0 else float(bdtrc(successes - 1, trials, chance))


def shares_above_chance(per_class: Tensor, images: int, chance: float, clusters: Tensor | None = None) -> float:
    """One-sided p value of the mean of `per_class` (C), shares of `images` in all of which each succeeds by `chance`.

    Images of a person are not independent, so a binomial test of them all finds leaks in what a guess gets. They count
    as the effective number n = p (1 - p) / v that the shares' own variance gives, no fewer than there are people, or
    families (`clusters`, C), and no more than there are images.
    """
    shares = _checked(per_class, 1)
    spread, least = _spread(shares.numpy()[None], clusters), len(shares if clusters is None else clusters.unique())
    mean, counted = float(shares.mean()), float(least)
    if spread is not None and 0 < mean < 1:  # else nobody differs, which says nothing of how alike images are
        counted = mean * (1 - mean) / spread.variance if spread.variance > 0 else images
    trials = int(min(images, max(least, counted)))
    return above_chance(round(mean * trials), trials, chance)


def sign_flip(differences: Tensor, rng: torch.Generator, draws: int = 9999) -> float:
    """Two-sided p value of a mean of paired differences (C): how often random signs reach it; exact up to C =
    12. It speaks of other people given these two trainings, never of the defence.
    """
    values = _checked(differences, 1)
    reach = abs(float(values.sum())) * (1 - 1e-9)  # the observed signs themselves must count, whatever the rounding
    if len(values) <= 12:
        signs = 1 - 2 * (torch.arange(2 ** len(values))[:, None] >> torch.arange(len(values)) & 1)
        return float(((signs.double() @ values).abs() >= reach).double().mean())
    signs = torch.randint(2, (draws, len(values)), generator=rng).double() * 2 - 1
    return (int(((signs @ values).abs() >= reach).sum()) + 1) / (draws + 1)


# Delta ----------------------------------------------------------------------------------------------------------------


def trade_off(
    leak: tuple[float, float],
    accuracy: tuple[float, float],
    images: int | None = None,
    smallest: float = 0.005,
) -> TradeOff:
    """Delta = (AttAcc(none) - AttAcc(defence)) / (Acc(none) - Acc(defence)); pairs are (none, defence) in [0,
    1].

    Undefined where the accuracy loss is not above `smallest` or, given the number of test `images` of one training,
    lies within its own 95 % noise: there Delta measures its denominator's noise and rewards defences that do
    nothing. Where there are values per person, `delta` says more.
    """
    if not all(0 <= share <= 1 for share in (*leak, *accuracy)):
        raise UserError(f"expected shares in [0, 1], got {leak} and {accuracy}; divide percentages by 100")
    drop, loss = leak[0] - leak[1], accuracy[0] - accuracy[1]
    noise = 1.96 * math.sqrt(sum(share * (1 - share) for share in accuracy) / images) if images else 0.0
    if loss > max(smallest, noise):
        return TradeOff(drop / loss, drop, loss)
    return _undefined(drop, loss, smallest, "within the noise of the test images")


def delta(
    leak: tuple[Tensor, Tensor],
    accuracy: tuple[Tensor, Tensor],
    level: float = 0.95,
    smallest: float = 0.005,
    clusters: Tensor | None = None,
) -> TradeOff:
    """Delta of tables (none, defence), each S x C of the same seeds and people, with Fieller's interval.

    Numerator and denominator are paired differences, so their interval knows how both move with people and seeds.
    Undefined where the accuracy loss is not above `smallest`, or its own paired interval is not clear of zero.
    """
    shapes = {tuple(table.shape) for table in (*leak, *accuracy)}
    if len(shapes) > 1:
        raise UserError(f"Delta needs the same seeds and people in all four tables, got {sorted(shapes)}")
    drops = _checked(leak[0].double() - leak[1].double(), 2).reshape(-1, leak[0].shape[-1]).numpy()
    losses = _checked(accuracy[0].double() - accuracy[1].double(), 2).reshape(drops.shape).numpy()
    drop, loss = float(drops.mean()), float(losses.mean())
    seen = _jointly(_units(drops, clusters), _units(losses, clusters))
    if loss <= smallest or seen is None:
        why = "of one person alone" if loss > smallest else "within the noise"
        return _undefined(drop, loss, smallest, why)
    (leak_variance, both, variance), freedom = seen
    t = _student(level, freedom)
    # All ratios r for which drop - r loss is within t of zero: a quadratic in r (Fieller).
    square = loss**2 - t * t * variance
    if square <= 0:
        return _undefined(drop, loss, smallest, "within the noise of its people and seeds")
    middle = drop * loss - t * t * both
    root = math.sqrt(max(0.0, middle**2 - square * (drop**2 - t * t * leak_variance)))
    return TradeOff(drop / loss, drop, loss, None, (middle - root) / square, (middle + root) / square)


def _undefined(drop: float, loss: float, smallest: float, noise: str) -> TradeOff:
    why = "negative" if loss < 0 else "near zero" if loss <= smallest else noise
    return TradeOff(None, drop, loss, f"Delta is undefined: the accuracy loss of {100 * loss:.2f} points is {why}")


# How means vary -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Spread:
    """A mean, and how it varies over what it speaks of."""

    mean: float
    variance: float  # of the mean
    freedom: float
    units: int  # people or, where some look alike, families; of worlds, all their people
    aside: tuple[int, int]  # those of them that are not at 0, and that are not at 1

    def around(self, t: float) -> tuple[float, float]:
        """The ends of Student's interval."""
        half = t * math.sqrt(self.variance)
        return self.mean - half, self.mean + half

    def limits(self, t: float) -> tuple[float, float]:
        """The ends of a share's interval: Wilson's on effective people.

        One success says no more than none about how rare they are: so near an edge, where one person alone or two
        carry the whole variance, the interval is at least what none would leave open.
        """
        mean = min(1.0, max(0.0, self.mean))
        inside = self.variance > 0 and 0 < mean < 1
        low, high = _wilson(mean, mean * (1 - mean) / self.variance if inside else self.units, t)
        below, above = self.open(t)
        return min(low, mean - below), max(high, mean + above)

    def open(self, t: float) -> tuple[float, float]:
        """How far below and above the mean the truth may lie for all that so few people away from an edge can say."""
        mean = min(1.0, max(0.0, self.mean))
        near_0, near_1 = (_wilson(0.0, self.units * max(1, aside - 1), t)[1] for aside in self.aside)
        return max(0.0, near_1 - (1 - mean)), max(0.0, near_0 - mean)


@dataclass(frozen=True)
class _Gap:
    """A paired difference of shares: both sides, the difference itself, and how many values each side has."""

    first: _Spread
    second: _Spread
    difference: _Spread
    entries: int

    def limits(self, t: float) -> tuple[float, float]:
        """Student's interval, widened where a side is at an edge by what that side leaves open; within [-1, 1].

        No narrower than if the next two pairs of values, and no others, fell apart, one to each side (Bonett and
        Price 2012).
        """
        gap, (low, high), (other_low, other_high) = self.difference, self.first.open(t), self.second.open(t)
        half, least = t * math.sqrt(gap.variance), t * math.sqrt(2) / (self.entries + 2)
        down, up = math.hypot(half, low, other_high), math.hypot(half, high, other_low)
        return max(-1.0, gap.mean - max(down, least)), min(1.0, gap.mean + max(up, least))


def _wilson(share: float, trials: float, t: float) -> tuple[float, float]:
    centre = (share + t * t / (2 * trials)) / (1 + t * t / trials)
    half = t / (1 + t * t / trials) * math.sqrt(share * (1 - share) / trials + t * t / (4 * trials**2))
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def _compared(gap: _Spread, level: float) -> Comparison:
    """A difference of numbers without bounds."""
    low, high = gap.around(_student(level, gap.freedom))
    if gap.variance > 0:
        p = _two_sided(abs(gap.mean) / math.sqrt(gap.variance), gap.freedom)
    else:  # all alike: as sure as signs that fall all to one side
        p = 1.0 if gap.mean == 0 else 2.0 ** (1 - gap.units)
    return Comparison(gap.mean, low, high, p)


def _compared_shares(gap: _Gap, level: float) -> Comparison:
    freedom, value = gap.difference.freedom, gap.difference.mean
    low, high = gap.limits(_student(level, freedom))
    if value == 0:
        return Comparison(value, low, high, 1.0)
    # The t at which the interval's nearer end is at zero; its ends move outwards with t.
    small, large = 0.0, 1000.0
    for _ in range(60):
        t = (small + large) / 2
        end = gap.limits(t)[0] if value > 0 else -gap.limits(t)[1]
        small, large = (t, large) if end > 0 else (small, t)
    return Comparison(value, low, high, _two_sided(small, freedom))


def _units(table: np.ndarray, clusters: Tensor | None) -> np.ndarray:
    """The table with families for people: S x K values with the same mean, in all and of each seed.

    A family of n counts as n people do: its value is the grand mean plus what its people are away from it, times K / C.
    """
    if clusters is None:
        return table
    if len(clusters) != table.shape[1]:
        raise UserError(f"expected one family for each of {table.shape[1]} people, got {len(clusters)}")
    which, place = np.unique(clusters.numpy(), return_inverse=True)
    member = np.zeros((table.shape[1], len(which)))
    member[np.arange(table.shape[1]), place] = 1
    return table.mean() + (table - table.mean()) @ member * (len(which) / table.shape[1])


def _squares(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """The mean squares (products) of seeds, people and the rest, of two tables of S seeds x K units."""
    seeds, units = first.shape
    parts = []
    for table in (first, second):
        seed, unit, mean = table.mean(1, keepdims=True), table.mean(0, keepdims=True), table.mean()
        parts.append((seed - mean, unit - mean, table - seed - unit + mean))
    (a, b, c), (x, y, z) = parts
    of_units = seeds * float((b * y).sum()) / (units - 1)
    if seeds == 1:
        return 0.0, of_units, 0.0
    of_seeds = units * float((a * x).sum()) / (seeds - 1)
    return of_seeds, of_units, float((c * z).sum()) / ((seeds - 1) * (units - 1))


def _spread(table: np.ndarray, clusters: Tensor | None = None) -> _Spread | None:
    """How the mean of S seeds x C people varies; None with fewer than two units."""
    values = _units(table, clusters)
    seeds, units = values.shape
    if units < 2:
        return None
    of_seeds, of_units, rest = _squares(values, values)
    if of_seeds > rest:
        total = of_seeds + of_units - rest
        freedom = total**2 / (
            of_seeds**2 / (seeds - 1) + of_units**2 / (units - 1) + rest**2 / ((seeds - 1) * (units - 1))
        )
    else:  # trainings differ no more than chance makes them
        total, freedom = of_units, units - 1
    whose = np.arange(table.shape[1]) if clusters is None else clusters.numpy()
    aside = _aside(table, whose, 0.0), _aside(table, whose, 1.0)
    variance = total / (seeds * units)
    return _Spread(float(table.mean()), variance if variance > 1e-30 else 0.0, max(1.0, freedom), units, aside)


def _aside(table: np.ndarray, whose: np.ndarray, edge: float) -> int:
    """How many units (`whose`, C) have somebody whose mean over seeds is away from an edge."""
    return len(np.unique(whose[np.abs(table.mean(0) - edge) > 1e-12]))


def _of_units(means: np.ndarray, people: int) -> _Spread:
    """How the mean of independent units varies, behind which stand so many people."""
    variance = float(means.var(ddof=1)) / len(means)
    aside = int((np.abs(means) > 1e-12).sum()), int((np.abs(means - 1) > 1e-12).sum())
    return _Spread(float(means.mean()), variance if variance > 1e-30 else 0.0, len(means) - 1, people, aside)


def _jointly(first: np.ndarray, second: np.ndarray) -> tuple[tuple[float, float, float], float] | None:
    """Variances and covariance of two means over the same seeds and units (first, both, second), and the freedom.

    As for one mean, with matrices: seeds add what is positive of their mean squares beyond the rest.
    """
    seeds, units = first.shape
    if units < 2:
        return None
    pairs = ((first, first), (first, second), (second, second))
    of_seeds, of_units, rest = (
        np.array([[a, b], [b, c]]) for a, b, c in zip(*(_squares(one, other) for one, other in pairs))
    )
    values, vectors = np.linalg.eigh(of_seeds - rest)
    variance = (of_units + (vectors * values.clip(min=0)) @ vectors.T) / (seeds * units)
    spread = _spread(second)
    freedom = spread.freedom if spread else units - 1
    return (float(variance[0, 0]), float(variance[0, 1]), float(variance[1, 1])), freedom


def _is_rate(rate: bool | None, *tables: np.ndarray) -> bool:
    return rate if rate is not None else all(bool(((table == 0) | (table == 1)).all()) for table in tables)


def _student(level: float, freedom: float) -> float:
    """The two-sided critical value of Student's t."""
    return float(stdtrit(freedom, (1 + level) / 2))


def _two_sided(t: float, freedom: float) -> float:
    return min(1.0, 2 * float(stdtr(freedom, -t)))


def _checked(values: Tensor, most: int) -> Tensor:
    if not 1 <= values.dim() <= most or values.numel() == 0:
        raise UserError(f"expected one value per identity, got shape {tuple(values.shape)}")
    if not values.isfinite().all():
        raise UserError("expected finite values, got NaN or infinity; leave out what could not be measured")
    return values.cpu().double()  # intervals are no work for a card
