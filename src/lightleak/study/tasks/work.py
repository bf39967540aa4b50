"""How much work a network is, beside the small one that the costs of tasks were measured with.

Only for estimates: a multiply-add of a ResNet-18 at 64 pixels takes as long as one of a ResNet-50 at 224, near enough.
What earlier tasks really took corrects the rest.
"""

from functools import cache
from typing import Any, Protocol

import torch
from torch import nn

from lightleak.attacks import Guard
from lightleak.data.outlook import Outlook, outlook
from lightleak.errors import UserError
from lightleak.models import zoo
from lightleak.models.classifier import Classifier
from lightleak.study.amounts import Amount
from lightleak.study.task import Store
from lightleak.study.tasks.populations import Draw
from lightleak.training import Recipe

SMALL = ("timm:resnet18", 64)  # the network and the size
IMAGES, PEOPLE = 56 * 12, 56  # of that world


class Behind(Protocol):
    """A target that may stand behind an API."""

    @property
    def guard(self) -> Guard | None: ...

    @property
    def population(self) -> Draw: ...


def named(target: Any) -> str:
    """A target as the lines of a log call it: "resnet18 (RoLSS), seed 1"; its title alone if no name is known."""
    network = short(target.architecture)
    name = f"{network} ({target.title})" if network else target.title
    return name + (f", seed {target.seed}" if target.seed else "")


def short(architecture: str) -> str:
    """A network's name without its library."""
    return architecture.partition(":")[2]


def guard_of(target: Behind, classifier: Classifier, store: Store) -> Guard | None:
    """The guard that a target stands behind, made for it with images that it was not trained on."""
    if target.guard is None:
        return None
    population = target.population.load(store)
    parts = (population.validation, population.test, population.train)
    return target.guard.fitted(classifier, next(images for images in parts if len(images)))


@cache
def multiply_adds(architecture: str, size: int | None) -> float | None:
    """Of one image's forward pass, in convolutions and linear layers; None where it cannot be told."""
    counted = 0

    def count(module: nn.Module, _: Any, output: Any) -> None:
        nonlocal counted
        weight = torch.as_tensor(module.weight)
        counted += output.numel() // output.shape[1] * weight.numel() if output.dim() == 4 else weight.numel()

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


@cache
def parameters(architecture: str, size: int | None) -> int:
    """How many parameters a network has; 0 where it cannot be told."""
    try:
        with torch.device("meta"):
            return sum(one.numel() for one in zoo.build(architecture, 1000, size).net.parameters())
    except Exception:  # an estimate must not stop anybody
        return 0


def counts(population: Draw) -> Outlook | None:
    """How many people and pictures a population has; None where that cannot be told before it is read."""
    try:
        return outlook(population.source, **dict(population.settings))
    except UserError:  # whoever reads it will say so
        return None


def trained_on(population: Draw, part: str, architecture: str, size: int | None, recipe: Recipe) -> tuple[Amount, ...]:
    """A training on a part of a population: steps through all epochs, and a look at what chooses the best of them."""
    seen = counts(population)
    if seen is None:
        return ()
    side = size or zoo.only_size(architecture) or seen.size
    how: dict[str, Any] = {"architecture": architecture, "size": side, "classes": seen.people}
    batch, images = min(recipe.batch, seen.images[part]), seen.images[part]
    each = recipe.passes(images) * (images // max(1, batch)) * batch
    looked = recipe.epochs * seen.images["validation"] + images + seen.images["test"]
    step = Amount("train", recipe.epochs * each, batch=batch, precision=recipe.precision, **how)
    return (step, Amount("look", looked, batch=256, **how))


def times_small(architecture: str, size: int | None) -> float:
    """The work of one image through this network, as a multiple of the small world's; 1 where it cannot be told."""
    own, small = multiply_adds(architecture, size), multiply_adds(*SMALL)
    return own / small if own and small else 1.0


def size_of(population: Draw) -> int | None:
    """The side of its images as far as its settings say; None where they do not."""
    size = population.settings.get("size", 64 if population.source == "faces" else None)
    return size if isinstance(size, int) else None


def images_of(population: Draw, split: str = "images", each: int = 12) -> float:
    """Images in a part of a rendered population as a multiple of the small world's; 1 for others."""
    if population.source != "faces":
        return 1.0
    people, images = population.settings.get("people", 40), population.settings.get(split, each)
    return people * images / (PEOPLE * each)


def attacked(population: Draw, classes: tuple[int, ...] | None) -> float:
    """How many people are attacked, as a multiple of the small world's; 1 where it is not known."""
    if classes is not None:
        return len(classes) / PEOPLE
    return population.settings.get("people", 40) / PEOPLE if population.source == "faces" else 1.0
