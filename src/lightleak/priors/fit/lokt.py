"""LOKT's T-ACGAN on public images: a generator of a target's classes, taught by the target's labels alone.

Nguyen et al., Label-Only Model Inversion Attacks via Knowledge Transfer, NeurIPS 2023; the ACGAN is that of Odena et
al., Conditional Image Synthesis with Auxiliary Classifier GANs, ICML 2017, with a target in the place of labels.

    1. the discriminator learns to tell public images from made ones and, of made ones, whom the target says they show
    2. the generator makes images of random classes that the discriminator takes for real, and for the class
    3. for the first `plain` steps classes do not count, and the target is not asked

`Lokt()` is the published setting. `LOKT_QUICK` is for a CPU: narrow networks, few steps, and the generator starts as
the decoder of an autoencoder of public images that is told what the target calls each of them.

Deviations: the residual networks of PLG-MI, whose discriminator has normalised weights and a second head (published: a
stack of 5 x 5 convolutions), at logits (published: after a sigmoid, the same loss); batches are drawn with replacement;
real and made images go through the discriminator together. How often the target named each class is kept in the prior.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from lightleak.data.population import Images
from lightleak.errors import refuse
from lightleak.fingerprint import LATER
from lightleak.priors.conditional64 import (
    ConditionalGenerator,
    NamingDiscriminator,
    NamingPrior,
    Range,
    from_images,
    to_images,
)
from lightleak.priors.fit.adversaries import Adversaries
from lightleak.priors.fit.autoencoder import redraw
from lightleak.priors.fit.state import Asked, answers, batch, check_enough, digest_of, faults, follow, recipe, update
from lightleak.ranking import named, tally

SHOWN = 64  # public images that a target is asked about at the beginning


@dataclass(frozen=True)
class Lokt:
    """Settings of LOKT's GAN; the defaults are the published ones for CelebA."""

    width: int = 64  # channels of the generator's last block
    discriminator_width: int = 64  # channels of the discriminator's first block
    latents: int = 128
    weight: float = 1.5  # of the classes, beside what is real
    plain: int = 1000  # steps in which classes do not count (FFHQ 2,000, FaceScrub 3,000, PubFig83 6,000)
    steps: int = 20_000  # updates of the generator, those among them
    critic_steps: int = 5  # updates of the discriminator per update of the generator
    batch: int = 128
    rate: float = 2e-4
    critic_rate: float = 2e-4
    betas: tuple[float, float] = (0.0, 0.9)
    average: float = 0.0  # decay of the running average of the generator; 0 keeps the last weights
    warmup: int = 0  # steps as the decoder of a variational autoencoder, before all others
    warmup_rate: float = 2e-3  # falls to a tenth
    blur: float = 1.5  # tolerance of the autoencoder, in standard deviations of a pixel; larger is smoother
    span: Range = "signed"
    checkpoint_every: int = 250
    votes: int = field(default=1, metadata=LATER)  # queries about each image, see `attacks.votes`; the majority counts
    needs_target: ClassVar[bool] = True
    asks: ClassVar[Literal["labels"]] = "labels"  # of the target
    batch_statistics: ClassVar[bool] = False

    def __post_init__(self) -> None:
        least = {"width": 1, "discriminator_width": 1, "latents": 1, "steps": 1, "critic_steps": 1}
        least |= {"plain": 0, "batch": 2, "checkpoint_every": 1, "warmup": 0, "votes": 1}
        wrong = faults(self, least, ("weight", "rate", "critic_rate", "warmup_rate", "blur"))
        if self.plain >= self.steps >= 1:
            wrong.append(f"of {self.steps} steps some must be left after {self.plain} plain ones, for the classes")
        if self.span not in get_args(Range):
            wrong.append(f"span is one of {', '.join(get_args(Range))}, not {self.span!r}")
        refuse(wrong)

    @property
    def queries(self) -> int:
        """Those about generated images; some public ones (with a warm-up, all) are shown before that."""
        return (self.steps - self.plain) * self.critic_steps * self.batch * self.votes


LOKT_QUICK = Lokt(
    width=12,
    discriminator_width=12,
    latents=64,
    plain=50,
    steps=400,
    critic_steps=2,
    batch=32,
    rate=5e-4,
    critic_rate=1e-3,
    average=0.98,
    warmup=600,
)


@dataclass
class _Training(Adversaries[ConditionalGenerator, NamingDiscriminator]):
    """The networks of one training, and whom the target calls public images."""

    target: Asked
    called: Tensor  # labels of public images (-1: none), of all of them where a warm-up tells the decoder


