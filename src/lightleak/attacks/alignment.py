"""Gradient-manifold alignment: the target's gradient, averaged over perturbed copies of what it is shown.

AlignMI (Peng et al., NeurIPS 2025, arXiv 2509.20177). Of the gradient in the image only what lies along the generator's
images moves a latent, 2 to 3 % of its energy. The mean over copies keeps what the copies agree on:

    1. copy the image that the target would be shown: noise (PAA), or crops, mirrors and small rotations (TAA)
    2. average the loss's gradient in the image over the copies
    3. take that mean through the generator, once

Deviations: the copies are shown in few large batches (published: one by one, beside a clean pass whose gradient is not
used); PAA's noise is a share of the pixel range (published: of the batch's largest minus smallest value, which couples
the images of a batch); copies read the image's border where a rotation looks beyond it (published: black).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from math import pi
from typing import Literal, get_args

import torch
from torch import Tensor

from lightleak.attacks.steps import Identities, Identity, keyed
from lightleak.data.views import DRAWS, View, crop
from lightleak.errors import UserError

Loss = Callable[[Tensor, Tensor], Tensor]
Kind = Literal["transforms", "noise"]


@dataclass(frozen=True)
class Alignment:
    """Which copies the target's gradient is averaged over; any attack with gradients takes it. Defaults are TAA's."""

    kind: Kind = "transforms"  # TAA; "noise" is PAA
    copies: int = 50
    view: View = View(scale=(0.8, 1.0), ratio=(0.9, 1.1), flip=0.5)  # noqa: RUF009
    rotation: float = 5.0  # degrees either way
    noise: float = 0.05  # standard deviation in shares of the pixel range (published code: 0.06; 64 pixels: 0.005)
    batch: int = field(default=256, compare=False)  # copies shown at a time: decides speed and memory, not the result

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UserError(f"alignment is by {' or '.join(get_args(Kind))}, not {self.kind!r}")
        if self.copies < 1 or self.batch < 1 or self.noise < 0 or not 0 <= self.rotation <= 180:
            raise UserError("copies and batch must be at least 1, noise at least 0, rotation from 0 to 180")

    def losses(self, images: Tensor, loss: Loss, seed: int, classes: Tensor, attempts: Tensor, step: int) -> Tensor:
        """The mean loss over the copies of each image, N, whose gradient in the images is the copies' mean gradient.

        `loss(copies, index)` gives the loss of each copy; `index` says which of the images it is a copy of. Copies
        depend on (seed, class, attempt, step) alone. Only the first derivative is right.
        """
        whole = images.detach()
        mean = torch.zeros(len(images), device=images.device)
        slope = torch.zeros_like(whole)
        for first in range(0, len(images) * self.copies, self.batch):
            flat = torch.arange(first, min(first + self.batch, len(images) * self.copies))
            index, number = flat // self.copies, flat % self.copies
            rows = index.unique()
            with torch.enable_grad():
                own = whole[rows].requires_grad_()
                place = torch.searchsorted(rows, index)
                seen = self._copies(own[place], seed, classes[index], attempts[index], step, number)
                losses = loss(seen, index)
                (gradient,) = torch.autograd.grad(losses.sum(), own)
            slope[rows] += gradient / self.copies
            mean.index_add_(0, index.to(mean.device), losses.detach().to(mean) / self.copies)
        # A number whose value is the mean loss and whose gradient is the mean gradient.
        along = (images * slope).flatten(1).sum(1)
        return mean + (along - along.detach())

    def _copies(
        self, images: Tensor, seed: int, classes: Tensor, attempts: Tensor, step: int, number: Tensor
    ) -> Tensor:
        """One perturbed copy of each image."""
        keys = zip(classes.tolist(), attempts.tolist(), number.tolist(), strict=True)
        generators = [keyed(seed, label, attempt, step, copy) for label, attempt, copy in keys]
        if self.kind == "noise":
            noise = torch.stack([torch.randn(images.shape[1:], generator=own) for own in generators])
            return images + self.noise * noise.to(images)
        draws = torch.stack([torch.rand(DRAWS + 1, generator=own) for own in generators]).to(images.device)
        angle = (2 * draws[:, DRAWS] - 1) * (self.rotation * pi / 180)
        return crop(images, *self.view.boxes(draws), angle)


def aligned(identities: Identities, alignment: Alignment | None, seed: int) -> Identities:
    """An attack's identity loss with its gradient averaged over copies; without an alignment, the loss as it is.

    The logits that it gives beside the losses are the copies' mean.
    """
    if alignment is None:
        return identities

    def bind(classes: Tensor, attempts: Tensor) -> Identity:
        steps = count()

        def identity(images: Tensor) -> tuple[Tensor, Tensor]:
            rows: list[tuple[Tensor, Tensor]] = []

            def look(copies: Tensor, index: Tensor) -> Tensor:
                losses, logits = identities(classes[index], attempts[index])(copies)
                rows.append((index, logits.detach()))
                return losses

            losses = alignment.losses(images, look, seed, classes, attempts, next(steps))
            mean = torch.zeros(len(images), rows[0][1].shape[1], device=images.device)
            for index, logits in rows:
                mean.index_add_(0, index.to(mean.device), logits.to(mean) / alignment.copies)
            return losses, mean

        return identity

    return bind


ALIGNMENTS = {
    "taa": Alignment(),
    "paa": Alignment(kind="noise"),
    "paa-64": Alignment(kind="noise", noise=0.005),
}
