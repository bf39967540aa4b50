"""PLG-MI's random augmentation: crop, colour, mirror and rotation, each image by its own draws, differentiable.

Yuan et al. (AAAI 2023) put images through it before they show them to the target, with the exact meaning of kornia
0.6.6. It differs from a `View` in all its parts: crops have whole pixels and align corners, colours are clamped after
every change, and images turn.

Deviations: whether brightness or contrast comes first is drawn for each image (published: for a batch), and a crop that
would be the whole image is never drawn (published: drawn again up to ten times). Saturation and hue, which run with
neutral values there, are left out.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lightleak.data.views import sampled

DRAWS = 10  # uniform numbers that one augmentation consumes: side, left, top, colours and order, flip, and whether


@dataclass(frozen=True)
class Augmentation:
    """What may happen to an image; the defaults are those of PLG-MI's inversion."""

    scale: tuple[float, float] = (0.8, 1.0)  # share of the area that a crop keeps
    brightness: float = 0.2  # factors are drawn from [1 - x, 1 + x]
    contrast: float = 0.2
    colour: float = 1.0  # probability that brightness and contrast change at all
    flip: float = 0.5
    degrees: float = 5.0  # rotations are drawn from [-x, x]
    turn: float = 0.5  # probability of a rotation

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Images N x 3 x S x S augmented by draws N x DRAWS in [0, 1); same shape, in [0, 1] where colours change."""
        draws = draws.to(images)
        left, top, side = self.boxes(draws, images.shape[-1])
        seen = _crop(images, left, top, side, draws[:, 6] < self.flip)
        if self.colour > 0:
            changed = _recolour(seen, draws[:, 3:6], self.brightness, self.contrast)
            seen = torch.where(_columns(draws[:, 7] < self.colour), changed, seen)
        if self.turn > 0 and self.degrees > 0:
            angle = (2 * draws[:, 9] - 1) * math.radians(self.degrees)
            seen = torch.where(_columns(draws[:, 8] < self.turn), _turn(seen, angle), seen)
        return seen

    def boxes(self, draws: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Left, top and side of the crops in whole pixels, N each; the side is below `size`."""
        low, high = self.scale
        high = min(high, ((size - 0.5) / size) ** 2)
        side = (size * (low + (high - low) * draws[:, 0]).sqrt()).round().clamp(max=size - 1)
        left, top = ((draws[:, column] * (size - side + 1)).floor() for column in (1, 2))
        return left, top, side


STAGE1 = Augmentation(colour=0.5)  # while the prior is trained, colours change in half of the images


def _columns(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _crop(images: Tensor, left: Tensor, top: Tensor, side: Tensor, mirror: Tensor) -> Tensor:
    """Boxes in whole pixels, resampled bilinearly with aligned corners to the size of the whole, and mirrored."""
    span = images.shape[-1] - 1
    sign = torch.where(mirror, -1.0, 1.0).to(images)
    share, zero = (side - 1) / span, torch.zeros_like(side)
    across = torch.stack([share * sign, zero, 2 * left / span + share - 1], 1)
    down = torch.stack([zero, share, 2 * top / span + share - 1], 1)
    grid = F.affine_grid(torch.stack([across, down], 1), list(images.shape), align_corners=True)
    return sampled(images, grid, align_corners=True)


def _recolour(images: Tensor, draws: Tensor, brightness: float, contrast: float) -> Tensor:
    """Brightness and contrast in an order of each image's own; both clamp to [0, 1]."""
    light, strength = (
        _columns(1 + reach * (2 * draws[:, column] - 1)) for column, reach in ((0, brightness), (1, contrast))
    )
    weights = images.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)

    def brighter(x: Tensor) -> Tensor:
        return (x * light).clamp(0, 1)

    def steeper(x: Tensor) -> Tensor:
        middle = (x * weights).sum(1, keepdim=True).mean((2, 3), keepdim=True)
        return torch.lerp(middle, x, strength).clamp(0, 1)

    first = _columns(draws[:, 2] < 0.5)
    once = torch.where(first, brighter(images), steeper(images))
    return torch.where(first, steeper(once), brighter(once))


def _turn(images: Tensor, angle: Tensor) -> Tensor:
    """Images rotated about their centres (radians, N), zero where nothing was."""
    zero = torch.zeros_like(angle)
    across = torch.stack([angle.cos(), -angle.sin(), zero], 1)
    down = torch.stack([angle.sin(), angle.cos(), zero], 1)
    grid = F.affine_grid(torch.stack([across, down], 1), list(images.shape), align_corners=True)
    return sampled(images, grid, "zeros", align_corners=True)
