"""The comparison that every table is made of: one architecture with several defences, attacked and judged alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lightleak.attacks import PPA, Attack, Guess
from lightleak.attacks.ppa import PRESETS
from lightleak.defences import SSF, TTS, Defence, RoLSS
from lightleak.priors.fit import QUICK, Settings
from lightleak.study.tasks import (
    Draw,
    Evaluate,
    FitPrior,
    Invert,
    Ready,
    Rendered,
    Target,
    TrainJudge,
    TrainTarget,
    source,
)
from lightleak.training import RECIPES, Recipe

FOUR: tuple[tuple[Defence, ...], ...] = ((), (RoLSS(),), (SSF(),), (TTS(),))


@dataclass(frozen=True)
class Setting:
    """What is held equal while defences are compared."""

    population: Draw
    architecture: str = "timm:resnet18"
    recipe: Recipe = RECIPES["small"]
    judge: str = "timm:resnet14t"
    judge_recipe: Recipe = RECIPES["judge"]
    attack: Attack = PRESETS["rendered"]
    prior: Settings | Ready | None = None  # None: the renderer where the population is rendered, else QUICK
    seeds: tuple[int, ...] = (0,)


def compare(
    setting: Setting,
    defences: Sequence[tuple[Defence, ...]] = FOUR,
    forms: Callable[[TrainTarget], Sequence[Target]] | None = None,
) -> list[Evaluate]:
    """One evaluation for each defence and training seed, each beside its two nulls.

    The nulls: images of the prior that nobody optimised, and the same attack on the same network of other people.
    `forms`: what of a training is attacked, by default the trained network; its checkpoints, or its fused form.
    """
    population = setting.population
    rendered = population.source == "faces"
    strength = float(population.settings.get("strength", 1.0))
    judge = TrainJudge(population, setting.judge, setting.judge_recipe)
    keep = getattr(setting.attack, "keep", 1)

    def target(defence: tuple[Defence, ...], seed: int, people: str = "private") -> TrainTarget:
        return TrainTarget(population, setting.architecture, setting.recipe, defence, seed, people)

    def prior(trained: Target) -> FitPrior | Rendered | Ready:
        if isinstance(setting.prior, Ready):
            return setting.prior
        if setting.prior is None:
            return Rendered(population, strength) if rendered else FitPrior(population, QUICK)
        return FitPrior(population, setting.prior, target=trained if setting.prior.needs_target else None)

    null = target((), setting.seeds[0], "public")
    others = Invert(null, prior(null), setting.attack)
    evaluations = []
    for defence in defences:
        for seed in setting.seeds:
            trained = target(defence, seed)
            for form in forms(trained) if forms else (trained,):
                nulls = {"never optimised": Invert(form, prior(form), Guess(keep)), "other people": others}
                evaluations.append(Evaluate(Invert(form, prior(form), setting.attack, seed=seed), judge, nulls))
    return evaluations


@dataclass(frozen=True)
class Demo:
    """The main job at the size of a laptop: four targets, one attack, one page, within three minutes."""

    data: str = "faces"  # faces, digits or folder:PATH
    people: int = 20  # private people of the rendered world
    seed: int = 0

    def tasks(self) -> list[Evaluate]:
        """What the demo runs."""
        return compare(self.setting())

    def setting(self) -> Setting:
        """The demo's setting for its data."""
        recipe = RECIPES["small"]
        if self.data == "faces":
            population = source(
                "faces",
                people=self.people,
                images=16,
                size=48,
                lookalikes=4,
                strength=1.0,
                noise=0.05,
                public_people=self.people,
                public_images=22,
                judge_images=40,
                seed=self.seed,
            )
            attack = PPA(candidates=300, attempts=4, keep=2, steps=30, rate=0.05, milestones=(20,), views=10, batch=40)
            return Setting(population, recipe=recipe, attack=attack, seeds=(self.seed,))
        # Of one's own pictures there may be few: train for a number of steps, not of passes.
        recipe, judge = (replace(RECIPES[name], least_steps=250) for name in ("small", "judge"))
        population = source(self.data, size=32, seed=self.seed)
        attack = PPA(candidates=300, attempts=8, keep=4, steps=50, rate=0.02, views=20, batch=40)
        return Setting(population, recipe=recipe, judge_recipe=judge, attack=attack, seeds=(self.seed,))
