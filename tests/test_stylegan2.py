"""StyleGAN2: published shapes, a second implementation in float64 written from the equations, crops, the prior."""

import math

import pytest
import torch
from torch.nn import functional as F

from lightleak.errors import UserError
from lightleak.priors import load, save
from lightleak.priors.stylegan2 import Discriminator, Generator, StyleGAN2Prior, synthesise

SMALL = {"latents": 12, "styles": 10, "depth": 3, "base": 128, "widest": 6}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stirred(net, seed: int = 0):
    """A network none of whose parameters is at a special value."""
    draw = rng(seed)
    for name, value in [*net.named_parameters(), *net.named_buffers()]:
        if "mapping" in name and name.endswith("weight"):
            value.data = 100 * torch.randn(value.shape, generator=draw)
        elif not name.endswith("resample_filter"):
            value.data = value.data * 0.5 + torch.randn(value.shape, generator=draw) * 0.5
    return net.eval()


def small(size: int = 32, clamp: float | None = None, **changes) -> Generator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return stirred(Generator(size, clamp=clamp, **{**SMALL, **changes}))


def small_critic(size: int = 32, clamp: float | None = None) -> Discriminator:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return stirred(Discriminator(size, 128, 6, clamp), 1)


def small_prior(size: int = 32, **settings) -> StyleGAN2Prior:
    return StyleGAN2Prior(small(size), small_critic(size), **settings)


# The second implementation: one image and one layer at a time, in float64, straight from the equations.


def zeros_between(x):
    """Every second row and column is x, the others are zero."""
    y = x.new_zeros(x.shape[0], 2 * x.shape[1], 2 * x.shape[2])
    y[:, ::2, ::2] = x
    return y


def filtered(x, kernel, before, after):
    """Each channel under the same filter, with zeros around."""
    x = F.pad(x, (before, after, before, after))
    return torch.stack([F.conv2d(channel[None, None], kernel[None, None])[0, 0] for channel in x])


BINOMIAL = torch.tensor([[1, 3, 3, 1], [3, 9, 9, 3], [3, 9, 9, 3], [1, 3, 3, 1]], dtype=torch.float64) / 64


def rectified(x):
    return math.sqrt(2) * torch.where(x > 0, x, 0.2 * x)


def clamped(x, limit):
    return x if limit is None else x.clamp(-limit, limit)


def reference_mapping(state, z, depth):
    x = z / (z.square().mean() + 1e-8).sqrt()
    for index in range(depth):
        weight, bias = state[f"mapping.fc{index}.weight"], state[f"mapping.fc{index}.bias"]
        x = rectified(weight @ x * (0.01 / math.sqrt(len(x))) + 0.01 * bias)
    return x


def reference_layer(state, name, x, w, up, noise, limit):
    style = state[f"{name}.affine.weight"] @ w / math.sqrt(len(w)) + state[f"{name}.affine.bias"]
    weight = state[f"{name}.weight"] * style[None, :, None, None]  # modulate
    weight = weight / (weight.square().sum((1, 2, 3)) + 1e-8).sqrt()[:, None, None, None]  # demodulate
    if up:
        # as zeros between the pixels, a full correlation with the flipped kernel, and the filter
        x = F.conv2d(F.pad(zeros_between(x), (2, 1, 2, 1))[None], weight.flip(2, 3))[0]
        x = filtered(x, 4 * BINOMIAL, 1, 1)
    else:
        x = F.conv2d(x[None], weight, padding=1)[0]
    if noise:
        x = x + state[f"{name}.noise_const"] * state[f"{name}.noise_strength"]
    return clamped(rectified(x + state[f"{name}.bias"][:, None, None]), limit)


def reference_colours(state, name, x, w, limit):
    style = state[f"{name}.affine.weight"] @ w / math.sqrt(len(w)) + state[f"{name}.affine.bias"]
    weight = state[f"{name}.weight"] * (style / math.sqrt(len(style)))[None, :, None, None]
    return clamped(F.conv2d(x[None], weight)[0] + state[f"{name}.bias"][:, None, None], limit)


