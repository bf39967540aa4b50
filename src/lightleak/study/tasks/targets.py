"""The networks of a study: who is attacked, and who judges."""

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import torch

from lightleak import defences, randomness
from lightleak.attacks import Guard, Oracle
from lightleak.attacks.guards import LabelsOnly
from lightleak.data.outlook import Outlook
from lightleak.data.population import Images, Population
from lightleak.defences import Defence, pretrain
from lightleak.errors import UserError
from lightleak.fingerprint import LATER
from lightleak.metrics.recognition import per_class
from lightleak.models import whose
from lightleak.models.classifier import Classifier, load, save
from lightleak.models.starting import begin
from lightleak.models.weight_files import Weights
from lightleak.models.zoo import build
from lightleak.ranking import answers
from lightleak.study.amounts import Amount
from lightleak.study.task import Absent, Progress, Store, Task
from lightleak.study.tasks.attackers import OfTarget
from lightleak.study.tasks.given import Given, Surrogate, Undone
from lightleak.study.tasks.populations import Draw
from lightleak.study.tasks.work import Repeating, guard_of, named, parameters, short, size_of, trained_on
from lightleak.surgery import fuse
from lightleak.training import RECIPES, CheckpointCriterion, Recipe, accuracy_and_loss, predict, train


@dataclass(frozen=True)
class Pretrain(Repeating):
    """A network that has learnt to tell public people apart, with a fresh head for the private ones."""

    gpus = 1.0
    population: Draw
    architecture: str
    recipe: Recipe
    seed: int = 0
    weights: Weights | None = field(default=None, metadata=LATER)  # that it begins with

    @property
    def label(self) -> str:
        return f"train {short(self.architecture)} on public images, seed {self.seed}"

    @property
    def pictures(self) -> Draw:
        """Of the public people."""
        return self.population

    def repeated(self, seen: Outlook) -> tuple[Amount, ...]:
        """Its training."""
        return trained_on(seen, "public", self.architecture, None, self.recipe, seen.public_people or 1)

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:
        population = self.population.load(store)
        classifier = fresh(self.architecture, population.classes, population.size, self.seed, self.weights)
        start = pretrain(classifier, population.public, self.recipe, self.seed, store.scratch(self), watch)
        save(start, folder / "target.safetensors")
        record = start.record["pretraining"]
        return {name: record[name] for name in ("images", "people", "validation_accuracy", "best_epoch")}

    def load(self, store: Store) -> Classifier:
        """The network to start from."""
        return load(store.folder(self) / "target.safetensors")


@dataclass(frozen=True)
class TrainTarget(Repeating):
    """A classifier of the private people, with or without defences."""

    gpus = 1.0
    population: Draw
    architecture: str = "timm:resnet18"
    recipe: Recipe = RECIPES["small"]
    defences: tuple[Defence, ...] = ()
    seed: int = 0
    people: str = "private"  # "public": the same network for people who are none of them, as a null
    checkpoints: tuple[CheckpointCriterion, ...] = ()  # copies that are kept on the way, see `Checkpoint`
    weights: Weights | None = field(default=None, metadata=LATER)  # that it begins with, see `models.starting`

    @property
    def guard(self) -> Guard | None:
        """Of the API that it stands behind: none."""
        return None

    def needs(self) -> tuple[Task, ...]:
        """Its population, and the public training that a defence begins with."""
        return (*super().needs(), self.start) if self.start else super().needs()

    @property
    def start(self) -> Pretrain | None:
        """The public training that comes first, if a defence wants it."""
        recipe = defences.pretraining(self.defences, self.recipe)
        return Pretrain(self.population, self.architecture, recipe, self.seed, self.weights) if recipe else None

    @property
    def label(self) -> str:
        return f"train {named(self)}"

    @property
    def title(self) -> str:
        """The defences as a table names them."""
        if self.people == "public":
            return "other people"
        return " + ".join(defences.title(defence) for defence in self.defences) or "no defence"

    @property
    def pictures(self) -> Draw:
        """Of the people whom it learns to tell apart."""
        return self.population

    def repeated(self, seen: Outlook) -> tuple[Amount, ...]:
        """Its training, as if it were undefended: a defence's own terms take some of that again."""
        part = "train" if self.people == "private" else "others"
        return trained_on(seen, part, self.architecture, None, self.recipe)

    def begins(self) -> tuple[tuple[str, Weights, int | None], ...]:
        """Its network, if that begins with a file."""
        return ((self.architecture, self.weights, size_of(self.population)),) if self.weights else ()

    @property
    def room(self) -> int:
        """The network and the copies that are left on its way."""
        return 4 * parameters(self.architecture, size_of(self.population)) * (1 + len(self.checkpoints))

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:
        population = self.population.load(store)
        images, validation, test = people(population, self.people)
        if self.start:
            classifier = self.start.load(store)
        else:
            count = int(images.labels.max()) + 1
            classifier = fresh(self.architecture, count, population.size, self.seed, self.weights)
        private = self.people == "private"  # public people have no names
        classifier.class_names = population.class_names if private else ()
        scratch = store.scratch(self)

        def save_checkpoint(place: int, copy: Classifier) -> None:
            save(whose.name(copy, population) if private else copy, scratch / _kept(place))

        trained = train(
            classifier,
            images,
            validation,
            self.recipe,
            defences.plan(self.defences, self.recipe),
            seed=self.seed,
            folder=scratch,
            watch=watch,
            moments=self.checkpoints,
            keep=save_checkpoint,
        )
        save(whose.name(trained, population) if private else trained, folder / "target.safetensors")
        for place in range(len(self.checkpoints)):
            shutil.copyfile(scratch / _kept(place), folder / _kept(place))
        return described(trained, images, test)

    def load(self, store: Store) -> Classifier:
        """The trained classifier."""
        return load(store.folder(self) / "target.safetensors")


