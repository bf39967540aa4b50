"""The comparison that every table is made of: one architecture with several defences, attacked and judged alike."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lightleak.attacks import PPA, Attack, Guess, MIFace
from lightleak.attacks.knowledge import SMALL, SMALL_TRANSFER, Distillation, Transfer
from lightleak.attacks.ppa import PRESETS
from lightleak.defences import SSF, TTS, Defence, RoLSS
from lightleak.errors import UserError
from lightleak.models.weight_files import Weights
from lightleak.priors.fit import QUICK, FitSettings
from lightleak.study.protocols import Protocol
from lightleak.study.spelling import canonical
from lightleak.study.tasks import (
    Checkpoint,
    Distil,
    Draw,
    Evaluate,
    FitPrior,
    Invert,
    Judge,
    Pixels,
    Ready,
    ReadyJudge,
    Rendered,
    Target,
    Taught,
    TrainJudge,
    TrainTarget,
    source,
)
from lightleak.study.tasks.work import size_of
from lightleak.training import RECIPES, CheckpointCriterion, Recipe

NETWORK = "timm:resnet10t"  # of the demo: half the work of a ResNet-18
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
    prior: FitSettings | Ready | None = None  # None: the renderer where the population is rendered, else QUICK
    distillation: Distillation = SMALL  # where the attack learns from public images beforehand
    transfer: Transfer = SMALL_TRANSFER  # where it learns of images that its prior draws
    seeds: tuple[int, ...] = (0,)
    checkpoints: tuple[CheckpointCriterion, ...] = ()  # copies that every target leaves on its way
    protocol: Protocol | None = None  # by which everything is counted
    adversarial: MIFace | None = None  # a third null: images that convince each target and show nobody
    networks: tuple[str, ...] = ()  # those that a study compares, one table each; see `each`
    recipes: Mapping[str, Recipe] = field(default_factory=dict)  # of networks that are trained otherwise
    copies: Mapping[str, tuple[CheckpointCriterion, ...]] = field(default_factory=dict)  # `checkpoints` of those others
    starts: Mapping[str, Weights] = field(default_factory=dict)  # files of weights that networks begin with
    judged: Draw | None = None  # as the judge sees the same people: cropped, or larger; None: as the target does
    judge_start: Weights | None = None  # that the judge begins with
    ready_judge: Weights | None = None  # a judge that exists, in place of one that is trained
    ready_architecture: str = ""  # its
    ready_side: int = 0  # pixels a side that it sees
    classes: tuple[int, ...] | None = None  # who is attacked; None: everybody
    students: tuple[Weights, ...] = ()  # files that the students of `distillation` begin with
    face: Weights | None = None  # FaceNet, for delta_face
    inception: Weights | None = None  # for FID, precision, recall, density, coverage
    published: bool = False  # PPA's conventions for these

    @property
    def each(self) -> "tuple[Setting, ...]":
        """The setting for each of its networks."""
        return tuple(self.of(network) for network in self.networks)

    def of(self, architecture: str) -> "Setting":
        """The setting for another network, with the recipe that this is trained by and the copies that it leaves."""
        return replace(
            self,
            architecture=architecture,
            recipe=self.recipes.get(architecture, self.recipe),
            checkpoints=self.copies.get(architecture, self.checkpoints),
        )

    def target(self, defence: tuple[Defence, ...], seed: int, people: str = "private") -> TrainTarget:
        """The training of one target; defences that make the same network of it are one training."""
        kept = self.checkpoints if people == "private" else ()
        defence = canonical(self.architecture, defence, size_of(self.population))
        start = self.starts.get(self.architecture)
        return TrainTarget(self.population, self.architecture, self.recipe, defence, seed, people, kept, start)

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
        return Invert(target, self.prior_for(target), self.attack, self.classes, seed, self.learnt(target))

    def learnt(self, target: Target) -> Distil | Taught | None:
        """What the attack learns of one target beforehand, with its own access."""
        needs, prior = self.attack.needs(), self.prior_for(target)
        if not needs.knowledge:
            return None
        if not needs.drawn:
            return Distil(target, self.distillation, access=self.attack.access, weights=self.students)
        if not isinstance(prior, FitPrior):
            raise UserError(f"{type(self.attack).__name__} needs a prior that is fitted for its target, such as Lokt()")
        return Taught(target, prior, self.transfer, access=self.attack.access)

    @property
    def judging(self) -> Judge:
        """Who judges: a network that the study trains, or the one that the user brings."""
        people = self.judged or self.population
        if self.ready_judge is not None:
            return ReadyJudge(people, self.ready_judge, self.ready_architecture, self.ready_side)
        return TrainJudge(people, self.judge, self.judge_recipe, weights=self.judge_start)

    def evaluated(self, target: Target, nulls: Mapping[str, Invert]) -> Evaluate:
        """The attack on one target, with its training's seed, and its judgement."""
        extras = {"inception": self.inception, "face": self.face, "published": self.published}
        found = self.inverted(target, target.seed)
        return Evaluate(found, self.judging, nulls, protocol=self.protocol, **extras)


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
                guessed = Invert(form, setting.prior_for(form), Guess(setting.attack.keep), setting.classes)
                nulls = {"never optimised": guessed, "other people": others}
                if setting.adversarial is not None:
                    pixels = Pixels(setting.population)
                    nulls["adversarial"] = Invert(form, pixels, setting.adversarial, setting.classes, seed)
                evaluations.append(setting.evaluated(form, nulls))
    return evaluations


def along(trained: TrainTarget) -> tuple[Target, ...]:
    """The copies that a training leaves on its way, and its end: what a curve over natural accuracy is drawn from."""
    return (*(Checkpoint(trained, place) for place in range(len(trained.checkpoints))), trained)


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
    """The main job at the size of a laptop: three targets, one attack, one page, within three minutes."""

    data: str = "faces"  # faces, digits or folder:PATH
    people: int = 16  # private people of the rendered world
    seed: int = 0

    def tasks(self) -> list[Evaluate]:
        """What the demo runs."""
        return compare(self.setting(), FOUR[:3])

    def setting(self) -> Setting:
        """The demo's setting for its data."""
        recipe, judge = RECIPES["small"], RECIPES["judge"]
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
            recipe, judge = replace(recipe, epochs=10), replace(judge, epochs=6)
            attack = PPA(candidates=300, attempts=3, keep=2, steps=24, rate=0.05, milestones=(16,), views=10, batch=48)
        else:  # of one's own pictures there may be few: train for a number of steps, not of passes
            recipe, judge = (replace(each, least_steps=250) for each in (recipe, judge))
            population = source(self.data, size=32, seed=self.seed)
            attack = PPA(candidates=300, attempts=8, keep=4, steps=50, rate=0.02, views=20, batch=40)
        return Setting(population, NETWORK, recipe, judge_recipe=judge, attack=attack, seeds=(self.seed,))
