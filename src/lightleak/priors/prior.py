"""What every prior answers for, and what only some can do: the protocol that attacks search in."""

from typing import Any, ClassVar, NamedTuple, Protocol, Self

import torch
from torch import Tensor

from lightleak.errors import UserError


class State(NamedTuple):
    """A synthesis that has come as far as a block: what that block left, and the image so far."""

    features: Tensor  # N x channels x s x s
    image: Tensor | None  # N x 3 x s x s, as the blocks so far have summed it; None before the first


class Prior(Protocol):
    """A generator of plausible images; latents are drawn by `sample`, moved by attacks and turned into images.

    A prior inherits what it does not say otherwise: that it draws no given classes, has no style slots, no noise
    before its latents and no blocks to stop between.
    """

    log_odds: ClassVar[bool] = False  # whether realism is the log-odds of being real, not a score of some critic's
    pixels: ClassVar[bool] = False  # whether latents are the colours of the image itself: no prior at all

    @property
    def size(self) -> int:
        """Side length of the images in pixels."""
        ...

    @property
    def latents(self) -> int:
        """Length L of a latent vector."""
        ...

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        """Latents count x L, on the generator's device."""
        ...

    def decode(self, latents: Tensor, classes: Tensor | None = None) -> Tensor:
        """Images N x 3 x size x size in [0, 1], differentiable in the latents."""
        ...

    def realism(self, images: Tensor, classes: Tensor | None = None) -> Tensor:
        """One score per image, higher is more like the public images, differentiable."""
        ...

    def settings(self) -> dict[str, Any]:
        """What rebuilds it, together with `state`; JSON data."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Its weights, by name."""
        ...

    @classmethod
    def restore(cls, settings: dict[str, Any], state: dict[str, Tensor]) -> Self:
        """The prior that `settings` and `state` describe."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes; latents that are decoded come from there."""
        return torch.device("cpu")

    @property
    def classes(self) -> int | None:
        """How many classes it draws when they are asked for; None: it does not know classes."""
        return None

    @property
    def judges(self) -> bool:
        """Whether `realism` can be asked."""
        return True

    @property
    def recognises(self) -> bool:
        """Whether `recognise` can be asked."""
        return False

    def recognise(self, images: Tensor) -> Tensor:  # noqa: ARG002
        """Logits N x C of whom images N x 3 x S x S show, where it was taught by a target; differentiable."""
        raise UserError(f"{type(self).__name__} tells no classes apart; fit LOKT's (training:lokt)")

    @property
    def hits(self) -> Tensor | None:
        """How often the target that taught it named each class of its images, int64, C; None: none taught it so."""
        return None

    def lowered(self, precision: str) -> Self:  # noqa: ARG002
        """The same with convolutions in that precision, where it has any."""
        return self

    def coupled_by(self, count: int) -> Self:  # noqa: ARG002
        """The same with so many consecutive images seeing each other in `realism`, where they can (KED-MI's)."""
        return self

    def factors_of(self, latents: Tensor) -> Tensor | None:  # noqa: ARG002
        """The identity factors that latents stand for, N x F, where images are rendered from such."""
        return None

    def untruncated(self, latents: Tensor, cutoff: int) -> Tensor:  # noqa: ARG002
        """Latents that are truncated in the first `cutoff` style slots only; UserError where there are none."""
        raise UserError(f"only a StyleGAN2 prior has style slots to cut off at {cutoff}, not {type(self).__name__}")

    def box(self, kappa: float) -> tuple[Tensor, Tensor]:
        """Lower and upper ends, L each, of the latents within `kappa` standard deviations: where a search stays."""
        end = torch.full((self.latents,), float(kappa))
        return -end, end

    @property
    def noise_size(self) -> int:
        """Length of the standard normal noise that `from_noise` takes."""
        return self.latents

    def from_noise(self, noise: Tensor) -> Tensor:
        """Latents of standard normal noise N x `noise_size`, differentiable: the very distribution of `sample`."""
        return noise

    @property
    def blocks(self) -> int:
        """Blocks that a synthesis can be stopped between; 0: it cannot be."""
        return 0

    def begin(self, latents: Tensor, block: int) -> State:  # noqa: ARG002
        """The synthesis up to block `block`, exclusive."""
        raise UserError(f"{type(self).__name__} cannot be stopped between blocks; use a StyleGAN2 prior")

    def through(self, state: State, latents: Tensor, block: int) -> State:  # noqa: ARG002
        """What block `block` makes of the state before it."""
        raise UserError(f"{type(self).__name__} cannot be stopped between blocks; use a StyleGAN2 prior")

    def finish(self, state: State, latents: Tensor, block: int) -> Tensor:  # noqa: ARG002
        """The images in [0, 1] that a synthesis stopped before block `block` comes to; `begin` and `finish` of the
        same latents are `decode`.
        """
        raise UserError(f"{type(self).__name__} cannot be stopped between blocks; use a StyleGAN2 prior")
