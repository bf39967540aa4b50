"""Guards: what an API gives out, by hand; what it costs; and that gradients are refused behind one."""

from dataclasses import dataclass

import pytest
import torch

from conftest import tiny_classifier
from lightleak.attacks import GUARDS, SSD, AccessError, Guard, Oracle, Smoothed
from lightleak.attacks.draws import Rows
from lightleak.attacks.guards import LabelsOnly, Rounded, Tempered, TopK
from lightleak.attacks.smoothing import bound
from lightleak.attacks.ssd import seen, shielded
from lightleak.attacks.surrogate import as_logits
from lightleak.cli.audit import guarded
from lightleak.data.population import Images
from lightleak.errors import UserError
from lightleak.randomness import keyed
from lightleak.training import predict

ANSWERS = torch.tensor([[0.7, 0.2, 0.08, 0.02], [0.26, 0.4, 0.04, 0.3]])
SEEDS = torch.zeros(2, dtype=torch.int64)
IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("guard", "expected"),
    [
        (Rounded(1), [[0.7, 0.2, 0.1, 0.0], [0.3, 0.4, 0.0, 0.3]]),
        (TopK(1), [[0.7, 0.1, 0.1, 0.1], [0.2, 0.4, 0.2, 0.2]]),
        (TopK(2, "zero"), [[0.7, 0.2, 0, 0], [0, 0.4, 0, 0.3]]),
        (TopK(9), ANSWERS.tolist()),
        (LabelsOnly(), [0, 1]),
    ],
)
def test_answers_by_hand(guard, expected):
    assert torch.allclose(guard.answer(ANSWERS, IMAGES[:2], SEEDS).float(), torch.tensor(expected).float(), atol=1e-6)


def test_temperature_divides_logits():
    logits = torch.tensor([[2.0, 1.0, -1.0]])
    tempered = Tempered(4.0).answer(logits.softmax(1), IMAGES[:1], SEEDS[:1])
    assert torch.allclose(tempered, (logits / 4).softmax(1), atol=1e-6)


@pytest.mark.parametrize("name", GUARDS)
def test_nobody_gets_gradients_behind_a_guard(name):
    guard = GUARDS[name]().fitted(tiny_classifier(), Images((255 * IMAGES).byte(), torch.arange(4)))
    with pytest.raises(UserError, match="not gradients"):
        Oracle(tiny_classifier(), guard=guard)
    oracle = Oracle(tiny_classifier(), "labels" if guard.labels else "scores", guard=guard)
    with pytest.raises(AccessError):
        oracle.logits(IMAGES)
    if guard.labels:
        with pytest.raises(UserError, match="there are labels, not scores"):
            Oracle(tiny_classifier(), "scores", guard=guard)
    else:
        plain = Oracle(tiny_classifier(), "scores").scores(IMAGES)
        assert torch.equal(oracle.scores(IMAGES), guard.answer(plain, IMAGES, torch.zeros(4, dtype=torch.int64)))
    assert oracle.labels(IMAGES).shape == (4,)


@dataclass(frozen=True)
class Averaged(Guard):
    """The mean over noisy copies, as a test of what a guard may do."""

    number: int = 5

    @property
    def copies(self) -> int:
        return self.number

    def inputs(self, images, seeds):
        noise = [torch.randn((self.number, *images.shape[1:]), generator=keyed(int(seed))) for seed in seeds]
        return (images[:, None] + 0.1 * torch.stack(noise)).flatten(0, 1)

    def answer(self, probabilities, images, seeds):  # noqa: ARG002
        assert probabilities.shape[:2] == (len(images), self.number)
        return probabilities.mean(1)


def test_queries_and_passes_are_counted_apart():
    oracle = Oracle(tiny_classifier(), "scores", guard=Averaged())
    rows = Rows(0, torch.arange(4), torch.zeros(4, dtype=torch.int64))
    together = oracle.scores(IMAGES, rows)
    assert (oracle.queries, oracle.passes) == (4, 20)
    alone = torch.cat([oracle.scores(IMAGES[i : i + 1], rows.at(slice(i, i + 1))) for i in range(4)])
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.equal(oracle.scores(IMAGES), oracle.scores(IMAGES))


def test_what_an_oracle_tells_is_logits_of_its_answers():
    plain = Oracle(tiny_classifier())
    assert torch.allclose(as_logits(plain)(IMAGES), plain.logits(IMAGES))
    scores = Oracle(tiny_classifier(), "scores")
    assert torch.allclose(as_logits(scores)(IMAGES).softmax(1), scores.scores(IMAGES), atol=1e-6)
    labels = Oracle(tiny_classifier(), "labels")
    said = as_logits(labels)(IMAGES)
    assert torch.equal(said.argmax(1), labels.labels(IMAGES))
    assert said.softmax(1).max(1).values.min() > 0.999


