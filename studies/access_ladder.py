"""Does a defence close the leak, or only hide the gradient? Eight networks, attacked with labels, scores and gradients.

What is compared: ResNet-18 at 32 x 32 without a defence, and with RoLSS, RoLSS+, SSF, TTS, BiDO, MID and NegLS, three
training seeds each; 24 people in twelve pairs of look-alikes. World, network and trainings are those of
`defences_2026.py`, where cutting skips did next to nothing to a narrow IR-18. Each network is attacked

    with labels alone    BREP-MI, LOKT
    with scores          RLB-MI, MIRROR black-box, surrogate + CMA-ES
    with gradients       MI-Face, GMI, PLG-MI, PPA, VMI, MIRROR, IF-GMI

by about 500 images of each person that the network is shown, what an attack learns beforehand included. All search
the renderer itself, but those whose papers give them a generator of their own: GMI and IF-GMI one for all networks,
PLG-MI and LOKT one for each. LOKT and surrogate + CMA-ES learn one narrow surrogate of each network. MI-Face searches
the pixels and stands beside every row as the adversarial null. So LOKT against PLG-MI is labels against gradients with
alike generators, BREP-MI against PPA with the renderer.

How strong BiDO, MID and NegLS are is decided before anything is attacked, by the rule of `defences_faces.py`: of the
settings in its SWEEP, trained once with a seed that the study does not use, the strongest that loses at most five
points of validation accuracy. So there are three steps:

    lightleak study studies/access_ladder.py --here 1          the sweep, and the rows that need no choice
    python studies/access_ladder.py runs/access_ladder         chooses, and writes access_ladder.json beside this file
    lightleak study studies/access_ladder.py --here 1          everything; what is done stays done

Declared in advance. A defence *hides gradients* where an attack by labels finds more of the defended network than the
strongest attack with gradients does, and by more than of the undefended one, while gradients find less than there: all
three by paired intervals over people and trainings, by the truth, corrected by Holm (`lightleak.report.ladder`).

In the record in results/access-ladder, surrogate + CMA-ES and PLG-MI, which learn something of each network beforehand,
are shown the first three networks alone (`--settings attacks BREPMI,PLGMI=3,...` says so). They and LOKT take two to
five minutes of a core for a network, each other attack half a minute to a minute.
`--settings attacks BREPMI,PPA` runs some alone.
"""

import json
import sys
from dataclasses import dataclass, replace
from itertools import zip_longest
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
)
from lightleak.attacks.knowledge import SMALL, SMALL_TRANSFER
from lightleak.defences import SSF, TTS, RoLSS, RoLSSPlus
from lightleak.errors import UserError
from lightleak.metrics.attribute_regressor import Fit
from lightleak.priors.fit import LOKT_QUICK, PLG_QUICK, QUICK, FitSettings, SmallStyleGAN2
from lightleak.study import Store
from lightleak.study.comparison import Setting
from lightleak.study.pool import load_module
from lightleak.study.tasks import Draw, Evaluate, FitAttributeRegressor, Invert, Pixels, TrainTarget, source
from lightleak.training import RECIPES, CheckpointCriterion

QUERIES = 500  # of each person
PEOPLE = 24


def world(people: int, seed: int = 0) -> Draw:
    """Rendered people in pairs of look-alikes, as many public ones as a generator needs."""
    return source(
        "faces",
        people=people,
        images=12,
        size=32,
        lookalikes=2,
        strength=1.0,
        noise=0.05,
        public_people=80,
        public_images=10,
        judge_images=60,
        validation_images=8,
        test_images=8,
        seed=seed,
    )


# Nothing of the ladder looks at these; with them its networks are those of `defences_2026.py`, trained once for both.
CHECKPOINTS = tuple(CheckpointCriterion(accuracy=share) for share in (0.6, 0.75, 0.85, 0.92))
DEFENCES = load_module("defences_faces_world", Path(__file__).with_name("defences_faces.py"))
# One surrogate of each network, as LOKT without its ensemble: three of them would take longer than all attacks.
SURROGATE = ("timm:resnet10t",)
SETTING = Setting(
    world(PEOPLE),
    recipe=replace(RECIPES["small"], epochs=20),
    seeds=(0, 1, 2),
    checkpoints=CHECKPOINTS,
    distillation=replace(SMALL, students=SURROGATE, epochs=10),
    transfer=replace(SMALL_TRANSFER, students=SURROGATE, lessons=replace(SMALL_TRANSFER.lessons, epochs=10)),
)
SWEEP = {name: DEFENCES.SWEEP[name] for name in ("none", "BiDO", "MID", "NegLS")}
STRENGTHS = Path(__file__).with_suffix(".json")
PRIMARY = ("true@1",)


@dataclass(frozen=True)
class Rung:
    """One attack, and the generator that its paper gives it; None: the renderer."""

    attack: Attack
    prior: FitSettings | None = None
    networks: int | None = None  # the first so many; None: all


