"""How a network expects its images to be normalised: as stated, as it says itself, or by a guess that is reported."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from lightleak.errors import UserError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5,) * 3, (0.5,) * 3)  # to [-1, 1]
NONE = ((0.0,) * 3, (1.0,) * 3)  # [0, 1] as it is
# What libraries call a network's note of its own mean and standard deviation, and where they keep it.
NAMES = (("mean", "std"), ("image_mean", "image_std"), ("mu", "sigma"))
PLACES = ("", "pretrained_cfg", "default_cfg", "config", "preprocess_cfg", "visual", "visual.preprocess_cfg")


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each channel of images in [0, 1]; `notes` report values that nobody stated."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    notes: tuple[str, ...] = ()
    assumed: bool = False  # whether nobody stated it, the network neither


GUESSED = "nobody stated how images for"  # the beginning of the note on what is assumed


def of(net: nn.Module, mean: Any = None, std: Any = None) -> Normalisation:
    """The stated values; else what the network does or says itself; else 0.5, with a note. UserError if not numbers."""
    if (mean is None) != (std is None):
        raise UserError("mean and std belong together: state both, or neither")
    if mean is not None:
        return Normalisation(*checked(mean, std))
    name = type(net).__name__
    if inside := _inside(net):
        return Normalisation(*NONE, (f"{name} normalises its images itself ({inside}): it gets them in [0, 1]",))
    for place in PLACES:
        for names in NAMES:
            if found := _stated(net, place, names):
                told = f"{', '.join(f'{m:g}' for m in found[0])} and {', '.join(f'{s:g}' for s in found[1])}"
                note = f"images for {name} are normalised by what it says of itself (mean and std {told})"
                return Normalisation(*found, (note,))
    guess = f"{GUESSED} {name} are normalised: mean = std = 0.5 (to [-1, 1]) is assumed; "
    return Normalisation(*HALF, (guess + "state mean and std",), assumed=True)


def checked(mean: Any, std: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Both as tuples of one or three finite numbers; UserError otherwise."""
    values = [_numbers(mean), _numbers(std)]
    if None in values or len(values[0] or ()) != len(values[1] or ()) or min(values[1] or (0,)) <= 0:
        shown = f"{str(mean)[:60]} and {str(std)[:60]}"
        raise UserError(f"mean and std are one or three numbers each, std above 0, not {shown}")
    return values[0] or (), values[1] or ()


def _numbers(values: Any) -> tuple[float, ...] | None:
    """One or three finite numbers; None for anything else."""
    if isinstance(values, Tensor):
        values = values.detach().flatten().tolist() if values.numel() in (1, 3) and not values.is_meta else None
    if not isinstance(values, list | tuple) or len(values) not in (1, 3):
        return None
    if not all(type(value) in (int, float) and abs(value) < 1e6 for value in values):  # NaN is not below
        return None
    return tuple(map(float, values))


def _stated(net: nn.Module, place: str, names: tuple[str, str]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and std that a network notes in one place, if they are such."""
    here: Any = net
    for part in filter(None, place.split(".")):
        here = here.get(part) if isinstance(here, Mapping) else getattr(here, part, None)
    values = [_numbers(here.get(n) if isinstance(here, Mapping) else getattr(here, n, None)) for n in names]
    if values[0] is None or values[1] is None or len(values[0]) != len(values[1]) or min(values[1]) <= 0:
        return None
    return values[0], values[1]


def _inside(net: nn.Module) -> str:
    """The module in the network that holds a mean and a standard deviation of colours, as a layer that normalises does.

    torchvision's Normalize is such a module, and so is what robustness libraries put before a network. Batch norms and
    their kind are none. A tuple that the network itself notes is no layer: it tells what others are to do.
    """
    for path, module in net.named_modules():
        if isinstance(module, _NormBase):
            continue
        for mean, std in NAMES:
            tensors = isinstance(getattr(module, mean, None), Tensor) and isinstance(getattr(module, std, None), Tensor)
            layer = bool(path) and re.search("normali[sz]", type(module).__name__.lower()) is not None
            if (tensors or layer) and _stated(module, "", (mean, std)):
                return path or type(module).__name__
    return ""
