"""Settings that let each attack show its contract in seconds; a new attack adds its row."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from lightleak.attacks import (
    BREPMI,
    GMI,
    IFGMI,
    KEDMI,
    LOKT,
    LOMMA,
    PLGMI,
    PPA,
    RLBMI,
    SMILE,
    VMI,
    Alignment,
    Attack,
    Guess,
    MIFace,
    Mirror,
    MirrorBlackBox,
    Oracle,
    Reconstruction,
)


@dataclass(frozen=True)
class Row:
    """An attack, with which prior it is tried, and what makes a run of it shorter."""

    attack: Attack
    prior: str = "rendered"  # a fixture
    knowledge: bool = False  # whether it learns from public images first
    short: tuple[tuple[str, Any], ...] = (("steps", 4),)
    start: tuple[tuple[str, Any], ...] = (("steps", 0),)  # what makes it return where it begins
    early: tuple[tuple[str, Any], ...] = ()  # what makes its searches end, sooner or later, before their budget does
    patient: tuple[tuple[str, Any], ...] = ()  # what keeps its searches from ending early, where they might
    # Further settings by which it shows the target more or fewer images.
    counted: tuple[tuple[tuple[str, Any], ...], ...] = ()
    above: float = 0.3  # how much more sure the target is than of the null; less where that draws the class from labels


ALIGNED = (("alignment", Alignment(copies=3)), ("steps", 2))
ROWS = {
    "ppa": Row(
        PPA(candidates=60, attempts=3, keep=2, steps=12, rate=0.05, views=6), counted=(ALIGNED, (("steps", 1),))
    ),
    "plgmi": Row(PLGMI(attempts=2, steps=12), prior="conditional", counted=(ALIGNED,)),
    "gmi": Row(GMI(attempts=2, steps=25, rate=0.03, weight=1.0, averaged=1), counted=(ALIGNED,)),
    "kedmi": Row(KEDMI(attempts=2, steps=40, rate=0.1, log_variance=-4.0), counted=(ALIGNED,)),
    "lomma": Row(
        LOMMA(attempts=2, steps=50, rate=0.03, around="gmi", weight=0.1, averaged=1, regulariser=0.1),
        knowledge=True,
        short=(("steps", 4), ("regulariser", 0.0)),  # what was learnt of one target's features says nothing of another
        counted=(ALIGNED, (("around", "kedmi"), ("steps", 3))),
        above=0.25,  # processors that add in another order have come to 0.298
    ),
    "ifgmi": Row(
        IFGMI(candidates=40, attempts=2, stages=(15, 8, 8), radii=(1e3, 1e3, 1e3), rate=0.1),
        prior="stylegan",
        short=(("stages", (2, 1, 1)),),
        start=(("stages", (0, 0, 0)),),
    ),
    "vmi": Row(
        VMI(attempts=2, steps=40, draws=2, rate=0.03, divergence=0.01, couplings=2, width=8), counted=(ALIGNED,)
    ),
    "miface": Row(MIFace(attempts=2, steps=12, rate=1.0, start="noise"), prior="pixels", patient=(("enough", 0.0),)),
    "mirror": Row(
        Mirror(attempts=2, keep=1, samples=40, steps=25, rate=0.1),
        counted=((("choice", "agreement"), ("steps", 2)), (("choice", "agreement"), ("keep", 2), ("steps", 0))),
    ),
    "mirror-black-box": Row(
        MirrorBlackBox(queries=190, attempts=2, samples=40, population=20, enough=None),
        short=(("queries", 38),),
        start=(("queries", 0),),
        early=(("enough", 0.99), ("queries", 38 * 12)),
    ),
    "smile": Row(
        SMILE(queries=130, attempts=2, samples=40, descent=4, rate=0.1, population=8),
        knowledge=True,
        short=(("queries", 36), ("descent", 2)),
        start=(("queries", 0),),
    ),
    "rlbmi": Row(
        RLBMI(queries=400, attempts=2, actions=20, updates=3, rate=0.02, sample=40),
        short=(("queries", 56),),
        start=(("queries", 40),),
    ),
    "brepmi": Row(
        BREPMI(queries=10 * 16, attempts=2, samples=60, points=4, radius=0.5),
        short=(("queries", 10 * 2),),
        start=(("queries", 0),),
        counted=((("queries", 10 * 2 + 4),),),
        early=(("largest", 0.6), ("queries", 10 * 24)),
    ),
    "lokt": Row(LOKT(attempts=2, steps=16, rate=0.2), prior="naming", knowledge=True, above=0.05),
    "guess": Row(Guess(keep=2), short=(), start=()),
}
LEVEL = 1.1 / 255  # images are kept in 8 bits: what differs by rounding may differ by one of 256 levels
OPTIMISING = [name for name, row in ROWS.items() if not row.attack.null]


def run(
    name, target, prior, learnt=None, classes=range(6), seed=0, access=None, oracle=None, **changes
) -> Reconstruction:
    """A run of a row's attack, with the access that it asks for, some of its settings changed."""
    more = {key: changes.pop(key) for key in ("folder", "watch") if key in changes}
    attack = replace(ROWS[name].attack, **changes)
    oracle = oracle or Oracle(target, access or attack.access)
    rng = torch.Generator().manual_seed(seed)
    knowledge = learnt[attack.access] if ROWS[name].knowledge and learnt else None
    return attack.run(oracle, prior, torch.tensor(list(classes)), rng, knowledge=knowledge, **more)
