"""PPA with its options, the closed forms of the steps that attacks share, oracles, and what an attack brings home."""

import copy
import dataclasses
import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attack_rows import LEVEL, ROWS, run
from lightleak.attacks import PPA, AccessError, Alignment, Guess, Oracle, Reconstruction, merge
from lightleak.attacks.draws import Rows, own_draws
from lightleak.attacks.frame import Found, Part, group_of, whole_batches
from lightleak.attacks.steps import (
    LOSSES,
    confidence_over_views,
    cross_entropy,
    max_margin,
    negative_logit,
    poincare,
    select_candidates,
)
from lightleak.data.views import DRAWS, View
from lightleak.errors import UserError
from lightleak.priors import RenderedPrior

ATTACK = ROWS["ppa"].attack


@pytest.fixture
def prior():
    return RenderedPrior(size=32)


@given(st.integers(1, 7), st.integers(1, 9), st.integers(1, 20))
def test_batches_hold_whole_identities_or_even_parts_of_one(identities, each, batch):
    parts = list(whole_batches(identities, each, batch))
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(identities * each))
    for part in parts:
        size = part.stop - part.start
        assert 1 <= size <= batch
        if each <= batch:
            assert part.start % each == size % each == 0
        else:
            assert part.start // each == (part.stop - 1) // each
            assert size in (each // -(-each // batch), -(-each // -(-each // batch))) or part.stop % each == 0
    # Beginning at a later group changes nothing: the batches are those of the rest.
    group = group_of(each, batch)
    if identities > group:
        rest = list(whole_batches(identities - group, each, batch))
        moved = [slice(part.start + group * each, part.stop + group * each) for part in rest]
        assert moved == [part for part in parts if part.start >= group * each]


@pytest.mark.parametrize("loss", LOSSES)
def test_ppa_works_with_every_loss(loss, tiny_target, prior):
    found = run("ppa", tiny_target, prior, classes=[0, 5], loss=loss)
    start = run("ppa", tiny_target, prior, classes=[0, 5], steps=0)
    assert found.confidence.mean() > start.confidence.mean()


OPTIONS = {
    "shared views": {"shared": True},
    "aligned by transforms": {"alignment": Alignment(copies=3, batch=7), "steps": 6},
    "aligned by noise": {"alignment": Alignment(kind="noise", copies=3, batch=7), "steps": 6},
    "max-margin": {"loss": "max-margin", "epsilon": 25e-8},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_ppa_keeps_the_contract_with_its_options(name, tiny_target, prior):
    whole = run("ppa", tiny_target, prior, classes=[1, 4], **OPTIONS[name])
    small = run("ppa", tiny_target, prior, classes=[4, 1], batch=2, **OPTIONS[name])
    assert torch.allclose(whole.images, small.images[[2, 3, 0, 1]], atol=LEVEL)
    plain = run("ppa", tiny_target, prior, classes=[1, 4], **({"steps": 6} if "steps" in OPTIONS[name] else {}))
    assert not torch.equal(whole.images, plain.images)


def test_shared_views_are_one_for_a_class(tiny_target, prior):
    """Attempts of a class that start at the same place stay together only if they look through the same views."""
    attack = dataclasses.replace(ATTACK, shared=True)
    oracle, start = Oracle(tiny_target), prior.sample(1, torch.Generator().manual_seed(0)).repeat(2, 1)
    twins = Part(5, torch.tensor([3, 3]), torch.tensor([0, 1])), lambda *_, **__: None
    first, second = attack.descend(oracle, prior, start, *twins)
    assert torch.allclose(first, second, atol=1e-5)
    first, second = ATTACK.descend(oracle, prior, start, *twins)
    assert not torch.allclose(first, second, atol=1e-3)


def test_scored_candidates_can_be_given(tiny_target, prior):
    attack, wanted = ATTACK, torch.tensor([0, 3])

    def rng(seed=0):
        return torch.Generator().manual_seed(seed)

    alone = attack.run(Oracle(tiny_target), prior, wanted, rng())
    table = attack.prepared(Oracle(tiny_target, "scores"), prior, rng())
    given = attack.run(Oracle(tiny_target), prior, wanted, rng(), common=table)
    assert torch.equal(alone.images, given.images)
    assert alone.queries == given.queries
    with pytest.raises(UserError, match="another seed"):
        attack.run(Oracle(tiny_target), prior, wanted, rng(1), common=table)
    with pytest.raises(UserError, match="StyleGAN2"):
        dataclasses.replace(attack, cutoff=8).run(Oracle(tiny_target), prior, wanted, rng())


def test_progress_counts_up_to_the_end(tiny_target, prior):
    seen = []
    oracle = Oracle(tiny_target)
    ATTACK.run(
        oracle,
        prior,
        torch.tensor([0, 1]),
        torch.Generator().manual_seed(0),
        lambda step, total, **numbers: seen.append((step, total, numbers["confidence"])),
    )
    steps = [step for step, _, _ in seen]
    assert steps == sorted(steps)
    assert steps[-1] == seen[-1][1]
    assert oracle.queries == 60 * 2 + 6 * 12 + 6 * 6  # candidates and mirrors, descent, judging views


@pytest.mark.parametrize(
    "settings_",
    [
        {"keep": 5, "attempts": 2},
        {"loss": "cosine"},
        {"rate": 0.0},
        {"steps": -1},
        {"candidates": 10},
        {"epsilon": 0.0},
        {"cutoff": -1},
    ],
)
def test_bad_settings_are_one_clear_line(settings_):
    with pytest.raises(UserError) as error:
        PPA(**settings_)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------------------------------------------------------------
# Losses: published anchors, closed forms, finite everywhere

ANCHORS = [
    ([1.0, 2.0, 3.0, 4.0], 3, 9.566965),
    ([1.0, 2.0, 3.0, 4.0], 0, 10.355423),
    ([-1.0, 0.5, 2.0, -0.5], 2, 9.256810),
    ([0.0, 0.0, 10.0, 1e-3], 2, 0.962446),
]


@pytest.mark.parametrize(("logits", "label", "expected"), ANCHORS)
def test_poincare_anchors(logits, label, expected):
    assert poincare(torch.tensor([logits]), torch.tensor([label])).item() == pytest.approx(expected, rel=2e-4)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-20, 20), min_size=3, max_size=8), st.integers(0, 2))
