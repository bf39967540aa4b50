"""SMILE's idea: a surrogate's gradients, then evolution on the target, under a small budget (Li et al., CVPR 2025).

    1. score samples of the prior, once for all classes; each class starts at the one with the highest confidence
    2. descend the cross-entropy of surrogates of the target by Adam, in the prior's box
    3. ask the target about where that ends, and go on from the better of both by separable CMA-ES on its scores;
       without a descent go on from the start, about which the target has been asked
    4. return the best that the target was shown

Surrogates are learnt beforehand, from what the target says of public images, with the attack's own access. All classes
of a batch evolve at once, each from its own generator. A candidate costs a query; the last generation is as small as
what is left of the budget.

Deviations: plain distillation (published: three experts and a long-tail weight, which in the released trainer does
nothing for a single sample) from public images (published: the 2,500 samples); separable CMA-ES (published: the
optimiser that nevergrad chooses, one candidate at a time); candidates outside the box are shown as its nearest point.
"""

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from lightleak.attacks.evolution import Evolution, Rates
from lightleak.attacks.frame import Common, Found, Needs, Part, Tell
from lightleak.attacks.oracle import Access, Oracle
from lightleak.attacks.queries import ByQueries, Curve, answers_to, box_for, confidence_in, table_of, too_small
from lightleak.attacks.steps import cross_entropy, select_candidates
from lightleak.data.views import resized
from lightleak.errors import UserError, refuse
from lightleak.priors.prior import Prior


