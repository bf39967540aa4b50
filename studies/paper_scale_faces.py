"""The paper's resolution and number of identities on painted people: ResNet-50 at 224 x 224, 530 people.

What is compared: 530 painted people in families of five look-alikes, seen by a ResNet-50 without a defence, with RoLSS
(last stage's skips removed), with SSF (k = 0.2), and with the skips of its first stage removed instead. PPA with 16
attempts and the renderer as prior, on 60 of the people: twelve whole families. Judged by another architecture trained
on other images, and by the truth. Beside each: images that nobody optimised, and the same attack on the same network of
other people.

The small records lack resolution and depth; this is them. The paper (Koh et al., ECCV 2024; FaceScrub, 530 people,
ResNet-101, StyleGAN2 prior) finds that skips of the last stage are those that help the attack most.

Sized for about ten minutes on one H100, which is an estimate until it is run there; on a processor it takes days:

    lightleak study studies/paper_scale_faces.py --device cuda
    lightleak study studies/paper_scale_faces.py --device cpu --dry-run
"""

from dataclasses import replace

from lightleak.attacks import PPA, Guess
from lightleak.data.views import View
from lightleak.defences import SSF, Defence, RoLSS
from lightleak.study.comparison import Setting
from lightleak.study.tasks import Evaluate, Invert, TrainJudge, source
from lightleak.training import Recipe

PEOPLE, FAMILY, ATTACKED = 530, 5, 60
VIEW = View(scale=(0.85, 1.0), brightness=0.2, contrast=0.2)
RECIPE = Recipe(epochs=12, batch=128, rate=1e-3, milestones=(0.7, 0.9), view=VIEW)
ATTACK = PPA(candidates=1000, attempts=16, keep=4, steps=30, rate=0.05, milestones=(20,), views=20, batch=64)
DEFENCES: tuple[tuple[Defence, ...], ...] = ((), (RoLSS(),), (SSF(),), (RoLSS(where=1),))


def tasks(architecture: str = "timm:resnet50", size: int = 224, people: int = PEOPLE, attacked: int = ATTACKED):
    """Defence by defence; smaller numbers make a rehearsal."""
    population = source(
        "faces", people=people, lookalikes=FAMILY, jitter=0.35, images=16, size=size, strength=1.0, noise=0.05,
        public_people=people, public_images=22, judge_images=24, validation_images=2, test_images=4,
    )  # fmt: skip
    setting = Setting(population, architecture, RECIPE, attack=ATTACK)
    judge = TrainJudge(population, "timm:resnet34", replace(RECIPE, epochs=10))
    classes = tuple(range(attacked))

    def inverted(defence: tuple[Defence, ...], whose: str = "private", attack: PPA | Guess = ATTACK) -> Invert:
        target = setting.target(defence, 0, whose)
        return Invert(target, setting.prior_for(target), attack, classes)

    others = inverted((), "public")
    return [
        Evaluate(inverted(one), judge, {"never optimised": inverted(one, attack=Guess(4)), "other people": others})
        for one in DEFENCES
    ]