def test_poincare_equals_its_definition(values, label):
    if sum(map(abs, values)) < 0.1:
        return
    total = sum(map(abs, values))
    u = [value / total for value in values]
    v = [(1 - 1e-4) * (i == label) for i in range(len(u))]
    s = sum(a * a for a in u)
    if 1 - s < 1e-4:
        return
    gap = sum((a - b) ** 2 for a, b in zip(u, v, strict=True))
    expected = math.acosh(1 + 2 * gap / ((1 - s) * (1 - sum(b * b for b in v))))
    assert poincare(torch.tensor([values]), torch.tensor([label])).item() == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("logits", [[0.0, 0.0, 0.0], [0.0, 9.0, 0.0], [1e4, -1e4, 0.0], [1e-9, 0.0, 0.0]])
def test_losses_and_gradients_are_finite(name, logits):
    rows = torch.tensor([logits], requires_grad=True)
    loss = LOSSES[name](rows, torch.tensor([1]))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert rows.grad is not None
    assert rows.grad.isfinite().all()


def test_other_losses_by_hand():
    logits, label = torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([2])
    assert max_margin(logits, label).item() == pytest.approx(1.0)
    assert negative_logit(logits, label).item() == pytest.approx(-2.0)
    assert cross_entropy(logits, label).item() == pytest.approx(math.log(math.e + math.e**3 + math.e**2) - 2)


# ---------------------------------------------------------------------------------------------------------------------
# Steps


def test_candidates_by_brute_force():
    scores = torch.rand(30, 5, generator=torch.Generator().manual_seed(0))
    chosen = select_candidates(scores, torch.tensor([3, 0]), 4)
    for row, label in zip(chosen, (3, 0), strict=True):
        assert row.tolist() == sorted(range(30), key=lambda i: -float(scores[i, label]))[:4]


def test_draws_belong_to_class_and_attempt():
    classes, attempts = torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1])
    draws = own_draws(9, classes, attempts, (50, DRAWS))
    assert torch.equal(draws[1:2], own_draws(9, classes[1:2], attempts[1:2], (50, DRAWS)))
    flat = draws.flatten(1)
    assert (torch.corrcoef(flat) - torch.eye(3)).abs().max() < 0.2
    assert not torch.equal(draws[0], own_draws(10, classes[:1], attempts[:1], (50, DRAWS))[0])


