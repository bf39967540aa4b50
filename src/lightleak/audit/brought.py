"""A model that somebody brings, held against the pictures of the people it is said to know, before anything else."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from lightleak.audit import photographs
from lightleak.data.population import Images, Population
from lightleak.errors import UserError
from lightleak.metrics.calibration import calibration
from lightleak.metrics.evidence import Measure
from lightleak.models import normalisation
from lightleak.models.classifier import Classifier
from lightleak.models.normalisation import HALF, IMAGENET, NONE
from lightleak.models.own import is_checkpoint, made, opened, unwrapped
from lightleak.models.trial import Item
from lightleak.ranking import answers
from lightleak.training import predict

USUAL = {"ImageNet's": IMAGENET, "0.5 and 0.5 (to [-1, 1])": HALF, "none ([0, 1] as it is)": NONE}
SURELY_REORDERED = 0.8  # of pictures that another order of the names would explain
KNOWS = 0.5  # of training pictures; below, the model is said not to know these people


@dataclass(frozen=True)
class Brought:
    """Where a model lies and how it is read; what nobody stated is None."""

    file: str  # a checkpoint of ours, or weights
    net: str | None = None  # FILE.py:NAME
    size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    entry: str | None = None
    output: Item = None  # which of several outputs holds the logits

    def open(self) -> Classifier:
        """The classifier."""
        return opened(
            self.net, self.file, size=self.size, mean=self.mean, std=self.std, entry=self.entry, output=self.output
        )


@dataclass(frozen=True)
class Examined:
    """What the pictures say of a model."""

    seen: Measure  # accuracy on the pictures that count as its training's, averaged over people
    held_out: Measure | None  # on all others
    calibration_error: float | None  # expected, on held-out pictures (OWASP AISVS 11.2.3)
    overconfidence: float | None  # mean confidence in its answer less accuracy, there
    mean: tuple[float, ...]
    std: tuple[float, ...]
    normalised: str  # who said so
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    right: tuple[float | None, ...] = field(default=())  # of each person's pictures, the share that it names

    @property
    def knows(self) -> bool:
        """Whether it names more of its training pictures right than a guess would, surely."""
        return (self.seen.low or 0.0) > 1 / max(len(self.right), 1)


@contextmanager
def estimating() -> Iterator[None]:
    """While a normalisation is being estimated, do not log that one is assumed."""

    def not_guessed(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(normalisation.GUESSED)

    log = logging.getLogger("lightleak")
    log.addFilter(not_guessed)
    try:
        yield
    finally:
        log.removeFilter(not_guessed)


def normalised(brought: Brought, population: Population) -> tuple[Brought, str, tuple[str, ...]]:
    """The model with its normalisation stated, who said so, and warnings: estimated where neither says.

    The estimate is the one of three usual ones by which it names most pictures right; by some other order of the names,
    where that makes more than twice as many right: the names may be in another order than the model's.
    """
    if brought.mean is not None:
        return brought, "stated by its owner", ()
    if brought.net is None or is_checkpoint(brought.file):
        return brought, "stated in the checkpoint", ()
    if not normalisation.of(unwrapped(made(brought.net))).assumed:
        return brought, "stated by the network itself", ()
    images = _some(population.train)
    found: dict[str, Brought] = {}
    said: dict[str, Tensor] = {}
    for name, (mean, std) in USUAL.items():
        channels = brought.open().reading.channels
        found[name] = replace(brought, mean=mean[:channels], std=std[:channels])
        said[name] = answers(predict(found[name].open(), images))
    right = {name: float((one == images.labels).double().mean()) for name, one in said.items()}
    tables = {name: _matched(one, images.labels, population.classes) for name, one in said.items()}
    matched = {name: float(table[pairs].sum()) / len(images) for name, (table, pairs) in tables.items()}
    best, order = max(matched, key=lambda name: matched[name]), ""
    if matched[best] > 2 * right[best]:
        right, order = matched, " in the best order of the names"
    ranked = sorted(right, key=lambda name: -right[name])
    told = ", ".join(f"{name} {right[name]:.0%}" for name in ranked) + order
    sure = right[ranked[0]] - right[ranked[1]] > 2 / len(images)
    warning = () if sure else (
        f"nobody stated the model's normalisation and the pictures do not tell it (right answers: {told}); "
        f"{ranked[0]} was taken. State it with --mean and --std",
    )  # fmt: skip
    return found[ranked[0]], f"estimated by accuracy on {len(images)} pictures ({told})", warning


def examine(classifier: Classifier, population: Population, said: str, out: Path) -> Examined:
    """The model's accuracy on their pictures; UserError if it has other classes, or the same in another order."""
    names = population.class_names
    if classifier.classes != len(names):
        raise UserError(
            f"the model gives {classifier.classes} classes, the pictures {len(names)} people ({names[0]!r} ...); "
            "list all its classes with --classes, in its order, or bring the weights that belong to these people"
        )
    everything = [population.train, population.validation, population.test, population.judge]
    held = Images(
        torch.cat([images.pixels for images in everything[1:]]), torch.cat([i.labels for i in everything[1:]])
    )
    if not len(held):
        raise UserError(
            f"all {len(population.train)} pictures are on the list of the model's training: none is left for judges "
            "and recogniser; add pictures of these people that it was not trained on"
        )
    seen, rest = predict(classifier, population.train), predict(classifier, held)
    if not seen.isfinite().all():
        raise UserError("the model gives NaN or infinity for these pictures; check its weights and normalisation")
    labels = torch.cat([population.train.labels, held.labels])
    said_labels = answers(torch.cat([seen, rest]))
    _check_order(said_labels, labels, names, out)
    right = said_labels == labels
    notes, warnings = list(classifier.notes), []
    accuracy = photographs.measured(right[: len(seen)], population.train.labels, population.families)
    assert accuracy is not None  # a population has pictures to train with
    if accuracy.value < KNOWS:
        warnings.append(
            f"The model names only {accuracy.value:.0%} of a person's training pictures right on average: it does not "
            "know these people under these names, or its images are normalised otherwise than in training. Check "
            "--weights, --classes, --mean and --std first: little can leak of people whom a model does not know."
        )
    error, over = calibration(rest, held.labels)
    return Examined(
        accuracy, photographs.measured(right[len(seen) :], held.labels, population.families), error, over,
        classifier.mean, classifier.std, said, tuple(notes), tuple(warnings),
        tuple(photographs.by_person(right, labels, len(names))),
    )  # fmt: skip


