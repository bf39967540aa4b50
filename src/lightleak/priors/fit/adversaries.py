"""What the trainings of small GANs share: the networks and optimisers of one training, and its loop.

Every one of them first teaches the generator as the decoder of an autoencoder (`warmup` steps, see `autoencoder.py`),
then lets generator and discriminator compete. What they do in a step is in a file each: `wgan`, `kedmi`, `plgmi`,
`lokt`.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Adam

from lightleak import randomness
from lightleak.data.population import Images
from lightleak.optimisers import fused
from lightleak.priors.fit.autoencoder import encoder, slow_down, tolerance
from lightleak.priors.fit.state import State, follow

G = TypeVar("G", bound=nn.Module)
D = TypeVar("D", bound=nn.Module)


class GanSettings(Protocol):
    """Settings that every training of a small GAN has."""

    @property
    def latents(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def warmup(self) -> int: ...
    @property
    def warmup_rate(self) -> float: ...
    @property
    def blur(self) -> float: ...
    @property
    def rate(self) -> float: ...
    @property
    def betas(self) -> tuple[float, float]: ...
    @property
    def checkpoint_every(self) -> int: ...


@dataclass
class Adversaries(Generic[G, D]):
    """The networks, optimisers, pixel tolerance and random stream of one training."""

    generator: G
    discriminator: D
    encoder: nn.Module  # of the warm-up
    average: G  # the running average of the generator
    generator_adam: Adam
    discriminator_adam: Adam
    warmup_adam: Adam
    tolerance: float
    rng: torch.Generator

    @classmethod
    def start(
        cls,
        images: Images,
        settings: GanSettings,
        seed: int,
        device: torch.device | str,
        networks: Callable[[], tuple[G, D]],
        width: int,
        critic_rate: float,
        **more: Any,
    ) -> Self:
        """New networks, drawn by `seed`, for public `images`; `width` is the discriminator's and the encoder's."""
        with randomness.own(seed):
            generator, discriminator = networks()
            warm = encoder(images.size, width, settings.latents)
        for network in (generator, discriminator, warm):
            network.to(device)
        return cls(
            generator,
            discriminator,
            warm,
            deepcopy(generator),
            fused(Adam, generator.parameters(), lr=settings.rate, betas=settings.betas),
            fused(Adam, discriminator.parameters(), lr=critic_rate, betas=settings.betas),
            fused(Adam, [*generator.parameters(), *warm.parameters()], lr=settings.warmup_rate, betas=(0.9, 0.99)),
            tolerance(images, settings.blur),
            torch.Generator().manual_seed(seed),
            **more,
        )

    def noise(self, settings: GanSettings, device: torch.device | str) -> Tensor:
        """Latents of one batch, standard normal, B x L."""
        return torch.randn(settings.batch, settings.latents, generator=self.rng).to(device)

    def state(
        self, folder: Path | None, recipe: str, asked: nn.Module | None = None, rival: str = "discriminator"
    ) -> State:
        """The state that checkpoints hold; `rival` is the discriminator's name there, `asked` the counted target."""
        networks = {} if asked is None else {"asked": asked}
        networks |= {"generator": self.generator, rival: self.discriminator}
        networks |= {"encoder": self.encoder, "average": self.average}
        optimisers = {"generator_adam": self.generator_adam, f"{rival}_adam": self.discriminator_adam}
        return State(networks, {**optimisers, "warmup_adam": self.warmup_adam}, self.rng, folder, recipe)

    def learn(
        self,
        state: State,
        settings: GanSettings,
        redraw: Callable[[], dict[str, float]],
        compete: Callable[[int], dict[str, float]],
        watch: Callable[..., None] | None,
    ) -> None:
        """Continue from `state`: call `redraw()` in each step of the warm-up, then `compete(step)`, counted from 0."""

        def step(index: int) -> dict[str, float]:
            if index < settings.warmup:
                slow_down(self.warmup_adam, settings.warmup_rate, index / settings.warmup)
                return redraw()
            if index == settings.warmup:
                follow(self.average, self.generator, 0.0)
            return compete(index - settings.warmup)

        state.run(step, settings.warmup + settings.steps, settings.checkpoint_every, watch)
