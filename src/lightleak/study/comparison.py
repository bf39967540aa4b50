"""The comparison that every table is made of: one architecture with several defences, attacked and judged alike."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from lightleak.attacks import PPA, Attack, Guess, MIFace
from lightleak.attacks.knowledge import SMALL, Distillation
from lightleak.attacks.ppa import PRESETS
from lightleak.defences import SSF, TTS, Defence, RoLSS
from lightleak.priors.fit import QUICK, Settings
from lightleak.study.protocols import Protocol
from lightleak.study.tasks import (
    Checkpoint,
    Distil,
    Draw,
    Evaluate,
    FitPrior,
    Invert,
    Pixels,
    Ready,
    Rendered,
    Target,
    TrainJudge,
    TrainTarget,
    source,
)
from lightleak.training import RECIPES, Moment, Recipe

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
    distillation: Distillation = SMALL  # where the attack learns from public images beforehand
    seeds: tuple[int, ...] = (0,)
    checkpoints: tuple[Moment, ...] = ()  # copies that every target leaves on its way
    protocol: Protocol | None = None  # by which everything is counted
    adversarial: MIFace | None = None  # a third null: images that convince each target and show nobody

    def target(self, defence: tuple[Defence, ...], seed: int, people: str = "private") -> TrainTarget:
        """The training of one target."""
        kept = self.checkpoints if people == "private" else ()
        return TrainTarget(self.population, self.architecture, self.recipe, defence, seed, people, kept)

    def prior_for(self, target: Target) -> FitPrior | Rendered | Ready:
        """What an attack on this target draws with."""
        if isinstance(self.prior, Ready):
            return self.prior
        if self.prior is not None:
            return FitPrior(self.population, self.prior, target=target if self.prior.needs_target else None)
        if self.population.source == "faces":
            return Rendered(self.population, float(self.population.settings.get("strength", 1.0)))
        return FitPrior(self.population, QUICK)

    def inverted(self, target: Target, seed: int = 0) -> Invert:
        """The attack on one target, with what it learns of it beforehand."""
        needed = self.attack.needs().knowledge
        knowledge = Distil(target, self.distillation, access=self.attack.access) if needed else None
        return Invert(target, self.prior_for(target), self.attack, seed=seed, knowledge=knowledge)

    def evaluated(self, target: Target, nulls: Mapping[str, Invert]) -> Evaluate:
        """The attack on one target, with its training's seed, and its judgement."""
        judge = TrainJudge(self.population, self.judge, self.judge_recipe)
        return Evaluate(self.inverted(target, target.seed), judge, nulls, protocol=self.protocol)


def compare(
    setting: Setting,
    defences: Sequence[tuple[Defence, ...]] = FOUR,
    forms: Callable[[TrainTarget], Sequence[Target]] | None = None,
) -> list[Evaluate]:
    """One evaluation for each defence and training seed, each beside its nulls.

    The nulls: images of the prior that nobody optimised, the same attack on the same network of other people, and,
    where the setting asks for it, images that are optimised without any prior (MI-Face).
    `forms`: what of a training is attacked, by default the trained network; its checkpoints, or its fused form.
    """
    null = setting.target((), setting.seeds[0], "public")
    others = setting.inverted(null)
    evaluations = []
    for defence in defences:
        for seed in setting.seeds:
            trained = setting.target(defence, seed)
            for form in forms(trained) if forms else (trained,):
                guessed = Invert(form, setting.prior_for(form), Guess(setting.attack.keep))
                nulls = {"never optimised": guessed, "other people": others}
                if setting.adversarial is not None:
                    nulls["adversarial"] = Invert(form, Pixels(setting.population), setting.adversarial, seed=seed)
                evaluations.append(setting.evaluated(form, nulls))
    return evaluations


def compare_on_the_way(
    setting: Setting, defences: Sequence[tuple[Defence, ...]], places: Sequence[int] | None = None
) -> list[Evaluate]:
    """One evaluation for each checkpoint of each defence and seed; `places` chooses among the setting's checkpoints."""
    return [
        setting.evaluated(Checkpoint(setting.target(defence, seed), place), {})
        for defence in defences
        for seed in setting.seeds
        for place in (range(len(setting.checkpoints)) if places is None else places)
    ]


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
