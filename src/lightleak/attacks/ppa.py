"""PPA: Plug & Play Attacks (Struppek et al., ICML 2022).

    1. draw candidates once; keep those in which each class has most confidence (image and mirror averaged)
    2. descend the Poincaré distance between the target's logits and the class, seen through random crops
    3. keep the attempts whose confidence survives many stronger views

Deviations: each image has its own random view in every step (published: one crop for a whole batch, see `shared`);
losses are summed over a batch instead of averaged, so what comes out does not depend on the batch size (see `epsilon`);
candidates start exactly where they were scored (published: scored with truncation in some style slots, started with it
in all, see `cutoff`); views are cut at fractions of a pixel (published: at whole ones).
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lightleak.attacks.alignment import ALIGNMENTS, Alignment, aligned
from lightleak.attacks.frame import JUDGED, Attack, Common, Found, Needs, Part, Tell
from lightleak.attacks.oracle import Access, Oracle
from lightleak.attacks.steps import (
    confidence_over_views,
    draw_candidates,
    identity_loss,
    loss_problems,
    select_candidates,
    view_draws,
)
from lightleak.data.views import View, resized
from lightleak.errors import UserError, refuse
from lightleak.priors.prior import Prior


@dataclass(frozen=True)
class PPA(Attack):
    """Plug & Play Attacks: optimise the latents of a generator that never saw the target; defaults are FaceScrub's."""

    candidates: int = 2000  # latents drawn once, scored for every class
    attempts: int = 200  # of them optimised, per class
    keep: int = 50  # of those returned, per class
    steps: int = 50  # of each attempt
    rate: float = 0.005  # Adam's, with betas (0.1, 0.1)
    epsilon: float = 1e-8  # Adam's; the published mean over a batch of B is this sum with B times as much
    milestones: tuple[int, ...] = ()  # steps after which the rate falls to a tenth
    loss: str = "poincare"  # or cross-entropy, max-margin, logit
    critic: float = 0.0  # weight of softplus(-realism)
    view: View = View(scale=(0.9, 1.0))  # what the target looks through while descending
    alignment: Alignment | None = None  # average the gradient over copies of what the target looks at (TAA, PAA)
    views: int = 100  # number of views that judge an attempt
    judging: View = View(scale=(0.5, 0.9), ratio=(0.8, 1.2), flip=0.5)  # as it judges attempts
    shared: bool = False  # compat: all attempts of a class look through the same views (published: all of a batch)
    cutoff: int | None = None  # compat: candidates are scored with so many style slots truncated (published: 8)
    batch: int = field(default=64, compare=False)  # attempts at a time: decides speed and memory, not the result
    access: ClassVar[Access] = "gradients"

    def __post_init__(self) -> None:
        problems = []
        if not 1 <= self.keep <= self.attempts <= self.candidates:
            problems.append(
                f"expected 1 <= keep <= attempts <= candidates, got {self.keep}, {self.attempts}, {self.candidates}"
            )
        problems += loss_problems(self.loss)
        if self.steps < 0 or self.views < 1 or self.batch < 1 or not self.rate > 0 or not self.epsilon > 0:
            problems.append("steps must be at least 0, views and batch at least 1, rate and epsilon above 0")
        if self.cutoff is not None and self.cutoff < 0:
            problems.append(f"cutoff must be at least 0, not {self.cutoff}")
        refuse(problems)

    def needs(self) -> Needs:
        """A prior that knows no classes: candidates are for all; and a discriminator, if that counts."""
        return Needs(classes=False, realism=self.critic != 0)

    @property
    def images_beforehand(self) -> int:
        """The candidates, and their mirror images."""
        return 2 * self.candidates

    @property
    def preparation(self) -> "PPA":
        """Candidates depend on how many there are and on `cutoff`: attacks that differ in anything else share them."""
        return PPA(candidates=self.candidates, attempts=1, keep=1, cutoff=self.cutoff)

    @property
    def looks(self) -> int:
        """The views that judge an attempt."""
        return self.views

    def prepare(self, oracle: Oracle, prior: Prior, seed: int) -> Common:
        """Step 1's table: latents, and the target's confidence in each."""
        return draw_candidates(oracle, prior, self.candidates, seed, 4 * self.batch, self.cutoff)

    def search(self, oracle: Oracle, prior: Prior, part: Part, tell: Tell) -> Found:
        """The optimised latents."""
        # 1. keep the latents of which the target is already confident
        if len(part.table("latents")) != self.candidates:
            raise UserError(f"{len(part.table('latents'))} candidates were scored, not {self.candidates}")
        chosen = select_candidates(part.table("scores"), part.identities, self.attempts)
        place = part.place
        start = part.table("latents")[chosen[place, part.attempts]]
        # 2. descend the distance through random views
        return Found(self.descend(oracle, prior, start, part, tell))

    def descend(self, oracle: Oracle, prior: Prior, start: Tensor, part: Part, tell: Tell) -> Tensor:
        """Step 2 for one batch of attempts: the optimised latents."""
        latents = start.clone().requires_grad_()
        optimiser = torch.optim.Adam([latents], self.rate, betas=(0.1, 0.1), eps=self.epsilon)
        draws = view_draws(part.seed, part.classes, self._streams(part.attempts), self.steps)
        identity = aligned(identity_loss(oracle, self.loss), self.alignment, oracle.size)
        for step in range(self.steps):
            images = prior.decode(latents, part.classes)
            seen = self.view(resized(images, oracle.size), draws[:, step])
            losses, logits = identity(seen, part.rows(step))
            loss = losses.sum()
            if self.critic:
                loss = loss + self.critic * F.softplus(-prior.realism(images, part.classes)).sum()
            (latents.grad,) = torch.autograd.grad(loss, latents)
            for group in optimiser.param_groups:
                group["lr"] = self.rate * 0.1 ** sum(step >= milestone for milestone in self.milestones)
            optimiser.step()
            confidence = logits.detach().softmax(1).gather(1, part.classes[:, None]).mean()
            tell(step + 1, confidence=float(confidence))
        return latents.detach()

    def judge(self, oracle: Oracle, images: Tensor, part: Part) -> Tensor:
        """Step 3: the confidence that survives many stronger views, N."""
        draws = view_draws(part.seed + 1, part.classes, self._streams(part.attempts), self.views)
        seen = resized(images, oracle.size)
        return confidence_over_views(oracle, seen, part.rows(JUDGED), self.judging, draws, 4 * self.batch)

    def _streams(self, attempts: Tensor) -> Tensor:
        """Whose views each attempt looks through: its own, or those of its class's first."""
        return torch.zeros_like(attempts) if self.shared else attempts


