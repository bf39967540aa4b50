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

from dataclasses import dataclass, field
from math import pi
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from lightleak.attacks.draws import Rows
from lightleak.attacks.steps import Identity
from lightleak.data.views import DRAWS, View, crop, resized
from lightleak.errors import UserError
from lightleak.randomness import normals, uniforms

Kind = Literal["transforms", "noise"]


@dataclass(frozen=True)
class Alignment:
    """Which copies the target's gradient is averaged over; any attack with gradients takes it. Defaults are TAA's."""

    kind: Kind = "transforms"  # TAA; "noise" is PAA
    copies: int = 50
    view: View = View(scale=(0.8, 1.0), ratio=(0.9, 1.1), flip=0.5)
    rotation: float = 5.0  # degrees either way
    noise: float = 0.05  # standard deviation in shares of the pixel range (published code: 0.06; 64 pixels: 0.005)
    batch: int = field(default=256, compare=False)  # copies shown at a time: decides speed and memory, not the result
    version: ClassVar[int] = 2  # 1 drew copies on the processor

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UserError(f"alignment is by {' or '.join(get_args(Kind))}, not {self.kind!r}")
        if self.copies < 1 or self.batch < 1 or self.noise < 0 or not 0 <= self.rotation <= 180:
            raise UserError("copies and batch must be at least 1, noise at least 0, rotation from 0 to 180")

    def averaged(self, images: Tensor, identity: Identity, rows: Rows) -> tuple[Tensor, Tensor]:
        """The mean loss over the copies of each image, N, whose gradient in the images is the copies' mean gradient;
        and the copies' mean logits, N x C, detached.

        Copies depend on (seed, class, attempt, step) alone, and on which of an attempt's images they are of. Only the
        first derivative is right.
        """
        whole, device = images.detach(), images.device
        mean = torch.zeros(len(images), device=device)
        answers, slope = None, torch.zeros_like(whole)
        for first in range(0, len(images) * self.copies, self.batch):
            flat = torch.arange(first, min(first + self.batch, len(images) * self.copies), device=device)
            index, number = flat // self.copies, flat % self.copies
            some = index.unique()
            with torch.enable_grad():
                own = whole[some].requires_grad_()
                place = torch.searchsorted(some, index)
                seen = self._copies(own[place], rows.at(index), number)
                losses, logits = identity(seen, rows.at(index, number))
                (gradient,) = torch.autograd.grad(losses.sum(), own)
            slope[some] += gradient / self.copies
            mean.index_add_(0, index, losses.detach().to(mean) / self.copies)
            if answers is None:
                answers = torch.zeros(len(images), logits.shape[1], device=device)
            answers.index_add_(0, index, logits.detach().to(answers) / self.copies)
        assert answers is not None
        # A number whose value is the mean loss and whose gradient is the mean gradient.
        along = (images * slope).flatten(1).sum(1)
        return mean + (along - along.detach()), answers

    def _copies(self, images: Tensor, rows: Rows, number: Tensor) -> Tensor:
        """One perturbed copy of each image."""
        keys = rows.keys(number).to(images.device)
        if self.kind == "noise":
            return images + self.noise * normals(keys, *images.shape[1:]).to(images)
        draws = uniforms(keys, DRAWS + 1)
        angle = (2 * draws[:, DRAWS] - 1) * (self.rotation * pi / 180)
        return crop(images, *self.view.boxes(draws), angle)


def aligned(identity: Identity, alignment: Alignment | None, size: int) -> Identity:
    """An attack's identity loss with its gradient averaged over copies; without an alignment, the loss as it is.

    Copies are made of images of the `size` that the target takes, whatever the prior draws: what is done to them is
    done to what it sees. The logits beside the losses are the copies' mean.
    """
    if alignment is None:
        return identity
    return lambda images, rows: alignment.averaged(resized(images, size), identity, rows)


ALIGNMENTS = {
    "taa": Alignment(),
    "paa": Alignment(kind="noise"),
    "paa-64": Alignment(kind="noise", noise=0.005),
}
