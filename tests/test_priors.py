"""Priors: the contract over PRIORS, the published networks, and a fit that stops and goes on."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from conftest import tiny_classifier
from lightleak.attacks import Guess, Oracle
from lightleak.data.faces import FACTORS
from lightleak.data.population import Images
from lightleak.errors import UserError
from lightleak.priors import PRIORS, learnt, load, save, show
from lightleak.priors.conditional64 import (
    ConditionalGenerator,
    ConditionalPrior,
    NamingDiscriminator,
    NamingPrior,
    ProjectionDiscriminator,
)
from lightleak.priors.fit import QUICK, SmallStyleGAN2, WganGp, fit
from lightleak.priors.fit.wgan import gradient_penalty
from lightleak.priors.gan64 import Critic, GanPrior, Generator, InversionPrior, MinibatchDiscriminator
from lightleak.priors.pixels import PixelsPrior
from lightleak.priors.rendered import RenderedPrior, mirrored
from lightleak.priors.stylegan2 import Discriminator, StyleGAN2Prior
from lightleak.priors.stylegan2 import Generator as StyleGenerator

TINY = WganGp(
    width=2,
    critic_width=2,
    latents=5,
    steps=4,
    critic_steps=2,
    batch=4,
    penalty_every=3,
    average=0.5,
    warmup=2,
)


def tiny_gan() -> GanPrior:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GanPrior(Generator(16, 2, 7), Critic(16, 2))


def tiny_style() -> StyleGAN2Prior:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return StyleGAN2Prior(StyleGenerator(16, 6, 5, 2, 64, 4), Discriminator(16, 64, 4))


def tiny_conditional() -> ConditionalPrior:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = ConditionalGenerator(16, 2, 7, classes=6)
        for name, table in generator.named_parameters():
            if name.endswith(("weights.weight", "biases.weight")):  # all classes start alike
                torch.nn.init.normal_(table, mean=float("weights" in name), std=0.5)
        return ConditionalPrior(generator, ProjectionDiscriminator(16, 2, classes=6))


def tiny_naming() -> NamingPrior:
    return NamingPrior(tiny_conditional().generator, NamingDiscriminator(16, 2, classes=6))


def tiny_specific() -> InversionPrior:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return InversionPrior(Generator(16, 2, 7), MinibatchDiscriminator(16, 2, 5, kernels=4, dimensions=3), 8)


EXAMPLES = {
    "rendered": lambda: RenderedPrior(size=32),
    "gan64": tiny_gan,
    "conditional64": tiny_conditional,
    "naming64": tiny_naming,
    "kedmi": tiny_specific,
    "stylegan2": tiny_style,
    "pixels": lambda: PixelsPrior(size=8),
}
CLASSES = torch.tensor([0, 3, 1, 5, 0])  # priors that draw no classes ignore them


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bars(count: int = 24, size: int = 8) -> Images:
    pixels = torch.zeros(count, 3, size, size, dtype=torch.uint8)
    for index in range(count):
        pixels[index, :, :, index % size] = 255
    return Images(pixels, torch.zeros(count, dtype=torch.int64))


# The contract


def test_every_prior_has_an_example():
    assert set(EXAMPLES) == set(PRIORS)


@pytest.fixture(params=sorted(EXAMPLES))
def prior(request):
    return EXAMPLES[request.param]()


def test_samples_are_latents_decided_by_the_generator(prior):
    latents = prior.sample(3, rng())
    assert latents.shape == (3, prior.latents)
    assert torch.equal(latents, prior.sample(3, rng()))
    assert not torch.equal(latents, prior.sample(3, rng(1)))


def test_images_are_in_range_and_independent_of_the_batch(prior):
    latents = prior.sample(5, rng())
    images = prior.decode(latents, CLASSES)
    assert images.shape == (5, 3, prior.size, prior.size)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert images.std(0).mean() > 1e-4  # latents matter
    alone = torch.cat([prior.decode(one[None], label[None]) for one, label in zip(latents, CLASSES, strict=True)])
    torch.testing.assert_close(alone, images, atol=1e-5, rtol=0)


def test_far_latents_still_decode_into_range(prior):
    images = prior.decode(prior.sample(4, rng()) * 20, CLASSES[:4])
    assert images.isfinite().all()
    assert images.min() >= 0
    assert images.max() <= 1


def test_gradients_reach_the_latents_and_nothing_else(prior):
    latents = prior.sample(3, rng()).requires_grad_()
    images = prior.decode(latents, CLASSES[:3])
    (prior.realism(images, CLASSES[:3]).sum() + images.square().sum()).backward()
    assert latents.grad is not None
    assert (latents.grad.abs().sum(1) > 0).all()
    for part in ("generator", "critic", "discriminator"):
        if isinstance(net := getattr(prior, part, None), torch.nn.Module):
            assert not net.training
            assert all(parameter.grad is None for parameter in net.parameters())


def test_realism_is_one_differentiable_number_an_image(prior):
    images = prior.decode(prior.sample(3, rng()), CLASSES[:3]).detach().requires_grad_()
    scores = prior.realism(images, CLASSES[:3])
    assert scores.shape == (3,)
    scores.sum().backward()


def test_randomness_is_passed_not_global(prior):
    before = torch.get_rng_state()
    prior.realism(prior.decode(prior.sample(2, rng()), CLASSES[:2]), CLASSES[:2])
    assert torch.equal(before, torch.get_rng_state())


def test_saved_and_loaded(prior, tmp_path):
    save(prior, tmp_path / "p")
    assert sorted(file.name for file in (tmp_path / "p").iterdir()) == ["prior.json", "prior.safetensors"]
    again = load(tmp_path / "p")
    latents, classes = prior.sample(3, rng()), CLASSES[:3]
    images = prior.decode(latents, classes)
    assert torch.equal(images, again.decode(latents, classes))
    assert torch.equal(prior.realism(images, classes), again.realism(images, classes))


def test_a_sheet_shows_the_samples(prior, tmp_path):
    sheet = Image.open(show(prior, tmp_path / "samples.png", rows=3))
    assert sheet.size == (3 * prior.size, 3 * prior.size)
    images = prior.decode(prior.sample(9, rng()), torch.arange(9) % 6)
    tile = sheet.crop((prior.size, 2 * prior.size, 2 * prior.size, 3 * prior.size))  # second column, third row
    pixels = torch.from_numpy(np.array(tile)).permute(2, 0, 1)
    assert (pixels - images[7] * 255).abs().max() <= 0.51


def test_load_refuses_what_does_not_fit(tmp_path):
    with pytest.raises(UserError, match="no prior in"):
        load(tmp_path)
    gan, other = tiny_gan(), GanPrior(Generator(16, 3, 7), Critic(16, 2))
    save(gan, tmp_path)
    recipe = json.loads((tmp_path / "prior.json").read_text())

    def edit(**changes):
        (tmp_path / "prior.json").write_text(json.dumps({**recipe, **changes}))

    edit(kind="stylegan9")
    with pytest.raises(UserError, match="unknown kind 'stylegan9'; known are"):
        load(tmp_path)
    edit(settings={**recipe["settings"], "width": 3})
    with pytest.raises(UserError, match="does not hold a gan64 prior"):
        load(tmp_path)
    edit(settings={})
    with pytest.raises(UserError, match="does not hold a gan64 prior"):
        load(tmp_path)
    (tmp_path / "prior.json").write_text("[]")
    with pytest.raises(UserError, match="no recipe"):
        load(tmp_path)
    edit()
    save(other, tmp_path / "other")
    (tmp_path / "prior.safetensors").write_bytes((tmp_path / "other" / "prior.safetensors").read_bytes())
    with pytest.raises(UserError, match="damaged or belongs to another"):
        load(tmp_path)
    with pytest.raises(UserError, match="int is no kind of prior"):
        save(3, tmp_path)  # pyright: ignore[reportArgumentType]


# The rendered prior


def test_factors_are_the_latents_and_never_leave_their_range():
    prior = RenderedPrior(size=32, strength=0.5)
    latents = prior.sample(200, rng())
    factors = prior.factors_of(latents)
    assert torch.equal(factors, latents[:, : len(FACTORS)])
    assert prior.circumstances_of(latents).std().item() == pytest.approx(0.5, abs=0.02)
    assert prior.factors_of(latents * 7).abs().max() <= 1
    assert RenderedPrior(size=32, strength=0).sample(2, rng())[:, len(FACTORS) :].abs().max() == 0


def test_mirrored_is_a_triangle_wave_with_slope_one():
    values = torch.tensor([-3.5, -3, -1.25, -1, -0.3, 0, 0.9, 1, 1.5, 3, 4.2, 5], dtype=torch.float64)
    expected = torch.tensor([0.5, 1, -0.75, -1, -0.3, 0, 0.9, 1, 0.5, -1, 0.2, 1], dtype=torch.float64)
    torch.testing.assert_close(mirrored(values), expected)
    values = (torch.rand(1000, generator=rng(), dtype=torch.float64) * 20 - 10).requires_grad_()
    mirrored(values).sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad.abs(), torch.ones_like(values))


def test_rendered_prior_refuses_impossible_settings():
    with pytest.raises(UserError, match="pixels, not 7"):
        RenderedPrior(size=7)
    with pytest.raises(UserError, match="from 0 to 3"):
        RenderedPrior(strength=-1)


# The networks


def test_published_generator_and_critic():
    generator, critic = Generator(), Critic()
    count = {net: sum(p.numel() for p in net.parameters()) for net in (generator, critic)}
    # 100*8192 + 2*8192 + 25*(512*256 + 256*128 + 128*64 + 64*3) + 3 + 2*(256 + 128 + 64)
    assert count[generator] == 5_142_083
    assert count[critic] == 4_316_545
    shapes = {name: tuple(value.shape) for name, value in generator.state_dict().items()}
    assert shapes["l1.0.weight"] == (8192, 100)
    assert shapes["l1.1.running_mean"] == (8192,)
    assert shapes["l2_5.0.0.weight"] == (512, 256, 5, 5)
    assert shapes["l2_5.2.1.weight"] == (64,)
    assert shapes["l2_5.3.weight"] == (64, 3, 5, 5)
    assert shapes["l2_5.3.bias"] == (3,)
    shapes = {name: tuple(value.shape) for name, value in critic.state_dict().items()}
    assert shapes["ls.0.weight"] == (64, 3, 5, 5)
    assert shapes["ls.4.0.weight"] == (512, 256, 5, 5)
    assert shapes["ls.4.1.weight"] == (512,)
    assert shapes["ls.5.weight"] == (1, 512, 4, 4)


def test_published_digits_generator():
    generator = Generator(size=32, channels=1)
    assert generator.l1[0].weight.shape == (4096, 100)
    assert generator.l2_5[2].weight.shape == (64, 1, 5, 5)
    assert generator.eval()(torch.randn(2, 100, generator=rng())).shape == (2, 1, 32, 32)


@pytest.mark.parametrize("size", [8, 16, 32, 64, 128])
def test_sizes(size):
    generator, critic = Generator(size, 2, 3).eval(), Critic(size, 2)
    images = generator(torch.zeros(2, 3))
    assert images.shape == (2, 3, size, size)
    assert critic(images).shape == (2,)


def test_impossible_networks():
    with pytest.raises(UserError, match="8, 16, 32, 64, 128, 256"):
        Generator(size=48)
    with pytest.raises(UserError, match="differ in size: 16 and 32"):
        GanPrior(Generator(16, 2, 3), Critic(32, 2))


# The fit


def test_gradient_penalty_of_a_linear_critic():
    slope = torch.tensor([3.0, 4.0])
    linear = torch.nn.Linear(2, 1)
    linear.weight.data[0] = slope
    critic = torch.nn.Sequential(torch.nn.Flatten(), linear)
    real, made = torch.rand(6, 1, 1, 2, generator=rng()), torch.rand(6, 1, 1, 2, generator=rng(1))
    penalty = gradient_penalty(critic, real, made, rng())
    assert penalty.item() == pytest.approx(16, rel=1e-5)  # |slope| = 5
    penalty.backward()
    assert linear.weight.grad is not None
    torch.testing.assert_close(linear.weight.grad[0], 2 * 4 * slope / 5)


def test_gradient_penalty_is_taken_between_the_images():
    places = []

    def critic(images):
        places.append(images.detach())
        return images.flatten(1).square().sum(1)

    real, made = torch.zeros(50, 1, 1, 1), torch.ones(50, 1, 1, 1)
    penalty = gradient_penalty(critic, real, made, rng())  # pyright: ignore[reportArgumentType]
    (x,) = places
    assert 0 <= x.min() < 0.1
    assert 0.9 < x.max() <= 1
    assert penalty.item() == pytest.approx((2 * x - 1).square().mean().item(), rel=1e-5)


def same(one: GanPrior, two: GanPrior) -> bool:
    return all(torch.equal(one.state()[name], value) for name, value in two.state().items())


def test_fit_is_deterministic_and_leaves_the_world_alone():
    before = torch.get_rng_state()
    first, second, other = fit(bars(), TINY), fit(bars(), TINY), fit(bars(), TINY, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    assert same(first, second)
    assert not same(first, other)
    assert first.size == 8


def test_checkpoints_keep_their_names(tmp_path):
    """A training that an earlier version kept goes on: the parts are called as they were."""
    fit(bars(), replace(TINY, warmup=1), folder=tmp_path)
    with safe_open(tmp_path / "checkpoint.safetensors", framework="pt") as file:
        parts = {name.split("/")[0] for name in file.keys()}  # noqa: SIM118
    networks = {"generator", "critic", "encoder", "average"}
    assert parts == networks | {"generator_adam", "critic_adam", "warmup_adam", "rng"}


class StopError(Exception):
    pass


@pytest.mark.parametrize("moment", [1, 2, 3, 4, 5])
def test_a_stopped_fit_goes_on_to_the_same_result(tmp_path, moment):
    settings = replace(TINY, checkpoint_every=2)
    whole = fit(bars(), settings)

    def stop(step, _total, **_):
        if step == moment:
            raise StopError

    with pytest.raises(StopError):
        fit(bars(), settings, folder=tmp_path, watch=stop)
    heard = []
    resumed = fit(bars(), settings, folder=tmp_path, watch=lambda step, _total, **_: heard.append(step))
    # The watch hears of a step before it is kept, so an even moment is lost with the step itself.
    assert heard == list(range((moment - 1) // 2 * 2 + 1, 7))
    assert same(whole, resumed)
    assert same(whole, fit(bars(), settings, folder=tmp_path))  # finished: nothing left to do
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_foreign_or_damaged_checkpoints_are_refused(tmp_path):
    fit(bars(), TINY, folder=tmp_path)
    for images, settings, seed in (
        (bars(16), TINY, 0),
        (bars(), replace(TINY, steps=8), 0),
        (bars(), TINY, 1),
    ):
        with pytest.raises(UserError, match="belongs to other images, settings or another seed"):
            fit(images, settings, seed, folder=tmp_path)
    file = tmp_path / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match="damaged"):
        fit(bars(), TINY, folder=tmp_path)


def test_a_fit_that_diverges_says_so_and_keeps_its_last_good_checkpoint(tmp_path):
    wild = replace(TINY, warmup=0, steps=4, rate=1e38, critic_rate=1e38, checkpoint_every=1)
    with pytest.raises(UserError, match=r"training diverged before step \d: no finite number .*lower the rate"):
        fit(bars(), wild, folder=tmp_path)
    for file in tmp_path.glob("*.safetensors"):
        assert all(value.isfinite().all() for value in load_file(file).values() if value.is_floating_point())


def test_a_prior_without_numbers_is_neither_saved_nor_loaded_nor_believed(tmp_path, monkeypatch):
    prior = tiny_gan()
    save(prior, tmp_path)
    with torch.no_grad():
        next(prior.generator.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match="values that are not finite"):
        save(prior, tmp_path)
    assert load(tmp_path).settings() == prior.settings()  # what was there is still there
    with monkeypatch.context() as patch:
        patch.setattr("lightleak.priors.finite", lambda *_: None)
        save(prior, tmp_path)
    with pytest.raises(UserError, match="values that are not finite"):
        load(tmp_path)
    with pytest.raises(UserError, match="the prior draws NaN"):
        Guess(1).run(Oracle(tiny_classifier()), prior, torch.arange(2), torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({"rate": float("nan")}, "rate must be a number"),
        ({"betas": (1.5, 0.9)}, r"betas must lie in \[0, 1\)"),
        ({"penalty": -3.0}, "penalty must be at least 0"),
    ],
)
def test_settings_that_no_optimiser_takes_are_refused(settings, wrong):
    with pytest.raises(UserError, match=wrong):
        replace(TINY, **settings)
    with pytest.raises(UserError, match="r1 must be at least 0, not -1"):
        SmallStyleGAN2(r1=-1)


def test_wrong_settings_are_all_named():
    with pytest.raises(UserError, match="width must be at least 1, not 0; batch must be at least 2, not 1; average"):
        WganGp(width=0, batch=1, average=1.0)
    with pytest.raises(UserError, match="needs public images"):
        fit(bars(1), TINY)
    with pytest.raises(UserError, match="on public images alone; leave the target out"):
        fit(bars(), TINY, target=lambda images: images.flatten(1))


def test_a_fit_learns_what_the_images_have_in_common():
    """One bright column per image: samples are as dark, and the critic prefers the real ones."""
    settings = replace(QUICK, width=8, critic_width=8, latents=8, warmup=300, steps=50, batch=16, average=0.9)
    prior = fit(bars(), settings)
    samples = prior.decode(prior.sample(64, rng()))
    truth = bars().floats()
    assert samples.mean().item() == pytest.approx(truth.mean().item(), abs=0.06)
    assert samples.std(2).mean() < 0.15  # columns are of one colour
    assert prior.realism(truth).mean() > prior.realism(samples).mean()


@pytest.mark.parametrize("kind", ["gan", "inversion", "conditional"])
def test_convolutions_may_run_in_bfloat16(kind):
    """Images and scores stay float32, near those of full precision, and the latents still get a gradient."""
    torch.manual_seed(0)
    prior = {
        "gan": lambda: GanPrior(Generator(32, 4, 8), Critic(32, 4)),
        "inversion": lambda: InversionPrior(Generator(32, 4, 8), MinibatchDiscriminator(32, 4, 5), 6),
        "conditional": lambda: ConditionalPrior(ConditionalGenerator(32, 4, 8, 5), ProjectionDiscriminator(32, 4, 5)),
    }[kind]()
    rough = replace(prior, precision="bfloat16")
    latents, classes = torch.randn(3, 8, requires_grad=True), torch.tensor([0, 4, 2])
    exact, close = prior.decode(latents, classes), rough.decode(latents, classes)
    assert close.dtype == rough.realism(close, classes).dtype == torch.float32
    assert not torch.equal(exact, close)
    torch.testing.assert_close(exact, close, atol=0.03, rtol=0)
    (slope,) = torch.autograd.grad(rough.realism(close, classes).sum(), latents)
    assert slope.abs().sum() > 0
    assert rough.settings() == prior.settings()


def test_a_prior_says_what_it_learnt_of_a_target(tmp_path):
    save(tiny_gan(), tmp_path / "plain")
    assert learnt(tmp_path / "plain") is None
    save(tiny_specific(), tmp_path / "made", {"access": "scores", "queries": 24})
    assert learnt(tmp_path / "made") == ("scores", 24)
    assert type(load(tmp_path / "made")) is InversionPrior
    with pytest.raises(UserError, match="there is no prior"):
        learnt(tmp_path)
