"""What an attacker makes of a target, trained or given: a defence undone in its weights, or a copy of its answers."""

from pathlib import Path
from typing import Protocol

from torch import Tensor

from lightleak.attacks import Access, Guard, Oracle
from lightleak.attacks.adaptive import Way, undone
from lightleak.attacks.surrogate import Lessons, copied
from lightleak.attacks.votes import by_vote
from lightleak.data.outlook import Outlook
from lightleak.data.population import Images
from lightleak.models.classifier import Classifier, load, save
from lightleak.study.amounts import Amount
from lightleak.study.task import Progress, Store, Task
from lightleak.study.tasks.populations import Draw
from lightleak.study.tasks.work import Behind, Repeating, guard_of, learnt_from

COPY = "target.safetensors"


class AnyTarget(Behind, Protocol):
    """A target that an attacker queries, or whose weights he holds."""

    @property
    def title(self) -> str: ...

    def load(self, store: Store) -> Classifier: ...


class OfTarget(Task):
    """A target that comes of another one."""

    gpus = 1.0

    @property
    def original(self) -> AnyTarget:
        """The target that it comes of."""
        raise NotImplementedError(f"{type(self).__name__} does not say of which target it comes")

    @property
    def guard(self) -> Guard | None:
        """Of the API that it stands behind: none."""
        return None

    @property
    def population(self) -> Draw:
        """As the original's."""
        return self.original.population

    @property
    def title(self) -> str:
        """What a table calls it."""
        raise NotImplementedError(f"{type(self).__name__} has no title")

    @property
    def cost(self) -> float | None:
        return 1.0

    def load(self, store: Store) -> Classifier:
        """The classifier."""
        raise NotImplementedError(f"{type(self).__name__} has no load(store)")


class Undoing(OfTarget):
    """A target with a defence undone by somebody who holds its weights, see `attacks.adaptive`."""

    way: Way
    uncut: str | None = None  # the architecture before surgery, where the target does not say it

    @property
    def title(self) -> str:
        """The original's, and what was done about its defences."""
        return f"{self.original.title}, {self.way}"

    def load(self, store: Store) -> Classifier:
        """The changed network."""
        return undone(self.original.load(store), self.way, self.uncut)


class Copying(Repeating, OfTarget):
    """A network that learns to answer public images as a target does, of what `access` grants, behind its guard."""

    access: Access
    lessons: Lessons
    student: str  # its architecture
    seed: int

    @property
    def title(self) -> str:
        """Of what it learnt."""
        return f"a copy by its {self.access}{by_vote(self.lessons.votes)}"

    @property
    def pictures(self) -> Draw:
        """Of the public people."""
        return self.population

    def repeated(self, seen: Outlook) -> tuple[Amount, ...]:
        """Its training on all public images."""
        return learnt_from(seen, self.student, self.lessons.epochs, self.lessons.batch)

    def learn(self, public: Images, store: Store, watch: Progress) -> tuple[Classifier, Tensor, Oracle]:
        """The copy, what it was told of the public images, N x C, and who told it."""
        target = self.original.load(store)
        oracle = Oracle(target, self.access, guard=guard_of(self.original, target, store))
        more = {"folder": store.scratch(self), "tell": watch}
        return *copied(oracle, public, self.student, self.lessons, self.seed, **more), oracle

    def keep(self, copy: Classifier, folder: Path) -> None:
        """Write the copy where `load` finds it."""
        save(copy, folder / COPY)

    def load(self, store: Store) -> Classifier:
        """The copy."""
        return load(store.folder(self) / COPY)
