"""No prior at all: a latent is the image's own pixels.

What an attack finds in it may convince the target and shows nobody: every attack through it is an adversarial null.
MI-Face (Fredrikson et al., CCS 2015; `attacks/miface.py`) is gradient descent in it.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightleak.errors import UserError
from lightleak.priors.prior import Prior

LARGEST = 1024


@dataclass(frozen=True)
class PixelsPrior(Prior):
    """Any image: latents are 3 x size x size colours in [0, 1], drawn evenly; outside they are clamped."""

    size: int = 64
    pixels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 1 <= self.size <= LARGEST:
            raise UserError(f"images have 1 to {LARGEST} pixels a side, not {self.size}")

    @property
    def latents(self) -> int:
        """Length of a latent vector: 3 * size * size."""
        return 3 * self.size**2

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        """Latents count x L: noise."""
        return torch.rand(count, self.latents, generator=rng, device=rng.device)

    def decode(self, latents: Tensor, classes: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Images N x 3 x size x size in [0, 1]; where a colour is clamped, its gradient is zero."""
        return latents.unflatten(1, (3, self.size, self.size)).clamp(0, 1)

    def realism(self, images: Tensor, classes: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """0 for every image: without public images none is more real than another."""
        return 0 * images.flatten(1).sum(1)

    def box(self, kappa: float) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """[0, 1], whatever kappa: there are no other colours."""
        return torch.zeros(self.latents), torch.ones(self.latents)

    def from_noise(self, noise: Tensor) -> Tensor:
        """Latents of standard normal noise N x L, even in [0, 1]."""
        return torch.special.ndtr(noise)

    def settings(self) -> dict[str, Any]:
        """What rebuilds this prior."""
        return asdict(self)

    def state(self) -> dict[str, Tensor]:
        """Empty: it has no weights."""
        return {}

    @classmethod
    def restore(cls, settings: dict[str, Any], state: dict[str, Tensor]) -> "PixelsPrior":
        """The prior that `settings` describe."""
        if state:
            raise UserError(f"the prior of pixels has no weights, got {', '.join(sorted(state))}")
        return cls(**settings)
