"""MID: limit how much the features say about the image, by a variational bottleneck before the head.

Wang et al., "Improving Robustness to Model Inversion Attacks via Mutual Information Regularization" (AAAI 2021).

    1. features h -> mean, s = Linear(h);  std = softplus(s - 5)
    2. r = mean + std * noise;  logits = Linear(r)
    3. loss = cross-entropy + beta * KL( N(mean, std^2) || N(0, I) )

The noise is drawn in training, at test time and under attack alike, as published, so every pass answers differently.
That hides gradients without removing them: also attack `averaged(classifier, draws)`, which a white-box attacker can
build at will.

Deviations from the published code: noise is drawn where the tensors live; the deviation cannot underflow to zero.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from lightleak.errors import UserError
from lightleak.models.bottleneck import average, divergence, insert
from lightleak.models.classifier import Classifier
from lightleak.training.plan import Batch, Plan, Term
from lightleak.training.recipes import Recipe


@dataclass(frozen=True)
class MID:
    """Mutual Information regularisation Defence."""

    beta: float = 0.003  # weight of the divergence; the published VGG-16's
    width: int | None = None  # dimensions of the bottleneck; None: half of the features, as published
    title: ClassVar[str] = "MID"

    def __post_init__(self) -> None:
        if not self.beta >= 0:
            raise UserError(f"MID's beta is a weight of at least 0, not {self.beta}; the paper uses 0.003 to 0.02")
        if self.width is not None and self.width < 1:
            raise UserError(f"MID's bottleneck is at least 1 wide, not {self.width}; None takes half the features")

    def plan(self, recipe: Recipe) -> Plan:  # noqa: ARG002
        term = Term({"kl": self.beta}, self._statistics, self._divergence, by_image=True)
        return Plan(changes=((0, self.apply),), terms=(term,), head=True)

    def apply(self, classifier: Classifier) -> Classifier:
        """The classifier with a new bottleneck as its head; UserError if no linear layer alone makes the logits."""
        name, head = own_head(classifier, "MID")
        width = self.width or max(1, head.in_features // 2)
        if width > head.in_features:
            raise UserError(f"MID's bottleneck is 1 to {head.in_features} wide, as the features are, not {width}")
        change = {"kind": "bottleneck", "head": name, "width": width}
        return classifier.with_net(insert(classifier.net, change), change=change)

    def _statistics(self, classifier: Classifier) -> tuple[str, ...]:
        return (f"{classifier.head_name.rpartition('.')[0]}.statistics",)

    def _divergence(self, batch: Batch, outputs: list[Tensor]) -> dict[str, Tensor]:  # noqa: ARG002
        return {"kl": divergence(outputs[0])}


def averaged(classifier: Classifier, draws: int = 8) -> Classifier:
    """The same classifier, answering with the mean logits over `draws` draws; 0 takes the mean of the bottleneck.

    It is how MID is attacked fairly, and how it would be used for steady answers. UserError without a bottleneck.
    """
    change = {"kind": "draws", "draws": draws}
    result = classifier.with_net(average(classifier.net, change), change=change)
    return result.train(classifier.training)


def own_head(classifier: Classifier, who: str) -> tuple[str, nn.Linear]:
    """`Classifier.only_head`; UserError, too, if a defence has put another head in its place already."""
    others = {"bottleneck": "MID's bottleneck", "low_rank": "a head of low rank"}
    if there := [others[change["kind"]] for change in classifier.changes if change["kind"] in others]:
        raise UserError(f"{who} puts a head of its own into the network, which has {there[0]} already; begin without")
    return classifier.only_head(who)
