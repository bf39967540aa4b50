"""NaN loses every comparison, whoever makes it."""

import dataclasses
import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from conftest import TINY, TinyNet, tiny_classifier
from lightleak.attacks import GUARDS, Distillation, Oracle, learn
from lightleak.attacks.guards import Rounded, Tempered
from lightleak.attacks.reconstruction import Reconstruction
from lightleak.attacks.steps import select_candidates
from lightleak.errors import UserError
from lightleak.metrics.recognition import hits
from lightleak.models.classifier import Classifier
from lightleak.priors.fit.plgmi import pseudo_labels
from lightleak.ranking import agreement_of, answers, as_highest, as_lowest, beats, named
from lightleak.training import CheckpointCriterion as At
from lightleak.training import Plan, accuracy_and_loss, train

NAN = float("nan")
numbers = st.one_of(st.just(NAN), st.floats(allow_nan=True, width=32))


@example([NAN, -math.inf])
@example([NAN, math.inf])
@given(st.lists(numbers, min_size=1, max_size=8))
def test_the_highest_and_the_lowest_are_numbers_where_there_are_any(values):
    row = torch.tensor(values)
    if not row.isnan().all():
        known = row[~row.isnan()]  # among infinities of the losing sign a NaN ties, which decides nothing
        assert not row[as_lowest(row).argmax()].isnan() or known.max() == -torch.inf
        assert not row[as_highest(row).argmin()].isnan() or known.min() == torch.inf
    kept = ~row.isnan()
    assert torch.equal(as_lowest(row)[kept], row[kept])
    assert torch.equal(as_highest(row)[kept], row[kept])


@given(st.tuples(numbers, numbers), st.tuples(numbers, numbers))
def test_beating_is_strict_and_nan_beats_nobody(a, b):
    assert not (beats(a, b) and beats(b, a))
    assert not beats(a, a)
    broken = any(value != value for value in a)
    if broken:
        assert not beats(a, b)
    elif any(value != value for value in b):
        assert beats(a, b)
    else:
        assert beats(a, b) == (a > b)


def test_a_row_with_nan_names_nobody():
    logits = torch.tensor([[NAN, 0.0, 1.0], [0.0, 2.0, NAN], [0.0, 2.0, 1.0]])
    assert answers(logits).tolist() == [-1, -1, 1]
    assert hits(logits, torch.tensor([0, 1, 1])).tolist() == [False, False, True]


def test_attacks_and_priors_choose_numbers():
    scores = torch.tensor([[NAN, 0.1], [0.3, NAN], [0.2, 0.4]])
    assert select_candidates(scores, torch.tensor([0, 1]), 2).tolist() == [[1, 2], [2, 0]]
    found = Reconstruction(torch.zeros(4, 3, 8, 8), torch.zeros(4).long(), torch.arange(4.0)[:, None],
                           torch.tensor([NAN, 0.2, 0.5, NAN]))  # fmt: skip
    assert found.best(4).latents.flatten().tolist() == [2, 1, 0, 3]
    logits = torch.tensor([[NAN, NAN], [1.0, 0.0], [0.0, 3.0]])
    assert pseudo_labels(logits, 1).tolist() == [[1], [2]]


def test_an_oracle_of_nan_names_nobody():
    """Labels, guards and agreement: where there is no number there is no answer, never class 0."""
    target = tiny_classifier()
    target.net.head.weight.data.fill_(NAN)
    for guard in (None, GUARDS["labels"](), GUARDS["top-k"](2), GUARDS["rounded"]()):
        oracle = Oracle(target, "labels", guard=guard)
        assert oracle.labels(torch.rand(3, 3, 32, 32)).tolist() == [-1, -1, -1]
    partly = torch.tensor([[NAN, 0.1, 0.6, 0.3]])
    assert GUARDS["top-k"](2).answer(partly, partly, partly)[0, 2:].tolist() == pytest.approx([0.6, 0.3])
    logits = torch.tensor([[NAN, 1.0], [0.0, 1.0], [1.0, 0.0]])
    assert agreement_of(logits, logits) == pytest.approx(2 / 3)


