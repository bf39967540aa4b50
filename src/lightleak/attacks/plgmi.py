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

import time
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from lightleak.attacks.alignment import Alignment, aligned
from lightleak.attacks.oracle import Access, Oracle
from lightleak.attacks.reconstruction import Reconstruction
from lightleak.attacks.steps import LOSSES, asked, best_first, group_of, own_draws, own_latents, seed_of, whole_batches
from lightleak.data.augmentation import DRAWS, Augmentation
from lightleak.errors import UserError
from lightleak.priors import Prior
from lightleak.training.loop import Watch


@dataclass(frozen=True)
class PLGMI:
    """PLG-MI's inversion: optimise the latents of a class-conditional generator; defaults are the published ones."""

    attempts: int = 5  # restarts for each class; all are returned
    steps: int = 600
    rate: float = 0.1  # Adam's
    loss: str = "max-margin"  # or cross-entropy, poincare, logit
    views: int = 2  # augmentations of each image that the target sees in a step
    view: Augmentation = Augmentation()  # noqa: RUF009
    alignment: Alignment | None = None  # average the gradient over copies of what the target looks at (TAA, PAA)
    batch: int = field(default=64, compare=False)  # attempts at a time: decides speed and memory, not the result
    access: ClassVar[Access] = "gradients"

    def __post_init__(self) -> None:
        problems = []
        if self.loss not in LOSSES:
            problems.append(f"there is no loss {self.loss!r}; choose from {', '.join(LOSSES)}")
        if self.steps < 0 or min(self.attempts, self.views, self.batch) < 1 or not self.rate > 0:
            problems.append("steps must be at least 0, attempts, views and batch at least 1, rate above 0")
        if problems:
            raise UserError("; ".join(problems))

    @property
    def title(self) -> str:
        """What a table calls it."""
        return "PLG-MI" if self.steps else "PLG-MI, stage 1 alone"

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
        """`attempts` images of each class, best first; what a class gets depends on (rng's seed, class) alone."""
        began, asked = time.monotonic(), oracle.queries
        seed = seed_of(rng)
        # 1. latents for every class and restart
        labels = classes.repeat_interleave(self.attempts)
        attempts = torch.arange(self.attempts).repeat(len(classes))
        latents = own_latents(prior, seed, labels, attempts)
        # 2. descend the loss through two augmentations
        parts = list(whole_batches(len(classes), self.attempts, self.batch))
        for part in parts:

            def tell(step: int, done: int = part.start, size: int = part.stop - part.start, **numbers: float) -> None:
                if watch:
                    watch(done * self.steps + step * size, len(latents) * self.steps, **numbers)

            latents[part] = self.descend(oracle, prior, latents[part], labels[part], attempts[part], seed, tell)
        # 3. the images of all restarts
        images, belief = [], []
        for part in parts:
            with torch.no_grad():
                images.append(prior.decode(latents[part], labels[part]))
            belief.append(oracle.scores(images[-1]).gather(1, labels[part, None]).squeeze(1))
        return Reconstruction(
            images=torch.cat(images),
            classes=labels,
            latents=latents,
            confidence=torch.cat(belief),
            queries=oracle.queries - asked,
            seconds=time.monotonic() - began,
        ).at(best_first(torch.cat(belief), self.attempts))

    def descend(
        self, oracle: Oracle, prior: Prior, start: Tensor, classes: Tensor, attempts: Tensor, seed: int, tell
    ) -> Tensor:
        """Step 2 for one batch of attempts: the optimised latents."""
        latents = start.clone().requires_grad_()
        optimiser = torch.optim.Adam([latents], self.rate)
        draws = own_draws(seed + 1, classes, attempts, (self.steps, self.views, DRAWS)).to(start.device)
        seen = classes.repeat_interleave(self.views)
        streams = (self.views * attempts[:, None] + torch.arange(self.views)).flatten()  # of each view its own
        identity = aligned(asked(oracle, self.loss), self.alignment, seed)(seen, streams)
        for step in range(self.steps):
            images = prior.decode(latents, classes).repeat_interleave(self.views, 0)
            losses, logits = identity(self.view(images, draws[:, step].flatten(0, 1)))
            (latents.grad,) = torch.autograd.grad(losses.sum(), latents)
            optimiser.step()
            with torch.no_grad():
                belief = logits.softmax(1).gather(1, seen[:, None]).mean()
            tell(step + 1, confidence=float(belief))
        return latents.detach()
