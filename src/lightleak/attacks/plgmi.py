"""PLG-MI: Pseudo Label-Guided Model Inversion (Yuan et al., AAAI 2023), the inversion.

    1. draw latents for every class and restart; the class itself is given to the generator
    2. descend the max-margin loss of the target, summed over two random augmentations of each image
    3. return the images of all restarts

The prior does most of the work: a generator that was trained with the target's help (`priors/fit/plgmi.py`). There is
no term for realism, and latents are not clipped. All classes and restarts are optimised together (published: batches
of 60 classes, one restart after another).

Deviations: each attempt has its own random numbers (published: the same latents for every batch of classes, since the
seed is reset); both augmentations go through the target in one pass; losses are summed, not averaged.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from lightleak.attacks.alignment import Alignment, aligned
from lightleak.attacks.draws import Rows
from lightleak.attacks.frame import Found, Needs, Part, ReturnsAll, Tell
from lightleak.attacks.oracle import Access, Oracle
from lightleak.attacks.steps import identity_loss, loss_problems
from lightleak.data.augmentation import DRAWS, Augmentation
from lightleak.errors import refuse
from lightleak.priors.prior import Prior


@dataclass(frozen=True)
class PLGMI(ReturnsAll):
    """PLG-MI's inversion: optimise the latents of a class-conditional generator; defaults are the published ones."""

    attempts: int = 5  # restarts for each class; all are returned
    steps: int = 600
    rate: float = 0.1  # Adam's
    loss: str = "max-margin"  # or cross-entropy, poincare, logit
    views: int = 2  # augmentations of each image that the target sees in a step
    view: Augmentation = Augmentation()  # what the target looks through
    alignment: Alignment | None = None  # average the gradient over copies of what the target looks at (TAA, PAA)
    batch: int = field(default=64, compare=False)  # attempts at a time: decides speed and memory, not the result
    access: ClassVar[Access] = "gradients"

    def __post_init__(self) -> None:
        problems = []
        problems += loss_problems(self.loss)
        if self.steps < 0 or min(self.attempts, self.views, self.batch) < 1 or not self.rate > 0:
            problems.append("steps must be at least 0, attempts, views and batch at least 1, rate above 0")
        refuse(problems)

    @property
    def title(self) -> str:
        """What a table calls it."""
        return "PLG-MI" if self.steps else "PLG-MI, stage 1 alone"

    @property
    def images_a_step(self) -> int:
        """Views of each attempt."""
        return self.views * super().images_a_step

    def needs(self) -> Needs:
        """A generator that draws given classes."""
        return Needs(classes=True)

    def search(self, oracle: Oracle, prior: Prior, part: Part, tell: Tell) -> Found:
        """The optimised latents."""
        # 1. latents for every class and restart
        latents = part.latents(prior).requires_grad_()
        # 2. descend the loss through two augmentations
        optimiser = torch.optim.Adam([latents], self.rate)
        draws = part.draws(self.steps, self.views, DRAWS, stream=1)
        seen = part.classes.repeat_interleave(self.views)
        views = torch.arange(self.views, device=part.device)
        streams = (self.views * part.attempts[:, None] + views).flatten()  # of each view its own
        identity = aligned(identity_loss(oracle, self.loss), self.alignment, oracle.size)
        for step in range(self.steps):
            images = prior.decode(latents, part.classes).repeat_interleave(self.views, 0)
            rows = Rows(part.seed, seen, streams, step)
            losses, logits = identity(self.view(images, draws[:, step].flatten(0, 1)), rows)
            (latents.grad,) = torch.autograd.grad(losses.sum(), latents)
            optimiser.step()
            with torch.no_grad():
                confidence = logits.softmax(1).gather(1, seen[:, None]).mean()
            tell(step + 1, confidence=float(confidence))
        # 3. the images of all restarts
        return Found(latents.detach())
