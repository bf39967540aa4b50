"""What is measured of an attack, and what is measured once for all attacks."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file

from lightleak.attacks import Reconstruction
from lightleak.data.outlook import Outlook
from lightleak.errors import UserError
from lightleak.fingerprint import weights_of
from lightleak.metrics import attribute_regressor as regressors
from lightleak.metrics import truth
from lightleak.metrics.attribute_regressor import AttributeRegressor
from lightleak.metrics.evaluate import Reference, evaluate, reference
from lightleak.metrics.knowledge import extracted, teach
from lightleak.metrics.recognition import rows_of
from lightleak.models.classifier import Classifier, load, save
from lightleak.models.facenet import facenet
from lightleak.models.inception import inception
from lightleak.models.weight_files import Weights
from lightleak.study.amounts import Amount, rough
from lightleak.study.keys import plain
from lightleak.study.protocols import Protocol
from lightleak.study.record import (
    AttackRecord,
    JudgeRecord,
    PopulationRecord,
    PriorRecord,
    Record,
    TargetRecord,
    specs_of,
)
from lightleak.study.task import Progress, Store, Task
from lightleak.study.tasks.attacks import Invert
from lightleak.study.tasks.given import Given, Surrogate, Undone
from lightleak.study.tasks.judges import Judge, ReadyJudge, looked_at
from lightleak.study.tasks.populations import Draw
from lightleak.study.tasks.priors import Ready
from lightleak.study.tasks.targets import Checkpoint, digest, run_of
from lightleak.study.tasks.work import REST, Repeating, learnt_from
from lightleak.training import RECIPES, Recipe

STRANGERS = 1000  # whom `truth.yardstick` paints
MEASURED = Amount("rest", 2.5)  # what an evaluation takes beside what it looks at: distances, intervals, reading all


def kept_of(found: Invert, seen: Outlook) -> int:
    """Images that an attack returns."""
    return found.people_of(seen) * found.attack.keep


@dataclass(frozen=True)
class FitAttributeRegressor(Task):
    """A network that reads identity factors off images, for reconstructions that were not rendered."""

    known_as: ClassVar[str] = "FitAppraiser"  # in keys
    gpus = 1.0
    settings: regressors.Fit = regressors.Fit()  # noqa: RUF009

    @property
    def label(self) -> str:
        return "fit the attribute regressor"

    def amounts(self) -> tuple[Amount, ...]:
        """Faces that are painted for its training and its quality, and a stranger for each of the yardstick's."""
        painted = self.settings.steps * self.settings.batch + 2 * self.settings.images + STRANGERS
        return (Amount("paint", painted, size=truth.SIZE), REST)

    @property
    def cost(self) -> float:
        return rough(self.amounts())

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:  # noqa: ARG002
        regressor = regressors.fit_attribute_regressor(self.settings, watch)
        regressors.save(regressor, folder / "appraiser.safetensors")
        return {"quality": asdict(regressor.quality) if regressor.quality else None}

    def load(self, store: Store) -> AttributeRegressor:
        """The fitted regressor with its own error."""
        return regressors.load(store.folder(self) / "appraiser.safetensors")


@dataclass(frozen=True)
class MeasurePrivate(Repeating):
    """Features and accuracies of private images under the judge and other networks, once for all evaluations."""

    gpus = 1.0
    judge: Judge
    inception: Weights | None = None
    face: Weights | None = None
    published: bool = False

    @property
    def label(self) -> str:
        return "measure the private images"

    @property
    def pictures(self) -> Draw:
        """Of the people whom the judge knows."""
        return self.judge.population

    def repeated(self, seen: Outlook) -> tuple[Amount, ...]:
        """The judge's look at training and test images, and the other networks' at the former."""
        others = [*(["torchvision:inception_v3"] if self.inception else []), *(["timm:resnet18"] if self.face else [])]
        more = tuple(Amount("look", seen.images["train"], one, 299, 1000, 64) for one in others)
        return (*looked_at(self.judge, seen, seen.images["train"] + seen.images["test"]), *more, REST)

    def brings(self) -> dict[str, Callable[[], str]]:
        """The networks for delta_face and FID."""
        found: dict[str, Callable[[], str]] = {}
        if (face := self.face) is not None:
            found["face"] = lambda: facenet(face).title
        if (realism := self.inception) is not None:
            found["inception"] = lambda: inception(realism, self.published).title
        return found

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:  # noqa: ARG002
        known = reference(
            self.judge.load(store),
            self.judge.population.load(store),
            face_embedding=facenet(self.face) if self.face else None,
            inception=inception(self.inception, self.published) if self.inception else None,
        )
        known.save(folder / "reference.safetensors")
        return {"judge_accuracy": asdict(known.judge_accuracy), "networks": known.networks, "images": len(known.labels)}

    def needs(self) -> tuple[Task, ...]:
        """Its fields, and what the judge was trained on."""
        return (*super().needs(), self.judge.population)

    def load(self, store: Store) -> Reference:
        """What was measured."""
        return Reference.load(store.folder(self) / "reference.safetensors")


