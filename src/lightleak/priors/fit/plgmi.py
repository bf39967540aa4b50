"""PLG-MI's class-conditional GAN on public images, with labels that the target itself gives them.

Yuan et al., Pseudo Label-Guided Model Inversion Attack via Conditional Generative Adversarial Network, AAAI 2023.

    1. ask the target about every public image once; each class gets the `top` images of which it is most confident
    2. the generator makes images of random classes that the discriminator takes for those of the class and, augmented,
       the target for the class by a wide margin
    3. the discriminator learns to tell them from the class's own images (hinge loss)

`PlgMi()` is the published setting. `PLG_QUICK` is for a CPU: narrow networks, few steps, and the generator starts as
the decoder of an autoencoder that is told the class, as `wgan.QUICK` does.

Deviations: images are in [-1, 1] within the GAN, where its tanh ends (published: real ones in [0, 1], so that the
generator never uses half of its range and may leave the images' range; `span="unit"` does so); batches are drawn with
replacement, half of them at random from all pairs of class and image; real and made images go through the discriminator
together, so its spectral norms follow once an update; made images of its updates are drawn without gradients.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from lightleak.data.augmentation import DRAWS, STAGE1
from lightleak.data.population import Images
from lightleak.errors import UserError, refuse
from lightleak.priors.conditional64 import (
    ConditionalGenerator,
    ConditionalPrior,
    ProjectionDiscriminator,
    Range,
    from_images,
    to_images,
)
from lightleak.priors.fit.adversaries import Adversaries
from lightleak.priors.fit.autoencoder import redraw
from lightleak.priors.fit.state import Asked, Logits, answers, check_enough, faults, follow, recipe, update
from lightleak.ranking import as_lowest
from lightleak.training.losses import max_margin


@dataclass(frozen=True)
class PlgMi:
    """Settings of PLG-MI's GAN; the defaults are the published ones for CelebA."""

    width: int = 64  # channels of the generator's last block
    discriminator_width: int = 64  # channels of the discriminator's first block
    latents: int = 128
    top: int = 30  # public images that stand for each class
    margin: float = 0.2  # weight of the max-margin loss of the target
    steps: int = 30_000  # updates of the generator
    critic_steps: int = 5  # updates of the discriminator per update of the generator
    batch: int = 64
    rate: float = 2e-4
    critic_rate: float = 2e-4
    betas: tuple[float, float] = (0.0, 0.9)
    average: float = 0.0  # decay of the running average of the generator; 0 keeps the last weights
    warmup: int = 0  # steps as the decoder of a variational autoencoder, before all others
    warmup_rate: float = 2e-3  # falls to a tenth
    blur: float = 1.5  # tolerance of the autoencoder, in standard deviations of a pixel; larger is smoother
    span: Range = "signed"  # "unit", as published: real images in [0, 1] where the generator ends in (-1, 1)
    checkpoint_every: int = 250
    needs_target: ClassVar[bool] = True
    asks: ClassVar[Literal["gradients", "scores"] | None] = "gradients"  # of the target
    batch_statistics: ClassVar[bool] = False

    def __post_init__(self) -> None:
        least = {"width": 1, "discriminator_width": 1, "latents": 1, "top": 1, "steps": 1, "critic_steps": 1}
        least |= {"batch": 2, "checkpoint_every": 1, "warmup": 0, "margin": 0}
        wrong = faults(self, least, ("rate", "critic_rate", "warmup_rate", "blur"))
        if self.span not in get_args(Range):
            wrong.append(f"span is one of {', '.join(get_args(Range))}, not {self.span!r}")
        refuse(wrong)


PLG_QUICK = PlgMi(
    width=12,
    discriminator_width=12,
    latents=64,
    top=16,
    steps=250,
    critic_steps=2,
    batch=32,
    rate=5e-4,
    critic_rate=1e-3,
    betas=(0.0, 0.9),
    average=0.98,
    warmup=600,
)


def pseudo_labels(logits: Tensor, top: int) -> Tensor:
    """For each class the indices of the `top` images (rows of N x C) of which the target is most confident, C x top.

    An image may stand for several classes, and every class gets as many. Ties go to the earlier image.
    """
    if len(logits) < top:
        raise UserError(f"each class needs {top} public images to stand for it, there are {len(logits)}; lower top")
    return as_lowest(logits.softmax(1)).sort(dim=0, descending=True, stable=True).indices[:top].T.contiguous()


@dataclass
class _Training(Adversaries[ConditionalGenerator, ProjectionDiscriminator]):
    """The networks of one training, and whom the images stand for."""

    target: Logits
    chosen: Tensor  # C x top indices of public images


