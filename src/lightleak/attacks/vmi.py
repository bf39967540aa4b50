"""VMI: variational model inversion (Wang et al., NeurIPS 2021).

    1. for each class start a distribution q of the prior's noise at the standard normal one
    2. descend the mean of -log p(class | G(z)) over draws z of q, plus a little of the divergence of q from where it
       began, by momentum
    3. draw images of each class's distribution, which stays in the result (`distributions.distribution_of`)

A distribution instead of a point: how much of a class its draws cover can be measured.

Deviations: one flow drives all layers of a StyleGAN2 by its noise, before mapping and truncation (published: a flow for
each layer, and the divergence averaged over them; summed, ten times as heavy, where they are normal); 30 couplings on
all dimensions, by linear layers (published: three levels of ten, of which two take their noise from within, 3 x 3
convolutions on one pixel); permutations are part of what is kept (published: not, so that a flow that is loaded again
is another one); the divergence of normal distributions is exact and in float32, as everything.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from lightleak.attacks.alignment import Alignment, aligned
from lightleak.attacks.distributions import Couplings, Distribution, Normal, tensors
from lightleak.attacks.draws import own_normals
from lightleak.attacks.frame import Found, Part, ReturnsAll, Tell, group_of
from lightleak.attacks.oracle import Access, Oracle
from lightleak.attacks.steps import identity_loss, loss_problems
from lightleak.errors import refuse
from lightleak.priors.prior import Prior


@dataclass(frozen=True)
class VMI(ReturnsAll):
    """Variational inversion: for each class a distribution of images of which the target is confident."""

    attempts: int = 50  # images drawn of each class's distribution; all are returned
    steps: int = 3140  # 20 of the paper's epochs
    draws: int = 64  # of each class's distribution, in every step
    rate: float = 1e-4
    momentum: float = 0.9
    divergence: float = 1e-3  # weight of the divergence from the standard normal distribution
    family: str = "flow"  # or normal
    couplings: int = 30  # of a flow
    width: int = 100  # of a coupling's hidden layer
    loss: str = "cross-entropy"  # or poincare, max-margin, logit
    alignment: Alignment | None = None  # average the gradient over copies of what the target looks at (TAA, PAA)
    batch: int = field(default=64, compare=False)  # images at a time: decides speed and memory, not the result
    access: ClassVar[Access] = "gradients"
    sorted: ClassVar[bool] = False

    def __post_init__(self) -> None:
        problems = []
        if min(self.attempts, self.draws, self.couplings, self.width, self.batch) < 1 or self.steps < 0:
            problems.append("attempts, draws, couplings, width and batch must be at least 1, steps at least 0")
        if not (self.rate > 0 and 0 <= self.momentum < 1 and self.divergence >= 0):
            problems.append("rate must be above 0, momentum in [0, 1), divergence at least 0")
        if self.family not in ("flow", "normal"):
            problems.append(f"there is no family {self.family!r}; choose from flow, normal")
        problems += loss_problems(self.loss)
        refuse(problems)

    @property
    def searches(self) -> int:
        """One distribution for each class."""
        return 1

    @property
    def images_a_step(self) -> int:
        """Draws of each distribution."""
        return self.draws * super().images_a_step

    @property
    def group(self) -> int:
        """Identities that share a batch; shards are cut between such groups."""
        return group_of(max(self.attempts, self.draws), self.batch)

    def start(self, count: int, size: int) -> Distribution:
        """Standard normal distributions over R^size."""
        if self.family == "normal":
            return Normal.standard(count, size)
        return Couplings.standard(count, size, self.couplings, self.width)

    def search(self, oracle: Oracle, prior: Prior, part: Part, tell: Tell) -> Found:
        """The optimised distributions, and latents drawn of them."""
        # 1. a distribution for each class
        begun = self.start(len(part), prior.noise_size)
        kept = {name: value.to(part.device) for name, value in tensors(begun).items()}
        moving = [value.requires_grad_() for value in kept.values() if value.is_floating_point()]
        q = type(begun)(**kept)
        # 2. descend by momentum
        optimiser = torch.optim.SGD(moving, self.rate, self.momentum)
        identity = aligned(identity_loss(oracle, self.loss), self.alignment, oracle.size)
        streams, everyone = part.streams(), torch.arange(len(part), device=part.device)
        classes, width = part.classes.repeat_interleave(self.draws), max(1, self.batch // len(part))
        places = torch.arange(len(classes), device=part.device).view(len(part), -1).split(width, 1)
        for step in range(self.steps):
            rows, confidence = part.rows(step).repeated(self.draws), torch.empty_like(classes, dtype=torch.float32)
            noise, other = (streams.normals(everyone, self.draws, prior.noise_size) for _ in range(2))
            for variable in moving:
                variable.grad = None
            # As many draws of each at a time as a batch holds; their gradients add up.
            for number, (place, draws) in enumerate(zip(places, noise.split(width, 1), strict=True), 1):
                (z, _), mine = q.push(draws), place.flatten()
                images = prior.decode(prior.from_noise(z.flatten(0, 1)), classes[mine])
                losses, logits = identity(images, rows.at(mine))
                loss = losses.sum() / self.draws
                if number == len(places):
                    loss = loss + self.divergence * q.divergence(other).sum()
                for variable, slope in zip(moving, torch.autograd.grad(loss, moving), strict=True):
                    variable.grad = slope if variable.grad is None else variable.grad + slope
                confidence[mine] = logits.detach().float().softmax(1).gather(1, classes[mine, None]).squeeze(1)
            optimiser.step()
            tell(step + 1, confidence=float(confidence.mean()))
        # 3. draw images of each
        classes = part.classes.repeat_interleave(self.attempts)
        attempts = torch.arange(self.attempts, device=part.device).repeat(len(part))
        noise = own_normals(part.seed + 2, classes, attempts, (prior.noise_size,))
        with torch.no_grad():
            z, _ = q.push(noise.unflatten(0, (len(part), -1)))
            latents = prior.from_noise(z.flatten(0, 1))
        return Found(latents, classes, attempts, per_class=kept)


PRESETS = {
    "vmi": VMI(),
    "vmi-normal": VMI(family="normal"),
    # For a renderer or a small GAN on a processor.
    "small": VMI(attempts=5, steps=300, draws=32, rate=0.01, couplings=4),
}
