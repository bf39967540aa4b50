"""Networks that were not trained here: a user's own, and what an attacker makes of it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch

from lightleak.attacks import Access, Guard
from lightleak.attacks.adaptive import Way
from lightleak.attacks.surrogate import Lessons
from lightleak.errors import UserError
from lightleak.fingerprint import LATER
from lightleak.models.classifier import Classifier
from lightleak.models.own import opened
from lightleak.models.trial import Item
from lightleak.models.weight_files import Weights
from lightleak.priors.fit.state import answers as answers_to
from lightleak.ranking import agreement_of, named, tally
from lightleak.study.task import Progress, Store, Task
from lightleak.study.tasks.attackers import AnyTarget, Copying, Undoing
from lightleak.study.tasks.populations import Draw


@dataclass(frozen=True)
class Given(Task):
    """A network in a file, with the Python that makes it if it is the user's own, behind what its API gives out."""

    population: Draw  # of the people that it knows
    weights: str  # sha256 of the file
    source: str = ""  # sha256 of the Python file that makes it
    size: int | tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    entry: str | None = None
    guard: Guard | None = None
    output: Item = field(default=None, metadata=LATER)  # which of several outputs holds the logits
    net: str | None = field(default=None, compare=False)  # FILE.py:NAME
    file: str = field(default="", compare=False)  # the weights' place
    architecture: ClassVar[str] = ""  # which no name says
    seed: ClassVar[int] = 0

    @property
    def title(self) -> str:
        """What a table calls it."""
        return "the model"

    @property
    def label(self) -> str:
        return "read the model"

    @property
    def cost(self) -> float:
        return 1.0

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:  # noqa: ARG002
        classifier = self.load(store)
        return {"classes": classifier.classes, "size": classifier.size, "notes": list(classifier.notes)}

    def load(self, store: Store) -> Classifier:  # noqa: ARG002
        """The network, read where it lies; UserError if that is another one by now."""
        found = Weights.of(self.file).sha256
        if found != self.weights:
            raise UserError(f"{self.file} holds other weights than the audit was planned with ({found[:12]})")
        return opened(
            self.net, self.file, size=self.size, mean=self.mean, std=self.std, entry=self.entry, output=self.output
        )


@dataclass(frozen=True)
class Undone(Undoing):
    """A target with a defence undone by somebody who holds its weights, see `attacks.adaptive`."""

    target: AnyTarget
    way: Way
    uncut: str | None = None  # the architecture before surgery, where the target does not say it
    seed: int = 0
    architecture: ClassVar[str] = ""

    @property
    def original(self) -> AnyTarget:
        """The target whose defence is undone."""
        return self.target

    @property
    def label(self) -> str:
        return f"undo {self.way} of {self.target.title}"

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:  # noqa: ARG002
        return {"classes": self.load(store).classes}


@dataclass(frozen=True)
class Surrogate(Copying):
    """A network that answers public images as the target does, learnt of what `access` grants."""

    target: AnyTarget
    access: Access
    architecture: str
    lessons: Lessons = Lessons(pretrained=False)
    seed: int = 0

    @property
    def original(self) -> AnyTarget:
        """The target that it learns of."""
        return self.target

    @property
    def student(self) -> str:
        """Its architecture."""
        return self.architecture

    def needs(self) -> tuple[Task, ...]:
        """Its target, and whose public images it learns from."""
        return (*super().needs(), self.target.population)

    @property
    def label(self) -> str:
        return f"learn from the model's {self.access}"

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:
        public = self.population.load(store).public
        copy, said, oracle = self.learn(public, store, watch)
        self.keep(copy, folder)
        with torch.no_grad():
            theirs = answers_to(copy, public, device=oracle.device).cpu()
        return {
            "queries": oracle.queries,
            "images": len(public),
            "agreement": agreement_of(theirs, said),
            "histogram": tally(named(said), oracle.classes).tolist(),
        }
