"""An attack in a package of its own: of several images of the prior, the one of which the target is most confident.

Install it with `pip install ./my_attack`; then `lightleak attack ... attack:best-of --attack.steps 50` runs it, and
studies use `my_attack.BestOf`.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from lightleak.attacks import Access, Attack, Found, Oracle
from lightleak.attacks.frame import Part, Tell
from lightleak.priors import Prior


@dataclass(frozen=True)
class BestOf(Attack):
    """Best of so many draws."""

    steps: int = 20  # draws for each image
    attempts: int = 2  # images of each class
    batch: int = field(default=64, compare=False)  # images at a time: decides speed and memory, not the result
    access: ClassVar[Access] = "scores"
    title: ClassVar[str] = "Best-of-N"  # as tables write it

    @property
    def keep(self) -> int:
        """Images of each class that are returned: all."""
        return self.attempts

    def search(self, oracle: Oracle, prior: Prior, part: Part, tell: Tell) -> Found:
        """The latents with the highest confidence."""
        best, confidence = part.latents(prior), torch.full((len(part),), -1.0, device=part.device)
        for step in range(self.steps):
            draws = own(prior, part, step)
            now = self.judge(oracle, prior.decode(draws, part.classes), part)
            better = now > confidence
            best, confidence = torch.where(better[:, None], draws, best), torch.where(better, now, confidence)
            tell(step + 1, confidence=float(confidence.mean()))
        return Found(best)


def own(prior: Prior, part: Part, step: int) -> torch.Tensor:
    """Latents of one step: drawn by seed, class and attempt, so that neither batches nor shards change the result."""
    return Part(part.seed + 1 + step, part.classes, part.attempts).latents(prior)
