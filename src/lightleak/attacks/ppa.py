"""PPA: Plug & Play Attacks (Struppek et al., ICML 2022).

    1. draw candidates once; for each class keep those that the target already believes in (image and mirror averaged)
    2. descend the Poincaré distance between the target's logits and the class, seen through random crops
    3. keep the attempts whose belief survives many stronger views

Deviations: each image has its own random view in every step (published: one crop for a whole batch, see `shared`);
losses are summed over a batch instead of averaged, so what comes out does not depend on the batch size (see `epsilon`);
candidates start exactly where they were scored (published: scored with truncation in some style slots, started with it
in all, see `cutoff`); views are cut at fractions of a pixel (published: at whole ones).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lightleak.attacks.alignment import ALIGNMENTS, Alignment
from lightleak.attacks.oracle import Access, Oracle
from lightleak.attacks.reconstruction import Reconstruction
from lightleak.attacks.steps import (
    LOSSES,
    Candidates,
    belief_over_views,
    draw_candidates,
    group_of,
    seed_of,
    select_candidates,
    view_draws,
    whole_batches,
)
from lightleak.data.views import View, resized
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
    epsilon: float = 1e-8  # Adam's; the published mean over a batch of B is this sum with B times as much
    milestones: tuple[int, ...] = ()  # steps after which the rate falls to a tenth
    loss: str = "poincare"  # or cross-entropy, max-margin, logit
    critic: float = 0.0  # weight of softplus(-realism)
    view: View = View(scale=(0.9, 1.0))  # noqa: RUF009  what the target looks through while descending
    alignment: Alignment | None = None  # average the gradient over copies of what the target looks at (TAA, PAA)
    views: int = 100  # number of views that judge an attempt
    judging: View = View(scale=(0.5, 0.9), ratio=(0.8, 1.2), flip=0.5)  # noqa: RUF009
    shared: bool = False  # compat: all attempts of a class look through the same views (published: all of a batch)
    cutoff: int | None = (
        None  # compat: score candidates with only the first so many style slots truncated (published: 8)
    )
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
        if self.steps < 0 or self.views < 1 or self.batch < 1 or not self.rate > 0 or not self.epsilon > 0:
            problems.append("steps must be at least 0, views and batch at least 1, rate and epsilon above 0")
        if self.cutoff is not None and self.cutoff < 0:
            problems.append(f"cutoff must be at least 0, not {self.cutoff}")
        if problems:
            raise UserError("; ".join(problems))

    @property
    def group(self) -> int:
        """Identities that share a batch; shards are cut between such groups."""
        return group_of(self.attempts, self.batch)

    def run(
        self,
        oracle: Oracle,
        prior: Prior,
        classes: Tensor,
        rng: torch.Generator,
        watch: Watch | None = None,
        candidates: Candidates | None = None,
    ) -> Reconstruction:
        """`keep` reconstructions of each class, best first; what a class gets depends on (rng's seed, class) alone.

        `candidates` are those that `score` made with the same rng, where they are already there.
        """
        began, asked = time.monotonic(), oracle.queries
        seed = seed_of(rng)
        # 1. keep the latents which the target already believes in
        known = candidates or self._score(oracle, prior, seed)
        if (known.seed, len(known.latents)) != (seed, self.candidates):
            raise UserError("these candidates were scored with another seed or number; score them with the same rng")
        classes = classes.to(oracle.device)
        chosen = select_candidates(known.scores.to(oracle.device), classes, self.attempts).flatten()
        latents = known.latents.to(oracle.device)[chosen]
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
            images = torch.cat([prior.decode(latents[part]).clamp(0, 1) for part in parts])
        belief = torch.cat([self.judge(oracle, images[p], labels[p], attempts[p], seed) for p in parts])
        best = belief.view(len(classes), self.attempts).topk(self.keep, dim=1)
        index = (
            best.indices + self.attempts * torch.arange(len(classes), device=best.indices.device)[:, None]
        ).flatten()
        return Reconstruction(
            images=images[index],
            classes=labels[index],
            latents=latents[index],
            confidence=best.values.flatten(),
            queries=oracle.queries - asked + (candidates.queries if candidates else 0),
            shared=known.queries,
            seconds=time.monotonic() - began,
        )

    def score(self, oracle: Oracle, prior: Prior, rng: torch.Generator) -> Candidates:
        """Step 1's table, which depends on target, prior, `candidates`, `cutoff` and rng alone: attacks that differ
        in anything else can share it.
        """
        return self._score(oracle, prior, seed_of(rng))

    def _score(self, oracle: Oracle, prior: Prior, seed: int) -> Candidates:
        return draw_candidates(oracle, prior, self.candidates, seed, 4 * self.batch, self.cutoff)

    def descend(
        self,
        oracle: Oracle,
        prior: Prior,
        start: Tensor,
        classes: Tensor,
        attempts: Tensor,
        seed: int,
        tell: Callable[..., None],
    ) -> Tensor:
        """Step 2 for one batch of attempts: the optimised latents."""
        latents = start.clone().requires_grad_()
        optimiser = torch.optim.Adam([latents], self.rate, betas=(0.1, 0.1), eps=self.epsilon)
        draws = view_draws(seed, classes, self._streams(attempts), self.steps).to(start.device)
        belief = torch.zeros(())

        def look(seen: Tensor, index: Tensor) -> Tensor:
            nonlocal belief
            logits, wanted = oracle.logits(seen), classes[index]
            belief = logits.detach().softmax(1).gather(1, wanted[:, None]).mean()
            return LOSSES[self.loss](logits, wanted)

        everyone = torch.arange(len(start), device=start.device)
        for step in range(self.steps):
            images = prior.decode(latents)
            seen = self.view(resized(images, oracle.size), draws[:, step])
            if self.alignment is None:
                loss = look(seen, everyone).sum()
            else:
                loss = self.alignment.losses(seen, look, seed, classes, attempts, step).sum()
            if self.critic:
                loss = loss + self.critic * F.softplus(-prior.realism(images)).sum()
            (latents.grad,) = torch.autograd.grad(loss, latents)
            for group in optimiser.param_groups:
                group["lr"] = self.rate * 0.1 ** sum(step >= milestone for milestone in self.milestones)
            optimiser.step()
            tell(step + 1, confidence=float(belief))
        return latents.detach()

    def judge(self, oracle: Oracle, images: Tensor, classes: Tensor, attempts: Tensor, seed: int) -> Tensor:
        """Step 3's belief in each image's class, averaged over `views` views, N."""
        draws = view_draws(seed + 1, classes, self._streams(attempts), self.views)
        return belief_over_views(oracle, resized(images, oracle.size), classes, self.judging, draws, 4 * self.batch)

    def _streams(self, attempts: Tensor) -> Tensor:
        """Whose views each attempt looks through: its own, or those of its class's first."""
        return torch.zeros_like(attempts) if self.shared else attempts


# The papers' settings (PPA: appendix and configurations; RoLSS: configurations). Faces are FaceScrub's and CelebA's.
DOGS = View(scale=(0.75, 1.0))
PRESETS = {
    "ppa": PPA(),
    "ppa-celeba": PPA(candidates=5000, steps=70),
    "ppa-metfaces": PPA(candidates=5000, steps=70),
    "ppa-dogs": PPA(steps=100, rate=0.01, view=DOGS),
    # The configurations that PPA ships: as FaceScrub's, with a falling rate.
    "ppa-files": PPA(milestones=(30, 40)),
    # Koh et al. (ECCV 2024) attack with fewer attempts and a falling rate.
    "rolss": PPA(attempts=16, keep=8, milestones=(30, 40)),
    "rolss-dogs": PPA(attempts=16, keep=8, rate=0.01, milestones=(30, 40), view=DOGS),
    # As the published code does it, batch by batch of 25; the prior needs crop=800 and clip=False.
    "published": PPA(milestones=(30, 40), epsilon=25e-8, shared=True, cutoff=8, batch=25),
    # AlignMI (Peng et al., NeurIPS 2025), which returns all that it optimised.
    "taa": PPA(attempts=100, keep=100, steps=70, alignment=ALIGNMENTS["taa"]),
    "paa": PPA(attempts=100, keep=100, steps=70, alignment=ALIGNMENTS["paa"]),
    # The renderer's latents are wider than style vectors; the rate is a fortieth of a factor's range.
    "rendered": PPA(candidates=600, attempts=6, keep=3, steps=50, rate=0.05, milestones=(30, 40), views=20),
    "smoke": PPA(candidates=32, attempts=2, keep=1, steps=3, views=4),
}
