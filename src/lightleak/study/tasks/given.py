"""Networks that were not trained here: a user's own, and what an attacker makes of it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch

from lightleak.attacks import Access, Guard, Oracle
from lightleak.attacks.adaptive import Way, undone
from lightleak.attacks.surrogate import Lessons, copied
from lightleak.attacks.votes import by_vote
from lightleak.data.outlook import Outlook
from lightleak.errors import UserError
from lightleak.fingerprint import LATER
from lightleak.models.classifier import Classifier, load, save
from lightleak.models.own import opened
from lightleak.models.trial import Item
from lightleak.models.weight_files import Weights
from lightleak.priors.fit.state import answers as answers_to
from lightleak.ranking import agreement_of, answers
from lightleak.study.amounts import Amount
from lightleak.study.task import Progress, Store, Task
from lightleak.study.tasks.populations import Draw
from lightleak.study.tasks.work import Repeating, guard_of, learnt_from


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


class AnyTarget(Protocol):
    """A target that an attacker queries, or whose weights he holds."""

    @property
    def title(self) -> str: ...

    @property
    def guard(self) -> Guard | None: ...

    @property
    def population(self) -> Draw: ...

    def load(self, store: Store) -> Classifier: ...


@dataclass(frozen=True)
class Undone(Task):
    """A target with a defence undone by somebody who holds its weights, see `attacks.adaptive`."""

    target: AnyTarget
    way: Way
    uncut: str | None = None  # the architecture before surgery, where the target does not say it
    seed: int = 0
    architecture: ClassVar[str] = ""

    @property
    def guard(self) -> Guard | None:
        """Of the API that it stands behind: none."""
        return None

    @property
    def population(self) -> Draw:
        """As the target's."""
        return self.target.population

    @property
    def label(self) -> str:
        return f"undo {self.way} of {self.target.title}"

    @property
    def title(self) -> str:
        """What a table calls it."""
        return f"{self.target.title}, {self.way}"

    @property
    def cost(self) -> float:
        return 1.0

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:  # noqa: ARG002
        return {"classes": self.load(store).classes}

    def load(self, store: Store) -> Classifier:
        """The changed network."""
        return undone(self.target.load(store), self.way, self.uncut)


@dataclass(frozen=True)
class Surrogate(Repeating):
    """A network that answers public images as the target does, learnt of what `access` grants."""

    target: AnyTarget
    access: Access
    architecture: str
    lessons: Lessons = Lessons(pretrained=False)  # noqa: RUF009
    seed: int = 0
    gpus = 1.0

    @property
    def guard(self) -> Guard | None:
        """Of the API that it stands behind: none."""
        return None

    @property
    def population(self) -> Draw:
        """As the target's."""
        return self.target.population

    def needs(self) -> tuple[Task, ...]:
        """Its target, and whose public images it learns from."""
        return (*super().needs(), self.target.population)

    @property
    def label(self) -> str:
        return f"learn from the model's {self.access}"

    @property
    def title(self) -> str:
        """What a table calls it."""
        return f"a copy by its {self.access}{by_vote(self.lessons.votes)}"

    @property
    def pictures(self) -> Draw:
        """Of the public people."""
        return self.population

    def repeated(self, seen: Outlook) -> tuple[Amount, ...]:
        """Its training on all public images."""
        return learnt_from(seen, self.architecture, self.lessons.epochs, self.lessons.batch)

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:
        public, target = self.population.load(store).public, self.target.load(store)
        oracle = Oracle(target, self.access, guard=guard_of(self.target, target, store))
        more = {"folder": store.scratch(self), "tell": watch}
        student, said = copied(oracle, public, self.architecture, self.lessons, self.seed, **more)
        save(student, folder / "target.safetensors")
        with torch.no_grad():
            theirs = answers_to(student, public, device=oracle.device).cpu()
        named = answers(said)
        return {
            "queries": oracle.queries,
            "images": len(public),
            "agreement": agreement_of(theirs, said),
            "histogram": torch.bincount(named[named >= 0], minlength=target.classes).tolist(),
        }

    def load(self, store: Store) -> Classifier:
        """The copy."""
        return load(store.folder(self) / "target.safetensors")
