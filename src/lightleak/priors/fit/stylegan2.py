"""StyleGAN2 on public images, small enough for a processor.

Karras et al., Analyzing and Improving the Image Quality of StyleGAN, CVPR 2020, with the settings and the order of
steps of Training Generative Adversarial Networks with Limited Data, NeurIPS 2020, without its augmentation:

    the non-saturating logistic loss (Goodfellow et al., 2014)
    R1, the squared slope of the discriminator at real images (Mescheder et al., 2018), in every 16th step
    path lengths: a step in style space should change an image equally much everywhere, in every 4th step
    the result is a running average of the generator; its mean style is tracked for truncation

What is penalised in every n-th step only is penalised n times as hard, and Adam's rate and betas are corrected for the
steps it takes more (lazy regularisation).

Deviations, all of them for little time. With `warmup`, the generator first learns to draw each public image from its
coordinates along the directions in which the images differ most (eigenfaces). They are uncorrelated and of variance 1,
as latents are; and without a discriminator to keep in balance, steps are large. The discriminator then learns from the
images that the generator was just judged by, instead of from new ones. Batches are drawn with replacement, so that
training is counted in steps. Where styles are mixed, each image changes over at a layer of its own. Penalties are
computed in full precision.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from lightleak import randomness
from lightleak.data.population import Images
from lightleak.errors import refuse
from lightleak.optimisers import fused
from lightleak.place import Place, lowered
from lightleak.priors.fit.state import State, batch, check_enough, faults, follow, recipe, update
from lightleak.priors.stylegan2 import Dense, Discriminator, Generator, StyleGAN2Prior


@dataclass(frozen=True)
class SmallStyleGAN2:
    """Settings of a StyleGAN2 of a few hundred thousand parameters; its size is the images' own."""

    base: int = 1024  # channels of the widest map times its side: 16 at 64 x 64, 32 at 32 x 32
    widest: int = 64  # channels at most
    critic_base: int = 1024
    critic_widest: int = 64
    latents: int = 64
    styles: int = 128
    depth: int = 4  # layers of the mapping
    steps: int = 5_000  # updates of both networks
    batch: int = 32
    group: int = 4  # images that the discriminator compares with each other
    rate: float = 2e-3
    critic_rate: float = 2e-3
    betas: tuple[float, float] = (0.0, 0.99)
    r1: float = 1.0  # weight of half the squared slope
    r1_every: int = 16  # steps from one penalty to the next; 0: none
    paths: float = 2.0  # weight of the spread of path lengths
    paths_every: int = 4
    paths_decay: float = 0.01  # of the mean length, which is what the lengths should be
    paths_share: int = 2  # of the batch, one in so many images
    mixing: float = 0.9  # probability that an image has the styles of two latents
    half_life: float = 10.0  # of the running average, in thousand images; at most a twentieth of those seen
    mirror: bool = False  # whether an image and its mirror image are equally likely
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    warmup: int = 0  # steps as the decoder of eigenfaces, before all others
    warmup_rate: float = 1e-2  # falls to a tenth
    warmup_noise: float = 0.1  # share of noise in an image's coordinates
    checkpoint_every: int = 250
    needs_target: ClassVar[bool] = False
    asks: ClassVar[Literal["gradients", "scores"] | None] = None  # of the target
    batch_statistics: ClassVar[bool] = False

    def __post_init__(self) -> None:
        least = {"steps": 0, "batch": 2, "group": 1, "r1_every": 0, "paths_every": 0, "paths_share": 1, "warmup": 0}
        least |= {"checkpoint_every": 1, "r1": 0, "paths": 0}
        wrong = faults(self, least, ("rate", "critic_rate", "warmup_rate", "half_life", "paths_decay"))
        if not wrong and self.batch % self.group:
            wrong.append(f"batch must be a multiple of group, not {self.batch} and {self.group}")
        if not wrong and self.batch < 2 * self.paths_share:
            wrong.append(f"paths_share must leave two of the {self.batch} images, not one in {self.paths_share}")
        if self.steps + self.warmup < 1:
            wrong.append("steps and warmup are both 0, so nothing would be learnt")
        shares = {name: getattr(self, name) for name in ("mixing", "warmup_noise")}
        wrong += [f"{name} must be from 0 to 1, not {share}" for name, share in shares.items() if not 0 <= share <= 1]
        refuse(wrong)


