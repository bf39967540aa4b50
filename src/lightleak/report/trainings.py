"""What the trainings of one target measured: tables of seeds x people, their intervals, and paired differences.

A table holds what was measured alone: whoever has no test images is in none of natural accuracy.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from lightleak.data import faces
from lightleak.metrics.evaluation import METRICS, UNANSWERED, Evaluation, Unshown, not_shown, says_not_shown
from lightleak.metrics.evidence import Comparison, Measure, TradeOff, compare, delta, seeds_interval, worlds_interval
from lightleak.report.results import Difference, Row
from lightleak.report.whose import OfWhom
from lightleak.study.record import Record

ACCURACY = "accuracy"
FEWEST = 3  # trainings that say how much trainings differ


def families(record: Record) -> Tensor | None:
    """The family of every private person, C; also of records that are older than families."""
    settings: dict[str, Any] = dict(record.population.settings)
    known = faces.families(**settings) if record.population.name == "faces" and "lookalikes" in settings else None
    return None if known is None else known[0]


def table(records: Sequence[Record], metric: str, people: Sequence[int] | None = None) -> Tensor | None:
    """The score of each of the `people` in each training, S x C, by default of all whom `people_of` names; None where
    one of the trainings lacks the metric, or of nobody.
    """
    people = people_of(records, metric) if people is None else people
    if metric != ACCURACY and any(metric not in one.evaluation.per_class for one in records):
        return None
    if metric == ACCURACY:
        rows = [[accuracies(one)[person] for person in people] for one in records]
    else:
        rows = [values_of(one.evaluation, metric, people) for one in records]
    found = torch.tensor(rows, dtype=torch.float64)
    return found if found.numel() and found.isfinite().all() else None


def people_of(records: Sequence[Record], metric: str) -> list[int]:
    """Of whom a metric speaks, in order: a share of everybody who was to be found, whether or not anything came back;
    a distance of those alone of whom images came back in all trainings; natural accuracy of all who have test images,
    attacked or not.
    """
    if metric == ACCURACY:
        return tested(records)
    each = [everybody(one) if METRICS[metric].rate else one.evaluation.classes for one in records]
    return sorted(set.intersection(*map(set, each)))


def people_with_both(records: Sequence[Record], metric: str) -> list[int]:
    """Those of whom a metric speaks and who have a natural accuracy, in order."""
    return sorted(set(people_of(records, metric)) & set(tested(records)))


def values_of(evaluation: Evaluation, metric: str, people: Sequence[int]) -> list[float]:
    """What was measured of each person; of whom nothing came back, nothing leaked."""
    known = dict(zip(evaluation.classes, evaluation.per_class[metric]))
    return [known.get(person, 0.0) for person in people]


def accuracies(record: Record) -> list[float]:
    """Natural accuracy per person, C; NaN of a person without test images, and where the record does not say whose.

    Of published data a tenth of all pictures is for testing, drawn without regard to whose they are.
    """
    own = record.target.accuracy_of
    named = len(own) == record.population.classes  # an older record left those without test images out
    return list(own) if named else [math.nan] * record.population.classes


def tested(records: Sequence[Record]) -> list[int]:
    """The people who have a natural accuracy in every training, in order."""
    each = zip(*map(accuracies, records))
    return [person for person, values in enumerate(each) if all(map(math.isfinite, values))]


def everybody(record: Record) -> list[int]:
    """The people whom an attack was to find, in order, whether or not it came back with an image of each."""
    return sorted(record.attack.classes or range(record.population.classes))


def families_of(record: Record) -> Tensor | None:
    """The family of each person whom an attack was to find, where some look alike."""
    return groups([record], everybody(record))


def scored(records: Sequence[Record], metric: str) -> Tensor | None:
    """What was found of each person who was attacked, S x C by training seed; of whom nothing came back, 0.

    None where one of the trainings lacks the metric.
    """
    people = everybody(records[0])
    if any(metric not in one.evaluation.per_class for one in records):
        return None
    ordered = sorted(records, key=lambda one: one.target.seed)
    return torch.tensor([values_of(one.evaluation, metric, people) for one in ordered], dtype=torch.float64)


def groups(records: Sequence[Record], people: Sequence[int]) -> Tensor | None:
    """The family of each of the people, where some look alike."""
    known = families(records[0])
    return None if known is None else known[list(people)]


def of_whom(records: Sequence[Record]) -> OfWhom:
    """Of whom the numbers of a target's trainings speak, in one world or in several."""
    worlds: dict[str, list[Record]] = {}
    for one in records:
        worlds.setdefault(one.population.key, []).append(one)
    each = []
    for own in worlds.values():
        attacked, known = set(everybody(own[0])), set(tested(own))
        answered = fmean(len(attacked & set(one.evaluation.classes)) for one in own)
        people = own[0].population.classes
        each.append(OfWhom(people, len(attacked), answered, len(known), len(known & attacked)))
    return OfWhom(*(sum(getattr(one, name) for one in each) for name in OfWhom.__dataclass_fields__))