@dataclass(frozen=True)
class SMILE(ByQueries):
    """A start by a surrogate's gradients, then separable CMA-ES on the target's scores; 1,000 queries a class."""

    queries: int = 1000  # for each class, shared evenly by its attempts, beside samples and surrogates
    attempts: int = 1  # searches for each class, from its best samples; all are returned
    samples: int = 2500  # of the prior, scored once for all classes
    surrogate: bool = True  # whether a surrogate leads the way; False: CMA-ES from the best sample
    descent: int = 200  # steps on the surrogate
    rate: float = 0.2  # Adam's on the way, which grows and falls as MIRROR's
    near: float = 1.0  # the descent stays within so many standard deviations of the prior
    population: int = 16
    spread: float = 0.3  # the first step size, as a share of half the box
    kappa: float = 1.7  # candidates stay within so many standard deviations
    batch: int = field(default=256, compare=False)  # images at a time: decides speed and memory, not the result
    access: ClassVar[Access] = "scores"

    def __post_init__(self) -> None:
        problems = []
        if min(self.attempts, self.batch) < 1 or self.attempts > self.samples or self.descent < 0:
            problems.append("attempts and batch must be at least 1, samples at least attempts, descent at least 0")
        elif self.population < 4:
            problems.append(f"a population has at least 4 candidates, not {self.population}")
        elif self.queries:
            problems += too_small(self, self.queries, self.population + self.descends, self.attempts)
        if not min(self.rate, self.near, self.spread, self.kappa) > 0:
            problems.append("rate, near, spread and kappa must be above 0")
        refuse(problems)

    @property
    def title(self) -> str:
        """What a table calls it."""
        return "surrogate + CMA-ES" if self.surrogate else "CMA-ES"

    @property
    def steps(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Generations that the budget pays beside the end of a descent, the last one perhaps a smaller one."""
        return max(0, -(-(self.each - self.descends) // self.population))

    @property
    def descends(self) -> bool:
        """Whether a surrogate leads away from the sample; where that ends costs a query."""
        return self.surrogate and self.descent > 0

    def needs(self) -> Needs:
        """A surrogate, unless there is to be none."""
        return replace(super().needs(), knowledge=self.surrogate)

    @property
    def images_beforehand(self) -> int:
        """The samples."""
        return self.samples

    @property
    def preparation(self) -> "SMILE":
        """Scored samples depend on how many there are."""
        return SMILE(queries=0, samples=self.samples, surrogate=False)

    def prepare(self, oracle: Oracle, prior: Prior, seed: int) -> Common:
        """Samples and the target's confidence in each, for every class."""
        return table_of(oracle.scores, oracle, prior, self.samples, seed, self.batch, None)

    def search(self, oracle: Oracle, prior: Prior, part: Part, tell: Tell) -> Found:
        """The best latents that the target was shown."""
        # 1. the samples with the highest confidence
        said = part.table("said")
        first = select_candidates(said, part.identities, self.attempts)[part.place, part.attempts]
        best, confidence = part.table("latents")[first].clone(), said[first, part.classes].nan_to_num(nan=0.0)
        spent, curve = torch.zeros_like(part.classes), Curve(part, self.descends + self.steps)
        curve.add(0, spent, confidence)
        if not self.queries:
            return Found(best, confidence=confidence, per_class={"curve": curve.table()})
        if self.descends:
            # 2. a surrogate's gradients
            end = self.led(prior, part, best)
            # 3. evolution from the better of both
            reached = answers_to(confidence_in(oracle), oracle, prior, end, part.rows(0), self.batch)
            best, confidence = better(best, confidence, end[:, None], reached[:, None])
            spent = spent + 1
            curve.add(1, spent, confidence)
        (low, high), streams = box_for(prior, self.kappa, part), part.streams()
        centre, half = (low + high) / 2, (high - low) / 2
        state = Evolution.at((best - centre) / half, self.spread)
        rates, everybody = Rates.of(prior.latents, self.population), torch.arange(len(part))
        for step in range(self.steps):
            normals = streams.normals(everybody, self.population, prior.latents)
            count = min(self.population, self.each - self.descends - step * self.population)
            latents = (centre + half * state.candidates(normals)[:, :count]).clamp(low, high)
            rows = part.rows(step + 1).repeated(count)
            said = answers_to(confidence_in(oracle), oracle, prior, latents.flatten(0, 1), rows, self.batch)
            said = said.unflatten(0, (len(part), -1))
            best, confidence = better(best, confidence, latents, said)
            if count == self.population:
                state = state.after(normals, said, rates).within(low.new_tensor(-1), low.new_tensor(1))
            spent = spent + count
            curve.add(self.descends + step + 1, spent, confidence)
            tell(step + 1, confidence=float(confidence.mean()))
        # 4. the best that was seen
        return Found(best, confidence=confidence, per_class={"curve": curve.table()})

    def led(self, prior: Prior, part: Part, start: Tensor) -> Tensor:
        """Step 2: where descending the surrogates' cross-entropy ends; it costs no queries."""
        if part.knowledge is None or not part.knowledge.students:
            raise UserError("this knowledge holds no surrogate; learn one, or set surrogate=False")
        surrogates, (low, high) = part.knowledge.oracles(part.device), box_for(prior, self.near, part)
        latents = start.clamp(low, high).requires_grad_()
        optimiser = torch.optim.Adam([latents], self.rate)
        for step in range(self.descent):
            images = prior.decode(latents)
            losses = [
                cross_entropy(each.logits(resized(images, each.size), part.rows(step)), part.classes)
                for each in surrogates
            ]
            (latents.grad,) = torch.autograd.grad(torch.stack(losses).mean(0).sum(), latents)
            optimiser.param_groups[0]["lr"] = self.rate * ramp(step / self.descent)
            optimiser.step()
            latents.data.clamp_(low, high)
        return latents.detach()


def ramp(t: float) -> float:
    """MIRROR's factor of the rate at a share t of the steps: up over the first 5 %, down over the last quarter."""
    return (0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - t) / 0.25))) * min(1.0, t / 0.05)


def better(best: Tensor, confidence: Tensor, latents: Tensor, said: Tensor) -> tuple[Tensor, Tensor]:
    """The best of each search, N x L, and its confidence, N, after candidates N x P x L, `said` N x P."""
    top, place = said.max(1)
    theirs = latents[torch.arange(len(latents), device=latents.device), place]
    return torch.where((top > confidence)[:, None], theirs, best), torch.maximum(top, confidence)


PRESETS = {
    "smile": SMILE(),
    "cma-es": SMILE(surrogate=False),
    # For the renderer and two cores.
    "rendered": SMILE(samples=1000, rate=0.05),
}
