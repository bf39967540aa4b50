"""What a defence does to training, as data: changes of the network, the loss, its terms, and how steps are made."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from lightleak.errors import UserError
from lightleak.models.classifier import Classifier
from lightleak.training.recipes import Recipe


@dataclass(frozen=True)
class Batch:
    """What a loss is given in one training step."""

    classifier: Classifier
    images: Tensor  # augmented, in [0, 1]
    labels: Tensor
    progress: float  # epochs done over epochs in all, in [0, 1)


Loss = Callable[[Batch], Tensor]
Change = Callable[[Classifier], Classifier]


def cross_entropy(batch: Batch) -> Tensor:
    """The plain objective."""
    return F.cross_entropy(batch.classifier(batch.images), batch.labels)


@dataclass(frozen=True)
class Term:
    """What a defence measures in the loss's own forward pass and adds to the loss; every epoch's means are recorded."""

    weights: dict[str, float]  # quantity -> its weight in the loss; the names of different terms differ
    layers: Callable[[Classifier], Sequence[str]]  # the modules of the network whose outputs it reads
    measure: Callable[[Batch, list[Tensor]], dict[str, Tensor]]  # (batch, those outputs) -> quantities, unweighted
    by_image: bool = False  # whether each quantity is a mean over images of what every image alone decides


class Companion(Protocol):
    """What a defence trains beside the network, from the first step to the last; it gives the network's loss."""

    def loss(self, batch: Batch) -> Tensor:
        """Take its own steps on a batch, then return the network's loss, a mean over images.

        What it draws, it draws from the global generators, which are the run's own then.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """All that it has learnt, so that a stopped run continues to the same result."""
        ...

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` returned."""
        ...

    def finish(self, classifier: Classifier) -> Classifier:
        """The trained classifier with whatever of the companion goes with it."""
        ...


@dataclass(frozen=True)
class Tuning:
    """Further training of a network whose epochs are over: a recipe and a loss of its own."""

    recipe: Recipe
    loss: Loss


Objective = Callable[[Tensor], Tensor]  # indices of images -> their mean loss, to be differentiated
# (objective, indices of a batch) -> the loss, after one step of descent; on a card it is not waited for
Step = Callable[[Objective, Tensor], Tensor | float]


class Mechanism(Protocol):
    """How batches are drawn and how a step is made of their losses; a defence may bring its own."""

    def draws(self, rng: torch.Generator) -> Iterable[Tensor]:
        """The indices of the images of each step of one epoch."""
        ...

    def check(self, classifier: Classifier, loss: Loss, batch: Batch) -> None:
        """UserError if this network, in the modes it is trained in, cannot be trained so; tried on a few images."""
        ...

    def stepping(self, classifier: Classifier, optimiser: torch.optim.Optimizer) -> AbstractContextManager[Step]:
        """A context in which steps of the optimiser are made."""
        ...

    def spent(self) -> dict[str, Any]:
        """What the whole run costs besides time (a privacy budget), as JSON data for the record."""
        ...


