"""How sure are we? Intervals over identities, paired comparisons, and the utility/robustness trade-off.

The unit is the identity: images of one person are not independent, so every score is first averaged per
person, and persons, with all their images, are what is resampled.

Sources: Hesterberg 2015 (expanded percentile interval), Wilson 1927, Satterthwaite 1946, Phipson and Smyth
2010 (permutation p values are never zero), RoLSS (ECCV 2024) for Delta.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from scipy.special import stdtrit
from torch import Tensor

from lightleak.errors import UserError


@dataclass(frozen=True)
class Measure:
    """A number with its interval; `low` and `high` are None with fewer than two identities."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Comparison:
    """A paired difference (first minus second), its interval, and its two-sided p value."""

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


def interval(
    per_class: Tensor, rng: torch.Generator, level: float = 0.95, draws: int = 4000, rate: bool = False
) -> Measure:
    """The mean over identities of `per_class` (C) with a bootstrap interval over identities.

    `rate` says that the values are shares in [0, 1]. Where each of them is 0 or 1 (one image per person, or
    all or nothing) the count is binomial and Wilson's interval is taken: resampling 50 hits of 50 would claim
    certainty.
    """
    values = _checked(per_class, 1)
    mean, count = float(values.mean()), len(values)
    if count < 2:
        return Measure(mean)
    if rate and bool(((values == 0) | (values == 1)).all()):
        return wilson(int(values.sum()), count, level)
    means = values[torch.randint(count, (draws, count), generator=rng)].mean(1)
    # Percentiles are moved outwards so that few identities do not make narrow intervals (Hesterberg, 5.3).
    tail = NormalDist().cdf(-math.sqrt(count / (count - 1)) * _student(level, count - 1))
    low, high = torch.quantile(means, torch.tensor([tail, 1 - tail], dtype=means.dtype)).tolist()
    return Measure(mean, low, high)


def wilson(successes: int, trials: int, level: float = 0.95) -> Measure:
    """Wilson's score interval of a proportion: never empty, never outside [0, 1]."""
    if not 0 <= successes <= trials or trials == 0:
        raise UserError(f"expected 0 <= successes <= trials and trials > 0, got {successes} of {trials}")
    z, share = NormalDist().inv_cdf((1 + level) / 2), successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    return Measure(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def seeds_interval(values: Tensor, level: float = 0.95) -> Measure:
    """The mean of `values` (S seeds x C identities) with an interval that speaks of other seeds *and* other
    people.

    Seeds and identities are crossed random effects (the same people stand behind every seed); their two
    variances of the mean add up, with Satterthwaite's degrees of freedom. A bootstrap cannot look beyond the
    few seeds it has: with three it covered 84 % where this covers 92 %. Rates may leave [0, 1].
    """
    table = _checked(values, 2).reshape(-1, values.shape[-1])
    seeds, people = table.shape
    if seeds < 2 or people < 2:
        return Measure(float(table.mean()))
    by_seed, by_person = table.mean(1).var() / seeds, table.mean(0).var() / people
    variance = float(by_seed + by_person)
    if variance == 0:
        return Measure(float(table.mean()), float(table.mean()), float(table.mean()))
    freedom = variance**2 / float(by_seed**2 / (seeds - 1) + by_person**2 / (people - 1))
    half = _student(level, freedom) * math.sqrt(variance)
    return Measure(float(table.mean()), float(table.mean()) - half, float(table.mean()) + half)


def compare(first: Tensor, second: Tensor, rng: torch.Generator, level: float = 0.95, draws: int = 4000) -> Comparison:
    """The mean of `first - second` over the same identities (C, or S x C for S training seeds), with an
    interval.

    A column must hold the same person in both, a row the same seed. One row speaks of other people given
    these two trained models; only rows speak of the defence. The p value flips the sign of each person's
    difference (averaged over seeds): it always speaks of other people given these models.
    """
    if first.shape != second.shape:
        raise UserError(
            f"a paired comparison needs the same identities on both sides, got {tuple(first.shape)} and "
            f"{tuple(second.shape)}"
        )
    difference = _checked(first.double() - second.double(), 2)
    table = difference.reshape(-1, difference.shape[-1])
    person = table.mean(0)
    measure = seeds_interval(table, level) if len(table) > 1 else interval(person, rng, level, draws)
    return Comparison(measure.value, measure.low, measure.high, sign_flip(person, rng))


def sign_flip(differences: Tensor, rng: torch.Generator, draws: int = 9999) -> float:
    """Two-sided p value of a mean of paired differences (C): how often random signs reach it; exact up to C =
    12.
    """
    values = _checked(differences, 1)
    reach = abs(float(values.sum())) * (1 - 1e-9)  # the observed signs themselves must count, whatever the rounding
    if len(values) <= 12:
        signs = 1 - 2 * (torch.arange(2 ** len(values))[:, None] >> torch.arange(len(values)) & 1)
        return float(((signs.double() @ values).abs() >= reach).double().mean())
    signs = torch.randint(2, (draws, len(values)), generator=rng).double() * 2 - 1
    return (int(((signs @ values).abs() >= reach).sum()) + 1) / (draws + 1)


def trade_off(
    leak: tuple[float, float],
    accuracy: tuple[float, float],
    images: int | None = None,
    smallest: float = 0.005,
) -> TradeOff:
    """Delta = (AttAcc(none) - AttAcc(defence)) / (Acc(none) - Acc(defence)); pairs are (none, defence) in [0,
    1].

    Undefined where the accuracy loss is not above `smallest` or, given the number of test `images`, lies
    within its own 95 % noise: there Delta measures its denominator's noise and rewards defences that do
    nothing.
    """
    if not all(0 <= share <= 1 for share in (*leak, *accuracy)):
        raise UserError(f"expected shares in [0, 1], got {leak} and {accuracy}; divide percentages by 100")
    drop, loss = leak[0] - leak[1], accuracy[0] - accuracy[1]
    noise = 1.96 * math.sqrt(sum(share * (1 - share) for share in accuracy) / images) if images else 0.0
    if loss > max(smallest, noise):
        return TradeOff(drop / loss, drop, loss)
    why = "negative" if loss < 0 else "near zero" if loss <= smallest else "within the noise of the test images"
    return TradeOff(None, drop, loss, f"Delta is undefined: the accuracy loss of {100 * loss:.2f} points is {why}")


def _student(level: float, freedom: float) -> float:
    """The two-sided critical value of Student's t."""
    return float(stdtrit(freedom, (1 + level) / 2))


def _checked(values: Tensor, most: int) -> Tensor:
    if not 1 <= values.dim() <= most or values.numel() == 0:
        raise UserError(f"expected one value per identity, got shape {tuple(values.shape)}")
    if not values.isfinite().all():
        raise UserError("expected finite values, got NaN or infinity; leave out what could not be measured")
    return values.double()
