"""KED-MI's GAN: published networks and losses, what it learns from a target, and a fit that stops and goes on."""

from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from torch.nn import functional as F

from lightleak.data.population import Images
from lightleak.errors import UserError
from lightleak.priors.fit import KED_QUICK, KedMi, fit
from lightleak.priors.fit.kedmi import entropy, feature_matching, supervised, unsupervised
from lightleak.priors.gan64 import Closeness, Generator, InversionPrior, MinibatchDiscriminator

TINY = KedMi(
    width=2,
    discriminator_width=2,
    latents=5,
    kernels=3,
    dimensions=2,
    steps=4,
    critic_steps=2,
    batch=4,
    average=0.5,
    warmup=2,
)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def wave(rows: int, columns: int, size: float, a: float, b: float) -> torch.Tensor:
    """size * sin(a n + b), n in row-major order: the inputs of the golden values."""
    return (size * torch.sin(a * torch.arange(rows * columns, dtype=torch.float64) + b)).view(rows, columns)


def columns(count: int = 24, size: int = 8) -> Images:
    """One bright column per image."""
    pixels = torch.zeros(count, 3, size, size, dtype=torch.uint8)
    for index in range(count):
        pixels[index, :, :, index % size] = 255
    return Images(pixels, torch.zeros(count, dtype=torch.int64))


def left_or_right(images: torch.Tensor) -> torch.Tensor:
    """A target of three classes: bright on the left, on the right, or nothing."""
    left, right = images.chunk(2, dim=3)
    rows = [30 * left.mean((1, 2, 3)), 30 * right.mean((1, 2, 3)), torch.zeros(len(images))]
    return torch.stack(rows, 1)


# Losses: golden values of the published formulas, and transcriptions by loops


def test_golden_values_of_the_losses():
    student, teacher = wave(3, 6, 2, 0.9, 0.2), wave(3, 6, 3, 1.3, 0)
    assert supervised(student, teacher.softmax(1)).item() == pytest.approx(2.1020536, abs=1e-6)
    unlabelled, made = wave(3, 6, 2, 0.33, 2), wave(3, 6, 2, 0.5, 1)
    assert unsupervised(unlabelled, made).item() == pytest.approx(1.4315698, abs=1e-6)
    assert 3 * entropy(made).item() == pytest.approx(4.5570498, abs=1e-6)  # published as a sum


def test_golden_values_of_minibatch_discrimination():
    layer = Closeness(4, 3, 2).double()
    layer.T.data = wave(12, 2, 1, 0.61, 0.1).view(4, 3, 2)
    features = wave(3, 4, 1, 0.8, 0.4)
    expected = torch.tensor([1.8241496, 1.7463417, 1.8807952], dtype=torch.float64)
    torch.testing.assert_close(layer(features, 3)[0], expected, atol=1e-5, rtol=0)


def test_minibatch_discrimination_by_loops_with_gradients():
    layer = Closeness(6, 4, 3).double()
    features = torch.randn(6, 6, generator=rng(), dtype=torch.float64).mul(0.3).requires_grad_()
    found = layer(features, 3)
    points = torch.einsum("nf,fkd->nkd", features, layer.T)
    rows = []
    for i in range(6):
        others = [j for j in range(6) if j // 3 == i // 3 and j != i]  # of its group
        rows.append(sum(torch.exp(-(points[i] - points[j]).abs().sum(1)) for j in others))
    torch.testing.assert_close(found, torch.stack(rows))
    ours = torch.autograd.grad(found.square().sum(), [features, layer.T], retain_graph=True)
    plain = torch.autograd.grad(torch.stack(rows).square().sum(), [features, layer.T])
    for one, two in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, two)
    reference = layer.project(features[3:]).detach()
    by_hand = torch.exp(-(points[0][None] - reference).abs().sum(2)).sum(0)
    torch.testing.assert_close(layer.to_reference(features[:1], reference)[0], by_hand)


def test_losses_are_those_of_a_softmax_with_one_more_class():
    real, made = torch.randn(5, 4, generator=rng()), torch.randn(5, 4, generator=rng(1))

    def with_fake(logits):
        return torch.cat([logits, torch.zeros(len(logits), 1)], 1).softmax(1)

    expected = -(1 - with_fake(real)[:, 4]).log().mean() / 2 - with_fake(made)[:, 4].log().mean() / 2
    assert unsupervised(real, made).item() == pytest.approx(expected.item(), rel=1e-5)
    uniform = torch.zeros(2, 7)
    assert entropy(uniform).item() == pytest.approx(torch.tensor(7.0).log().item())
    assert feature_matching(torch.tensor([[1.0, 3.0], [3.0, 3.0]]), torch.zeros(4, 2)).item() == pytest.approx(2.5)


# The networks


def test_published_discriminator():
    net = MinibatchDiscriminator()
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    assert len(shapes) == 19
    assert sum(p.numel() for p in net.parameters()) == 18_888_936
    assert shapes["layer1.0.weight"] == (64, 3, 5, 5)
    assert shapes["layer3.0.weight"] == (256, 128, 5, 5)
    assert shapes["layer4.0.weight"] == (256, 256, 3, 3)
    assert shapes["layer4.1.weight"] == (256,)
    assert shapes["mbd1.T"] == (4096, 64, 50)
    assert shapes["fc_layer.weight"] == (1000, 4160)
    digits = MinibatchDiscriminator(size=32, classes=5, channels=1)
    assert "layer4.0.weight" not in digits.state_dict()
    assert digits.state_dict()["mbd1.T"].shape == (4096, 64, 50)
    features, logits = digits(torch.rand(2, 1, 32, 32))
    assert (features.shape, logits.shape) == ((2, 4096), (2, 5))


