"""Every defence on the same rendered people, by judge and by truth, and at equal natural accuracy.

What is compared: ResNet-18 at 48 x 48 without a defence and with BiDO, MID, DP-SGD, NegLS, TL-DMI, RoLSS, RoLSS+, SSF,
TTS and BiDO + RoLSS, three training seeds each; 32 people in clusters of 4 look-alikes. PPA inverts each with the
renderer itself as the prior, once by the Poincaré distance and once by the max-margin loss: NegLS and others are known
to stall the first. Copies of each network are kept on the way to its accuracy, so that a defence is also held against
the undefended network stopped at the same natural accuracy.

How strong the regularising defences are is decided before anything is attacked, by validation accuracy alone: of the
settings in SWEEP, trained once with a seed that the study does not use, the strongest that loses at most five points
against the undefended network; where all lose more, the weakest. BiDO's go from a hundredth of the published weights to
sixteen times those. Skip surgery has no strength to choose: it runs as published. So there are three steps:

    lightleak study studies/defences_faces.py --here 1          the sweep, and skip surgery
    python studies/defences_faces.py runs/defences_faces        chooses, and writes defences_faces.json beside this file
    lightleak study studies/defences_faces.py --here 1          everything; what is done stays done

The paper (Koh et al., ECCV 2024, Tab. 9; ResNet-34, FaceScrub, StyleGAN2 prior; natural accuracy / AttAcc@1): none
94.69 / 90.78, MID 91.12 / 46.25, DP 89.66 / 72.19, BiDO 91.66 / 81.98, RoLSS 91.38 / 71.86, RoLSS+ 93.49 / 65.78, SSF
94.21 / 79.79, TTS 94.40 / 81.65; ResNet-101 (Tab. 8): BiDO 90.31 / 67.07, BiDO + RoLSS 89.13 / 41.44.

About two hours on one core.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

from lightleak.attacks import PPA
from lightleak.data.faces import DIFFICULTIES
from lightleak.defences import DPSGD, MID, SSF, TLDMI, TTS, BiDO, NegLS, RoLSS, RoLSSPlus
from lightleak.study import Store
from lightleak.study.comparison import Setting, compare, compare_on_the_way
from lightleak.study.costs import Costs
from lightleak.study.tasks import TrainTarget, source
from lightleak.training import RECIPES, CheckpointCriterion

PEOPLE = 32
POPULATION = source(
    "faces",
    people=PEOPLE,
    size=48,
    public_people=PEOPLE,
    public_images=22,
    validation_images=8,
    test_images=20,
    judge_images=30,
    **DIFFICULTIES["hard"],
)
RECIPE = replace(RECIPES["small"], epochs=20)
ATTACK = PPA(candidates=300, attempts=2, keep=1, steps=40, rate=0.05, milestones=(28,), views=10)
LOSSES = ("poincare", "max-margin")
# Copies that every run leaves on its way; the undefended network is attacked at all of them, the others at the second.
CHECKPOINTS = tuple(CheckpointCriterion(accuracy=share) for share in (0.6, 0.75, 0.85))
SETTING = Setting(POPULATION, recipe=RECIPE, attack=ATTACK, seeds=(0, 1, 2), checkpoints=CHECKPOINTS)

NONE = ((),)
SURGERY = ((RoLSS(),), (RoLSSPlus(),), (SSF(),), (TTS(),))
SWEEP = {
    "none": ((),),
    "BiDO": tuple((BiDO(lambda_x=0.05 * times, lambda_y=0.5 * times),) for times in (0.01, 0.1, 1, 4, 16)),
    "MID": tuple((MID(beta=beta),) for beta in (0.003, 0.01, 0.03)),
    # 0.01 is what papers on model inversion call DP; its epsilon is beyond a million.
    "DP-SGD": ((DPSGD(epsilon=None, noise=0.01),), (DPSGD(epsilon=1000.0),), (DPSGD(epsilon=8.0),)),
    "NegLS": tuple((NegLS(alpha=alpha),) for alpha in (-0.05, -0.15, -0.5)),
    "TL-DMI": tuple((TLDMI(share=share),) for share in (0.4, 8 / 13, 0.85)),
}


# DP-SGD on public features. Chosen by a sweep whose gradients were wrong; `private_faces.py` chooses again.
PRIVATE = (TLDMI(share=0.85), DPSGD(epsilon=1000.0))

STRENGTHS = Path(__file__).with_suffix(".json")
LOST = 0.05  # validation accuracy that a defence may cost


def sweep():
    """The candidates for each defence's strength, by its name, weakest first; nobody attacks these."""
    return {
        name: [TrainTarget(POPULATION, SETTING.architecture, RECIPE, chosen, 9) for chosen in row]
        for name, row in SWEEP.items()
    }


def chosen_of(accuracy):
    """The place of each defence's strength, by the validation accuracies of its candidates, weakest first."""
    (plain,) = accuracy["none"]
    within = {name: [place for place, a in enumerate(row) if a >= plain - LOST] for name, row in accuracy.items()}
    return {name: max(found, default=0) for name, found in within.items() if name != "none"}


def choose(store, candidates):
    """The place of each defence's strength in a sweep, and the validation accuracies that decide it."""
    accuracy = {name: [store.result(task)["validation_accuracy"] for task in row] for name, row in candidates.items()}
    return {"chosen": chosen_of(accuracy), "validation_accuracy": accuracy}


def regularised():
    """The defences whose strength was chosen, BiDO with RoLSS among them; none before that."""
    if not STRENGTHS.is_file():
        return ()
    places = json.loads(STRENGTHS.read_text())["chosen"]
    chosen = {name: SWEEP[name][place] for name, place in places.items()}
    return (*chosen.values(), (*chosen["BiDO"], RoLSS()), PRIVATE)


def tasks():
    """Everything: both losses on the finished targets, the first one on checkpoints, and what each defence costs."""
    defended = (*SURGERY, *regularised())
    found = [task for loss in LOSSES for task in compare(attacked(loss), (*NONE, *defended))]
    found += compare_on_the_way(SETTING, NONE)
    found += compare_on_the_way(SETTING, defended, places=(1,))
    found += [Costs(POPULATION, SETTING.architecture, RECIPE, chosen) for chosen in (*NONE, *defended)]
    return [*(task for row in sweep().values() for task in row), *found]


def attacked(loss):
    """The setting with another loss of the attack."""
    return replace(SETTING, attack=replace(ATTACK, loss=loss))


if __name__ == "__main__":
    STRENGTHS.write_text(json.dumps(choose(Store(Path(sys.argv[1])), sweep()), indent=1) + "\n")
    print(STRENGTHS.read_text())
