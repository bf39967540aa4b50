"""Retrofit: skip surgery on a network that is trained already, and its recovery by distillation.

The papers train every network anew; a model in production cannot be. Here

    1. the skips of the trained network are removed or scaled, as the defence says; every weight that is left stays
    2. batch norm's means and variances are those of what the cut network sees of the training images
    3. what is left learns from the original, in a tenth of its epochs:
       loss = temperature^2 KL( original, cut )  +  features * |h_cut - h_original|^2 / |h_original|^2
    4. step 2 once more: in so few steps running averages do not come to the network that has been learnt

with the softened answers of both and h what the last layer reads; where a cut narrows that, the answers alone. No label
is used. With a wanted accuracy, the strongest surgery that keeps it is looked for: stages from the last one on lose
their skips while accuracy holds, then the next stage's are scaled by the smallest k that holds (`search`).
"""

import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from lightleak import randomness
from lightleak.data.population import Images
from lightleak.data.views import View
from lightleak.defences.lasting import Lasting, lasting
from lightleak.errors import UserError
from lightleak.fingerprint import fingerprint
from lightleak.models.classifier import Classifier
from lightleak.surgery import find_skips, remove_skips, scale_skips
from lightleak.training.adversarial import answering
from lightleak.training.loop import Watch, accuracy_and_loss, train
from lightleak.training.plan import Batch, Plan
from lightleak.training.recipes import RECIPES, Recipe

if TYPE_CHECKING:
    from lightleak.defences import Defence

SHARE = 0.1  # of the epochs that the original took
FACTORS = (0.1, 0.2, 0.4, 0.6, 0.8)
HELD = 10  # without validation images, every tenth of each class's images is held out
Families = Literal["rolss", "ssf"]
Views = Sequence[Callable[[Tensor], Tensor]]
log = logging.getLogger("lightleak")


@dataclass(frozen=True)
class Recovery:
    """Step 3's loss, for a network cut out of `original`."""

    original: Classifier
    temperature: float = 2.0
    features: float = 1.0  # weight of their distance; 0: the answers alone

    def __call__(self, batch: Batch) -> Tensor:
        with torch.no_grad(), answering(self.original):
            wanted, theirs = self.original.features_and_logits(batch.images)
        ours, logits = batch.classifier.features_and_logits(batch.images)
        loss = F.kl_div(
            (logits.float() / self.temperature).log_softmax(1),
            (theirs.float() / self.temperature).log_softmax(1),
            reduction="batchmean",
            log_target=True,
        )
        loss = self.temperature**2 * loss
        if not self.features or ours.shape != wanted.shape:
            return loss
        wanted = wanted.float()
        apart = (ours.float() - wanted).square().sum(1) / wanted.square().sum(1).clamp(min=1e-12)
        return loss + self.features * apart.mean()


@dataclass(frozen=True)
class Cut:
    """One surgery: the stages that lose their skips, and one more whose skips count k."""

    removed: tuple[int, ...]
    scaled: int | None = None
    k: float | None = None

    def __str__(self) -> str:
        stages = " and ".join(map(str, self.removed))
        gone = f"no skips in stage{'s' * (len(self.removed) > 1)} {stages}" if self.removed else ""
        some = f"k = {self.k:g} in stage {self.scaled}" if self.scaled is not None else ""
        return ", ".join(part for part in (gone, some) if part)

    def __call__(self, classifier: Classifier) -> Classifier:
        """The classifier so cut."""
        net = classifier.net
        if self.scaled is not None:  # first: what is removed in a later stage may rename nothing here
            net = scale_skips(net, float(self.k or 0.0), self.scaled, classifier.example, wake=False)
        if self.removed:
            net = remove_skips(net, list(self.removed), classifier.example, wake=False)
        return classifier.with_net(net)


@dataclass(frozen=True)
class Tried:
    """One surgery, and the validation accuracy that its recovery reached."""

    surgery: str
    accuracy: float
    kept: float  # that over the original's