def tiny_prior(coupled: int = 0) -> InversionPrior:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return InversionPrior(
            Generator(16, 2, 7), MinibatchDiscriminator(16, 2, 3, kernels=4, dimensions=3), 6, coupled
        )


def test_realism_is_the_log_odds_of_real_and_each_image_s_own():
    prior = tiny_prior()
    images = torch.rand(5, 3, 16, 16, generator=rng())
    alone = torch.cat([prior.realism(image[None]) for image in images])
    torch.testing.assert_close(prior.realism(images), alone)
    # By the coupled network: the image and the reference together are one group of six.
    samples = prior.decode(prior.sample(5, rng(0)))
    _, logits = prior.discriminator(torch.cat([images[:1], samples]))
    torch.testing.assert_close(prior.realism(images)[0], logits[0].logsumexp(0))
    real = F.softplus(-prior.realism(images))
    odds = prior.realism(images).exp()
    torch.testing.assert_close(real, -(odds / (1 + odds)).log())


def test_coupled_as_published_depends_on_the_others():
    prior = tiny_prior(coupled=3)
    prior.discriminator.mbd1.T.data.mul_(0.05)  # far apart, images would not see each other
    images = torch.rand(6, 3, 16, 16, generator=rng())
    _, logits = prior.discriminator(images[3:])
    torch.testing.assert_close(prior.realism(images)[3:], logits.logsumexp(1))
    assert not torch.allclose(prior.realism(images)[3:4], prior.realism(images[3:4]))


def test_impossible_priors():
    with pytest.raises(UserError, match="differ in size"):
        InversionPrior(Generator(16, 2, 3), MinibatchDiscriminator(32, 2, 3))
    with pytest.raises(UserError, match="group must be at least 2"):
        replace(tiny_prior(), group=1)


# The fit


def test_it_needs_a_target():
    with pytest.raises(UserError, match="KedMi trains a prior for one target"):
        fit(columns(), TINY)
    with pytest.raises(UserError, match="steps must be at least 1, not 0; batch must be at least 2, not 1"):
        KedMi(steps=0, batch=1)


def same(one, two) -> bool:
    return all(torch.equal(one.state()[name], value) for name, value in two.state().items())


class StopError(Exception):
    pass


@pytest.mark.parametrize("moment", [1, 3, 4, 5])
def test_a_stopped_fit_goes_on_to_the_same_result(tmp_path, moment):
    settings = replace(TINY, checkpoint_every=2)
    before = torch.get_rng_state()
    whole = fit(columns(), settings, target=left_or_right)
    assert torch.equal(before, torch.get_rng_state())

    def stop(step, _total, **_):
        if step == moment:
            raise StopError

    with pytest.raises(StopError):
        fit(columns(), settings, folder=tmp_path, watch=stop, target=left_or_right)
    heard = []
    resumed = fit(
        columns(),
        settings,
        folder=tmp_path,
        watch=lambda step, _total, **_: heard.append(step),
        target=left_or_right,
    )
    assert heard == list(range((moment - 1) // 2 * 2 + 1, 7))
    assert same(whole, resumed)
    assert not same(whole, fit(columns(), settings, seed=1, target=left_or_right))


def test_checkpoints_keep_their_names(tmp_path):
    fit(columns(), TINY, folder=tmp_path, target=left_or_right)
    with safe_open(tmp_path / "checkpoint.safetensors", framework="pt") as file:
        parts = {name.split("/")[0] for name in file.keys()}  # noqa: SIM118
    networks = {"asked", "generator", "discriminator", "encoder", "average"}
    assert parts == networks | {"generator_adam", "discriminator_adam", "warmup_adam", "rng"}


def test_a_checkpoint_of_another_target_is_refused(tmp_path):
    fit(columns(), TINY, folder=tmp_path, target=left_or_right)
    with pytest.raises(UserError, match="belongs to other images, settings or another seed"):
        fit(columns(), TINY, folder=tmp_path, target=lambda images: -left_or_right(images))


def test_the_target_is_asked_once_or_as_published_in_every_step():
    asked = []

    def target(images):
        asked.append(len(images))
        return left_or_right(images)

    fit(columns(), TINY, target=target)
    assert sum(asked) == 24
    asked.clear()
    fit(columns(), replace(TINY, batch_statistics=True), target=target)
    assert sum(asked) == 24 + 4 * 2 * 4


def test_it_learns_the_target_s_classes_and_what_is_real():
    settings = replace(KED_QUICK, width=8, discriminator_width=8, latents=8, warmup=200, steps=60, batch=16)
    prior = fit(columns(), settings, target=left_or_right)
    truth = columns().floats()
    _, logits = prior.discriminator(truth)  # pyright: ignore[reportAttributeAccessIssue]
    assert (logits.argmax(1) == left_or_right(truth).argmax(1)).float().mean() > 0.9
    noise = torch.rand(24, 3, 8, 8, generator=rng())
    assert prior.realism(truth).mean() > prior.realism(noise).mean()
    samples = prior.decode(prior.sample(64, rng()))
    assert samples.std(2).mean() < 0.2  # columns are of one colour
