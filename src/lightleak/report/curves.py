"""Curves over checkpoints: natural accuracy and leak at each, and targets compared at equal accuracy."""

import json
from collections.abc import Sequence

import torch

from lightleak.metrics.evaluation import METRICS
from lightleak.metrics.evidence import Measure, seeds_interval
from lightleak.metrics.frontier import Curve, matched
from lightleak.report.fairness import Entry, Group
from lightleak.report.results import Level, Point
from lightleak.report.trainings import accuracies, people_of, values_of

Curves = dict[str, Curve]  # by metric


def curves_of(everything: Sequence[Entry], groups: Sequence[Group], metrics: Sequence[str]) -> dict[str, Curves]:
    """For each target with checkpoints of all its seeds, natural accuracy and leaks, checkpoint by checkpoint."""
    return {group.name: way for group in groups if (way := _curves(taken_of(everything, group), group, metrics))}


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


def _curves(moments: list[list[Entry]], group: Group, metrics: Sequence[str]) -> Curves:
    if len(moments) < 2:
        return {}
    table = [[moment[place].record for moment in moments] for place in range(len(group.entries))]  # by seed, by moment
    every = [one for row in table for one in row]
    way = {}
    for metric in metrics:
        people = people_of(every, metric)
        if all(metric in one.evaluation.per_class for one in every):
            accuracy = [[[accuracies(one)[person] for person in people] for one in row] for row in table]
            leak = [[values_of(one.evaluation, metric, people) for one in row] for row in table]
            way[metric] = Curve(torch.tensor(accuracy), torch.tensor(leak))
    return way


def points(way: Curves, families: torch.Tensor | None = None) -> list[Point]:
    """The checkpoints of a curve in order of natural accuracy, each with intervals."""
    points = []
    for place in range(next(iter(way.values())).accuracy.shape[1]):

        def measured(table: torch.Tensor, rate: bool, place: int = place) -> Measure:
            return seeds_interval(table[:, place].double(), rate=rate, clusters=families)

        accuracy = measured(next(iter(way.values())).accuracy, True)
        leaks = {m: measured(c.leak, METRICS[m].rate) for m, c in way.items()}
        points.append(Point(accuracy, leaks))
    return sorted(points, key=lambda point: point.accuracy.value)


def levels_of(curves: dict[str, Curves], baseline: str, families: torch.Tensor | None = None) -> list[Level]:
    """Every target compared with the baseline at equal natural accuracy."""
    levels = []
    for name, way in curves.items():
        for metric in [m for m in way if m in curves.get(baseline, {})] if name != baseline else ():
            both = way[metric], curves[baseline][metric]
            told = matched(both[0], both[1], rate=METRICS[metric].rate, clusters=families)
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
