"""Shared by priors made of networks: naming, loading and freezing their weights, and latents that are N(0, 1)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from lightleak.errors import UserError
from lightleak.place import Precision
from lightleak.priors.prior import Prior


def weights_of(networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """The weights of several networks, each name prefixed by that of its network and a dot."""
    return {f"{part}.{name}": value for part, net in networks.items() for name, value in net.state_dict().items()}


def fill(networks: Mapping[str, nn.Module], weights: Mapping[str, Tensor]) -> None:
    """Give networks on the meta device their weights, as `weights_of` names them; RuntimeError where they differ."""
    for part, net in networks.items():
        own = {name.removeprefix(f"{part}."): value for name, value in weights.items() if name.startswith(f"{part}.")}
        net.load_state_dict(own, assign=True)


@dataclass(frozen=True, eq=False)
class GanPair(Prior):
    """A generator of latents that are N(0, 1), and its rival; both are in evaluation mode and frozen."""

    generator: Any
    rival: ClassVar[str] = "discriminator"  # the field that holds the network which tells real images from made ones

    def __post_init__(self) -> None:
        for name in self.shared():
            one, other = getattr(self.generator, name), getattr(self.networks()[self.rival], name)
            if one != other:
                raise UserError(f"generator and {self.rival} differ in {name}: {one} and {other}")
        for net in self.networks().values():
            net.eval().requires_grad_(False)

    @classmethod
    def shared(cls) -> tuple[str, ...]:
        """The settings in which both networks must agree."""
        return ("size",)

    def networks(self) -> dict[str, nn.Module]:
        """Both networks, by the names under which their weights are saved."""
        return {"generator": self.generator, self.rival: getattr(self, self.rival)}

    @property
    def size(self) -> int:
        """Side length of the images in pixels."""
        return self.generator.size

    @property
    def latents(self) -> int:
        """Length of a latent vector."""
        return self.generator.latents

    @property
    def device(self) -> torch.device:
        """The device of the generator."""
        return next(self.generator.parameters()).device

    def lowered(self, precision: Precision) -> Self:
        """The same with convolutions in that precision."""
        return replace(self, precision=precision)

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        """Latents count x L, standard normal."""
        return torch.randn(count, self.latents, generator=rng, device=rng.device)

    def state(self) -> dict[str, Tensor]:
        """All weights, names prefixed by `generator.` and the rival's name."""
        return weights_of(self.networks())

    @classmethod
    def restore(cls, settings: dict[str, Any], state: dict[str, Tensor]) -> Self:
        """The prior that `settings` and `state` describe; a mismatch of names or shapes raises RuntimeError."""
        with torch.device("meta"):  # nothing is allocated for sizes that the weights do not have
            prior = cls.built(settings)
        fill(prior.networks(), state)
        return prior

    @classmethod
    def built(cls, settings: dict[str, Any]) -> Self:
        """The prior that `settings` describe, with new weights."""
        raise NotImplementedError
