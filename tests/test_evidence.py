"""Intervals, comparisons and the trade-off against closed forms, brute force and simulation."""

import math

import numpy as np
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


@pytest.mark.parametrize(("people", "t"), [(4, 3.18244631), (8, 2.36462425), (60, 2.00099538)])
def test_interval_is_the_t_interval(people: int, t: float) -> None:
    values = torch.randn(people, generator=rng(4), dtype=torch.float64)
    half = t * float(values.std()) / people**0.5
    for got in (evidence.interval(values), evidence.worlds_interval([value.repeat(3) for value in values])):
        assert got.low == pytest.approx(float(values.mean()) - half, rel=1e-6)
        assert got.high == pytest.approx(float(values.mean()) + half, rel=1e-6)


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
    g, numpy_rng = rng(0), np.random.default_rng(0)

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


# --- the same by a second way


def loops(table: np.ndarray) -> tuple[float, float, float]:
    """The mean squares of a crossed layout, written out: seeds, people, the rest."""
    seeds, people = table.shape
    mean = table.mean()
    of_seeds = sum(people * (table[s].mean() - mean) ** 2 for s in range(seeds)) / (seeds - 1)
    of_people = sum(seeds * (table[:, c].mean() - mean) ** 2 for c in range(people)) / (people - 1)
    rest = 0.0
    for s in range(seeds):
        for c in range(people):
            rest += (table[s, c] - table[s].mean() - table[:, c].mean() + mean) ** 2
    return of_seeds, of_people, rest / ((seeds - 1) * (people - 1))


def test_trainings_that_differ_widen_the_interval_by_what_they_add() -> None:
    from scipy.stats import t

    table = np.random.default_rng(1).normal(size=(4, 12)) + np.array([[0.0], [2.0], [-1.0], [1.5]])
    of_seeds, of_people, rest = loops(table)
    assert of_seeds > rest
    variance = (of_seeds + of_people - rest) / 48
    freedom = (of_seeds + of_people - rest) ** 2 / (of_seeds**2 / 3 + of_people**2 / 11 + rest**2 / 33)
    got = evidence.seeds_interval(torch.from_numpy(table))
    assert got.high == pytest.approx(table.mean() + t.ppf(0.975, freedom) * variance**0.5)
    assert got.low == pytest.approx(table.mean() - t.ppf(0.975, freedom) * variance**0.5)


