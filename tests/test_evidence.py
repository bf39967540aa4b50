"""Intervals, comparisons and the trade-off against closed forms, brute force and simulation."""

import math

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightleak.errors import UserError
from lightleak.metrics import evidence


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_wilson_agrees_with_scipy() -> None:
    from scipy.stats import binomtest

    for hits, trials in [(0, 10), (1, 10), (25, 50), (50, 50), (3, 7)]:
        for level in (0.9, 0.95):
            expected = binomtest(hits, trials).proportion_ci(level, method="wilson")
            got = evidence.wilson(hits, trials, level)
            assert got.value == hits / trials
            assert got.low == pytest.approx(expected.low, abs=1e-9)
            assert got.high == pytest.approx(expected.high, abs=1e-9)


@pytest.mark.parametrize(("hits", "trials"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_refuses_nonsense(hits: int, trials: int) -> None:
    with pytest.raises(UserError):
        evidence.wilson(hits, trials)


def test_interval_approaches_the_t_interval() -> None:
    values = torch.randn(60, generator=rng(4), dtype=torch.float64)
    got = evidence.interval(values, rng(), draws=40000)
    half = 2.0010 * float(values.std()) / 60**0.5
    assert got.low == pytest.approx(float(values.mean()) - half, abs=0.05 * half)
    assert got.high == pytest.approx(float(values.mean()) + half, abs=0.05 * half)


@settings(max_examples=40, deadline=None)
@given(values=st.lists(st.floats(0, 1), min_size=2, max_size=30), seed=st.integers(0, 1000))
def test_interval_is_sane(values: list[float], seed: int) -> None:
    table = torch.tensor(values, dtype=torch.float64)
    got = evidence.interval(table, rng(seed), rate=True)
    assert got.low is not None
    assert got.high is not None
    assert -1e-12 <= got.low <= got.value + 1e-12
    assert got.value - 1e-12 <= got.high <= 1 + 1e-12
    assert got == evidence.interval(table, rng(seed), rate=True)


def test_a_perfect_score_is_not_certainty() -> None:
    got = evidence.interval(torch.ones(20), rng(), rate=True)
    assert (got.value, got.high) == (1, 1)
    assert got.low is not None
    assert 0.8 < got.low < 0.9


def test_one_person_gives_no_interval() -> None:
    assert evidence.interval(torch.tensor([0.4]), rng()) == evidence.Measure(pytest.approx(0.4))
    assert evidence.seeds_interval(torch.rand(3, 1)).low is None


def test_missing_values_are_refused_not_averaged() -> None:
    with pytest.raises(UserError, match="finite"):
        evidence.interval(torch.tensor([1.0, math.nan]), rng())
    with pytest.raises(UserError, match="one value per identity"):
        evidence.interval(torch.empty(0), rng())
    with pytest.raises(UserError, match="same identities"):
        evidence.compare(torch.ones(3), torch.ones(4), rng())


def covers(sample, truth: float, measure, trials: int) -> float:
    inside = 0
    for _ in range(trials):
        got = measure(sample())
        inside += got.low <= truth <= got.high
    return inside / trials


@pytest.mark.parametrize(
    ("people", "images", "a", "b"),
    [(10, 4, 2.0, 2.0), (50, 1, 9.0, 1.0), (50, 4, 9.0, 1.0), (50, 8, 2.0, 6.0)],
)
def test_interval_covers_the_truth(people: int, images: int, a: float, b: float) -> None:
    """Each person has a probability of their own from Beta(a, b): images of one person are not independent."""
    g, numpy_rng = rng(0), numpy.random.default_rng(0)

    def sample() -> torch.Tensor:
        return torch.from_numpy(numpy_rng.binomial(images, numpy_rng.beta(a, b, people)) / images)

    share = covers(sample, a / (a + b), lambda x: evidence.interval(x, g, draws=500, rate=True), 300)
    assert share >= 0.9


@pytest.mark.parametrize("deviations", [(0.0, 1.0, 1.0), (0.1, 0.3, 0.5), (0.3, 0.3, 0.3), (1.0, 0.1, 0.1)])
def test_seeds_interval_covers_the_truth(deviations: tuple[float, float, float]) -> None:
    g, (seed, person, rest) = rng(0), deviations

    def sample() -> torch.Tensor:
        return (
            seed * torch.randn(3, 1, generator=g)
            + person * torch.randn(1, 50, generator=g)
            + rest * torch.randn(3, 50, generator=g)
        )

    assert covers(sample, 0.0, evidence.seeds_interval, 400) >= 0.88


def test_seeds_interval_closed_form() -> None:
    """Without differences between people it is the t interval of the seeds' means."""
    from scipy.stats import ttest_1samp

    means = torch.tensor([0.2, 0.5, 0.3, 0.35], dtype=torch.float64)
    got = evidence.seeds_interval(means[:, None].expand(4, 30))
    expected = ttest_1samp(means.numpy(), 0).confidence_interval(0.95)
    assert (got.low, got.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    flat = evidence.seeds_interval(torch.full((3, 4), 0.5))
    assert (flat.low, flat.high) == (0.5, 0.5)


def test_pairing_sees_what_separate_intervals_do_not() -> None:
    person = torch.rand(40, generator=rng(1))
    first, second = person + 0.05 + 0.02 * torch.randn(40, generator=rng(2)), person
    got = evidence.compare(first, second, rng())
    assert got.value == pytest.approx(float((first - second).mean()), abs=1e-6)
    assert got.low is not None
    assert got.low > 0.03
    assert got.p < 0.001
    apart = evidence.interval(first, rng()), evidence.interval(second, rng())
    assert apart[0].low < apart[1].high  # type: ignore[operator]


def test_one_row_of_seeds_is_a_plain_comparison() -> None:
    first, second = torch.rand(20, generator=rng(1)), torch.rand(20, generator=rng(2))
    assert evidence.compare(first[None], second[None], rng()) == evidence.compare(first, second, rng())


def test_sign_flip_is_exact_for_few_people() -> None:
    assert evidence.sign_flip(torch.tensor([1.0, 2, 3]), rng()) == pytest.approx(2 / 8)
    assert evidence.sign_flip(torch.tensor([5.0]), rng()) == 1
    assert evidence.sign_flip(torch.zeros(4), rng()) == 1
    assert evidence.sign_flip(torch.tensor([0.1] * 12), rng()) == pytest.approx(2 / 4096)


def test_sign_flip_agrees_with_scipy() -> None:
    from scipy.stats import permutation_test

    values = (torch.randn(12, generator=rng(3), dtype=torch.float64) + 0.5).numpy()
    expected = permutation_test((values,), lambda x: x.mean(), permutation_type="samples", n_resamples=10**4).pvalue
    assert evidence.sign_flip(torch.from_numpy(values), rng()) == pytest.approx(expected)


def test_sign_flip_is_calibrated_and_never_zero() -> None:
    g = rng(5)
    values = [evidence.sign_flip(torch.randn(20, generator=g), g, draws=199) for _ in range(400)]
    assert 0.02 < sum(p <= 0.05 for p in values) / 400 < 0.08
    assert evidence.sign_flip(torch.ones(100), g, draws=99) == 0.01


# The paper's table of defences on ResNets and DenseNets (natural accuracy, attack accuracy, printed Delta), where the
# printed Delta follows from the printed accuracies.
PAPER = [
    ((94.69, 90.78), (91.12, 46.25), 12.47),
    ((94.86, 83.00), (92.40, 58.68), 9.89),
    ((94.86, 83.00), (93.79, 71.06), 11.16),
    ((95.43, 86.51), (92.19, 54.79), 9.79),
    ((94.67, 78.09), (86.86, 24.48), 6.86),
    ((94.32, 77.62), (93.09, 65.21), 10.09),
]


@pytest.mark.parametrize(("none", "defence", "printed"), PAPER)
def test_trade_off_gives_the_paper_s_numbers(none, defence, printed: float) -> None:
    got = evidence.trade_off((none[1] / 100, defence[1] / 100), (none[0] / 100, defence[0] / 100))
    assert got.value == pytest.approx(printed, abs=0.011)
    assert got.warning is None


@pytest.mark.parametrize(
    ("accuracy", "images", "reason"),
    [
        ((0.9469, 0.9440), None, "near zero"),  # the paper's best Delta, 31.48, is a division by 0.29 points
        ((0.90, 0.92), None, "negative"),
        ((0.90, 0.90), None, "near zero"),
        ((0.9486, 0.9379), 1000, "within the noise"),
    ],
)
def test_trade_off_is_missing_where_it_measures_noise(accuracy, images: int | None, reason: str) -> None:
    got = evidence.trade_off((0.9, 0.5), accuracy, images)
    assert got.value is None
    assert got.warning is not None
    assert reason in got.warning
    assert got.leak_drop == pytest.approx(0.4)


def test_trade_off_wants_shares() -> None:
    with pytest.raises(UserError, match="divide percentages by 100"):
        evidence.trade_off((83.0, 58.68), (94.86, 92.40))
