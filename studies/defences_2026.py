"""Defences of today against attackers who know them, on two worlds of rendered people.

What is compared: a narrow IR-18 (or a ResNet-18) at 32 x 32 without a defence and with RoLSS, RoLSS+, SSF, TTS, BiDO,
MID, NegLS, TL-DMI, AT-AT, MIDRE, LoFt, CALoR and Trap-MID, each of the regularising ones also on top of RoLSS; three
training seeds in each of two worlds of 24 people in pairs of look-alikes. PPA inverts each with the renderer itself as
its prior, by the Poincaré distance and by the max-margin loss, and once more as somebody who knows the defence
(`attacks.adaptive`). RoLSS, RoLSS+ and SSF are also retrofitted to the trained undefended network in a tenth of its
epochs. Judge and truth measure alike; copies that the undefended trainings leave on their way, attacked with both
losses, hold every defence at equal natural accuracy.

The worlds were sized by the undefended network alone: with 16 people, easier pictures and 16 instead of 12 images of
each it named every test image right; with these 97 %, and PPA found two people in three.

Declared before anything is run: AttAcc@1 by the judge and true match @1 are the measures. Strengths are chosen by
validation accuracy alone, before anything is attacked: of the settings in SWEEP, trained once in the first world with a
seed that the study does not use, the strongest that loses at most five points against the undefended network; where all
lose more, the weakest. Surgery, and settings that papers do not sweep, run as published. A defence is called

    real        if the best attack that knows it still finds fewer people than undefended, at equal natural accuracy
    hiding      if only attackers who do not know it find fewer
    a trade     if the difference is gone at equal natural accuracy

and otherwise it cannot be told. `lightleak.report.proof` says what must be shown for each word; the last page does.
What attackers who know do is also done to the undefended network, where there is nothing to know: of an attack that
finds more of any network nobody can say that it found what a defence hid.

So there are three steps, for each of two networks (`--settings network timm:resnet18` in the first and the last,
`timm:resnet18` behind the folder in the second; without it the IR-18):

    lightleak study studies/defences_2026.py --here 2          the sweep
    python studies/defences_2026.py runs/defences_2026         chooses, and writes defences_2026.json beside this file
    lightleak study studies/defences_2026.py --here 2          everything; what is done stays done

The IR-18 was declared alone. When its first world was done, RoLSS had done nothing there by either loss. So that one
knows whether that is the world's doing or the network's, ResNet-18 was added, undefended and with RoLSS first.

About three hours on two cores for a network; `--dry-run` says better. What runs beside the tasks that measure times
moves them: run these alone (`--here 1 --settings part costs`).
"""

import json
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path

from lightleak import defences
from lightleak.attacks import PPA
from lightleak.attacks.adaptive import ADAPTIVE, knowing
from lightleak.attacks.surrogate import Lessons
from lightleak.defences import ATAT, MIDRE, SSF, TTS, CALoR, LoFt, RoLSS, RoLSSPlus, TrapMID
from lightleak.errors import UserError
from lightleak.study import Store
from lightleak.study.comparison import compare, compare_on_the_way
from lightleak.study.costs import Costs, Utility
from lightleak.study.pool import load_module
from lightleak.study.tasks import Altered, Copied, Retrofitted

LADDER = load_module("access_ladder_world", Path(__file__).with_name("access_ladder.py"))
FACES = LADDER.DEFENCES
ATTACK = PPA(candidates=300, attempts=2, keep=2, steps=30, rate=0.05, milestones=(20,), views=10)
SETTING = replace(
    LADDER.SETTING,
    attack=ATTACK,
)
WORLDS = (SETTING, replace(SETTING, population=LADDER.world(LADDER.PEOPLE, seed=1)))
PRIMARY = ("hits@1", "true@1")
LOSSES = FACES.LOSSES
LESSONS = Lessons(epochs=10, rate=0.05, batch=16, pretrained=False)

NONE = ((),)
SURGERY = ((RoLSS(),), (RoLSSPlus(),), (SSF(),), (TTS(),))
SWEEP = {
    **{name: FACES.SWEEP[name] for name in ("none", "BiDO", "MID", "NegLS", "TL-DMI")},
    "AT-AT": tuple((ATAT(weight=weight),) for weight in (0.08, 0.3, 1.0)),
    "MIDRE": tuple((MIDRE(most=most),) for most in (0.2, 0.4, 0.8)),
    "LoFt": tuple((LoFt(rank=rank),) for rank in (100, 50, 20, 8)),
    # 5 epochs at 2e-5 are some 60 steps here, and 2,000 in the paper.
    "CALoR": tuple((CALoR(rate=rate, gamma=gamma),) for rate, gamma in ((2e-5, 8.0), (2e-3, 8.0), (2e-2, 4.0))),
    "Trap-MID": tuple((TrapMID(weight=weight),) for weight in (0.1, 0.2, 0.4)),
}
STRENGTHS = Path(__file__).with_suffix(".json")  # by network
RATES = {"face:ir18-narrow": 2e-3, "timm:resnet18": 1e-3}  # at which the study's networks learn
NETWORK = "face:ir18-narrow"


