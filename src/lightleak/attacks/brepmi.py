"""BREP-MI: boundary-repelling model inversion from labels alone (Kahla et al., CVPR 2022).

    1. for each class start at a sample of the prior that the target calls so
    2. ask for the labels of points on a sphere around it
    3. if nearly all are of the class, note the centre and go on with a larger sphere
    4. move the centre away from the points that are not, if its label stays; go on at 2
    5. return the centre of the largest sphere that was nearly all inside

All spheres of a batch are asked about at once. An iteration costs a query for each point and one for the new centre.
As in the code, a growing sphere's points have the old radius and the step is the old radius' third, but the mean is
divided by the new one; the centre is kept in the prior's box, the points are not.

Deviations: every query counts, so a move that is refused cannot go on for ever; the code also reads the soft score and
a judge in every iteration, which somebody who sees labels does not have. Starts come from one table for all classes;
a class that is in none of its samples is named as failed (code: only classes that are hit are attacked). The code
saves the centre before the last growth and scores the one after it; the former is returned.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from lightleak.attacks.draws import Rows
from lightleak.attacks.frame import Common, Found, Part, Tell
from lightleak.attacks.oracle import Access, Oracle
from lightleak.attacks.queries import ByQueries, Curve, answers_to, box_for, table_of, too_small
from lightleak.errors import refuse
from lightleak.priors.prior import Prior


@dataclass(frozen=True)
class BREPMI(ByQueries):
    """Boundary-repelling inversion: move into a class until a large sphere lies inside; it sees labels alone."""

    queries: int = 99_000  # for each class, shared evenly by its attempts; what pays no whole iteration is not spent
    attempts: int = 1  # starts for each class; all are returned
    samples: int = 100_000  # of the prior, labelled once for all classes
    points: int = 32  # on a sphere
    radius: float = 2.0  # of the first sphere
    growth: float = 1.3
    largest: float | None = None  # radius at which a search ends; None: none
    patience: int = 1000  # accepted moves at one radius after which a search ends
    kappa: float = 1.5  # centres stay within so many standard deviations of the prior
    attract: bool = False  # points inside pull as much as those outside push (a variant of the paper's)
    batch: int = field(default=256, compare=False)  # images at a time: decides speed and memory, not the result
    access: ClassVar[Access] = "labels"

    def __post_init__(self) -> None:
        problems = []
        if min(self.attempts, self.samples, self.points, self.patience, self.batch) < 1:
            problems.append("attempts, samples, points, patience and batch must be at least 1")
        elif self.queries:
            problems += too_small(self, self.queries, self.points + 1, self.attempts)
        if not (self.radius > 0 and self.growth > 1 and self.kappa > 0):
            problems.append("radius and kappa must be above 0, growth above 1")
        if self.largest is not None and not self.largest > self.radius:
            problems.append(f"the largest radius must be above the first, {self.radius}")
        refuse(problems)

    @property
    def title(self) -> str:
        """What a table calls it."""
        return "BREP-MI"

    @property
    def steps(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Iterations that the budget pays."""
        return self.each // (self.points + 1)

    @property
    def images_beforehand(self) -> int:
        """The samples."""
        return self.samples

    @property
    def images_searched(self) -> int:
        """Those of whole iterations."""
        return self.attempts * self.steps * (self.points + 1)

    @property
    def preparation(self) -> "BREPMI":
        """Labelled samples depend on how many there are and on the box."""
        return BREPMI(samples=self.samples, kappa=self.kappa)

    def prepare(self, oracle: Oracle, prior: Prior, seed: int) -> Common:
        """Samples within the box and their labels."""
        return table_of(oracle.labels, oracle, prior, self.samples, seed, self.batch, self.kappa)

    def search(self, oracle: Oracle, prior: Prior, part: Part, tell: Tell) -> Found:
        """Centres of the largest spheres."""

        def named(images: Tensor, rows: Rows) -> Tensor:
            return oracle.labels(images, rows) == rows.classes

        def inside(latents: Tensor, rows: Rows) -> Tensor:
            return answers_to(named, oracle, prior, latents, rows, self.batch)

        # 1. start at a sample that the target calls so
        centre, alive = self._starts(part)
        hit, low_high, streams = alive.clone(), box_for(prior, self.kappa, part), part.streams()
        noted, grown = centre.clone(), torch.zeros_like(alive)
        radius, still = torch.full((len(part),), self.radius, device=part.device), torch.zeros_like(part.classes)
        spent, curve = torch.zeros_like(still), Curve(part, self.steps)
        curve.add(0, spent, radius * hit)
        for step in range(self.steps):
            if not alive.any():
                break
            mine = alive.nonzero().squeeze(1)
            at, r, rows = centre[mine], radius[mine, None], part.rows(2 * step).at(mine)
            # 2. labels on the spheres
            offsets = on_sphere(streams.normals(mine, self.points, prior.latents)) * r[:, :, None]
            said = inside((at[:, None] + offsets).flatten(0, 1), rows.repeated(self.points)).unflatten(
                0, (len(mine), -1)
            )
            # 3. grow where nearly all are inside
            grows = nearly_all(said)
            noted[mine] = torch.where(grows[:, None], at, noted[mine])
            grown[mine] |= grows
            wider = torch.where(grows[:, None], r * self.growth, r)
            # 4. move away from those that are not
            moved = at + (r / 3).clamp(max=3) * repelled(offsets, said, self.attract) / wider
            moved = moved.clamp(*low_high)
            accepted = inside(moved, part.rows(2 * step + 1).at(mine))
            centre[mine] = torch.where(accepted[:, None], moved, at)
            radius[mine] = wider.squeeze(1)
            still[mine] = torch.where(grows, 0, still[mine] + accepted.long())
            spent[mine] += self.points + 1
            alive &= (still < self.patience) & (radius < (self.largest or torch.inf))
            curve.add(step + 1, spent, radius * hit)
            tell(step + 1, radius=float(radius[hit].mean()))
        # 5. the centres of the largest spheres
        found = torch.where(grown[:, None], noted, centre)[hit]
        missing = part.identities[~torch.isin(part.identities, part.classes[hit])].tolist()
        why = f"none of {self.samples} samples of the prior is called so"
        return Found(
            found,
            part.classes[hit],
            part.attempts[hit],
            confidence=torch.ones(len(found)),
            per_class={"radii": curve.table()},
            failures=dict.fromkeys(missing, why),
        )

    def _starts(self, part: Part) -> tuple[Tensor, Tensor]:
        """A sample of each search's class, its attempt-th, N x L, and whether there is one, N."""
        latents, labels = part.table("latents"), part.table("said")
        called = [(labels == label).nonzero().squeeze(1) for label in part.classes.tolist()]
        hit = torch.tensor([len(index) > 0 for index in called], device=part.device)
        chosen = [
            int(index[attempt % len(index)]) if len(index) else 0
            for index, attempt in zip(called, part.attempts.tolist(), strict=True)
        ]
        return latents[chosen].clone(), hit


