"""PLG-MI's networks: published names, shapes and counts, and layers against plain second implementations."""

import pytest
import torch
from torch.nn import functional as F

from lightleak.errors import UserError
from lightleak.priors.conditional64 import (
    ClassNorm,
    ConditionalGenerator,
    ConditionalPrior,
    DownBlock,
    ProjectionDiscriminator,
    SpectralConv,
    SpectralEmbedding,
    UpBlock,
    from_images,
    to_images,
)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_published_names_shapes_and_counts():
    generator, discriminator = ConditionalGenerator(), ProjectionDiscriminator()
    shapes = {name: tuple(value.shape) for name, value in generator.state_dict().items()}
    assert len(shapes) == 73
    assert sum(p.numel() for p in generator.parameters()) == 17_973_379
    assert shapes["l1.weight"] == (16384, 128)
    assert shapes["block2.b1.weights.weight"] == (1000, 1024)
    assert shapes["block2.c1.weight"] == (512, 1024, 3, 3)
    assert shapes["block2.c_sc.weight"] == (512, 1024, 1, 1)
    assert shapes["block5.b2.biases.weight"] == (1000, 64)
    assert shapes["b6.running_var"] == (64,)
    assert shapes["conv6.weight"] == (3, 64, 1, 1)
    shapes = {name: tuple(value.shape) for name, value in discriminator.state_dict().items()}
    assert len(shapes) == 67
    assert sum(p.numel() for p in discriminator.parameters()) == 11_165_441
    assert shapes["block1.c1.weight_orig"] == (64, 3, 3, 3)
    assert shapes["block1.c1.weight_u"] == (64,)
    assert shapes["block5.c1.weight_orig"] == (512, 512, 3, 3)
    assert shapes["block5.c2.weight_v"] == (512 * 9,)
    assert shapes["l6.weight_orig"] == (1, 1024)
    assert shapes["l_y.weight_orig"] == (1000, 1024)
    assert "l_y.bias" not in shapes


@pytest.mark.parametrize("size", [8, 16, 32, 128])
def test_sizes(size):
    generator, discriminator = ConditionalGenerator(size, 2, 3, classes=4), ProjectionDiscriminator(size, 2, classes=4)
    made = generator(torch.randn(2, 3, generator=rng()), torch.tensor([0, 3]))
    assert made.shape == (2, 3, size, size)
    assert discriminator(made, torch.tensor([0, 3])).shape == (2,)


def test_class_norm_by_hand():
    norm = ClassNorm(2, 3)
    with torch.no_grad():
        norm.weights.weight.copy_(torch.tensor([[1.0, 2], [3, 4], [5, 6]]))
        norm.biases.weight.copy_(torch.tensor([[0.0, 1], [2, 3], [4, 5]]))
    maps, classes = torch.randn(4, 2, 3, 3, generator=rng()), torch.tensor([2, 0, 1, 1])
    plain = (maps - maps.mean((0, 2, 3), keepdim=True)) / (
        maps.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5
    ) ** 0.5
    expected = plain * norm.weights.weight[classes][:, :, None, None] + norm.biases.weight[classes][:, :, None, None]
    torch.testing.assert_close(norm(maps, classes), expected, atol=1e-5, rtol=1e-5)


def test_blocks_are_the_published_ones():
    """The published order: enlarge, then the 1 x 1 convolution; and the 1 x 1 convolution, then pool."""
    up, maps, classes = UpBlock(6, 3, 2).eval(), torch.randn(2, 6, 4, 4, generator=rng()), torch.tensor([0, 1])

    def doubled(x):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    main = up.c2(F.relu(up.b2(up.c1(doubled(F.relu(up.b1(maps, classes)))), classes)))
    torch.testing.assert_close(up(maps, classes), main + up.c_sc(doubled(maps)), atol=1e-5, rtol=1e-5)
    for first in (True, False):
        down = DownBlock(6, 8, first).eval()
        main = down.c2(F.relu(down.c1(maps if first else F.relu(maps))))
        expected = F.avg_pool2d(main, 2) + F.avg_pool2d(down.c_sc(maps), 2)
        torch.testing.assert_close(down(maps), expected, atol=1e-5, rtol=1e-5)