def test_confidence_over_views_is_the_mean(tiny_target):
    oracle = Oracle(tiny_target, "scores")
    images, classes, draws = torch.rand(3, 3, 32, 32), torch.tensor([0, 2, 5]), torch.rand(3, 7, DRAWS)
    view = View(scale=(0.5, 0.9), flip=0.5)
    found = confidence_over_views(oracle, images, Rows(0, classes, classes), view, draws, 8)
    for i in range(3):
        rows = [oracle.scores(view(images[i : i + 1], draws[i, j : j + 1]))[0, classes[i]] for j in range(7)]
        assert found[i] == pytest.approx(torch.stack(rows).mean().item(), abs=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# Oracle and Reconstruction


def test_oracle_grants_by_access(tiny_target):
    images = torch.rand(2, 3, 32, 32)
    for access, granted in {"gradients": 3, "scores": 2, "labels": 1}.items():
        oracle = Oracle(tiny_target, access)
        calls = [oracle.labels, oracle.scores, oracle.logits]
        for number, call in enumerate(calls):
            if number < granted:
                call(images)
            else:
                with pytest.raises(AccessError):
                    call(images)
        assert oracle.queries == 2 * granted
    with pytest.raises(UserError, match="access"):
        Oracle(tiny_target, "everything")


def test_oracle_answers_as_the_target(tiny_target):
    images = torch.rand(4, 3, 32, 32)
    oracle = Oracle(tiny_target)
    expected = tiny_target.eval()(images)
    assert torch.allclose(oracle.logits(images), expected, atol=1e-4)
    assert torch.allclose(oracle.scores(images), expected.softmax(1), atol=1e-4)
    features, logits = oracle.features(images)
    assert torch.allclose(tiny_target.head(features), logits, atol=1e-4)


def test_an_oracle_may_answer_with_batch_statistics(tiny_target):
    images = torch.rand(6, 3, 32, 32)
    before = {key: value.clone() for key, value in tiny_target.state_dict().items()}
    trained = copy.deepcopy(tiny_target).train()
    oracle = Oracle(tiny_target, batch_statistics=True)
    assert torch.allclose(oracle.logits(images), trained(images), atol=1e-4)
    assert not torch.allclose(oracle.logits(images)[:3], oracle.logits(images[:3]), atol=1e-4)
    assert all(torch.equal(before[key], value) for key, value in tiny_target.state_dict().items())


def sample():
    return Reconstruction(
        torch.rand(4, 3, 8, 8),
        torch.tensor([1, 1, 0, 0]),
        torch.rand(4, 5),
        torch.tensor([0.2, 0.9, 0.5, 0.4]),
        7,
        1.5,
    )


def test_reconstruction_survives_the_disk(tmp_path):
    first = sample()
    second = Reconstruction.load(first.save(tmp_path / "deep" / "found.safetensors"))
    assert all(
        torch.equal(getattr(first, n), getattr(second, n)) for n in ("images", "classes", "latents", "confidence")
    )
    assert (second.queries, second.seconds) == (7, 1.5)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["found.safetensors"]


def test_reconstruction_best_and_merge():
    best = sample().best(1)
    assert best.classes.tolist() == [0, 1]
    assert best.confidence.tolist() == pytest.approx([0.5, 0.9])
    assert merge([sample(), sample()]).classes.tolist() == [0] * 4 + [1] * 4
    with pytest.raises(UserError, match="as many"):
        Reconstruction(torch.rand(2, 3, 4, 4), torch.tensor([0]), torch.rand(2, 1), torch.rand(2))


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"\x80\x04K\x01."])
def test_other_files_are_no_reconstructions(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UserError, match="holds no reconstructions"):
        Reconstruction.load(path)
    with pytest.raises(UserError, match="there are no"):
        Reconstruction.load(tmp_path / "nothing")


def test_oracle_in_bfloat16_and_compiled_answer_nearly_alike(tiny_target):
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    exact, quick = Oracle(tiny_target), Oracle(tiny_target, precision="bfloat16")
    logits, near = exact.logits(images), quick.logits(images)
    assert near.dtype == torch.float32
    assert torch.allclose(near, logits, atol=0.05 * float(logits.detach().abs().max()))
    assert not torch.equal(near, logits)
    slopes = [torch.autograd.grad(found.square().sum(), images)[0] for found in (logits, near)]
    assert (slopes[1] - slopes[0]).norm() < 0.1 * slopes[0].norm()
    assert all(found.dtype == torch.float32 for found in quick.features(images))
    with pytest.raises(UserError, match="precision"):
        Oracle(tiny_target, precision="float16")


@dataclass(frozen=True)
class Sparing(Guess):
    """Returns images of even classes alone, and gives no reason."""

    def search(self, oracle, prior, part, tell):
        found = super().search(oracle, prior, part, tell)
        even = (part.classes % 2 == 0).nonzero().flatten()
        return Found(found.latents[even], part.classes[even], part.attempts[even])


def test_a_class_of_which_an_attack_returns_nothing_is_named_as_failed(tiny_target):
    found = Sparing(2).run(Oracle(tiny_target, "scores"), RenderedPrior(32), torch.arange(4), torch.Generator())
    assert found.classes.unique().tolist() == [0, 2]
    assert set(found.failures) == {1, 3}
    assert "no image" in found.failures[1]
