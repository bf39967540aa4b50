"""What tasks share that speak of their work: how they are called, what they repeat, what they need beforehand."""

from functools import cache
from typing import Any, Protocol

import torch

from lightleak.attacks import Guard
from lightleak.data.outlook import Outlook, outlook
from lightleak.errors import UserError
from lightleak.models import zoo
from lightleak.models.classifier import Classifier
from lightleak.study.amounts import Amount, rough
from lightleak.study.task import Store, Task
from lightleak.study.tasks.populations import Draw
from lightleak.training import Recipe

REST = Amount("rest", 0.5)  # what a task takes beside its steps: loading, writing


class Repeating(Task):
    """A task that says what it repeats, given how many pictures there are."""

    @property
    def pictures(self) -> Draw:
        """Those that it depends on how many there are."""
        raise NotImplementedError(f"{type(self).__name__} does not say of which pictures")

    def repeated(self, seen: Outlook) -> tuple[Amount, ...]:
        """Its amounts."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it repeats")

    def amounts(self) -> tuple[Amount, ...]:
        """What it repeats, where the pictures can be counted before they are read."""
        seen = counts(self.pictures)
        return () if seen is None else self.repeated(seen)

    @property
    def cost(self) -> float | None:
        """Roughly, of the pictures that there are or, where they cannot be counted, of a rendered world."""
        return rough(self.repeated(counts(self.pictures) or _small_world()))


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


def trained_on(
    seen: Outlook, part: str, architecture: str, size: int | None, recipe: Recipe, classes: int = 0
) -> tuple[Amount, ...]:
    """A training on a part of a population: steps through all epochs, and looks at what chooses the best of them.

    "others": as many public people as there are private ones, divided as `people` does; "public": all, a fifth of whose
    pictures choose.
    """
    others = min(1.0, seen.people / seen.public_people) if seen.public_people else 0.0
    shares = {"others": (0.7 * others, 0.1 * others, 0.2 * others), "public": (0.8, 0.2, 0.0)}
    if part in shares:
        images, chosen, tested = (round(share * seen.images["public"]) for share in shares[part])
    else:
        images, chosen, tested = seen.images[part], seen.images["validation"], seen.images["test"]
    if images < 2:  # nobody can be trained on so few, and the task will say so
        return ()
    side = size or zoo.only_size(architecture) or seen.size
    how: dict[str, Any] = {"architecture": architecture, "size": side, "classes": classes or seen.people}
    batch = min(recipe.batch, images)
    each = recipe.passes(images) * (images // batch) * batch
    step = Amount("train", recipe.epochs * each, batch=batch, precision=recipe.precision, view=recipe.view, **how)
    return (step, Amount("look", recipe.epochs * chosen + images + tested, batch=256, **how), REST)


def learnt_from(seen: Outlook, architecture: str, epochs: int, batch: int, images: float = 0) -> tuple[Amount, ...]:
    """The training of a network on so many images, by default all public ones, after a look at each of them."""
    how: dict[str, Any] = {"architecture": architecture, "size": seen.size, "classes": seen.people}
    images = images or seen.images["public"]
    return (Amount("train", epochs * images, batch=batch, **how), Amount("look", images, batch=256, **how), REST)


@cache
def _small_world() -> Outlook:
    """The rendered people that are drawn where nothing is said of them."""
    seen = outlook("faces")
    if seen is None:
        raise ValueError("rendered people can be counted before they are painted")
    return seen


def size_of(population: Draw) -> int | None:
    """The side of its images as far as its settings say; None where they do not."""
    size = population.settings.get("size", 64 if population.source == "faces" else None)
    return size if isinstance(size, int) else None
