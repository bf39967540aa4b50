"""Attacks: frozen settings with a `run` that reads like the paper's algorithm box; one file each."""

from typing import ClassVar, Protocol

import torch
from torch import Tensor

from lightleak.attacks.alignment import Alignment
from lightleak.attacks.gmi import GMI
from lightleak.attacks.guess import Guess
from lightleak.attacks.kedmi import KEDMI
from lightleak.attacks.knowledge import Distillation, Knowledge, learn
from lightleak.attacks.lomma import LOMMA
from lightleak.attacks.oracle import Access, AccessError, Oracle
from lightleak.attacks.plgmi import PLGMI
from lightleak.attacks.ppa import PPA
from lightleak.attacks.reconstruction import Reconstruction, merge
from lightleak.priors import Prior
from lightleak.training.loop import Watch


class Attack(Protocol):
    """Settings are the fields of a frozen dataclass, defaults are the paper's; the algorithm is `run`.

    An attack with `needs_knowledge` takes what the attacker learnt beforehand as `run(..., knowledge=...)`.
    """

    access: ClassVar[Access]

    def run(
        self, oracle: Oracle, prior: Prior, classes: Tensor, rng: torch.Generator, watch: Watch | None = None
    ) -> Reconstruction: ...


ATTACKS: dict[str, type[Attack]] = {
    "ppa": PPA,
    "gmi": GMI,
    "kedmi": KEDMI,
    "lomma": LOMMA,
    "plgmi": PLGMI,
    "guess": Guess,
}

__all__ = [
    "ATTACKS",
    "GMI",
    "KEDMI",
    "LOMMA",
    "PLGMI",
    "PPA",
    "Access",
    "AccessError",
    "Alignment",
    "Attack",
    "Distillation",
    "Guess",
    "Knowledge",
    "Oracle",
    "Reconstruction",
    "learn",
    "merge",
]
