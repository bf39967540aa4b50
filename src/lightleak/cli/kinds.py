"""Requirements of arguments beyond their types, stated in annotations and checked before anything heavy is imported."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from lightleak.errors import UserError, nearest
from lightleak.models import named
from lightleak.shipped import study_file

Listed = Callable[[str, str], list[str] | None]  # the names in a table of a module; None if nobody can say


@dataclass(frozen=True)
class There:
    """A path that must exist."""

    what: str  # it is, for the error
    words: tuple[str, ...] = ()  # that may stand in its place
    file: bool = True  # no folder

    def check(self, flag: str, value: Any, listed: Listed) -> None:  # noqa: ARG002
        path = Path(value).expanduser()
        if value not in self.words and not path.exists():
            words = f"; {flag} is {', '.join(map(repr, self.words))} or a path" if self.words else ""
            raise UserError(f"there is no {self.what} {value}{words}")
        if value not in self.words and self.file and path.is_dir():
            raise UserError(f"{flag} is a file, and {value} is a folder")


@dataclass(frozen=True)
class Ours:
    """A study: a file, or the name of one that comes with Lightleak."""

    def check(self, flag: str, value: Any, listed: Listed) -> None:  # noqa: ARG002
        study_file(value)


@dataclass(frozen=True)
class AtLeast:
    """A number with a lower bound."""

    least: int

    def check(self, flag: str, value: Any, listed: Listed) -> None:  # noqa: ARG002
        if value < self.least:
            raise UserError(f"{flag} must be at least {self.least}, not {value}")


@dataclass(frozen=True)
class Named:
    """A name, or several, of a registry; its module is read, not imported."""

    module: str
    registry: str  # or a table, or several, joined by "+"
    what: str
    others: tuple[str, ...] = ()  # words beside the registry's names
    several: bool = False  # separated by commas, in any case
    after: Literal["", "path"] = ""  # what may follow behind a colon: a path where something must be

    def check(self, flag: str, value: Any, listed: Listed) -> None:
        tables = [listed(self.module, each) for each in self.registry.split("+")]
        if None in tables:
            return
        known = [*self.others, *(name for table in tables for name in table or ())]
        for word in value.lower().split(",") if self.several else [value]:
            name, _, rest = word.partition(":") if self.after else (word.strip() if self.several else word, "", "")
            if name not in known and (name or not self.several):
                hint = (
                    f"; for your own images write folder:{value}"
                    if self.after == "path" and Path(value).is_dir()
                    else nearest(name, known)
                )
                raise UserError(f"there is no {self.what} {name!r}; choose one of {', '.join(known)}{hint}")
            if self.after == "path" and rest and not Path(rest).expanduser().exists():
                raise UserError(f"there is nothing at {rest}, where {flag} {value} looks for pictures")


@dataclass(frozen=True)
class Within:
    """A number above (or from) one bound up to another."""

    low: float
    high: float
    how: str
    open: bool = True  # the low bound is none of them

    def check(self, flag: str, value: Any, listed: Listed) -> None:  # noqa: ARG002
        if not (self.low < value if self.open else self.low <= value) or not value <= self.high:
            raise UserError(f"{flag} is {self.how}, not {value:g}")


@dataclass(frozen=True)
class Network:
    """A network by its library and name; with `others` also a pattern, FILE.py:NAME, or the path of a checkpoint."""

    others: bool = False

    def check(self, flag: str, value: Any, listed: Listed) -> None:
        own = listed("lightleak.models.face", "FACE_MODELS") or []
        if self.others and "*" in value:
            named.check_pattern(value, own)
        elif self.others and named.is_spec(value):
            named.file_and_name(value)
        elif self.others and ":" not in value:
            There("checkpoint").check(flag, value, listed)
        elif not (self.others and Path(value).exists()):
            named.check(value, own)


@dataclass(frozen=True)
class Written:
    """A text of a certain form."""

    form: str  # a regular expression
    what: str
    how: str

    def check(self, flag: str, value: Any, listed: Listed) -> None:  # noqa: ARG002
        if not re.fullmatch(self.form, value):
            raise UserError(f"there is no {self.what} {value!r}; {flag} is {self.how}")


DECLARED = ("called", "release", "consent", "special_category")  # arguments that are words, whatever they say
MARKS = There | Ours | AtLeast | Within | Named | Network | Written
Device = Annotated[str, Written("auto|cpu|mps|cuda(:[0-9]+)?", "device", "auto, cpu, cuda, cuda:N or mps")]
Model = Annotated[str, Network(others=True)]
Source = Annotated[str, Named("lightleak.data", "DATASETS", "data set", after="path")]
Architecture = Annotated[str, Network()]
Preset = Annotated[str, Named("lightleak.attacks.ppa", "PRESETS", "preset")]
LikeRecipe = Annotated[str, Named("lightleak.training.recipes", "RECIPES", "recipe")]
Protocol = Annotated[str, Named("lightleak.study.protocols", "PROTOCOLS", "protocol")]
Checkpoint = Annotated[Path, There("checkpoint")]
Found = Annotated[Path, There("file of reconstructions")]
Study = Annotated[Path, Ours()]
Pairs = Annotated[Path, There("study", file=False)]
Prior = Annotated[str, There("prior", words=("rendered", "pixels"), file=False)]
File = Annotated[Path, There("file")]
FileOrFolder = Annotated[Path, There("file", file=False)]
Folder = Annotated[Path, There("folder", file=False)]
Count = Annotated[int, AtLeast(1)]
Share = Annotated[float, Within(0, 1, "a share in (0, 1]")]
Truncation = Annotated[float, Within(0, 1, "a number from 0 to 1", open=False)]
Seed = Annotated[int, Within(-(2**63), 2**63 - 1, "a number of 64 bits", open=False)]
Port = Annotated[int, Within(0, 65535, "a port from 0 to 65535", open=False)]
Seconds = Annotated[float, Within(0, 86400, "a time in seconds, above 0 and at most a day")]


def spare(arguments: Mapping[str, Any]) -> None:
    """UserError if a verb would overwrite something that it reads."""
    if (out := arguments.get("out")) is None:
        return
    place = Path(out).expanduser().resolve()
    for name, value in arguments.items():
        for each in _files(value) if name not in ("out", *DECLARED) else ():
            if (path := Path(each).expanduser()).exists() and path.resolve() == place:
                raise UserError(f"--out {out} would overwrite what is read: {name} is {value}; name another place")


def _files(value: Any) -> list[str | Path]:
    """The paths that an argument may hold: as such, behind "NAME:", before ":NAME", or in a field of settings."""
    if is_dataclass(value):
        return [path for each in fields(value) for path in _files(getattr(value, each.name))]
    if isinstance(value, tuple):
        return [path for each in value for path in _files(each)]
    if isinstance(value, str):
        parts = (value, value.partition(":")[2], value.rpartition(":")[0])
        return [part for part in parts if part and "\0" not in part]
    return [value] if isinstance(value, Path) else []


def unmarked(kind: Any) -> Any:
    """A type without the requirements of this module."""
    marks = get_args(kind)[1:] if get_origin(kind) is Annotated else ()
    return get_args(kind)[0] if marks and all(isinstance(mark, MARKS) for mark in marks) else kind


def check(arguments: dict[str, tuple[Any, Any]], listed: Listed) -> None:
    """UserError, in one line, for the first argument whose value does not meet its annotation."""
    for name, (kind, value) in arguments.items():
        inner = get_args(kind)[0] if get_origin(kind) is Annotated else ()  # a positional one may be optional, too
        for each in (kind, *get_args(kind), *get_args(inner)) if value is not None else ():
            for mark in get_args(each)[1:] if get_origin(each) is Annotated else ():
                if isinstance(mark, MARKS):
                    mark.check(f"--{name.replace('_', '-')}", value, listed)
