"""RoLSS, SSF and TTS against no defence on rendered people, in three worlds of rising difficulty.

What is compared: ResNet-18 at 64 x 64 without a defence, with RoLSS (last stage's skips removed), SSF (k = 0.2) and TTS
(half of the epochs with skips), three training seeds each, inverted by PPA with the renderer itself as the prior: the
strongest imaginable attacker. Judged by another architecture trained on other images, and by the truth.

The difficulties were chosen by the undefended target alone, before any defence was run: its natural accuracy, and leak
scores that are neither at the floor nor at the ceiling.

The paper (Koh et al., ECCV 2024, Tab. 9; ResNet-34, FaceScrub, StyleGAN2 prior; natural accuracy / AttAcc@1): no
defence 94.69 / 90.78, RoLSS 91.38 / 71.86, SSF 94.21 / 79.79, TTS 94.40 / 81.65.

About an hour a world on two cores: lightleak study studies/demo_faces.py --here 2
"""

from lightleak.attacks import PPA
from lightleak.data.faces import DIFFICULTIES
from lightleak.study.comparison import Setting, compare
from lightleak.study.tasks import source
from lightleak.training import RECIPES

PEOPLE = 56
ATTACK = PPA(candidates=600, attempts=3, keep=2, steps=50, rate=0.05, milestones=(35,), views=20)


def setting(difficulty: str) -> Setting:
    """One world, with enough public people of the same kind for the null."""
    population = source(
        "faces",
        people=PEOPLE,
        public_people=PEOPLE,
        public_images=22,
        **DIFFICULTIES[difficulty],
    )
    return Setting(population, recipe=RECIPES["small"], attack=ATTACK, seeds=(0, 1, 2))


def tasks():
    """Hard first: that is where something is to be seen."""
    return [task for difficulty in ("hard", "harder", "easy") for task in compare(setting(difficulty))]
