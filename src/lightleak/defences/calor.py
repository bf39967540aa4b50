"""CALoR: LoFt's head, and then a short training that makes the network less sure of what it knows.

Yu et al. (KDD 2026, arXiv 2410.05814).

    1. LoFt, trained as the recipe says
    2. confidence adaptation, 5 epochs more of SGD:  loss = mean( alpha p_y^gamma log p_y )

The second loss is least at p_y = exp(-1 / gamma), 0.88 for gamma 8: whoever is surer is pulled down, and whoever is
very unsure hardly moves. The last of those epochs counts, as published.

Deviation from the published code: other defences' terms of the loss and erased squares are for step 1 alone.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lightleak.data.views import View
from lightleak.defences.loft import LoFt
from lightleak.errors import UserError
from lightleak.training.plan import Batch, Plan, Tuning
from lightleak.training.recipes import Recipe


@dataclass(frozen=True)
class CALoR:
    """Confidence Adaptation and a head of Low Rank."""

    rank: int = 50
    alpha: float = 0.25
    gamma: float = 8.0  # the published default is 4, its main script's 8
    epochs: int = 5  # of confidence adaptation
    rate: float = 2e-5
    title: ClassVar[str] = "CALoR"

    def __post_init__(self) -> None:
        LoFt(self.rank)
        if not (0 < self.alpha < math.inf and 0 < self.gamma < math.inf):
            raise UserError(f"CALoR's alpha and gamma are above 0, not {self.alpha} and {self.gamma}")
        if self.epochs < 1 or not self.rate > 0:
            raise UserError(f"CALoR adapts for at least 1 epoch at a rate above 0, not {self.epochs} at {self.rate}")

    @property
    def surest(self) -> float:
        """The confidence at which the second loss is least."""
        return math.exp(-1 / self.gamma)

    def plan(self, recipe: Recipe) -> Plan:
        tuning = Recipe(
            epochs=self.epochs,
            batch=recipe.batch,
            least_steps=0,
            optimiser="sgd",
            rate=self.rate,
            milestones=tuple(share for share in (0.6, 0.8) if 0 < round(share * self.epochs) < self.epochs),
            keep="last",
            view=View(flip=0.5),
            precision=recipe.precision,
        )
        return Plan(changes=((0, LoFt(self.rank).apply),), tuning=(Tuning(tuning, self.loss),), head=True)

    def loss(self, batch: Batch) -> Tensor:
        """Step 2's loss."""
        return adapted(batch.classifier(batch.images), batch.labels, self.alpha, self.gamma)


def adapted(logits: Tensor, labels: Tensor, alpha: float = 0.25, gamma: float = 8.0) -> Tensor:
    """alpha p_y^gamma log p_y of logits N x C, averaged over the batch."""
    surprise = F.cross_entropy(logits.float(), labels, reduction="none")
    return (-alpha * torch.exp(-gamma * surprise) * surprise).mean()