def fit_lokt(
    images: Images,
    settings: Lokt,
    seed: int,
    folder: Path | None,
    watch: Callable[..., None] | None,
    device: torch.device | str,
    target: Asked,
) -> NamingPrior:
    """Train a generator of the target's classes, and a discriminator that names them, on labels of generated images.

    `watch(step, total, ...)` hears `error` and `nats` of the autoencoder, then `odds` (the discriminator's loss on what
    is real: 1.39 at chance), `agree` (the share of made images that it names as the target does), `called` (the share
    that the target calls as they were drawn) and `heard` (the share of classes that the target has named so far).
    """
    check_enough(images)
    # Public images tell how many classes there are, and whose labels a checkpoint goes with: a few of them, or all.
    told = answers(
        target, images if settings.warmup else images.at(torch.arange(min(SHOWN, len(images)))), device=device
    ).cpu()
    run = _start(images, settings, seed, device, target, named(told), told.shape[1])
    state = run.state(folder, recipe(settings, images, seed, teacher=digest_of(told)), target)
    state.resume()
    pixels = images.pixels.to(device)
    run.learn(
        state,
        settings,
        lambda: warmup_step(run, settings, pixels),
        lambda step: lokt_step(run, settings, pixels, settings.weight if step >= settings.plain else 0.0),
        watch,
    )
    return NamingPrior(run.average, run.discriminator, settings.span)


def lokt_step(run: _Training, settings: Lokt, pixels: Tensor, weight: float) -> dict[str, float]:
    """`critic_steps` updates of the discriminator and one of the generator; classes count `weight`, 0: not at all."""
    device, numbers = pixels.device, {}
    for _ in range(settings.critic_steps):
        # 1. what is real, and whom the target says that made images show
        real = from_images(batch(pixels, settings.batch, run.rng), settings.span)
        drawn = _classes(run, settings.batch).to(device)
        with torch.no_grad():
            made = run.generator(run.noise(settings, device), drawn)
        odds, said = run.discriminator.both(torch.cat([real, made]))
        on_real, on_made = odds.chunk(2)
        loss = F.softplus(-on_real).mean() + F.softplus(on_made).mean()
        numbers["odds"] = float(loss.detach())
        if weight:
            with torch.no_grad():
                labels = named(run.target(to_images(made, settings.span)))
            theirs = said[settings.batch :]
            loss = loss + weight * taught_by(theirs, labels)
            run.discriminator.hits += tally(labels, theirs.shape[1])
            numbers["agree"] = float((theirs.argmax(1) == labels).float().mean())
            numbers["called"] = float((labels == drawn).float().mean())
            numbers["heard"] = float((run.discriminator.hits > 0).float().mean())
        update(run.discriminator_adam, loss)
    # 2. the generator follows the discriminator, which stands still
    run.discriminator.eval().requires_grad_(False)
    drawn = _classes(run, settings.batch).to(device)
    odds, said = run.discriminator.both(run.generator(run.noise(settings, device), drawn))
    loss = F.softplus(-odds).mean()
    if weight:
        loss = loss + weight * F.cross_entropy(said, drawn)
    update(run.generator_adam, loss)
    run.discriminator.train().requires_grad_(True)
    follow(run.average, run.generator, settings.average)
    return numbers


def taught_by(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy of logits N x C over the images that have a label (int64, N; -1: none)."""
    summed = F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum")
    return summed / (labels >= 0).sum().clamp(min=1)


def warmup_step(run: _Training, settings: Lokt, pixels: Tensor) -> dict[str, float]:
    """One step of an autoencoder whose decoder is given the target's label of each image; any, where it gave none."""
    device = pixels.device
    chosen = torch.randint(len(pixels), (settings.batch,), generator=run.rng)
    real, owners = pixels[chosen.to(device)].float().div_(255), run.called[chosen]
    if (run.called < 0).any():
        owners = torch.where(owners < 0, _classes(run, settings.batch), owners)
    owners = owners.to(device)

    def draw(latents: Tensor) -> Tensor:
        return to_images(run.generator(latents, owners), settings.span)

    return redraw(run.encoder, draw, run.warmup_adam, real, run.noise(settings, device), run.tolerance)


def _classes(run: _Training, count: int) -> Tensor:
    return torch.randint(run.generator.classes, (count,), generator=run.rng)


def _start(
    images: Images,
    settings: Lokt,
    seed: int,
    device: torch.device | str,
    target: Asked,
    called: Tensor,
    classes: int,
) -> _Training:
    size = images.size

    def networks() -> tuple[ConditionalGenerator, NamingDiscriminator]:
        generator = ConditionalGenerator(size, settings.width, settings.latents, classes)
        return generator, NamingDiscriminator(size, settings.discriminator_width, classes)

    width, rate, target = settings.discriminator_width, settings.critic_rate, target.to(device)
    return _Training.start(images, settings, seed, device, networks, width, rate, target=target, called=called)