def reference_synthesis(state, ws, size, noise=True, limit=None):
    """One image from slots x styles."""
    x, image, slot, resolution = state["synthesis.b4.const"], None, 0, 4
    while resolution <= size:
        block = f"synthesis.b{resolution}"
        if resolution > 4:
            x = reference_layer(state, f"{block}.conv0", x, ws[slot], True, noise, limit)
            slot += 1
        x = reference_layer(state, f"{block}.conv1", x, ws[slot], False, noise, limit)
        slot += 1
        colours = reference_colours(state, f"{block}.torgb", x, ws[slot], limit)
        image = colours if image is None else filtered(zeros_between(image), 4 * BINOMIAL, 2, 1) + colours
        resolution *= 2
    return image


def reference_critic(state, images, size, group, limit):
    def convolved(x, name, gain=1.0):
        weight = state[f"{name}.weight"]
        weight = weight / math.sqrt(weight[0].numel())
        y = F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)
        return clamped(rectified(y) * gain, None if limit is None else limit * gain)

    x = convolved(images, f"b{size}.fromrgb")
    while size > 4:
        name = f"b{size}"
        skip, second = state[f"{name}.skip.weight"], state[f"{name}.conv1.weight"]
        small = torch.stack([filtered(one, BINOMIAL, 1, 1)[:, ::2, ::2] for one in x])
        around = F.conv2d(small, skip / math.sqrt(skip.shape[1])) * math.sqrt(0.5)
        x = torch.stack([filtered(one, BINOMIAL, 2, 2) for one in convolved(x, f"{name}.conv0")])
        x = F.conv2d(x, second / math.sqrt(second[0].numel()), state[f"{name}.conv1.bias"], stride=2)
        x = clamped(rectified(x) * math.sqrt(0.5), None if limit is None else limit * math.sqrt(0.5)) + around
        size //= 2
    spread = x.new_zeros(len(x), 1, 4, 4)
    step = len(x) // group
    for first in range(step):  # a group is every step-th image
        members = x[first::step]
        spread[first::step] = (members.var(0, unbiased=False) + 1e-8).sqrt().mean()
    x = convolved(torch.cat([x, spread], 1), "b4.conv").flatten(1)
    x = rectified(x @ state["b4.fc.weight"].t() / math.sqrt(x.shape[1]) + state["b4.fc.bias"])
    return (x @ state["b4.out.weight"].t() / math.sqrt(x.shape[1]) + state["b4.out.bias"])[:, 0]


def double(net):
    return {name: value.double() for name, value in net.state_dict().items()}


@pytest.mark.parametrize(("size", "clamp", "noise"), [(8, None, "const"), (32, None, "const"), (16, 0.8, "none")])
def test_generator_equals_the_equations(size, clamp, noise):
    net = small(size, clamp)
    state, z = double(net), torch.randn(3, SMALL["latents"], generator=rng(1))
    w = net.mapping(z)
    expected = torch.stack([reference_mapping(state, one.double(), SMALL["depth"]) for one in z])
    torch.testing.assert_close(w.double(), expected, rtol=1e-5, atol=1e-6)
    ws = torch.randn(3, net.synthesis.slots, SMALL["styles"], generator=rng(2))
    for styles in (w, ws):
        slots = styles if styles.dim() == 3 else styles[:, None].expand(-1, net.synthesis.slots, -1)
        images = net.synthesis(styles, noise)
        expected = [reference_synthesis(state, one.double(), size, noise == "const", clamp) for one in slots]
        torch.testing.assert_close(images.double(), torch.stack(expected), rtol=1e-4, atol=1e-5)
    assert images.std() > 0.1
    if clamp:
        assert (net.synthesis(w, noise) != small(size).synthesis(w, noise)).any()


@pytest.mark.parametrize(("size", "clamp"), [(8, None), (32, None), (16, 0.5)])
def test_discriminator_equals_the_equations(size, clamp):
    net, images = small_critic(size, clamp), torch.randn(8, 3, size, size, generator=rng())
    for count, group in ((8, 4), (4, 4), (3, 3), (1, 1)):
        expected = reference_critic(double(net), images[:count].double(), size, group, clamp)
        torch.testing.assert_close(net(images[:count]).double(), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="6 images do not divide into groups of 4"):
        net(images[:6])