def _check_order(said: Tensor, labels: Tensor, names: tuple[str, ...], out: Path) -> None:
    """UserError, and a file with the order that fits, if the names are plainly in another order than the model's."""
    table, (rows, columns) = _matched(said, labels, len(names))
    best, given = int(table[rows, columns].sum()) / len(labels), int(table.diagonal().sum()) / len(labels)
    if best < SURELY_REORDERED or given > best / 2:
        return
    order = sorted(range(len(names)), key=lambda person: int(columns[person]))
    out.mkdir(parents=True, exist_ok=True)
    file = out / "names-in-the-models-order.txt"
    file.write_text("".join(f"{names[person]}\n" for person in order), encoding="utf-8")
    raise UserError(
        f"the classes are in another order than the model's: as listed it names {given:.0%} of the pictures right, in "
        f"another order {best:.0%}; that order is in {file}, pass it with --classes"
    )


def _matched(said: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, tuple[Any, Any]]:
    """How often people (rows) were given each answer (columns), and who each answer means so that most are right."""
    valid = (said >= 0) & (said < classes)
    table = torch.zeros(classes, classes, dtype=torch.int64)
    table.index_put_((labels[valid], said[valid]), torch.ones(int(valid.sum()), dtype=torch.int64), accumulate=True)
    return table, linear_sum_assignment(table.numpy(), maximize=True)


def _some(images: Images, most: int = 400) -> Images:
    """At most so many pictures, evenly over all."""
    step = max(1, len(images) // most)
    return images.at(torch.arange(0, len(images), step))
