"""Does a defence close the leak, or only hide the gradient? Eight networks, attacked with labels, scores and gradients.

What is compared: ResNet-18 at 48 x 48 without a defence, and with RoLSS, RoLSS+, SSF, TTS, BiDO, MID and NegLS (at the
strengths that `defences_faces.py` chose by validation accuracy), three training seeds each: the very trainings of that
study. 32 people in clusters of four look-alikes. Each is attacked

    with labels alone    BREP-MI, LOKT
    with scores          RLB-MI, MIRROR black-box, surrogate + CMA-ES
    with gradients       MI-Face, GMI, PLG-MI, PPA, VMI, MIRROR, IF-GMI

by about `QUERIES` images of each person that the network is shown, what an attack learns beforehand included. All draw
with the renderer itself, but those whose papers give them a generator of their own: GMI and IF-GMI one for all
networks, PLG-MI and LOKT one for each; MI-Face has none and is the adversarial null of every row. So LOKT against
PLG-MI is labels against gradients with alike generators, and BREP-MI against PPA with the renderer.

Declared in advance. A defence *hides gradients* where an attack by labels finds more of the defended network than the
strongest attack with gradients does, and by more than of the undefended one, while gradients find less than there: all
three by paired intervals over people and trainings, by the truth, corrected by Holm (`lightleak.report.ladder`).

    lightleak study studies/access_ladder.py --dry-run        what would run; hours are guesses before the first results
    lightleak study studies/access_ladder.py --here 1         everything; what is done stays done

Not run yet: `results/` holds no record of it. By the queries it shows the networks 18 million images, which at 48 x 48
is a day of one core; the StyleGAN2 of IF-GMI and the generators for each network come on top.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from lightleak.attacks import (
    BREPMI,
    GMI,
    IFGMI,
    LOKT,
    PLGMI,
    PPA,
    RLBMI,
    SMILE,
    VMI,
    Attack,
    Guess,
    MIFace,
    Mirror,
    MirrorBlackBox,
    Transfer,
)
from lightleak.attacks.knowledge import SMALL, SMALL_TRANSFER
from lightleak.attacks.surrogate import Lessons
from lightleak.defences import RoLSS, RoLSSPlus, SSF, TTS
from lightleak.priors.fit import LOKT_QUICK, PLG_QUICK, QUICK, Settings, SmallStyleGAN2
from lightleak.study.comparison import Setting
from lightleak.study.pool import load_module
from lightleak.study.tasks import Invert, Pixels

QUERIES = 2000  # of each person
WORLD = load_module("defences_faces_world", Path(__file__).with_name("defences_faces.py"))
NAMED = ("BiDO", "MID", "NegLS")  # of that study's rows, beside skip surgery
PRIMARY = ("true@1",)


@dataclass(frozen=True)
class Rung:
    """One attack, and the generator that its paper gives it; None: the renderer."""

    attack: Attack
    prior: Settings | None = None


def rungs(queries=QUERIES, people=WORLD.PEOPLE):
    """The attacks, from labels up to gradients, each with so many queries of a person."""
    spheres, lokt, transfer = queries // 33, lokt_for(queries, people), transfer_for(queries)
    assert transfer.images <= queries
    return (
        Rung(BREPMI(queries=33 * spheres, samples=3_000, radius=0.5)),
        Rung(LOKT(attempts=2, steps=100, rate=0.05), lokt),
        Rung(RLBMI(queries=queries, rate=2e-3)),
        Rung(MirrorBlackBox(queries=99 * (queries // 99), samples=3_000, population=100, enough=None)),
        Rung(SMILE(queries=queries, samples=1_000, rate=0.05)),
        Rung(MIFace(attempts=2, steps=queries // 2, start="noise")),
        Rung(GMI(2, steps=queries // 2, rate=0.06), replace(QUICK, steps=400)),
        Rung(PLGMI(2, steps=queries // 5), PLG_QUICK),
        Rung(PPA(candidates=1_500, attempts=queries // 110, keep=2, steps=100, rate=0.05, milestones=(70,), views=10)),
        Rung(VMI(attempts=2, steps=queries // 32, draws=32, rate=0.01, couplings=4)),
        Rung(Mirror(samples=3_000, attempts=8, keep=2, steps=queries // 8, rate=0.1)),
        Rung(IFGMI(candidates=1_500, attempts=8, stages=(queries // 16,) + (queries // 48,) * 3, rate=0.02),
             SmallStyleGAN2()),
    )  # fmt: skip


def lokt_for(queries, people):
    """LOKT's first stage, by three quarters of the queries of all people."""
    steps = 3 * queries * people // 4 // (LOKT_QUICK.critic_steps * LOKT_QUICK.batch)
    return replace(LOKT_QUICK, steps=LOKT_QUICK.plain + max(1, steps))


def transfer_for(queries):
    """Its second stage, by most of what is left."""
    return replace(SMALL_TRANSFER, images=max(1, queries // 5))


def defences():
    """No defence, skip surgery as published, and the regularising ones at the strengths that were chosen."""
    chosen = {names[0]: row for row in WORLD.regularised() if (names := [type(one).__name__ for one in row])[1:] == []}
    return ((), (RoLSS(),), (RoLSSPlus(),), (SSF(),), (TTS(),), *(chosen[name] for name in NAMED))


def tasks(setting=WORLD.SETTING, attacks=None, rows=None):
    """Attack by attack, network by network, seed by seed; each beside its nulls."""
    return [
        evaluated(setting, rung, setting.target(row, seed))
        for rung in (rungs() if attacks is None else attacks)
        for row in (defences() if rows is None else rows)
        for seed in setting.seeds
    ]


def evaluated(setting, rung, target):
    """One attack on one network, beside images that nobody optimised, and those that convince it and show nobody."""
    own = replace(setting, attack=rung.attack, prior=rung.prior, transfer=transfer_for(QUERIES), checkpoints=())
    face = rung.attack if isinstance(rung.attack, MIFace) else MIFace(attempts=2, steps=QUERIES // 2, start="noise")
    adversarial = Invert(target, Pixels(setting.population), face, seed=target.seed)
    return own
