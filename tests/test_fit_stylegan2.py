"""Training of a small StyleGAN2: its penalties in closed form, what a stop changes, and that it learns."""

import math
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

from lightleak.data.population import Images
from lightleak.errors import UserError
from lightleak.priors import load, save
from lightleak.priors.fit import SmallStyleGAN2, fit
from lightleak.priors.fit.stylegan2 import Eigenfaces, _lazy, _start, _styles, path_lengths, r1
from lightleak.priors.stylegan2 import Generator

TINY = SmallStyleGAN2(
    base=32, widest=4, critic_base=32, critic_widest=4, latents=5, styles=6, depth=2,
    batch=4, group=2, steps=5, r1_every=3, paths_every=2, warmup=2, checkpoint_every=2, precision="float32",
)  # fmt: skip


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bars(count: int = 24, size: int = 8) -> Images:
    pixels = torch.zeros(count, 3, size, size, dtype=torch.uint8)
    for index in range(count):
        pixels[index, :, :, index % size] = 255
    return Images(pixels, torch.zeros(count, dtype=torch.int64))


def same(one, two) -> bool:
    return all(torch.equal(one.state()[name], value) for name, value in two.state().items())


# Penalties


def test_r1_of_a_linear_critic():
    linear = nn.Linear(12, 1)
    slope = torch.randn(12, generator=rng())
    linear.weight.data[0] = slope
    penalty = r1(nn.Sequential(nn.Flatten(), linear), torch.rand(5, 3, 2, 2, generator=rng(1)))
    assert penalty.item() == pytest.approx(slope.square().sum().item(), rel=1e-5)
    penalty.backward()
    assert linear.weight.grad is not None
    torch.testing.assert_close(linear.weight.grad[0], 2 * slope)


def test_r1_is_the_mean_over_images_of_the_squared_slope():
    real = torch.rand(4, 3, 2, 2, generator=rng(), dtype=torch.float64)
    # The score's slope is 3 x^2.
    penalty = r1(lambda x: x.pow(3).flatten(1).sum(1), real)  # pyright: ignore[reportArgumentType]
    assert penalty.item() == pytest.approx((3 * real**2).square().flatten(1).sum(1).mean().item(), rel=1e-9)


def test_path_lengths_of_a_linear_generator():
    """x = M (mean over slots of w): J' y is M' y / slots in each slot, so the length is |M' y| / slots."""
    slots, styles, side = 3, 5, 4
    matrix = torch.randn(3 * side**2, styles, generator=rng(), dtype=torch.float64).requires_grad_()
    seen = []

    def synthesis(w, noise):
        seen.append(noise)
        return (w.mean(1) @ matrix.T).view(-1, 3, side, side)

    w = torch.randn(2, slots, styles, generator=rng(1), dtype=torch.float64).requires_grad_()
    lengths = path_lengths(synthesis, w, rng(2))
    y = torch.randn(2, 3, side, side, generator=rng(2)).double().flatten(1) / side
    expected = (y @ matrix.detach()).norm(dim=1) / slots
    torch.testing.assert_close(lengths.detach(), expected)
    # The second derivative: of the mean length by the matrix, y (M' y)' / (|M' y| slots).
    (found,) = torch.autograd.grad(lengths.mean(), matrix)
    directions = (y @ matrix.detach()) / (y @ matrix.detach()).norm(dim=1, keepdim=True)
    torch.testing.assert_close(found, (y.T @ directions) / (2 * slots))
    assert isinstance(seen[0], torch.Generator)


