"""PPA: Plug & Play Attacks (Struppek et al., ICML 2022).

    1. draw candidates once; for each class keep those that the target already believes in (image and mirror averaged)
    2. descend the Poincaré distance between the target's logits and the class, seen through random crops
    3. keep the attempts whose belief survives many stronger views

Deviations: each image has its own random view in every step (published: one crop for a whole batch), and losses are
summed over a batch instead of averaged, so what comes out does not depend on the batch size; candidates start
exactly where they were scored (published: scored with truncation in some style slots, started with it in all).
"""

import time
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lightleak.attacks.oracle import Access, Oracle
from lightleak.attacks.reconstruction import Reconstruction
from lightleak.attacks.steps import (
    LOSSES,
    belief_over_views,
    candidate_scores,
    group_of,
    seed_of,
    select_candidates,
    view_draws,
    whole_batches,
)
from lightleak.data.views import View
from lightleak.errors import UserError
from lightleak.priors import Prior
from lightleak.training.loop import Watch


@dataclass(frozen=True)
class PPA:
    """Plug & Play Attacks: optimise the latents of a generator that never saw the target; defaults are FaceScrub's."""

    candidates: int = 2000  # latents drawn once, scored for every class
    attempts: int = 200  # of them optimised, per class
    keep: int = 50  # of those returned, per class
    steps: int = 50
    rate: float = 0.005  # Adam's, with betas (0.1, 0.1)
    milestones: tuple[int, ...] = ()  # steps after which the rate falls to a tenth
    loss: str = "poincare"  # or cross-entropy, max-margin, logit
    critic: float = 0.0  # weight of softplus(-realism)
    view: View = View(scale=(0.9, 1.0))  # noqa: RUF009  what the target looks through while descending
    views: int = 100  # number of views that judge an attempt
    judging: View = View(scale=(0.5, 0.9), ratio=(0.8, 1.2), flip=0.5)  # noqa: RUF009
    batch: int = field(default=64, compare=False)  # attempts at a time: decides speed and memory, not the result
    access: ClassVar[Access] = "gradients"

    def __post_init__(self) -> None:
        problems = []
        if not 1 <= self.keep <= self.attempts <= self.candidates:
            problems.append(
                f"expected 1 <= keep <= attempts <= candidates, got {self.keep}, {self.attempts}, {self.candidates}"
            )
        if self.loss not in LOSSES:
            problems.append(f"there is no loss {self.loss!r}; choose from {', '.join(LOSSES)}")
        if self.steps < 0 or self.views < 1 or self.batch < 1 or not self.rate > 0:
            problems.append("steps must be at least 0, views and batch at least 1, rate above 0")
        if problems:
            raise UserError("; ".join(problems))

    @property
    def group(self) -> int:
        """Identities that share a batch; shards are cut between such groups."""
        return group_of(self.attempts, self.batch)

    def run(
        self, oracle: Oracle, prior: Prior, classes: Tensor, rng: torch.Generator, watch: Watch | None = None
    ) -> Reconstruction:
        """`keep` reconstructions of each class, best first; what a class gets depends on (rng's seed, class) alone."""
        began, asked = time.monotonic(), oracle.queries
        seed = seed_of(rng)
        # 1. keep the latents which the target already believes in
        latents = prior.sample(self.candidates, torch.Generator().manual_seed(seed))
        scores = candidate_scores(oracle, prior, latents, 4 * self.batch)
        shared = oracle.queries - asked
        chosen = select_candidates(scores, classes, self.attempts)
        latents = latents[chosen.flatten()]
        labels = classes.repeat_interleave(self.attempts)
        attempts = torch.arange(self.attempts).repeat(len(classes))
        # 2. descend the distance through random views
        parts = list(whole_batches(len(classes), self.attempts, self.batch))
        for part in parts:

            def tell(step: int, done: int = part.start, size: int = part.stop - part.start, **numbers: float) -> None:
                if watch:
                    watch(done * self.steps + step * size, len(latents) * self.steps, **numbers)

            latents[part] = self.descend(oracle, prior, latents[part], labels[part], attempts[part], seed, tell)
        # 3. return those whose belief survives many views
        with torch.no_grad():
            images = torch.cat([prior.decode(latents[part]) for part in parts])
        draws = view_draws(seed + 1, labels, attempts, self.views)
        belief = torch.cat(
            [
                belief_over_views(oracle, images[part], labels[part], self.judging, draws[part], 4 * self.batch)
                for part in parts
            ]
        )
        best = belief.view(len(classes), self.attempts).topk(self.keep, dim=1)
        index = (best.indices + self.attempts * torch.arange(len(classes))[:, None]).flatten()
        return Reconstruction(
            images=images[index],
            classes=labels[index],
            latents=latents[index],
            confidence=best.values.flatten(),
            queries=oracle.queries - asked,
            shared=shared,
            seconds=time.monotonic() - began,
        )

    def descend(
        self, oracle: Oracle, prior: Prior, start: Tensor, classes: Tensor, attempts: Tensor, seed: int, tell
    ) -> Tensor:
        """Step 2 for one batch of attempts: the optimised latents."""
        latents = start.clone().requires_grad_()
        optimiser = torch.optim.Adam([latents], self.rate, betas=(0.1, 0.1))
        draws = view_draws(seed, classes, attempts, self.steps).to(start.device)
        for step in range(self.steps):
            images = prior.decode(latents)
            logits = oracle.logits(self.view(images, draws[:, step]))
            loss = LOSSES[self.loss](logits, classes).sum()
            if self.critic:
                loss = loss + self.critic * F.softplus(-prior.realism(images)).sum()
            (latents.grad,) = torch.autograd.grad(loss, latents)
            for group in optimiser.param_groups:
                group["lr"] = self.rate * 0.1 ** sum(step >= milestone for milestone in self.milestones)
            optimiser.step()
            with torch.no_grad():
                belief = logits.softmax(1).gather(1, classes[:, None]).mean()
            tell(step + 1, confidence=float(belief))
        return latents.detach()


PRESETS = {
    "ppa": PPA(),
    # Koh et al. (ECCV 2024) attack with fewer attempts and a falling rate.
    "rolss": PPA(attempts=16, keep=8, milestones=(30, 40)),
    # The renderer's latents are wider than style vectors; the rate is a fortieth of a factor's range.
    "rendered": PPA(candidates=600, attempts=6, keep=3, steps=50, rate=0.05, milestones=(30, 40), views=20),
    "smoke": PPA(candidates=32, attempts=2, keep=1, steps=3, views=4),
}
