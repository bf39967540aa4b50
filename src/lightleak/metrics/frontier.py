"""Leak at equal natural accuracy: a network that knows less leaks less, so defences are compared where both know alike.

From checkpoints of several training runs: between two checkpoints the leak of a run is taken to move linearly with its
natural accuracy. To first order, the leak at an accuracy is then a mean over people of what each adds to it (by the
leak at both checkpoints, and by moving the accuracies between which it is read off), so its intervals are those of any
other mean over seeds and people.

A network that was stopped has not had its fall of the learning rate, which a finished one has: simulated, that alone
moves the leak at equal accuracy by up to 5 points. A smaller difference says nothing.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightleak.errors import UserError
from lightleak.metrics.evidence import Comparison, Measure, compare, seeds_interval


@dataclass(frozen=True)
class Curve:
    """What the checkpoints of one defence's runs scored of each person: S seeds x K checkpoints x C people."""

    accuracy: Tensor  # share of the person's test images that are recognised
    leak: Tensor
    families: Tensor | None = None  # of each person, C, where some look alike

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
    difference: Comparison  # first minus second


STOPPED = 0.05  # by which being stopped alone moves the leak at equal accuracy: a smaller difference says nothing


def leak_at(curve: Curve, accuracy: float) -> float:
    """The mean over seeds of the leak at a natural accuracy; beyond a run's checkpoints, that of its last one."""
    return float(added(curve, _everywhere(curve, accuracy)).mean())


def matched(
    first: Curve,
    second: Curve,
    rng: torch.Generator | None = None,  # noqa: ARG001
    level: float = 0.95,
    draws: int = 0,  # noqa: ARG001
    rate: bool = False,
    clusters: Tensor | None = None,
) -> Matched | None:
    """Both at the highest natural accuracy that all runs of both reach; None if they never meet.

    The people behind both must be the same. Seeds are paired where both have as many; otherwise each side's mean over
    its seeds is compared, and the interval speaks of other people alone. `rate` and `clusters` as for
    `evidence.seeds_interval`; `rng` and `draws` are of older versions, which resampled.
    """
    if first.accuracy.shape[2] != second.accuracy.shape[2]:
        raise UserError(f"expected the same people, got {first.accuracy.shape[2]} and {second.accuracy.shape[2]}")
    low, at = max(first.reach[0], second.reach[0]), min(first.reach[1], second.reach[1])
    if low > at:
        return None
    both = [added(curve, _everywhere(curve, at)) for curve in (first, second)]
    measures = [seeds_interval(table, level, rate, clusters) for table in both]
    if len(both[0]) != len(both[1]):
        both = [table.mean(0) for table in both]
    return Matched(at, measures[0], measures[1], compare(both[0], both[1], level=level, rate=rate, clusters=clusters))


def added(curve: Curve, wanted: Tensor) -> Tensor:
    """What each person adds to the leak at an accuracy, S x C: its mean over people is that leak, seed by seed.

    `wanted`, S x C, is that accuracy person by person, as of another network that is as right on average: how it moves
    with people then counts as well. Beyond a run's checkpoints it is the leak of the last one.
    """
    if wanted.shape != curve.accuracy[:, 0].shape:
        raise UserError(
            f"expected an accuracy for each seed and person of the curve, {tuple(curve.accuracy[:, 0].shape)}, got "
            f"{tuple(wanted.shape)}"
        )
    rows = []
    for accuracy, leak, sought in zip(*(table.double().numpy() for table in (curve.accuracy, curve.leak, wanted))):
        order = np.argsort(accuracy.mean(1), kind="stable")
        accuracy, leak = accuracy[order], leak[order]
        known = accuracy.mean(1)
        after = int(np.searchsorted(known, sought.mean() - 1e-12))
        if after == 0 or after == len(known) or known[after] == known[after - 1]:  # at an end: no line to move along
            rows.append(leak[min(after, len(known) - 1)])
            continue
        width = known[after] - known[after - 1]
        share = (sought.mean() - known[after - 1]) / width
        slope = (leak[after].mean() - leak[after - 1].mean()) / width
        between = [(1 - share) * side[after - 1] + share * side[after] for side in (leak, accuracy)]
        rows.append(between[0] - slope * (between[1] - sought))
    return torch.from_numpy(np.stack(rows))


def _everywhere(curve: Curve, accuracy: float) -> Tensor:
    """The same accuracy for every seed and person of a curve."""
    return torch.full_like(curve.accuracy[:, 0], accuracy, dtype=torch.float64)
