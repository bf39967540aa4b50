"""Leak at equal natural accuracy: closed forms, honest intervals, and no answer where two defences never meet."""

import pytest
import torch

from lightleak.errors import UserError
from lightleak.metrics.frontier import Curve, leak_at, matched


def curve(accuracy, leak, people=200, seeds=2, noise=0.0, seed=0):
    """Checkpoints of these mean accuracies and leaks; each person's differ by noise."""
    rng = torch.Generator().manual_seed(seed)
    tables = []
    for means in (accuracy, leak):
        table = torch.tensor(means).repeat(seeds, 1)[:, :, None].expand(-1, -1, people).clone()
        tables.append(table + noise * torch.randn(table.shape, generator=rng))
    return Curve(*tables)


def compared(first, second, draws=2000):
    told = matched(first, second, torch.Generator().manual_seed(0), draws=draws)
    assert told is not None
    assert told.difference.low is not None
    assert told.difference.high is not None
    return told, told.difference.low, told.difference.high


def test_between_checkpoints_it_is_linear():
    one = curve((0.5, 0.9, 0.7), (0.1, 0.6, 0.3))  # in the order of time, not of accuracy
    assert leak_at(one, 0.8) == pytest.approx(0.45)
    assert leak_at(one, 0.6) == pytest.approx(0.2)
    assert one.reach == pytest.approx((0.5, 0.9))


def test_the_comparison_is_made_at_the_highest_accuracy_of_both():
    plain = curve((0.6, 0.8, 0.95), (0.3, 0.6, 0.9))
    cut = curve((0.5, 0.85), (0.2, 0.5))
    told, *_ = compared(cut, plain)
    assert told.accuracy == pytest.approx(0.85)
    assert told.first.value == pytest.approx(0.5)
    assert told.second.value == pytest.approx(0.7)
    assert told.difference.value == pytest.approx(-0.2)


def test_a_weaker_model_on_the_same_line_is_no_defence():
    """A defence that only costs accuracy lies on the undefended curve: at equal accuracy nothing is left."""
    plain = curve((0.6, 0.8, 0.95), (0.3, 0.6, 0.9), noise=0.3)
    weak = curve((0.6, 0.8), (0.3, 0.6), noise=0.3, seed=1)
    _, low, high = compared(weak, plain)
    assert low < 0 < high


def test_the_interval_covers():
    """Over 60 draws of people, about 95 % of the intervals hold the true difference."""
    held = 0
    for seed in range(60):
        first = curve((0.6, 0.9), (0.3, 0.5), people=40, seeds=3, noise=0.2, seed=seed)
        second = curve((0.5, 0.85), (0.3, 0.8), people=40, seeds=3, noise=0.2, seed=seed + 1000)
        told, low, high = compared(first, second, 200)
        slope = 0.3 + 0.2 * (told.accuracy - 0.6) / 0.3
        true = slope - (0.3 + 0.5 * (told.accuracy - 0.5) / 0.35)
        held += low <= true <= high
    assert held >= 52


def test_those_who_never_meet_are_not_compared():
    assert matched(curve((0.2, 0.4), (0.1, 0.2)), curve((0.6, 0.9), (0.5, 0.9)), torch.Generator()) is None


def test_bad_input_is_one_clear_line():
    with pytest.raises(UserError, match="seeds x checkpoints x people"):
        Curve(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(UserError, match="same people"):
        matched(curve((0.5,), (0.5,), people=3), curve((0.5,), (0.5,), people=4), torch.Generator())
