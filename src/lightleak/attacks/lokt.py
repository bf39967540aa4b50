"""LOKT: label-only inversion by knowledge transfer (Nguyen et al., NeurIPS 2023), the inversion.

    1. a T-ACGAN is taught the target's classes by the target's labels of its images (`priors/fit/lokt.py`)
    2. surrogates learn from the target's labels of images that this generator draws (`knowledge.py`, `Transfer`)
    3. draw latents for every class and restart; descend the max-margin loss of two augmentations of each image, of the
       surrogates, of one of them, or of what the T-ACGAN's discriminator says

The inversion itself is by gradients, but not the target's: nothing beyond labels is asked of it, and those before it
begins. A label for each image that is returned says whether the target agrees. A class that no image of the first two
stages was called has no signal to follow, and is named as failed.

Deviations: each attempt has its own random numbers, drawn apart from those of the surrogates' images, and all
surrogates see the same augmentations; the loss is the mean over models, the sum over augmentations.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from lightleak.attacks.draws import Rows
from lightleak.attacks.frame import Found, Needs, Part, ReturnsAll, Tell
from lightleak.attacks.oracle import Access, Oracle
from lightleak.attacks.steps import LOSSES, loss_problems
from lightleak.data.augmentation import DRAWS, Augmentation
from lightleak.data.views import resized
from lightleak.errors import UserError, refuse
from lightleak.priors.prior import Prior

Models = Literal["discriminator", "surrogate", "ensemble"]
Answer = Callable[[Tensor, Rows], Tensor]  # images N x 3 x S x S and whose they are to logits N x C


@dataclass(frozen=True)
class LOKT(ReturnsAll):
    """LOKT's inversion: gradients of networks that learnt a target's labels; defaults are the published ones."""

    models: Models = "ensemble"  # all surrogates; or the first of them, or the prior's discriminator
    attempts: int = 5  # restarts for each class; all are returned
    steps: int = 600
    rate: float = 0.1  # Adam's
    loss: str = "max-margin"  # or cross-entropy, poincare, logit
    views: int = 2  # augmentations of each image that a model sees in a step
    view: Augmentation = Augmentation()  # what the models look through
    batch: int = field(default=64, compare=False)  # attempts at a time: decides speed and memory, not the result
    access: ClassVar[Access] = "labels"
    version: ClassVar[int] = 2  # 1 began, given one seed for both, at the images that the surrogates had learnt of

    def __post_init__(self) -> None:
        problems = []
        if self.models not in get_args(Models):
            problems.append(f"models are one of {', '.join(get_args(Models))}, not {self.models!r}")
        problems += loss_problems(self.loss)
        if self.steps < 0 or min(self.attempts, self.views, self.batch) < 1 or not self.rate > 0:
            problems.append("steps must be at least 0, attempts, views and batch at least 1, rate above 0")
        refuse(problems)

    @property
    def title(self) -> str:
        """What a table calls it."""
        by = {"discriminator": ", C∘D", "surrogate": ", one surrogate", "ensemble": ""}[self.models]
        return f"LOKT{by}" if self.steps else "LOKT, stage 1 alone"

    @property
    def images_a_step(self) -> int:
        """Views of each attempt."""
        return self.views * super().images_a_step

    @property
    def images_searched(self) -> int:
        """None: they are shown to what learnt the target's labels."""
        return 0

    def needs(self) -> Needs:
        """A generator that draws given classes, and what learnt the target's labels: surrogates, or its critic."""
        own = self.models == "discriminator"
        return Needs(classes=True, recogniser=own, knowledge=not own, drawn=not own)

    def search(self, oracle: Oracle, prior: Prior, part: Part, tell: Tell) -> Found:  # noqa: ARG002
        """The optimised latents of classes that the labels told of."""
        heard, why = self._heard(prior, part)
        silent = part.identities[~torch.isin(part.identities, part.classes[heard])].tolist()
        mine = heard.nonzero().squeeze(1)
        classes, attempts = part.classes[mine], part.attempts[mine]
        # 3. descend the loss of the models through augmentations
        latents = part.latents(prior, "LOKT's restarts")[mine].requires_grad_()
        models, optimiser = self._models(prior, part), torch.optim.Adam([latents], self.rate)
        draws = part.draws(self.steps, self.views, DRAWS, stream=1)[mine]
        seen = classes.repeat_interleave(self.views)
        views = torch.arange(self.views, device=part.device)
        streams = (self.views * attempts[:, None] + views).flatten()  # of each view its own
        for step in range(self.steps if len(mine) else 0):
            images = prior.decode(latents, classes).repeat_interleave(self.views, 0)
            images, rows = self.view(images, draws[:, step].flatten(0, 1)), Rows(part.seed, seen, streams, step)
            logits = torch.stack([model(images, rows) for model in models])
            losses = torch.stack([LOSSES[self.loss](said, seen) for said in logits]).mean(0)
            (latents.grad,) = torch.autograd.grad(losses.sum(), latents)
            optimiser.step()
            with torch.no_grad():
                confidence = logits.softmax(2).mean(0).gather(1, seen[:, None]).mean()
            tell(step + 1, confidence=float(confidence))
        return Found(latents.detach(), classes, attempts, failures=dict.fromkeys(silent, why))

    def _heard(self, prior: Prior, part: Part) -> tuple[Tensor, str]:
        """Which searches look for a class that the target has named, N, and what to say of the others."""
        if self.models == "discriminator":
            hits, of = prior.hits, "images that the prior was taught with"
        else:
            counts = part.knowledge.named if part.knowledge else ()
            hits, of = torch.tensor(counts) if counts else None, "images that the surrogates learnt of"
        if hits is None:
            return torch.ones_like(part.classes, dtype=torch.bool), ""
        return hits.to(part.device)[part.classes] > 0, f"no signal: the target called none of {int(hits.sum())} {of} so"

    def _models(self, prior: Prior, part: Part) -> list[Answer]:
        """The networks whose gradients are followed."""
        if self.models == "discriminator":
            return [lambda images, rows: prior.recognise(images)]  # noqa: ARG005
        surrogates = part.knowledge.oracles(part.device) if part.knowledge else ()
        if not surrogates:
            raise UserError("this knowledge holds no surrogates; learn some, or take models='discriminator'")
        used = surrogates if self.models == "ensemble" else surrogates[:1]
        return [lambda images, rows, one=one: one.logits(resized(images, one.size), rows) for one in used]


PRESETS = {
    "lokt": LOKT(),
    "lokt-discriminator": LOKT(models="discriminator"),
    "lokt-surrogate": LOKT(models="surrogate"),
    # For two cores.
    "small": LOKT(attempts=3, steps=100, rate=0.05),
}