def test_the_same_of_every_class_names_nobody(tiny_target, tiny_population):
    """Where a guard gives no answer, or rounds all to 0, class 0 is not what was answered."""
    told, copied = torch.tensor([[0.0, 0, 0], [20.0, 0, 0], [0.0, 0, 20]]), torch.eye(3)[[0, 0, 2]]
    assert named(told).tolist() == [-1, 0, 2]
    assert agreement_of(copied, told) == pytest.approx(2 / 3)
    assert named(torch.ones(2, 1)).tolist() == [0, 0]  # one class alone
    images = tiny_population.public.floats(torch.arange(32))
    flat = Tempered(100.0)  # no class above a half: rounded to whole numbers, all are 0

    class Flat(Rounded):
        def answer(self, probabilities, images, seeds):
            return super().answer(flat.answer(probabilities, images, seeds), images, seeds)

    assert Oracle(tiny_target, "labels", guard=Flat(0)).labels(images).tolist() == [-1] * 32
    silent = learn(
        Oracle(tiny_target, "labels", guard=Flat(0)), tiny_population.public,
        Distillation(students=("timm:test_efficientnet",), pretrained=False, epochs=1, batch=8),
        torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert (silent.agreement, silent.named) == ((0.0,), (0,) * 6)


class Broken(TinyNet):
    """Gives NaN, for class 0 alone or for all."""

    def forward(self, x):
        return super().forward(x) * torch.tensor([NAN, 1, 1, 1, 1, 1])


def test_a_network_of_nan_is_never_right(tiny_population):
    with pytest.raises(UserError, match="no numbers"):
        Classifier(Broken(), size=32, classes=6)
    broke = Classifier(TinyNet(), size=32, classes=6)
    broke.net = Broken()  # after it was wrapped
    assert accuracy_and_loss(broke, tiny_population.test)[0] == 0


@pytest.mark.parametrize(
    "recipe",
    [
        dataclasses.replace(TINY, epochs=3, milestones=(), rate=1e4, optimiser="sgd", keep="best"),
        dataclasses.replace(TINY, epochs=3, milestones=(), rate=1e4, optimiser="sgd", keep="last"),
    ],
)
def test_diverged_training_is_an_error(recipe, tiny_population, tmp_path):
    data = (tiny_population.train, tiny_population.validation, recipe)
    kept = []
    for _ in range(2):  # and again, with what the first run left
        with pytest.raises(UserError, match=r"diverged in epoch 1: .*loss.* lower the rate") as error:
            train(
                tiny_classifier(),
                *data,
                folder=tmp_path,
                moments=(At(epoch=1),),
                keep=lambda *it: kept.append(it),
            )
        assert "\n" not in str(error.value)
    assert not kept
    assert not (tmp_path / "epoch.json").exists()


def test_training_that_diverges_later_is_no_earlier_epoch(tiny_population):
    """The best epoch before it is not handed out as if all were well."""

    def burst(batch):
        loss = torch.nn.functional.cross_entropy(batch.classifier(batch.images), batch.labels)
        return loss * (NAN if batch.progress > 0.5 else 1.0)

    recipe = dataclasses.replace(TINY, epochs=4, milestones=())
    for keep in ("best", "last"):
        with pytest.raises(UserError, match="diverged in epoch 4"):
            train(
                tiny_classifier(),
                tiny_population.train,
                tiny_population.validation,
                dataclasses.replace(recipe, keep=keep),
                Plan(loss=burst),
            )


def test_no_validation_images_is_said(tiny_population):
    nobody = tiny_population.validation.at(torch.arange(0))
    with pytest.raises(UserError, match="needs validation images"):
        train(tiny_classifier(), tiny_population.train, nobody, TINY)