def rungs(queries: int = QUERIES, people: int = PEOPLE) -> tuple[Rung, ...]:
    """The attacks, from labels up to gradients, each with so many queries of a person."""
    shared = 750  # samples, or half of them with their mirrors: 31 queries of each of 24 people
    renderer: list[Attack] = [
        RLBMI(queries=queries, rate=2e-3),
        MirrorBlackBox(queries=99 * (queries // 99), samples=shared, population=100, enough=None),
        SMILE(queries=queries, samples=shared, rate=0.05),
        MIFace(attempts=2, steps=queries // 2, start="noise"),
        PPA(candidates=shared, attempts=queries // 110, keep=2, steps=100, rate=0.05, milestones=(70,), views=10),
        VMI(attempts=2, steps=queries // 32, draws=32, rate=0.01, couplings=4),
        Mirror(samples=shared, attempts=8, keep=2, steps=queries // 8, rate=0.1),
    ]
    stages = (queries // 16, queries // 48, queries // 48, queries // 48)
    return (
        Rung(BREPMI(queries=33 * (queries // 33), samples=shared, radius=0.5)),
        Rung(LOKT(attempts=2, steps=100, rate=0.05), lokt(queries, people)),
        *(Rung(attack) for attack in renderer),
        Rung(GMI(2, steps=queries // 2, rate=0.06), replace(QUICK, steps=400)),
        Rung(PLGMI(2, steps=queries // 5), PLG_QUICK),
        Rung(IFGMI(candidates=shared, attempts=8, stages=stages, rate=0.02), SmallStyleGAN2()),
    )


def lokt(queries: int, people: int) -> FitSettings:
    """LOKT's first stage, by three quarters of the queries of all people; its surrogates have a fifth."""
    steps = 3 * queries * people // 4 // (LOKT_QUICK.critic_steps * LOKT_QUICK.batch)
    return replace(LOKT_QUICK, steps=LOKT_QUICK.plain + max(1, steps))


def sweep() -> dict[str, list[TrainTarget]]:
    """The candidates for each defence's strength, by its name, weakest first; nobody attacks these."""
    return {name: [SETTING.target(chosen, 9) for chosen in row] for name, row in SWEEP.items()}


def defences():
    """No defence, skip surgery as published and, once their strengths are chosen, BiDO, MID and NegLS."""
    chosen = json.loads(STRENGTHS.read_text())["chosen"] if STRENGTHS.is_file() else {}
    return ((), (RoLSS(),), (RoLSSPlus(),), (SSF(),), (TTS(),), *(SWEEP[name][place] for name, place in chosen.items()))


def tasks(attacks=""):
    """The sweep, the weakest of each row first; then attack by attack, or some alone: "BREPMI,LOKT=3,PPA", where LOKT
    is shown the first three networks.
    """
    trained = [task for place in zip_longest(*sweep().values()) for task in place if task is not None]
    return [*trained, *ladder(SETTING, asked(attacks), defences())]


def asked(names: str) -> list[Rung]:
    """The rungs whose attacks are named, separated by commas, each perhaps with how many networks; all for no name."""
    chosen = dict(name.partition("=")[::2] for name in filter(None, names.split(",")))
    found = {type(rung.attack).__name__: rung for rung in rungs()}
    if unknown := [name for name in chosen if name not in found]:
        raise UserError(f"the attacks of this study are {', '.join(found)}, not {', '.join(unknown)}")
    if wrong := [count for count in chosen.values() if count and not (count.isdecimal() and int(count))]:
        raise UserError(f"an attack is shown the first 1, 2 or more networks (LOKT=3), not {', '.join(wrong)}")
    counts = {name: int(count) if count else None for name, count in chosen.items()}
    return [replace(rung, networks=counts.get(name)) for name, rung in found.items() if not names or name in chosen]


def ladder(setting, attacks, rows, queries: int = QUERIES, regressor: Fit = Fit()) -> list[Evaluate]:  # noqa: B008
    """Every attack on every network and seed, each beside its nulls; the truth of images that no renderer made is
    told by a regressor of attributes.
    """
    appraiser = FitAttributeRegressor(regressor)
    return [
        replace(evaluated(setting, rung, setting.target(row, seed), queries), appraiser=appraiser)
        for rung in attacks
        for row in rows[: rung.networks]
        for seed in setting.seeds
    ]


def evaluated(setting, rung: Rung, target: TrainTarget, queries: int) -> Evaluate:
    """One attack on one network, beside images that nobody optimised, and such that convince it and show nobody."""
    transfer = replace(setting.transfer, images=max(2, queries // 5))
    own = replace(setting, attack=rung.attack, prior=rung.prior, transfer=transfer)
    face = MIFace(attempts=2, steps=queries // 2, start="noise")
    adversarial = Invert(target, Pixels(setting.population), face, setting.classes, target.seed)
    judged = own.evaluated(target, {})
    if rung.attack.needs().pixels:
        return replace(judged, found=adversarial)
    guessed = Invert(target, own.prior_for(target), Guess(rung.attack.keep), setting.classes)
    return replace(judged, nulls={"never optimised": guessed, "adversarial": adversarial})


if __name__ == "__main__":
    STRENGTHS.write_text(json.dumps(DEFENCES.choose(Store(Path(sys.argv[1])), sweep()), indent=1) + "\n")
    print(STRENGTHS.read_text())
