"""KED-MI: knowledge-enriched distributional model inversion (Chen et al., ICCV 2021), its second stage.

Its first stage, a GAN that learns from the target's answers, is `priors/fit/kedmi.py`.

    1. for each class start a normal distribution of latents at mean 0 and log-variance 1
    2. descend -log p(real) + 100 CE(T(G(z)), class) over means and log-variances, at one z = mean + spread eps a step
    3. draw images from each class's distribution

Published accidents, off unless asked for:

- `coupled=60`: the discriminator compares the identities of a batch with each other, so that what is found for one
  depends on who else is attacked (see `InversionPrior`); off, results do not depend on batches;
- `clip=1`: latents are clipped to [-1, 1] inside the loss, as LOMMA's code does when it runs KED-MI;
- `log_variance=0`: where BiDO's copy of the code starts.

Deviations: losses are summed (published: means over 60 identities, which Adam hardly notices); each class draws its own
noise. The published code sets no seed here.
"""

import time
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from lightleak.attacks.alignment import Alignment, aligned
from lightleak.attacks.oracle import Access, Oracle
from lightleak.attacks.reconstruction import Reconstruction
from lightleak.attacks.steps import (
    LOSSES,
    Identities,
    Identity,
    asked,
    group_of,
    implausible,
    own_normals,
    seed_of,
    shown,
    whole_batches,
)
from lightleak.errors import UserError
from lightleak.priors import Prior
from lightleak.priors.gan64 import InversionPrior
from lightleak.training.loop import Watch


@dataclass(frozen=True)
class KEDMI:
    """Distributional inversion: for each class the mean and the spread of the latents that the target believes in."""

    attempts: int = 5  # images drawn of each class's distribution; all are returned
    steps: int = 2400
    rate: float = 0.02  # Adam's
    weight: float = 100.0  # of the identity loss, beside 1 for the discriminator
    log_variance: float = 1.0  # at the start
    clip: float | None = None  # None: latents are not clipped
    loss: str = "cross-entropy"  # or poincare, max-margin, logit
    alignment: Alignment | None = None  # average the gradient over copies of what the target looks at (TAA, PAA)
    coupled: int = 0  # as published: so many identities see each other in the discriminator; 0: none does
    batch: int = field(default=320, compare=False)  # drawn images at a time, 64 identities: decides speed and memory
    access: ClassVar[Access] = "gradients"

    def __post_init__(self) -> None:
        problems = []
        if self.attempts < 1 or self.steps < 0 or self.batch < 1 or self.coupled < 0:
            problems.append("attempts and batch must be at least 1, steps and coupled at least 0")
        if not (self.rate > 0 and self.weight >= 0 and (self.clip is None or self.clip > 0)):
            problems.append("rate and clip must be above 0, weight at least 0")
        if self.loss not in LOSSES:
            problems.append(f"there is no loss {self.loss!r}; choose from {', '.join(LOSSES)}")
        if problems:
            raise UserError("; ".join(problems))

    @property
    def keep(self) -> int:
        """Images of each class that are returned."""
        return self.attempts

    @property
    def group(self) -> int:
        """Identities that share a batch; shards are cut between such groups. Coupled ones stay together."""
        size = group_of(self.attempts, self.batch)
        return self.coupled * max(1, size // self.coupled) if self.coupled else size

    def run(
        self, oracle: Oracle, prior: Prior, classes: Tensor, rng: torch.Generator, watch: Watch | None = None
    ) -> Reconstruction:
        """`attempts` images of each class; what a class gets depends on (rng's seed, class, attempt) alone."""
        seed = seed_of(rng)
        identities = aligned(asked(oracle, self.loss), self.alignment, seed)
        return self.search(oracle, prior, classes, seed, identities, watch)

    def search(
        self, oracle: Oracle, prior: Prior, classes: Tensor, seed: int, identities: Identities, watch: Watch | None
    ) -> Reconstruction:
        """The attack with any identity loss; LOMMA brings its own."""
        began, before = time.monotonic(), oracle.queries
        if self.coupled and isinstance(prior, InversionPrior):
            prior = replace(prior, coupled=self.coupled)
        # 1. a distribution for each class
        means = torch.zeros(len(classes), prior.latents)
        log_variances = torch.full_like(means, self.log_variance)
        # 2. descend over both
        parts = list(whole_batches(len(classes), 1, self.group))
        for part in parts:

            def tell(step: int, done: int = part.start, size: int = part.stop - part.start, **numbers: float) -> None:
                if watch:
                    watch(done * self.steps + step * size, len(classes) * self.steps, **numbers)

            first = torch.zeros_like(classes[part])
            noise = own_normals(seed, classes[part], first, (self.steps, prior.latents))
            start = (means[part], log_variances[part])
            identity = identities(classes[part], first)
            means[part], log_variances[part] = self.descend(prior, start, classes[part], noise, identity, tell)
        # 3. draw images of each
        labels = classes.repeat_interleave(self.attempts)
        attempts = torch.arange(self.attempts).repeat(len(classes))
        noise = own_normals(seed + 1, labels, attempts, (prior.latents,))
        mean, log_variance = (each.repeat_interleave(self.attempts, 0) for each in (means, log_variances))
        latents = self.latents(mean, log_variance, noise)
        drawn = [slice(self.attempts * part.start, self.attempts * part.stop) for part in parts]
        images, belief = shown(oracle, prior, latents, labels, drawn)
        return Reconstruction(
            images=images,
            classes=labels,
            latents=latents,
            confidence=belief,
            queries=oracle.queries - before,
            seconds=time.monotonic() - began,
        )

    def descend(
        self,
        prior: Prior,
        start: tuple[Tensor, Tensor],
        classes: Tensor,
        noise: Tensor,
        identity: Identity,
        tell,
    ) -> tuple[Tensor, Tensor]:
        """Step 2 for one batch: the optimised means and log-variances, each N x L; the noise is N x steps x L."""
        mean, log_variance = (each.clone().requires_grad_() for each in start)
        optimiser = torch.optim.Adam([mean, log_variance], self.rate)
        for step in range(self.steps):
            images = prior.decode(self.latents(mean, log_variance, noise[:, step]), classes)
            losses, logits = identity(images)
            loss = (implausible(prior, images, classes) + self.weight * losses).sum()
            mean.grad, log_variance.grad = torch.autograd.grad(loss, [mean, log_variance])
            optimiser.step()
            with torch.no_grad():
                belief = logits.softmax(1).gather(1, classes[:, None]).mean()
            tell(step + 1, confidence=float(belief))
        return mean.detach(), log_variance.detach()

    def latents(self, mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
        """Draws of the distributions, N x L, clipped where the settings say so."""
        drawn = mean + (log_variance / 2).exp() * noise
        return drawn if self.clip is None else drawn.clamp(-self.clip, self.clip)
