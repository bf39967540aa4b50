"""The record of an evaluation: one typed, versioned schema, written and read here alone.

Version 1 (Lightleak 0.1 and 0.2) named the prior by its class and left the attack's seed, classes and knowledge out.
It is read as far as it goes; what it left out comes from the specifications in its store, where they are still there.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from lightleak.errors import UserError
from lightleak.files import parsed
from lightleak.metrics.evaluation import Evaluation
from lightleak.study.keys import keyed_in, plain
from lightleak.study.protocols import Protocol
from lightleak.study.task import ABSENT, Task
from lightleak.study.whole import MADE, RESULT, check_file

VERSION = 2
SPEC = "spec.json"  # in the folder of every finished task

Fields = Mapping[str, Any]  # of a frozen dataclass, as JSON data
Kind = TypeVar("Kind")


@dataclass(frozen=True)
class TargetRecord:
    """The attacked network: how it came about, and what it is good for."""

    title: str  # as tables name it
    key: str
    seed: int
    architecture: str
    recipe: Fields
    accuracy: float  # natural, on the private people's test images
    accuracy_of: tuple[float, ...]  # the same, person by person; NaN: without test images
    test_images: int
    surgery: tuple[Fields, ...] = ()  # steps
    defences: Mapping[str, Fields] = field(default_factory=dict)  # by the defence's class
    moment: Fields | None = None  # of a checkpoint: when it was left behind
    run: str = ""  # title of the training that it comes from
    train_accuracy: float | None = None
    validation_accuracy: float | None = None
    parameters: int | None = None
    best_epoch: int | None = None
    epoch: int | None = None
    privacy: Fields | None = None  # epsilon and delta, where a defence promises them
    measured: Mapping[str, Any] = field(default_factory=dict)  # by epoch, what the defences' terms came to


@dataclass(frozen=True)
class PopulationRecord:
    """The people."""

    key: str
    name: str
    size: int
    classes: int
    class_names: tuple[str, ...]
    images: Mapping[str, int] = field(default_factory=dict)  # by set
    settings: Fields = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class AttackRecord:
    """The attack, with all that decides its result besides target and prior."""

    name: str  # its class
    title: str = ""  # as its author writes it, if that is not the class
    settings: Fields = field(default_factory=dict)
    seed: int | None = None  # None: not recorded (version 1)
    classes: tuple[int, ...] | None = None  # None: all
    knowledge: Fields | None = None  # settings and seed of what it learnt beforehand


@dataclass(frozen=True)
class PriorRecord:
    """What the attack searched in."""

    name: str  # its task's class
    settings: Fields | None = None  # None: not recorded (version 1)


@dataclass(frozen=True)
class JudgeRecord:
    """The evaluation model."""

    architecture: str
    accuracy: float  # natural, on the same test images
    sha256: str = ""  # of its weights and recipe: equal judges of two stores share it
    loss: float | None = None
    test_images: int | None = None


@dataclass(frozen=True)
class Record:
    """One evaluation, with the whole of the task that led to it."""

    target: TargetRecord
    population: PopulationRecord
    attack: AttackRecord
    prior: PriorRecord
    judge: JudgeRecord
    evaluation: Evaluation
    confidence: tuple[float, ...]  # the target's own, image by image, best first within each class
    protocol: Protocol | None = None
    absent: Mapping[str, str] = field(default_factory=dict)  # nulls that these data do not allow, and why
    beforehand: int = 0  # queries of what was learnt before the attack
    # Of a search by queries: queries of a person and the target's best confidence so far, mean over people.
    search: tuple[tuple[float, float], ...] = ()
    task: str = ""  # "Evaluate/KEY"
    specs: Mapping[str, Fields] = field(default_factory=dict)  # of this task and all in its fields, by "NAME/KEY"
    version: int = VERSION

    def to_json(self) -> dict[str, Any]:
        """The record as JSON data."""
        return plain(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Record":
        """The inverse of `to_json`, of this or an older version; UserError if the data is something else."""
        version = data.get("version", 1) if isinstance(data, Mapping) else None
        if not isinstance(version, int) or version > VERSION:
            raise UserError(f"this record is of version {version}, known are 1 to {VERSION}; use a newer Lightleak")
        data = _from_version_1(data) if version < 2 else dict(data)
        evaluation, protocol = data.pop("evaluation", None), data.pop("protocol", None)
        if not isinstance(evaluation, Mapping):
            raise UserError("this is no record of an evaluation (it holds no 'evaluation')")
        for part, name in ((data, "confidence"), (data.get("target"), "accuracy_of")):
            if isinstance(part, dict) and isinstance(part.get(name), list):
                part[name] = [math.nan if value is None else value for value in part[name]]
        protocol = None if protocol is None else _typed(protocol, Protocol)
        return _typed({**data, "version": VERSION}, _Rest).record(Evaluation.from_json(evaluation), protocol)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Every setting of the evaluation and of all that it rests on, flat: "found attack steps" is 70.

        Tasks and settings are named by their classes. Empty where the specifications were not recorded.
        """
        return dict(_flat("", {"task": self.task}, self.specs)) if self.task in self.specs else {}