def worlds_of(network):
    """Both worlds, with a network."""
    return [replace(each, architecture=network, recipe=replace(each.recipe, rate=RATES[network])) for each in WORLDS]


def sweep(network):
    """The candidates for each defence's strength, by its name, weakest first; nobody attacks these."""
    first = worlds_of(network)[0]
    return {name: [first.target(chosen, 9) for chosen in row] for name, row in SWEEP.items()}


def told():
    """What was chosen so far, by network."""
    return json.loads(STRENGTHS.read_text()) if STRENGTHS.is_file() else {}


def rows_of(network, combined="yes"):
    """The networks that are compared, the undefended one first; only: RoLSS and what stands on top of it."""
    chosen = [SWEEP[name][place] for name, place in told()[network]["chosen"].items()]
    over = [(RoLSS(), *each) for each in chosen]
    return {
        "yes": (*NONE, *SURGERY, *chosen, *over),
        "no": (*NONE, *SURGERY, *chosen),
        "only": (*NONE, (RoLSS(),), *over),
    }[combined]


def attacked(setting, loss):
    """A world with another loss of the attack."""
    return replace(setting, attack=replace(setting.attack, loss=loss))


def against(setting, row):
    """The attacks of somebody who knows the defences of a row."""
    known = knowing(defences.name_of(one) for one in row)
    return [task for each in known for task in attacks_of(setting, row, each)]


def attacks_of(setting, row, known):
    """One countermeasure against the networks of a row."""

    def forms(trained):
        if known.undo is not None:
            return (Altered(trained, known.undo),)
        if known.copy is not None:
            return (Copied(trained, known.copy, setting.architecture, known.lessons(LESSONS)),)
        return (trained,)

    return compare(replace(setting, attack=known.attack(setting.attack)), (row,), forms)


def controls(setting):
    """What attackers who know do to defended networks, done to the undefended one, as far as it needs no defence."""
    known = [each for each in dict.fromkeys(chain(*ADAPTIVE.values())) if each.undo is None and each.votes == 1]
    theirs = [each for each in known if each.copy or (each.alignment and each.alignment.kind != "noise")]
    return [task for each in theirs for task in attacks_of(setting, NONE[0], each)]


def retrofitted(setting):
    """The undefended network after surgery and recovery, and the attacks on it."""
    ways = ((RoLSS(),), (RoLSSPlus(),), (SSF(),))
    found = []
    for loss in LOSSES:
        found += compare(attacked(setting, loss), NONE, lambda trained: [Retrofitted(trained, by) for by in ways])
    return found


def tasks(network=NETWORK, worlds=2, combined="yes", part="all"):
    """The sweep until strengths are chosen, then everything else, or less of it: fewer worlds, defences alone
    (`combined no`) or on top of RoLSS (`only`, without retrofits), attacks that know no defence (`part plain`), costs
    (`part costs`).
    """
    for name, asked, known in (
        ("network", network, tuple(RATES)),
        ("combined", combined, ("yes", "no", "only")),
        ("part", part, ("all", "plain", "costs")),
    ):
        if asked not in known:
            raise UserError(f"{name} is one of {', '.join(known)} in this study, not {asked!r}")
    if network not in told():
        return [task for row in sweep(network).values() for task in row]
    rows, planned = rows_of(network, combined), worlds_of(network)[: int(worlds)]
    found = []
    if part != "costs":
        for setting in planned:
            found += [task for loss in LOSSES for task in compare(attacked(setting, loss), rows)]
            found += [task for loss in LOSSES for task in compare_on_the_way(attacked(setting, loss), NONE)]
            if part == "all":
                found += [task for row in rows[1:] for task in against(setting, row)]
                found += controls(setting)
            found += retrofitted(setting) if combined != "only" else []
    first = planned[0]
    found += [Costs(first.population, first.architecture, first.recipe, row) for row in rows]
    found += [Utility(each.target(row, seed)) for each in planned for row in rows for seed in each.seeds]
    return list({(task.name, task.key): task for task in found}.values())


if __name__ == "__main__":
    folder, network = (*sys.argv[1:], NETWORK)[:2]
    chosen = told() | {network: FACES.choose(Store(Path(folder)), sweep(network))}
    STRENGTHS.write_text(json.dumps(chosen, indent=1) + "\n")
    print(STRENGTHS.read_text())
