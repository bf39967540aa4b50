"""Boxes, noise, pixels, and a synthesis that stops between blocks: golden values and second ways."""

import math

import pytest
import torch

from lightleak.errors import UserError
from lightleak.priors import GanPrior, PixelsPrior, RenderedPrior, StyleGAN2Prior, load, save
from lightleak.priors.gan64 import Critic
from lightleak.priors.gan64 import Generator as Small
from lightleak.priors.stylegan2 import Generator, box_of


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def stylegan():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Generator(32, latents=6, styles=5, depth=2, base=128, widest=8)


def test_mirrors_box_golden():
    w = torch.tensor([[0.2, -0.1, 0.05], [0.4, -0.02, -0.3], [-0.2, 0.3, 0.1], [0.1, -0.04, 0.5]])
    low, high = box_of(w, 1.0)
    assert torch.allclose(low, torch.tensor([-0.123972, -0.082228, -0.195205]), atol=1e-6)
    assert torch.allclose(high, torch.tensor([0.469862, 0.161138, 0.551024]), atol=1e-6)
    clipped = torch.tensor([0.6, -0.3, -0.5]).clamp(low, high)
    assert torch.allclose(clipped, torch.tensor([0.469862, -0.082228, -0.195205]), atol=1e-6)


@pytest.mark.parametrize(("crop", "space", "clip"), [(None, "w", True), (20, "w+", False)])
def test_a_synthesis_goes_on_where_it_stopped(stylegan, crop, space, clip):
    prior = StyleGAN2Prior(stylegan, None, crop=crop, space=space, clip=clip)
    assert prior.blocks == 4
    latents = prior.sample(3, rng()).requires_grad_()
    whole = prior.decode(latents)
    (slope,) = torch.autograd.grad(whole.square().sum(), latents)
    for block in range(4):
        image = prior.finish(prior.begin(latents, block), latents, block)
        assert torch.equal(image, whole)
        (again,) = torch.autograd.grad(image.square().sum(), latents)
        assert torch.allclose(again, slope, rtol=1e-4, atol=1e-5 * float(slope.abs().max()))
    # The colours of earlier blocks count: without them it is another image.
    state = prior.begin(latents, 2)
    assert state.image is not None
    assert not torch.allclose(prior.finish(state._replace(image=0 * state.image), latents, 2), whole, atol=1e-3)
    with pytest.raises(UserError, match="blocks 0 to 3, not 4"):
        prior.begin(latents, 4)


def test_only_some_priors_stop_between_blocks():
    prior = RenderedPrior(32)
    assert prior.blocks == 0
    with pytest.raises(UserError, match="cannot be stopped"):
        prior.begin(prior.sample(1, rng()), 0)


@pytest.mark.parametrize("kind", ["rendered", "gan", "stylegan2", "pixels"])
def test_from_noise_is_the_distribution_of_sample(kind, stylegan):
    made = {
        "rendered": lambda: RenderedPrior(32, strength=0.7),
        "gan": lambda: GanPrior(Small(8, 2, 3), Critic(8, 2)),
        "stylegan2": lambda: StyleGAN2Prior(stylegan, None, psi=0.6),
        "pixels": lambda: PixelsPrior(2),
    }
    prior = made[kind]()
    noise = torch.randn(20_000, prior.noise_size, generator=rng(1)).requires_grad_()
    ours, theirs = prior.from_noise(noise), prior.sample(20_000, rng(2))
    assert ours.shape == theirs.shape
    assert torch.autograd.grad(ours.sum(), noise)[0].isfinite().all()
    ours = ours.detach()
    spread = theirs.std(0)
    assert ((ours.mean(0) - theirs.mean(0)).abs() < 5 * spread * math.sqrt(2 / 20_000) + 1e-6).all()
    assert torch.allclose(ours.std(0), spread, rtol=0.05)
    quantiles = torch.tensor([0.05, 0.5, 0.95])
    assert torch.allclose(ours.quantile(quantiles, 0), theirs.quantile(quantiles, 0), atol=0.06 * float(spread.max()))
    low, high = prior.box(3.0)
    assert low.shape == high.shape == (prior.latents,)
    inside = ((theirs >= low) & (theirs <= high)).double().mean()
    assert inside > 0.95


def test_pixels_are_latents(tmp_path):
    prior = PixelsPrior(5)
    latents = prior.sample(2, rng())
    images = prior.decode(latents)
    assert torch.equal(images, latents.view(2, 3, 5, 5))
    assert prior.decode(latents + 2).max() == 1
    assert torch.equal(prior.realism(images), torch.zeros(2))
    save(prior, tmp_path)
    assert load(tmp_path) == prior
    with pytest.raises(UserError, match="1 to 1024"):
        PixelsPrior(0)


def test_a_prior_that_was_loaded_is_frozen_and_keeps_its_names():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        prior = GanPrior(Small(8, 2, 5), Critic(8, 2))
    again = GanPrior.restore(prior.settings(), prior.state())
    assert {name.split(".")[0] for name in prior.state()} == {"generator", "critic"}
    for net in (again.generator, again.critic):
        assert not net.training
        assert not any(weight.requires_grad or weight.is_meta for weight in net.parameters())
    with pytest.raises(UserError, match="generator and critic differ in size: 8 and 16"):
        GanPrior(Small(8, 2, 5), Critic(16, 2))