@dataclass(frozen=True)
class _Rest:
    """A record without what has readers of its own."""

    target: TargetRecord
    population: PopulationRecord
    attack: AttackRecord
    prior: PriorRecord
    judge: JudgeRecord
    confidence: tuple[float, ...]
    absent: Mapping[str, str] = field(default_factory=dict)
    beforehand: int = 0
    search: tuple[tuple[float, float], ...] = ()
    task: str = ""
    specs: Mapping[str, Fields] = field(default_factory=dict)
    version: int = VERSION

    def record(self, evaluation: Evaluation, protocol: Protocol | None) -> Record:
        return Record(**vars(self), evaluation=evaluation, protocol=protocol)


@dataclass(frozen=True)
class CostsRecord:
    """What one defence costs: ratios to the undefended network (Costs), and what its target is worth (Utility)."""

    title: str
    training: float | None = None
    answering: float | None = None
    parameters: float | None = None
    memory: float | None = None
    robust: float | None = None
    calibration: float | None = None
    population: str = ""  # key
    architecture: str = ""


@dataclass(frozen=True)
class SharesRecord:
    """How much of the gradient came through skips, as a GradientShares task measured it."""

    title: str
    architecture: str
    stages: Mapping[str, float]
    population: str = ""  # key
    seed: int = 0


@dataclass(frozen=True)
class Made:
    """How a task's result came about."""

    seconds: float = 0.0  # of computing
    finished: str = ""  # date and time, UTC
    machine: str = ""
    device: str = ""
    commit: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] | None = None  # "NAME/KEY"; None: of the oldest records
    cost: float | None = None
    bytes: int | None = None


def read(folder: Path) -> Record:
    """The record of the evaluation in a task's folder; UserError if it is not whole."""
    data = _result(folder)
    if isinstance(data, Mapping) and ABSENT in data and "evaluation" not in data:
        raise UserError(f"{folder} is an evaluation that these data do not allow: {data[ABSENT]}")
    with_specs = "specs" in data if isinstance(data, Mapping) else False
    try:
        found = Record.from_json(data)
    except UserError as error:
        raise UserError(f"{folder / RESULT}: {error}") from None
    return found if with_specs else _completed(found, folder)


def why_absent(folder: Path) -> str | None:
    """Why the data do not allow the evaluation in a task's folder; None if they do. UserError if it is not whole."""
    data = _result(folder)
    if isinstance(data, Mapping) and ABSENT in data and "evaluation" not in data:
        return str(data[ABSENT])
    return None


def read_costs(folder: Path) -> CostsRecord:
    """The record of the Costs task in a folder; UserError if it is not whole."""
    return _of(folder, CostsRecord)


def read_shares(folder: Path) -> SharesRecord:
    """The record of the GradientShares task in a folder; UserError if it is not whole."""
    return _of(folder, SharesRecord)


def read_made(folder: Path) -> Made:
    """How the result in a task's folder came about; UserError if that is not known."""
    made = _typed(_json(folder / MADE), Made)
    return made if made.needs is not None else replace(made, needs=tuple(_named(_json(folder / SPEC))))