def test_gradients_equal_those_of_the_equations():
    net = small(16)
    state, w = double(net), net.mapping(torch.randn(1, SMALL["latents"], generator=rng(1))).detach()
    probe = torch.randn(3, 16, 16, generator=rng(3))
    mine, theirs = w.clone().requires_grad_(), w[0].double().requires_grad_()
    (net.synthesis(mine)[0] * probe).sum().backward()
    (reference_synthesis(state, theirs.expand(net.synthesis.slots, -1), 16) * probe).sum().backward()
    assert mine.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(mine.grad[0].double(), theirs.grad, rtol=1e-4, atol=1e-5)


def test_second_derivatives_for_path_lengths():
    net = small(8, styles=3, widest=2).double()
    w = torch.randn(1, 3, generator=rng(), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda w: net.synthesis(w).square(), w, atol=1e-4, fast_mode=True)


# Published numbers


def test_published_parameter_counts_and_shapes():
    with torch.device("meta"):
        generator, critic = Generator(), Discriminator()
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in generator.synthesis.named_children()}
    assert count["b4"] == 2_894_852
    assert {count[f"b{size}"] for size in (8, 16, 32, 64)} == {5_509_125}
    assert [count[f"b{size}"] for size in (128, 256, 512, 1024)] == [2_296_069, 705_669, 242_245, 93_477]
    assert sum(p.numel() for p in generator.mapping.parameters()) == 2_101_248
    assert sum(p.numel() for p in generator.parameters()) == 30_370_060
    assert sum(p.numel() for p in critic.parameters()) == 29_012_513
    assert generator.synthesis.slots == 18
    shapes = {name: tuple(value.shape) for name, value in generator.state_dict().items()}
    assert shapes["mapping.w_avg"] == (512,)
    assert shapes["mapping.fc7.weight"] == (512, 512)
    assert shapes["synthesis.b4.const"] == (512, 4, 4)
    assert "synthesis.b4.conv0.weight" not in shapes
    assert shapes["synthesis.b4.conv1.noise_const"] == (4, 4)
    assert shapes["synthesis.b128.conv0.weight"] == (256, 512, 3, 3)
    assert shapes["synthesis.b128.conv0.affine.weight"] == (512, 512)
    assert shapes["synthesis.b1024.conv1.affine.weight"] == (32, 512)
    assert shapes["synthesis.b1024.conv1.noise_strength"] == ()
    assert shapes["synthesis.b1024.torgb.weight"] == (3, 32, 1, 1)
    assert shapes["synthesis.b64.resample_filter"] == (4, 4)
    shapes = {name: tuple(value.shape) for name, value in critic.state_dict().items()}
    assert shapes["b1024.fromrgb.weight"] == (32, 3, 1, 1)
    assert "b512.fromrgb.weight" not in shapes
    assert shapes["b1024.skip.weight"] == (64, 32, 1, 1)
    assert "b1024.skip.bias" not in shapes
    assert shapes["b4.conv.weight"] == (512, 513, 3, 3)
    assert shapes["b4.fc.weight"] == (512, 8192)
    assert shapes["b4.out.weight"] == (1, 512)


@pytest.mark.parametrize(("size", "slots"), [(256, 14), (512, 16)])
def test_slots(size, slots):
    with torch.device("meta"):
        assert Generator(size, base=16384).synthesis.slots == slots


# Crops


@pytest.mark.parametrize(
    ("size", "crop"),
    [(8, (0, 3)), (16, (5, 6)), (32, (4, 28)), (32, (0, 32)), (32, (31, 32)), (64, (7, 50)), (64, (20, 43))],
)
def test_a_crop_is_the_crop_of_the_whole(size, crop):
    net = small(size)
    window = slice(*crop)
    w = net.mapping(torch.randn(2, SMALL["latents"], generator=rng(1))).detach().requires_grad_()
    whole, part = net.synthesis(w)[..., window, window], net.synthesis(w, crop=window)
    torch.testing.assert_close(part, whole, rtol=1e-5, atol=1e-5)
    probe = torch.randn(part.shape, generator=rng(2))
    (expected,) = torch.autograd.grad((whole * probe).sum(), w)
    (found,) = torch.autograd.grad((part * probe).sum(), w)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_crop_computes_less():
    prepared = small(64).synthesis.prepare(crop=slice(7, 57))
    maps = [step.noise.shape[-1] for step in prepared.steps if step.noise is not None]
    assert maps == [4, 8, 8, 16, 16, 30, 28, 52, 50]
    prepared = small(64).synthesis.prepare(crop=slice(24, 40))
    maps = [step.noise.shape[-1] for step in prepared.steps if step.noise is not None]
    assert maps[-4:] == [14, 12, 18, 16]


