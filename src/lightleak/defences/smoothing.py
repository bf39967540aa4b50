"""Negative label smoothing: push the other classes away so hard that gradients lead nowhere.

Struppek et al., "Be Careful What You Smooth For: Label Smoothing Can Be a Privacy Shield but Also a Catalyst for
Model Inversion Attacks" (ICLR 2024).

    loss = (1 - a) * (-log p_y) + a * mean_c(-log p_c),   a <= 0
    a = 0 for the first half of the epochs, then a ramp, and from three quarters on all of `alpha`

The ramp is the published code's: it heads for `alpha` at the last epoch, so at three quarters of the way it stands at
half of it, and jumps. Positive smoothing makes a model leak more, and is refused here.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lightleak.errors import UserError
from lightleak.training.plan import Batch, Plan
from lightleak.training.recipes import Recipe


@dataclass(frozen=True)
class NegLS:
    """Negative Label Smoothing."""

    alpha: float = -0.05
    start: float = 0.5  # share of the epochs before the ramp
    full: float = 0.75  # share of the epochs after which all of alpha counts
    title: ClassVar[str] = "NegLS"

    def __post_init__(self) -> None:
        if not self.alpha < 0:
            raise UserError(f"negative label smoothing wants an alpha below 0, such as -0.05, not {self.alpha}")
        if not 0 <= self.start <= self.full <= 1 or self.start == 1:
            raise UserError(f"the ramp runs between shares 0 <= start <= full <= 1, not {self.start} and {self.full}")

    def plan(self, recipe: Recipe) -> Plan:
        def loss(batch: Batch) -> Tensor:
            alpha = self.alpha_at(round(batch.progress * recipe.epochs), recipe.epochs)
            return smoothed(batch.classifier(batch.images), batch.labels, alpha)

        return Plan(loss=loss)

    def alpha_at(self, epoch: int, epochs: int) -> float:
        """The smoothing of an epoch (0-based)."""
        start = round(self.start * epochs)
        if epoch < start:
            return 0.0
        if epoch >= round(self.full * epochs):
            return self.alpha
        return self.alpha * (epoch + 1 - start) / (epochs - start)


def smoothed(logits: Tensor, labels: Tensor, alpha: float) -> Tensor:
    """Cross-entropy with labels smoothed by `alpha` of any sign, averaged over the batch."""
    surprise = -logits.float().log_softmax(1)
    right = surprise.gather(1, labels[:, None]).squeeze(1)
    return ((1 - alpha) * right + alpha * surprise.mean(1)).mean()
