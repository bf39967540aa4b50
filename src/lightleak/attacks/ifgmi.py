"""IF-GMI: a closer look at GAN priors, exploiting intermediate features (Qiu et al., ECCV 2024).

    1. for each class start at the latents of which the target is already confident, as PPA
    2. descend the Poincaré distance over the latents
    3. let the generator's next block run once; from then on what it left, its features, is descended over together with
       the latents, and both stay in an L1 ball around where they began
    4. go on at 3 until the stages are over; return all attempts

The image is no longer what the generator makes of the latents alone, so it cannot be made again of them.

Deviations: colours that earlier blocks have summed up stay in the image (code: they are dropped at every stage, and the
coarse colours are learnt anew); images are those after a stage's last step (code: before it); one fixed stage is
returned, the last (code: the one in which the *evaluation* network recognises most, which no attacker knows); each
image has its own random view, losses are summed, and candidates start as they were scored, as in PPA.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from lightleak.attacks.alignment import Alignment, aligned
from lightleak.attacks.frame import Attack, Common, Found, Needs, Part, ReturnsAll, Tell
from lightleak.attacks.oracle import Access, Oracle
from lightleak.attacks.ppa import PPA
from lightleak.attacks.steps import draw_candidates, identity_loss, loss_problems, select_candidates, view_draws
from lightleak.data.views import View, resized
from lightleak.errors import refuse
from lightleak.priors.prior import Prior, State


@dataclass(frozen=True)
class IFGMI(ReturnsAll):
    """IF-GMI: optimise latents, then the features between a StyleGAN2's blocks; defaults are FaceScrub's."""

    candidates: int = 2000  # latents drawn once, scored for every class
    attempts: int = 50  # of them optimised, per class; all are returned
    stages: tuple[int, ...] = (50, 10, 10, 10)  # steps over the latents, then with the features before blocks 1, 2, ...
    radii: tuple[float, ...] = (1000.0, 2000.0, 3000.0, 4000.0)  # of each stage's L1 balls
    rate: float = 0.005  # Adam's, with betas (0.1, 0.1), which begins anew at each stage
    loss: str = "poincare"  # or cross-entropy, max-margin, logit
    view: View = View(scale=(0.9, 1.0))  # what the target looks through while descending
    alignment: Alignment | None = None  # average the gradient over copies of what the target looks at (TAA, PAA)
    batch: int = field(default=64, compare=False)  # attempts at a time: decides speed and memory, not the result
    version: ClassVar[int] = 2  # 1 kept images at the target's size alone, and judges saw those
    access: ClassVar[Access] = "gradients"
    sorted: ClassVar[bool] = False

    def __post_init__(self) -> None:
        problems = []
        if not 1 <= self.attempts <= self.candidates or self.batch < 1:
            problems.append(f"expected 1 <= attempts <= candidates, got {self.attempts}, {self.candidates}; batch >= 1")
        if not self.stages or min(self.stages) < 0 or len(self.radii) != len(self.stages):
            problems.append(f"each stage has steps and a radius, but there are {self.stages} and {self.radii}")
        if not all(radius > 0 for radius in (*self.radii, self.rate)):
            problems.append("radii and rate must be above 0")
        problems += loss_problems(self.loss)
        refuse(problems)

    @property
    def title(self) -> str:
        """What a table calls it."""
        return "IF-GMI"

    @property
    def steps(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Steps of all stages."""
        return sum(self.stages)

    @property
    def images_beforehand(self) -> int:
        """The candidates that PPA would score."""
        return self.preparation.images_beforehand

    def needs(self) -> Needs:
        """A prior that can be stopped before the block of its last stage."""
        return Needs(blocks=len(self.stages))

    @property
    def preparation(self) -> Attack:
        """The candidates that PPA would score."""
        return PPA(candidates=self.candidates, attempts=1, keep=1)

    def prepare(self, oracle: Oracle, prior: Prior, seed: int) -> Common:
        """Step 1's table: latents, and the target's confidence in each."""
        return draw_candidates(oracle, prior, self.candidates, seed, 4 * self.batch)

    def search(self, oracle: Oracle, prior: Prior, part: Part, tell: Tell) -> Found:
        """The latents and images at the end of the last stage."""
        # 1. the latents of which the target is already confident
        chosen = select_candidates(part.table("scores"), part.identities, self.attempts)
        latents = part.table("latents")[chosen[part.place, part.attempts]].clone()
        draws = view_draws(part.seed, part.classes, part.attempts, self.steps)
        state, begun = prior.begin(latents, 0), 0
        for block, steps in enumerate(self.stages):
            # 3. one block more runs for good; then 2., with the features that it left
            if block:
                with torch.no_grad():
                    state = prior.through(state, latents, block - 1)
            when = range(begun, begun := begun + steps)
            latents, state = self.descend(oracle, prior, latents, state, block, draws, when, part, tell)
        # 4. all attempts
        with torch.no_grad():
            images = prior.finish(state, latents, len(self.stages) - 1).clamp(0, 1)
        return Found(latents, images=images)

    def descend(
        self,
        oracle: Oracle,
        prior: Prior,
        latents: Tensor,
        state: State,
        block: int,
        draws: Tensor,
        when: range,
        part: Part,
        tell: Tell,
    ) -> tuple[Tensor, State]:
        """One stage: latents, and from the second stage on the features before `block`, in balls around the start."""
        starts = [latents, state.features][: 1 + (block > 0)]
        moving = [start.clone().requires_grad_() for start in starts]
        optimiser = torch.optim.Adam(moving, self.rate, betas=(0.1, 0.1))
        identity = aligned(identity_loss(oracle, self.loss), self.alignment, oracle.size)
        for step in when:
            images = prior.finish(State(moving[-1], state.image) if block else state, moving[0], block)
            losses, logits = identity(self.view(resized(images, oracle.size), draws[:, step]), part.rows(step))
            for variable, slope in zip(moving, torch.autograd.grad(losses.sum(), moving), strict=True):
                variable.grad = slope
            optimiser.step()
            with torch.no_grad():
                for variable, start in zip(moving, starts, strict=True):
                    variable.copy_(start + in_ball(variable - start, self.radii[block]))
                confidence = logits.softmax(1).gather(1, part.classes[:, None]).mean()
            tell(step + 1, confidence=float(confidence))
        ends = [variable.detach() for variable in moving]
        return ends[0], State(ends[-1], state.image) if block else state