def measures(records: Sequence[Record]) -> dict[str, Measure | None]:
    """Natural accuracy and every metric, over trainings and people; without values per person, as recorded."""
    found: dict[str, Measure | None] = {}
    for metric in (ACCURACY, *METRICS):
        values = table(records, metric)
        if values is not None:
            rate = metric == ACCURACY or METRICS[metric].rate
            found[metric] = seeds_interval(values, rate=rate, clusters=groups(records, people_of(records, metric)))
        elif metric == ACCURACY:
            found[metric] = Measure(fmean(one.target.accuracy for one in records))
        elif not any(metric in one.evaluation.per_class for one in records):  # of a set; older records lack new metrics
            found[metric] = pooled([one.evaluation.measures.get(metric) for one in records], METRICS[metric].rate)
    return found


def pooled(told: Sequence[Measure | None], rate: bool = False) -> Measure | None:
    """The mean over trainings of what was measured of a set of images at once; None where one of them lacks it.

    From three trainings on its interval is Student's over them and, in quadrature, what the intervals over people of
    the single trainings leave open, so that it speaks of both. Two do not say how much trainings differ: no interval.
    """
    known = [one for one in told if one is not None]
    if len(known) < len(told) or len(known) == 1:
        return known[0] if len(known) == len(told) else None
    mean = fmean(one.value for one in known)
    whole = [(one.value, one.low, one.high) for one in known if one.low is not None and one.high is not None]
    over = worlds_interval([torch.tensor([one.value], dtype=torch.float64) for one in known])
    if len(known) < FEWEST or len(whole) < len(known) or over.high is None:
        return Measure(mean)
    down, up = fmean(value - low for value, low, _ in whole), fmean(high - value for value, _, high in whole)
    low, high = mean - math.hypot(over.high - mean, down), mean + math.hypot(over.high - mean, up)
    return Measure(mean, max(0.0, low), min(1.0, high)) if rate else Measure(mean, low, high)


def reasons(records: Sequence[Record]) -> dict[str, str]:
    """Why there is no number, by metric; of some of the trainings alone, with how many."""
    found = {}
    for metric in dict.fromkeys(name for one in records for name in one.evaluation.missing):
        without = [why for one in records if (why := one.evaluation.missing.get(metric)) is not None]
        some = f"in {len(without)} of {len(records)} trainings: " if len(without) < len(records) else ""
        found[metric] = f"{some}{without[0]}"
    return found


def null_rows(records: Sequence[Record], told: dict[str, str]) -> list[Row]:
    """The nulls of a target, each over all of its evaluations that have it, and the ceiling of realism."""
    found: dict[str, list[Evaluation]] = {}
    for one in records:
        for name, null in one.evaluation.nulls.items():
            found.setdefault(name, []).append(null)
    rows = [Row(f"null: {name}", _null(nulls, records), "null", told.get(name, "")) for name, nulls in found.items()]
    if ceiling := records[0].evaluation.ceiling:
        what = "as many held-out real pictures of the same people: no reconstruction looks more real"
        rows.append(Row("ceiling: real pictures", dict(ceiling), "null", what))
    if alike := records[0].evaluation.family_chance:
        what = "one of the person's family, drawn at random"
        rows.append(Row("chance: the family known", {k: Measure(v) for k, v in alike.items()}, "chance", what))
    return rows


def _null(nulls: Sequence[Evaluation], records: Sequence[Record]) -> dict[str, Measure | None]:
    """A null's measures over its draws, with today's intervals."""
    distinct = _distinct(nulls)
    measured: dict[str, Measure | None] = {
        metric: pooled([one.measures.get(metric) for one in distinct], metric in METRICS and METRICS[metric].rate)
        for metric in nulls[0].measures
    }
    for metric in nulls[0].per_class:
        if metric in METRICS:
            people = everybody(records[0]) if METRICS[metric].rate else nulls[0].classes
            rows = [values_of(one, metric, people) for one in distinct if metric in one.per_class]
            values, rate = torch.tensor(rows).double(), METRICS[metric].rate
            measured[metric] = seeds_interval(values, rate=rate, clusters=groups(records, people))
    return measured


def _distinct(nulls: Sequence[Evaluation]) -> list[Evaluation]:
    """Each null once: the trainings of a target often share one."""
    found: list[Evaluation] = []
    for one in nulls:
        if one.classes == nulls[0].classes and all(one.per_class != other.per_class for other in found):
            found.append(one)
    return found


def difference(own: Sequence[Record], base: Sequence[Record], name: str, metric: str) -> Difference | None:
    """A target minus the baseline over the same trainings and people; None where one lacks the metric."""
    pair = _pair(own, base, metric)
    if pair is None:
        return None
    rate, both = metric == ACCURACY or METRICS[metric].rate, [*own, *base]
    gap = compare(pair[0], pair[1], rate=rate, clusters=groups(both, people_of(both, metric)))
    return named(name, metric, gap, trainings=len(own))


