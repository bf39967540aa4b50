"""Generators of plausible images, known or learnt from public data: what an attacker searches in."""

import json
import warnings
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load as parse
from safetensors.torch import save as serialise
from torch import nn

from lightleak.data.population import as_bytes
from lightleak.errors import UserError
from lightleak.files import publish
from lightleak.models.weights import finite
from lightleak.place import here, in_pieces
from lightleak.plugins import Registry
from lightleak.priors.conditional64 import ConditionalPrior, NamingPrior
from lightleak.priors.gan64 import GanPrior, InversionPrior
from lightleak.priors.pixels import PixelsPrior
from lightleak.priors.prior import Prior
from lightleak.priors.rendered import RenderedPrior
from lightleak.priors.stylegan2 import StyleGAN2Prior

WEIGHTS, RECIPE = "prior.safetensors", "prior.json"
DAMAGE = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    ArithmeticError,
    MemoryError,
)  # by wrong settings


OURS: dict[str, type[Prior]] = {
    "rendered": RenderedPrior,
    "gan64": GanPrior,
    "conditional64": ConditionalPrior,
    "naming64": NamingPrior,
    "kedmi": InversionPrior,
    "stylegan2": StyleGAN2Prior,
    "pixels": PixelsPrior,
}
Noted = TypeVar("Noted")
PRIORS: Registry[type[Prior]] = Registry(
    "lightleak.priors",
    OURS,
    lambda thing: isinstance(thing, type) and hasattr(thing, "restore"),
    "class that follows lightleak.priors.prior.Prior",
)


def save(prior: Prior, folder: str | Path, learnt: Mapping[str, Any] | None = None) -> None:
    """Write a prior to prior.safetensors and prior.json in `folder`, each atomically; the recipe holds their hash.

    `learnt` says how a target took part: {"access": what was granted, "queries": images shown to it, "target":
    `weights_of` its network}.
    """
    kinds = [name for name, kind in PRIORS.items() if type(prior) is kind]
    if not kinds:
        raise UserError(f"{type(prior).__name__} is no kind of prior that can be saved; known are {', '.join(PRIORS)}")
    folder = Path(folder)
    state = {name: value.detach().cpu().contiguous() for name, value in prior.state().items()}
    finite(state, f"a prior for {folder}")
    weights = serialise(state)
    recipe = {"kind": kinds[0], "settings": prior.settings(), "weights": sha256(weights).hexdigest()}
    if learnt is not None:
        recipe["learnt"] = dict(learnt)
    publish(folder / WEIGHTS, lambda part: part.write_bytes(weights), "the prior")
    publish(folder / RECIPE, lambda part: part.write_text(json.dumps(recipe, indent=2)), "the prior")


@torch.no_grad()
def show(prior: Prior, path: str | Path, rows: int = 8, seed: int = 0) -> Path:
    """Write rows x rows samples as one PNG; a prior with classes draws its first classes in turn."""
    count = rows * rows
    latents = prior.sample(count, torch.Generator().manual_seed(seed)).to(prior.device)
    classes = (torch.arange(count) % (prior.classes or count)).to(prior.device)
    images = in_pieces(lambda part: as_bytes(prior.decode(latents[part], classes[part])), count, count)
    sheet = images.unflatten(0, (rows, rows)).permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    return publish(path, lambda part: Image.fromarray(sheet.numpy()).save(part, format="PNG"), "the samples")


def learnt(folder: str | Path) -> tuple[str, int] | None:
    """The access to a target with which the prior in `folder` was learnt, and its queries; None without a target."""
    return _noted(folder, lambda note: None if note is None else (str(note["access"]), int(note["queries"])))


def target_of(folder: str | Path) -> str:
    """The mark of the target of which the prior in `folder` learnt (`weights_of` its network); "" where unknown."""
    mark = _noted(folder, lambda note: (note or {}).get("target", ""))
    return mark if isinstance(mark, str) else ""


def _noted(folder: str | Path, read: Callable[[Any], Noted]) -> Noted:
    """What `read` takes from the note on how a target took part; UserError if there is no prior, or none so noted."""
    try:
        return read(json.loads((Path(folder).expanduser() / RECIPE).read_text()).get("learnt"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"there is no prior in {folder}; 'lightleak fit' and 'lightleak convert' write one") from None


def seal(folder: str | Path) -> str:
    """The sha256 of the weights of the prior in `folder`, as its recipe states it; UserError if there is none."""
    try:
        return str(json.loads((Path(folder).expanduser() / RECIPE).read_text())["weights"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"there is no prior in {folder}; 'lightleak fit' and 'lightleak convert' write one") from None


def load(folder: str | Path) -> Prior:
    """The prior that `save` wrote to `folder`; UserError if a part is missing, damaged or of another
    prior.
    """
    folder = Path(folder)
    try:
        recipe = json.loads((folder / RECIPE).read_text())
        weights = (folder / WEIGHTS).read_bytes()
        kind, settings, seal = recipe["kind"], recipe["settings"], recipe["weights"]
    except OSError as error:
        raise UserError(f"no prior in {folder}: {error.filename} cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{folder / RECIPE} is no recipe of a prior; fit it again") from None
    if not isinstance(kind, str) or not isinstance(settings, dict):
        raise UserError(f"{folder / RECIPE} is no recipe of a prior; fit it again")
    if kind not in PRIORS:
        raise UserError(f"{folder / RECIPE} names the unknown kind {kind!r}; known are {', '.join(PRIORS)}")
    if sha256(weights).hexdigest() != seal:
        raise UserError(f"{folder / WEIGHTS} is damaged or belongs to another prior than {RECIPE}; fit it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about layers of no width; what is wrong with them is said below
            state = parse(weights)
            finite(state, str(folder / WEIGHTS))
            prior = PRIORS[kind].restore(settings, state)
    except (SafetensorError, RuntimeError, RecursionError, *DAMAGE) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{folder} does not hold a {kind} prior: {' '.join(str(error).split())[:200]}") from None
    for part in vars(prior).values():
        if isinstance(part, nn.Module):
            here().put(part)
    return prior
