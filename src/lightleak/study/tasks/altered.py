"""Trained targets after training: retrofitted by their owner, or changed or copied by an attacker."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightleak import defences
from lightleak.attacks import Access, Oracle
from lightleak.attacks.adaptive import Way, undone
from lightleak.attacks.surrogate import Lessons, copied
from lightleak.attacks.votes import by_vote
from lightleak.defences import Defence, RoLSS
from lightleak.defences.retrofit import protect
from lightleak.errors import UserError
from lightleak.models.classifier import Classifier, load, save
from lightleak.study.amounts import Amount, rough
from lightleak.study.task import Absent, Progress, Store
from lightleak.study.tasks.targets import Derived, described, people
from lightleak.study.tasks.work import counts, guard_of, learnt_from


@dataclass(frozen=True)
class Retrofitted(Derived):
    """A trained target after skip surgery and its recovery from itself, see `defences.retrofit`."""

    gpus = 1.0
    by: tuple[Defence, ...] = (RoLSS(),)
    epochs: int | None = None  # None: a tenth of those that the target took

    @property
    def title(self) -> str:
        """The defences, and a note that they came afterwards."""
        return " + ".join(map(defences.title, (*self.run_of.defences, *self.by))) + ", retrofitted"

    @property
    def defences(self) -> tuple[Defence, ...]:
        """The training's, and what came afterwards."""
        return (*self.run_of.defences, *self.by)

    @property
    def cost(self) -> float:
        return 0.15 * (self.run_of.cost or 0.0)

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:
        images, validation, test = people(self.population.load(store), self.people)
        original = self.run_of.load(store)
        result = protect(
            original, images, validation, self.by, recipe=self.recipe, epochs=self.epochs, seed=self.seed,
            folder=store.scratch(self), watch=watch,
        )  # fmt: skip
        save(result, folder / "target.safetensors")
        return described(result, images, test)

    def load(self, store: Store) -> Classifier:
        """The network that has recovered."""
        return load(store.folder(self) / "target.safetensors")


@dataclass(frozen=True)
class Altered(Derived):
    """A trained target as an attacker who holds its weights can change it, see `attacks.adaptive`."""

    way: Way = "mean draw"

    @property
    def title(self) -> str:
        """The defences, and what was done about them."""
        return f"{self.run_of.title}, {self.way}"

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:
        try:
            self.load(store)
        except UserError as error:
            raise Absent(str(error)) from None
        return super().run(store, folder, watch)

    def load(self, store: Store) -> Classifier:
        """The changed network."""
        return undone(self.run_of.load(store), self.way)


@dataclass(frozen=True)
class Copied(Derived):
    """A network that learnt of public images to answer as a trained target does, behind its guard if it has one."""

    gpus = 1.0
    access: Access = "labels"
    student: str = "timm:resnet18"
    lessons: Lessons = field(default_factory=lambda: Lessons(pretrained=False))

    @property
    def title(self) -> str:
        """The defences, and of what the copy learnt."""
        return f"{self.run_of.title}, a copy by its {self.access}{by_vote(self.lessons.votes)}"

    def amounts(self) -> tuple[Amount, ...]:
        """Its training on all public images."""
        seen = counts(self.population)
        return () if seen is None else learnt_from(seen, self.student, self.lessons.epochs, self.lessons.batch)

    @property
    def cost(self) -> float:
        return rough(self.amounts()) or 3.0 * self.lessons.epochs

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:
        population, target = self.population.load(store), self.run_of.load(store)
        oracle = Oracle(target, self.access, guard=guard_of(self.run_of, target, store))
        more = {"folder": store.scratch(self), "tell": watch}
        copy, _ = copied(oracle, population.public, self.student, self.lessons, self.seed, **more)
        copy.record = {"best_epoch": self.lessons.epochs, "validation_accuracy": None, "history": [{}]}
        save(copy, folder / "target.safetensors")
        images, _, test = people(population, self.people)
        return described(copy, images, test)

    def load(self, store: Store) -> Classifier:
        """The copy."""
        return load(store.folder(self) / "target.safetensors")
