"""Attacks: frozen settings with a `search` that reads like the paper's algorithm box; one file each."""

from collections.abc import Mapping
from dataclasses import is_dataclass

from lightleak.attacks import brepmi, ifgmi, lokt, miface, mirror, mirror_black_box, ppa, rlbmi, smile, vmi
from lightleak.attacks.alignment import Alignment
from lightleak.attacks.brepmi import BREPMI
from lightleak.attacks.frame import Attack, Common, Found, Needs, Part
from lightleak.attacks.gmi import GMI
from lightleak.attacks.guards import Guard, LabelsOnly, Rounded, Tempered, TopK
from lightleak.attacks.guess import Guess
from lightleak.attacks.ifgmi import IFGMI
from lightleak.attacks.kedmi import KEDMI
from lightleak.attacks.knowledge import Distillation, Knowledge, Transfer, drawn, learn
from lightleak.attacks.lokt import LOKT
from lightleak.attacks.lomma import LOMMA
from lightleak.attacks.miface import MIFace
from lightleak.attacks.mirror import Mirror
from lightleak.attacks.mirror_black_box import MirrorBlackBox
from lightleak.attacks.oracle import Access, AccessError, BudgetError, Oracle
from lightleak.attacks.plgmi import PLGMI
from lightleak.attacks.ppa import PPA
from lightleak.attacks.reconstruction import Reconstruction, merge
from lightleak.attacks.rlbmi import RLBMI
from lightleak.attacks.smile import SMILE
from lightleak.attacks.smoothing import Smoothed
from lightleak.attacks.ssd import SSD
from lightleak.attacks.vmi import VMI
from lightleak.plugins import Registry

OURS: dict[str, type[Attack]] = {
    "ppa": PPA,
    "gmi": GMI,
    "kedmi": KEDMI,
    "lomma": LOMMA,
    "plgmi": PLGMI,
    "ifgmi": IFGMI,
    "vmi": VMI,
    "miface": MIFace,
    "mirror": Mirror,
    "mirror-black-box": MirrorBlackBox,
    "rlbmi": RLBMI,
    "smile": SMILE,
    "brepmi": BREPMI,
    "lokt": LOKT,
    "guess": Guess,
}
ATTACKS: Registry[type[Attack]] = Registry(
    "lightleak.attacks",
    OURS,
    lambda thing: isinstance(thing, type) and is_dataclass(thing) and Attack in thing.__mro__,
    "frozen dataclass with lightleak.attacks.Attack as its base",
)
GUARDS: dict[str, type[Guard]] = {
    "rounded": Rounded,
    "top-k": TopK,
    "tempered": Tempered,
    "labels": LabelsOnly,
    "ssd": SSD,
    "smoothed": Smoothed,
}

# By attack, its settings by name: a paper's, a release's, or small ones.
PRESETS: dict[str, Mapping[str, Attack]] = {
    "ppa": ppa.PRESETS,
    "ifgmi": ifgmi.PRESETS,
    "vmi": vmi.PRESETS,
    "miface": miface.PRESETS,
    "mirror": mirror.PRESETS,
    "mirror-black-box": mirror_black_box.PRESETS,
    "rlbmi": rlbmi.PRESETS,
    "smile": smile.PRESETS,
    "brepmi": brepmi.PRESETS,
    "lokt": lokt.PRESETS,
}

__all__ = [
    "ATTACKS",
    "BREPMI",
    "GMI",
    "GUARDS",
    "IFGMI",
    "KEDMI",
    "LOKT",
    "LOMMA",
    "PLGMI",
    "PPA",
    "PRESETS",
    "RLBMI",
    "SMILE",
    "SSD",
    "VMI",
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
    "Mirror",
    "MirrorBlackBox",
    "Needs",
    "Oracle",
    "Part",
    "Reconstruction",
    "Smoothed",
    "Transfer",
    "drawn",
    "learn",
    "merge",
]
