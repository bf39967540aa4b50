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
that a negative logit never won: `Reconstruction.best` picks those of highest confidence instead).
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from lightleak.attacks.alignment import Alignment, aligned
from lightleak.attacks.frame import Found, Needs, Part, ReturnsAll, Tell
from lightleak.attacks.oracle import Access, Oracle
from lightleak.attacks.steps import Identity, identity_loss, implausible, loss_problems
from lightleak.errors import refuse
from lightleak.priors.prior import Prior


@dataclass(frozen=True)
class GMI(ReturnsAll):
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
    sorted: ClassVar[bool] = False

    def __post_init__(self) -> None:
        problems = []
        if self.attempts < 1 or self.steps < 0 or self.averaged < 1 or self.batch < 1:
            problems.append("attempts, averaged and batch must be at least 1, steps at least 0")
        if not (self.rate > 0 and 0 <= self.momentum < 1 and self.clip > 0 and self.weight >= 0):
            problems.append("rate and clip must be above 0, momentum in [0, 1), weight at least 0")
        problems += loss_problems(self.loss)
        refuse(problems)

    def needs(self) -> Needs:
        """A critic."""
        return Needs(realism=True)

    def search(self, oracle: Oracle, prior: Prior, part: Part, tell: Tell) -> Found:
        """The optimised latents."""
        return self.descend(prior, part, aligned(identity_loss(oracle, self.loss), self.alignment, oracle.size), tell)

    def descend(self, prior: Prior, part: Part, identity: Identity, tell: Tell) -> Found:
        """The attack with any identity loss; LOMMA brings its own."""
        # 1. draw latents for each class and attempt
        latents = part.latents(prior)
        velocity = torch.zeros_like(latents)
        # 2. descend with momentum
        for step in range(self.steps):
            latents = latents.detach().requires_grad_()
            images = prior.decode(latents, part.classes)
            losses, logits = identity(images, part.rows(step))
            loss = (implausible(prior, images, part.classes) + self.weight * losses).sum() / self.averaged
            (slope,) = torch.autograd.grad(loss, latents)
            with torch.no_grad():
                latents, velocity = moved(latents, velocity, slope, self.rate, self.momentum, self.clip)
                confidence = logits.softmax(1).gather(1, part.classes[:, None]).mean()
            tell(step + 1, confidence=float(confidence))
        # 3. return all attempts
        return Found(latents.detach())


def moved(
    latents: Tensor, velocity: Tensor, slope: Tensor, rate: float, momentum: float, clip: float
) -> tuple[Tensor, Tensor]:
    """One step of Nesterov's momentum in its lookahead form: clipped latents, and the velocity as it was unclipped."""
    faster = momentum * velocity - rate * slope
    return (latents - momentum * velocity + (1 + momentum) * faster).clamp(-clip, clip), faster