@dataclass(frozen=True)
class Plain:
    """Batches in a random order, and the gradient of their mean loss."""

    images: int
    size: int  # of a batch
    steps: int  # of an epoch
    epochs: int

    def draws(self, rng: torch.Generator) -> Iterator[Tensor]:
        """Whole batches of one or several passes through all images."""
        passes = -(-self.steps // (self.images // self.size))
        order = torch.cat([torch.randperm(self.images, generator=rng) for _ in range(passes)])
        for step in range(self.steps):
            yield order[step * self.size : (step + 1) * self.size]

    def check(self, classifier: Classifier, loss: Loss, batch: Batch) -> None:
        """Accepts any network that has a gradient."""

    def stepping(self, classifier: Classifier, optimiser: torch.optim.Optimizer) -> AbstractContextManager[Step]:
        """Ordinary steps."""

        def step(objective: Objective, index: Tensor) -> Tensor:
            loss = objective(index)
            if not loss.requires_grad:
                raise UserError(
                    f"{type(classifier.net).__name__} cannot be trained: its output has no gradient, since all its "
                    "weights are frozen, or it detaches or rounds inside"
                )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            return loss.detach()

        return nullcontext(step)

    def spent(self) -> dict[str, Any]:
        """Nothing."""
        return {}


@dataclass(frozen=True)
class Plan:
    """What a defence does to plain training; several plans compose with `combine`."""

    changes: tuple[tuple[int, Change], ...] = ()  # (epoch, change): before it the network becomes change(network)
    loss: Loss | None = None  # in place of cross-entropy, a mean over images as well; at most one defence may set it
    terms: tuple[Term, ...] = ()  # beside it
    mechanism: Callable[[int, int, int, int], Mechanism] | None = None  # of (images, batch, steps an epoch, epochs)
    after: tuple[Change, ...] = ()  # what is done to the network after training, in order
    exact: bool = False  # whether it must be computed in float32: bfloat16 would round away what it promises
    views: tuple[Callable[[Tensor], Tensor], ...] = ()  # what is done to a step's images after the recipe's own view
    companion: Callable[[Classifier], Companion] | None = None  # in place of a loss: what is trained beside the network
    tuning: tuple[Tuning, ...] = ()  # further training after all epochs, in order, and before `after`
    head: bool = False  # whether it puts a head of its own in place of the network's
    passes: int = 1  # how often its loss passes an image through the network that is trained
    names: tuple[str, ...] = ()  # of the defences that it is made of, for the record
    robust: bool = False  # whether it is about adversarial examples, so that robust accuracy stands beside natural
    settings: tuple[tuple[str, Any], ...] = field(default=(), compare=False)  # of those defences, for the record


UNDEFENDED = Plan()


def combine(plans: dict[str, Plan]) -> Plan:
    """One plan of several, by defence name, changes in order of epoch; UserError if two cannot go together."""
    _check(plans)
    # Of equal epochs, what private training needs is done last: to the network as the others leave it.
    order = sorted(plans.values(), key=lambda plan: plan.mechanism is not None)
    changes = sorted((change for plan in order for change in plan.changes), key=lambda change: change[0])
    each = tuple(plans.values())
    return Plan(
        tuple(changes),
        next((plan.loss for plan in each if plan.loss is not None), None),
        tuple(term for plan in each for term in plan.terms),
        next((plan.mechanism for plan in each if plan.mechanism is not None), None),
        tuple(change for plan in each for change in plan.after),
        any(plan.exact for plan in each),
        tuple(view for plan in each for view in plan.views),
        next((plan.companion for plan in each if plan.companion is not None), None),
        tuple(tuning for plan in each for tuning in plan.tuning),
        any(plan.head for plan in each),
        max((plan.passes for plan in each), default=1),
        tuple(name for plan in each for name in plan.names),
        any(plan.robust for plan in each),
        tuple(one for plan in each for one in plan.settings),
    )


def _check(plans: dict[str, Plan]) -> None:
    """UserError if two of the plans cannot go together."""
    only_one: tuple[tuple[str, Callable[[Plan], bool]], ...] = (
        ("replace the training loss", lambda plan: plan.loss is not None or plan.companion is not None),
        ("make the steps of training", lambda plan: plan.mechanism is not None),
        ("put a head of their own in place of the network's", lambda plan: plan.head),
    )
    for what, does in only_one:
        rivals = [name for name, plan in plans.items() if does(plan)]
        if len(rivals) > 1:
            raise UserError(f"{' and '.join(rivals)} each {what} and cannot be combined; choose one")
    private = [name for name, plan in plans.items() if plan.mechanism is not None]
    others: tuple[tuple[str, Callable[[Plan], bool]], ...] = (
        ("compares the images of a batch", lambda plan: any(not term.by_image for term in plan.terms)),
        ("trains other things on them beside the network", lambda plan: plan.companion is not None),
        ("passes an image through the network more than once", lambda plan: plan.passes > 1),
        ("goes on training afterwards, by plain steps that no noise covers", lambda plan: bool(plan.tuning)),
    )
    for what, does in others:
        joint = [name for name, plan in plans.items() if does(plan)]
        if private and joint:
            raise UserError(
                f"{private[0]} bounds what each image alone adds to a gradient, but {joint[0]} {what}; combine "
                f"{private[0]} with what changes the network or treats each image alone: RoLSS, RoLSS+, SSF, TTS, MID, "
                "NegLS, TL-DMI, MIDRE, LoFt"
            )


@dataclass(frozen=True)
class CheckpointCriterion:
    """When training leaves a copy behind: after an epoch, or where validation accuracy came nearest to a value."""

    known_as: ClassVar[str] = "Moment"  # in keys

    epoch: int | None = None  # 1 is after the first
    accuracy: float | None = None

    def __post_init__(self) -> None:
        if (self.epoch is None) == (self.accuracy is None):
            raise UserError("a checkpoint criterion is an epoch or a validation accuracy, one of the two")
        if self.accuracy is not None and not 0 < self.accuracy <= 1:
            raise UserError(f"the accuracy of a checkpoint criterion is a share in (0, 1], not {self.accuracy}")
        if self.epoch is not None and self.epoch < 1:
            raise UserError(f"the epochs of a checkpoint criterion count from 1, not {self.epoch}")

    def __str__(self) -> str:
        return f"epoch {self.epoch}" if self.accuracy is None else f"accuracy {100 * self.accuracy:g} %"

    def reached(self, validation: Sequence[float], epoch: int) -> bool:
        """Whether a copy is due now, after `epoch` epochs, of which the last ones had these accuracies."""
        if self.accuracy is None:
            return epoch == self.epoch
        *before, now = [abs(value - self.accuracy) for value in validation]
        return not before or now < min(before)


def mechanism_of(plan: Plan, recipe: Recipe, images: int) -> Mechanism:
    """How the steps of training on so many images are made: plainly, unless a defence brings its own way."""
    size = min(recipe.batch, images)
    return (plan.mechanism or Plain)(images, size, recipe.passes(images) * (images // size), recipe.epochs)
