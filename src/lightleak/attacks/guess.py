"""The null attack: samples of the prior that nobody optimised, assigned to the classes at random.

What it scores is what a metric gives away for nothing. An attack has leaked something only as far as it beats this.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from lightleak.attacks.frame import Attack, Common, Found, Part, Tell
from lightleak.attacks.oracle import Access, Oracle
from lightleak.errors import UserError
from lightleak.priors.prior import Prior


@dataclass(frozen=True)
class Guess(Attack):
    """Samples of the prior, `keep` for each class; the target is asked only for its confidence in them."""

    keep: int = 3
    batch: int = field(default=256, compare=False)
    access: ClassVar[Access] = "scores"
    sorted: ClassVar[bool] = False
    null: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.keep < 1 or self.batch < 1:
            raise UserError(f"keep and batch must be at least 1, got {self.keep} and {self.batch}")

    @property
    def attempts(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Images of each class; none is left out."""
        return self.keep

    @property
    def steps(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """One: nothing is repeated."""
        return 1

    @property
    def images_a_step(self) -> int:
        """None: nothing is searched."""
        return 0

    def prepare(self, oracle: Oracle, prior: Prior, seed: int) -> Common:
        """Latents for every class of the target, of one stream, so that a class gets the same in any shard.

        A prior that draws given classes is given any: the right ones would be what the target told it.
        """
        count = oracle.classes * self.keep
        latents = prior.sample(count, torch.Generator().manual_seed(seed))
        drawn = torch.randint(oracle.classes, (count,), generator=torch.Generator().manual_seed(seed))
        return Common({"latents": latents, "drawn": drawn}, seed)

    def search(self, oracle: Oracle, prior: Prior, part: Part, tell: Tell) -> Found:  # noqa: ARG002
        """Samples, assigned to the classes."""
        index = part.classes * self.keep + part.attempts
        latents, drawn = part.table("latents")[index], part.table("drawn")[index]
        tell(1)
        return Found(latents, drawn=drawn)