@pytest.mark.parametrize("make", [lambda: Rounded(-1), lambda: TopK(0), lambda: Tempered(0.0)])
def test_guards_that_cannot_be(make):
    with pytest.raises(UserError, match=r"must be"):
        make()


# SSD

F = torch.tensor([[0.7, 0.2, 0.08, 0.02]], dtype=torch.float64)
Q = torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("budget", "expected", "divergence"),
    [
        (0.1, (0.65, 0.2, 0.1, 0.05), 0.130515),
        (0.3, (0.55, 0.225, 0.15, 0.075), 0.045693),
        (0.6, (0.4, 0.3, 0.2, 0.1), 0.0),
        (0.7, (0.4, 0.3, 0.2, 0.1), 0.0),
    ],
)
def test_shielded_answers_by_hand(budget, expected, divergence):
    p = shielded(F, Q, torch.tensor([budget]))
    assert p[0].tolist() == pytest.approx(expected, abs=1e-7)
    assert float((p * (p / Q).log()).sum()) == pytest.approx(divergence, abs=1e-6)


def test_the_shield_is_the_nearest_point_that_the_budget_allows():
    """The problem is convex: no step from one class to another, and no mixture, that the budget allows is nearer."""
    rng = torch.Generator().manual_seed(0)
    f, q = (torch.rand(30, 6, generator=rng, dtype=torch.float64).pow(3) + 1e-3 for _ in range(2))
    f, q = f / f.sum(1, keepdim=True), q / q.sum(1, keepdim=True)
    budget = 0.4 * (f - q).abs().sum(1)
    found = shielded(f, q, budget)
    assert torch.allclose(found.sum(1), torch.ones(30, dtype=torch.float64))
    assert torch.allclose((found - f).abs().sum(1), budget)

    def far(p):
        return (p * (p / q).log()).sum(1)

    tried = 0
    others = [found + 1e-4 * (torch.eye(6)[i] - torch.eye(6)[j]) for i in range(6) for j in range(6) if i != j]
    for _ in range(100):
        mixed = torch.rand(30, 6, generator=rng, dtype=torch.float64)
        mixed = q + 0.3 * torch.rand(30, 1, generator=rng) * (mixed / mixed.sum(1, keepdim=True) - q)
        others.append(f + (mixed - f) * (budget / (mixed - f).abs().sum(1)).clamp(max=1)[:, None])
    for other in others:
        allowed = (other.min(1).values > 0) & ((other - f).abs().sum(1) <= budget + 1e-12)
        assert bool((far(other) >= far(found) - 1e-9)[allowed].all())
        tried += int(allowed.sum())
    assert tried > 3000


def test_zeros_are_no_nan():
    f = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0]])
    q = torch.tensor([[0.0, 1, 0, 0], [0, 0, 0.5, 0.5]])
    for budget in (0.0, 0.3, 1.0):
        p = shielded(f, q, torch.full((2,), budget))
        assert bool(p.isfinite().all())
        assert p.sum(1).tolist() == pytest.approx([1, 1])
        assert (p - f).abs().sum(1).tolist() == pytest.approx([budget, budget], abs=1e-6)


def test_ssd_by_its_formulas():
    guard = SSD(epsilon=0.1 / 0.851859, means=Q.repeat(4, 1))
    assert float(-torch.xlogy(F, F).sum()) == pytest.approx(0.851859, abs=1e-6)
    chance = (F / 0.1).softmax(1)[0].tolist()
    assert chance == pytest.approx((0.990216, 0.006672, 0.00201, 0.001103), abs=1e-6)
    answer = guard.answer(F.float(), IMAGES[:1], SEEDS[:1])
    assert answer[0].tolist() == pytest.approx((0.65, 0.2, 0.1, 0.05), abs=1e-5)
    with pytest.raises(UserError, match="fitted"):
        SSD().answer(F, IMAGES[:1], SEEDS[:1])
    with pytest.raises(UserError, match="above 0"):
        SSD(epsilon=float("nan"))


