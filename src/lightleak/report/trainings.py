"""What the trainings of one target measured: tables of seeds x people, their intervals, and paired differences."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightleak.data import faces
from lightleak.metrics.evaluation import METRICS, UNANSWERED, Evaluation, Unshown, not_shown, says_not_shown
from lightleak.metrics.evidence import Comparison, Measure, compare, delta, seeds_interval
from lightleak.report.results import Difference, Row
from lightleak.study.record import Record

ACCURACY = "accuracy"


def families(record: Record) -> Tensor | None:
    """The family of every private person, C; also of records that are older than families."""
    settings: dict[str, Any] = dict(record.population.settings)
    known = faces.families(**settings) if record.population.name == "faces" and "lookalikes" in settings else None
    return None if known is None else known[0]


def table(records: Sequence[Record], metric: str) -> Tensor | None:
    """The score of each person of `people_of` in each training, S x C; None where one of them lacks the metric.

    Natural accuracy is of the same people, so that it pairs with what leaks of them.
    """
    people = people_of(records, metric)
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
    a distance of those alone of whom images came back in all trainings.
    """
    share = metric == ACCURACY or METRICS[metric].rate
    each = [everybody(one) if share else one.evaluation.classes for one in records]
    return sorted(set.intersection(*map(set, each)))


def values_of(evaluation: Evaluation, metric: str, people: Sequence[int]) -> list[float]:
    """What was measured of each person; of whom nothing came back, nothing leaked."""
    known = dict(zip(evaluation.classes, evaluation.per_class[metric]))
    return [known.get(person, 0.0) for person in people]


def accuracies(record: Record) -> list[float]:
    """Natural accuracy per person, C; a person without test images gets the mean of the others.

    Of published data a tenth of all pictures is for testing, drawn without regard to whose they are.
    """
    own = record.target.accuracy_of
    if len(own) != record.population.classes:  # an older record, which left those people out
        return [record.target.accuracy] * record.population.classes
    known = [value for value in own if not math.isnan(value)]
    mean = sum(known) / len(known) if known else record.target.accuracy
    return [mean if math.isnan(value) else value for value in own]


def everybody(record: Record) -> list[int]:
    """The people whom an attack was to find, in order, whether or not it came back with an image of each."""
    return sorted(record.attack.classes or range(record.population.classes))


def families_of(record: Record) -> Tensor | None:
    """The family of each person whom an attack was to find, where some look alike."""
    known = families(record)
    return None if known is None else known[everybody(record)]


def scored(records: Sequence[Record], metric: str) -> Tensor | None:
    """What was found of each person who was attacked, S x C by training seed; of whom nothing came back, 0.

    None where one of the trainings lacks the metric.
    """
    people = everybody(records[0])
    if any(metric not in one.evaluation.per_class for one in records):
        return None
    ordered = sorted(records, key=lambda one: one.target.seed)
    return torch.tensor([values_of(one.evaluation, metric, people) for one in ordered], dtype=torch.float64)


def groups(records: Sequence[Record], metric: str = ACCURACY) -> Tensor | None:
    """The family of each person of `table`."""
    known = families(records[0])
    return None if known is None else known[people_of(records, metric)]


def unanswered(records: Sequence[Record]) -> str:
    """Of how many people nothing came back, in words; empty if that is nobody."""
    people = len(everybody(records[0]))
    missing = [people - len(set(everybody(one)) & set(one.evaluation.classes)) for one in records]
    if not any(missing):
        return ""
    return f"of {sum(missing) / len(missing):.3g} of {people} people nothing came back; shares count them as not found"


def measures(records: Sequence[Record]) -> dict[str, Measure | None]:
    """Natural accuracy and every metric, over trainings and people; without values per person, as recorded."""
    found: dict[str, Measure | None] = {}
    for metric in (ACCURACY, *METRICS):
        values = table(records, metric)
        if values is not None:
            rate = metric == ACCURACY or METRICS[metric].rate
            found[metric] = seeds_interval(values, rate=rate, clusters=groups(records, metric))
        elif metric != ACCURACY and len(records) == 1:
            found[metric] = records[0].evaluation.measures.get(metric)  # older records lack new metrics
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
    """A null's measures: of one draw as it was told, but with today's intervals."""
    measured = dict(nulls[0].measures)
    for metric in nulls[0].per_class:
        if metric in METRICS:
            people = everybody(records[0]) if METRICS[metric].rate else nulls[0].classes
            rows = [values_of(one, metric, people) for one in _distinct(nulls) if metric in one.per_class]
            known = families(records[0])
            clusters = None if known is None else known[list(people)]
            measured[metric] = seeds_interval(torch.tensor(rows).double(), rate=METRICS[metric].rate, clusters=clusters)
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
    rate = metric == ACCURACY or METRICS[metric].rate
    gap = compare(pair[0], pair[1], rate=rate, clusters=groups([*own, *base], metric))
    return named(name, metric, gap, trainings=len(own))


def named(name: str, metric: str, gap: Comparison, **units: int) -> Difference:
    """A comparison in the form that a table holds."""
    return Difference(name, metric, gap.value, gap.low, gap.high, None if gap.low is None else gap.p, **units)


def _pair(own: Sequence[Record], base: Sequence[Record], metric: str) -> tuple[Tensor, Tensor] | None:
    if len(own) != len(base):
        return None
    both = table([*own, *base], metric)
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
    leak, accuracy = _pair(own, base, "hits@1"), _pair(own, base, ACCURACY)
    if leak is None or accuracy is None:
        return None
    told = delta((leak[1], leak[0]), (accuracy[1], accuracy[0]), clusters=groups([*own, *base]))
    return None if told.value is None else Measure(told.value, told.low, told.high)


def delta_in_words(name: str, own: Sequence[Record], base: Sequence[Record]) -> str:
    """The paper's Delta of a target with Fieller's interval, or why there is none."""
    leak, accuracy = _pair(own, base, "hits@1"), _pair(own, base, ACCURACY)
    if leak is None or accuracy is None:
        return f"{name}: Delta is undefined: no values per person of as many trainings"
    told = delta((leak[1], leak[0]), (accuracy[1], accuracy[0]), clusters=groups([*own, *base]))
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
    return list(dict.fromkeys([*kept, *filter(None, [unanswered(records)])]))


def unshown(records: Sequence[Record]) -> list[Unshown]:
    """The measures by which a target is not shown to leak, over all of its trainings."""
    return not_shown([one.evaluation for one in records])


def stored(records: Sequence[Record], metrics: Sequence[str]) -> dict[str, list[list[float]]]:
    """The tables behind a row, seeds x people, rounded as far as shares of a few images allow."""
    found = {metric: table(records, metric) for metric in metrics}
    return {
        metric: [[round(value, 6) for value in row] for row in values.tolist()]
        for metric, values in found.items()
        if values is not None
    }