def in_ball(moves: Tensor, radius: float) -> Tensor:
    """The nearest point of an L1 ball for each row of N x ..., exactly: all magnitudes fall alike, to 0 at least.

    The threshold by which they fall rises until the rest sums up to the radius (Michelot, 1986); rows inside stay.
    """
    size = moves.flatten(1).abs()
    threshold = size.new_zeros(len(size), 1)
    while True:
        above = size > threshold
        excess = (size * above).sum(1, keepdim=True) - radius
        higher = torch.maximum(threshold, excess / above.sum(1, keepdim=True).clamp(min=1))
        if torch.equal(higher, threshold) or not higher.isfinite().all():
            return (moves.flatten(1).sign() * (size - higher).clamp(min=0)).view_as(moves)
        threshold = higher


DOGS = View(scale=(0.75, 1.0))
PRESETS = {
    "ifgmi": IFGMI(),
    "ifgmi-celeba": IFGMI(candidates=5000, stages=(70, 25, 25, 25)),
    "ifgmi-dogs": IFGMI(stages=(100, 10, 10, 10), rate=0.01, view=DOGS),
    # The released configurations have eight stages, of which an evaluation network then picks one.
    "files": IFGMI(stages=(50, *[10] * 7), radii=(1000.0, 2000.0, 3000.0, 4000.0, 5000.0, 6000.0, 8000.0, 8000.0)),
}
