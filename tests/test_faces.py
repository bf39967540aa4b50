"""The rendered world: portraits are what their factors say, differentiable, and people never overlap."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightleak.data.faces import (
    CIRCUMSTANCES,
    DIFFICULTIES,
    FACTORS,
    canonical,
    population,
    render,
    sample_circumstances,
    sample_factors,
)
from lightleak.errors import UserError

SMALL: dict[str, Any] = {
    "people": 4,
    "images": 2,
    "size": 32,
    "public_people": 3,
    "public_images": 2,
    "validation_images": 1,
    "test_images": 1,
    "judge_images": 2,
}


def draw(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return sample_factors(count, rng), sample_circumstances(count, rng)


def test_names_are_unique_and_documented():
    for table in (FACTORS, CIRCUMSTANCES):
        assert len({factor.name for factor in table}) == len(table)
        assert all(factor.low and factor.high and factor.draws for factor in table)
    assert len(FACTORS) >= 24


@pytest.mark.parametrize("size", [32, 50, 64, 256])
def test_render_gives_images(size: int):
    factors, circumstances = draw(3)
    images = render(factors, circumstances, size)
    assert images.shape == (3, 3, size, size)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert images.flatten(1).std(1).min() > 0.05
    assert torch.equal(images, render(factors, circumstances, size))


def test_render_does_not_depend_on_the_batch():
    factors, circumstances = draw(5)
    alone = torch.cat([render(factors[i : i + 1], circumstances[i : i + 1]) for i in range(5)])
    assert torch.allclose(alone, render(factors, circumstances), atol=1e-5)


def test_render_stays_on_its_device():
    """Nothing inside is made on another device: the meta device refuses to mix."""
    factors, circumstances = draw(2)
    assert render(factors.to("meta"), circumstances.to("meta")).device.type == "meta"


def test_canonical_is_neutral():
    factors, _ = draw(2)
    assert torch.equal(canonical(factors), render(factors, torch.zeros(2, len(CIRCUMSTANCES))))


@pytest.mark.parametrize("index", range(len(FACTORS)), ids=[factor.name for factor in FACTORS])
def test_every_factor_shows(index: int):
    """Pushing one factor from end to end changes the portraits of most people beyond a rounding step."""
    factors, _ = draw(12, seed=5)
    if FACTORS[index].name == "glasses_shape":
        factors[:, index - 1] = 1
    low, high = factors.clone(), factors.clone()
    low[:, index], high[:, index] = -1, 1
    change = (canonical(low) - canonical(high)).abs().amax((1, 2, 3))
    assert change.median() > 8 / 255, f"{FACTORS[index].name} changes {change.median():.4f}"


@pytest.mark.parametrize("index", range(len(CIRCUMSTANCES)), ids=[c.name for c in CIRCUMSTANCES])
def test_every_circumstance_shows(index: int):
    factors, _ = draw(6)
    low = torch.zeros(6, len(CIRCUMSTANCES))
    high = low.clone()
    low[:, index], high[:, index] = -1, 1
    change = (render(factors, low) - render(factors, high)).abs().amax((1, 2, 3))
    assert change.min() > 8 / 255, f"{CIRCUMSTANCES[index].name} changes {change.min():.4f}"


@pytest.mark.parametrize("seed", range(3))
def test_gradients_are_the_slopes(seed: int):
    """Directional derivatives in float64 against central differences."""
    factors, circumstances = (t.double() for t in draw(2, seed))
    rng = torch.Generator().manual_seed(seed + 100)
    weights = torch.randn(2, 3, 48, 48, generator=rng, dtype=torch.float64)

    def energy(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (render(a, b, 48) * weights).sum()

    inputs = [factors * 0.99, circumstances]
    leaves = [t.clone().requires_grad_() for t in inputs]
    slopes = torch.autograd.grad(energy(*leaves), leaves)
    for which in (0, 1):
        for column in range(inputs[which].shape[1]):
            step = torch.zeros_like(inputs[which])
            step[:, column] = 1e-6
            ahead, behind = list(inputs), list(inputs)
            ahead[which], behind[which] = inputs[which] + step, inputs[which] - step
            numeric = (energy(*ahead) - energy(*behind)) / 2e-6
            slope = slopes[which][:, column].sum()
            assert torch.isclose(slope, numeric, rtol=1e-3, atol=2e-3), (which, column)


extremes = st.sampled_from([-1.0, 0.0, 1.0])


@settings(max_examples=25, deadline=None)
@given(
    st.lists(extremes | st.floats(-1, 1, width=32), min_size=len(FACTORS), max_size=len(FACTORS)),
    st.lists(extremes | st.floats(-6, 6, width=32), min_size=len(CIRCUMSTANCES), max_size=len(CIRCUMSTANCES)),
)
def test_images_and_gradients_are_finite_everywhere(identity: list[float], circumstances: list[float]):
    a = torch.tensor([identity]).requires_grad_()
    b = torch.tensor([circumstances]).requires_grad_()
    image = render(a, b, 32)
    assert image.min() >= 0
    assert image.max() <= 1
    image.square().sum().backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()
    assert b.grad is not None
    assert b.grad.isfinite().all()


def test_wild_numbers_stay_images():
    images = render(torch.full((1, len(FACTORS)), 1e6), torch.full((1, len(CIRCUMSTANCES)), -1e6), 32)
    assert images.isfinite().all()


def test_antialiasing():
    """A large portrait, averaged down, is the small one."""
    factors, circumstances = draw(6)
    small = render(factors, circumstances, 64)
    large = torch.nn.functional.avg_pool2d(render(factors, circumstances, 256), 4)
    assert (small - large).abs().mean() < 0.012


def test_descent_finds_a_person():
    """Gradients lead: from other factors, a portrait is approached by its pixels alone."""
    factors, _ = draw(4, seed=3)
    wanted = canonical(factors, 32)
    guess = torch.zeros_like(factors).requires_grad_()
    optimiser = torch.optim.Adam([guess], lr=0.05)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = (canonical(guess.tanh(), 32) - wanted).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_render_refuses_other_shapes():
    factors, circumstances = draw(2)
    for bad in (
        lambda: render(factors[:, 1:]),
        lambda: render(factors[0]),
        lambda: render(factors, circumstances[:1]),
    ):
        with pytest.raises(UserError, match="shape"):
            bad()
    for size in (8, 31, 513):
        with pytest.raises(UserError, match="size"):
            render(factors, circumstances, size)


def test_population_is_whole():
    people = population(**SMALL)
    assert people.classes == 4
    assert people.size == 32
    counts = {"train": 8, "validation": 4, "test": 4, "judge": 8, "public": 6}
    for split, count in counts.items():
        assert len(getattr(people, split)) == count
    assert people.train.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert people.factors is not None
    assert people.factors.shape == (4, len(FACTORS))
    pixels = torch.cat([getattr(people, split).pixels for split in counts]).flatten(1)
    assert len(pixels.unique(dim=0)) == sum(counts.values()), "two images are the same"


def test_population_shows_its_factors():
    """Without noise and circumstances, every image of a person is the canonical portrait of the factors."""
    people = population(**SMALL, strength=0, noise=0)
    assert people.factors is not None
    difference = people.train.floats() - canonical(people.factors, 32)[people.train.labels]
    assert difference.abs().max() <= 0.51 / 255


def test_private_and_public_people_never_overlap():
    people = population(**{**SMALL, "public_people": 200}, lookalikes=2, jitter=0.05)
    assert people.factors is not None
    assert people.public_factors is not None
    assert torch.cdist(people.factors, people.public_factors).min() > 1


def test_population_is_deterministic_and_stable_when_it_grows():
    first, again = population(**SMALL), population(**SMALL)
    assert torch.equal(first.train.pixels, again.train.pixels)
    assert not torch.equal(first.train.pixels, population(**SMALL, seed=1).train.pixels)
    grown = population(**{**SMALL, "people": 8, "images": 3, "public_people": 5})
    assert first.factors is not None
    assert grown.factors is not None
    assert torch.equal(first.factors, grown.factors[:4])
    assert torch.equal(first.public.pixels, grown.public.pixels[:6])
    assert torch.equal(first.test.pixels, grown.test.pixels[:4])
    assert torch.equal(first.train.of(1).pixels, grown.train.of(1).pixels[:2])


def test_lookalikes_are_alike_and_evenly_spread():
    settings = {**SMALL, "people": 200, "images": 1, "judge_images": 1}
    factors = population(**settings, lookalikes=4, jitter=0.2).factors
    assert factors is not None
    distances = torch.cdist(factors, factors)
    cluster = torch.arange(200) // 4
    same = (cluster[:, None] == cluster) & ~torch.eye(200, dtype=torch.bool)
    assert distances[same].max() < distances[cluster[:, None] != cluster].min()
    assert factors.abs().max() <= 1
    assert abs(factors.std() - 3**-0.5) < 0.03


def test_noise_and_progress():
    heard: list[tuple[int, int]] = []
    noisy = population(**SMALL, noise=0.1, watch=lambda done, total: heard.append((done, total)))
    clean = population(**SMALL, noise=0)
    assert 0.05 < (noisy.train.floats() - clean.train.floats()).std() < 0.11
    assert heard[-1] == (30, 30)


@pytest.mark.parametrize("name", DIFFICULTIES)
def test_difficulties_are_settings(name: str):
    people = population(**{**SMALL, "people": 40, **DIFFICULTIES[name], "images": 1})
    assert people.classes == 40


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"people": 1}, "people must be at least 2"),
        ({"size": 8}, "size must be 32 to 512"),
        ({"people": 10, "lookalikes": 4}, "divide"),
        ({"lookalikes": 0}, "divide"),
        ({"lookalikes": 2, "jitter": 0.0}, "jitter"),
        ({"strength": -1.0}, "strength"),
        ({"noise": float("nan")}, "noise"),
        ({"images": 0}, "images must be at least 1"),
        ({"public_people": 0}, "public_people"),
    ],
)
def test_settings_that_cannot_be(settings: dict, says: str):
    with pytest.raises(UserError, match=says) as error:
        population(**{**SMALL, **settings})
    assert "\n" not in str(error.value)


def test_all_problems_are_named_at_once():
    with pytest.raises(UserError, match=r"images.*people.*size"):
        population(people=1, images=0, size=8)


def test_docs_list_every_number():
    page = (Path(__file__).parents[1] / "docs" / "rendered-world.md").read_text()
    for factor in (*FACTORS, *CIRCUMSTANCES):
        assert f"| `{factor.name}` | {factor.low} | {factor.high} | {factor.draws} |" in page
