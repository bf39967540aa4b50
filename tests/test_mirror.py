"""MIRROR with gradients, on a target whose surest latents are known."""

import pytest
import torch

from lightleak.attacks import Mirror
from lightleak.attacks.mirror import agreement
from lightleak.errors import UserError
from toy_targets import LATENTS, Plain, oracle_of, rng

SLOPES = torch.where(torch.rand(2, LATENTS, generator=rng(5)) < 0.5, -1.0, 1.0)


def linear():
    """A linear target: surest at the corner of the box that its slopes point to."""
    return oracle_of(lambda latents: torch.cat([latents @ SLOPES.T / 2, latents[:, :1] * 0 + 4], 1), 3, "gradients")


@pytest.mark.parametrize("kappa", [1.0, 1.7])
def test_it_ends_in_the_corner_of_the_box_exactly(kappa):
    """Of the logit, whose slope does not vanish where the target is sure."""
    attack = Mirror(attempts=3, keep=2, samples=20, steps=60, kappa=kappa, flip=0.0, loss="logit")
    found = attack.run(linear(), Plain(), torch.tensor([1, 0]), rng())
    assert torch.allclose(found.latents, kappa * SLOPES[[1, 1, 0, 0]], atol=1e-5)
    assert found.queries == 20 + 2 * 3 * (60 + 1)


def test_the_first_step_has_no_rate_and_only_clips():
    """Golden: the published rate is zero at the first step."""
    start, clipped = (
        Mirror(attempts=2, keep=2, samples=20, steps=steps).run(linear(), Plain(), torch.tensor([0]), rng())
        for steps in (0, 1)
    )
    assert start.latents.abs().max() > 1
    rows = [[row.tolist() for row in latents] for latents in (start.latents.clamp(-1, 1), clipped.latents)]
    assert sorted(rows[0]) == sorted(rows[1])  # clipped ones may be believed in another order


def test_mirrors_are_drawn_for_each_image():
    """A mirrored image of the toy is another one: half of 40 images with one step each see it."""
    images = []

    def logits(latents):
        images.append(latents.detach())
        return torch.cat([latents @ SLOPES.T / 2, latents[:, :1] * 0], 1)

    attack = Mirror(attempts=40, keep=1, samples=40, steps=1, batch=64)
    attack.run(oracle_of(logits, 3, "gradients"), Plain(), torch.tensor([0]), rng())
    plain, seen = torch.cat(images[:-2]), images[-2]  # samples as they were scored, as they were seen; then the judged
    order = [(plain == one).all(1).any().item() for one in seen]
    assert 10 <= sum(order) <= 30


def test_the_attempts_that_agree_most_are_those_of_the_code():
    """By a second way: sets of the five likeliest classes, within a class alone."""
    likeliest = torch.tensor([[0, 1, 2, 3, 4], [0, 1, 2, 3, 5], [5, 6, 7, 8, 9], [9, 8, 7, 6, 5], [0, 1, 2, 3, 4]])
    classes = torch.tensor([0, 0, 0, 1, 1])
    sets = [set(row.tolist()) for row in likeliest]
    for place, own in enumerate(classes.tolist()):
        others = [sets[i] for i in range(5) if i != place and classes[i] == own]
        expected = sum(len(sets[place] & one) / 5 for one in others) / len(others)
        assert agreement(likeliest, classes)[place] == pytest.approx(expected)
    attack = Mirror(attempts=4, keep=2, samples=20, steps=3, choice="agreement")
    found = attack.run(linear(), Plain(), torch.tensor([1, 0]), rng())
    assert found.classes.tolist() == [1, 1, 0, 0]
    assert found.queries == 20 + 2 * 4 * 3 + 2 * 4 + 4  # who agrees is asked of all, confidence of those returned


def test_one_clear_line():
    for settings, message in (
        ({"keep": 9}, "1 <= keep <= attempts <= samples"),
        ({"kappa": float("nan")}, "kappa must be above 0"),
        ({"flip": 2.0}, "flip in"),
        ({"loss": "no"}, "no loss 'no'"),
        ({"choice": "luck"}, "by confidence or agreement, not 'luck'"),
        ({"choice": "agreement", "batch": 7}, "all 8 attempts of a class are compared in one batch; batch is 7"),
    ):
        with pytest.raises(UserError, match=message):
            Mirror(**settings)
