"""AT-AT: train on features that are not robust, from which no attack can draw a picture.

Torp, Smith, Breuer, "Anti-adversarial training" (ICLR 2026). What inversion brings home are robust features; so

    1. y' = another class, drawn uniformly
    2. x' = x moved towards y' by projected gradient descent: no pixel by more than epsilon, which nobody can see
    3. loss = cross-entropy(T(x), y) + weight * cross-entropy(T(x'), y')

teaches the network to trust what cannot be seen. The price that the paper names is adversarial robustness, so robust
accuracy is measured beside natural accuracy. An epsilon of 2.5e-4 is gone in bfloat16, where 68 % of such images are
the same as before: this defence is computed in float32, or not at all.

Deviations from the published code: epsilon and step are shares of the pixel range, whatever the network's own
normalisation is (there: 5e-4 and 1e-4 in images normalised to [-1, 1], which is the same for those); the descent asks
the network in eval mode (there: in training mode, where five of seven batches that move its running statistics are
adversarial ones; `training_mode` does that).
"""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lightleak.errors import UserError
from lightleak.models.classifier import Classifier
from lightleak.training.adversarial import answering, other_labels, perturbed, random_start
from lightleak.training.plan import Batch, Plan
from lightleak.training.recipes import Recipe


@dataclass(frozen=True)
class ATAT:
    """Anti-Adversarial Training."""

    weight: float = 0.08  # of the loss on x'
    epsilon: float = 2.5e-4  # how far a pixel of [0, 1] moves at most
    step: float = 5e-5
    steps: int = 5
    training_mode: bool = False  # the descent moves the running statistics, as published
    title: ClassVar[str] = "AT-AT"
    version: ClassVar[int] = 2  # 1 drew starts on the processor

    def __post_init__(self) -> None:
        problems = []
        if not 0 < self.weight < float("inf"):
            problems.append(f"its weight is above 0, such as 0.08, not {self.weight}")
        if not 1e-6 <= self.epsilon <= 1:
            problems.append(f"epsilon is a share of the pixel range from 1e-6 to 1, such as 2.5e-4, not {self.epsilon}")
        if not 0 < self.step <= 1 or self.steps < 1:
            problems.append(f"it takes steps of above 0, one at least, not {self.steps} of {self.step}")
        if problems:
            raise UserError(f"AT-AT: {'; '.join(problems)}")

    def plan(self, recipe: Recipe) -> Plan:  # noqa: ARG002
        return Plan(changes=((0, self.apply),), loss=self.loss, exact=True, passes=2, robust=True)

    def apply(self, classifier: Classifier) -> Classifier:
        """The classifier as it is; UserError where epsilon would be rounded away, or there is no other class."""
        lower = [name for name, each in classifier.net.named_parameters() if each.dtype != torch.float32]
        if lower:
            raise UserError(f"AT-AT is computed in float32, and {lower[0]!r} of the network is of lower precision")
        if classifier.classes < 2:
            raise UserError("AT-AT moves images towards another class, and this network knows one alone")
        return classifier

    def loss(self, batch: Batch) -> Tensor:
        """1 to 3. The clean pass comes last: it is the one that other defences look into."""
        drawn = torch.randint(batch.classifier.classes, (len(batch.labels),)).to(batch.labels)
        labels = other_labels(drawn, batch.labels, batch.classifier.classes)
        moved = self.moved(batch.classifier, batch.images, labels)
        wrong = F.cross_entropy(batch.classifier(moved).float(), labels)
        return F.cross_entropy(batch.classifier(batch.images).float(), batch.labels) + self.weight * wrong

    def moved(self, classifier: Classifier, images: Tensor, labels: Tensor) -> Tensor:
        """x' of images N x 3 x H x W in [0, 1] for the classes N that they are moved towards."""
        start = random_start(images, torch.randint(2**62, (len(images),)), self.epsilon)
        with nullcontext() if self.training_mode else answering(classifier):
            return perturbed(
                classifier, images, labels, epsilon=self.epsilon, step=self.step, steps=self.steps, towards=True,
                start=start,
            )  # fmt: skip
