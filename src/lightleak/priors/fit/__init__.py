"""Training of priors on public images: one file for each kind of generator, chosen by the class of its settings."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from lightleak.data.population import Images
from lightleak.priors import Prior
from lightleak.priors.fit.wgan import QUICK, WganGp, fit_wgan

Settings = WganGp
Logits = Callable[[Tensor], Tensor]  # images N x 3 x S x S in [0, 1] to the target's logits, differentiable

FITS: dict[type, Callable[..., Prior]] = {WganGp: fit_wgan}


def fit(
    images: Images,
    settings: Settings = QUICK,
    seed: int = 0,
    folder: Path | None = None,
    watch: Callable[..., None] | None = None,
    device: torch.device | str = "cpu",
) -> Prior:
    """A prior learnt from public images, of the kind that the settings are of.

    With a folder, training continues from the checkpoint in it, to the same result as without a stop; a checkpoint of
    other images, settings or another seed is refused. `watch(step, total, **numbers)` hears each step's losses.
    """
    return FITS[type(settings)](images, settings, seed, folder, watch, device)


__all__ = ["FITS", "QUICK", "Settings", "WganGp", "fit"]
