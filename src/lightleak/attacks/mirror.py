"""MIRROR, white-box: descent in the box where a generator's styles are likely (An et al., NDSS 2022).

    1. for each class start at the samples of the prior of which the target is most confident
    2. descend 10 times the cross-entropy by Adam, whose rate grows and falls again, through random mirrors
    3. after every step clip the latents to the prior's box
    4. return the attempts with the highest confidence, or those that the others agree with

Which attempts are returned is a choice: those of highest confidence, or, as in the code, those whose five likeliest
classes are most often among the five of the class's other attempts (`choice="agreement"`).

Deviations: each image has its own coin for the mirror (code: one for a batch); losses are summed. The code begins with
a rate of zero, which loses the first step; so does this.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from lightleak.attacks.alignment import Alignment, aligned
from lightleak.attacks.frame import Attack, Common, Found, Needs, Part, Tell
from lightleak.attacks.oracle import Access, Oracle
from lightleak.attacks.queries import box_for, table_of
from lightleak.attacks.smile import ramp
from lightleak.attacks.steps import identity_loss, loss_problems, select_candidates
from lightleak.data.views import resized
from lightleak.errors import refuse
from lightleak.priors.prior import Prior

TOP = 5  # likeliest classes that attempts are compared by


@dataclass(frozen=True)
class Mirror(Attack):
    """MIRROR with gradients: Adam on the latents of which the target is most confident, inside the prior's box."""

    attempts: int = 8  # searches for each class, from its best samples
    keep: int = 1  # of those returned, by confidence
    samples: int = 100_000  # of the prior, scored once for all classes
    steps: int = 20_000
    rate: float = 0.25  # Adam's, grown over the first 5 % of the steps, and falling over the last quarter
    weight: float = 10.0  # of the identity loss
    kappa: float = 1.0  # latents stay within so many standard deviations
    flip: float = 0.5  # how often the target sees an image mirrored
    loss: str = "cross-entropy"  # or poincare, max-margin, logit
    choice: Literal["confidence", "agreement"] = "confidence"  # which attempts are returned
    alignment: Alignment | None = None  # average the gradient over copies of what the target looks at (TAA, PAA)
    batch: int = field(default=64, compare=False)  # images at a time: decides speed and memory, not the result
    access: ClassVar[Access] = "gradients"

    def __post_init__(self) -> None:
        problems = []
        if not 1 <= self.keep <= self.attempts <= self.samples or self.steps < 0 or self.batch < 1:
            problems.append(
                f"expected 1 <= keep <= attempts <= samples, got {self.keep}, {self.attempts}, {self.samples}; "
                "steps must be at least 0, batch at least 1"
            )
        if not (self.rate > 0 and self.weight > 0 and self.kappa > 0 and 0 <= self.flip <= 1):
            problems.append("rate, weight and kappa must be above 0, flip in [0, 1]")
        problems += loss_problems(self.loss)
        if self.choice not in get_args(Literal["confidence", "agreement"]):
            problems.append(f"the choice among attempts is by confidence or agreement, not {self.choice!r}")
        elif self.choice == "agreement" and self.attempts > self.batch:
            problems.append(
                f"by agreement all {self.attempts} attempts of a class are compared in one batch; batch is {self.batch}"
            )
        refuse(problems)

    @property
    def title(self) -> str:
        """What a table calls it."""
        return "MIRROR, white-box"

    def needs(self) -> Needs:
        """A prior that knows no classes: its samples are for all."""
        return Needs(classes=False)

    @property
    def images_beforehand(self) -> int:
        """The samples."""
        return self.samples

    @property
    def images_judged(self) -> int:
        """All attempts; if they are compared with each other, then also those that are kept."""
        return self.attempts + (self.keep if self.choice == "agreement" else 0)

    @property
    def preparation(self) -> "Mirror":
        """Scored samples depend on how many there are."""
        return Mirror(attempts=1, samples=self.samples)

    def prepare(self, oracle: Oracle, prior: Prior, seed: int) -> Common:
        """Samples and the target's confidence in each, for every class."""
        return table_of(oracle.scores, oracle, prior, self.samples, seed, self.batch, None)

    def search(self, oracle: Oracle, prior: Prior, part: Part, tell: Tell) -> Found:
        """The optimised latents."""
        # 1. the samples with the highest confidence
        first = select_candidates(part.table("said"), part.identities, self.attempts)[part.place, part.attempts]
        low, high = box_for(prior, self.kappa, part)
        latents = part.table("latents")[first].clone().requires_grad_()
        optimiser = torch.optim.Adam([latents], self.rate)
        identity, streams = aligned(identity_loss(oracle, self.loss), self.alignment, oracle.size), part.streams()
        everybody = torch.arange(len(part), device=part.device)
        for step in range(self.steps):
            # 2. descend through mirrors
            images = resized(prior.decode(latents, part.classes), oracle.size)
            mirrored = streams.uniforms(everybody) < self.flip
            seen = torch.where(mirrored[:, None, None, None], images.flip(3), images)
            losses, logits = identity(seen, part.rows(step))
            (latents.grad,) = torch.autograd.grad(self.weight * losses.sum(), latents)
            optimiser.param_groups[0]["lr"] = self.rate * ramp(step / self.steps)
            optimiser.step()
            with torch.no_grad():
                # 3. stay in the box
                latents.clamp_(low, high)
                confidence = logits.softmax(1).gather(1, part.classes[:, None]).mean()
            tell(step + 1, confidence=float(confidence))
        # 4. the frame judges them and keeps those with the highest confidence
        if self.choice == "confidence":
            return Found(latents.detach())
        with torch.no_grad():
            images = resized(prior.decode(latents, part.classes), oracle.size)
            likeliest = oracle.scores(images, part.rows(self.steps)).topk(min(TOP, oracle.classes), 1).indices
        agreed = agreement(likeliest, part.classes)
        places = [(part.place == one).nonzero().squeeze(1) for one in part.place.unique()]
        chosen = torch.cat([own[agreed[own].topk(min(self.keep, len(own))).indices] for own in places])
        return Found(latents.detach()[chosen], part.classes[chosen], part.attempts[chosen])


def agreement(likeliest: Tensor, classes: Tensor) -> Tensor:
    """Of each image the mean share of its likeliest classes (N x K) that another one of its class has too, N."""
    shared = (likeliest[:, None, :, None] == likeliest[None, :, None, :]).any(3).float().mean(2)
    others = (classes[:, None] == classes[None]) & ~torch.eye(len(classes), dtype=torch.bool, device=classes.device)
    return (shared * others).sum(1) / others.sum(1).clamp(min=1)


PRESETS = {
    "mirror": Mirror(),
    "mirror-code": Mirror(choice="agreement"),
    # For the renderer and two cores: most of 20,000 steps change nothing there.
    "rendered": Mirror(samples=600, attempts=6, keep=3, steps=100, rate=0.1),
}