def test_trainings_that_do_not_differ_add_nothing() -> None:
    from scipy.stats import ttest_1samp

    table = np.random.default_rng(2).normal(size=(3, 12))
    table -= table.mean(1, keepdims=True)
    got = evidence.seeds_interval(torch.from_numpy(table))
    expected = ttest_1samp(table.mean(0), 0).confidence_interval(0.95)
    assert (got.low, got.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_families_of_one_size_count_as_their_means() -> None:
    from scipy.stats import ttest_1samp

    values = np.random.default_rng(3).normal(size=24)
    families = torch.arange(24) // 4
    got = evidence.interval(torch.from_numpy(values), clusters=families[torch.randperm(24, generator=rng())])
    assert got.low != evidence.interval(torch.from_numpy(values)).low
    got = evidence.interval(torch.from_numpy(values), clusters=families)
    expected = ttest_1samp(values.reshape(6, 4).mean(1), 0).confidence_interval(0.95)
    assert (got.low, got.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    alone = evidence.interval(torch.from_numpy(values), clusters=torch.arange(24) * 7)
    assert alone == evidence.interval(torch.from_numpy(values))


def test_families_of_several_sizes_count_by_their_people() -> None:
    from scipy.stats import t

    values = np.random.default_rng(4).normal(size=9)
    families = np.array([0, 0, 0, 0, 1, 1, 2, 3, 3])
    sums = [sum(values[families == k] - values.mean()) for k in range(4)]
    variance = 4 / 3 * sum(s**2 for s in sums) / 9**2
    got = evidence.interval(torch.from_numpy(values), clusters=torch.from_numpy(families))
    assert got.value == pytest.approx(values.mean())
    assert got.high == pytest.approx(values.mean() + t.ppf(0.975, 3) * variance**0.5)
    with pytest.raises(UserError, match="one family for each of 9 people"):
        evidence.interval(torch.from_numpy(values), clusters=torch.arange(4))


def test_a_share_s_ends_are_where_the_score_test_rejects() -> None:
    """Wilson's ends p0 solve (p - p0)^2 = t^2 p0 (1 - p0) / n, here with n = p (1 - p) / v."""
    from scipy.stats import t

    table = np.random.default_rng(5).binomial(2, 0.4, (3, 30)) / 2
    got = evidence.seeds_interval(torch.from_numpy(table), rate=True)
    of_seeds, of_people, rest = loops(table)
    assert of_seeds < rest
    share, variance = table.mean(), of_people / 90
    people = share * (1 - share) / variance
    for end in (got.low, got.high):
        assert end is not None
        assert (share - end) ** 2 == pytest.approx(t.ppf(0.975, 29) ** 2 * end * (1 - end) / people)


def test_no_success_is_as_uncertain_whatever_was_repeated() -> None:
    from scipy.stats import t

    ends = [evidence.interval(torch.zeros(32), rate=True), evidence.seeds_interval(torch.zeros(3, 32))]
    square = t.ppf(0.975, 31) ** 2
    for got in ends:
        assert (got.value, got.low, got.high) == (0, 0, pytest.approx(square / (32 + square)))
    half = evidence.seeds_interval(torch.full((3, 32), 0.5), rate=True)  # alike, yet no more than 32 people
    assert half.high == pytest.approx(0.5 + 0.5 * (square / (32 + square)) ** 0.5)
    sure = evidence.seeds_interval(torch.ones(3, 32))
    assert (sure.value, sure.low, sure.high) == (1, pytest.approx(32 / (32 + square)), 1)


def test_a_success_more_never_lowers_the_interval() -> None:
    """0 of 112 images may not leave more open than 1 of 112."""
    before = (-1.0, -1.0)
    for hits in range(12):
        table = torch.zeros(56)
        table[:hits] = 0.5
        got, mirrored = evidence.interval(table, rate=True), evidence.interval(1 - table, rate=True)
        assert got.low is not None
        assert got.high is not None
        assert got.low >= before[0] - 1e-12
        assert got.high >= before[1] - 1e-12
        assert mirrored.low == pytest.approx(1 - got.high)
        assert mirrored.high == pytest.approx(1 - got.low)
        before = got.low, got.high


def test_all_against_none_is_not_certain_either() -> None:
    for shape in ((32,), (3, 32)):
        got = evidence.compare(torch.ones(shape), torch.zeros(shape))
        assert (got.value, got.high) == (1, 1)
        assert got.low is not None
        assert 0.75 < got.low < 0.9
        assert got.p < 1e-6
        back = evidence.compare(torch.zeros(shape), torch.ones(shape))
        assert (back.value, back.low, back.high) == (-1, -1, pytest.approx(-got.low))
        none = evidence.compare(torch.zeros(shape), torch.zeros(shape))
        assert none.low is not None
        assert none.low < -0.1
        assert none.high == pytest.approx(-none.low)
        assert none.p == 1


def test_four_of_forty_against_none_is_no_finding() -> None:
    """The exact test of four changes to one side says p = 1/8."""
    few = torch.zeros(40)
    few[:4] = 1
    got = evidence.compare(few, torch.zeros(40))
    assert got.low is not None
    assert got.low < 0
    assert 0.08 < got.p < 0.2


def test_pairs_away_from_the_edges_are_compared_by_student_s_t() -> None:
    from scipy.stats import ttest_rel

    generator = np.random.default_rng(6)
    first, second = generator.binomial(2, 0.7, 40) / 2, generator.binomial(2, 0.4, 40) / 2
    expected = ttest_rel(first, second)
    for rate in (True, False):
        got = evidence.compare(torch.from_numpy(first), torch.from_numpy(second), rate=rate)
        assert got.p == pytest.approx(expected.pvalue, rel=1e-6)
        assert got.low == pytest.approx(expected.confidence_interval(0.95).low)
        assert got.high == pytest.approx(expected.confidence_interval(0.95).high)


def test_networks_that_always_agree_may_still_differ_a_little() -> None:
    table = (torch.rand(3, 32, generator=rng()) < 0.6).double()
    got = evidence.compare(table, table)
    assert got.value == 0
    assert got.high is not None
    assert 0.02 < got.high < 0.04
    assert got.low == pytest.approx(-got.high)
    assert got.p == 1


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seeds=st.integers(1, 3), people=st.integers(2, 12), rate=st.booleans())
def test_p_and_interval_never_contradict_each_other(data, seeds: int, people: int, rate: bool) -> None:
    values = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=seeds * people, max_size=seeds * people)
    one, other = (torch.tensor(data.draw(values)).view(seeds, people) for _ in range(2))
    got = evidence.compare(one, other, rate=rate)
    assert got.low is not None
    assert got.high is not None
    assert -1 <= got.low <= got.value <= got.high <= 1 or not rate
    if abs(got.p - 0.05) > 1e-6 and (rate or got.low != got.high):
        assert (got.p < 0.05) == (got.low > 0 or got.high < 0)
    back = evidence.compare(other, one, rate=rate)
    assert (back.value, back.p) == (pytest.approx(-got.value), pytest.approx(got.p))
    assert (back.low, back.high) == (pytest.approx(-got.high), pytest.approx(-got.low))


