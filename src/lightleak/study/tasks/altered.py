"""Trained targets after training: retrofitted by their owner, or changed or copied by an attacker."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightleak import defences
from lightleak.attacks import Access
from lightleak.attacks.adaptive import Way
from lightleak.attacks.surrogate import Lessons
from lightleak.defences import Defence, RoLSS
from lightleak.defences.retrofit import protect
from lightleak.errors import UserError
from lightleak.models.classifier import Classifier, load, save
from lightleak.study.task import Absent, Progress, Store
from lightleak.study.tasks.attackers import Copying, Undoing
from lightleak.study.tasks.targets import Derived, described, people


@dataclass(frozen=True)
class Retrofitted(Derived):
    """A trained target after skip surgery and its recovery from itself, see `defences.retrofit`."""

    version = 2  # 1 left batch norm with averages of the network before it had recovered
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
class Altered(Undoing, Derived):
    """A trained target as an attacker who holds its weights can change it, see `attacks.adaptive`."""

    way: Way = "mean draw"

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:
        try:
            self.load(store)
        except UserError as error:
            raise Absent(str(error)) from None
        return super().run(store, folder, watch)


@dataclass(frozen=True)
class Copied(Copying, Derived):
    """A network that learnt of public images to answer as a trained target does, behind its guard if it has one."""

    access: Access = "labels"
    student: str = "timm:resnet18"
    lessons: Lessons = field(default_factory=lambda: Lessons(pretrained=False))

    @property
    def title(self) -> str:
        """The defences, and of what the copy learnt."""
        return f"{self.run_of.title}, {super().title}"

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:
        population = self.population.load(store)
        copy, *_ = self.learn(population.public, store, watch)
        copy.record = {"best_epoch": self.lessons.epochs, "validation_accuracy": None, "history": [{}]}
        self.keep(copy, folder)
        images, _, test = people(population, self.people)
        return described(copy, images, test)