def fit_plgmi(
    images: Images,
    settings: PlgMi,
    seed: int,
    folder: Path | None,
    watch: Callable[..., None] | None,
    device: torch.device | str,
    target: Asked,
) -> ConditionalPrior:
    """Train a generator of the target's classes on public images and the target's labels of them.

    `watch(step, total, ...)` hears `error` and `nats` of the autoencoder, then `margin` (the target's, of augmented
    images: below 0 most are taken for their class), `confidence` (the share that is) and `hinge` (the discriminator's
    loss: 2 at chance).
    """
    check_enough(images)
    # 1. each class gets the public images of which the target is most confident
    chosen = pseudo_labels(answers(target, images, device=device).cpu(), settings.top)
    run = _start(images, settings, seed, device, target, chosen)
    labels = sha256(chosen.numpy().tobytes()).hexdigest()[:16]
    state = run.state(folder, recipe(settings, images, seed, labels=labels), target)
    state.resume()
    pixels = images.pixels.to(device)
    run.learn(
        state,
        settings,
        lambda: warmup_step(run, settings, pixels),
        lambda _: plgmi_step(run, settings, pixels),
        watch,
    )
    return ConditionalPrior(run.average, run.discriminator, settings.span)


def plgmi_step(run: _Training, settings: PlgMi, pixels: Tensor) -> dict[str, float]:
    """One update of the generator and `critic_steps` of the discriminator; returns their losses."""
    device = pixels.device
    # 2. the generator follows the discriminator, which stands still, and the target
    run.discriminator.eval().requires_grad_(False)
    latents, classes = run.noise(settings, device), _classes(run, settings.batch).to(device)
    made = run.generator(latents, classes)
    loss, numbers = -run.discriminator(made, classes).mean(), {}
    if settings.margin:
        draws = torch.rand(settings.batch, DRAWS, generator=run.rng).to(device)
        margins = max_margin(run.target(STAGE1(to_images(made, settings.span), draws)), classes)
        loss = loss + settings.margin * margins.mean()
        numbers = {"margin": float(margins.detach().mean()), "confidence": float((margins.detach() < 0).float().mean())}
    update(run.generator_adam, loss)
    run.discriminator.train().requires_grad_(True)
    follow(run.average, run.generator, settings.average)

    # 3. the discriminator learns to tell made images from the class's own
    for _ in range(settings.critic_steps):
        real, owners = _batch(run, settings, pixels)
        latents, classes = run.noise(settings, device), _classes(run, settings.batch).to(device)
        with torch.no_grad():
            made = run.generator(latents, classes)
        scores = run.discriminator(torch.cat([real, made]), torch.cat([owners, classes]))
        on_real, on_made = scores.chunk(2)
        hinge = (1 - on_real).relu().mean() + (1 + on_made).relu().mean()
        update(run.discriminator_adam, hinge)
        numbers["hinge"] = float(hinge.detach())
    return numbers


def warmup_step(run: _Training, settings: PlgMi, pixels: Tensor) -> dict[str, float]:
    """One step of an autoencoder whose decoder is given the class that each image stands for."""
    real, owners = _batch(run, settings, pixels)

    def draw(latents: Tensor) -> Tensor:
        return to_images(run.generator(latents, owners), settings.span)

    noise = run.noise(settings, pixels.device)
    return redraw(run.encoder, draw, run.warmup_adam, to_images(real, settings.span), noise, run.tolerance)


def _batch(run: _Training, settings: PlgMi, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Public images in the GAN's range with noise of up to a grey level, and the classes that they stand for."""
    classes = _classes(run, settings.batch)
    rank = torch.randint(settings.top, (settings.batch,), generator=run.rng)
    real = pixels[run.chosen[classes, rank].to(pixels.device)].float().div_(255)
    real = real + torch.rand(real.shape, generator=run.rng).to(pixels.device) / 256
    return from_images(real, settings.span), classes.to(pixels.device)


def _classes(run: _Training, count: int) -> Tensor:
    return torch.randint(len(run.chosen), (count,), generator=run.rng)


def _start(
    images: Images, settings: PlgMi, seed: int, device: torch.device | str, target: Logits, chosen: Tensor
) -> _Training:
    size, classes = images.size, len(chosen)

    def networks() -> tuple[ConditionalGenerator, ProjectionDiscriminator]:
        generator = ConditionalGenerator(size, settings.width, settings.latents, classes)
        return generator, ProjectionDiscriminator(size, settings.discriminator_width, classes)

    width, rate = settings.discriminator_width, settings.critic_rate
    return _Training.start(images, settings, seed, device, networks, width, rate, target=target, chosen=chosen)
