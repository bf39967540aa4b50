"""Random views of images: crops, flips and colour, one draw per image, differentiable, from numbers that are passed in.

Training augments with them and attacks look through them. Every view is a function of uniform numbers in [0, 1), one
row per image, so that what an image gets depends on its own row alone and never on the batch it came in.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lightleak.errors import refuse
from lightleak.place import PROCESSOR, Place

Padding = Literal["border", "zeros"]  # what is read beside an image
DRAWS = 9  # uniform numbers that one view consumes: side, ratio, left, top, flip, and four of colour


@dataclass(frozen=True)
class View:
    """The changes that a random view may make; the defaults change nothing."""

    scale: tuple[float, float] = (1.0, 1.0)  # share of the area that a crop keeps
    ratio: tuple[float, float] = (1.0, 1.0)  # width over height of the crop, drawn log-uniformly
    flip: float = 0.0  # probability of a horizontal mirror
    brightness: float = 0.0  # factors are drawn from [1 - x, 1 + x]
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0  # rotation of the colour circle, in turns, from [-x, x]

    def __post_init__(self) -> None:
        wrong = []
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            wrong.append(f"scale is from a share of the area up to a larger one, in (0, 1], not {self.scale}")
        if not 0 < self.ratio[0] <= self.ratio[1] < math.inf:
            wrong.append(f"ratio is from a width over height up to a larger one, above 0, not {self.ratio}")
        if not 0 <= self.flip <= 1:
            wrong.append(f"flip is a probability, not {self.flip}")
        reaches = {name: getattr(self, name) for name in ("brightness", "contrast", "saturation", "hue")}
        wrong += [f"{name} must be at least 0, not {reach}" for name, reach in reaches.items() if not reach >= 0]
        refuse(wrong)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Views of images (N x 3 x H x W in [0, 1]) chosen by draws (N x DRAWS in [0, 1)); same shape, in [0, 1]."""
        seen = crop(images, *self.boxes(draws)) if self.moves else images
        return recolour(seen, draws[:, 5:], self) if self.colours else seen

    @property
    def moves(self) -> bool:
        """Whether any view can differ from the image in position or size."""
        return self.scale != (1.0, 1.0) or self.ratio != (1.0, 1.0) or self.flip > 0

    @property
    def colours(self) -> bool:
        """Whether any view can differ from the image in colour."""
        return max(self.brightness, self.contrast, self.saturation, self.hue) > 0

    def boxes(self, draws: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Left, top, width, height of the crops as shares of the image, and whether each is mirrored; N each."""
        area = self.scale[0] + (self.scale[1] - self.scale[0]) * draws[:, 0]
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        ratio = torch.exp(low + (high - low) * draws[:, 1])
        width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
        return draws[:, 2] * (1 - width), draws[:, 3] * (1 - height), width, height, draws[:, 4] < self.flip


def crop(
    images: Tensor,
    left: Tensor,
    top: Tensor,
    width: Tensor,
    height: Tensor,
    mirror: Tensor,
    angle: Tensor | None = None,
) -> Tensor:
    """The box of each image, resampled bilinearly to the size of the whole; boxes are shares of the image, N each.

    `angle`, in radians, turns what was cropped about its middle.
    """
    sign = torch.where(mirror, -1.0, 1.0)
    if angle is None and images.device.type != "cpu":
        down, across = crop_matrices(images.shape[-1], left, top, width, height, sign)
        return resampled(images, down.to(images), across.to(images))
    angle = torch.zeros_like(left) if angle is None else angle
    cosine, sine = angle.cos(), angle.sin()
    maps = torch.stack(
        [
            torch.stack([width * sign * cosine, -width * sign * sine, 2 * left + width - 1], 1),
            torch.stack([height * sine, height * cosine, 2 * top + height - 1], 1),
        ],
        1,
    ).to(images)
    return sampled(images, F.affine_grid(maps, list(images.shape), align_corners=False), align_corners=False)


def resized(images: Tensor, size: int) -> Tensor:
    """Images of size x size, resampled bilinearly with antialiasing; the same images if they are that already."""
    if images.shape[-2:] == (size, size):
        return images
    if images.device.type != "cpu":
        down, across = (antialiased(side, size, images.device, images.dtype) for side in images.shape[-2:])
        return resampled(images, down, across)
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)


def sampled(images: Tensor, grid: Tensor, padding: Padding = "border", *, align_corners: bool) -> Tensor:
    """`grid_sample`, bilinear, by the kernel on the CPU and by `gathered` elsewhere."""
    if images.device.type == "cpu":
        return F.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=align_corners)
    return gathered(images, grid, padding, align_corners)


def gathered(images: Tensor, grid: Tensor, padding: Padding, align_corners: bool) -> Tensor:
    """What `grid_sample` gives, bilinear, by four `gather`s: their backward pass is the same every time on a GPU."""
    height, width = images.shape[-2:]
    x, y = (
        (at + 1) / 2 * (side - 1) if align_corners else ((at + 1) * side - 1) / 2
        for at, side in zip(grid.unbind(-1), (width, height))
    )
    if padding == "border":
        x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    left, top = x.floor(), y.floor()
    flat, found = images.flatten(2), torch.zeros_like(images[..., :1, :1])
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        share = (1 - (y - row).abs()) * (1 - (x - column).abs())
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        place = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
        values = flat.gather(2, place.flatten(1)[:, None].expand(-1, images.shape[1], -1))
        found = found + values.unflatten(2, place.shape[1:]) * (share * inside)[:, None].to(images)
    return found


def resampled(images: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Images N x 3 x H x W by a matrix along each axis: `down` h x H (or N x h x H), `across` w x W (or N x w x W).

    Off the CPU crops and sizes change so: the backward pass of a product is the same every time, while those of
    `grid_sample` and of antialiased interpolation on a GPU add up in any order. On the CPU those are the faster ones.
    """
    if down.dim() == 3:
        down, across = down[:, None], across[:, None]
    return down @ images @ across.mT


def crop_matrices(
    size: int, left: Tensor, top: Tensor, width: Tensor, height: Tensor, sign: Tensor
) -> tuple[Tensor, Tensor]:
    """The two matrices of each crop of a square image, N x size x size: rows, then columns (sign -1: mirrored)."""
    return bilinear(height, 2 * top + height - 1, size), bilinear(sign * width, 2 * left + width - 1, size)


def bilinear(scale: Tensor, shift: Tensor, size: int) -> Tensor:
    """Matrices N x size x size that read a row of pixels at scale * x + shift, where x goes from -1 to 1.

    Coordinates as in `grid_sample` with align_corners=False; what lies outside reads the border.
    """
    kind = Place(scale.device).finest
    pixels = torch.arange(size, device=scale.device, dtype=kind)
    at = scale.to(kind)[:, None] * ((2 * pixels + 1) / size - 1) + shift.to(kind)[:, None]
    at = (((at + 1) * size - 1) / 2).clamp(0, size - 1)
    return (1 - (at[..., None] - pixels).abs()).clamp(min=0)


@lru_cache(maxsize=64)
def antialiased(inputs: int, size: int, device: torch.device = PROCESSOR, dtype: torch.dtype = torch.float64) -> Tensor:
    """The matrix size x inputs of bilinear resampling with antialiasing: triangles as wide as the larger pixel.

    Copied to a device once: a copy waits for all that the device has to do.
    """
    ratio = inputs / size
    centres = ratio * (torch.arange(size, dtype=torch.float64) + 0.5)
    pixels = torch.arange(inputs, dtype=torch.float64) + 0.5
    weights = (1 - (pixels - centres[:, None]).abs() / max(ratio, 1.0)).clamp(min=0)
    return (weights / weights.sum(1, keepdim=True)).to(device, dtype)


def recolour(images: Tensor, draws: Tensor, view: View) -> Tensor:
    """Brightness, contrast, saturation and hue of each image changed by its own draws (N x 4 in [0, 1))."""

    def factor(column: int, reach: float) -> Tensor:
        return (1 + reach * (2 * draws[:, column] - 1)).to(images).view(-1, 1, 1, 1)

    grey = images.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    images = images * factor(0, view.brightness)
    middle = (images * grey).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    images = middle + (images - middle) * factor(1, view.contrast)
    if view.saturation or view.hue:
        luma = (images * grey).sum(1, keepdim=True)
        chroma = (images - luma) * factor(2, view.saturation)
        images = luma + (_turn(chroma, view.hue * (2 * draws[:, 3] - 1)) if view.hue else chroma)
    return images.clamp(0, 1)


def _turn(chroma: Tensor, turns: Tensor) -> Tensor:
    """Chroma rotated about the grey axis (Rodrigues' formula), N turns of the colour circle."""
    angle = (2 * math.pi * turns).to(chroma).view(-1, 1, 1, 1)
    across = (torch.roll(chroma, 1, 1) - torch.roll(chroma, -1, 1)) / math.sqrt(3)
    along = chroma.mean(1, keepdim=True)
    return chroma * angle.cos() + across * angle.sin() + along * (1 - angle.cos())


def uniform(count: int, rng: torch.Generator) -> Tensor:
    """Draws for `count` views, count x DRAWS in [0, 1), on the generator's device."""
    return torch.rand(count, DRAWS, generator=rng, device=rng.device)
