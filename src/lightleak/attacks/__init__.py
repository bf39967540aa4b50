"""Attacks: frozen settings with a `search` that reads like the paper's algorithm box; one file each."""

from lightleak.attacks.alignment import Alignment
from lightleak.attacks.frame import Attack, Common, Found, Needs, Part
from lightleak.attacks.gmi import GMI
from lightleak.attacks.guards import GUARDS, Guard
from lightleak.attacks.guess import Guess
from lightleak.attacks.kedmi import KEDMI
from lightleak.attacks.knowledge import Distillation, Knowledge, learn
from lightleak.attacks.lomma import LOMMA
from lightleak.attacks.miface import MIFace
from lightleak.attacks.oracle import Access, AccessError, BudgetError, Oracle
from lightleak.attacks.plgmi import PLGMI
from lightleak.attacks.ppa import PPA
from lightleak.attacks.reconstruction import Reconstruction, merge

ATTACKS: dict[str, type[Attack]] = {
    "ppa": PPA,
    "gmi": GMI,
    "kedmi": KEDMI,
    "lomma": LOMMA,
    "plgmi": PLGMI,
    "miface": MIFace,
    "guess": Guess,
}

__all__ = [
    "ATTACKS",
    "GMI",
    "GUARDS",
    "KEDMI",
    "LOMMA",
    "PLGMI",
    "PPA",
    "Access",
    "AccessError",
    "Alignment",
    "Attack",
    "BudgetError",
    "Common",
    "Distillation",
    "Found",
    "Guard",
    "Guess",
    "Knowledge",
    "MIFace",
    "Needs",
    "Oracle",
    "Part",
    "Reconstruction",
    "learn",
    "merge",
]
