"""GMI: generative model inversion (Zhang et al., The Secret Revealer, CVPR 2020), without an image of the person.

    1. for each class draw latents of a generator that learnt from public images, one for each attempt
    2. descend -D(G(z)) + 100 CE(T(G(z)), class) with momentum, and clip the latents after every step
    3. return all attempts

Steps as in the code that the later papers compare with (KED-MI, LOMMA: 2,400; the first release and PLG-MI: 1,500).

The published loss is a mean over a batch of 60 identities and the step is plain momentum, so the gradient of each
image is divided by 60 (`averaged`); here losses are summed and divided by that number whatever the batch is, so that
what comes out does not depend on it.

Deviations: all attempts of all classes are optimised at once (published: one restart after the other); each attempt
draws its own latent (published: restart s gives the same latents to the i-th identity of every batch); all attempts
are returned and count (the first release kept the attempt with the largest logit for each class, counting from 0, so
that a negative logit never won: `Reconstruction.best` picks the most believed instead).
"""

import time
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from lightleak.attacks.alignment import Alignment, aligned
from lightleak.attacks.oracle import Access, Oracle
from lightleak.attacks.reconstruction import Reconstruction
from lightleak.attacks.steps import (
    LOSSES,
    Identities,
    Identity,
    asked,
    group_of,
    implausible,
    own_latents,
    seed_of,
    shown,
    whole_batches,
)
from lightleak.errors import UserError
from lightleak.priors import Prior
from lightleak.training.loop import Watch


@dataclass(frozen=True)
class GMI:
    """Generative model inversion: move latents by momentum until the target is sure and the critic content."""

    attempts: int = 5  # latents for each class; all are returned
    steps: int = 2400
    rate: float = 0.02
    momentum: float = 0.9
    clip: float = 1.0  # latents are kept in [-clip, clip] after every step
    weight: float = 100.0  # of the identity loss, beside 1 for the critic
    averaged: int = 60  # the published batch: the gradient of an image is divided by it
    loss: str = "cross-entropy"  # or poincare, max-margin, logit
    alignment: Alignment | None = None  # average the gradient over copies of what the target looks at (TAA, PAA)
    batch: int = field(default=64, compare=False)  # images at a time: decides speed and memory, not the result
    access: ClassVar[Access] = "gradients"

    def __post_init__(self) -> None:
        problems = []
        if self.attempts < 1 or self.steps < 0 or self.averaged < 1 or self.batch < 1:
            problems.append("attempts, averaged and batch must be at least 1, steps at least 0")
        if not (self.rate > 0 and 0 <= self.momentum < 1 and self.clip > 0 and self.weight >= 0):
            problems.append("rate and clip must be above 0, momentum in [0, 1), weight at least 0")
        if self.loss not in LOSSES:
            problems.append(f"there is no loss {self.loss!r}; choose from {', '.join(LOSSES)}")
        if problems:
            raise UserError("; ".join(problems))

    @property
    def keep(self) -> int:
        """Images of each class that are returned."""
        return self.attempts

    @property
    def group(self) -> int:
        """Identities that share a batch; shards are cut between such groups."""
        return group_of(self.attempts, self.batch)

    def run(
        self, oracle: Oracle, prior: Prior, classes: Tensor, rng: torch.Generator, watch: Watch | None = None
    ) -> Reconstruction:
        """`attempts` reconstructions of each class; what one gets depends on (rng's seed, class, attempt) alone."""
        seed = seed_of(rng)
        identities = aligned(asked(oracle, self.loss), self.alignment, seed)
        return self.search(oracle, prior, classes, seed, identities, watch)

    def search(
        self, oracle: Oracle, prior: Prior, classes: Tensor, seed: int, identities: Identities, watch: Watch | None
    ) -> Reconstruction:
        """The attack with any identity loss; LOMMA brings its own."""
        began, before = time.monotonic(), oracle.queries
        labels = classes.repeat_interleave(self.attempts)
        attempts = torch.arange(self.attempts).repeat(len(classes))
        # 1. draw latents for each class and attempt
        latents = own_latents(prior, seed, labels, attempts)
        # 2. descend with momentum
        parts = list(whole_batches(len(classes), self.attempts, self.batch))
        for part in parts:

            def tell(step: int, done: int = part.start, size: int = part.stop - part.start, **numbers: float) -> None:
                if watch:
                    watch(done * self.steps + step * size, len(latents) * self.steps, **numbers)

            identity = identities(labels[part], attempts[part])
            latents[part] = self.descend(prior, latents[part], labels[part], identity, tell)
        # 3. return all attempts
        images, belief = shown(oracle, prior, latents, labels, parts)
        return Reconstruction(
            images=images,
            classes=labels,
            latents=latents,
            confidence=belief,
            queries=oracle.queries - before,
            seconds=time.monotonic() - began,
        )

    def descend(self, prior: Prior, latents: Tensor, classes: Tensor, identity: Identity, tell) -> Tensor:
        """Step 2 for one batch: the optimised latents."""
        velocity = torch.zeros_like(latents)
        for step in range(self.steps):
            latents = latents.detach().requires_grad_()
            images = prior.decode(latents, classes)
            losses, logits = identity(images)
            loss = (implausible(prior, images, classes) + self.weight * losses).sum() / self.averaged
            (slope,) = torch.autograd.grad(loss, latents)
            with torch.no_grad():
                latents, velocity = moved(latents, velocity, slope, self.rate, self.momentum, self.clip)
                belief = logits.softmax(1).gather(1, classes[:, None]).mean()
            tell(step + 1, confidence=float(belief))
        return latents.detach()


def moved(
    latents: Tensor, velocity: Tensor, slope: Tensor, rate: float, momentum: float, clip: float
) -> tuple[Tensor, Tensor]:
    """One step of Nesterov's momentum in its lookahead form: clipped latents, and the velocity as it was unclipped."""
    faster = momentum * velocity - rate * slope
    return (latents - momentum * velocity + (1 + momentum) * faster).clamp(-clip, clip), faster
