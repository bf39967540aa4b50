"""TTS: train with the skips first, remove them, train on.

Koh et al. (ECCV 2024), Sec. 5.3:

    1. train the whole network for T1 epochs
    2. remove the skips of its last stage; every weight that is left stays as it is
    3. train the result for T2 more, T1 + T2 = the epochs of the recipe

The paper states neither T1 and T2 nor whether the optimiser starts anew. Here T1 is half of the epochs, one
optimiser and one schedule run through, and the network that is kept is the best of the second part. Unlike the
published rows, it also works for concatenative skips: surgery keeps the columns of the weights that are left.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from lightleak.defences.rolss import RoLSS, numbered, shortest
from lightleak.errors import UserError
from lightleak.models.classifier import Classifier
from lightleak.training.plan import Plan
from lightleak.training.recipes import Recipe


@dataclass(frozen=True)
class TTS:
    """Two-stage Training Scheme (paper Sec. 5.3)."""

    first: float = 0.5  # T1 as a share of all epochs
    where: str | int = "last"
    title: ClassVar[str] = "TTS"

    def __post_init__(self) -> None:
        if not 0 < self.first < 1:
            raise UserError(f"TTS trains a share of the epochs in (0, 1) with skips, not {self.first}")

    def plan(self, recipe: Recipe) -> Plan:
        epoch = round(self.first * recipe.epochs)
        if not 0 < epoch < recipe.epochs:
            raise UserError(f"TTS needs an epoch before and one after the change; {recipe.epochs} epochs are too few")
        return Plan(changes=((epoch, RoLSS(self.where).apply),))

    @property
    def ambiguous(self) -> bool:
        """Whether the last stage may be meant by its number."""
        return numbered(self.where)

    def respelled(self, classifier: Classifier) -> "TTS":
        """With the last stage called so."""
        return replace(self, where=shortest(self.where, classifier))
