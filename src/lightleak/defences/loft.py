"""LoFt: the features reach the logits through a few squashed numbers.

Yu et al. (KDD 2026, arXiv 2410.05814).

    features h -> batch norm -> Linear(d, rank) -> tanh -> Linear(rank, classes)

in place of the last layer, from the first epoch on. The paper bounds the best inversion by the rank of the features.
tanh saturates, which hides gradients as well: attack it with a loss of logits, and with its slope put back
(`lightleak.attacks.adaptive`).
"""

from dataclasses import dataclass
from typing import ClassVar

from lightleak.defences.mid import own_head
from lightleak.errors import UserError
from lightleak.models.classifier import Classifier
from lightleak.models.low_rank import insert
from lightleak.training.plan import Plan
from lightleak.training.recipes import Recipe


@dataclass(frozen=True)
class LoFt:
    """A head of low rank (LoFt)."""

    rank: int = 50  # of the main script; 20 to 500 were tried
    title: ClassVar[str] = "LoFt"

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UserError(f"LoFt's rank is at least 1, such as 50, not {self.rank}")

    def plan(self, recipe: Recipe) -> Plan:  # noqa: ARG002
        return Plan(changes=((0, self.apply),), head=True)

    def apply(self, classifier: Classifier) -> Classifier:
        """The classifier with such a head; UserError if no one linear layer, wider than the rank, makes the logits."""
        name, head = own_head(classifier, "LoFt")
        if self.rank >= head.in_features:
            raise UserError(
                f"LoFt compresses {head.in_features} features to fewer numbers, not to {self.rank}; choose a rank below"
            )
        change = {"kind": "low_rank", "head": name, "rank": self.rank}
        return classifier.with_net(insert(classifier.net, change), change=change)
