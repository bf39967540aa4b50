"""KED-MI's inversion-specific GAN on public images, with the target as their teacher.

Chen et al., Knowledge-Enriched Distributional Model Inversion Attacks, ICCV 2021, section 3.1.

    1. ask the target about every public image once: soft labels
    2. the discriminator learns these labels, and to tell real images from made ones
    3. the generator matches the mean features of real images, and makes images that are clearly of one class

`KedMi()` is the published setting (120 epochs of CelebA's 30,000 public images are 11,232 updates of the generator).
`KED_QUICK` starts the generator as the decoder of an autoencoder, as `wgan.QUICK` does.

Deviations: the target is asked once and in evaluation mode (published: in every step and in training mode, so that its
batch norms see the batch alone and dropout is on; `batch_statistics=True` does so); batches are drawn with replacement,
so that training is counted in steps; the entropy is weighted per image (published: 1e-4 times the sum over a batch of
64, which is the same number).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lightleak.data.population import Images
from lightleak.errors import refuse
from lightleak.priors.fit.adversaries import Adversaries
from lightleak.priors.fit.autoencoder import redraw
from lightleak.priors.fit.state import (
    Asked,
    Logits,
    answers,
    batch,
    check_enough,
    digest_of,
    faults,
    follow,
    recipe,
    update,
)
from lightleak.priors.gan64 import Generator, InversionPrior, MinibatchDiscriminator


@dataclass(frozen=True)
class KedMi:
    """Settings of KED-MI's GAN; the defaults are the published ones for CelebA."""

    width: int = 64  # channels of the generator's last hidden stage
    discriminator_width: int = 64  # channels of the discriminator's first stage
    latents: int = 100
    kernels: int = 64  # of minibatch discrimination
    dimensions: int = 50
    steps: int = 11_232  # updates of the generator
    critic_steps: int = 5  # updates of the discriminator per update of the generator
    batch: int = 64
    rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    entropy: float = 6.4e-3  # weight of the mean entropy of made images
    average: float = 0.0  # decay of the running average of the generator; 0 keeps the last weights
    warmup: int = 0  # steps as the decoder of a variational autoencoder, before all others
    warmup_rate: float = 2e-3  # falls to a tenth
    blur: float = 1.5  # tolerance of the autoencoder, in standard deviations of a pixel; larger is smoother
    batch_statistics: bool = False  # as published: the teacher in training mode, asked in every step
    checkpoint_every: int = 250
    needs_target: ClassVar[bool] = True
    asks: ClassVar[Literal["gradients", "scores"] | None] = "scores"  # of the target

    def __post_init__(self) -> None:
        least = {"width": 1, "discriminator_width": 1, "latents": 1, "kernels": 1, "dimensions": 1, "steps": 1}
        least |= {"critic_steps": 1, "batch": 2, "checkpoint_every": 1, "warmup": 0, "entropy": 0}
        wrong = faults(self, least, ("rate", "warmup_rate", "blur"))
        refuse(wrong)


KED_QUICK = KedMi(
    width=16,
    discriminator_width=16,
    latents=64,
    kernels=16,
    dimensions=8,
    steps=250,
    critic_steps=2,
    batch=32,
    betas=(0.5, 0.99),
    average=0.98,
    warmup=1000,
)

# ---------------------------------------------------------------------------------------------------------------------
# Losses: means over a batch. Logits are the discriminator's; "made" has the logit 0 that is not among them.


def supervised(logits: Tensor, confidence: Tensor) -> Tensor:
    """Cross-entropy of the discriminator's classes to the target's confidence in them (both N x C)."""
    return F.cross_entropy(logits, confidence)


def unsupervised(on_real: Tensor, on_made: Tensor) -> Tensor:
    """Half the sum of -log p("real") of real and -log p("made") of generated images: softplus of the log-odds."""
    real, made = on_real.logsumexp(1), on_made.logsumexp(1)
    return (F.softplus(-real).mean() + F.softplus(made).mean()) / 2


def feature_matching(made: Tensor, real: Tensor) -> Tensor:
    """Mean absolute difference between the mean features of made and of real images (Salimans et al., 2016)."""
    return (made.mean(0) - real.mean(0)).abs().mean()


