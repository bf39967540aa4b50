"""The 64-pixel attacks side by side at the size of a laptop: which leak more, and whether the last skips matter.

Koh et al. (ECCV 2024, Fig. 4) attack IR-152 on CelebA, with and without the skips of its last stage, by KED-MI, PLG-MI
and LOMMA. Here narrow networks of the same layout stand for it, a narrow VGG-16 for the one that never had skips, and
rendered people (or digits) for CelebA. Each attack has the prior that its paper gives it: GMI one generator for all
targets, KED-MI and PLG-MI one for each. All is small, so the numbers are no one else's; who beats whom is the question.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lightleak.attacks import GMI, KEDMI, LOMMA, PLGMI, Attack, Guess
from lightleak.attacks.knowledge import Distillation
from lightleak.defences import Defence, RoLSS
from lightleak.errors import UserError
from lightleak.metrics.attribute_regressor import Fit
from lightleak.priors.fit import KED_QUICK, PLG_QUICK, QUICK, FitSettings
from lightleak.study.protocols import PROTOCOLS
from lightleak.study.tasks import (
    Distil,
    Draw,
    Evaluate,
    FitAttributeRegressor,
    FitPrior,
    Invert,
    TrainJudge,
    TrainTarget,
    source,
)
from lightleak.training import RECIPES, Recipe

TARGETS: tuple[tuple[str, tuple[Defence, ...]], ...] = (
    ("face:ir18-narrow", ()),
    ("face:ir18-narrow", (RoLSS(),)),
    ("face:vgg16-narrow", ()),
)
PRIORS: dict[str, FitSettings] = {
    "gmi": replace(QUICK, warmup=400, steps=80),
    "kedmi": replace(KED_QUICK, warmup=400, steps=80),
    "plgmi": replace(PLG_QUICK, width=8, discriminator_width=8, warmup=300, steps=100),
}

APPRAISER = Fit(steps=250)
STUDENTS = Distillation(("face:ir18-narrow",), pretrained=False, epochs=4, batch=32)  # LOMMA's, for each target


@dataclass(frozen=True)
class LowRes:
    """Every attack on every target, judged and (where faces are rendered) held against the truth."""

    data: str = "faces"  # faces, digits or folder:PATH
    people: int = 24  # private people of the rendered world
    attempts: int = 2  # images of each person by each attack; all of them count
    seed: int = 0  # of the world, and of the first training
    size: int = 32
    trainings: int = 1  # of each target

    def tasks(self, networks: Sequence[str] = (), attacks: Sequence[str] = ()) -> list[Evaluate]:
        """The evaluations, target by target; of some networks and attacks, or of all."""
        for named, known in ((networks, {name for name, _ in TARGETS}), (attacks, self.attacks)):
            if unknown := [name for name in named if name not in known]:
                raise UserError(f"here are {', '.join(sorted(known))}, not {', '.join(unknown)}")
        return [
            self.evaluate(self.target(architecture, defences, self.seed + training), name)
            for architecture, defences in TARGETS
            if not networks or architecture in networks
            for training in range(self.trainings)
            for name in attacks or self.attacks
        ]

    @property
    def population(self) -> Draw:
        """Rendered people in clusters of four look-alikes, and many others in public; or what `data` names."""
        if self.data != "faces":
            return source(self.data, size=self.size, seed=self.seed)
        return source(
            "faces",
            people=self.people,
            images=16,
            size=self.size,
            lookalikes=4,
            strength=0.8,
            noise=0.04,
            public_people=10 * self.people,
            public_images=5,
            judge_images=30,
            test_images=8,
            seed=self.seed,
        )

    @property
    def attacks(self) -> dict[str, tuple[str, Attack]]:
        """The prior and the attack of each row; steps and rates are those of the tests, or what time allowed."""
        return {
            "GMI": ("gmi", GMI(self.attempts, steps=80, rate=0.06)),
            "LOMMA-GMI": ("gmi", LOMMA("gmi", attempts=self.attempts, steps=80, rate=0.06)),
            "KED-MI": ("kedmi", KEDMI(self.attempts, steps=80, rate=0.1)),
            "LOMMA-KED": ("kedmi", LOMMA("kedmi", attempts=self.attempts, steps=80, rate=0.1)),
            "PLG-MI, stage 1 alone": ("plgmi", PLGMI(self.attempts, steps=0)),
            "PLG-MI": ("plgmi", PLGMI(self.attempts, steps=50)),
        }

    def target(self, architecture: str, defences: tuple[Defence, ...], seed: int | None = None) -> TrainTarget:
        """A target, trained alike whatever it is; with the world's seed unless another is given."""
        recipe = replace(RECIPES["small"], epochs=20, rate=2e-3, least_steps=self._least)
        return TrainTarget(self.population, architecture, recipe, defences, self.seed if seed is None else seed)

    @property
    def judge(self) -> TrainJudge:
        """A ResNet of another design, trained on images of the same people that no target saw."""
        recipe: Recipe = replace(RECIPES["judge"], epochs=6, least_steps=self._least)
        return TrainJudge(self.population, "timm:resnet14t", recipe)

    @property
    def _least(self) -> int:
        return 0 if self.data == "faces" else 250  # of one's own pictures there may be few

    def evaluate(self, target: TrainTarget, name: str) -> Evaluate:
        """One attack on one target, beside images of the same prior that nobody optimised."""
        kind, attack = self.attacks[name]
        settings = PRIORS[kind]
        prior = (
            FitPrior(self.population, settings, target.seed, target)
            if settings.needs_target
            else FitPrior(self.population, settings, self.seed)
        )
        knowledge = Distil(target, STUDENTS, access=attack.access) if attack.needs().knowledge else None
        return Evaluate(
            Invert(target, prior, attack, seed=target.seed, knowledge=knowledge),
            self.judge,
            nulls={"never optimised": Invert(target, prior, Guess(self.attempts))},
            appraiser=FitAttributeRegressor(APPRAISER) if self.data == "faces" else None,
            protocol=PROTOCOLS["rendered"],
        )
