"""Let an untrained network learn without its skips.

Many networks initialise the last gain of a residual block at or near zero (timm's ResNets the last norm, ConvNeXt and
CaiT their LayerScale), so that the block starts out as its skip alone. Without the skip such a block passes nothing, no
gradient comes back, and the network stays at chance. RDNet does the same to the maps that a layer appends. So where a
skip is removed, gains that still have their initial value are set to one, and all-zero weights are initialised anew.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from lightleak.surgery.stages import Skip

ASLEEP = 1e-3  # LayerScale starts at 1e-6 to 1e-4
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@torch.no_grad()
def wake(model: nn.Module, removed: list[Skip]) -> list[str]:
    """Set near-zero gains to one in branches that lost their skip, in place; returns the names of these parameters.

    A weight matrix that is all zeros is initialised as its layer would be when new, with a fixed seed: ones would make
    all outputs equal. See [wake](glossary.md#wake).
    """
    woken: list[str] = []
    for skip in removed:
        for name, gain in _parameters(model, skip):
            if name in woken or not _sleeps(model, name, gain):
                continue
            if _wide(gain) > 1:
                _draw(gain)
            else:
                gain.fill_(1.0)
            woken.append(name)
    return woken


def _parameters(model: nn.Module, skip: Skip) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters of the modules that the signal goes through, and the owner's own, by full name."""
    owner = model.get_submodule(skip.owner)
    prefix = f"{skip.owner}." if skip.owner else ""
    yield from ((prefix + name, p) for name, p in owner.named_parameters(recurse=False))
    for path in skip.through if skip.kind == "cat" else ():  # a map is often appended by another module than its maker
        prefix = f"{path}." if path else ""
        yield from ((prefix + name, p) for name, p in model.get_submodule(path).named_parameters(recurse=False))
    for path in skip.around:
        yield from ((f"{path}.{name}", p) for name, p in model.get_submodule(path).named_parameters())


def _wide(gain: Tensor) -> int:
    return sum(side > 1 for side in gain.shape)


def _sleeps(model: nn.Module, name: str, gain: nn.Parameter) -> bool:
    """Whether a parameter is as it started: a gain near zero (one number a channel), or a layer's whole weight at zero.

    Tables of positions and tokens may rightly be zero.
    """
    owner, _, kind = name.rpartition(".")
    if kind.endswith("bias") or not gain.numel():
        return False
    if _wide(gain) > 1:
        return kind == "weight" and isinstance(model.get_submodule(owner), LAYERS) and not gain.any()
    return bool(gain.abs().max() <= ASLEEP) and bool((gain == gain.flatten()[0]).all())


def _draw(weight: Tensor) -> None:
    """PyTorch's own start of linear and convolution layers, the same at every call."""
    bound = (weight[0].numel()) ** -0.5
    drawn = torch.rand(weight.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    weight.copy_(drawn * bound)