def entropy(logits: Tensor) -> Tensor:
    """Mean entropy of the classes of each image, in nats."""
    logarithms = logits.log_softmax(1)
    return -(logarithms.exp() * logarithms).sum(1).mean()


# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class _Training(Adversaries[Generator, MinibatchDiscriminator]):
    """The networks of one training, and what teaches them."""

    target: Logits
    confidence: Tensor  # of every public image, N x C


def fit_kedmi(
    images: Images,
    settings: KedMi,
    seed: int,
    folder: Path | None,
    watch: Callable[..., None] | None,
    device: torch.device | str,
    target: Asked,
) -> InversionPrior:
    """Train a generator and a discriminator on public images and the target's confidence in them.

    `watch(step, total, ...)` hears `error` and `nats` of the autoencoder, then `labels` (cross-entropy to the teacher),
    `real` (the discriminator's own loss), `matching` and `entropy`.
    """
    check_enough(images)
    # 1. ask the target about every public image once
    asked = answers(target, images, device=device)
    run = _start(images, settings, seed, device, target, asked)
    teacher = "training mode" if settings.batch_statistics else digest_of(asked)
    state = run.state(folder, recipe(settings, images, seed, teacher=teacher), target)
    state.resume()
    pixels = images.pixels.to(device)
    run.learn(
        state,
        settings,
        lambda: warmup_step(run, settings, pixels),
        lambda _: kedmi_step(run, settings, pixels),
        watch,
    )
    return InversionPrior(run.average, run.discriminator, settings.batch)


def warmup_step(run: _Training, settings: KedMi, pixels: Tensor) -> dict[str, float]:
    """One step of the autoencoder."""
    real, noise = batch(pixels, settings.batch, run.rng), run.noise(settings, pixels.device)
    return redraw(run.encoder, run.generator, run.warmup_adam, real, noise, run.tolerance)


def kedmi_step(run: _Training, settings: KedMi, pixels: Tensor) -> dict[str, float]:
    """`critic_steps` updates of the discriminator and one of the generator; returns their losses."""
    numbers: dict[str, float] = {}
    other = pixels[:0]
    # 2. the discriminator learns the target's labels, and what is real
    for _ in range(settings.critic_steps):
        chosen = torch.randint(len(pixels), (settings.batch,), generator=run.rng)
        labelled = pixels[chosen.to(pixels.device)].float().div_(255)
        real, other = (batch(pixels, settings.batch, run.rng) for _ in range(2))
        if settings.batch_statistics:
            with torch.no_grad():
                confidence = run.target(labelled).softmax(1)
        else:
            confidence = run.confidence[chosen.to(pixels.device)]
        with torch.no_grad():
            made = run.generator(run.noise(settings, pixels.device))
        # One pass for all three: norms see one image at a time, and the groups keep to themselves.
        _, logits = run.discriminator(torch.cat([labelled, real, made]), settings.batch)
        on_labelled, on_real, on_made = logits.chunk(3)
        labels, known = supervised(on_labelled, confidence), unsupervised(on_real, on_made)
        update(run.discriminator_adam, labels + known)
        numbers |= {"labels": float(labels.detach()), "real": float(known.detach())}

    # 3. the generator matches the features of real images, and is clear about the class
    run.discriminator.requires_grad_(False)
    with torch.no_grad():
        wanted = run.discriminator.features(other)
    features, logits = run.discriminator(run.generator(run.noise(settings, pixels.device)))
    matching, unsure = feature_matching(features, wanted), entropy(logits)
    update(run.generator_adam, matching + settings.entropy * unsure)
    run.discriminator.requires_grad_(True)
    follow(run.average, run.generator, settings.average)
    return numbers | {"matching": float(matching.detach()), "entropy": float(unsure.detach())}


def _start(
    images: Images, settings: KedMi, seed: int, device: torch.device | str, target: Logits, asked: Tensor
) -> _Training:
    def networks() -> tuple[Generator, MinibatchDiscriminator]:
        return Generator(images.size, settings.width, settings.latents), MinibatchDiscriminator(
            images.size,
            settings.discriminator_width,
            asked.shape[1],
            kernels=settings.kernels,
            dimensions=settings.dimensions,
        )

    width, rate = settings.discriminator_width, settings.rate
    return _Training.start(
        images, settings, seed, device, networks, width, rate, target=target, confidence=asked.softmax(1)
    )