def test_spectral_norm_is_the_largest_singular_value():
    layer = SpectralConv(5, 7, 3)
    for _ in range(200):
        layer.follow()
    torch.testing.assert_close(torch.linalg.matrix_norm(layer.eval().weight.flatten(1), 2), torch.tensor(1.0))
    table = SpectralEmbedding(4, 6)
    for _ in range(200):
        table.follow()
    largest = torch.linalg.matrix_norm(table.weight_orig, 2)
    torch.testing.assert_close(table.eval()(torch.tensor([2])), table.weight_orig[None, 2] / largest)


def test_spectral_norm_is_pytorchs():
    """One training pass and its gradient, beside PyTorch's own hook with the same vectors."""
    ours, plain = SpectralConv(3, 4, 3, gain=2**0.5), torch.nn.Conv2d(3, 4, 3, padding=1)
    theirs = torch.nn.utils.spectral_norm(plain)
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 5, 5, generator=rng())
    first, second = ours.train()(images), theirs.train()(images)
    torch.testing.assert_close(first, second)
    first.square().sum().backward()
    second.square().sum().backward()
    torch.testing.assert_close(ours.weight_orig.grad, theirs.weight_orig.grad)
    torch.testing.assert_close(ours.weight_u, theirs.weight_u)


def test_eval_mode_changes_nothing():
    discriminator = ProjectionDiscriminator(16, 2, classes=3).eval()
    before = {name: value.clone() for name, value in discriminator.state_dict().items()}
    discriminator(torch.randn(2, 3, 16, 16, generator=rng()), torch.tensor([0, 2]))
    assert all(torch.equal(before[name], value) for name, value in discriminator.state_dict().items())


def test_projection_adds_the_classs_own_direction():
    discriminator = ProjectionDiscriminator(16, 2, classes=3).eval()
    images = torch.randn(4, 3, 16, 16, generator=rng())
    maps = images
    for number in range(1, 4):
        maps = discriminator.get_submodule(f"block{number}")(maps)
    seen = F.relu(maps).sum((2, 3))
    for label in range(3):
        classes = torch.full((4,), label)
        expected = discriminator.get_submodule("l4")(seen).flatten() + seen @ discriminator.l_y.weight[label]
        torch.testing.assert_close(discriminator(images, classes), expected, atol=1e-4, rtol=1e-4)


def test_ranges():
    made = torch.tensor([-1.0, -0.25, 0.0, 0.5, 1.0])
    assert to_images(made, "signed").tolist() == [0, 0.375, 0.5, 0.75, 1]
    assert to_images(made, "unit").tolist() == [0, 0, 0, 0.5, 1]
    torch.testing.assert_close(from_images(to_images(made, "signed"), "signed"), made)


def test_a_prior_of_classes_says_what_it_needs():
    generator, discriminator = ConditionalGenerator(8, 1, 3, classes=4), ProjectionDiscriminator(8, 1, classes=4)
    prior = ConditionalPrior(generator, discriminator)
    latents = prior.sample(2, rng())
    with pytest.raises(UserError, match=r"given classes; pass decode\(latents, classes\)"):
        prior.decode(latents)
    with pytest.raises(UserError, match="draws classes 0 to 3, not 1 to 4; it was made for another target"):
        prior.decode(latents, torch.tensor([1, 4]))
    with pytest.raises(UserError, match="differ in classes: 4 and 5"):
        ConditionalPrior(generator, ProjectionDiscriminator(8, 1, classes=5))
    with pytest.raises(UserError, match="signed, unit, not 'bytes'"):
        ConditionalPrior(generator, discriminator, "bytes")  # pyright: ignore[reportArgumentType]
