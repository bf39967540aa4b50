"""MIDRE: a square of every training image is erased, so that the network never sees a whole face.

Tran et al. (TMLR 2025, arXiv 2409.01062).

    of each image, after all other augmentation:
    1. a share of the area, drawn uniformly from [least, most], makes the side of a square
    2. that square, anywhere in the image, becomes one even grey

Deviations from the published code: none that changes a picture. There the square is filled with ImageNet's mean in
images that were normalised to [-1, 1], which is the grey (0.7425, 0.728, 0.703) here.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightleak.errors import UserError
from lightleak.training.plan import Plan
from lightleak.training.recipes import Recipe

GREY = (0.7425, 0.728, 0.703)


@dataclass(frozen=True)
class MIDRE:
    """Model Inversion Defence by Random Erasing."""

    least: float = 0.1  # share of the area that is erased
    most: float = 0.4  # the paper's other setting is 0.8
    fill: tuple[float, float, float] = GREY  # of pixels in [0, 1]
    title: ClassVar[str] = "MIDRE"

    def __post_init__(self) -> None:
        if not 0 < self.least <= self.most < 1:
            raise UserError(f"MIDRE erases shares 0 < least <= most < 1 of the area, not {self.least} and {self.most}")

    def plan(self, recipe: Recipe) -> Plan:  # noqa: ARG002
        return Plan(views=(self.erased,))

    def erased(self, images: Tensor) -> Tensor:
        """Images N x 3 x H x W with a square of each filled; what is drawn is drawn from the global generator."""
        return erase(images, torch.rand(len(images), 3), self.least, self.most, self.fill)


def erase(images: Tensor, draws: Tensor, least: float, most: float, fill: tuple[float, ...] = GREY) -> Tensor:
    """Images N x 3 x H x W with a square filled whose area and place `draws` (N x 3 in [0, 1)) choose."""
    height, width = images.shape[-2:]
    draws = draws.to(images.device)
    side = square(least + (most - least) * draws[:, 0], height, width)
    top = (draws[:, 1] * (height - side + 1)).floor()
    left = (draws[:, 2] * (width - side + 1)).floor()
    y, x = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    down = (y >= top[:, None]) & (y < (top + side)[:, None])
    across = (x >= left[:, None]) & (x < (left + side)[:, None])
    gone = (down[:, None, :, None] & across[:, None, None, :]).expand(-1, images.shape[1], -1, -1)
    return torch.where(gone, images.new_tensor(fill).view(1, -1, 1, 1), images)


def square(area: Tensor, height: int, width: int) -> Tensor:
    """The side in whole pixels of a square of such shares of the area, N, no longer than the image's shorter side."""
    return (area * height * width).sqrt().round().clamp(min=1, max=min(height, width))