def test_over_worlds_it_is_a_paired_t_test_of_their_means() -> None:
    from scipy.stats import ttest_rel

    generator = np.random.default_rng(7)
    first, second = ([generator.normal(size=(2, people)) for people in (8, 20, 12, 16)] for _ in range(2))
    means = [np.array([table.mean() for table in side]) for side in (first, second)]
    expected = ttest_rel(means[0], means[1])
    tensors = [[torch.from_numpy(table) for table in side] for side in (first, second)]
    got = evidence.over_worlds(tensors[0], tensors[1])
    assert got.p == pytest.approx(expected.pvalue)
    assert (got.low, got.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert evidence.over_worlds(tensors[0][:1], tensors[1][:1]).low is None
    none = evidence.over_worlds([torch.zeros(32)] * 16, [torch.zeros(32)] * 16, rate=True)
    assert none.high is not None
    assert 0 < none.high < 0.02  # 512 people, none of them
    assert evidence.worlds_interval(tensors[0]).value == pytest.approx(means[0].mean())
    with pytest.raises(UserError, match="same worlds twice"):
        evidence.over_worlds(tensors[0], tensors[1][:2])
    with pytest.raises(UserError, match="same people"):
        evidence.over_worlds(tensors[0], tensors[1][::-1])


def test_holm_is_the_closure_of_bonferroni() -> None:
    from itertools import combinations

    values = [0.03, 0.004, 0.2, 0.012, 0.9]
    for place, got in enumerate(evidence.holm(values)):
        families = [f for n in range(1, 6) for f in combinations(range(5), n) if place in f]
        assert got == pytest.approx(max(min(1.0, len(f) * min(values[i] for i in f)) for f in families))
    assert evidence.holm([0.01, 0.02, 0.021]) == pytest.approx([0.03, 0.04, 0.04])  # a later one is no surer: .021
    assert evidence.holm([]) == []
    with pytest.raises(UserError, match="p values"):
        evidence.holm([0.1, math.nan])


def test_above_chance_agrees_with_scipy() -> None:
    from scipy.stats import binomtest

    for hits, trials, chance in [(2, 40, 1e-3), (0, 20, 0.1), (20, 20, 0.5), (7, 60, 0.05)]:
        expected = binomtest(hits, trials, chance, alternative="greater").pvalue
        assert evidence.above_chance(hits, trials, chance) == pytest.approx(expected)
    assert evidence.above_chance(2, 40, 1e-3) < 1e-3  # two of forty at a rate of one in a thousand is a leak
    with pytest.raises(UserError, match="chance"):
        evidence.above_chance(3, 2, 0.5)


@pytest.mark.parametrize("alike", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("family", [1, 4])
def test_alike_images_of_a_person_are_no_leak_by_their_number(alike, family) -> None:
    """What a guess gets is called a leak in no more than 5 of 100 cases, however alike a person's images are."""
    generator, people, images, chance = np.random.default_rng(4), 20, 30, 0.1
    clusters, called, naively = torch.arange(people) // family, 0, 0
    for _ in range(400):
        own = chance if alike == 0 else generator.random(people // family) < chance
        if 0 < alike < 1:
            own = generator.beta(*(part * (1 - alike) / alike for part in (chance, 1 - chance)), people // family)
        hits = generator.binomial(images, np.repeat(np.broadcast_to(own, people // family), family))
        shares, trials = torch.from_numpy(hits / images), people * images
        called += evidence.shares_above_chance(shares, trials, chance, clusters if family > 1 else None) < 0.05
        naively += evidence.above_chance(int(hits.sum()), trials, chance) < 0.05
    assert called <= 0.05 * 400 + 2 * (400 * 0.05 * 0.95) ** 0.5
    assert (naively > 0.15 * 400) == (alike > 0)


def test_shares_above_chance_by_hand() -> None:
    half = torch.tensor([1.0, 1, 1, 0, 0, 0])
    assert evidence.shares_above_chance(half, 60, 0.1) == evidence.above_chance(3, 6, 0.1)  # six people, not 60 images
    assert evidence.shares_above_chance(half, 60, 0.1, torch.tensor([0, 0, 0, 1, 1, 1])) > 0.1  # two families
    assert evidence.shares_above_chance(torch.ones(3), 30, 0.1) == pytest.approx(1e-3)
    assert evidence.shares_above_chance(torch.zeros(3), 30, 0.1) == 1
    assert evidence.shares_above_chance(torch.ones(1), 50, 0.1) == pytest.approx(0.1)
    assert evidence.shares_above_chance(torch.full((5,), 0.2), 100, 0.1) == evidence.above_chance(20, 100, 0.1)


def test_fieller_s_ends_are_where_the_ratio_s_test_rejects() -> None:
    from scipy.stats import ttest_1samp

    generator = np.random.default_rng(8)
    losses = 0.1 + 0.05 * generator.normal(size=30)
    drops = 0.2 + 0.1 * generator.normal(size=30) + losses
    zero = torch.zeros(30)
    got = evidence.delta((torch.from_numpy(drops), zero), (torch.from_numpy(losses), zero))
    assert got.value == pytest.approx(drops.mean() / losses.mean())
    assert got.low is not None
    assert got.high is not None
    for end in (got.low, got.high):
        t = ttest_1samp(drops - end * losses, 0)
        assert t[1] == pytest.approx(0.05)
    assert got.low < drops.mean() / losses.mean() < got.high


def test_delta_is_missing_where_the_loss_is_noise() -> None:
    noise = torch.randn(3, 30, generator=rng(9))
    zero = torch.zeros(3, 30)
    leak = (zero + 0.5, zero)
    for losses, reason in ((zero + 0.004, "near zero"), (zero - 0.1, "negative"), (0.02 + noise, "within the noise")):
        got = evidence.delta(leak, (losses, zero))
        assert (got.value, got.low) == (None, None)
        assert got.warning is not None
        assert reason in got.warning
    with pytest.raises(UserError, match="same seeds and people"):
        evidence.delta(leak, (zero[:1], zero))
