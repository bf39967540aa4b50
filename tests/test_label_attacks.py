"""BREP-MI: golden values of its steps, and a class whose middle and size are known."""

import math
from dataclasses import replace

import pytest
import torch

from lightleak.attacks import BREPMI, AccessError
from lightleak.attacks.brepmi import PRESETS, nearly_all, on_sphere, repelled
from lightleak.errors import UserError
from toy_targets import LATENTS, Plain, balls, oracle_of, rng

CENTRES = 0.5 * torch.randn(3, LATENTS, generator=rng(1)).sign()
SMALL = BREPMI(queries=33 * 300, samples=4000, radius=0.6, kappa=2.0)


def test_a_golden_step():
    """The half plane x0 > 0 around (.3, 0) with eight points, as the published code moves."""
    angles = torch.arange(8) * math.pi / 4
    offsets = torch.stack([angles.cos(), angles.sin()], 1)[None]
    centre = torch.tensor([[0.3, 0.0]])
    inside = (centre[:, None] + offsets)[:, :, 0] > 0
    assert inside.int().tolist() == [[1, 1, 1, 0, 0, 0, 1, 1]]
    direction = repelled(offsets, inside)
    assert torch.allclose(direction, torch.tensor([[0.301777, 0.0]]), atol=1e-6)
    assert torch.allclose(centre + direction / 3, torch.tensor([[0.400592, 0.0]]), atol=1e-6)
    assert torch.allclose(repelled(offsets, inside, attract=True), torch.tensor([[0.603553, 0.0]]), atol=1e-6)


def test_nearly_all_are_29_of_32():
    counts = torch.arange(33)
    inside = torch.arange(32) < counts[:, None]
    assert nearly_all(inside).tolist() == [count >= 29 for count in range(33)]


def test_golden_radii():
    radii = [2.0 * PRESETS["brep-mi"].growth ** power for power in range(6)]
    assert radii == pytest.approx([2, 2.6, 3.38, 4.394, 5.7122, 7.4259], abs=1e-4)


def test_points_are_even_on_the_sphere():
    points = on_sphere(torch.randn(20_000, 5, generator=rng()))
    assert torch.allclose(points.norm(dim=1), torch.ones(20_000), atol=1e-5)
    assert torch.allclose(points.T @ points / 20_000, torch.eye(5) / 5, atol=0.01)


@pytest.fixture(scope="module")
def found():
    oracle = oracle_of(balls(CENTRES, 2.0), 4, "labels")
    return oracle, SMALL.run(oracle, Plain(), torch.arange(3), rng())


def test_it_comes_to_the_middle_of_a_ball(found):
    """A sphere around the middle is inside as long as its radius is no more than the ball's, 2."""
    _, result = found
    assert ((result.latents - CENTRES).norm(dim=1) < 0.75).all()  # it starts about 2 away, at the edge
    last = result.per_class["radii"][:, -1, 1]
    assert (last / 1.3 <= 2.0).all()  # the last sphere that was nearly all inside
    assert (last > 1.5).all()


def test_it_asks_33_queries_an_iteration_and_no_more_than_its_budget(found):
    oracle, result = found
    assert result.queries == oracle.queries == 4000 + 3 * 33 * 300
    radii = result.per_class["radii"]
    assert radii.shape == (3, 200, 2)
    assert radii[:, -1, 0].tolist() == [33 * 300] * 3
    assert (radii.diff(dim=1) >= 0).all()
    rest = BREPMI(queries=100, samples=50, radius=0.6)
    assert rest.run(oracle, Plain(), torch.tensor([3]), rng()).queries == 50 + 99


def test_searches_of_a_class_in_two_batches_count_together():
    both = BREPMI(queries=2 * 33 * 5, samples=500, attempts=2, radius=0.6)
    whole, cut = (
        replace(both, batch=batch).run(oracle_of(balls(CENTRES, 2.0), 4, "labels"), Plain(), torch.arange(2), rng())
        for batch in (64, 1)
    )
    assert cut.per_class["radii"][:, -1, 0].tolist() == [2 * 33 * 5] * 2
    assert torch.allclose(cut.per_class["radii"], whole.per_class["radii"])


def test_patience_and_the_largest_radius_end_a_search():
    oracle = oracle_of(lambda latents: torch.stack([latents[:, 0] * 0 + 1, latents[:, 0] * 0], 1), 2, "labels")
    grown = BREPMI(queries=33 * 50, samples=10, largest=3.0).run(oracle, Plain(), torch.tensor([0]), rng())
    assert grown.queries == 10 + 33 * 2  # 2, 2.6, 3.38: everything is inside
    corner = oracle_of(lambda latents: torch.stack([latents[:, 0], 0 * latents[:, 0]], 1), 2, "labels")
    small = BREPMI(queries=33 * 500, samples=50, radius=5.0, patience=3, kappa=1.5)
    ended = small.run(corner, Plain(), torch.tensor([0]), rng())
    assert ended.queries < 50 + 33 * 20  # the half space's sphere never fits into the box
    assert ended.latents[0, 0] > 0


def test_a_class_that_is_never_hit_is_named_and_costs_nothing_of_its_own():
    centres = torch.cat([CENTRES[:1], 50 * torch.ones(1, LATENTS)])
    oracle = oracle_of(balls(centres, 2.0), 3, "labels")
    result = BREPMI(queries=33 * 5, samples=2000, radius=0.5).run(oracle, Plain(), torch.arange(2), rng())
    assert result.classes.tolist() == [0]
    assert result.asked.tolist() == [0, 1]
    assert result.failures == {1: "none of 2000 samples of the prior is called so"}
    assert result.queries == 2000 + 33 * 5
    assert result.per_class["radii"][1].abs().max() == 0
    nobody = BREPMI(queries=33, samples=20).run(oracle, Plain(), torch.tensor([1]), rng())
    assert len(nobody) == 0
    assert list(nobody.failures) == [1]


def test_it_needs_nothing_but_labels():
    oracle = oracle_of(balls(CENTRES, 2.0), 4, "gradients")
    with_more = BREPMI(queries=330, samples=500, radius=0.6).run(oracle, Plain(), torch.tensor([3]), rng())
    less = oracle_of(balls(CENTRES, 2.0), 4, "labels")
    with_less = BREPMI(queries=330, samples=500, radius=0.6).run(less, Plain(), torch.tensor([3]), rng())
    assert torch.equal(with_more.latents, with_less.latents)
    with pytest.raises(AccessError):
        less.scores(torch.zeros(1, 3, 2, 2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"queries": 20}, "at least 33"),
        ({"queries": 34, "attempts": 3}, "evenly"),
        ({"queries": 66, "attempts": 3}, "at least 33 for each of 3"),
        ({"growth": 1.0}, "growth"),
        ({"samples": 0}, "samples"),
        ({"radius": 2.0, "largest": 1.0}, "largest"),
    ],
)
def test_bad_settings_are_one_line(settings, message):
    with pytest.raises(UserError, match=message) as error:
        BREPMI(**settings)
    assert "\n" not in str(error.value)
