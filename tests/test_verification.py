"""Verification of photographs: calibrated for the score that is used, refused where the data cannot carry it."""

import math

import pytest
import torch
from scipy.stats import binomtest
from torch.nn import functional as F

from lightleak.errors import UserError
from lightleak.metrics.verification import (
    above_ceiling,
    agreement,
    at_most,
    at_most_of_ceiling,
    calibrate,
    carried,
    choose,
    claims,
    galleries,
    more_than,
    named,
    passes,
)


def normals(count, seed=0):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def even_normals(count):
    """The quantiles of a standard normal in the middle of `count` equal shares: no luck of the draw."""
    return torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count)


def impostors(scores, people=60):
    return scores[:, None], torch.arange(len(scores)) % people


def test_shifted_normals_pass_as_often_as_the_closed_form_says():
    """Genuine N(1, 1), impostors N(0, 1): at a false match rate of 1 in 1,000, .0183 are recognised."""
    scores = even_normals(200_000)
    found = calibrate(*impostors(scores), rate=1e-3)
    told = float(passes(scores + 1, found.threshold).double().mean())
    assert told == pytest.approx(0.0183, abs=5e-4)
    assert told == pytest.approx(float(1 - torch.special.ndtr(torch.tensor(3.0902323 - 1))), abs=5e-4)


@pytest.mark.parametrize(("size", "trap"), [(5, 0.0050), (20, 0.0198), (50, 0.0488)])
def test_a_threshold_for_pairs_fails_for_the_best_of_a_gallery_and_ours_does_not(size, trap):
    """k independent comparisons pass 1 - (1 - f)^k strangers where f was meant."""
    rng = torch.Generator().manual_seed(1)
    strangers = torch.randn(30_000, 96, generator=rng)
    gallery = F.normalize(torch.randn(1, size, 96, generator=rng), dim=-1)
    people = torch.arange(len(strangers)) % 60
    pairs = calibrate(claims(strangers, gallery[0, :, None]), people, rate=1e-3)  # each picture by itself
    best = claims(strangers, gallery)
    inflated = float(passes(best, pairs.threshold).double().mean())
    assert inflated == pytest.approx(trap, rel=0.15)
    assert inflated > 3 * 1e-3
    own = calibrate(best, people, rate=1e-3)
    assert float(passes(best, own.threshold).double().mean()) <= 1e-3


def test_no_more_than_the_rate_pass_and_ties_count_against_the_attack():
    scores = torch.cat([torch.zeros(900), torch.ones(100)]).double()
    found = calibrate(*impostors(scores), rate=0.05)
    assert found.threshold == 1.0
    assert not passes(torch.tensor([1.0, float("nan")]), found.threshold).any()
    assert passes(torch.tensor([1.0 + 1e-9], dtype=torch.float64), found.threshold).all()


@pytest.mark.parametrize(
    ("scores", "people", "rates"),
    [(100, 50, (0.1,)), (99, 50, ()), (10_000, 50, (0.1, 0.01, 0.001)), (10_000, 49, ()), (9_999, 60, (0.1, 0.01))],
)
def test_a_rate_that_the_data_cannot_carry_is_refused(scores, people, rates):
    assert carried(scores, people) == rates
    table, who = normals(scores)[:, None], torch.arange(scores) % people
    for rate in (0.1, 0.01, 0.001):
        if rate in rates:
            assert calibrate(table, who, rate).rate == rate
        else:
            with pytest.raises(UserError, match=f"{people}" if people < 50 else "needs"):
                calibrate(table, who, rate)
    if rates:  # nobody asked: the strictest that is carried, and why it is not 1 in 1,000
        chosen = calibrate(table, who)
        assert chosen.rate == min(rates)
        assert bool(chosen.refused) == (min(rates) > 1e-3)
    else:
        with pytest.raises(UserError):
            calibrate(table, who)


def test_scores_that_are_no_numbers_calibrate_nothing():
    scores = normals(1000)
    scores[7] = math.nan
    with pytest.raises(UserError, match="NaN"):
        calibrate(*impostors(scores), rate=0.1)


def test_everybody_has_as_large_a_gallery_and_the_draw_is_the_seeds():
    features = torch.arange(30.0)[:, None]
    labels = torch.tensor([0] * 10 + [1] * 17 + [2] * 3)
    gallery = galleries(features, labels, 3, size=5)
    assert gallery.shape == (3, 3, 1)
    for person in range(3):
        assert all(labels[int(value)] == person for value in gallery[person].flatten())
    assert torch.equal(gallery, galleries(features, labels, 3, size=5))
    with pytest.raises(UserError, match="person 3"):
        galleries(features, labels, 4)
    with pytest.raises(UserError, match="at least 2"):
        galleries(features[:10], labels[:10], 1)


def test_a_claim_is_the_largest_cosine():
    features, gallery = torch.randn(4, 6), torch.randn(3, 5, 6)
    found = claims(features, gallery)
    for i in range(4):
        for person in range(3):
            each = [F.cosine_similarity(features[i], gallery[person, k], dim=0) for k in range(5)]
            assert found[i, person] == pytest.approx(float(max(each)), abs=1e-5)


