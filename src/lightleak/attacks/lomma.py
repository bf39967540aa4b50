"""LOMMA: logit maximisation and model augmentation around GMI or KED-MI (Nguyen et al., Re-thinking MI, CVPR 2023).

    1. learn from public images: students of the target, and the mean of its penultimate features (`knowledge.py`)
    2. run the other attack, with the identity loss
       mean over target and students of -(logit of the class) + regulariser |features of the target - their mean|^2
    3. return what it finds

Around KED-MI latents are clipped to [-1, 1] inside the loss and when images are drawn, as in LOMMA's code; around GMI
after every step. The square is a mean over features. The paper's variants: `loss="cross-entropy"`, `regulariser=0` and
`students=False` is the other attack itself; with `loss="logit"`, `regulariser=1` it is "+ LOM", with students "+ MA".

Where the code differs from the paper we follow the code, and a flag follows the paper:

- `drawn=True`: the features' goal is drawn from a normal distribution with their mean and spread, once for each attempt
  (the code draws it and then replaces it by the mean);
- `norm=True`: the regulariser is the squared norm (the code: the mean square, smaller by the number of features).

Deviations: those of the other attack and of `knowledge.py`. The published code around GMI does not run.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lightleak.attacks.alignment import Alignment, aligned
from lightleak.attacks.draws import Rows, own_normals
from lightleak.attacks.frame import Found, Needs, Part, ReturnsAll, Tell
from lightleak.attacks.gmi import GMI
from lightleak.attacks.kedmi import KEDMI
from lightleak.attacks.knowledge import Knowledge
from lightleak.attacks.oracle import Access, Oracle
from lightleak.attacks.steps import LOSSES, Identity
from lightleak.errors import UserError
from lightleak.priors.prior import Prior


@dataclass(frozen=True)
class LOMMA(ReturnsAll):
    """GMI or KED-MI with a logit loss, a regulariser on features, and students of the target beside it."""

    around: Literal["kedmi", "gmi"] = "kedmi"
    loss: str = "logit"  # or cross-entropy, poincare, max-margin
    regulariser: float = 1.0  # 0: none
    students: bool = True  # whether all students count beside the target, each as much
    drawn: bool = False  # as in the paper: the goal of the features is drawn, not their mean
    norm: bool = False  # as in the paper: the squared norm, not the mean square
    attempts: int = 5
    steps: int = 2400
    rate: float = 0.02
    weight: float = 100.0  # of the identity loss, beside 1 for the prior's critic
    clip: float = 1.0
    averaged: int = 60  # around GMI: the published batch
    coupled: int = 0  # around KED-MI: so many identities see each other in the discriminator
    alignment: Alignment | None = None  # average the gradient over copies of what the target looks at (TAA, PAA)
    batch: int = field(default=64, compare=False)  # images at a time: decides speed and memory, not the result
    access: ClassVar[Access] = "gradients"
    sorted: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.around not in ("kedmi", "gmi"):
            raise UserError(f"LOMMA goes around kedmi or gmi, not {self.around!r}")
        if self.regulariser < 0:
            raise UserError(f"regulariser must be at least 0, not {self.regulariser}")
        _ = self.host  # which checks the rest

    @property
    def host(self) -> GMI | KEDMI:
        """The attack that is run with LOMMA's identity loss."""
        common = {name: getattr(self, name) for name in ("attempts", "steps", "rate", "weight", "clip", "loss")}
        if self.around == "gmi":
            return GMI(**common, averaged=self.averaged, batch=self.batch)
        return KEDMI(**common, coupled=self.coupled, batch=self.batch * self.attempts)

    @property
    def searches(self) -> int:
        """Those of the other attack."""
        return self.host.searches

    @property
    def group(self) -> int:
        """Identities that share a batch; shards are cut between such groups."""
        return self.host.group

    def needs(self) -> Needs:
        """What the other attack needs, and students and the mean of the features, unless neither is used."""
        return replace(self.host.needs(), knowledge=self.students or self.regulariser > 0)

    def search(self, oracle: Oracle, prior: Prior, part: Part, tell: Tell) -> Found:
        """The other attack, with another identity loss."""
        identity = self.identity(oracle, part.knowledge, part.seed)
        return self.host.descend(prior, part, aligned(identity, self.alignment, oracle.size), tell)

    def identity(self, oracle: Oracle, knowledge: Knowledge | None, seed: int) -> Identity:
        """LOMMA's identity loss."""
        if self.students and knowledge and not knowledge.students:
            raise UserError("this knowledge holds no students; learn some, or set students=False")
        if self.regulariser and knowledge and knowledge.mean is None:
            raise UserError("this knowledge says nothing of features; learn with gradients, or set regulariser=0")
        students = knowledge.oracles(oracle.device) if self.students and knowledge else ()

        def identity(images: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
            goal = self._goal(knowledge, rows, seed) if self.regulariser and knowledge else None
            features, logits = (
                oracle.features(images, rows) if goal is not None else (images, oracle.logits(images, rows))
            )
            answers = [logits, *(student.logits(images, rows) for student in students)]
            total = torch.stack([LOSSES[self.loss](each, rows.classes) for each in answers]).mean(0)
            if goal is not None:
                apart = (features - goal).square()
                total = total + self.regulariser * (apart.sum(1) if self.norm else apart.mean(1))
            return total, logits

        return identity

    def _goal(self, knowledge: Knowledge, rows: Rows, seed: int) -> Tensor | None:
        """Where the features of each image should lie, D or N x D."""
        if knowledge.mean is None or knowledge.spread is None:
            return None
        mean, spread = knowledge.mean.to(rows.classes.device), knowledge.spread.to(rows.classes.device)
        if not self.drawn:
            return mean
        return mean + spread * own_normals(seed + 2, rows.classes, rows.attempts, tuple(mean.shape))