class Eigenfaces(nn.Module):
    """The coordinates of images along the directions in which public images differ most, each of variance 1.

    Images N x 3 x S x S to N x L (Turk and Pentland, Eigenfaces for Recognition, 1991); seen at 32 x 32 pixels at most.
    """

    mean: Tensor
    directions: Tensor

    def __init__(self, images: Tensor, latents: int) -> None:
        super().__init__()
        rows = _small(images).flatten(1)
        mean = rows.mean(0)
        values, vectors = torch.linalg.eigh((rows - mean) @ (rows - mean).T / len(rows))  # N x N, for there are fewer
        values, vectors = values.flip(0)[:latents], vectors.flip(1)[:, :latents]
        # rows' u / (sqrt(N) s) has length 1, and coordinates along it have variance s^2.
        scale = (len(rows) ** 0.5 * values.clamp(min=1e-6 * values[0] + 1e-12)).reciprocal()  # they may be all alike
        directions = (rows - mean).T @ vectors * scale
        self.register_buffer("mean", mean)
        self.register_buffer("directions", F.pad(directions, (0, latents - directions.shape[1])))

    def forward(self, images: Tensor) -> Tensor:
        return (_small(images).flatten(1) - self.mean) @ self.directions


def _small(images: Tensor) -> Tensor:
    """Images averaged over squares of pixels, down to a side of at most 32."""
    return F.avg_pool2d(images, max(1, images.shape[-1] // 32))


class Lengths(nn.Module):
    """The mean length of paths so far."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))


@dataclass
class _Training:
    """The networks and optimisers of one training."""

    generator: Generator
    critic: Discriminator
    eigenfaces: Eigenfaces
    average: Generator
    lengths: Lengths
    generator_adam: Adam
    critic_adam: Adam
    warmup_adam: Adam
    bfloat16: bool
    rng: torch.Generator
    step: int = 0


NETWORKS = ("generator", "critic", "eigenfaces", "average", "lengths")
OPTIMISERS = ("generator_adam", "critic_adam", "warmup_adam")


def fit_stylegan2(
    images: Images,
    settings: SmallStyleGAN2 = SmallStyleGAN2(),
    seed: int = 0,
    folder: Path | None = None,
    watch: Callable[..., None] | None = None,
    device: torch.device | str = "cpu",
) -> StyleGAN2Prior:
    """Train a generator, returned as its running average, and a discriminator on public images.

    `watch(step, total, ...)` hears `error` of the warm-up, then `real` and `made` (mean scores, apart by
    as much as the discriminator can tell), `slope` (the squared one, R1) and `length` (the mean of paths). With a
    folder, each checkpoint comes with samples.png: the same latents each time, without truncation. More steps go on
    from a checkpoint of fewer; fewer steps than it has seen give what it holds.
    """
    check_enough(images)
    run = _start(images, settings, seed, device)
    networks = {name: getattr(run, name) for name in NETWORKS}
    optimisers = {name: getattr(run, name) for name in OPTIMISERS}
    # No step depends on how many there will be, so a kept training may be prolonged, or end where it is.
    identity = recipe(settings, images, seed, steps=None, checkpoint_every=None)
    state = State(networks, optimisers, run.rng, folder, identity)
    state.resume()
    pixels = images.pixels.to(device)
    shown = torch.randn(64, settings.latents, generator=torch.Generator().manual_seed(seed)).to(device)

    def step(index: int) -> dict[str, float]:
        run.step = index
        return (_redraw if index < settings.warmup else _compete)(run, settings, pixels)

    @torch.no_grad()
    def show() -> None:
        state.save_samples((run.average(shown) * 0.5 + 0.5).clamp(0, 1))

    state.run(step, settings.warmup + settings.steps, settings.checkpoint_every, watch, show)
    return StyleGAN2Prior(run.average, run.critic)


def _compete(run: _Training, settings: SmallStyleGAN2, pixels: Tensor) -> dict[str, float]:
    """One step of both networks; returns mean scores, and what was penalised when it was."""
    step = run.step - settings.warmup
    numbers: dict[str, float] = {}
    # 1. The generator makes images that the discriminator, which stands still, should take for real.
    run.critic.requires_grad_(False)
    w = _styles(run, settings, settings.batch)
    with _autocast(run, pixels.device):
        made = run.generator.synthesis(w, run.rng)
        score = run.critic(made)
    update(run.generator_adam, F.softplus(-score.float()).mean())
    # 2. Every so often: steps in style space should change an image equally much everywhere.
    if settings.paths_every and step % settings.paths_every == 0:
        w = _styles(run, settings, settings.batch // settings.paths_share)
        lengths = path_lengths(run.generator.synthesis, w, run.rng)
        run.lengths.mean.lerp_(lengths.detach().mean(), settings.paths_decay)
        numbers["length"] = float(run.lengths.mean)
        penalty = (lengths - run.lengths.mean).square().mean()
        update(run.generator_adam, settings.paths * settings.paths_every * penalty)

    # 3. The discriminator learns to tell the public images from those.
    run.critic.requires_grad_(True)
    real = _real(run, settings, pixels)
    with _autocast(run, pixels.device):
        on_made, on_real = run.critic(made.detach()).float(), run.critic(real).float()
    numbers |= {"real": float(on_real.detach().mean()), "made": float(on_made.detach().mean())}
    update(run.critic_adam, (F.softplus(on_made) + F.softplus(-on_real)).mean())
    # 4. Every so often: its slope at public images should be small.
    if settings.r1_every and step % settings.r1_every == 0:
        slope = r1(run.critic, real)
        numbers["slope"] = float(slope.detach())
        update(run.critic_adam, settings.r1 / 2 * settings.r1_every * slope)

    # 5. The result is a running average.
    seen = (step + 1) * settings.batch
    half_life = min(1000 * settings.half_life, seen / 20)
    _average(run, 0.5 ** (settings.batch / half_life))
    return numbers


def _redraw(run: _Training, settings: SmallStyleGAN2, pixels: Tensor) -> dict[str, float]:
    """One step as the decoder of eigenfaces; returns the mean absolute error (of 1)."""
    for group in run.warmup_adam.param_groups:
        group["lr"] = group["scale"] * settings.warmup_rate * (1 - 0.9 * run.step / settings.warmup)
    real = _real(run, settings, pixels)
    latents = run.eigenfaces(real)
    latents = latents.lerp(torch.randn(latents.shape, generator=run.rng).to(latents.device), settings.warmup_noise)
    w = run.generator.mapping(latents)
    run.generator.mapping.track(w)
    with _autocast(run, pixels.device):
        drawn = run.generator.synthesis(w, "none")
    error = (drawn.float() - real).abs().mean()
    update(run.warmup_adam, error)
    _average(run, 0.0)
    return {"error": float(error.detach()) / 2}


def r1(critic: nn.Module, real: Tensor) -> Tensor:
    """The mean squared slope of the scores at `real`, N x 3 x S x S (Mescheder et al., eq. 9, without gamma / 2)."""
    real = real.detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(real).sum(), real, create_graph=True)
    return slope.square().flatten(1).sum(1).mean()


def path_lengths(synthesis: Callable[..., Tensor], w: Tensor, rng: torch.Generator) -> Tensor:
    """How much a step in style space changes each image, seen in a random direction y: |J' y|, N, differentiable.

    `w` is N x slots x styles; the norm is over a slot's style, the root of its mean square over slots. y is normal,
    divided by the root of the number of pixels (StyleGAN2, eq. 4).
    """
    images = synthesis(w, rng)
    direction = (
        torch.randn(images.shape, generator=rng).to(images.device) / (images.shape[-1] * images.shape[-2]) ** 0.5
    )
    (slope,) = torch.autograd.grad((images * direction).sum(), w, create_graph=True)
    return slope.square().sum(2).mean(1).sqrt()


def _styles(run: _Training, settings: SmallStyleGAN2, count: int) -> Tensor:
    """Styles count x slots x `styles`; those that are mixed change over to a second latent at some slot. They move
    the mean style.
    """
    mapping, slots = run.generator.mapping, run.generator.synthesis.slots
    device = mapping.w_avg.device
    z = torch.randn(2 * count, settings.latents, generator=run.rng).to(device)
    mixed = torch.rand(count, generator=run.rng) < settings.mixing
    change = torch.randint(1, slots, (count,), generator=run.rng).where(mixed, slots)
    first = (torch.arange(slots) < change[:, None])[..., None].to(device)
    if not mixed.any():
        z = z[:count]
    w = mapping(z)
    mapping.track(w[:count])
    return torch.where(first, w[:count, None], w[-count:, None])


def _real(run: _Training, settings: SmallStyleGAN2, pixels: Tensor) -> Tensor:
    """A batch of public images in [-1, 1]."""
    real = batch(pixels, settings.batch, run.rng) * 2 - 1
    if settings.mirror:
        turned = (torch.rand(len(real), generator=run.rng) < 0.5).to(real.device)
        real = torch.where(turned[:, None, None, None], real.flip(3), real)
    return real.contiguous(memory_format=torch.channels_last)


def _average(run: _Training, decay: float) -> None:
    """Move the running average of the weights; the mean style is an average already."""
    follow(run.average, run.generator, decay)
    run.average.mapping.w_avg.copy_(run.generator.mapping.w_avg)


def _autocast(run: _Training, device: torch.device) -> AbstractContextManager:
    return lowered("bfloat16" if run.bfloat16 else "float32", device)


def _bfloat16(settings: SmallStyleGAN2, device: torch.device) -> bool:
    """Whether to compute in bfloat16: as the settings say, or where the device has instructions for it."""
    if settings.precision != "auto":
        return settings.precision == "bfloat16"
    return Place(device).computes_bfloat16()


def _start(images: Images, settings: SmallStyleGAN2, seed: int, device: torch.device | str) -> _Training:
    s = settings
    with randomness.own(seed):
        generator = Generator(images.size, s.latents, s.styles, s.depth, s.base, s.widest)
        critic = Discriminator(images.size, s.critic_base, s.critic_widest, group=s.group)
    pieces = torch.arange(0, len(images), 1 + len(images) // 2000).split(100)  # whole, large images would fill memory
    some = torch.cat([_small(images.floats(piece) * 2 - 1) for piece in pieces])
    for network in (generator, critic):
        network.to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return _Training(
        generator,
        critic,
        Eigenfaces(some, s.latents).to(device),
        deepcopy(generator),
        Lengths().to(device),
        _lazy(generator, s.rate, s.betas, s.paths_every),
        _lazy(critic, s.critic_rate, s.betas, s.r1_every),
        fused(Adam, _warmup_groups(generator), betas=(0.9, 0.99)),
        _bfloat16(s, torch.device(device)),
        torch.Generator().manual_seed(seed),
    )


def _lazy(network: nn.Module, rate: float, betas: tuple[float, float], every: int) -> Adam:
    """Adam with its rate and betas corrected for one step more in `every` steps (StyleGAN2, app. B)."""
    share = every / (every + 1) if every else 1.0
    betas = (betas[0] ** share, betas[1] ** share)
    return fused(Adam, network.parameters(), lr=rate * share, betas=betas, eps=1e-8)


def _warmup_groups(generator: Generator) -> list[dict[str, Any]]:
    """Parameters by the scale of their stored weights: the rate suits weights of standard deviation 1; the mapping's
    are a hundredfold, so that it would hardly move.
    """
    mapping: Dense = generator.mapping.fc0  # pyright: ignore[reportAssignmentType]
    parts = ((generator.synthesis, 1.0), (generator.mapping, 1 / mapping.rate))
    return [{"params": list(part.parameters()), "scale": scale} for part, scale in parts]
