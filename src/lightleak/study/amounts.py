"""The steps that take most of a task's time, and how often they are repeated: measured briefly, then multiplied.

`lightleak.forecast` measures where it runs; `rough` does not measure: a multiply-add of a ResNet-18 at 64 pixels takes
as long as one of a ResNet-50 at 224, near enough, and what earlier tasks really took corrects the rest.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import torch
from torch import nn

from lightleak.data.views import View
from lightleak.models import zoo
from lightleak.priors.fit import FitSettings
from lightleak.priors.prior import Prior

SMALL = ("timm:resnet18", 64)  # stands for a network whose work cannot be told
# Seconds of one core of a rented machine (2026, bfloat16) whose other core is as busy: for a multiply-add of a forward
# pass, for a pixel that is painted, for one painted with its gradient, for an update of the smallest generator.
MULTIPLY_ADD = {"train": 1.5e-10, "look": 3.4e-11, "search": 7e-11}
PAINTED, PAINTED_BACK = 9.3e-7, 3.6e-6
UPDATE = 0.02


@dataclass(frozen=True)
class Amount:
    """A number of images that go through a network in one way, or are painted; a generator to be fitted; a rest."""

    # A step of training; a look at an image; a step of an attack's search; a face painted; a whole fit; seconds.
    kind: Literal["train", "look", "search", "paint", "fit", "rest"]
    images: float = field(compare=False)  # of "fit": fits; of "rest": seconds of loading, writing and counting
    architecture: str = ""
    size: int | None = None
    classes: int = 1000
    batch: int = 64
    precision: str = "auto"
    view: View | None = None  # what a training sees its images through
    prior: str = ""  # which one images are made with
    sketch: Callable[[], Prior | None] | None = field(default=None, compare=False)  # it, or one of its size
    painted: bool = False  # whether that prior is the renderer
    fit: FitSettings | None = None

    @property
    def named(self) -> dict[str, Any]:
        """Its name for people to read."""
        return {"kind": self.kind, "network": self.architecture, "pixels": self.size, "batch": self.batch}


def rough(amounts: Iterable[Amount]) -> float:
    """Seconds that amounts take, more or less, see `MULTIPLY_ADD`; nothing is measured."""
    return sum(amount.images * _each(amount) for amount in amounts)


def _each(amount: Amount) -> float:
    pixels = (amount.size or 224) ** 2
    if amount.kind == "rest":
        return 1.0
    if amount.kind == "paint":
        return PAINTED * pixels
    if amount.kind == "fit":
        return 0.0 if amount.fit is None else _fitted(amount.fit, pixels)
    own = multiply_adds(amount.architecture, amount.size) or multiply_adds(*SMALL) or 0.0
    painting = PAINTED_BACK if amount.kind == "search" else PAINTED
    return MULTIPLY_ADD[amount.kind] * own + (painting * pixels if amount.painted else 0.0)


def _fitted(settings: FitSettings, pixels: int) -> float:
    """Of the fit of a generator: updates of networks that are so wide, on so many images, of so many pixels a side."""
    updates = settings.warmup + settings.steps * (2 + getattr(settings, "critic_steps", 1))
    wider = max(1.0, getattr(settings, "width", 16) / 16) ** 2
    return UPDATE * updates * (pixels**0.5 / 64) * (settings.batch / 32) * wider


@cache
def multiply_adds(architecture: str, size: int | None) -> float | None:
    """Of one image's forward pass, in convolutions and linear layers; None where it cannot be told."""
    counted = 0

    def count(module: nn.Module, _: Any, output: Any) -> None:
        nonlocal counted
        weight = torch.as_tensor(module.weight)
        counted += output.numel() // weight.shape[0] * weight.numel()  # at each place, or of each token

    try:
        with torch.device("meta"):
            classifier = zoo.build(architecture, 10, size)
            for module in classifier.net.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    module.register_forward_hook(count)
            classifier.net.eval()(torch.zeros(1, 3, classifier.size, classifier.size))
    except Exception:  # an estimate must not stop anybody
        return None
    return float(counted) or None
