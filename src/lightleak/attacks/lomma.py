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

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lightleak.attacks.alignment import Alignment, aligned
from lightleak.attacks.gmi import GMI
from lightleak.attacks.kedmi import KEDMI
from lightleak.attacks.knowledge import Knowledge
from lightleak.attacks.oracle import Access, Oracle
from lightleak.attacks.reconstruction import Reconstruction
from lightleak.attacks.steps import LOSSES, Identities, Identity, own_normals, seed_of
from lightleak.errors import UserError
from lightleak.priors import Prior
from lightleak.training.loop import Watch


@dataclass(frozen=True)
class LOMMA:
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
    def keep(self) -> int:
        """Images of each class that are returned."""
        return self.attempts

    @property
    def group(self) -> int:
        """Identities that share a batch; shards are cut between such groups."""
        return self.host.group

    @property
    def needs_knowledge(self) -> bool:
        """Whether something must be learnt from public images first."""
        return self.students or self.regulariser > 0

    def run(
        self,
        oracle: Oracle,
        prior: Prior,
        classes: Tensor,
        rng: torch.Generator,
        watch: Watch | None = None,
        knowledge: Knowledge | None = None,
    ) -> Reconstruction:
        """`attempts` reconstructions of each class; what a class gets depends on (rng's seed, class, attempt) alone."""
        # 1. what was learnt from public images
        if self.needs_knowledge and knowledge is None:
            raise UserError("LOMMA uses what it learnt from public images; pass knowledge=learn(oracle, images, ...)")
        if self.students and knowledge and not knowledge.students:
            raise UserError("this knowledge holds no students; learn some, or set students=False")
        seed = seed_of(rng)
        # 2. and 3. the other attack, with another identity loss
        identities = aligned(self.identities(oracle, knowledge, seed), self.alignment, seed)
        return self.host.search(oracle, prior, classes, seed, identities, watch)

    def identities(self, oracle: Oracle, knowledge: Knowledge | None, seed: int) -> Identities:
        """LOMMA's identity loss, bound to the classes and attempts of a batch."""
        students = [Oracle(student) for student in knowledge.students] if self.students and knowledge else []

        def bind(classes: Tensor, attempts: Tensor) -> Identity:
            goal = None
            if self.regulariser and knowledge:
                goal = knowledge.mean
                if self.drawn:
                    goal = goal + knowledge.spread * own_normals(seed + 2, classes, attempts, goal.shape)

            def identity(images: Tensor) -> tuple[Tensor, Tensor]:
                features, logits = oracle.features(images) if goal is not None else (images, oracle.logits(images))
                losses = [LOSSES[self.loss](each, classes) for each in [logits, *(s.logits(images) for s in students)]]
                total = torch.stack(losses).mean(0)
                if goal is not None:
                    apart = (features - goal).square()
                    total = total + self.regulariser * (apart.sum(1) if self.norm else apart.mean(1))
                return total, logits

            return identity

        return bind
