"""GMI's WGAN-GP on public images.

Zhang et al., The Secret Revealer, CVPR 2020, with the gradient penalty of Gulrajani et al., NeurIPS 2017. `WganGp()`
is the published setting (120 epochs of CelebA's 30,000 public images are 11,232 steps).

`QUICK` makes recognisable samples in about half a minute on one core, where the published setting makes fewer
than 50 updates. Its networks are narrow, and most of the time the generator learns as the decoder of a variational
autoencoder (Kingma and Welling, ICLR 2014), which needs no balance with a critic and so takes large steps. Then a few
careful adversarial steps sharpen the images and give the critic its sense of what is real. The critic is penalised in
every second update only, twice as hard (as StyleGAN2's lazy regularisation); the result is a running average of the
generator.

Deviation: batches are drawn with replacement, so that training is counted in steps and not in epochs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from lightleak.data.population import Images
from lightleak.errors import refuse
from lightleak.priors.fit.adversaries import Adversaries
from lightleak.priors.fit.autoencoder import redraw
from lightleak.priors.fit.state import batch, check_enough, faults, follow, recipe, update
from lightleak.priors.gan64 import Critic, GanPrior, Generator


@dataclass(frozen=True)
class WganGp:
    """Settings of a WGAN-GP; the defaults are GMI's for CelebA."""

    width: int = 64  # channels of the generator's last hidden stage
    critic_width: int = 64  # channels of the critic's first stage
    latents: int = 100
    steps: int = 11_232  # updates of the generator
    critic_steps: int = 5  # updates of the critic per update of the generator
    batch: int = 64
    rate: float = 2e-4  # the generator's
    critic_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    penalty: float = 10.0
    penalty_every: int = 1  # critic updates from one penalty to the next
    average: float = 0.0  # decay of the running average of the generator; 0 keeps the last weights
    warmup: int = 0  # steps as the decoder of a variational autoencoder, before all others
    warmup_rate: float = 2e-3  # falls to a tenth
    blur: float = 1.5  # tolerance of the autoencoder, in standard deviations of a pixel; larger is smoother
    checkpoint_every: int = 250
    needs_target: ClassVar[bool] = False
    asks: ClassVar[Literal["gradients", "scores"] | None] = None  # of the target
    batch_statistics: ClassVar[bool] = False

    def __post_init__(self) -> None:
        least = {"width": 1, "critic_width": 1, "latents": 1, "steps": 1, "critic_steps": 1, "batch": 2}
        least |= {"penalty": 0, "penalty_every": 1, "checkpoint_every": 1, "warmup": 0}
        wrong = faults(self, least, ("rate", "critic_rate", "warmup_rate", "blur"))
        refuse(wrong)


QUICK = WganGp(
    width=16,
    critic_width=16,
    latents=64,
    steps=250,
    critic_steps=2,
    batch=32,
    rate=2e-4,
    critic_rate=1e-3,
    betas=(0.5, 0.99),
    penalty_every=2,
    average=0.98,
    warmup=1000,
)


_Training = Adversaries[Generator, Critic]


def fit_wgan(
    images: Images,
    settings: WganGp = QUICK,
    seed: int = 0,
    folder: Path | None = None,
    watch: Callable[..., None] | None = None,
    device: torch.device | str = "cpu",
) -> GanPrior:
    """Train a generator and a critic on public images, at their own size (GMI, eq. 1).

    `watch(step, total, ...)` hears `error` and `nats` of the autoencoder, then `distance` (the critic's estimate of
    Wasserstein's) and `penalty`.
    """
    check_enough(images)
    run = _start(images, settings, seed, device)
    state = run.state(folder, recipe(settings, images, seed), rival="critic")
    state.resume()
    pixels = images.pixels.to(device)
    run.learn(
        state,
        settings,
        lambda: _redraw(run, settings, pixels),
        lambda step: _compete(run, settings, pixels, settings.warmup + step),
        watch,
    )
    return GanPrior(run.average, run.discriminator)


def _compete(run: _Training, settings: WganGp, pixels: Tensor, step: int) -> dict[str, float]:
    """One step of the WGAN-GP; returns the critic's estimate of the distance, and its penalty when it paid one."""
    numbers: dict[str, float] = {}
    # 1. The critic learns to tell real images from made ones, with a gradient of norm 1 between them.
    for turn in range(settings.critic_steps):
        real = batch(pixels, settings.batch, run.rng)
        with torch.no_grad():
            made = run.generator(run.noise(settings, pixels.device))
        on_made, on_real = run.discriminator(torch.cat([made, real])).chunk(2)
        loss = on_made.mean() - on_real.mean()
        numbers["distance"] = -float(loss.detach())
        if (step * settings.critic_steps + turn) % settings.penalty_every == 0:
            penalty = gradient_penalty(run.discriminator, real, made, run.rng)
            numbers["penalty"] = float(penalty.detach())
            loss = loss + settings.penalty * settings.penalty_every * penalty
        update(run.discriminator_adam, loss)

    # 2. The generator follows the critic, which stands still.
    run.discriminator.requires_grad_(False)
    made = run.generator(run.noise(settings, pixels.device))
    update(run.generator_adam, -run.discriminator(made).mean())
    run.discriminator.requires_grad_(True)
    follow(run.average, run.generator, settings.average)
    return numbers


def _redraw(run: _Training, settings: WganGp, pixels: Tensor) -> dict[str, float]:
    """One step of the warm-up."""
    real = batch(pixels, settings.batch, run.rng)
    noise = run.noise(settings, pixels.device)
    return redraw(run.encoder, run.generator, run.warmup_adam, real, noise, run.tolerance)


def gradient_penalty(critic: nn.Module, real: Tensor, made: Tensor, rng: torch.Generator) -> Tensor:
    """The mean of (|grad D(x)| - 1)^2 at one random x on the line between each real and made image (Gulrajani
    et al.).
    """
    share = torch.rand(len(real), 1, 1, 1, generator=rng).to(real.device)
    between = (real + share * (made - real)).detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()


def _start(images: Images, settings: WganGp, seed: int, device: torch.device | str) -> _Training:
    def networks() -> tuple[Generator, Critic]:
        generator = Generator(images.size, settings.width, settings.latents)
        return generator, Critic(images.size, settings.critic_width)

    width, rate = settings.critic_width, settings.critic_rate
    return _Training.start(images, settings, seed, device, networks, width, rate)
