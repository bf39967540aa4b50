"""A differentiable portrait painter: identity factors and circumstances in, antialiased faces out.

Every shape is a signed distance under a sigmoid, so that a portrait has a gradient in everything that it is painted
from. All maps have one channel; colours come in once, at the end (Porter and Duff's "over", from front to back).
"""

import torch
from torch import Tensor

from lightleak.data.brushes import BRUSHES, Layer
from lightleak.data.factors import CIRCUMSTANCES, FACTORS
from lightleak.data.scene import set_up
from lightleak.errors import UserError

SMALLEST, LARGEST = 32, 512  # pixels a side


def render(factors: Tensor, circumstances: Tensor | None = None, size: int = 64) -> Tensor:
    """Portraits N x 3 x size x size in [0, 1], differentiable in factors (N x F) and circumstances (N x K).

    Without circumstances the portrait is neutral. Raises UserError for other shapes, or a size outside
    32 to 512.
    """
    if factors.dim() != 2 or factors.shape[1] != len(FACTORS):
        raise UserError(f"expected factors of shape N x {len(FACTORS)}, got {tuple(factors.shape)}")
    if circumstances is None:
        circumstances = factors.new_zeros(len(factors), len(CIRCUMSTANCES))
    if circumstances.shape != (len(factors), len(CIRCUMSTANCES)):
        raise UserError(
            f"expected circumstances of shape {len(factors)} x {len(CIRCUMSTANCES)}, got {tuple(circumstances.shape)}"
        )
    if not SMALLEST <= size <= LARGEST:
        raise UserError(f"expected a size from {SMALLEST} to {LARGEST} pixels, got {size}")
    scene = set_up(factors, circumstances, size)
    maps, colours = _see([layer for brush in BRUSHES for layer in brush(scene)])
    warm = 0.05 * scene.c["light_warmth"]
    exposure = torch.exp(0.13 * scene.c["brightness"]) * torch.cat((1 + warm, torch.ones_like(warm), 1 - 1.2 * warm), 1)
    shape = (len(factors), size, size)
    seen = torch.stack([part.expand(shape) for part in maps], 1).flatten(2)
    paint = torch.cat([colour.expand(len(factors), 3, 1) for colour in colours], 2)
    return (exposure * paint @ seen).view(-1, 3, size, size).clamp(0, 1)


def _see(layers: list[Layer]) -> tuple[list[Tensor], list[Tensor]]:
    """How much of each paint reaches the eye: maps N x H x W and their colours N x 3 x 1."""
    maps, colours = [], []
    through: Tensor | None = None  # what the layers in front let pass
    for layer in reversed(layers):
        if layer.coverage is None:
            seen = through
        else:
            seen = layer.coverage if through is None else through * layer.coverage
            through = 1 - seen if through is None else through - seen
        for light, colour in layer.paints:
            maps.append(seen if light is None else light if seen is None else seen * light)
            colours.append(colour)
    return [part for part in maps if part is not None], colours