def test_path_lengths_of_the_generator_are_those_of_its_jacobian():
    """All J' y at once, from the Jacobian of the plain forward pass by each slot's style."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Generator(8, 3, 3, 1, 16, 2).double()
    for layer in (net.synthesis.b4.conv1, net.synthesis.b8.conv0):  # pyright: ignore[reportAttributeAccessIssue]
        layer.noise_strength.data.fill_(0.1)
    w = net.mapping(torch.randn(2, 3, generator=rng(), dtype=torch.float64)).detach()
    w = w[:, None].repeat(1, net.synthesis.slots, 1).requires_grad_()
    quiet = lambda w, _: net.synthesis(w)  # noqa: E731
    lengths = path_lengths(quiet, w, rng(2))
    y = torch.randn(2, 3, 8, 8, generator=rng(2)).double() / 8
    for index in range(2):
        jacobian = torch.autograd.functional.jacobian(lambda one: net.synthesis(one), w[index : index + 1].detach())
        pulled = torch.einsum("chw,chwsk->sk", y[index], jacobian[0, ..., 0, :, :])
        assert lengths[index].item() == pytest.approx(pulled.square().sum(1).mean().sqrt().item(), rel=1e-6)
    for name, slope in zip(
        dict(net.synthesis.named_parameters()),
        torch.autograd.grad(lengths.var(), list(net.synthesis.parameters()), allow_unused=True),
    ):
        assert slope is None or slope.isfinite().all(), name


def test_lazy_rates():
    """16 steps and one of penalties move as far, and forget as much, as 16 steps alone."""
    adam = _lazy(nn.Linear(1, 1), 0.01, (0.5, 0.99), 16)
    group = adam.param_groups[0]
    assert group["lr"] * 17 == pytest.approx(0.01 * 16)
    assert group["betas"][0] ** 17 == pytest.approx(0.5**16)
    assert group["betas"][1] ** 17 == pytest.approx(0.99**16)
    assert _lazy(nn.Linear(1, 1), 0.01, (0.5, 0.99), 0).param_groups[0]["lr"] == 0.01


# The warm-up


def test_eigenfaces_are_uncorrelated_coordinates_of_variance_one():
    images = torch.rand(40, 3, 64, 64, generator=rng()) * torch.linspace(0.5, 1, 64)
    codes = Eigenfaces(images, 6)(images)
    torch.testing.assert_close(codes.mean(0), torch.zeros(6), atol=1e-3, rtol=0)
    torch.testing.assert_close(codes.T @ codes / 40, torch.eye(6), atol=1e-3, rtol=0)
    # They are the leading ones: the same as by a singular value decomposition, up to signs.
    rows = torch.nn.functional.avg_pool2d(images, 2).flatten(1)
    left = torch.linalg.svd(rows - rows.mean(0), full_matrices=False).U[:, :6]
    torch.testing.assert_close((left.T @ codes).abs() / 40**0.5, torch.eye(6), atol=1e-3, rtol=0)


def test_eigenfaces_are_those_of_small_images():
    images = torch.rand(30, 3, 64, 64, generator=rng())
    small = torch.nn.functional.avg_pool2d(images, 2)
    assert torch.equal(Eigenfaces(images, 4)(images), Eigenfaces(small, 4)(images))


@pytest.mark.parametrize("images", [torch.zeros(5, 3, 8, 8), torch.rand(3, 3, 8, 8, generator=rng())])
def test_few_or_equal_images_have_eigenfaces_too(images):
    codes = Eigenfaces(images, 7)(images)
    assert codes.shape == (len(images), 7)
    assert codes.isfinite().all()


# Styles


def test_mixed_styles_change_over_once():
    run = _start(bars(), TINY, 0, "cpu")
    slots = run.generator.synthesis.slots
    w = _styles(run, replace(TINY, mixing=1.0), 200).detach()
    changes = (w[:, 1:] != w[:, :-1]).any(2)
    assert (changes.sum(1) == 1).all()
    assert set(changes.nonzero()[:, 1].tolist()) == set(range(slots - 1))
    assert (_styles(run, replace(TINY, mixing=0.0), 8) == _styles(run, replace(TINY, mixing=0.0), 8)).sum() == 0
    plain = _styles(run, replace(TINY, mixing=0.0), 8)
    assert torch.equal(plain, plain[:, :1].expand_as(plain))


def test_the_mean_style_is_tracked():
    """From 0, n batches come within 0.995^n of the mean, mixed or not."""
    run = _start(bars(), TINY, 0, "cpu")
    for _ in range(400):
        _styles(run, TINY, 64)
    mapping = run.generator.mapping
    styles = mapping(torch.randn(20_000, TINY.latents, generator=rng())).detach()
    torch.testing.assert_close(mapping.w_avg, (1 - 0.995**400) * styles.mean(0), rtol=0.05, atol=0.02)


# The fit


def test_a_fit_is_decided_by_its_seed_and_leaves_the_world_alone(tmp_path):
    before = torch.get_rng_state()
    first, second, other = fit(bars(), TINY), fit(bars(), TINY), fit(bars(), TINY, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    assert same(first, second)
    assert not same(first, other)
    assert first.size == 8
    assert first.latents == TINY.styles
    save(first, tmp_path)
    assert same(first, load(tmp_path))


@pytest.mark.parametrize("moment", [1, 3, 4, 6])
def test_a_stopped_fit_goes_on_to_the_same_result(tmp_path, moment):
    whole = fit(bars(), TINY)

    class StopError(Exception):
        pass

    def stop(step, _total, **_):
        if step == moment:
            raise StopError

    with pytest.raises(StopError):
        fit(bars(), TINY, folder=tmp_path, watch=stop)
    heard = []
    resumed = fit(bars(), TINY, folder=tmp_path, watch=lambda step, _total, **_: heard.append(step))
    assert heard == list(range((moment - 1) // 2 * 2 + 1, 8))
    assert same(whole, resumed)


def test_what_is_heard_and_shown(tmp_path):
    numbers = {}
    fit(bars(), TINY, folder=tmp_path, watch=lambda step, _total, **told: numbers.update({step: told}))
    assert [sorted(told) for told in numbers.values()] == [
        ["error"],
        ["error"],
        ["length", "made", "real", "slope"],
        ["made", "real"],
        ["length", "made", "real"],
        ["made", "real", "slope"],
        ["length", "made", "real"],
    ]
    assert all(math.isfinite(value) for told in numbers.values() for value in told.values())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["checkpoint.safetensors", "samples.png"]
    with Image.open(tmp_path / "samples.png") as picture:
        assert picture.size == (64, 64)  # 8 x 8 images of 8 x 8


def test_another_rate_is_another_training(tmp_path):
    fit(bars(), TINY, folder=tmp_path)
    with pytest.raises(UserError, match="belongs to other images, settings or another seed"):
        fit(bars(), replace(TINY, rate=1e-3), folder=tmp_path)


def test_more_steps_go_on_and_fewer_take_what_there_is(tmp_path):
    fit(bars(), replace(TINY, steps=3), folder=tmp_path)
    longer = fit(bars(), TINY, folder=tmp_path)
    assert same(longer, fit(bars(), TINY))
    assert same(longer, fit(bars(), replace(TINY, steps=1), folder=tmp_path))


@pytest.mark.parametrize("part", [{"warmup": 0}, {"steps": 0}, {"precision": "bfloat16"}, {"mirror": True}])
def test_every_part_may_be_left_out(part):
    prior = fit(bars(), replace(TINY, **part))
    assert all(value.isfinite().all() for value in prior.state().values())
    assert not same(prior, fit(bars(), TINY))


def test_wrong_settings_are_all_named():
    with pytest.raises(UserError, match="batch must be at least 2, not 1; rate must be above 0, not 0; mixing must be"):
        SmallStyleGAN2(batch=1, rate=0, mixing=1.5)
    with pytest.raises(UserError, match="multiple of group"):
        SmallStyleGAN2(batch=6, group=4)
    with pytest.raises(UserError, match="nothing would be learnt"):
        SmallStyleGAN2(steps=0)
    with pytest.raises(UserError, match="needs public images"):
        fit(bars(1), TINY)
    with pytest.raises(UserError, match="size must be one of 8, 16"):
        fit(bars(size=12), TINY)


def test_a_fit_learns_what_the_images_have_in_common():
    """One bright column an image: columns become of one colour and as dark, and the critic prefers the real ones."""
    settings = replace(
        TINY, base=64, widest=8, critic_base=64, critic_widest=8, latents=8, styles=16, batch=16, group=4,
        warmup=100, steps=40, r1_every=8, half_life=0.2, mixing=0.5, checkpoint_every=1000,
    )  # fmt: skip
    before, after = fit(bars(), replace(settings, warmup=0, steps=1)), fit(bars(), settings)
    truth = bars().floats()

    def uneven(prior):
        return prior.decode(prior.sample(64, rng())).std(2).mean().item()

    samples = after.decode(after.sample(64, rng()))
    assert samples.mean().item() == pytest.approx(truth.mean().item(), abs=0.08)
    assert uneven(after) < 0.5 * uneven(before)
    assert after.realism(truth).mean() > after.realism(samples).mean()