@pytest.mark.parametrize(
    ("people", "bound"), [(10, 0.259), (20, 0.139), (53, 0.055), (100, 0.0295), (300, 0.0099), (530, 0.0056)]
)
def test_zero_of_so_many_people_still_allows_this(people, bound):
    assert at_most(0, people) == pytest.approx(bound, rel=0.01)
    assert at_most(0, people) == pytest.approx(1 - 0.05 ** (1 / people))
    assert at_most(people, people) == 1.0
    assert at_most(people // 2, people) > 0.5


def test_choosing_on_the_other_half_does_not_flatter():
    """True rate 20 %, 50 people, six independent members: the best seems .273; chosen across halves it is .200."""
    rng = torch.Generator().manual_seed(0)
    flattered, honest = [], []
    for seed in range(1500):
        right = (torch.rand(6, 50, generator=rng) < 0.2).double()
        flattered.append(float(right.mean(1).max()))
        honest.append(float(right[choose(right, seed), torch.arange(50)].mean()))
    assert sum(flattered) / 1500 == pytest.approx(0.273, abs=0.005)
    assert sum(honest) / 1500 == pytest.approx(0.200, abs=0.006)


def test_a_member_of_nan_speaks_for_nobody():
    confidence = torch.tensor([[math.nan] * 8, [0.1] * 8])
    assert choose(confidence).tolist() == [1] * 8


def test_leak_above_ceiling_has_its_ends():
    ones, zeros = torch.ones(30), torch.zeros(30)
    full, none = above_ceiling(ones, zeros, ones), above_ceiling(zeros, zeros, ones)
    assert full is not None
    assert none is not None
    assert (full.value, none.value) == (1.0, 0.0)
    # No count, however extreme, is certain.
    assert full.low is not None
    assert none.low is not None
    assert none.high is not None
    assert full.low < 0.95
    assert none.low < -0.05
    assert none.high > 0.05
    half = above_ceiling(torch.cat([ones, zeros]), torch.zeros(60), torch.ones(60))
    assert half is not None
    assert half.low is not None
    assert half.high is not None
    assert half.low < half.value == 0.5 < half.high
    assert above_ceiling(zeros, ones, ones) is None  # photographs pass no oftener than the null


def test_the_interval_of_what_is_seldom_seen_holds_the_truth():
    """Of twelve people attack and null often show nobody: that is no interval of nothing."""
    rng, right, told = torch.Generator().manual_seed(0), 0, 0
    for _ in range(200):
        attack, null = (torch.rand(12, generator=rng) < share for share in (0.1, 0.05))
        held = (torch.rand(12, 4, generator=rng) < 0.5).double().mean(1)
        found = above_ceiling(attack, null, held)
        if found is not None and found.low is not None and found.high is not None:
            told, right = told + 1, right + (found.low <= (0.1 - 0.05) / (0.5 - 0.05) <= found.high)
    assert told > 190
    assert right > 0.93 * told


def test_judges_agree_over_pairs():
    one, other = torch.tensor([True, True, False, False]), torch.tensor([True, False, False, False])
    assert agreement([one, other]) == 0.75
    assert agreement([one, other, one]) == pytest.approx((0.75 + 1 + 0.75) / 3)
    assert agreement([one]) is None


def test_an_image_is_named_if_no_other_persons_score_is_as_high():
    scores = torch.tensor(
        [[0.9, 0.5, 0.1], [0.5, 0.5, 0.1], [0.2, 0.1, 0.3], [math.nan, 0.1, 0.1], [0.9, math.nan, 0.1]]
    )
    assert named(scores, torch.tensor([0, 0, 2, 0, 0])).tolist() == [True, False, True, False, False]


def test_more_people_is_mcnemars_exact_test():
    """Only people of whom one side alone is true count, whatever the others."""
    for both, ahead, behind, neither in [(0, 5, 0, 0), (3, 5, 0, 9), (2, 9, 1, 4), (0, 7, 2, 41), (1, 0, 3, 0)]:
        counts = torch.tensor([both, ahead, behind, neither])
        first = torch.tensor([True, True, False, False]).repeat_interleave(counts)
        second = torch.tensor([True, False, True, False]).repeat_interleave(counts)
        exact = binomtest(ahead, ahead + behind, alternative="greater").pvalue
        assert more_than(first, second) == pytest.approx(exact)
    alike = torch.tensor([True, False])
    assert more_than(alike, alike) == 1.0
    with pytest.raises(UserError, match="the same people"):
        more_than(alike, alike[:1])


def test_what_successes_allow_of_what_photographs_reach():
    sure = torch.ones(400)
    assert at_most_of_ceiling(0, 12, sure) == pytest.approx(at_most(0, 12) / 0.99, abs=5e-3)
    half = at_most_of_ceiling(0, 12, torch.tensor([0.0, 1.0]).repeat(200))
    assert 2 * at_most(0, 12) < half < 2.5 * at_most(0, 12)  # twice as wide, and the half is not known exactly
    assert at_most_of_ceiling(0, 12, torch.full((12,), 0.1)) == 1.0  # no more is known than before
    assert at_most_of_ceiling(0, 12, torch.tensor([1.0])) == 1.0  # one person's pictures say nothing of others'
