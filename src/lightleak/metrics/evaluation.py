"""The record of what was measured on one reconstruction, and how to compare two of them person by person."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightleak.data.people import People
from lightleak.errors import UserError
from lightleak.files import parsed, publish
from lightleak.metrics import evidence
from lightleak.metrics.attribute_regressor import Quality
from lightleak.metrics.evidence import Comparison, Measure
from lightleak.metrics.registry import METRICS, shown_in

if TYPE_CHECKING:
    from pandas import DataFrame


UNANSWERED = "nothing came back of"  # begins a warning that a report, which counts everybody, need not repeat


@dataclass(frozen=True, repr=False)
class Evaluation:
    """All measures of one reconstruction; what could not be measured is None in `measures`, with a reason in `missing`.

    A measure is the mean over people of each person's mean over images; its interval speaks of other people.
    """

    classes: tuple[int, ...]  # who was attacked, ascending
    images: int
    measures: dict[str, Measure | None]  # every name in METRICS
    per_class: dict[str, tuple[float, ...]]  # metric -> one mean per person, in the order of `classes`
    chance: dict[str, float]  # what a random person or a guess scores, where that is known
    missing: dict[str, str]  # metric -> why it is None
    judge_accuracy: Measure  # natural, on the population's test images
    truth_from: str | None = None  # "latents", "images", or None without truth
    appraiser: Quality | None = None  # how good the factors from images are
    networks: dict[str, str] = field(default_factory=dict)  # judge, delta_face, fid: whose features
    threshold: float | None = None  # verification: RMS of canonical portraits
    families: tuple[int, ...] | None = None  # where people look alike: the family of each of `classes`
    family_match_rate: float | None = None  # verification takes so many look-alikes for the person
    family_chance: dict[str, float] = field(default_factory=dict)  # a random member of the right family
    ceiling: dict[str, Measure] = field(default_factory=dict)  # realism of as many held-out real pictures
    queries: int = 0
    seconds: float = 0.0
    nulls: dict[str, "Evaluation"] = field(default_factory=dict)  # the same scoring on what leaks nothing
    warnings: tuple[str, ...] = ()
    people: People | None = None  # whom the labels mean; None: an older record, or a null
    scored: dict[str, Any] = field(default_factory=dict)  # by which protocol, fed as which images, by whose conventions

    def __repr__(self) -> str:
        main = [(name, self.measures.get(name)) for name in ("hits@1", "verified")]
        told = [f"{METRICS[name].label} {measure.value:.1%}" for name, measure in main if measure]
        return f"Evaluation({', '.join([f'{len(self.classes)} people', f'{self.images} images', *told])})"

    def table(self) -> "DataFrame":
        """A row for each metric: label, value, low and high of its 95 % interval, chance, every null's value, and the
        reason where there is no number (NaN).
        """
        from pandas import DataFrame

        nulls = {f"null: {name}": null.measures for name, null in self.nulls.items()}
        rows = {
            name: {
                "label": METRICS[name].label if name in METRICS else name,
                **{end: _end(measure, end) for end in ("value", "low", "high")},
                "chance": self.chance.get(name, math.nan),
                **{null: _end(measures.get(name), "value") for null, measures in nulls.items()},
                "missing": self.missing.get(name, ""),
            }
            for name, measure in self.measures.items()
        }
        return DataFrame.from_dict(rows, orient="index").rename_axis("metric")

    def _repr_html_(self) -> str:
        shown = self.table().drop(columns="missing")
        shown = shown[shown["value"].notna()].set_index("label").rename_axis(None)
        said = "".join(f"<li>{escape(warning)}</li>" for warning in self.warnings)
        return f"<p>{escape(repr(self))}</p>{shown.to_html(float_format='{:.3f}'.format, na_rep='')}<ul>{said}</ul>"

    def to_json(self) -> dict[str, Any]:
        """The evaluation as JSON data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Evaluation":
        """The inverse of `to_json`; UserError if the data is something else."""
        try:
            fields = dict(data)
            fields["classes"] = tuple(fields["classes"])
            fields["measures"] = {k: _measure(v) for k, v in fields["measures"].items()}
            per_class = {k: tuple(v) for k, v in fields["per_class"].items()}
            # Like `evaluate`, without what some people have no number for.
            fields["per_class"] = {k: v for k, v in per_class.items() if all(map(_finite, v))}
            fields["judge_accuracy"] = Measure(**fields["judge_accuracy"])
            fields["appraiser"] = Quality(**fields["appraiser"]) if fields["appraiser"] else None
            fields["nulls"] = {k: cls.from_json(v) for k, v in fields["nulls"].items()}
            fields["ceiling"] = {k: Measure(**v) for k, v in fields.get("ceiling", {}).items()}
            fields["warnings"] = tuple(fields["warnings"])
            fields["families"] = tuple(fields["families"]) if fields.get("families") else None
            if fields.get("people") is not None:
                fields["people"] = People.from_json(fields["people"])
            return cls(**fields)
        except UserError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(f"this is no evaluation of this version ({error!r}); evaluate again") from error

    def save(self, path: str | Path) -> Path:
        """Write as a JSON file, whole or not at all."""
        text = json.dumps(self.to_json(), indent=1, allow_nan=False)
        return publish(path, lambda part: part.write_text(text, encoding="utf-8"), "the evaluation")

    @classmethod
    def load(cls, path: str | Path) -> "Evaluation":
        """Read what `save` wrote; UserError if it is something else."""
        try:
            return cls.from_json(parsed(Path(path).read_text(encoding="utf-8")))
        except UserError:
            raise
        except (OSError, ValueError, RecursionError) as error:  # also numbers of too many digits, and endless brackets
            raise UserError(f"{path} is no evaluation: {error}") from error


