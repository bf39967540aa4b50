"""Guards: what an API gives out in place of the target's own probabilities. Behind one there are no gradients."""

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, get_args
from warnings import warn

import torch
from torch import Tensor
from torch.nn import functional as F

from lightleak.data.population import Images
from lightleak.errors import UserError
from lightleak.models.classifier import Classifier
from lightleak.ranking import answers, as_lowest


class Guard(Protocol):
    """A frozen dataclass that turns the target's probabilities into an answer; a guard inherits these defaults."""

    labels: ClassVar[bool] = False  # whether labels are all that it gives out

    def fitted(self, target: Classifier, images: Images) -> "Guard":  # noqa: ARG002
        """The guard adapted to this target by its answers to `images` that it was not trained on, if it needs that."""
        return self

    @property
    def copies(self) -> int:
        """Images that the target is shown for one query: what an answer costs."""
        return 1

    def inputs(self, images: Tensor, seeds: Tensor) -> Tensor:
        """What the target sees in place of images N x 3 x H x W: N * copies of them, those of one image in a row."""
        if (former := getattr(self, "shown", None)) is not None:
            warn("a guard's shown() is now inputs(); the old name goes with the next release", DeprecationWarning, 2)
            return former(images, seeds)
        return images

    def answer(self, probabilities: Tensor, images: Tensor, seeds: Tensor) -> Tensor:
        """Probabilities N x C, or labels N (-1: no answer), of the target's N x C (with copies: N x copies x C).

        Whatever is random about image i is drawn from seeds[i] (int64, N; by `randomness.keyed(seeds[i])`), so that an
        answer does not depend on the batch.
        """
        ...


@dataclass(frozen=True)
class Rounded(Guard):
    """Probabilities to so many decimals; their sum may then differ from 1, as it does in such APIs."""

    decimals: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.decimals <= 7:
            raise UserError(f"decimals must be from 0 to 7, not {self.decimals}")

    def answer(self, probabilities: Tensor, images: Tensor, seeds: Tensor) -> Tensor:  # noqa: ARG002
        """Rounded probabilities, N x C."""
        return probabilities.round(decimals=self.decimals)


@dataclass(frozen=True)
class TopK(Guard):
    """The `k` largest probabilities; what remains is spread evenly over the other classes, or left out as zeros."""

    k: int = 1
    rest: Literal["even", "zero"] = "even"

    def __post_init__(self) -> None:
        if self.k < 1 or self.rest not in get_args(Literal["even", "zero"]):
            raise UserError(f"k must be at least 1 and the rest even or zero, got {self.k} and {self.rest!r}")

    def answer(self, probabilities: Tensor, images: Tensor, seeds: Tensor) -> Tensor:  # noqa: ARG002
        """The top probabilities where they stand, N x C."""
        classes = probabilities.shape[1]
        if self.k >= classes:
            return probabilities
        top = as_lowest(probabilities).topk(self.k, 1).indices
        values = probabilities.gather(1, top)
        spare = (1 - values.sum(1, keepdim=True)).clamp(min=0) / (classes - self.k)
        rest = spare.expand_as(probabilities) if self.rest == "even" else torch.zeros_like(probabilities)
        return rest.scatter(1, top, values)


@dataclass(frozen=True)
class Tempered(Guard):
    """Probabilities of logits over a temperature: above 1 they are flatter than the target's own."""

    temperature: float = 2.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise UserError(f"temperature must be above 0, not {self.temperature}")

    def answer(self, probabilities: Tensor, images: Tensor, seeds: Tensor) -> Tensor:  # noqa: ARG002
        """Tempered probabilities, N x C."""
        return F.softmax(probabilities.clamp(min=1e-30).log() / self.temperature, dim=1)


@dataclass(frozen=True)
class LabelsOnly(Guard):
    """The name of the class, nothing else."""

    labels: ClassVar[bool] = True

    def answer(self, probabilities: Tensor, images: Tensor, seeds: Tensor) -> Tensor:  # noqa: ARG002
        """Labels, N; -1 where the probabilities are no numbers."""
        return answers(probabilities)
