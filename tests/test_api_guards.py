"""Guards: what an API gives out, by hand; what it costs; and that gradients are refused behind one."""

from dataclasses import dataclass

import pytest
import torch

from conftest import tiny_classifier
from lightleak.attacks import GUARDS, AccessError, Guard, Oracle
from lightleak.attacks.draws import Rows, keyed
from lightleak.attacks.guards import LabelsOnly, Rounded, Tempered, TopK
from lightleak.attacks.surrogate import told
from lightleak.errors import UserError

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
    guard = GUARDS[name]()
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
class Smoothed(Guard):
    """The mean over noisy copies, as a test of what a guard may do."""

    number: int = 5

    @property
    def copies(self) -> int:
        return self.number

    def shown(self, images, seeds):
        noise = [torch.randn((self.number, *images.shape[1:]), generator=keyed(int(seed))) for seed in seeds]
        return (images[:, None] + 0.1 * torch.stack(noise)).flatten(0, 1)

    def answer(self, probabilities, images, seeds):  # noqa: ARG002
        assert probabilities.shape[:2] == (len(images), self.number)
        return probabilities.mean(1)


def test_queries_and_passes_are_counted_apart():
    oracle = Oracle(tiny_classifier(), "scores", guard=Smoothed())
    rows = Rows(0, torch.arange(4), torch.zeros(4, dtype=torch.int64))
    together = oracle.scores(IMAGES, rows)
    assert (oracle.queries, oracle.passes) == (4, 20)
    alone = torch.cat([oracle.scores(IMAGES[i : i + 1], rows.at(slice(i, i + 1))) for i in range(4)])
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.equal(oracle.scores(IMAGES), oracle.scores(IMAGES))


def test_what_an_oracle_tells_is_logits_of_its_answers():
    plain = Oracle(tiny_classifier())
    assert torch.allclose(told(plain)(IMAGES), plain.logits(IMAGES))
    scores = Oracle(tiny_classifier(), "scores")
    assert torch.allclose(told(scores)(IMAGES).softmax(1), scores.scores(IMAGES), atol=1e-6)
    labels = Oracle(tiny_classifier(), "labels")
    said = told(labels)(IMAGES)
    assert torch.equal(said.argmax(1), labels.labels(IMAGES))
    assert said.softmax(1).max(1).values.min() > 0.999


@pytest.mark.parametrize("make", [lambda: Rounded(-1), lambda: TopK(0), lambda: Tempered(0.0)])
def test_guards_that_cannot_be(make):
    with pytest.raises(UserError, match=r"must be"):
        make()
