"""The null attack: images of the prior that nobody optimised, given out to the classes at random.

What it scores is what a metric gives away for nothing. An attack has leaked something only as far as it beats this.
"""

import time
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from lightleak.attacks.oracle import Access, Oracle
from lightleak.attacks.reconstruction import Reconstruction
from lightleak.attacks.steps import batches, seed_of
from lightleak.errors import UserError
from lightleak.priors import Prior
from lightleak.training.loop import Watch


@dataclass(frozen=True)
class Guess:
    """Samples of the prior, `keep` for each class; the target is asked only for its belief in them."""

    keep: int = 3
    batch: int = field(default=256, compare=False)
    access: ClassVar[Access] = "scores"

    def __post_init__(self) -> None:
        if self.keep < 1 or self.batch < 1:
            raise UserError(f"keep and batch must be at least 1, got {self.keep} and {self.batch}")

    def run(
        self,
        oracle: Oracle,
        prior: Prior,
        classes: Tensor,
        rng: torch.Generator,
        watch: Watch | None = None,
    ) -> Reconstruction:
        """`keep` unoptimised samples for each class."""
        began, asked = time.monotonic(), oracle.queries
        labels = classes.repeat_interleave(self.keep)
        # One stream, drawn for every class of the target, so that a class gets the same in any shard.
        seed = seed_of(rng)
        latents = prior.sample(oracle.classes * self.keep, torch.Generator().manual_seed(seed))
        index = (classes[:, None] * self.keep + torch.arange(self.keep)).flatten()
        latents = latents[index]
        # A prior that draws given classes is given any: the right ones would be what the target told it.
        drawn = torch.randint(
            oracle.classes, (oracle.classes * self.keep,), generator=torch.Generator().manual_seed(seed)
        )
        images, belief = [], []
        for part in batches(len(latents), self.batch):
            with torch.no_grad():
                images.append(prior.decode(latents[part], drawn[index[part]]))
            belief.append(oracle.scores(images[-1]).gather(1, labels[part, None]).squeeze(1))
            if watch:
                watch(part.stop, len(latents))
        return Reconstruction(
            images=torch.cat(images),
            classes=labels,
            latents=latents,
            confidence=torch.cat(belief),
            queries=oracle.queries - asked,
            seconds=time.monotonic() - began,
        )