def protect(
    model: Classifier,
    images: Images,
    validation: Images | None = None,
    defence: "str | Defence | Sequence[Defence]" = "rolss",
    *,
    keep_accuracy: float | None = None,
    recipe: Recipe | None = None,
    epochs: int | None = None,
    recovery: Callable[[Classifier], Recovery] = Recovery,
    seed: int = 0,
    folder: Path | None = None,
    watch: Watch | None = None,
) -> Classifier:
    """A trained classifier after skip surgery and recovery; its record's "retrofit" says what was done and tried.

    `images`: bytes and classes, as the model was trained on them; without `validation`, every tenth image of a class
    is held out. `defence`: rolss, rolss+ or ssf, by name or with settings. `keep_accuracy`: a share of the original's
    validation accuracy; then the strongest surgery that keeps it is looked for, by stages ("rolss") or by stages and k
    ("ssf"). `recipe`: as the model was trained (None: what its record says, else "small"); `epochs` of recovery
    (None: a tenth of the recipe's). With a `folder`, a stopped call goes on from there. Of the defences that the model
    has, its record keeps those that `lasting` finds. UserError if the defence does more than surgery, no surgery keeps
    the accuracy, or the model was trained with DP-SGD.
    """
    if not isinstance(model, Classifier):
        raise UserError(
            f"protect takes a Classifier, not a {type(model).__name__}; wrap your network: "
            "lightleak.Classifier(net, size=..., classes=...)"
        )
    left = lasting(model.record)
    if left.void:
        raise UserError(
            "the model was trained with dp, and the plain steps of recovery, on the same images, would void its bound; "
            "train it anew with both, such as --defence dp,rolss"
        )
    from lightleak.defences import name_of, settings_of

    images, validation = (images, validation) if validation is not None else held_out(images)
    whole = recipe or _recipe_of(model)
    recipe = shortened(whole, epochs)
    before, _ = accuracy_and_loss(model, validation)
    found = Trials(model, images, validation, recipe, recovery(model.eval()), before, seed, folder, watch, left)
    if keep_accuracy is None:
        change, name = surgery_of(defence, recipe)
        result = found.recovered(change, name)
    else:
        if not 0 < keep_accuracy <= 1:
            raise UserError(f"keep_accuracy is a share of the original's accuracy in (0, 1], not {keep_accuracy}")
        if defence not in ("rolss", "ssf"):
            raise UserError(f"with keep_accuracy the surgery is chosen among those of rolss or of ssf, not {defence}")
        if not before > 1.5 / model.classes:
            raise UserError(
                f"the model names {before:.1%} of the validation images right, which is no more than a guess: there is "
                "nothing to keep; are these the people that it knows, in its order?"
            )
        result, name = search(found, keep_accuracy, defence == "ssf")
    if left.undone:
        log.warning(f"recovery undoes {', '.join(left.undone)}: the result is recorded without")
    new = {name_of(each): {} if keep_accuracy else settings_of(each) for each in chosen_of(defence)}
    settings = {name: each for name, each in {**left.settings, **new}.items() if each}
    lasts = {*left.names, *left.by_views, *left.by_freezing}
    kept = dict.fromkeys([*(name for name in (model.record["defences"] if lasts else ()) if name in lasts), *new])
    result.record["defences"] = list(kept)
    result.record["defence_settings"] = {name: settings[name] for name in kept if name in settings}
    result.record["retrofit"] = {
        "surgery": name,
        "recipe": json.loads(json.dumps(asdict(whole))),  # of the original, for a retrofit that follows
        "original": fingerprint(dict(model.net.state_dict())),
        "original_accuracy": before,
        "keep_accuracy": keep_accuracy,
        "tried": [asdict(one) for one in found.tried],
    }
    return result


