"""Comparisons that NaN loses: what is no number is never the best, the highest or right."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def as_lowest(values: Tensor) -> Tensor:
    """`values` for sorting and picking the highest: NaN, which torch takes for the largest, becomes -infinity."""
    return values.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf) if values.isnan().any() else values


def as_highest(values: Tensor) -> Tensor:
    """`values` for sorting and picking the lowest: NaN becomes infinity."""
    return -as_lowest(-values)


def or_lowest(value: float) -> float:
    """A number for sorting: NaN becomes -infinity."""
    return -math.inf if math.isnan(value) else value


def answers(logits: Tensor) -> Tensor:
    """The class that each row of logits N x C names, N; -1, which is nobody's label, where a row holds NaN."""
    return logits.argmax(1).masked_fill(logits.isnan().any(1), -1)


def named(told: Tensor) -> Tensor:
    """The class that each row of what was told, N x C, names; -1 where it holds NaN, or says the same of every class,
    as where a guard gives no answer.
    """
    even = (told.amax(1) <= told.amin(1)) & (told.shape[1] > 1)
    return answers(told).masked_fill(even, -1)


def tally(called: Tensor, classes: int) -> Tensor:
    """How often each class was named (`named`, N), C; who named none counts for none."""
    return torch.bincount(called[called >= 0], minlength=classes)


def agreement_of(one: Tensor, other: Tensor) -> float:
    """The share of rows of two tables of logits, N x C each, that name the same class; some name none (`named`)."""
    called = named(one)
    return float(((called == named(other)) & (called >= 0)).double().mean())


def beats(score: Sequence[float], other: Sequence[float]) -> bool:
    """Whether `score` is the better one, compared number by number; one with NaN in it beats nothing."""
    if any(math.isnan(value) for value in score):
        return False
    return any(math.isnan(value) for value in other) or tuple(score) > tuple(other)