def on_sphere(normals: Tensor) -> Tensor:
    """Points spread evenly on the unit sphere, of standard normal numbers ... x L."""
    return normals / normals.norm(dim=-1, keepdim=True)


def nearly_all(inside: Tensor) -> Tensor:
    """Whether the signs (1 inside, -1 outside; N x P) add up to more than three quarters: 29 of 32, N."""
    return 2 * inside.sum(1) - inside.shape[1] > 0.75 * inside.shape[1]


def repelled(offsets: Tensor, inside: Tensor, attract: bool = False) -> Tensor:
    """The mean direction away from the points that lie outside, N x L, of offsets N x P x L; of all P points the mean.

    With `attract`, those inside count as well, towards them.
    """
    signs = inside.float() if attract else torch.zeros_like(inside, dtype=torch.float32)
    return ((signs - (~inside).float())[:, :, None] * offsets).mean(1)


PRESETS = {
    "brep-mi": BREPMI(),
    # As a later attack has it (PPDG-MI: Peng et al., NeurIPS 2024).
    "ppdg": BREPMI(radius=1.0, growth=1.275, kappa=1.2, largest=16.3),
    "ppdg-second": BREPMI(radius=1.0, growth=1.275, kappa=1.2, largest=9.0),
    # For the renderer and two cores.
    "rendered": BREPMI(queries=9_900, samples=3_000, radius=0.5),
}
