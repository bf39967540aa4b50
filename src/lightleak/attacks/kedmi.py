"""KED-MI: knowledge-enriched distributional model inversion (Chen et al., ICCV 2021), its second stage.

Its first stage, a GAN that learns from the target's answers, is `priors/fit/kedmi.py`.

    1. for each class start a normal distribution of latents at mean 0 and log-variance 1
    2. descend -log p(real) + 100 CE(T(G(z)), class) over means and log-variances, at one z = mean + spread eps a step
    3. draw images from each class's distribution, which stays in the result: `per_class["mean"]`, `["log_variance"]`

Published accidents, off unless asked for:

- `coupled=60`: the discriminator compares the identities of a batch with each other, so that what is found for one
  depends on who else is attacked (see `InversionPrior`); off, results do not depend on batches;
- `clip=1`: latents are clipped to [-1, 1] inside the loss, as LOMMA's code does when it runs KED-MI;
- `log_variance=0`: where BiDO's copy of the code starts.

Deviations: losses are summed (published: means over 60 identities, which Adam hardly notices); each class draws its own
noise. The published code sets no seed here.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from lightleak.attacks.alignment import Alignment, aligned
from lightleak.attacks.draws import own_normals
from lightleak.attacks.frame import Found, Needs, Part, ReturnsAll, Tell, group_of
from lightleak.attacks.oracle import Access, Oracle
from lightleak.attacks.steps import Identity, identity_loss, implausible, loss_problems
from lightleak.errors import refuse
from lightleak.priors.prior import Prior


@dataclass(frozen=True)
class KEDMI(ReturnsAll):
    """Distributional inversion: for each class the mean and the spread of latents that the target is sure of."""

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
    sorted: ClassVar[bool] = False

    @property
    def title(self) -> str:
        """What a table calls it."""
        return "KED-MI"

    def __post_init__(self) -> None:
        problems = []
        if self.attempts < 1 or self.steps < 0 or self.batch < 1 or self.coupled < 0:
            problems.append("attempts and batch must be at least 1, steps and coupled at least 0")
        if not (self.rate > 0 and self.weight >= 0 and (self.clip is None or self.clip > 0)):
            problems.append("rate and clip must be above 0, weight at least 0")
        problems += loss_problems(self.loss)
        refuse(problems)

    @property
    def searches(self) -> int:
        """One distribution for each class."""
        return 1

    @property
    def group(self) -> int:
        """Identities that share a batch; shards are cut between such groups. Coupled ones stay together."""
        size = group_of(self.attempts, self.batch)
        return self.coupled * max(1, size // self.coupled) if self.coupled else size

    def needs(self) -> Needs:
        """A discriminator."""
        return Needs(realism=True)

    def search(self, oracle: Oracle, prior: Prior, part: Part, tell: Tell) -> Found:
        """The optimised distributions, and latents drawn from them."""
        return self.descend(prior, part, aligned(identity_loss(oracle, self.loss), self.alignment, oracle.size), tell)

    def descend(self, prior: Prior, part: Part, identity: Identity, tell: Tell) -> Found:
        """The attack with any identity loss; LOMMA brings its own."""
        prior = prior.coupled_by(self.coupled) if self.coupled else prior
        # 1. a distribution for each class
        mean = torch.zeros(len(part), prior.latents, device=part.device, requires_grad=True)
        log_variance = torch.full_like(mean, self.log_variance, requires_grad=True)
        # 2. descend over both
        noise = part.normals(self.steps, prior.latents)
        optimiser = torch.optim.Adam([mean, log_variance], self.rate)
        for step in range(self.steps):
            images = prior.decode(self.latents(mean, log_variance, noise[:, step]), part.classes)
            losses, logits = identity(images, part.rows(step))
            loss = (implausible(prior, images, part.classes) + self.weight * losses).sum()
            mean.grad, log_variance.grad = torch.autograd.grad(loss, [mean, log_variance])
            optimiser.step()
            with torch.no_grad():
                confidence = logits.softmax(1).gather(1, part.classes[:, None]).mean()
            tell(step + 1, confidence=float(confidence))
        # 3. draw images of each
        found = {"mean": mean.detach(), "log_variance": log_variance.detach()}
        classes = part.classes.repeat_interleave(self.attempts)
        attempts = torch.arange(self.attempts, device=part.device).repeat(len(part))
        noise = own_normals(part.seed + 1, classes, attempts, (prior.latents,))
        means, spreads = (each.repeat_interleave(self.attempts, 0) for each in found.values())
        latents = self.latents(means, spreads, noise)
        return Found(latents, classes, attempts, per_class=found)

    def latents(self, mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
        """Draws of the distributions, N x L, clipped where the settings say so."""
        drawn = mean + (log_variance / 2).exp() * noise
        return drawn if self.clip is None else drawn.clamp(-self.clip, self.clip)
