"""Targets on their way: natural accuracy and leak at each checkpoint, and both held equal."""

import json
from typing import Any

import torch

from lightleak.metrics.evaluation import METRICS
from lightleak.metrics.evidence import Measure, interval, seeds_interval
from lightleak.metrics.frontier import Curve, matched
from lightleak.report.fairness import held_equal, run_of
from lightleak.report.results import Level, Point

Way = dict[str, Curve]  # by metric


def ways_of(
    everything: list[dict[str, Any]],
    groups: dict[str, list[int]],
    records: list[dict[str, Any]],
    metrics: list[str],
) -> dict[str, Way]:
    """For each target with checkpoints of all its seeds, natural accuracy and leaks, checkpoint by checkpoint."""
    found: dict[str, Way] = {}
    held = [(one, held_equal(one)) for one in everything]
    for name, own in groups.items():
        base = held_equal(records[own[0]])
        # By moment (the end is None), by seed.
        taken: dict[str, dict[int, dict[str, Any]]] = {}
        for one, equal in held:
            target = one["target"]
            if run_of(target) == name and equal == base:
                taken.setdefault(json.dumps(target.get("moment")), {})[target["seed"]] = one
        seeds = sorted(records[i]["target"]["seed"] for i in own)
        whole = [by_seed for by_seed in taken.values() if sorted(by_seed) == seeds]
        if len(whole) < 2:
            continue
        table = [[by_seed[seed] for by_seed in whole] for seed in seeds]
        accuracy = torch.tensor([[one["target"]["accuracy_of"] for one in row] for row in table])
        classes = table[0][0]["evaluation"]["classes"]
        way = {}
        for metric in metrics:
            if all(metric in one["evaluation"]["per_class"] for row in table for one in row):
                leak = torch.tensor([[one["evaluation"]["per_class"][metric] for one in row] for row in table])
                way[metric] = Curve(accuracy[:, :, classes], leak)
        found[name] = way
    return found


def points(way: Way) -> list[Point]:
    """The checkpoints of a way in order of natural accuracy, each with intervals."""
    points = []
    for place in range(next(iter(way.values())).accuracy.shape[1]):

        def measured(table: torch.Tensor, place: int = place) -> Measure:
            values = table[:, place].double()
            return seeds_interval(values) if len(values) > 1 else interval(values[0], torch.Generator().manual_seed(0))

        accuracy = as_share(measured(next(iter(way.values())).accuracy))
        leaks = {m: as_share(measured(c.leak)) if METRICS[m].rate else measured(c.leak) for m, c in way.items()}
        points.append(Point(accuracy, leaks))
    return sorted(points, key=lambda point: point.accuracy.value)


def levels_of(curves: dict[str, Way], baseline: str) -> list[Level]:
    """Every target beside the baseline at equal natural accuracy."""
    levels = []
    for name, way in curves.items():
        for metric in [m for m in way if m in curves.get(baseline, {})] if name != baseline else ():
            told = matched(way[metric], curves[baseline][metric], torch.Generator().manual_seed(0))
            if told is not None:
                levels.append(Level(name, metric, told.accuracy, told.first, told.second, told.difference))
    return levels


def as_share(found: Measure) -> Measure:
    """An interval of a share, kept within [0, 1]."""
    if found.low is None or found.high is None:
        return found
    return Measure(found.value, max(found.low, 0.0), min(found.high, 1.0))
