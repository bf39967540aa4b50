"""Leak at equal natural accuracy: a network that knows less leaks less, so defences are compared where both know alike.

From checkpoints of several training runs: between two checkpoints the leak of a run is taken to move linearly with its
natural accuracy. Intervals come from resampling people, with their test images and their reconstructions, and seeds;
with three seeds such an interval is somewhat too narrow (a bootstrap cannot look beyond the seeds it has).
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from lightleak.errors import UserError
from lightleak.metrics.evidence import Measure


@dataclass(frozen=True)
class Curve:
    """What the checkpoints of one defence's runs scored of each person: S seeds x K checkpoints x C people."""

    accuracy: Tensor  # share of the person's test images that are recognised
    leak: Tensor

    def __post_init__(self) -> None:
        if self.accuracy.shape != self.leak.shape or self.accuracy.dim() != 3 or self.accuracy.numel() == 0:
            raise UserError(
                "a curve needs accuracy and leak of the same seeds x checkpoints x people, got "
                f"{tuple(self.accuracy.shape)} and {tuple(self.leak.shape)}"
            )

    @property
    def reach(self) -> tuple[float, float]:
        """The lowest and the highest natural accuracy that the runs of all seeds come to."""
        means = self.accuracy.double().mean(2)
        return float(means.min(1).values.max()), float(means.max(1).values.min())


@dataclass(frozen=True)
class Matched:
    """Two defences at one natural accuracy."""

    accuracy: float
    first: Measure
    second: Measure
    difference: Measure  # first minus second


def leak_at(curve: Curve, accuracy: float) -> float:
    """The mean over seeds of the leak at a natural accuracy; beyond a run's checkpoints, that of its last one."""
    return _at(curve.accuracy.double().mean(2).numpy(), curve.leak.double().mean(2).numpy(), accuracy)


def matched(
    first: Curve, second: Curve, rng: torch.Generator, level: float = 0.95, draws: int = 2000
) -> Matched | None:
    """Both at the highest natural accuracy that all runs of both reach; None if they never meet.

    The people behind both must be the same. Seeds are paired where both have as many.
    """
    if first.accuracy.shape[2] != second.accuracy.shape[2]:
        raise UserError(f"expected the same people, got {first.accuracy.shape[2]} and {second.accuracy.shape[2]}")
    low, at = max(first.reach[0], second.reach[0]), min(first.reach[1], second.reach[1])
    if low > at:
        return None
    found = np.empty((draws, 2))
    people = first.accuracy.shape[2]
    seeds = [curve.accuracy.shape[0] for curve in (first, second)]
    tables = [(curve.accuracy.double().numpy(), curve.leak.double().numpy()) for curve in (first, second)]
    for draw in range(draws):
        who = torch.randint(people, (people,), generator=rng).numpy()
        drawn = [torch.randint(count, (count,), generator=rng).numpy() for count in seeds]
        if seeds[0] == seeds[1]:
            drawn[1] = drawn[0]
        for side, ((accuracy, leak), runs) in enumerate(zip(tables, drawn)):
            found[draw, side] = _at(accuracy[runs][:, :, who].mean(2), leak[runs][:, :, who].mean(2), at)
    values = leak_at(first, at), leak_at(second, at)
    return Matched(
        at,
        _measure(values[0], found[:, 0], people, level),
        _measure(values[1], found[:, 1], people, level),
        _measure(values[0] - values[1], found[:, 0] - found[:, 1], people, level),
    )


def _at(accuracy: np.ndarray, leak: np.ndarray, wanted: float) -> float:
    """The mean over runs (rows) of the leak at an accuracy, linear between checkpoints (columns)."""
    values = []
    for known, leaked in zip(accuracy, leak):
        order = np.argsort(known, kind="stable")
        values.append(np.interp(wanted, known[order], leaked[order]))
    return float(np.mean(values))


def _measure(value: float, drawn: np.ndarray, people: int, level: float) -> Measure:
    if people < 2:
        return Measure(value)
    # Moved outwards, so that few people do not make narrow intervals, as in `evidence.interval`.
    tail = NormalDist().cdf(-math.sqrt(people / (people - 1)) * NormalDist().inv_cdf((1 + level) / 2))
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Measure(value, min(float(low), value), max(float(high), value))
