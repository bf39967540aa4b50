"""Open-set verification of photographs: does an image show the very person, to a recogniser that met nobody here?

    1. the score of a claim (image x shows person y) is the largest cosine to any picture in y's gallery
    2. the threshold is calibrated for that very score: by pictures of people who are nobody here, claimed to be each y
    3. pictures of the people that no gallery holds tell what can be reached at best (the ceiling)

A threshold for pairs of pictures, used for the best of a gallery's k, passes about k times as many strangers: with
independent scores 0.5 % for k = 5 and 4.9 % for k = 50 where 0.1 % was meant. A false match rate that so many impostors
cannot show is refused.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.stats import beta
from torch import Tensor
from torch.nn import functional as F

from lightleak.errors import UserError
from lightleak.metrics.evidence import Measure, above_chance, compare, interval

RATES = (1e-1, 1e-2, 1e-3, 1e-4)  # false match rates that are spoken of
LEAST_FALSE = 10  # impostor scores above a threshold that are expected at least, or its rate is no estimate
LEAST_PEOPLE = 50  # impostors: scores of one person's pictures are not independent
FIT = 0.8  # of held-out pictures that a recogniser must know to be fit for these pictures
RESAMPLED = 2000


@dataclass(frozen=True)
class Calibration:
    """A threshold for claims: a score above it, not one equal to it, passes."""

    threshold: float
    rate: float  # false match rate that was asked for
    scores: int  # impostor scores that it was made of
    people: int  # impostors behind them
    refused: str = ""  # why a stricter rate was not taken


def galleries(features: Tensor, labels: Tensor, people: int, size: int = 5, seed: int = 0) -> Tensor:
    """`size` features of each person (labels 0 to people - 1), drawn once by seed: people x size x D; see `drawn`."""
    return features[drawn(labels, people, size, seed)]


def drawn(labels: Tensor, people: int, size: int = 5, seed: int = 0) -> Tensor:
    """The places of `size` pictures of each person (labels 0 to people - 1), drawn once by seed: people x size.

    The same number for everyone, so that nobody is easier to match: fewer if somebody has fewer. UserError for a person
    without any.
    """
    counts = torch.bincount(labels, minlength=people)
    if people < 2 or int(counts[:people].min()) < 1:
        absent = int((counts[:people] < 1).nonzero()[0]) if people and int(counts[:people].min()) < 1 else 0
        raise UserError(f"verification needs pictures of at least 2 people; person {absent} has none to compare with")
    size = min(size, int(counts[:people].min()))
    rng = torch.Generator().manual_seed(seed)
    rows = []
    for person in range(people):
        own = (labels == person).nonzero().flatten()
        rows.append(own[torch.randperm(len(own), generator=rng)[:size]])
    return torch.stack(rows)


def claims(features: Tensor, gallery: Tensor) -> Tensor:
    """The score of each image (N x D) claimed to be each person (C x k x D): the largest cosine, N x C."""
    mine, theirs = F.normalize(features.double(), dim=-1), F.normalize(gallery.double(), dim=-1)
    return (mine @ theirs.flatten(0, 1).T).unflatten(1, theirs.shape[:2]).amax(2)


def named(scores: Tensor, labels: Tensor) -> Tensor:
    """Whether each image's claim to its own person (N) beats its claims to all others (N x C); a tie, or NaN, does not.

    What is left of identity where it does not suffice to tell people from strangers; chance is 1 / C.
    """
    own = scores.gather(1, labels[:, None])
    return (own > scores.scatter(1, labels[:, None], -math.inf)).all(1)


def carried(scores: int, people: int) -> tuple[float, ...]:
    """The false match rates that so many impostor scores of so many people can show."""
    return tuple(rate for rate in RATES if people >= LEAST_PEOPLE and scores * rate >= LEAST_FALSE * (1 - 1e-9))


def check_rate(rate: float, scores: int, people: int) -> None:
    """UserError unless so many impostor scores of so many people can show this false match rate."""
    if not 0 < rate < 1:
        raise UserError(f"a false match rate lies between 0 and 1, not {rate:g}")
    if people < LEAST_PEOPLE or scores * rate < LEAST_FALSE * (1 - 1e-9):
        possible = ", ".join(f"{each:g}" for each in carried(scores, people)) or "none"
        raise UserError(
            f"a false match rate of {rate:g} needs {math.ceil(LEAST_FALSE / rate - 1e-9):,} impostor scores of "
            f"{LEAST_PEOPLE} people who are none of the model's; there are {scores:,} of {people}, for {possible}"
        )


def calibrate(impostors: Tensor, people: Tensor, rate: float | None = None) -> Calibration:
    """The threshold at which a share `rate` of impostor scores (N x C; `people`, N: whose image) is above, no more.

    `rate` None: 1 in 1,000, or the strictest that the data carry. UserError if they do not carry what was asked for.
    """
    values, who = impostors.flatten(), len(people.unique())
    if not values.isfinite().all():
        raise UserError("impostor scores must be finite numbers; the recogniser gives NaN or infinity for some picture")
    wanted, refused = 1e-3 if rate is None else rate, ""
    try:
        check_rate(wanted, len(values), who)
    except UserError as error:
        possible = carried(len(values), who)
        if rate is not None or not possible:
            raise
        wanted, refused = min(possible), str(error)
    above = math.floor(len(values) * wanted + 1e-9)
    threshold = values.sort(descending=True).values[above]
    return Calibration(float(threshold), wanted, len(values), who, refused)


def passes(scores: Tensor, threshold: float) -> Tensor:
    """Whether each score passes; one that equals the threshold, or is NaN, does not."""
    return scores > threshold


def at_most(successes: int, trials: int, level: float = 0.95) -> float:
    """The share that so many successes still allow: the exact one-sided upper bound (Clopper and Pearson 1934)."""
    if not 0 <= successes <= trials or trials == 0:
        raise UserError(f"expected 0 <= successes <= trials and trials > 0, got {successes} of {trials}")
    return 1.0 if successes == trials else float(beta.ppf(level, successes + 1, trials - successes))


def more_than(first: Tensor, second: Tensor) -> float:
    """One-sided p value of `first` being true of more people than `second` (booleans of the same C): McNemar's, exact.

    People of whom both or neither is true say nothing. Of the others as many would fall to either side, by a fair coin
    each, however much people differ: so 5 against none are the fewest that are sure at 5 %.
    """
    if first.shape != second.shape:
        raise UserError(f"expected the same people on both sides, got {tuple(first.shape)} and {tuple(second.shape)}")
    ahead, behind = int((first & ~second).sum()), int((second & ~first).sum())
    return above_chance(ahead, ahead + behind, 0.5) if ahead else 1.0


def at_most_of_ceiling(successes: int, trials: int, held_out: Tensor) -> float:
    """The share of what held-out photographs reach (a rate for each person) that so many successes still allow.

    1: all of it, as from a recogniser that would hardly know a photograph either. Both bounds are taken at their worst:
    the most that the successes allow, over the least that the photographs say.
    """
    most, least = at_most(successes, trials), interval(held_out.double(), rate=True).low or 0.0
    return 1.0 if most >= least else most / least


def above_ceiling(attack: Tensor, null: Tensor, held_out: Tensor, seed: int = 0) -> Measure | None:
    """(attack - null) / (held-out - null), shares of the same people (C each), with an interval over people.

    1: an image from the model is as good as a photograph that it never saw. The interval resamples people; where
    attack or null shows nobody or everybody, which no resampling varies, it is no narrower than that of their paired
    difference. None where the recogniser knows held-out pictures no better than the null.
    """
    table = torch.stack([attack, null, held_out]).double()
    top, bottom = _ratio(table.mean(1))
    if not bottom > 0:
        return None
    if table.shape[1] < 2:
        return Measure(top / bottom)
    rng = torch.Generator().manual_seed(seed)
    drawn = torch.randint(table.shape[1], (RESAMPLED, table.shape[1]), generator=rng)
    means = table[:, drawn].mean(2)
    tops, bottoms = means[0] - means[1], means[2] - means[1]
    ratios = (tops / bottoms)[bottoms > 0]
    low, high = (float(ratios.quantile(end)) for end in (0.025, 0.975))
    if any(float(side.double().mean()) in (0.0, 1.0) for side in (attack, null)):
        gap = compare(attack.double(), null.double(), rate=True)
        low, high = min(low, (gap.low or 0.0) / bottom), max(high, (gap.high or 0.0) / bottom)
    return Measure(top / bottom, low, high)


def _ratio(means: Tensor) -> tuple[float, float]:
    return float(means[0] - means[1]), float(means[2] - means[1])


def choose(confidence: Tensor, seed: int = 0) -> Tensor:
    """Which member (row of M x C) speaks for each person: the one that is best on the *other* half of the people, C.

    So that choosing does not flatter: of six members that are right for 20 % of 50 people, the best seems right for
    27 %. What is chosen by is the target's confidence, which no judge takes part in. NaN counts as no confidence.
    """
    people = confidence.shape[1]
    order = torch.randperm(people, generator=torch.Generator().manual_seed(seed))
    halves = (order[: people // 2], order[people // 2 :])
    chosen = torch.zeros(people, dtype=torch.int64)
    known = confidence.double().nan_to_num(nan=0.0)
    for mine, other in (halves, halves[::-1]):
        if len(mine):
            chosen[mine] = known[:, other if len(other) else mine].mean(1).argmax()
    return chosen


def agreement(right: Sequence[Tensor]) -> float | None:
    """The share of images on which judges (booleans, N each) say the same, averaged over pairs; None for one judge."""
    pairs = [float((one == other).double().mean()) for place, one in enumerate(right) for other in right[place + 1 :]]
    return sum(pairs) / len(pairs) if pairs else None
