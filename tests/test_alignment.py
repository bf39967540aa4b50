"""Aligned gradients: closed forms with a linear target, independence of batches, an option of the attack."""

import dataclasses
import math

import pytest
import torch

from lightleak.attacks import GMI, PPA, VMI, Alignment, Mirror, Oracle
from lightleak.attacks.adaptive import Erased
from lightleak.attacks.alignment import ALIGNMENTS
from lightleak.attacks.alignment import aligned as aligned_loss
from lightleak.attacks.draws import Rows
from lightleak.attacks.steps import identity_loss
from lightleak.data.views import View, crop, resized
from lightleak.errors import UserError
from lightleak.priors import RenderedPrior

LABELS, ATTEMPTS = torch.tensor([2, 0, 2]), torch.tensor([0, 0, 1])


def images(count=3, size=12):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)).requires_grad_()


def aligned(alignment, shown, loss, step=0, rows=slice(None)):
    rows = Rows(7, LABELS[rows], ATTEMPTS[rows], step)
    losses, _ = alignment.averaged(shown, lambda seen, of: (loss(seen, of), seen.new_zeros(len(seen), 1)), rows)
    (gradient,) = torch.autograd.grad(losses.sum(), shown)
    return losses.detach(), gradient


def test_noise_does_not_move_a_linear_targets_gradient():
    """Of a linear loss every copy has the same gradient, so the mean is that gradient."""
    weight = torch.randn(3, 12, 12, generator=torch.Generator().manual_seed(0))
    shown = images()
    losses, gradient = aligned(ALIGNMENTS["paa"], shown, lambda seen, _: (seen * weight).sum((1, 2, 3)))
    assert torch.allclose(gradient, weight.expand(3, -1, -1, -1), atol=1e-5)
    # The mean of 50 losses misses the clean one by its standard error at most a few times.
    error = 0.05 * weight.norm() / math.sqrt(50)
    assert ((losses - (shown.detach() * weight).sum((1, 2, 3))).abs() < 4 * error).all()


def test_noise_averages_a_quadratic_to_its_closed_form():
    """E |x + n|^2 = |x|^2 + d s^2, with gradient 2 (x + the copies' mean noise)."""
    shown, alignment = images(), Alignment(kind="noise", copies=200, noise=0.1)
    losses, gradient = aligned(alignment, shown, lambda seen, _: seen.square().sum((1, 2, 3)))
    plain = shown.detach()
    assert torch.allclose(losses, plain.square().sum((1, 2, 3)) + 432 * 0.01, rtol=0.02)
    assert ((gradient - 2 * plain).std() - 2 * 0.1 / math.sqrt(200)).abs() < 2e-3


def test_mirrors_average_a_linear_gradient_with_its_own_mirror():
    weight = torch.randn(3, 12, 12, generator=torch.Generator().manual_seed(0))
    alignment = Alignment(view=View(flip=0.5), rotation=0, copies=400)
    _, gradient = aligned(alignment, images(), lambda seen, _: (seen * weight).sum((1, 2, 3)))
    for own in gradient:
        along = [(own * w).sum() / w.square().sum() for w in (weight, weight.flip(2))]
        assert sum(along) == pytest.approx(1, abs=0.15)
        share = (own - weight.flip(2)).mul(weight - weight.flip(2)).sum() / (weight - weight.flip(2)).square().sum()
        assert torch.allclose(own, share * weight + (1 - share) * weight.flip(2), atol=1e-4)
        assert abs(share - 0.5) < 4 * 0.5 / math.sqrt(400)