def _as_published(attack: PPA, batch: int) -> PPA:
    """The attack as the published code does it, with batches of so many images and all of its quirks."""
    return replace(attack, epsilon=batch * 1e-8, shared=True, cutoff=8, batch=batch)


# The papers' settings (PPA: appendix and configurations; RoLSS: configurations). Faces are FaceScrub's and CelebA's.
DOGS = View(scale=(0.75, 1.0))
FALLING = PPA(milestones=(30, 40))
FEW = PPA(attempts=16, keep=8, milestones=(30, 40))
FEW_DOGS = PPA(attempts=16, keep=8, rate=0.01, milestones=(30, 40), view=DOGS)
LONG = PPA(candidates=5000, steps=70)
LONG_DOGS = PPA(steps=100, rate=0.01, view=DOGS)
PRESETS = {
    "ppa": PPA(),
    "ppa-celeba": LONG,
    "ppa-metfaces": LONG,
    "ppa-dogs": LONG_DOGS,
    # The configurations that PPA ships: as FaceScrub's, with a falling rate.
    "ppa-files": FALLING,
    # Koh et al. (ECCV 2024) attack with fewer attempts and a falling rate.
    "rolss": FEW,
    "rolss-dogs": FEW_DOGS,
    # As the published code does it, configuration by configuration; the prior needs clip=False and, for faces,
    # crop=800. Struppek et al. (ICML 2022): the sample configuration of FaceScrub, then those of the paper's runs.
    "published": _as_published(FALLING, 25),
    "published-facescrub": _as_published(PPA(), 25),
    "published-celeba": _as_published(LONG, 25),
    "published-metfaces": _as_published(LONG, 20),
    "published-dogs": _as_published(LONG_DOGS, 25),
    # Koh et al. (ECCV 2024): FaceScrub's networks, ResNet-152 and ViT, ResNet-18; CelebA; dogs' networks, ResNeSt-101.
    "published-rolss": _as_published(FEW, 8),
    "published-rolss-large": _as_published(FEW, 16),
    "published-rolss-resnet18": _as_published(FALLING, 16),
    "published-rolss-celeba": _as_published(FALLING, 8),
    "published-rolss-dogs": _as_published(FEW_DOGS, 8),
    "published-rolss-dogs-resnest101": _as_published(replace(LONG_DOGS, milestones=(30, 40)), 16),
    # AlignMI (Peng et al., NeurIPS 2025), which returns all that it optimised.
    "taa": PPA(attempts=100, keep=100, steps=70, alignment=ALIGNMENTS["taa"]),
    "paa": PPA(attempts=100, keep=100, steps=70, alignment=ALIGNMENTS["paa"]),
    # The renderer's latents are wider than style vectors; the rate is a fortieth of a factor's range.
    "rendered": PPA(candidates=600, attempts=6, keep=3, steps=50, rate=0.05, milestones=(30, 40), views=20),
    "smoke": PPA(candidates=32, attempts=2, keep=1, steps=3, views=4),
}
