"""The data of a report: plain data that any study can fill in and JSON can hold."""

import dataclasses
import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeGuard

import numpy as np

from lightleak.errors import UserError
from lightleak.files import parsed
from lightleak.metrics.evidence import Measure
from lightleak.report.remarks import sorted_out
from lightleak.report.whose import OfWhom

MISSING = "–"  # what stands where a number could not be computed

Picture = Path | bytes | np.ndarray  # an image file, its bytes, or H x W x 3 uint8


@dataclass(frozen=True)
class Column:
    """One metric: how to write it and how to read it."""

    name: str  # the key in Row.measures
    label: str
    meaning: str = ""  # one clause
    leak: int = 0  # 1: more is a worse leak, -1: less is, 0: neither
    rate: bool = False  # a share in [0, 1], written in percent
    explanation: str = ""  # a paragraph for readers who are new to it
    signed: bool = False  # a difference: written with its sign
    words: str = ""  # what it is to somebody who does not know its name, such as "recognised by the judge"
    essential: bool = False  # stands in the first table, beside few others


@dataclass(frozen=True)
class Row:
    """One line of the main table: a target, a null, or chance."""

    name: str
    measures: Mapping[str, Measure | None]  # by column name; None or absent: could not be measured
    kind: Literal["target", "reference", "null", "chance"] = "target"  # a reference differs in more than its defence
    detail: str = ""  # what it is, in a few words
    missing: Mapping[str, str] = field(default_factory=dict)  # column name: why there is no number


@dataclass(frozen=True)
class Difference:
    """A paired difference, target minus baseline, in one metric."""

    row: str
    column: str
    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    corrected: float | None = None  # p by Holm's method, over the targets that were tried in this column
    trainings: int = 0  # of each side; 0: not known (older records)
    worlds: int = 0  # 0: all in one world

    @property
    def units(self) -> int:
        """What speaks of the defence and not of these networks: trainings in each world or, if that is one, worlds."""
        return max(self.worlds, self.trainings)


@dataclass(frozen=True)
class Point:
    """A checkpoint of a target, or its final state, with its accuracy and its leaks."""

    accuracy: Measure
    leaks: Mapping[str, Measure]  # by column name


@dataclass(frozen=True)
class Level:
    """A target and the baseline compared at one natural accuracy, by one leak."""

    row: str
    column: str
    accuracy: float
    target: Measure
    baseline: Measure
    difference: Measure  # target minus baseline
    p: float | None = None  # of the difference; None also where it may not be named
    trainings: int = 0
    worlds: int = 0  # as of a difference


@dataclass(frozen=True)
class Verdict:
    """What attackers who know a defence, and those who do not, show of it by one measure; see `report.knowing`."""

    row: str
    column: str  # the measure
    word: str  # real, hiding, a trade, cannot be told
    p: float | None = None  # corrected for all verdicts by this measure
    # The strongest attack on it minus the strongest on the undefended network, at equal natural accuracy.
    against: Difference | None = None


@dataclass(frozen=True)
class Frame:
    """One reconstruction in the gallery."""

    picture: Picture
    confidence: float | None = None  # the target's own confidence
    verified: bool | None = None  # whether it is the person, by the truth


@dataclass(frozen=True)
class Portrait:
    """One person of the gallery."""

    name: str
    private: Picture | None
    frames: Mapping[str, Frame]  # by row name