def test_classes_are_drawn_as_often_as_the_formula_says_and_alike_for_the_same_picture():
    means = torch.eye(4) * 0.97 + 0.01
    guard = SSD(epsilon=100.0, means=means.double())
    even = torch.tensor([[0.28, 0.24, 0.24, 0.24]]).repeat(2000, 1)
    images = torch.rand(2000, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    drawn = guard.answer(even, images, torch.zeros(2000)).argmax(1)
    shares = torch.bincount(drawn, minlength=4) / 2000
    assert shares.tolist() == pytest.approx((even[0] / 0.1).softmax(0).tolist(), abs=0.035)
    jittered = (images + (torch.rand(images.shape) - 0.5) / 255).clamp(0, 1)
    again = guard.answer(even, jittered, torch.ones(2000)).argmax(1)
    assert float((again == drawn).double().mean()) > 0.6  # 48 values, each near a border once in 60
    smooth = torch.rand(500, 3, 1, 1, generator=torch.Generator().manual_seed(2)).expand(-1, -1, 32, 32)
    noisy = smooth + (torch.rand(500, 3, 32, 32) - 0.5) / 255
    assert sum(a == b for a, b in zip(seen(smooth), seen(noisy))) > 480


def test_mean_answers_are_those_of_each_class(tiny_target, tiny_population):
    guard = SSD().fitted(tiny_target, tiny_population.validation)
    answers = predict(tiny_target, tiny_population.validation).softmax(1).double()
    third = answers[tiny_population.validation.labels == 3].mean(0)
    assert guard.means is not None
    assert torch.allclose(guard.means[3], third, atol=1e-9)
    oracle = Oracle(tiny_target, "scores", guard=guard)
    images = tiny_population.test.floats(torch.arange(12))
    plain = Oracle(tiny_target, "scores").scores(images)
    moved = (oracle.scores(images) - plain).abs().sum(1)
    entropy = -torch.xlogy(plain, plain).sum(1)
    assert bool((moved <= 0.5 * entropy + 1e-5).all())
    assert float(moved.max()) > 0
    assert oracle.passes == oracle.queries == 12


# RP


@pytest.mark.parametrize(
    ("votes", "low", "radius"),
    [(100, 0.933254, 0.150048), (90, 0.775330, 0.075657), (60, 0.440984, None), (0, 0, None)],
)
def test_radii_by_hand(votes, low, radius):
    assert float(bound(torch.tensor([votes]), 100, 0.001)) == pytest.approx(low, abs=1e-6)
    said = torch.zeros(100, dtype=torch.long)
    said[votes:] = torch.arange(100 - votes) % 5 + 1
    label, found = Smoothed(0.1, 100, 0.001).certified(torch.nn.functional.one_hot(said, 6)[None].float())
    if radius is None:
        assert (int(label) if votes else -1, float(found)) == (-1, 0.0)
    else:
        assert (int(label), float(found)) == (0, pytest.approx(radius, abs=1e-5))


def test_smoothed_labels_are_of_noisy_copies_and_cost_them(tiny_target, tiny_population):
    images = tiny_population.test.floats(torch.arange(12))
    oracle = Oracle(tiny_target, "labels", guard=Smoothed(0.02, 20))
    labels = oracle.labels(images)
    assert (oracle.queries, oracle.passes) == (12, 240)
    sure = labels >= 0
    assert float((labels[sure] == tiny_population.test.labels[:12][sure]).double().mean()) > 0.8
    lost = Oracle(tiny_target, "labels", guard=Smoothed(50.0, 20, 1e-6)).labels(images)
    assert int((lost < 0).sum()) > 6 or len(lost.unique()) <= 2  # noise alone: no answer, or always the same one
    with pytest.raises(UserError, match="labels, not scores"):
        Oracle(tiny_target, "scores", guard=Smoothed())
    with pytest.raises(UserError, match="sigma must be"):
        Smoothed(0.0)


@pytest.mark.parametrize(
    ("text", "guard"),
    [
        (None, None),
        ("labels", LabelsOnly()),
        ("rounded:3", Rounded(3)),
        ("tempered:2.5", Tempered(2.5)),
        ("ssd:0.8", SSD(0.8)),
        ("smoothed:0.25", Smoothed(0.25)),
    ],
)
def test_guards_by_name(text, guard):
    assert guarded(text) == guard


@pytest.mark.parametrize("text", ["round", "rounded:x", "labels:1", "ssd:-1"])
def test_no_guard_of_that_name(text):
    with pytest.raises(UserError) as error:
        guarded(text)
    assert "\n" not in str(error.value)


@dataclass(frozen=True)
class OfBefore(LabelsOnly):
    """A guard of the version before, which said `shown` for `inputs`."""

    def shown(self, images, seeds):  # noqa: ARG002
        return torch.zeros_like(images)


def test_a_guard_of_the_version_before_is_still_heard():
    oracle = Oracle(tiny_classifier(), "labels", guard=OfBefore())
    with pytest.warns(DeprecationWarning, match=r"shown\(\) is now inputs\(\)"):
        found = oracle.labels(IMAGES)
    assert len(found.unique()) == 1
