"""PLG-MI: pseudo labels, the training of its prior, and its inversion, each against a plain second way."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from lightleak.attacks import PLGMI, Oracle, Reconstruction
from lightleak.attacks.draws import own_draws, own_latents
from lightleak.attacks.frame import Part
from lightleak.data.augmentation import DRAWS, STAGE1
from lightleak.data.population import Images
from lightleak.errors import UserError
from lightleak.priors import load, save
from lightleak.priors.conditional64 import ConditionalGenerator, ConditionalPrior, ProjectionDiscriminator
from lightleak.priors.fit import PLG_QUICK, PlgMi, fit
from lightleak.priors.fit.plgmi import _batch, _start, plgmi_step, pseudo_labels
from lightleak.training.losses import max_margin

TINY = PlgMi(
    width=2, discriminator_width=2, latents=5, top=3, steps=4, critic_steps=2, batch=6, average=0.5, warmup=2,
    checkpoint_every=2,
)  # fmt: skip


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shades(count: int = 24, size: int = 8) -> Images:
    """Plain images, from dark to bright."""
    pixels = torch.linspace(0, 255, count).round().byte().view(-1, 1, 1, 1).expand(-1, 3, size, size)
    return Images(pixels.contiguous(), torch.zeros(count, dtype=torch.int64))


def by_brightness(images: torch.Tensor) -> torch.Tensor:
    """A target of four classes: the quarters of brightness."""
    centres = torch.tensor([0.125, 0.375, 0.625, 0.875])
    return -40 * (images.mean((1, 2, 3))[:, None] - centres).square()


# ---------------------------------------------------------------------------------------------------------------------
# Pseudo labels


def test_pseudo_labels_by_brute_force():
    logits = torch.randn(40, 7, generator=rng())
    chosen = pseudo_labels(logits, 5)
    confidence = logits.softmax(1)
    for label in range(7):
        assert chosen[label].tolist() == sorted(range(40), key=lambda i: -float(confidence[i, label]))[:5]


def test_every_class_gets_as_many_and_ties_go_to_the_earlier_image():
    logits = torch.zeros(6, 3)
    logits[:, 0] = 9.0  # every image is of class 0, none of the others
    assert pseudo_labels(logits, 4).tolist() == [[0, 1, 2, 3]] * 3
    with pytest.raises(UserError, match="needs 7 public images to stand for it, there are 6; lower top"):
        pseudo_labels(logits, 7)


def test_batches_hold_images_beside_whom_they_stand_for():
    images = shades()
    chosen = pseudo_labels(by_brightness(images.floats()), 3)
    run = _start(images, replace(TINY, batch=400), 0, "cpu", by_brightness, chosen)
    real, owners = _batch(run, replace(TINY, batch=400), images.pixels)
    assert real.min() >= -1
    assert real.max() < 1 + 2 / 256
    assert torch.equal(by_brightness((real + 1) / 2).argmax(1), owners)
    assert torch.bincount(owners, minlength=4).min() > 60
    grain = (real + 1) / 2 - images.floats()[(real.mean((1, 2, 3)) * 11.5 + 11.5).round().long()]
    assert grain.min() + 1e-6 >= 0
    assert grain.max() < 1 / 256 + 1e-6
    unit, _ = _batch(run, replace(TINY, batch=400, span="unit"), images.pixels)
    assert unit.min() >= 0  # published: real images never reach the lower half of the generator's range


# ---------------------------------------------------------------------------------------------------------------------
# The step, beside a plain one


def test_a_step_is_the_published_one():
    """One update of each network, the same as by the formulas with the same random numbers."""
    images, settings = shades(), replace(TINY, critic_steps=1, average=0.0)
    chosen = pseudo_labels(by_brightness(images.floats()), 3)
    ours, plain = (_start(images, settings, 0, "cpu", by_brightness, chosen) for _ in range(2))
    told = plgmi_step(ours, settings, images.pixels)

    stream = rng()
    z = torch.randn(6, 5, generator=stream)
    c = torch.randint(4, (6,), generator=stream)
    draws = torch.rand(6, DRAWS, generator=stream)
    made = plain.generator(z, c)
    margin = max_margin(by_brightness(STAGE1((made + 1) / 2, draws)), c).mean()
    loss = -plain.discriminator.eval()(made, c).mean() + 0.2 * margin
    plain.generator_adam.zero_grad()
    loss.backward()
    plain.generator_adam.step()
    assert told["margin"] == pytest.approx(float(margin.detach()), rel=1e-4)

    y = torch.randint(4, (6,), generator=stream)
    which = chosen[y, torch.randint(3, (6,), generator=stream)]
    real = 2 * (images.floats()[which] + torch.rand(6, 3, 8, 8, generator=stream) / 256) - 1
    z = torch.randn(6, 5, generator=stream)
    c = torch.randint(4, (6,), generator=stream)
    made = plain.generator(z, c).detach()
    scores = plain.discriminator.train()(torch.cat([real, made]), torch.cat([y, c]))
    hinge = F.relu(1 - scores[:6]).mean() + F.relu(1 + scores[6:]).mean()
    plain.discriminator_adam.zero_grad()
    hinge.backward()
    plain.discriminator_adam.step()
    assert told["hinge"] == pytest.approx(float(hinge.detach()), rel=1e-4)
    # Adam's first step is a sign: where a gradient is nothing but rounding, it may go either way.
    for name in ("generator", "discriminator"):
        pairs = zip(getattr(ours, name).parameters(), getattr(plain, name).parameters(), strict=True)
        gaps = torch.cat([(one - other).abs().flatten() for one, other in pairs])
        assert (gaps > 0.05 * settings.rate).double().mean() < 0.02


def test_the_margin_moves_the_generator_towards_the_classes():
    images = shades(48)
    settings = replace(TINY, width=4, discriminator_width=4, steps=40, warmup=0, batch=16, rate=2e-3, critic_rate=2e-3)
    heard: dict[str, list[float]] = {"with": [], "without": []}
    for name, weight in (("with", 2.0), ("without", 0.0)):
        prior = fit(images, replace(settings, margin=weight), target=by_brightness)
        classes = torch.arange(4).repeat(16)
        made = prior.decode(prior.sample(64, rng()), classes)
        heard[name].append(float(max_margin(by_brightness(made), classes).mean()))
    assert heard["with"][0] < heard["without"][0] - 0.5


def test_the_warm_up_tells_the_decoder_the_class():
    settings = replace(PLG_QUICK, width=4, discriminator_width=4, latents=4, top=6, warmup=150, steps=1, batch=16)
    settings = replace(settings, average=0.0, rate=1e-5)
    prior = fit(shades(48), settings, target=by_brightness)
    assert isinstance(prior, ConditionalPrior)
    assert prior.span == "signed"
    made = prior.decode(prior.sample(32, rng()), torch.arange(4).repeat(8))
    brightness = made.mean((1, 2, 3)).view(8, 4).mean(0)
    assert (brightness.diff() > 0.03).all()


# ---------------------------------------------------------------------------------------------------------------------
# The fit as a whole


def same(one: ConditionalPrior, two: ConditionalPrior) -> bool:
    return all(torch.equal(one.state()[name], value) for name, value in two.state().items())


class StopError(Exception):
    pass


@pytest.mark.parametrize("moment", [1, 2, 3, 5])
def test_a_stopped_fit_goes_on_to_the_same_result(tmp_path, moment):
    whole = fit(shades(), TINY, target=by_brightness)

    def stop(step, _total, **_):
        if step == moment:
            raise StopError

    with pytest.raises(StopError):
        fit(shades(), TINY, folder=tmp_path, watch=stop, target=by_brightness)
    before = torch.get_rng_state()
    resumed = fit(shades(), TINY, folder=tmp_path, target=by_brightness)
    assert torch.equal(before, torch.get_rng_state())
    assert same(whole, resumed)
    with pytest.raises(UserError, match="belongs to other images, settings or another seed"):
        fit(shades(), TINY, folder=tmp_path, target=lambda images: by_brightness(1 - images))


def test_it_is_saved_and_loaded_with_its_range(tmp_path):
    prior = fit(shades(), replace(TINY, span="unit"), target=by_brightness)
    save(prior, tmp_path)
    again = load(tmp_path)
    assert isinstance(again, ConditionalPrior)
    assert again.span == "unit"
    assert same(prior, again)


def test_bad_settings_are_all_named():
    with pytest.raises(UserError, match=r"top must be at least 1, not 0; average must lie in .* not 'bytes'"):
        PlgMi(top=0, average=1.0, span="bytes")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="asks it; pass the target"):
        fit(shades(), TINY)
    with pytest.raises(UserError, match="attempts, views and batch at least 1"):
        PLGMI(attempts=0)


# ---------------------------------------------------------------------------------------------------------------------
# The inversion


def test_published_defaults():
    attack, training = PLGMI(), PlgMi()
    assert (attack.attempts, attack.steps, attack.rate, attack.loss, attack.views) == (5, 600, 0.1, "max-margin", 2)
    assert (training.top, training.margin, training.steps, training.critic_steps) == (30, 0.2, 30_000, 5)
    assert (training.rate, training.betas, training.batch, training.latents) == (2e-4, (0.0, 0.9), 64, 128)


def test_a_descent_is_the_published_loop(tiny_target):
    """One attempt alone, by the plain loop: two passes of the target, Adam on their sum."""
    torch.manual_seed(0)
    prior = ConditionalPrior(ConditionalGenerator(32, 4, 8, classes=6), ProjectionDiscriminator(32, 2, classes=6))
    attack, oracle, seed = PLGMI(attempts=1, steps=4), Oracle(tiny_target), 11
    label, attempt = torch.tensor([3]), torch.tensor([2])
    start = own_latents(prior, seed, label, attempt)
    found = attack.search(oracle, prior, Part(seed, label, attempt), lambda *_, **__: None).latents
    draws = own_draws(seed + 1, label, attempt, (4, 2, DRAWS))
    z = start.clone().requires_grad_()
    adam = torch.optim.Adam([z], lr=0.1)
    for step in range(4):
        loss = torch.zeros(())
        for view in range(2):
            logits = tiny_target.eval()(attack.view(prior.decode(z, label), draws[:, step, view]))
            loss = loss + logits[0, [i for i in range(6) if i != 3]].max() - logits[0, 3]
        adam.zero_grad()
        loss.backward()
        adam.step()
    torch.testing.assert_close(found, z.detach(), atol=1e-3, rtol=1e-3)


def test_restarts_of_a_class_come_best_first():
    confidence = torch.tensor([0.2, 0.9, 0.9, 0.5, float("nan"), 0.7])
    rows = torch.arange(6)
    found = Reconstruction(
        torch.rand(6, 3, 4, 4), torch.tensor([7, 7, 7, 2, 2, 2]), rows, confidence, attempts=rows % 3
    )
    assert found.kept_of_each(3, best_first=True).latents.tolist() == [1, 2, 0, 5, 3, 4]
    assert found.kept_of_each(2, best_first=True).latents.tolist() == [1, 2, 5, 3]
    assert found.kept_of_each(2, best_first=False).latents.tolist() == [1, 2, 3, 5]


def test_restarts_start_apart():
    prior = load_example()
    labels, attempts = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0])
    latents = own_latents(prior, 5, labels, attempts)
    assert (torch.cdist(latents, latents) + torch.eye(3) * 9).min() > 1
    assert torch.equal(latents[2:], own_latents(prior, 5, labels[2:], attempts[2:]))


def load_example() -> ConditionalPrior:
    return ConditionalPrior(ConditionalGenerator(8, 1, 30, classes=2), ProjectionDiscriminator(8, 1, classes=2))