@dataclass(frozen=True)
class Results:
    """Everything a page shows. Texts are plain text; whatever they hold is escaped."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    summary: str = ""  # what was done and what came out, in one or two sentences
    baseline: str = ""  # the row that differences are taken against
    differences: tuple[Difference, ...] = ()
    curves: Mapping[str, tuple[Point, ...]] = field(default_factory=dict)  # by row: its checkpoints by accuracy
    searches: Mapping[str, Any] = field(default_factory=dict)  # by row, by attack: (queries, best confidence so far)
    levels: tuple[Level, ...] = ()  # at equal natural accuracy
    verdicts: tuple[Verdict, ...] = ()  # on defences that were attacked by those who know them
    sentences: tuple[str, ...] = ()  # which say the same, one for each defence
    unequal: tuple[str, ...] = ()  # in what references differ from the targets
    runs: Mapping[str, Mapping[str, tuple[float, ...]]] = field(default_factory=dict)  # by row, by column: every seed
    swept: str = ""  # the setting that some targets differ in, such as "SSF factor"
    sweep: Mapping[str, float] = field(default_factory=dict)  # by row: its value
    shares: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # by row, by stage: gradient through skips
    primary: tuple[str, ...] = ()  # columns that the study declared to be its measure before it ran
    # By row, by column: the values behind it, seeds x people attacked; of a natural accuracy NaN without test images.
    tables: Mapping[str, Any] = field(default_factory=dict)
    families: tuple[int, ...] = ()  # of the people of `tables`, where some look alike
    whose: Mapping[str, OfWhom] = field(default_factory=dict)  # by row: of whom its numbers speak
    utility: str = "accuracy"  # the column of the horizontal axis of the trade-off figures
    leaks: tuple[str, ...] = ()  # columns of their vertical axes; default: the first two with leak = 1
    confidences: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # by row: P(y|x*) of each image
    gallery: tuple[Portrait, ...] = ()
    gallery_note: str = ""  # how these people and images were chosen
    warnings: tuple[str, ...] = ()
    footnotes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by column: below the table of differences
    notes: tuple[str, ...] = ()
    raters: tuple[str, ...] = ()  # what people who looked at pairs of images preferred, in sentences
    recipe: Mapping[str, Any] = field(default_factory=dict)  # nested settings
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    date: str = ""
    machine: str = ""
    device: str = ""  # what it was computed on
    commit: str = ""  # of the source; "+changes" where files differed from it
    protocol: str = ""  # by whose name the numbers were counted
    seconds: float | None = None  # of computing, all machines together

    def __post_init__(self) -> None:
        names = [row.name for row in self.rows]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UserError(f"expected one row for each name, got several called {', '.join(twice)}")
        known = {column.name for column in self.columns}
        strange = {one.column for one in (*self.differences, *self.levels)} | set(self.leaks)
        strange |= {name for points in self.curves.values() for point in points for name in point.leaks}
        strange |= {name for row in self.rows for name in row.measures} | set(self.footnotes)
        if strange - known:
            raise UserError(f"there is no column for {', '.join(sorted(strange - known))}; add it to columns")
        lost = (
            {one.row for one in (*self.differences, *self.levels, *self.verdicts)}
            | set(self.confidences)
            | set(self.curves)
        )
        lost |= set(self.whose) | set(self.runs) | set(self.sweep) | set(self.shares) | set(self.searches)
        lost |= {name for portrait in self.gallery for name in portrait.frames}
        if lost - set(names):
            raise UserError(f"there is no row called {', '.join(sorted(lost - set(names)))}; rows: {names}")

    def column(self, name: str) -> Column | None:
        """The column of this name."""
        return next((column for column in self.columns if column.name == name), None)

    def targets(self) -> tuple[Row, ...]:
        """The rows that are targets, not nulls or chance."""
        return tuple(row for row in self.rows if row.kind == "target")

    def drawn_leaks(self) -> tuple[Column, ...]:
        """The leaks that get a trade-off figure."""
        if self.leaks:
            return tuple(column for column in self.columns if column.name in self.leaks)
        measured = {name for row in self.targets() for name, m in row.measures.items() if m is not None}
        return tuple(c for c in self.columns if c.leak == 1 and c.name in measured)[:2]

    def to_json(self) -> dict[str, Any]:
        """The record of the study: all of it but the pictures."""
        data = _plain({item.name: getattr(self, item.name) for item in dataclasses.fields(self)})
        del data["gallery"]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Results":
        """The inverse of `to_json`; UserError if the data is something else."""
        try:
            fields = dict(data)
            fields["columns"] = columns = tuple(Column(**column) for column in fields["columns"])
            if "footnotes" not in fields:
                headings = {column.name: column.label for column in columns}
                fields["warnings"], fields["footnotes"] = sorted_out(fields.get("warnings", ()), headings)
            fields["footnotes"] = {name: tuple(texts) for name, texts in fields["footnotes"].items()}
            fields["rows"] = tuple(_row(row) for row in fields["rows"])
            fields["differences"] = tuple(Difference(**one) for one in fields.get("differences", ()))
            fields["confidences"] = {
                name: tuple(math.nan if value is None else value for value in values)
                for name, values in fields.get("confidences", {}).items()
            }
            fields["curves"] = {
                name: tuple(
                    Point(Measure(**p["accuracy"]), {k: Measure(**v) for k, v in p["leaks"].items()}) for p in row
                )
                for name, row in fields.get("curves", {}).items()
            }
            fields["runs"] = {
                row: {name: tuple(values) for name, values in columns.items()}
                for row, columns in fields.get("runs", {}).items()
            }
            fields["whose"] = {row: OfWhom(**told) for row, told in fields.get("whose", {}).items()}
            fields["levels"] = tuple(map(_level, fields.get("levels", ())))
            fields["verdicts"] = tuple(map(_verdict, fields.get("verdicts", ())))
            for name in ("leaks", "sentences", "warnings", "notes", "raters", "unequal", "primary", "families"):
                fields[name] = tuple(fields.get(name, ()))
            return cls(**fields)
        except UserError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(f"this is no record of a study ({error!r}); make the report again") from None


def read(path: Path | str) -> Results:
    """A record that `write` left, without its gallery; UserError if it is something else."""
    try:
        return Results.from_json(parsed(Path(path).read_text(encoding="utf-8")))
    except UserError:
        raise
    except (OSError, ValueError, RecursionError) as error:  # also numbers of too many digits, and endless brackets
        raise UserError(f"{path} is no record of a study: {error}") from None


def _row(data: Mapping[str, Any]) -> Row:
    measures = {name: Measure(**one) if one else None for name, one in data["measures"].items()}
    return Row(**{**data, "measures": measures})


def _point(data: Mapping[str, Any]) -> Point:
    return Point(Measure(**data["accuracy"]), {name: Measure(**one) for name, one in data["leaks"].items()})


def _level(data: Mapping[str, Any]) -> Level:
    measures = {name: Measure(**data[name]) for name in ("target", "baseline", "difference")}
    return Level(**{**data, **measures})


def _verdict(data: Mapping[str, Any]) -> Verdict:
    against = data.get("against")
    return Verdict(**{**data, "against": Difference(**against) if against else None})


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Portrait):
        return None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if isinstance(value, Measure) and not known(value.value):
            return None
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def known(value: float | None) -> TypeGuard[float]:
    """Whether a value is a number."""
    return value is not None and math.isfinite(value)


def counted(count: int, what: str) -> str:
    """So many of something: "one training", "3 trainings"."""
    return f"one {what}" if count == 1 else f"{count} {what}s"


def number(value: float | None, column: Column, sign: bool = False) -> str:
    """A value as the tables write it: percent with one decimal for a rate, else three digits; a dash if missing."""
    if value is None or not math.isfinite(value):
        return MISSING
    if column.rate:
        text = f"{100 * value:.1f}"
    elif abs(value) >= 100:
        text = f"{value:.0f}"
    else:
        text = f"{value:.{1 if abs(value) >= 10 else 2}f}"
    if not any(digit in "123456789" for digit in text):
        return text.removeprefix("-")
    return ("+" if sign and not text.startswith("-") else "") + text.replace("-", "−")


def span(low: float | None, high: float | None, column: Column, sign: bool = False) -> str:
    """An interval as the tables write it, or nothing."""
    if low is None or high is None or not known(low) or not known(high):
        return ""
    return f"{number(low, column, sign)} to {number(high, column, sign)}"


def short_span(low: float | None, high: float | None, column: Column) -> str:
    """An interval for narrow places: a rate without decimals."""
    if low is None or high is None or not known(low) or not known(high):
        return ""
    ends = [f"{100 * end:.0f}".replace("-0", "0") if column.rate else number(end, column) for end in (low, high)]
    return ("–" if low >= 0 else " to ").join(ends).replace("-", "−")


def heading(column: Column) -> str:
    """The column's label with its unit."""
    return clean(f"{column.label}, %" if column.rate else column.label)


def clean(text: str) -> str:
    """One line without control characters: names come from folders, and folders may be called anything."""
    return " ".join(visible(text).split())


def visible(text: str) -> str:
    """The text without control characters, direction marks and the like; white space becomes blanks."""
    kept = (" " if character.isspace() else character for character in str(text))
    return "".join(c for c in kept if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn"))
