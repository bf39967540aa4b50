"""The only way from an attack to a target: what a threat model grants, and how often it was used."""

import copy
from typing import Literal, get_args

import torch
from torch import Tensor

from lightleak.errors import UserError
from lightleak.models.classifier import Classifier
from lightleak.models.precision import Precision, lowered

Access = Literal["gradients", "scores", "labels"]


class AccessError(PermissionError):
    """An attack asked for more than its threat model grants."""


class Oracle:
    """What an attacker may ask of a target; every image shown counts as one query.

    The target is copied and prepared in this one place (eval mode, frozen, channels_last), so that an attack can
    neither change it nor leave gradients behind. With `batch_statistics` it answers as in training (batch norms
    see the current batch, dropout is on), as some published code has it by accident.

    Two ways to be faster are off unless asked for, since answers then differ a little: `precision` "bfloat16" lets
    convolutions and products run in that precision (answers are float32 all the same), `compiled` has torch.compile
    prepare the network.
    """

    def __init__(
        self,
        target: Classifier,
        access: Access = "gradients",
        *,
        batch_statistics: bool = False,
        precision: Precision = "float32",
        compiled: bool = False,
    ) -> None:
        if access not in get_args(Access):
            raise UserError(f"access is one of {', '.join(get_args(Access))}, not {access!r}")
        if precision not in get_args(Precision):
            raise UserError(f"precision is one of {', '.join(get_args(Precision))}, not {precision!r}")
        self.precision: Precision = precision
        self.access: Access = access
        self.queries = 0
        self.classes = target.classes
        self.size = target.size
        self._target = copy.deepcopy(target).train(batch_statistics).requires_grad_(False)
        self._target.net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if compiled:
            self._target.net.compile()

    @property
    def device(self) -> torch.device:
        """Where the target is; images come from there, and so do answers."""
        return self._target.device

    def logits(self, images: Tensor) -> Tensor:
        """Logits N x classes that gradients flow through; AccessError unless access is "gradients"."""
        self._grant("gradients")
        self.queries += len(images)
        return self._answer(images)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Penultimate features and logits, both differentiable; AccessError unless access is "gradients"."""
        self._grant("gradients")
        self.queries += len(images)
        with lowered(self.precision, images.device):
            features, logits = self._target.features_and_logits(images.contiguous(memory_format=torch.channels_last))
        return features.float(), logits.float()

    @torch.no_grad()
    def scores(self, images: Tensor) -> Tensor:
        """Probabilities N x classes, detached; AccessError if only labels are granted."""
        self._grant("scores")
        self.queries += len(images)
        return self._answer(images).softmax(1)

    @torch.no_grad()
    def labels(self, images: Tensor) -> Tensor:
        """The class of the largest logit, N."""
        self.queries += len(images)
        return self._answer(images).argmax(1)

    def _answer(self, images: Tensor) -> Tensor:
        with lowered(self.precision, images.device):
            return self._target(images.contiguous(memory_format=torch.channels_last)).float()

    def _grant(self, wanted: Access) -> None:
        order = get_args(Access)
        if order.index(self.access) > order.index(wanted):
            raise AccessError(f"this oracle grants {self.access} only; the attack asked for {wanted}")