@dataclass(frozen=True)
class Derived(OfTarget):
    """A target that comes of the training of another."""

    run_of: TrainTarget

    @property
    def original(self) -> TrainTarget:
        """The training."""
        return self.run_of

    @property
    def label(self) -> str:
        return f"look at {named(self)}"

    @property
    def architecture(self) -> str:
        """As the training's."""
        return self.run_of.architecture

    @property
    def recipe(self) -> Recipe:
        """As the training's."""
        return self.run_of.recipe

    @property
    def defences(self) -> tuple[Defence, ...]:
        """As the training's."""
        return self.run_of.defences

    @property
    def seed(self) -> int:
        """As the training's."""
        return self.run_of.seed

    @property
    def people(self) -> str:
        """As the training's."""
        return self.run_of.people

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:  # noqa: ARG002
        images, _, test = people(self.population.load(store), self.people)
        return described(self.load(store), images, test)


@dataclass(frozen=True)
class Checkpoint(Derived):
    """A copy that a target left behind on its way, as a target of its own."""

    place: int = 0  # among its `checkpoints`

    def __post_init__(self) -> None:
        kept = self.run_of.checkpoints
        if not 0 <= self.place < len(kept):
            raise UserError(f"{self.run_of.title} keeps {len(kept)} checkpoints; there is no number {self.place}")

    @property
    def title(self) -> str:
        """The defences, and when the copy was made."""
        return f"{self.run_of.title} at {self.moment}"

    @property
    def moment(self) -> CheckpointCriterion:
        """When the copy was made."""
        return self.run_of.checkpoints[self.place]

    def load(self, store: Store) -> Classifier:
        """The classifier as it was then."""
        return load(store.folder(self.run_of) / _kept(self.place))


@dataclass(frozen=True)
class Fused(Derived):
    """A trained network with its skips re-parameterised away, as it would be deployed (Koh et al., Sec. 4)."""

    @property
    def title(self) -> str:
        """The defences, and that it is fused."""
        return f"{self.run_of.title}, fused"

    def load(self, store: Store) -> Classifier:
        """The trained classifier with every re-parameterisable block as one convolution."""
        trained = self.run_of.load(store)
        return trained.with_net(fuse(trained.net))