@dataclass(frozen=True)
class Student:
    """The network that is taught by reconstructions; the knowledge extraction score is its accuracy."""

    architecture: str = "timm:resnet50"
    recipe: Recipe = RECIPES["student"]
    pretrained: bool = False  # the published score starts from ImageNet's weights
    seed: int = 0


@dataclass(frozen=True)
class Teach(Repeating):
    """A student that learns from the reconstructions of one inversion, and nothing else."""

    gpus = 1.0
    found: Invert
    student: Student = Student()

    @property
    def label(self) -> str:
        return f"teach a student {self.found.outcome}"

    @property
    def pictures(self) -> Draw:
        """Of the people whom it is tested on."""
        return self.found.target.population

    def repeated(self, seen: Outlook) -> tuple[Amount, ...]:
        """The student's training."""
        how, kept = self.student.recipe, kept_of(self.found, seen)
        return learnt_from(seen, self.student.architecture, how.epochs, how.batch, kept)

    def needs(self) -> tuple[Task, ...]:
        """Its fields, and the people whom the student is tested on."""
        return (*super().needs(), self.found.target.population)

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:
        population, found, how = self.found.target.population.load(store), self.found.load(store), self.student
        taught = teach(
            found,
            population.classes,
            how.architecture,
            how.recipe,
            pretrained=how.pretrained,
            seed=how.seed,
            folder=store.scratch(self),
            watch=watch,
        )
        save(taught, folder / "student.safetensors")
        return {"knowledge": float(extracted(taught, population, found.classes.unique()).nanmean())}

    def load(self, store: Store) -> Classifier:
        """The student."""
        return load(store.folder(self) / "student.safetensors")


