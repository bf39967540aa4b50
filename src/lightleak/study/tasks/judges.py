"""Who judges: a network that a study trains, or one that the user brings."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from lightleak.data.outlook import Outlook
from lightleak.errors import UserError
from lightleak.fingerprint import LATER
from lightleak.models import whose, zoo
from lightleak.models.classifier import Classifier, load, save
from lightleak.models.header import read_header
from lightleak.models.weight_files import Weights
from lightleak.place import here
from lightleak.study.amounts import Amount
from lightleak.study.task import Progress, Store
from lightleak.study.tasks.populations import Draw
from lightleak.study.tasks.targets import fresh
from lightleak.study.tasks.work import REST, Repeating, counts, parameters, short, size_of, trained_on
from lightleak.training import RECIPES, Recipe, accuracy_and_loss, train


@dataclass(frozen=True)
class TrainJudge(Repeating):
    """Another architecture, trained on other images of the same people; it never meets an attack."""

    gpus = 1.0
    population: Draw
    architecture: str = "timm:resnet14t"
    recipe: Recipe = RECIPES["judge"]
    seed: int = 1000
    size: int | None = None  # pixels a side that it sees; None: those of the images, or the only ones that it takes
    weights: Weights | None = field(default=None, metadata=LATER)  # that it begins with, see `models.starting`

    @property
    def label(self) -> str:
        return f"train the judge {short(self.architecture)}"

    @property
    def pictures(self) -> Draw:
        """Of the people whom it knows."""
        return self.population

    def repeated(self, seen: Outlook) -> tuple[Amount, ...]:
        """Its training."""
        return trained_on(seen, "judge", self.architecture, self.size, self.recipe)

    def begins(self) -> tuple[tuple[str, Weights, int | None], ...]:
        """Its network, if that begins with a file."""
        return ((self.architecture, self.weights, self.side or size_of(self.population)),) if self.weights else ()

    @property
    def room(self) -> int:
        """The network."""
        return 4 * parameters(self.architecture, self.size or size_of(self.population))

    @property
    def side(self) -> int | None:
        """Pixels a side that it sees, if that is not those of the images."""
        return self.size or zoo.only_size(self.architecture)

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:
        population = self.population.load(store)
        size = self.side or population.size
        classifier = fresh(self.architecture, population.classes, size, self.seed, self.weights)
        scratch = store.scratch(self)
        trained = train(
            classifier,
            population.judge,
            population.validation,
            self.recipe,
            seed=self.seed,
            folder=scratch,
            watch=watch,
        )
        save(whose.name(trained, population), folder / "target.safetensors")
        right, loss = accuracy_and_loss(trained, population.test)
        return {"accuracy": right, "loss": loss, "test_images": len(population.test)}

    def load(self, store: Store) -> Classifier:
        """The trained judge."""
        return load(store.folder(self) / "target.safetensors")


@dataclass(frozen=True)
class ReadyJudge(Repeating):
    """A judge in a checkpoint of Lightleak's, such as `lightleak convert` makes of a published evaluation model."""

    gpus = 1.0
    population: Draw  # by whose test images its accuracy is measured
    weights: Weights  # the file
    architecture: str
    side: int = field(default=0, compare=False)  # pixels a side that it sees
    seed: ClassVar[int] = 0

    @property
    def label(self) -> str:
        return f"try the judge {short(self.architecture)}".rstrip()

    @property
    def pictures(self) -> Draw:
        """Of the people whom it knows."""
        return self.population

    def repeated(self, seen: Outlook) -> tuple[Amount, ...]:
        """A look at the test images."""
        return (*looked_at(self, seen, seen.images["test"]), REST)

    def brings(self) -> dict[str, Callable[[], str]]:
        """The judge."""
        return {"judge": self._described}

    def _described(self) -> str:
        judge, seen = self.load(None), counts(self.population)
        if seen is not None and judge.classes != seen.people:
            raise UserError(f"{self.weights.path} knows {judge.classes} classes, the data has {seen.people} people")
        return f"{self.architecture} at {judge.size} pixels, {judge.classes} classes, {self.weights.title}"

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:  # noqa: ARG002
        population, judge = self.population.load(store), self.load(store)
        if judge.classes != population.classes:
            raise UserError(
                f"the judge {self.weights.path} knows {judge.classes} classes, {population.name} has "
                f"{population.classes} people"
            )
        right, loss = accuracy_and_loss(judge, population.test)
        return {"accuracy": right, "loss": loss, "test_images": len(population.test)}

    def load(self, store: Store | None) -> Classifier:  # noqa: ARG002
        """The judge, read where it lies; UserError if that is another one by now."""
        if Weights.of(self.weights.path) != self.weights:
            raise UserError(f"{self.weights.path} holds another judge than the study was planned with")
        return here().put(load(self.weights.path))


Judge = TrainJudge | ReadyJudge


def looked_at(judge: Judge, seen: Outlook, images: float) -> tuple[Amount, ...]:
    """A judge's look at so many images; () of a network that nobody can build before its file is read."""
    if ":" not in judge.architecture:
        return ()
    return (Amount("look", images, judge.architecture, judge.side or seen.size, seen.people, 64),)


def ready_judge(population: Draw, path: str | Path) -> ReadyJudge:
    """The judge in a checkpoint; UserError if it is none of Lightleak's."""
    header = read_header(path)
    return ReadyJudge(population, Weights.of(path), header.architecture or "a network of its own", header.size)
