"""The standard ensemble of attacks: no choice but the budget, and the access that is granted.

Always: a null that cannot leak (`guess`: images of the prior that nobody optimised), an adversarial control (`pixels`:
an attack in the pixels themselves, which convinces the model and as a rule shows nobody), and one member that sees
labels alone. If that one leaks more than those with gradients, the model hides its gradients and not the people.

The control is no null where a recogniser decides: of a network that keeps its pictures, such as one that compares with
the nearest, descent in pixels brings them out. Judges of the same people are fooled by what fools the model, so where
they decide the control counts as one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from lightleak.attacks import ATTACKS, PPA, Access, Attack, Guess
from lightleak.attacks.adaptive import Knowing, knowing, undone
from lightleak.attacks.alignment import ALIGNMENTS
from lightleak.attacks.frame import grants, unsuited, weaker
from lightleak.attacks.surrogate import Lessons
from lightleak.data.views import View
from lightleak.errors import UserError, refuse
from lightleak.models.classifier import Classifier
from lightleak.priors import Prior
from lightleak.priors.fit import QUICK, FitSettings, WganGp
from lightleak.study.tasks import (
    Distil,
    FitPrior,
    Given,
    Invert,
    Pixels,
    Ready,
    Rendered,
    Surrogate,
    TrainJudge,
    Undone,
)
from lightleak.training import RECIPES, Recipe

BudgetName = Literal["tiny", "standard", "thorough"]
PriorTask = FitPrior | Rendered | Ready


NULL, CONTROL = "guess", "pixels"


@dataclass(frozen=True)
class Budget:
    """How much is spent on each member."""

    attack: PPA
    variants: Mapping[str, PPA]
    lessons: Lessons
    student: str
    judges: tuple[str, ...]
    recipe: Recipe
    prior: FitSettings = QUICK
    pixels: int = 64  # a side, of the pictures that judges and priors learn from
    registry: bool = False  # whether every attack in ATTACKS is tried with its own settings


def _variants(attack: PPA, aligned: bool) -> dict[str, PPA]:
    found = {"PPA": attack, "PPA, max-margin": replace(attack, loss="max-margin")}
    if aligned:
        taa = {f"{name}, TAA": replace(each, alignment=ALIGNMENTS["taa"]) for name, each in found.items()}
        found |= taa
    return found


JUDGED = replace(RECIPES["judge"], least_steps=300, view=View(scale=(0.8, 1.0), flip=0.5, brightness=0.2, contrast=0.2))
# Half the steps: on twelve painted people a judge knew every validation picture after three epochs of eight.
QUICKLY = replace(JUDGED, epochs=4, least_steps=150)


def _budget(
    attack: PPA,
    lessons: Lessons,
    student: str,
    judges: tuple[str, ...],
    aligned: bool,
    recipe: Recipe = JUDGED,
    **more: object,
) -> Budget:
    return Budget(attack, _variants(attack, aligned), lessons, student, judges, recipe, **more)  # pyright: ignore


TINY = PPA(candidates=300, attempts=4, keep=2, steps=30, rate=0.02, milestones=(20,), views=10, batch=48)
STANDARD = PPA(candidates=2000, attempts=16, keep=8, steps=70, rate=0.02, milestones=(40, 60), views=50)
FAMILIES = ("timm:regnetx_002", "torchvision:shufflenet_v2_x0_5", "timm:resnet14t")
MORE = 4  # times as many steps, at most, of judges of pictures smaller than the budget's
BUDGETS: dict[BudgetName, Budget] = {
    "tiny": _budget(
        TINY, Lessons(epochs=10, batch=32, pretrained=False), "timm:resnet10t", FAMILIES[:2], False, QUICKLY,
    ),
    "standard": _budget(
        STANDARD, Lessons(epochs=40, batch=32, pretrained=False), "timm:resnet14t", FAMILIES, True,
        prior=WganGp(steps=4000), pixels=128, registry=True,
    ),
    "thorough": _budget(
        replace(STANDARD, candidates=5000, attempts=50, keep=20, steps=150, milestones=(100, 130), views=100),
        Lessons(epochs=100, batch=64, pretrained=False), "timm:resnet18", FAMILIES, True,
        prior=WganGp(), pixels=128, registry=True,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Member:
    """One attack of the ensemble."""

    name: str
    sees: Access  # of the model
    task: Invert
    null: bool = False  # whether it can leak nothing
    control: bool = False  # whether it is there to convince the model without showing anybody
    copy: Surrogate | None = None  # what it was run on in place of the model

    @property
    def attack(self) -> Attack:
        """Its settings."""
        return self.task.attack


@dataclass(frozen=True)
class Ensemble:
    """Who attacks, who judges, and what was not tried."""

    members: tuple[Member, ...]
    judges: tuple[TrainJudge, ...]
    untried: Mapping[str, str]  # attack -> why

    @property
    def nulls(self) -> tuple[Member, ...]:
        """Those that are there for comparison: the null and the control."""
        return tuple(one for one in self.members if one.null or one.control)

    @property
    def attacks(self) -> tuple[Member, ...]:
        """All others."""
        return tuple(one for one in self.members if not one.null and not one.control)


def ensemble(
    target: Given,
    access: Access,
    budget: BudgetName,
    prior: PriorTask | None = None,
    seed: int = 0,
    uncut: str | None = None,
    classes: tuple[int, ...] | None = None,
    defended: Sequence[str] = (),
    model: Classifier | None = None,
    mirrored: bool = True,
    side: int | None = None,
) -> Ensemble:
    """The members that `access` to a model allows; `uncut`: its architecture by name, if skips were removed from it.

    `classes`: who is attacked, None for all. `defended`: the defences that its attackers know to be there (names of
    `attacks.adaptive.ADAPTIVE`), and `model` the network itself, which shows whether a change of it undoes them.
    `mirrored`: whether a mirrored picture shows the same, as of people; of digits or letters it does not, and judges
    are not to learn it. `side`: of the pictures, in pixels.
    """
    if budget not in BUDGETS or access not in get_args(Access):
        raise UserError(
            f"budget is tiny, standard or thorough, access gradients, scores or labels; not {budget}, {access}"
        )
    if target.guard is not None:
        access = weaker(access, "labels" if target.guard.labels else "scores")
    plan = BUDGETS[budget]
    brought = prior.sketch() if isinstance(prior, Ready | Rendered) else None
    prior = prior or FitPrior(target.population, plan.prior, seed)
    known = model.classes if model is not None else 0  # an unknown model has the classes of the prior
    if brought is not None:
        known = known or brought.classes or 0
        refuse(unsuited(plan.attack, known, brought))  # every copy is attacked by it
    members: list[Member] = []

    def add(
        name: str, attack: Attack, sees: Access, copy: Surrogate | None = None, undone: Undone | None = None
    ) -> None:
        where = copy or undone or target
        drawn = Pixels(target.population) if name == CONTROL else prior
        knowledge = Distil(where, access=attack.access, seed=seed) if attack.needs().knowledge else None
        task = Invert(where, drawn, attack, classes, seed, knowledge)  # pyright: ignore
        members.append(Member(name, sees, task, name == NULL, name == CONTROL, copy))

    # 1. with what is granted
    if access == "gradients":
        for name, attack in _rated(plan.variants, prior).items():
            add(name, attack, "gradients")
    untried = _from_registry(add, access, plan.registry, budget, brought, known)
    # 2. by copies of the model: of labels always, of scores where they are granted and gradients are not
    student, attack = plan.student, _rated({"": plan.attack}, prior)[""]
    by_labels = Surrogate(target, "labels", student, plan.lessons, seed)
    add("PPA on a copy by labels", attack, "labels", by_labels)
    for each in knowing(defended):
        if each.votes > 1:
            add(f"PPA on {each.name}", attack, "labels", replace(by_labels, lessons=each.lessons(plan.lessons)))
    if access == "scores":
        add("PPA on a copy by scores", attack, "scores", Surrogate(target, "scores", student, plan.lessons, seed))
    # 3. with the skips that surgery took away
    if uncut and access == "gradients":
        whole = Surrogate(target, "gradients", uncut, plan.lessons, seed)
        add("PPA on a copy with its skips", attack, "gradients", whole)
    # 4. as somebody who knows the defences
    untried |= _knowing(add, target, access, _rated({"": plan.attack}, prior)[""], knowing(defended), model, uncut)
    members = list({one.task.key: one for one in reversed(members)}.values())[::-1]  # each attack once, as first named
    # 5. what cannot leak
    copies = [one.copy for one in members if one.copy and one.copy.lessons == plan.lessons]
    white = None if access == "gradients" else copies[-1]
    sees = "gradients" if white is None else white.access
    add(NULL, Guess(plan.attack.keep), "scores" if access == "gradients" else sees, white)
    add(CONTROL, replace(plan.attack, rate=0.02), sees, white)

    recipe = _judged(plan, mirrored, side)
    judges = tuple(TrainJudge(target.population, name, recipe, seed + 1000 + i) for i, name in enumerate(plan.judges))
    return Ensemble(tuple(members), judges, untried)


def _judged(plan: Budget, mirrored: bool, side: int | None) -> Recipe:
    """How judges learn: what a budget spends on pictures of its size buys more steps on smaller ones."""
    more = min(MORE, max(1.0, (plan.pixels / (side or plan.pixels)) ** 2))
    view = plan.recipe.view if mirrored else replace(plan.recipe.view, flip=0.0)
    return replace(plan.recipe, view=view, least_steps=round(more * plan.recipe.least_steps))


def _knowing(add, target, access: Access, attack: PPA, ways: Sequence[Knowing], model, uncut) -> dict[str, str]:
    """What attackers do who know; why for what is left out. Copies are among the others already, or await `uncut`."""
    untried: dict[str, str] = {}
    for each in ways:
        if each.copy is not None:
            if each.whole and not uncut:
                untried[each.name] = "the architecture from before surgery is not known; name it with --uncut"
            continue
        if access != "gradients":
            untried[each.name] = "needs gradients, which were not granted"
            continue
        changed = None
        if each.undo is not None:
            changed = Undone(target, each.undo, uncut)
            try:
                if model is not None:
                    undone(model, each.undo, uncut)
            except UserError as error:
                untried[each.name] = str(error)
                continue
        add(f"PPA, {each.name}", each.attack(attack), "gradients", undone=changed)
    return untried


def _rated(attacks: Mapping[str, PPA], prior: PriorTask) -> dict[str, PPA]:
    """The attacks with a step that suits the prior's latents: factors of a renderer or noise of a GAN."""
    if isinstance(prior, Rendered):
        return {name: replace(attack, rate=0.05) for name, attack in attacks.items()}
    return dict(attacks)


