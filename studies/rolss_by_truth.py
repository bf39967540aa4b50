"""Does RoLSS defend, by the truth? Sixteen painted worlds, one training each, declared before anything was run.

What is compared: ResNet-18 at 48 x 48 without a defence, with RoLSS, RoLSS+, SSF (k = 0.2) and TTS, trained once in
each of sixteen worlds. A world is 32 people in eight clusters of four look-alikes, 14 training images each, all painted
anew. PPA inverts each network with the renderer itself as the prior (the strongest imaginable attacker), once by the
Poincaré distance and once by the max-margin loss. Two judges of different families, trained on other images of the
same people, and the truth.

Declared in advance. Unit: the world (one paired difference a world, Student's t over worlds, Holm over the four
defences). Primary measures: true match @1 (is the reconstruction nearest to the right one of the known people?) and
the right member given the right family (chance 1 in 4). Primary attack: the Poincaré distance; the other is there
because some defences only stall the first. Everything else is secondary. Why worlds and not seeds: at a true effect of
10 points one world with three seeds finds it in one of four studies, twelve to sixteen worlds with one seed each in
nine of ten, for the same price.

The paper (Koh et al., ECCV 2024, Tab. 9; ResNet-34, FaceScrub, AttAcc@1 in %): none 90.78, RoLSS 71.86, RoLSS+ 65.78,
SSF 79.79, TTS 81.65. It has no truth to ask.

About six core hours (22 minutes a world): lightleak study studies/rolss_by_truth.py --here 2
The record is in results/rolss-by-truth.
"""

from dataclasses import replace

from lightleak.attacks import Guess
from lightleak.defences import SSF, TTS, RoLSS, RoLSSPlus
from lightleak.study.comparison import Setting
from lightleak.study.scales import SMALL_ATTACK, WORLD
from lightleak.study.tasks import Invert, source

WORLDS = 16
FIRST = 101  # no record was made of these worlds before
DEFENCES = ((), (RoLSS(),), (RoLSSPlus(),), (SSF(),), (TTS(),))
LOSSES = ("poincare", "max-margin")
JUDGES = ("timm:resnet14t", "torchvision:densenet121")
PRIMARY = ("true@1", "member@1")


def setting(world, loss=LOSSES[0], judge=JUDGES[0]):
    """One world, one training of each target."""
    population = source("faces", **WORLD, seed=FIRST + world)
    return Setting(population, attack=replace(SMALL_ATTACK, loss=loss), judge=judge)


def tasks(worlds=WORLDS):
    """Each world's targets, attacked by both losses and judged by both judges."""
    return [
        evaluated(setting(world, loss, judge), defence)
        for world in range(worlds)
        for loss in LOSSES
        for judge in JUDGES
        for defence in DEFENCES
    ]


def evaluated(chosen, defence):
    """One target's evaluation beside images of the prior that nobody optimised."""
    target = chosen.target(defence, chosen.seeds[0])
    guessed = Invert(target, chosen.prior_for(target), Guess(chosen.attack.keep))
    return chosen.evaluated(target, {"never optimised": guessed})
