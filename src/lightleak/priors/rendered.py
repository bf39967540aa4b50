"""The renderer itself as a prior over its own factors: the strongest attacker imaginable in the rendered
world.

A latent vector is the identity factors followed by the circumstances. Attacks move latents freely, but a
factor lives in [-1, 1]; so what leaves that range is mirrored back into it. Inside, latent and factor are the
same number; the gradient is 1 or -1 everywhere and never vanishes, as it would behind a clamp or in the tail
of a squashing function.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from lightleak.data.faces import CIRCUMSTANCES, FACTORS, render, sample_circumstances, sample_factors
from lightleak.data.portrait import LARGEST, SMALLEST
from lightleak.errors import UserError
from lightleak.priors.prior import Prior


@dataclass(frozen=True)
class RenderedPrior(Prior):
    """Painted faces: factors uniform in [-1, 1], circumstances normal with standard deviation `strength`."""

    size: int = 64
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not SMALLEST <= self.size <= LARGEST:
            raise UserError(f"faces are painted at {SMALLEST} to {LARGEST} pixels, not {self.size}")
        if not 0 <= self.strength <= 3:
            raise UserError(f"the strength of circumstances must be from 0 to 3, not {self.strength}")

    @property
    def latents(self) -> int:
        """Length of a latent vector: F + K."""
        return len(FACTORS) + len(CIRCUMSTANCES)

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        """Latents count x (F + K)."""
        return torch.cat([sample_factors(count, rng), sample_circumstances(count, rng, self.strength)], dim=1)

    def decode(self, latents: Tensor, classes: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Portraits N x 3 x size x size in [0, 1], differentiable; classes are ignored."""
        return render(self.factors_of(latents), self.circumstances_of(latents), self.size)

    def realism(self, images: Tensor, classes: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """0 for every image: the painter paints only faces, so none is more real than another."""
        return 0 * images.flatten(1).sum(1)

    def box(self, kappa: float) -> tuple[Tensor, Tensor]:
        """[-1, 1] for every factor, whatever kappa: there are no faces beyond; kappa * strength for circumstances."""
        ends = [torch.ones(len(FACTORS)), torch.full((len(CIRCUMSTANCES),), kappa * self.strength)]
        return -torch.cat(ends), torch.cat(ends)

    def from_noise(self, noise: Tensor) -> Tensor:
        """Latents from standard normal noise N x L: factors are 2 Phi(noise) - 1, which is uniform."""
        factors = torch.special.ndtr(noise[:, : len(FACTORS)]) * 2 - 1
        return torch.cat([factors, noise[:, len(FACTORS) :] * self.strength], 1)

    def factors_of(self, latents: Tensor) -> Tensor:
        """The identity factors that latents stand for, N x F in [-1, 1], comparable with `Population.factors`."""
        return mirrored(latents[:, : len(FACTORS)])

    def circumstances_of(self, latents: Tensor) -> Tensor:
        """The circumstances that latents stand for, N x K, unbounded (the painter bounds what it draws)."""
        return latents[:, len(FACTORS) :]

    def settings(self) -> dict[str, Any]:
        """What rebuilds this prior."""
        return asdict(self)

    def state(self) -> dict[str, Tensor]:
        """Empty: a painter has no weights."""
        return {}

    @classmethod
    def restore(cls, settings: dict[str, Any], state: dict[str, Tensor]) -> "RenderedPrior":
        """The prior that `settings` describe."""
        if state:
            raise UserError(f"the rendered prior has no weights, got {', '.join(sorted(state))}")
        return cls(**settings)


def mirrored(values: Tensor) -> Tensor:
    """Values reflected at -1 and 1 as often as needed (a triangle wave of period 4); inside [-1, 1]
    unchanged.
    """
    return torch.where(values.abs() <= 1, values, 1 - (torch.remainder(values + 1, 4) - 2).abs())
