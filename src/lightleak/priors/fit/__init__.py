"""Training of priors on public images: one file for each kind of generator, chosen by the class of its settings.

Settings with `needs_target = True` are of a prior that is made for one target: its training asks the target about the
images. A file's `fit_...` then takes the target as its last argument.
"""

from collections.abc import Callable
from pathlib import Path

import torch

from lightleak.data.population import Images
from lightleak.errors import UserError
from lightleak.place import batch_of, here
from lightleak.priors import Prior
from lightleak.priors.fit.kedmi import KED_QUICK, KedMi, fit_kedmi
from lightleak.priors.fit.lokt import LOKT_QUICK, Lokt, fit_lokt
from lightleak.priors.fit.plgmi import PLG_QUICK, PlgMi, fit_plgmi
from lightleak.priors.fit.state import Asked, Logits
from lightleak.priors.fit.stylegan2 import SmallStyleGAN2, fit_stylegan2
from lightleak.priors.fit.wgan import QUICK, WganGp, fit_wgan
from lightleak.renamed import former

FitSettings = WganGp | KedMi | PlgMi | Lokt | SmallStyleGAN2
# By name, as the command line offers them: small ones for two cores, and the published ones.
TRAININGS: dict[str, FitSettings] = {
    "wgan": QUICK,
    "wgan-published": WganGp(),
    "kedmi": KED_QUICK,
    "kedmi-published": KedMi(),
    "plgmi": PLG_QUICK,
    "plgmi-published": PlgMi(),
    "lokt": LOKT_QUICK,
    "lokt-published": Lokt(),
    "stylegan2": SmallStyleGAN2(),
}
FITS: dict[type, Callable[..., Prior]] = {
    WganGp: fit_wgan,
    KedMi: fit_kedmi,
    PlgMi: fit_plgmi,
    Lokt: fit_lokt,
    SmallStyleGAN2: fit_stylegan2,
}


def fit(
    images: Images,
    settings: FitSettings = QUICK,
    seed: int = 0,
    folder: Path | None = None,
    watch: Callable[..., None] | None = None,
    device: torch.device | str | None = None,
    target: Logits | Asked | None = None,
) -> Prior:
    """Train a prior on public images, of the kind that the settings belong to; some kinds also query the `target`.

    With a folder, training continues from the checkpoint in it, to the same result as without a stop; a checkpoint of
    other images, settings or another seed is refused. `watch(step, total, **numbers)` gets each step's losses. Training
    runs on `device`, by default the place of this process. A target passed as `Asked` counts its queries, including
    those before a stop.
    """
    check_target(settings, target is not None)
    asked = () if target is None else (target if isinstance(target, Asked) else Asked(target),)
    device = torch.device(device or here().device)
    with batch_of(settings.batch, "--training.batch", device):
        return FITS[type(settings)](images, settings, seed, folder, watch, device, *asked)


def check_target(settings: FitSettings, given: bool) -> None:
    """UserError unless a target is given exactly where the settings need one."""
    kind = type(settings).__name__
    if settings.needs_target and not given:
        raise UserError(f"{kind} trains a prior for one target and asks it; pass the target (--target)")
    if given and not settings.needs_target:
        raise UserError(f"{kind} trains a prior on public images alone; leave the target out")


__all__ = [
    "FITS",
    "KED_QUICK",
    "LOKT_QUICK",
    "PLG_QUICK",
    "QUICK",
    "TRAININGS",
    "Asked",
    "FitSettings",
    "KedMi",
    "Logits",
    "Lokt",
    "PlgMi",
    "SmallStyleGAN2",
    "WganGp",
    "check_target",
    "fit",
]

__getattr__ = former(__name__, {"Settings": "lightleak.priors.fit:FitSettings"})