def test_a_copy_that_changes_nothing_is_the_plain_gradient():
    alignment = Alignment(view=View(), rotation=0, copies=3)
    shown = images()
    losses, gradient = aligned(alignment, shown, lambda seen, _: seen.pow(3).sum((1, 2, 3)))
    assert torch.allclose(gradient, 3 * shown.detach().square(), atol=1e-4)
    assert torch.allclose(losses, shown.detach().pow(3).sum((1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("name", ALIGNMENTS)
def test_batches_and_neighbours_do_not_matter(name):
    def loss(seen, _):
        return seen.square().mean((1, 2, 3))

    shown, alignment = images(), dataclasses.replace(ALIGNMENTS[name], copies=5)
    losses, gradient = aligned(alignment, shown, loss)
    for batch in (1, 4, 7):
        again = aligned(dataclasses.replace(alignment, batch=batch), shown, loss)
        assert torch.allclose(again[0], losses, atol=1e-6)
        assert torch.allclose(again[1], gradient, atol=1e-6)
    alone = shown[1:2].detach().requires_grad_()
    assert torch.allclose(aligned(alignment, alone, loss, rows=slice(1, 2))[1], gradient[1:2], atol=1e-6)
    assert not torch.allclose(aligned(alignment, shown, loss, step=1)[1], gradient, atol=1e-6)


def test_rows_say_whose_copy_it_is():
    def loss(seen, rows):
        wanted = torch.where(rows.classes == 0, 10.0, 1.0 + 99 * rows.attempts)
        return wanted * seen.mean((1, 2, 3))

    _, gradient = aligned(Alignment(copies=4, batch=5), images(), loss)
    assert torch.allclose(gradient.sum((1, 2, 3)), torch.tensor([1.0, 10.0, 100.0]), rtol=0.05)


def test_a_quarter_turn_turns():
    shown = images(1)
    zero, one = torch.zeros(1), torch.ones(1)
    turned = crop(shown, zero, zero, one, one, torch.tensor([False]), torch.tensor([math.pi / 2]))
    assert torch.allclose(turned, shown.rot90(1, (2, 3)), atol=1e-4) or torch.allclose(
        turned, shown.rot90(-1, (2, 3)), atol=1e-4
    )


@pytest.mark.parametrize("name", ALIGNMENTS)
def test_ppa_takes_it(name, tiny_target):
    prior, oracle = RenderedPrior(size=32), Oracle(tiny_target)
    alignment = dataclasses.replace(ALIGNMENTS[name], copies=4)
    attack = PPA(candidates=40, attempts=2, keep=1, steps=10, rate=0.05, views=6, alignment=alignment)
    found, start = (
        dataclasses.replace(attack, steps=steps).run(
            oracle, prior, torch.tensor([0, 3]), torch.Generator().manual_seed(0)
        )
        for steps in (10, 0)
    )
    assert found.confidence.mean() > start.confidence.mean() + 0.02
    assert found.queries - start.queries == 2 * 2 * 10 * 4  # every copy is a query


@pytest.mark.parametrize("alignment", [ALIGNMENTS["paa"], ALIGNMENTS["taa"], Erased()])
def test_several_images_of_an_attempt_have_copies_of_their_own(alignment):
    """As VMI's draws of a class."""
    rows = Rows(7, torch.tensor([2]), torch.tensor([0]), 3).repeated(3)
    index, number = torch.arange(3).repeat_interleave(2), torch.arange(2).repeat(3)
    copies = alignment._copies(images(1).detach().expand(6, -1, -1, -1), rows.at(index), number)
    assert len(copies.flatten(1).unique(dim=0)) == 6


def test_copies_are_made_at_the_size_that_the_target_takes(tiny_target):
    """Noise in a larger image is gone, in part, when that is made smaller; the target is to see all of it."""
    told, paa = identity_loss(Oracle(tiny_target), "cross-entropy"), Alignment(kind="noise", copies=4, noise=0.1)
    large = images(size=128)
    rows = Rows(7, LABELS, ATTEMPTS, 0)
    losses, logits = aligned_loss(told, paa, 32)(large, rows)
    wanted, same = paa.averaged(resized(large, 32), told, rows)
    assert torch.equal(losses, wanted)
    assert torch.equal(logits, same)
    seen = []

    def spread(shown, _):
        seen.append(shown)
        return shown.sum((1, 2, 3)), shown.new_zeros(len(shown), 1)

    aligned_loss(spread, paa, 32)(large, rows)
    noise = torch.cat([resized(each, 32) for each in seen]) - resized(large, 32).detach().repeat_interleave(4, 0)
    assert noise.std().item() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("attack", [GMI(attempts=1, steps=1), VMI(attempts=1, steps=1, draws=1), Mirror(samples=8)])
def test_attacks_with_a_larger_prior_show_whole_noise(attack, tiny_target, monkeypatch):
    sizes = set()
    copies = Alignment._copies
    monkeypatch.setattr(
        Alignment, "_copies", lambda self, shown, *more: sizes.add(shown.shape[-1]) or copies(self, shown, *more)
    )
    attack = dataclasses.replace(attack, steps=1, attempts=1, alignment=Alignment(kind="noise", copies=2))
    attack.run(Oracle(tiny_target), RenderedPrior(size=64), torch.tensor([1]), torch.Generator().manual_seed(0))
    assert sizes == {32}


@pytest.mark.parametrize("bad", [{"kind": "both"}, {"copies": 0}, {"noise": -1.0}, {"rotation": 200.0}, {"batch": 0}])
def test_impossible_alignments(bad):
    with pytest.raises(UserError):
        Alignment(**bad)