def named(name: str, metric: str, gap: Comparison, **units: int) -> Difference:
    """A comparison in the form that a table holds."""
    return Difference(name, metric, gap.value, gap.low, gap.high, None if gap.low is None else gap.p, **units)


def _pair(
    own: Sequence[Record], base: Sequence[Record], metric: str, people: Sequence[int] | None = None
) -> tuple[Tensor, Tensor] | None:
    if len(own) != len(base):
        return None
    both = table([*own, *base], metric, people)
    return None if both is None else (both[: len(own)], both[len(own) :])


def spreads(records: Sequence[Record]) -> dict[str, Measure | None]:
    """The standard deviation over at least three trainings of natural accuracy and AttAcc@1, as papers' error bars."""
    found: dict[str, Measure | None] = {}
    for metric in (ACCURACY, "hits@1") if len(records) > 2 else ():
        values = table(records, metric)
        found[f"{metric} deviation"] = None if values is None else Measure(float(values.mean(1).std()))
    return found


def traded(own: Sequence[Record], base: Sequence[Record]) -> Measure | None:
    """The paper's Delta of a target with Fieller's interval; None where it is undefined (`delta_in_words` says why)."""
    told = _delta(own, base)
    return None if told is None or told.value is None else Measure(told.value, told.low, told.high)


def _delta(own: Sequence[Record], base: Sequence[Record]) -> TradeOff | None:
    """Delta over the people who have both numbers; None without values per person of as many trainings."""
    people = people_with_both([*own, *base], "hits@1")
    leak, accuracy = (_pair(own, base, metric, people) for metric in ("hits@1", ACCURACY))
    if leak is None or accuracy is None:
        return None
    return delta((leak[1], leak[0]), (accuracy[1], accuracy[0]), clusters=groups(own, people))


def delta_in_words(name: str, own: Sequence[Record], base: Sequence[Record]) -> str:
    """The paper's Delta of a target with Fieller's interval, or why there is none."""
    if (told := _delta(own, base)) is None:
        return f"{name}: Delta is undefined: no values per person of as many trainings"
    if told.value is None or told.low is None or told.high is None:
        return f"{name}: {told.warning}"
    return (
        f"{name}: Delta = {told.value:.2f} ({told.low:.2f} to {told.high:.2f}) points of AttAcc@1 lost per point of "
        f"natural accuracy ({100 * told.leak_drop:.1f} over {100 * told.accuracy_loss:.1f}); never read it alone"
    )


def warnings(records: Sequence[Record]) -> list[str]:
    """The warnings of the evaluations of a target's trainings, except those on whether a leak is shown (`unshown`)."""
    kept = [
        text
        for one in records
        for text in one.evaluation.warnings
        if not says_not_shown(text) and not text.startswith(UNANSWERED)
    ]
    return list(dict.fromkeys([*kept, *filter(None, [of_whom(records).unanswered])]))


def unshown(records: Sequence[Record]) -> list[Unshown]:
    """The measures by which a target is not shown to leak, over all of its trainings, in one world or in several."""
    return not_shown(_each_image_once(records))


def _each_image_once(records: Sequence[Record]) -> list[Evaluation]:
    """The evaluations of every reconstruction: the mean over its judges. Each world has people of its own."""
    same: dict[tuple[str, int], list[Record]] = {}
    seen: Counter[tuple[str, str]] = Counter()  # by reconstruction and judge: the same twice is another attempt
    sizes: dict[str, int] = {}  # people by world
    for one in records:
        what = [one.population.key, one.target.key, vars(one.attack), vars(one.prior), one.evaluation.images]
        name, by = json.dumps(what, sort_keys=True, default=str), repr(one.judge)
        same.setdefault((name, seen[name, by]), []).append(one)
        seen[name, by] += 1
        sizes[one.population.key] = one.population.classes
    first = dict(zip(sizes, accumulate(sizes.values(), initial=0)))
    return [_mean_of([one.evaluation for one in own], first[own[0].population.key]) for own in same.values()]


def _mean_of(judged: Sequence[Evaluation], before: int) -> Evaluation:
    """What several judges say of one reconstruction, of people who are numbered after so many others."""
    one = judged[0]
    shared = [metric for metric in one.per_class if all(metric in other.per_class for other in judged)]
    return replace(
        one,
        classes=tuple(before + person for person in one.classes),
        families=None if one.families is None else tuple(before + family for family in one.families),
        per_class={name: tuple(map(fmean, zip(*(other.per_class[name] for other in judged)))) for name in shared},
    )


def stored(records: Sequence[Record], metrics: Sequence[str]) -> dict[str, list[list[float]]]:
    """The tables behind a row, seeds x people attacked, rounded as far as shares of a few images allow."""
    found = {metric: table(records, metric) for metric in metrics if metric != ACCURACY}
    if ACCURACY in metrics and tested(records):
        own = [[accuracies(one)[person] for person in everybody(one)] for one in records]
        found = {ACCURACY: torch.tensor(own, dtype=torch.float64)} | found
    return {
        metric: [[round(value, 6) for value in row] for row in values.tolist()]
        for metric, values in found.items()
        if values is not None
    }