# Noise, layouts, precision


def test_fresh_noise_comes_from_its_generator():
    net = small(16)
    w = net.mapping(torch.randn(2, SMALL["latents"], generator=rng()))
    first, again, other = (net.synthesis(w, rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    twins = net.synthesis(w[:1].expand(2, -1), rng())
    assert not torch.allclose(twins[0], twins[1])
    assert not torch.allclose(net.synthesis(w, "const"), net.synthesis(w, "none"))
    window = slice(3, 9)
    torch.testing.assert_close(net.synthesis(w, rng(), window), first[..., window, window], rtol=1e-5, atol=1e-5)


def test_memory_format_and_autocast_change_little():
    net = small(32)
    w = net.mapping(torch.randn(2, SMALL["latents"], generator=rng())).detach()
    expected = net.synthesis(w)
    turned = net.synthesis.prepare(memory_format=torch.channels_last)
    torch.testing.assert_close(synthesise(turned, w), expected, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        rough = net.synthesis(w)
    assert rough.dtype == torch.float32  # the colours of all layers are summed in the precision of the styles
    assert (rough - expected).square().mean().sqrt() < 0.03 * expected.std()


@pytest.mark.parametrize("crop", [(0, 32), (4, 28), (31, 32)])
def test_blurs_folded_into_the_weights_change_nothing(crop):
    """The form for graphics cards: no depthwise convolution is left, the same images, the same gradients."""
    net = small(32).double()
    w = net.mapping(torch.randn(2, SMALL["latents"], generator=rng(), dtype=torch.float64)).detach().requires_grad_()
    merged = net.synthesis.prepare(crop=slice(*crop), merged=True)
    assert all(step.blur is None or step.blur.shape == (3, 3, 4, 4) for step in merged.steps)
    expected, found = net.synthesis(w, crop=slice(*crop)), synthesise(merged, w)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    probe = torch.randn(found.shape, generator=rng(2), dtype=torch.float64)
    gradients = [torch.autograd.grad((images * probe).sum(), w, retain_graph=True)[0] for images in (expected, found)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


def test_training_reaches_every_parameter():
    net, critic = small(16).train(), small_critic(16).train()
    critic(net(torch.randn(4, SMALL["latents"], generator=rng()), rng(1))).sum().backward()
    for part in (net, critic):
        for name, parameter in part.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
    before = net.mapping.w_avg.clone()
    w = torch.ones(2, SMALL["styles"])
    net.mapping.track(w, beta=0.75)
    torch.testing.assert_close(net.mapping.w_avg, 0.75 * before + 0.25)


# The prior


def test_truncation():
    whole, none = (small_prior(psi=psi).sample(4, rng()) for psi in (1.0, 0.0))
    net = small()
    z = torch.randn(4, SMALL["latents"], generator=rng())
    torch.testing.assert_close(whole, net.mapping(z))
    torch.testing.assert_close(none, net.mapping.w_avg.expand(4, -1))
    half = small_prior().sample(4, rng())
    torch.testing.assert_close(half, (whole + none) / 2)
    mixed = small_prior(space="w+", cutoff=3).sample(4, rng()).unflatten(1, (8, -1))
    torch.testing.assert_close(mixed[:, :3], half[:, None].expand(-1, 3, -1))
    torch.testing.assert_close(mixed[:, 3:], whole[:, None].expand(-1, 5, -1))


def test_w_plus_with_equal_styles_is_w():
    one, many = small_prior(), small_prior(space="w+")
    assert many.latents == 8 * one.latents
    latents = one.sample(2, rng())
    assert torch.equal(many.sample(2, rng()), latents.repeat(1, 8))
    torch.testing.assert_close(many.decode(latents.repeat(1, 8)), one.decode(latents))


def test_truncation_can_be_undone():
    """Latents of W truncated in the first slots only are what W+ samples with a cutoff, and decode to its images."""
    prior, wide = small_prior(), small_prior(space="w+", cutoff=3)
    mixed = prior.untruncated(prior.sample(4, rng()), 3)
    torch.testing.assert_close(mixed, wide.sample(4, rng()), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(prior.decode(mixed), wide.decode(wide.sample(4, rng())), rtol=1e-3, atol=1e-4)
    for other, cutoff in ((wide, 3), (small_prior(psi=0.0), 3), (prior, 9)):
        with pytest.raises(UserError, match="undoing truncation"):
            other.untruncated(torch.zeros(1, other.latents), cutoff)


def test_bfloat16_is_near_and_not_kept():
    latents = small_prior().sample(2, rng()).requires_grad_()
    exact, quick = small_prior(), small_prior(precision="bfloat16")
    images = [prior.decode(latents) for prior in (exact, quick)]
    slopes = [torch.autograd.grad(image.square().sum(), latents)[0] for image in images]
    assert images[1].dtype == torch.float32
    assert 0 < (images[1] - images[0]).abs().max() < 0.05
    assert (slopes[1] - slopes[0]).norm() < 0.05 * slopes[0].norm()
    assert "precision" not in quick.settings()


def test_images_may_overshoot():
    latents = 3 * small_prior().sample(2, rng())
    free = small_prior(clip=False).decode(latents)
    assert free.min() < 0
    torch.testing.assert_close(free.clamp(0, 1), small_prior().decode(latents))


@pytest.mark.parametrize("crop", [20, 21, 32])
def test_the_centre_is_kept(crop):
    latents = small_prior().sample(2, rng())
    start = round((32 - crop) / 2)
    whole = small_prior().decode(latents)[..., start : start + crop, start : start + crop]
    prior = small_prior(crop=crop)
    assert prior.size == crop
    torch.testing.assert_close(prior.decode(latents), whole)
    torch.testing.assert_close(prior.decode(latents), (small().synthesis(latents) / 2 + 0.5).clamp(0, 1)[
        ..., start : start + crop, start : start + crop
    ])  # fmt: skip


def test_realism_is_the_lone_score():
    prior = small_prior()
    images = prior.decode(prior.sample(3, rng()))
    alone = [reference_critic(double(prior.critic), one[None].double() * 2 - 1, 32, 1, None) for one in images]
    torch.testing.assert_close(prior.realism(images).double(), torch.cat(alone), rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match="3 x 32 x 32, not"):
        small_prior(crop=20).realism(images[..., :20, :20])
    with pytest.raises(UserError, match="has no discriminator"):
        StyleGAN2Prior(small()).realism(images)


@pytest.mark.parametrize(
    "settings", [{}, {"space": "w+", "cutoff": 2, "psi": 0.7}, {"crop": 20, "noise": "none", "clip": False}]
)
def test_settings_survive_saving(settings, tmp_path):
    prior = small_prior(**settings)
    save(prior, tmp_path)
    again = load(tmp_path)
    assert isinstance(again, StyleGAN2Prior)
    assert again.settings() == prior.settings()
    latents = prior.sample(2, rng())
    assert torch.equal(again.sample(2, rng()), latents)
    assert torch.equal(again.decode(latents), prior.decode(latents))
    lone = StyleGAN2Prior(small())
    save(lone, tmp_path / "lone")
    assert load(tmp_path / "lone").settings() == lone.settings()  # pyright: ignore[reportAttributeAccessIssue]


def test_impossible_settings_are_all_named():
    with pytest.raises(UserError, match=r"depth must be a whole number from 1 to 32, not 0; latents .* not 2.5"):
        Generator(32, latents=2.5, depth=0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match=r"size must be one of 8, 16, .* not 48"):
        Generator(48)
    with pytest.raises(UserError, match="base must be at least the size"):
        Discriminator(64, base=32)
    with pytest.raises(UserError, match="clamp must be above 0"):
        Discriminator(clamp=-1.0)
    for settings, told in (
        ({"space": "z"}, "space must be w or w"),
        ({"noise": "random"}, "noise must be const or none"),
        ({"precision": "float16"}, "precision must be float32 or bfloat16"),
        ({"psi": 1.5, "crop": 99}, "psi must be from 0 to 1, not 1.5; crop must be from 1 to 32, not 99"),
        ({"cutoff": 3}, "cutoff needs space w+"),
    ):
        with pytest.raises(UserError, match=told.replace("+", r"\+")):
            small_prior(**settings)
    with pytest.raises(UserError, match="differ in size: 32 and 16"):
        StyleGAN2Prior(small(32), small_critic(16))