def _measure(data: Mapping[str, Any] | None) -> Measure | None:
    """A measure as it was written; None where its value is no finite number."""
    measure = Measure(**data) if data else None
    return measure if measure is not None and _finite(measure.value) else None


def _end(measure: Measure | None, name: str) -> float:
    """One number of a measure, NaN where there is none."""
    value = None if measure is None else getattr(measure, name)
    return math.nan if value is None else value


def _finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def difference(
    first: Evaluation | Sequence[Evaluation],
    second: Evaluation | Sequence[Evaluation],
    metric: str,
    rng: torch.Generator | None = None,  # noqa: ARG001
) -> Comparison | None:
    """`first` minus `second` in one metric over the people whom all of them attacked; None where one lacks the metric.

    Sequences are training seeds in the same order on both sides: then the interval speaks of other seeds as
    well. Where people look alike their families are the unit. `rng` is of older versions; nothing is drawn.
    """
    if metric not in METRICS:
        raise UserError(f"there is no metric '{metric}'; there are {', '.join(METRICS)}")
    left = [first] if isinstance(first, Evaluation) else list(first)
    right = [second] if isinstance(second, Evaluation) else list(second)
    if len(left) != len(right) or not left:
        raise UserError(f"a paired comparison needs the same seeds on both sides, got {len(left)} and {len(right)}")
    if any(metric not in e.per_class for e in (*left, *right)):
        return None
    people = sorted(set.intersection(*(set(e.classes) for e in (*left, *right))))
    if not people:
        return None

    tables = [table_of(side, metric, people) for side in (left, right)]
    clusters = families_of([*left, *right], people)
    return evidence.compare(tables[0], tables[1], rate=METRICS[metric].rate, clusters=clusters)


SURELY = 0.05  # a leak is shown where its p value is below
NOT_SHOWN = "is not shown to leak"


@dataclass(frozen=True)
class Unshown:
    """A measure that shows no leak: its hits among so many images are what a guess would get."""

    label: str
    hits: int
    trials: int
    chance: float  # of a hit
    p: float

    def __str__(self) -> str:
        return (
            f"{self.label} {NOT_SHOWN}: {self.hits} of {self.trials} images, by chance {self.chance:.3g} of each, "
            f"p = {self.p:.2g}"
        )


def not_shown(evaluations: Sequence[Evaluation]) -> list[Unshown]:
    """Each measure whose chance is known and that does not show a leak.

    The evaluations (of one target's trainings) are pooled: what each person scored in all of them, against the nominal
    rate.
    """
    told = []
    people = sorted(set().union(*(one.classes for one in evaluations)))
    for metric in shown_in("chance"):
        chance = [one.chance[metric] for one in evaluations if metric in one.chance and metric in one.per_class]
        if len(chance) < len(evaluations):
            continue
        trials = sum(one.images for one in evaluations)
        hits = round(sum(sum(one.per_class[metric]) * one.images / len(one.classes) for one in evaluations))
        rows = [dict(zip(one.classes, one.per_class[metric])) for one in evaluations]
        each = [[row[person] for row in rows if person in row] for person in people]
        shares = torch.tensor([sum(own) / len(own) for own in each], dtype=torch.float64)
        clusters = families_of(evaluations, people)
        p = evidence.shares_above_chance(shares, trials, sum(chance) / len(chance), clusters)
        if p >= SURELY:
            told.append(Unshown(METRICS[metric].label, hits, trials, chance[0], p))
    return told


def says_not_shown(warning: str) -> bool:
    """Whether a warning of an evaluation is one of these, or of older versions' kind, which pooling replaces."""
    return NOT_SHOWN in warning or warning.endswith("it shows no leak")


def table_of(evaluations: Sequence[Evaluation], metric: str, people: Sequence[int]) -> Tensor:
    """What each of the `people` scored in each evaluation: S x C, float64."""
    rows = [dict(zip(one.classes, one.per_class[metric])) for one in evaluations]
    return torch.tensor([[row[person] for person in people] for row in rows], dtype=torch.float64)


def families_of(evaluations: Sequence[Evaluation], people: Sequence[int]) -> Tensor | None:
    """The family of each of the `people`, C; None where nobody is known to look like anybody else."""
    known = [dict(zip(one.classes, one.families)) for one in evaluations if one.families is not None]
    if len(known) < len(evaluations):
        return None
    together = {person: family for one in reversed(known) for person, family in one.items()}
    return torch.tensor([together[person] for person in people])
