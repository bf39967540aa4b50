"""PLG-MI's augmentation against the same operations one image at a time."""

import math

import pytest
import torch
from torch.nn import functional as F

from lightleak.data.augmentation import DRAWS, STAGE1, Augmentation


def drawn(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, 16, 16, generator=rng), torch.rand(count, DRAWS, generator=rng)


def slowly(setting: Augmentation, image: torch.Tensor, draws: list[float]) -> torch.Tensor:
    """One image, in plain steps: slice and resize, colours, mirror, and a rotation pixel by pixel."""
    size = image.shape[-1]
    top_share = ((size - 0.5) / size) ** 2
    side = round(size * math.sqrt(setting.scale[0] + (min(setting.scale[1], top_share) - setting.scale[0]) * draws[0]))
    left, top = int(draws[1] * (size - side + 1)), int(draws[2] * (size - side + 1))
    piece = image[None, :, top : top + side, left : left + side]
    image = F.interpolate(piece, (size, size), mode="bilinear", align_corners=True)[0]
    if draws[7] < setting.colour:
        light = 1 + setting.brightness * (2 * draws[3] - 1)
        strength = 1 + setting.contrast * (2 * draws[4] - 1)

        def contrast(x):
            grey = (0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2]).mean()
            return (strength * x + (1 - strength) * grey).clamp(0, 1)

        if draws[5] < 0.5:
            image = contrast((image * light).clamp(0, 1))
        else:
            image = (contrast(image) * light).clamp(0, 1)
    if draws[6] < setting.flip:
        image = image.flip(2)
    if draws[8] < setting.turn:
        angle = math.radians(setting.degrees) * (2 * draws[9] - 1)
        middle, turned = (size - 1) / 2, torch.zeros_like(image)
        for row in range(size):
            for column in range(size):
                x = math.cos(angle) * (column - middle) - math.sin(angle) * (row - middle) + middle
                y = math.sin(angle) * (column - middle) + math.cos(angle) * (row - middle) + middle
                for i in (math.floor(y), math.floor(y) + 1):
                    for j in (math.floor(x), math.floor(x) + 1):
                        if 0 <= i < size and 0 <= j < size:
                            turned[:, row, column] += image[:, i, j] * (1 - abs(y - i)) * (1 - abs(x - j))
        image = turned
    return image


@pytest.mark.parametrize("setting", [Augmentation(), STAGE1, Augmentation(degrees=40, turn=1.0, flip=1.0)])
def test_it_is_what_plain_steps_do(setting):
    images, draws = drawn(12)
    seen = setting(images, draws)
    for image, row, found in zip(images, draws.tolist(), seen, strict=True):
        torch.testing.assert_close(found, slowly(setting, image, row), atol=2e-5, rtol=0)


def test_each_image_has_its_own_draws():
    images, draws = drawn(6)
    whole = Augmentation()(images, draws)
    for index in range(6):
        torch.testing.assert_close(Augmentation()(images[index, None], draws[index, None])[0], whole[index])


def test_sides_are_whole_and_never_the_whole():
    draws = torch.rand(4000, DRAWS, generator=torch.Generator().manual_seed(1))
    left, top, side = Augmentation().boxes(draws, 64)
    assert torch.equal(side, side.round())
    assert side.min() == round(64 * 0.8**0.5)
    assert side.max() == 63
    assert (left + side).max() == 64  # both edges are reached
    assert left.min() == top.min() == 0


def test_gradients_stop_only_at_the_clamps():
    images, draws = drawn(4)
    images.requires_grad_()
    (slope,) = torch.autograd.grad(Augmentation(colour=0.0, turn=0.0)(images, draws).sum(), images)
    assert slope.sum().item() == pytest.approx(4 * 3 * 16 * 16, rel=1e-4)  # every output pixel weighs one
    below = (images.detach() - 2).requires_grad_()
    (slope,) = torch.autograd.grad(Augmentation()(below, draws).sum(), below)
    assert slope.abs().max() == 0