@dataclass(frozen=True)
class Evaluate(Repeating):
    """Everything measured on one inversion, by a judge unknown to the attacker and, where it is known, by the truth."""

    gpus = 1.0
    found: Invert
    judge: Judge
    nulls: Mapping[str, Invert] = field(default_factory=dict)
    appraiser: FitAttributeRegressor | None = None
    protocol: Protocol | None = None  # whom, how often and by whom: checked, and recorded beside the numbers
    inception: Weights | None = None  # for FID, precision, recall, density, coverage; the judge's features always serve
    face: Weights | None = None  # FaceNet, for delta_face
    student: Student | None = None  # for the knowledge extraction score, also of the nulls
    published: bool = False  # PPA's conventions for FID, precision, recall, density and coverage

    def needs(self) -> tuple[Task, ...]:
        """Its fields, and what it reads of their own needs."""
        target = self.found.target
        students = (self._teach(found) for found in (self.found, *self.nulls.values()) if self.student)
        return (*super().needs(), target, run_of(target), target.population, self.found.prior, self.private, *students)

    def spare(self) -> tuple[Task, ...]:
        """The nulls, and the students that they teach."""
        nulls = tuple(self.nulls.values())
        return (*nulls, *(self._teach(null) for null in nulls if self.student))

    @property
    def private(self) -> MeasurePrivate:
        """What is measured on private images."""
        return MeasurePrivate(self.judge, self.inception, self.face, self.published)

    def _teach(self, found: Invert) -> Teach:
        return Teach(found, self.student or Student())

    @property
    def label(self) -> str:
        return f"evaluate {self.found.outcome}"

    @property
    def pictures(self) -> Draw:
        """Of the target's people."""
        return self.found.target.population

    def repeated(self, seen: Outlook) -> tuple[Amount, ...]:
        """The judge's look at all images that were kept, also of the nulls, and at as many real ones.

        A prior that draws larger ones than are kept draws them once more. Where the truth is known, it is painted.
        """
        prior, kept, sets = self.found.prior, kept_of(self.found, seen), 1 + len(self.nulls)
        looks = looked_at(self.judge, seen, (sets + 1) * kept)
        if isinstance(prior, Ready):
            looks = tuple(replace(one, prior=prior.key, sketch=prior.sketch) for one in looks)
        if self.pictures.source != "faces":
            return (*looks, MEASURED)
        return (*looks, Amount("paint", (sets + 2) * (seen.people + kept), size=truth.SIZE), MEASURED)

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:
        target = self.found.target
        population = target.population.load(store)
        found = self.found.load(store)
        if isinstance(self.judge, ReadyJudge):  # which may be the target's own file; one that is trained here is not
            found = found.with_fields(target=weights_of(target.load(store).net))
        prior = self.found.prior.load(store)
        judge = self.judge.load(store)
        absent = {name: why for name, null in self.nulls.items() if (why := store.absent(null))}
        nulls = {name: null for name, null in self.nulls.items() if name not in absent}
        if self.protocol is not None:
            attempts = self.found.attack.attempts
            self.protocol.check(found.classes, population.classes, judge.architecture, judge.size, attempts)
        evaluation = evaluate(
            found,
            judge,
            population,
            prior=prior,
            attribute_regressor=self.appraiser.load(store) if self.appraiser else None,
            face_embedding=facenet(self.face) if self.face else None,
            inception=inception(self.inception, self.published) if self.inception else None,
            student=self._teach(self.found).load(store) if self.student else None,
            nulls={name: null.load(store) for name, null in nulls.items()},
            null_students={name: self._teach(null).load(store) for name, null in nulls.items() if self.student},
            known=self.private.load(store),
            published=self.published,
            fed_8_bit=self.protocol is not None and self.protocol.fed == "8-bit",
            rng=torch.Generator().manual_seed(self.found.seed),
            watch=watch,
        )
        best = found.best(1)
        first = [int(rows[0]) for rows in rows_of(population.train.labels, best.classes)]
        save_file(
            {
                "classes": best.classes,
                "private": population.train.pixels[first],
                "reconstructed": best.bytes(),
            },
            folder / "gallery.safetensors",
        )
        return Record(
            target=self._target(store),
            population=PopulationRecord(
                key=target.population.key,
                settings=plain(target.population.settings),
                **_tuples(store.result(target.population)),
            ),
            attack=AttackRecord(
                name=type(self.found.attack).__name__,
                title=self.found.attack.title,
                settings=plain(self.found.attack),
                seed=self.found.seed,
                classes=self.found.classes,
                knowledge=self.found.knowledge
                and plain({"settings": self.found.knowledge.settings, "seed": self.found.knowledge.seed}),
            ),
            prior=PriorRecord(type(self.found.prior).__name__, _settings(self.found.prior)),
            judge=JudgeRecord(architecture=self.judge.architecture, sha256=digest(judge), **store.result(self.judge)),
            evaluation=evaluation,
            confidence=tuple(found.confidence.tolist()),
            protocol=self.protocol,
            absent=absent,
            beforehand=found.beforehand,
            search=_search(found),
            task=f"{self.name}/{self.key}",
            specs=specs_of(self),
        ).to_json()

    def _target(self, store: Store) -> TargetRecord:
        target = self.found.target
        if isinstance(target, Given | Surrogate | Undone):
            raise UserError(f"a study evaluates what it trained, not {target.title}; 'lightleak audit' measures that")
        return TargetRecord(
            title=target.title,
            key=target.key,
            seed=target.seed,
            architecture=target.architecture,
            recipe=plain(target.recipe),
            moment=plain(target.moment) if isinstance(target, Checkpoint) else None,
            run=run_of(target).title,
            defences={type(defence).__name__: plain(defence) for defence in target.defences},
            **_tuples(store.result(target)),
        )


def _search(found: Reconstruction) -> tuple[tuple[float, float], ...]:
    """Queries of a person and the best confidence so far, mean over people; empty where nobody recorded them."""
    curve = found.per_class.get("curve")
    return () if curve is None or not len(curve) else tuple((a, b) for a, b in curve.double().mean(0).tolist())


def _tuples(result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in result.items()}


def _settings(task: Task) -> dict[str, Any]:
    """The fields of a task that are no tasks."""
    return {name: plain(value) for name, value in task.keyed().items() if not isinstance(value, Task)}
