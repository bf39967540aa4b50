"""MIRROR, black-box: a genetic search by scores (An et al., NDSS 2022).

    1. for each class the population are the samples of the prior of which the target is most confident
    2. parents are drawn in proportion to the target's confidence in them, with replacement
    3. a child takes each dimension from one of two parents, from the better one more often, and a tenth of its
       dimensions move a little; it is kept in the prior's box
    4. the best so far and the children are the next population; go on at 2 until the target is confident enough
    5. return the best

The generations of all classes of a batch are one. A child costs a query; the best is known and is not asked about
again (code: it is, in every generation). The last generation is as small as what is left of the budget.

Deviations: the better of two parents, of confidences p and q, gives p / (p + q) of the dimensions (code: the same of
the logarithms, which gives the better one less); each child has its own mutation (code: one for all of a generation).
Mutations are in units of the box in latents, of StyleGAN2's as well (code: where its mapping's last rectifier is
undone).
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from lightleak.attacks.draws import Streams
from lightleak.attacks.frame import Common, Found, Part, Tell
from lightleak.attacks.oracle import Access, Oracle
from lightleak.attacks.queries import ByQueries, Curve, answers_to, box_for, confidence_in, table_of, too_small
from lightleak.attacks.steps import select_candidates
from lightleak.errors import refuse
from lightleak.place import precise
from lightleak.priors.prior import Prior

LEAST = 1e-12  # a confidence of zero still leaves a parent a chance


@dataclass(frozen=True)
class MirrorBlackBox(ByQueries):
    """MIRROR without gradients: a genetic search in the prior's box, by the target's scores."""

    queries: int = 99_900  # for each class, shared evenly by its attempts, beside the samples
    attempts: int = 1  # searches for each class; the best of each is returned
    samples: int = 100_000  # of the prior, scored once for all classes
    population: int = 1000
    mutated: float = 0.1  # share of a child's dimensions that move
    strength: float = 0.1  # by at most so many standard deviations of the prior
    kappa: float = 1.0  # children stay within so many standard deviations
    enough: float | None = 0.95  # confidence at which a search ends; None: it spends its budget
    batch: int = field(default=256, compare=False)  # images at a time: decides speed and memory, not the result
    access: ClassVar[Access] = "scores"

    def __post_init__(self) -> None:
        problems = []
        if min(self.attempts, self.batch) < 1 or not 2 <= self.population <= self.samples:
            problems.append("attempts and batch must be at least 1, population from 2 to the number of samples")
        elif self.queries:
            problems += too_small(self, self.queries, self.population - 1, self.attempts)
        if not (0 <= self.mutated <= 1 and self.strength > 0 and self.kappa > 0):
            problems.append("mutated must be in [0, 1], strength and kappa above 0")
        if self.enough is not None and not 0 < self.enough <= 1:
            problems.append(f"enough is a confidence in (0, 1] or None, not {self.enough}")
        refuse(problems)

    @property
    def title(self) -> str:
        """What a table calls it."""
        return "MIRROR, black-box"

    @property
    def steps(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Generations that the budget pays, the last one perhaps a smaller one."""
        return -(-self.each // (self.population - 1))

    @property
    def images_beforehand(self) -> int:
        """The samples."""
        return self.samples

    @property
    def preparation(self) -> "MirrorBlackBox":
        """Scored samples depend on how many there are."""
        return MirrorBlackBox(queries=0, samples=self.samples, population=2)

    def prepare(self, oracle: Oracle, prior: Prior, seed: int) -> Common:
        """Samples and the target's confidence in each, for every class."""
        return table_of(oracle.scores, oracle, prior, self.samples, seed, self.batch, None)

    def search(self, oracle: Oracle, prior: Prior, part: Part, tell: Tell) -> Found:
        """The best latents."""
        # 1. the samples of which the target is most confident
        first = select_candidates(part.table("said"), part.identities, self.population)[part.place]
        people, confidence = part.table("latents")[first], part.table("said")[first, part.classes[:, None]]
        confidence = confidence.nan_to_num(nan=0.0)
        (low, high), streams, curve = box_for(prior, self.kappa, part), part.streams(), Curve(part, self.steps)
        spread, alive = (high - low) / 2 / self.kappa, self._unsure(confidence)
        spent = torch.zeros_like(part.classes)
        curve.add(0, spent, confidence.amax(1))
        for step in range(self.steps):
            count = min(self.population - 1, self.each - step * (self.population - 1))
            mine = alive.nonzero().squeeze(1)
            if not len(mine):
                break
            # 2. parents by confidence
            mothers, fathers = parents(confidence[mine], count, streams, mine)
            here = torch.arange(len(mine), device=part.device)[:, None]
            # 3. children
            share = share_of(confidence[mine][here, mothers], confidence[mine][here, fathers])
            chance = streams.uniforms(mine, 3, count, prior.latents)
            children = torch.where(
                chance[:, 0] < share[:, :, None], people[mine][here, mothers], people[mine][here, fathers]
            )
            moves = self.strength * spread * (2 * chance[:, 2] - 1)
            children = (children + moves * (chance[:, 1] < self.mutated)).clamp(low, high)
            rows = part.rows(step).at(mine).repeated(count)
            confidences = answers_to(confidence_in(oracle), oracle, prior, children.flatten(0, 1), rows, self.batch)
            # 4. the best so far and the children
            best = confidence[mine].argmax(1, keepdim=True)
            size = 1 + count
            people[mine, :size] = torch.cat([people[mine][here, best], children], 1)
            confidence[mine, :size] = torch.cat(
                [confidence[mine].gather(1, best), confidences.unflatten(0, (len(mine), -1))], 1
            )
            spent[mine] += count
            alive = self._unsure(confidence)
            curve.add(step + 1, spent, confidence.amax(1))
            tell(step + 1, confidence=float(confidence.amax(1).mean()))
        # 5. the best
        sure, best = confidence.max(1)
        latents = people[torch.arange(len(part), device=part.device), best]
        return Found(latents, confidence=sure, per_class={"curve": curve.table()})

    def _unsure(self, confidence: Tensor) -> Tensor:
        """Which searches go on, N."""
        best = confidence.amax(1)
        return torch.ones_like(best, dtype=torch.bool) if self.enough is None else best < self.enough


def parents(confidence: Tensor, count: int, streams: Streams, index: Tensor) -> tuple[Tensor, Tensor]:
    """Two parents of `count` children each, drawn in proportion to confidence (N x P), with replacement; N x count."""
    edges = precise(weights(confidence)).cumsum(1)
    draws = precise(streams.uniforms(index, 2 * count)) * edges[:, -1:]
    chosen = torch.searchsorted(edges, draws, right=True).clamp(max=confidence.shape[1] - 1).to(confidence.device)
    return chosen[:, :count], chosen[:, count:]


def weights(confidence: Tensor) -> Tensor:
    """How likely each of a population becomes a parent, N x P: the softmax of the logarithms of the confidences."""
    return confidence.clamp(min=LEAST) / confidence.clamp(min=LEAST).sum(1, keepdim=True)


def share_of(one: Tensor, other: Tensor) -> Tensor:
    """The share of a child's dimensions that come from one of two parents, by the target's confidence in both."""
    one, other = one.clamp(min=LEAST), other.clamp(min=LEAST)
    return one / (one + other)


PRESETS = {
    "mirror": MirrorBlackBox(),
    # What the released script starts with where nothing else is said.
    "small-population": MirrorBlackBox(queries=9_900, population=100),
    # As a baseline of SMILE (Li et al., CVPR 2025): 20 generations.
    "smile-baseline": MirrorBlackBox(queries=19_980),
    # For the renderer and two cores.
    "rendered": MirrorBlackBox(queries=4_950, samples=3_000, population=100),
}