def search(trials: "Trials", wanted: float, scaling: bool) -> tuple[Classifier, str]:
    """The strongest surgery whose recovery keeps the share `wanted` of the accuracy, and its name."""
    stages = sorted({skip.stage for skip in find_skips(trials.model.net, trials.model.example)}, reverse=True)
    if not stages:
        raise UserError(f"{type(trials.model.net).__name__} has no skips that could be removed or scaled")
    best: tuple[Classifier, str] | None = None
    removed: tuple[int, ...] = ()
    for stage in stages:
        cut = Cut((*removed, stage))
        result = trials.recovered(cut, str(cut))
        if not trials.tried[-1].kept >= wanted:  # NaN keeps nothing
            break
        best, removed = (result, str(cut)), (*removed, stage)
    if scaling and len(removed) < len(stages):
        low, high = 0, len(FACTORS)  # the smallest k that keeps it lies among FACTORS[low:high], if any does
        while low < high:
            middle = (low + high) // 2
            cut = Cut(removed, stages[len(removed)], FACTORS[middle])
            result = trials.recovered(cut, str(cut))
            if trials.tried[-1].kept >= wanted:
                best, high = (result, str(cut)), middle
            else:
                low = middle + 1
    if best is None:
        nearest = max(trials.tried, key=lambda one: -math.inf if math.isnan(one.kept) else one.kept)
        raise UserError(
            f"no surgery that was tried keeps {wanted:.1%} of the accuracy; nearest came {nearest.surgery}, which "
            f"keeps {nearest.kept:.1%}: ask for less, for more epochs of recovery"
            + ("" if scaling else ", or for ssf, which scales skips as well")
        )
    return best


def surgery_of(
    defence: "str | Defence | Sequence[Defence]", recipe: Recipe
) -> tuple[Callable[[Classifier], Classifier], str]:
    """The change of the network that a defence is, and its title; UserError if it is more than that."""
    from lightleak import defences

    chosen = chosen_of(defence)
    if not chosen:
        raise UserError("name the surgery to retrofit: rolss, rolss+ or ssf")
    for each in chosen:
        plan = each.plan(replace(recipe, epochs=max(recipe.epochs, 100)))  # whatever the length of the recovery
        rest = replace(plan, changes=(), head=False)
        public = defences.pretraining((each,), recipe) is not None
        if rest != Plan() or public or plan.head or any(epoch for epoch, _ in plan.changes) or not plan.changes:
            why = (
                "begins with public images" if public else
                "cuts in the middle of a training" if any(epoch for epoch, _ in plan.changes) else
                "puts an untrained head into the network" if plan.head else
                "is a way of training"
            )  # fmt: skip
            raise UserError(
                f"{each.title} {why}, which cannot be retrofitted; rolss, rolss+ and ssf can, others train anew"
            )

    def change(classifier: Classifier) -> Classifier:
        for each in chosen:
            for _, one in each.plan(recipe).changes:
                classifier = one(classifier)
        return classifier

    return change, " + ".join(defences.title(each) for each in chosen)


def chosen_of(defence: "str | Defence | Sequence[Defence]") -> "tuple[Defence, ...]":
    """The defences that are meant."""
    from lightleak import defences

    chosen = defences.parse(defence) if isinstance(defence, str) else defence
    return tuple(chosen) if isinstance(chosen, Sequence) else (chosen,)


def shortened(recipe: Recipe, epochs: int | None = None) -> Recipe:
    """The recipe of the recovery: a tenth of the epochs, at least one."""
    if epochs is not None and epochs < 1:
        raise UserError(f"recovery takes at least 1 epoch, not {epochs}")
    return replace(recipe, epochs=epochs or max(1, math.ceil(SHARE * recipe.epochs)), least_steps=0)


