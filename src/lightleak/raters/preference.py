"""What raters prefer, how sure that is, and whether they agree with one another."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from lightleak.errors import UserError
from lightleak.metrics.evidence import Measure, interval, seeds_interval, wilson
from lightleak.raters.answers import Answer
from lightleak.study.pairs import Pair


@dataclass(frozen=True)
class Preference:
    """How often the first target's picture was chosen, among the answers that were given in time."""

    first: str
    second: str
    raters: tuple[str, ...]
    pairs: int  # with an answer
    answers: int
    unanswered: int  # the time was up
    share: Measure | None  # None without any answer
    alpha: float | None  # Krippendorff's, of which target was taken; 1: all alike, 0: as by chance
    why_no_alpha: str
    left: Measure | None  # share of answers "left"; sides are random, so far from a half it is a habit

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)


def preference(pairs: Sequence[Pair], answers: Mapping[tuple[str, str], Answer]) -> Preference:
    """The preference that the answers to these pairs show.

    The interval covers other people and other raters, which are crossed, as every rater sees the same people; where
    some answers are missing it is the wider of the intervals over people and over raters.
    """
    first, second = pairs[0].targets
    names = {pair.name: place for place, pair in enumerate(pairs)}
    mine = [one for one in answers.values() if one.pair in names]
    unknown = {one.chosen for one in mine} - {first, second, None}
    if unknown:
        raise UserError(f"answers name {sorted(map(str, unknown))[0]!r}, which is neither {first!r} nor {second!r}")
    given = [one for one in mine if one.chosen is not None]
    raters = tuple(sorted({one.rater for one in mine}))
    table = np.full((len(raters), len(pairs)), np.nan)
    for one in given:
        table[raters.index(one.rater), names[one.pair]] = one.chosen == first
    alpha, why = agreement(table)
    left = sum(one.side == "left" for one in given)
    return Preference(
        first, second, raters, int((~np.isnan(table)).any(0).sum()), len(given), len(mine) - len(given),
        _share(table) if given else None, alpha, why, wilson(left, len(given)) if given else None,
    )  # fmt: skip


def in_words(told: Preference) -> tuple[str, ...]:
    """The preference in sentences: who answered, what was preferred, whether raters agree, and any habit."""
    people = "one person" if len(told.raters) == 1 else f"{len(told.raters)} people"
    late = f", and {told.unanswered} times none within the time" if told.unanswered else ""
    found = [f"{people} gave {told.answers} answers to {told.pairs} pairs of pictures{late}"]
    if told.share is None:
        return (*found, "no answer was given in time")
    found.append(
        f"the picture from {told.first!r} was preferred to that from {told.second!r} in {_percent(told.share)}"
    )
    alpha = told.why_no_alpha if told.alpha is None else f"{told.alpha:.2f} (1: all alike, 0: as by chance)"
    found.append(f"agreement between raters, Krippendorff's alpha: {alpha}")
    if told.left and told.left.low is not None and not told.left.low <= 0.5 <= (told.left.high or 1):
        found.append(f"the left picture was taken in {_percent(told.left)}: sides are random, so this is a habit")
    return tuple(found)


def _percent(measure: Measure) -> str:
    told = f"{100 * measure.value:.1f} %"
    return told if measure.low is None else f"{told} ({100 * measure.low:.0f} to {100 * (measure.high or 0):.0f})"


def agreement(table: np.ndarray) -> tuple[float | None, str]:
    """Krippendorff's alpha (nominal) of raters x pairs, NaN where nobody answered; else None, and why."""
    import krippendorff

    shared = (~np.isnan(table)).sum(0) > 1
    if not shared.any():
        return None, "no pair was answered by two raters"
    values = table[:, shared]
    if len(np.unique(values[~np.isnan(values)])) < 2:
        return None, "undefined: no variation, all answers to shared pairs are the same"
    return float(krippendorff.alpha(reliability_data=values, level_of_measurement="nominal")), ""


def _share(table: np.ndarray) -> Measure:
    asked = ~np.isnan(table).all(0)
    who = ~np.isnan(table).all(1)
    table = table[who][:, asked]
    given, value = ~np.isnan(table), float(np.nanmean(table))
    if given.all():
        return seeds_interval(torch.from_numpy(table), rate=True)
    sides = [torch.from_numpy(np.nanmean(table, axis=axis)) for axis in (0, 1)]
    found = [interval(each, rate=True) for each in sides if len(each) > 1]
    known = [(one.low, one.high) for one in found if one.low is not None and one.high is not None]
    if not known:
        return Measure(value)
    return Measure(value, min(value, *(low for low, _ in known)), max(value, *(high for _, high in known)))