def _from_registry(
    add, access: Access, tried: bool, budget: str, brought: Prior | None, classes: int
) -> dict[str, str]:
    """Every other attack in ATTACKS that the access allows and this prior serves; why for those left out."""
    untried: dict[str, str] = {}
    for name, kind in ATTACKS.items():
        if kind.null or kind is PPA:
            continue
        attack = kind()
        needs = attack.needs()
        if not grants(access, attack.access):
            untried[name] = f"needs {attack.access}, which were not granted"
        elif not tried:
            untried[name] = f"has no settings within the budget {budget}"
        elif needs.pixels:
            untried[name] = f"searches in pixels, as the control '{CONTROL}' does"
        elif why := _unserved(attack, brought, classes):
            untried[name] = why
        else:
            add(attack.title or kind.__name__, attack, attack.access)
    return untried


def _unserved(attack: Attack, brought: Prior | None, classes: int) -> str:
    """Why a prior does not serve an attack on so many classes, empty if it does; a GAN is fitted if none is brought."""
    if brought is not None:
        return next(iter(unsuited(attack, classes, brought)), "")
    if attack.needs().classes:
        return "needs a prior that was made for this model; bring one with --prior"
    return "needs a StyleGAN2 prior; bring one with --prior" if attack.needs().blocks else ""