def held_out(images: Images) -> tuple[Images, Images]:
    """The images without every tenth of a class, and those; UserError if that leaves nobody."""
    place = torch.zeros(len(images), dtype=torch.long)
    for label in images.labels.unique():
        rows = (images.labels == label).nonzero().flatten()
        place[rows] = torch.arange(len(rows))
    aside = place % HELD == HELD - 1
    if not aside.any():
        raise UserError(f"no class has {HELD} images, so none can be held out; give validation images")
    return images.at(~aside), images.at(aside)


@torch.no_grad()
def settle(classifier: Classifier, images: Images, batch: int, seed: int = 0, views: Views = ()) -> Classifier:
    """The classifier, its batch norms' running means and variances averaged anew over whole batches of `images`.

    The images are seen through `views`; frozen layers keep their statistics.
    """
    norms = [
        one for one in classifier.net.modules()
        if isinstance(one, _BatchNorm) and one.track_running_stats
        and all(parameter.requires_grad for parameter in one.parameters())
    ]  # fmt: skip
    if not norms:
        return classifier
    held = [one.momentum for one in norms]
    classifier.eval()
    for one in norms:
        one.reset_running_stats()
        one.momentum = None  # the mean of all batches
        one.train()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    size = min(batch, len(images))
    with randomness.own(seed, classifier.device):
        for start in range(0, len(images) - size + 1, size):
            pixels = images.floats(order[start : start + size], classifier.device)
            for view in views:
                pixels = view(pixels)
            classifier(pixels)
    for one, momentum in zip(norms, held):
        one.momentum = momentum
    return classifier.eval()


@dataclass
class Trials:
    """Recoveries of one network, each in a folder of its own."""

    model: Classifier
    images: Images
    validation: Images
    recipe: Recipe
    loss: Recovery
    before: float  # the original's validation accuracy
    seed: int
    folder: Path | None
    watch: Watch | None
    left: Lasting  # of the original's defences
    tried: list[Tried] = field(default_factory=list)

    def recovered(self, change: Callable[[Classifier], Classifier], name: str) -> Classifier:
        """The network so changed, recovered; what it reached is noted."""
        views = tuple(view for each in self.left.by_views.values() for view in each)
        cut = change(self.model)
        for own, parameter in cut.net.named_parameters():
            parameter.requires_grad_(not (self.left.by_freezing and own in self.left.frozen))
        cut = settle(cut, self.images, self.recipe.batch, self.seed, views).train()
        folder = None if self.folder is None else self.folder / fingerprint(name)[:8]
        result = train(
            cut, self.images, self.validation, self.recipe, Plan(loss=self.loss, views=views),
            seed=self.seed, folder=folder, watch=self.watch,
        )  # fmt: skip
        settle(result, self.images, self.recipe.batch, self.seed, views)
        accuracy, _ = accuracy_and_loss(result, self.validation)
        result.record["validation_accuracy"] = accuracy
        self.tried.append(Tried(name, accuracy, accuracy / self.before if self.before else math.nan))
        return result


def _recipe_of(model: Classifier) -> Recipe:
    """How the model was trained before any retrofit, as its record says; if it says nothing, as for small images."""
    before = model.record.get("retrofit")  # the recipe of a retrofit is that of its recovery
    told: Any = (before.get("recipe") if isinstance(before, dict) else None) or model.record.get("recipe")
    if not isinstance(told, dict):
        return RECIPES["small"]
    try:
        view = View(**_as_settings(told["view"]))
        return Recipe(**{**_as_settings(told), "view": view})
    except (KeyError, TypeError):  # a later version's
        epochs = told.get("epochs")
        return replace(RECIPES["small"], epochs=epochs) if isinstance(epochs, int) else RECIPES["small"]


def _as_settings(told: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}


def summary_lines(record: dict[str, Any]) -> Iterator[str]:
    """What a retrofit tried and found, a line each."""
    told = record["retrofit"]
    for one in told["tried"]:
        share = f"which is {one['kept']:.1%} of the original's"
        yield f"{one['surgery']}: validation accuracy {one['accuracy']:.1%}, {share}"
    yield f"chosen: {told['surgery']}"
