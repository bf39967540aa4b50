"""Let an untrained network learn without its skips.

Many networks start the last gain of a residual block at or near zero (timm's ResNets the last norm, ConvNeXt and CaiT
their LayerScale): at first such a block is its skip alone. Without the skip nothing passes, no gradient comes back, and
the network stays at chance for ever. So where a skip is removed, gains that are still as they started begin at one.
"""

from collections.abc import Iterator

import torch
from torch import nn

from lightleak.surgery.stages import Skip

ASLEEP = 1e-3  # LayerScale starts at 1e-6 to 1e-4


@torch.no_grad()
def wake(model: nn.Module, removed: list[Skip]) -> list[str]:
    """Set to one, in place, what sleeps on the ways that were left; the names of those parameters."""
    woken = []
    for skip in removed:
        if skip.kind != "add":
            continue
        for name, gain in _parameters(model, skip):
            if name not in woken and _sleeps(name, gain):
                gain.fill_(1.0)
                woken.append(name)
    return woken


def _parameters(model: nn.Module, skip: Skip) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters of the modules that the signal goes through, and the owner's own, by full name."""
    owner = model.get_submodule(skip.owner)
    prefix = f"{skip.owner}." if skip.owner else ""
    yield from ((prefix + name, p) for name, p in owner.named_parameters(recurse=False))
    for path in skip.around:
        yield from ((f"{path}.{name}", p) for name, p in model.get_submodule(path).named_parameters())


def _sleeps(name: str, gain: nn.Parameter) -> bool:
    """Whether a parameter is a gain (one number, or one for each channel) that is still as it started, near zero."""
    wide = sum(side > 1 for side in gain.shape)
    if wide > 1 or name.endswith("bias") or not gain.numel():
        return False
    return bool(gain.abs().max() <= ASLEEP) and bool((gain == gain.flatten()[0]).all())