def specs_of(task: Task) -> dict[str, dict[str, Any]]:
    """The specifications of a task and of all tasks in its fields, by "NAME/KEY"."""
    found: dict[str, dict[str, Any]] = {}
    look = [task]
    while look:
        one = look.pop()
        if (name := f"{one.name}/{one.key}") not in found:
            found[name] = one.spec
            look += [need for need in keyed_in(tuple(one.keyed().values())) if isinstance(need, Task)]
    return found


def _result(folder: Path) -> Any:
    """What is in a finished task's result.json."""
    file = folder / RESULT
    check_file(file)
    try:
        return parsed(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{folder} holds no finished evaluation ({error}); run the study again") from None


def _json(file: Path) -> Any:
    try:
        return parsed(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read ({error})") from None


def _of(folder: Path, kind: type[Kind]) -> Kind:
    try:
        return _typed(_result(folder), kind)
    except UserError as error:
        raise UserError(f"{folder / RESULT}: {error}") from None


def _typed(data: Any, kind: type[Kind]) -> Kind:
    """JSON data as a dataclass; unknown names are passed over, so that a newer record can be read."""
    try:
        return msgspec.convert(data, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise UserError(f"this is no {_word(kind)} ({error})") from None


def _word(kind: type) -> str:
    return {"_Rest": "record of an evaluation", "Protocol": "protocol"}.get(kind.__name__, "record of this kind")


def _from_version_1(data: Mapping[str, Any]) -> dict[str, Any]:
    """A record of version 1 in the form of version 2."""
    data = dict(data)
    attack, prior = data.get("attack"), data.get("prior")
    if isinstance(attack, Mapping):
        settings = {name: value for name, value in attack.items() if name not in ("name", "title")}
        data["attack"] = {"name": attack.get("name"), "title": attack.get("title", ""), "settings": settings}
    if isinstance(prior, str):
        data["prior"] = {"name": prior}
    return data


def _completed(found: Record, folder: Path) -> Record:
    """A record of version 1 with the specifications that its store still holds."""
    root, name = folder.parent.parent, f"{folder.parent.name}/{folder.name}"
    specs: dict[str, Any] = {}
    look = [name]
    while look:
        one = look.pop()
        if one in specs:
            continue
        try:
            specs[one] = parsed((root / one / SPEC).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return found  # moved here alone: it says less
        look += _named(specs[one])
    return replace(found, task=name, specs=specs)


def _named(value: Any) -> Iterator[str]:
    """The tasks that a specification names."""
    if isinstance(value, Mapping):
        own = value.get("task")
        if isinstance(own, str) and set(value) == {"task"}:
            yield own
        for item in value.values():
            yield from _named(item)
    elif isinstance(value, list):
        for item in value:
            yield from _named(item)


def _flat(name: str, value: Any, specs: Mapping[str, Fields]) -> Iterator[tuple[str, Any]]:
    """A specification's settings by the way that leads to them."""
    if isinstance(value, list):
        if any(isinstance(item, Mapping | list) for item in value):
            for place, item in enumerate(value):
                yield from _flat(f"{name} {place + 1}", item, specs)
        yield name, value if not any(isinstance(item, Mapping | list) for item in value) else len(value)
        return
    if not isinstance(value, Mapping):
        yield name, value
        return
    if set(value) == {"task"} and isinstance(value["task"], str):
        kind, inside = value["task"].partition("/")[0], specs.get(value["task"], {}).get("fields", {})
        if name:
            yield name, kind
    elif set(value) == {"dict"}:
        inside = value["dict"]
    elif set(value) == {"float"}:
        yield name, float(value["float"])
        return
    else:  # a dataclass by its class; until 0.2 without a version
        ((kind, inside),) = value.items() if len(value) == 1 else ((value.get("class", ""), value.get("fields", {})),)
        yield name, kind
    for inner, item in inside.items():
        yield from _flat(f"{name} {inner}".strip(), item, specs)
