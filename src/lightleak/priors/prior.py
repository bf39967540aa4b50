"""The protocol of priors, in which attacks search: what every prior can do, and what only some can."""

from typing import Any, ClassVar, NamedTuple, Protocol, Self

import torch
from torch import Tensor

from lightleak.errors import UserError


class State(NamedTuple):
    """A synthesis stopped at a block: that block's features, and the image so far."""

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
        """The device on which it computes; latents to be decoded are there."""
        return torch.device("cpu")

    @property
    def classes(self) -> int | None:
        """The number of classes that it can be asked to draw; None: it knows no classes."""
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
        """Logits N x C of whom images N x 3 x S x S show, if a target taught it; differentiable."""
        raise UserError(f"{type(self).__name__} tells no classes apart; fit LOKT's (training:lokt)")

    @property
    def hits(self) -> Tensor | None:
        """How often the target that taught it assigned its images to each class, int64, C; None without one."""
        return None

    def lowered(self, precision: str) -> Self:  # noqa: ARG002
        """The same with its convolutions, if any, in that precision."""
        return self

    def coupled_by(self, count: int) -> Self:  # noqa: ARG002
        """The same, with so many consecutive images compared with each other in `realism`, if supported (KED-MI's)."""
        return self

    def factors_of(self, latents: Tensor) -> Tensor | None:  # noqa: ARG002
        """The identity factors that latents stand for, N x F, if images are rendered from factors."""
        return None

    def untruncated(self, latents: Tensor, cutoff: int) -> Tensor:  # noqa: ARG002
        """Latents that are truncated in the first `cutoff` style slots only; UserError where there are none."""
        raise UserError(f"only a StyleGAN2 prior has style slots to cut off at {cutoff}, not {type(self).__name__}")

    def box(self, kappa: float) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds, L each, that keep a search within `kappa` standard deviations."""
        end = torch.full((self.latents,), float(kappa))
        return -end, end

    @property
    def noise_size(self) -> int:
        """Length of the standard normal noise that `from_noise` takes."""
        return self.latents

    def from_noise(self, noise: Tensor) -> Tensor:
        """Latents from standard normal noise N x `noise_size`, distributed exactly as `sample`; differentiable."""
        return noise

    @property
    def blocks(self) -> int:
        """Number of blocks between which a synthesis can be stopped; 0: it cannot."""
        return 0

    def begin(self, latents: Tensor, block: int) -> State:  # noqa: ARG002
        """The synthesis up to block `block`, exclusive."""
        raise UserError(f"{type(self).__name__} cannot be stopped between blocks; use a StyleGAN2 prior")

    def through(self, state: State, latents: Tensor, block: int) -> State:  # noqa: ARG002
        """The state after block `block`, from the state before it."""
        raise UserError(f"{type(self).__name__} cannot be stopped between blocks; use a StyleGAN2 prior")

    def finish(self, state: State, latents: Tensor, block: int) -> Tensor:  # noqa: ARG002
        """The images in [0, 1] from a synthesis stopped before block `block`; `begin` followed by `finish` of the
        same latents equals `decode`.
        """
        raise UserError(f"{type(self).__name__} cannot be stopped between blocks; use a StyleGAN2 prior")
