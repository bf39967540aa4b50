"""Curves over checkpoints: natural accuracy and leak at each, and targets compared at equal accuracy."""

import json
from collections.abc import Mapping, Sequence

import torch

from lightleak.metrics.evaluation import METRICS
from lightleak.metrics.evidence import Measure, seeds_interval
from lightleak.metrics.frontier import Curve, matched
from lightleak.report.fairness import Entry, Group
from lightleak.report.results import Level, Point
from lightleak.report.trainings import accuracies, groups, people_with_both, values_of
from lightleak.study.record import Record

Curves = dict[str, Curve]  # by metric


def curves_of(everything: Sequence[Entry], targets: Sequence[Group], metrics: Sequence[str]) -> dict[str, Curves]:
    """For each target with checkpoints of all its seeds, natural accuracy and leaks, checkpoint by checkpoint.

    By one metric all curves are of the same people: those who have both numbers everywhere.
    """
    taken = {target.name: some for target in targets if len(some := taken_of(everything, target)) > 1}
    records = [one.record for moments in taken.values() for moment in moments for one in moment]
    people = {}
    for metric in metrics:
        measured = [one for one in records if metric in one.evaluation.per_class]
        people[metric] = people_with_both(measured, metric) if measured else []
    return {name: way for name, moments in taken.items() if (way := _curves(moments, people))}


def taken_of(everything: Sequence[Entry], group: Group) -> list[list[Entry]]:
    """A target's evaluations by checkpoint criterion, where all of its seeds, in order, were attacked."""
    seeds = sorted(one.record.target.seed for one in group.entries)
    chosen = {one.folder for one in group.entries}
    taken: dict[str, dict[int, Entry]] = {}  # by moment (the end is None), by seed
    for one in everything:
        target = one.record.target
        if one.run == group.entries[0].run and (target.moment is not None or one.folder in chosen):
            taken.setdefault(json.dumps(target.moment, default=str), {}).setdefault(target.seed, one)
    return [[by_seed[seed] for seed in seeds] for by_seed in taken.values() if sorted(by_seed) == seeds]


def _curves(moments: list[list[Entry]], people: Mapping[str, Sequence[int]]) -> Curves:
    """The curve by each metric, over its people; none where a training lacks the metric, or of nobody."""
    table = [[one.record for one in own] for own in zip(*moments)]  # by seed, by moment
    every = [one for row in table for one in row]
    return {
        metric: _curve(table, metric, own)
        for metric, own in people.items()
        if own and all(metric in one.evaluation.per_class for one in every)
    }


def _curve(table: list[list[Record]], metric: str, people: Sequence[int]) -> Curve:
    accuracy = [[[accuracies(one)[person] for person in people] for one in row] for row in table]
    leak = [[values_of(one.evaluation, metric, people) for one in row] for row in table]
    return Curve(torch.tensor(accuracy), torch.tensor(leak), groups(table[0], people))


def points(way: Curves) -> list[Point]:
    """The checkpoints of a curve in order of natural accuracy, each with intervals."""
    points, first = [], next(iter(way.values()))
    for place in range(first.accuracy.shape[1]):

        def measured(curve: Curve, table: torch.Tensor, rate: bool, place: int = place) -> Measure:
            return seeds_interval(table[:, place].double(), rate=rate, clusters=curve.families)

        leaks = {metric: measured(curve, curve.leak, METRICS[metric].rate) for metric, curve in way.items()}
        points.append(Point(measured(first, first.accuracy, True), leaks))
    return sorted(points, key=lambda point: point.accuracy.value)


def levels_of(curves: dict[str, Curves], baseline: str) -> list[Level]:
    """Every target compared with the baseline at equal natural accuracy."""
    levels = []
    for name, way in curves.items():
        for metric in [m for m in way if m in curves.get(baseline, {})] if name != baseline else ():
            both = way[metric], curves[baseline][metric]
            told = matched(both[0], both[1], rate=METRICS[metric].rate, clusters=both[0].families)
            if told is not None:
                gap = Measure(told.difference.value, told.difference.low, told.difference.high)
                levels.append(
                    Level(
                        name,
                        metric,
                        told.accuracy,
                        as_share(told.first),
                        as_share(told.second),
                        gap,
                        told.difference.p,
                        min(len(one.leak) for one in both),
                    )
                )
    return levels


def as_share(found: Measure) -> Measure:
    """An interval of a share, kept within [0, 1]."""
    if found.low is None or found.high is None:
        return found
    return Measure(found.value, max(found.low, 0.0), min(found.high, 1.0))