@dataclass(frozen=True)
class Guarded(Derived):
    """A trained network behind what its API gives out; whoever attacks it gets no gradients."""

    behind: Guard = field(default_factory=LabelsOnly)

    @property
    def guard(self) -> Guard:
        """What the API gives out."""
        return self.behind

    @property
    def title(self) -> str:
        """The defences, and the guard."""
        return f"{self.run_of.title} behind {self.guard!r}"

    def load(self, store: Store) -> Classifier:
        """The network behind the guard."""
        return self.run_of.load(store)

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:  # noqa: ARG002
        images, _, test = people(self.population.load(store), self.people)
        target = self.load(store)
        oracle = Oracle(target, "labels", guard=guard_of(self, target, store))
        parts = torch.arange(len(test)).split(64)
        said = torch.cat([oracle.labels(test.floats(part, oracle.device)).cpu() for part in parts])
        right = said == test.labels.cpu()
        return described(target, images, test) | {
            "accuracy": float(right.double().mean()),
            "accuracy_of": per_class(right, test.labels, torch.arange(target.classes)).tolist(),
            "answered": float((said >= 0).double().mean()),
        }


def fresh(architecture: str, classes: int, size: int, seed: int, weights: Weights | None) -> Classifier:
    """A network before its training: drawn by the seed and, but for its last layer, as the file of weights has it."""
    with randomness.own(seed):
        classifier = build(architecture, classes, size)
    return begin(classifier, weights) if weights else classifier


Target = TrainTarget | Derived
Attacked = Target | Given | Surrogate | Undone  # whatever an attack may be run on


@overload
def run_of(target: Target) -> TrainTarget: ...
@overload
def run_of(target: Attacked) -> TrainTarget | Given | Surrogate | Undone: ...
def run_of(target: Attacked) -> TrainTarget | Given | Surrogate | Undone:
    """The training that a target comes from: itself, or that which it is derived of."""
    return target.run_of if isinstance(target, Derived) else target


def _kept(place: int) -> str:
    return f"checkpoint-{place}.safetensors"


def described(target: Classifier, images: Images, test: Images) -> dict[str, Any]:
    """What is said of a target before anyone attacks it."""
    right = answers(predict(target, test)) == test.labels
    seen, _ = accuracy_and_loss(target, images)
    return {
        "accuracy": float(right.double().mean()),
        "accuracy_of": per_class(right, test.labels, torch.arange(target.classes)).tolist(),
        "train_accuracy": seen,
        "test_images": len(test),
        "parameters": sum(p.numel() for p in target.net.parameters()),
        "surgery": target.recipe["surgery"],
        "best_epoch": target.record["best_epoch"],
        "epoch": target.record.get("epoch", target.record["best_epoch"]),
        "validation_accuracy": target.record["validation_accuracy"],
        "privacy": target.record.get("privacy"),
        "measured": {
            name: [entry[name] for entry in target.record["history"]]
            for name in target.record["history"][-1]
            if name not in ("loss", "validation", "validation_loss")
        },
    }


def digest(classifier: Classifier) -> str:
    """The sha256 of a classifier's weights and of what else decides its outputs, whenever and wherever it was made."""
    told = {name: value for name, value in classifier.recipe.items() if name != "record"}
    found = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name, tensor in sorted(classifier.net.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def people(population: Population, kind: str) -> tuple[Images, Images, Images]:
    """Training, validation and test images of the private people, or of as many public ones.

    Raises Absent where the public images are not of people with several pictures each.
    """
    if kind == "private":
        return population.train, population.validation, population.test
    if kind != "public":
        raise UserError(f"people are private or public, not {kind!r}")
    images = population.public.at(population.public.labels < population.classes)
    place = torch.zeros(len(images), dtype=torch.long)
    order = images.labels.argsort(stable=True)
    _, counts = images.labels.unique(return_counts=True)
    total = counts.repeat_interleave(counts)
    first = (counts.cumsum(0) - counts).repeat_interleave(counts)
    place[order] = (torch.arange(len(images)) - first) * 10 // total  # the tenth of its person's images
    parts = images.at(place < 7), images.at((place >= 7) & (place < 8)), images.at(place >= 8)
    if len(parts[0].labels.unique()) < 2 or not all(map(len, parts)):
        most = int(counts.max()) if len(counts) else 0
        who = f"{len(counts)} with at most {most} picture{'s' * (most != 1)} each" if most else "nobody"
        raise Absent(
            f"it is a network of other people, and of the public people ({who}) none can be trained and tested; "
            "it takes two, with some seven pictures each"
        )
    return parts
