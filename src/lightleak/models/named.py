"""Names of networks: those of libraries, read from their sources, and FILE.py:NAME; nothing here imports torch."""

import difflib
import re
from fnmatch import fnmatchcase
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

from lightleak.errors import UserError
from lightleak.plugins import points

LIBRARIES = ("timm", "torchvision", "face")
REGISTERED = re.compile(r"""^@register_model(?:\((?:name=)?["']?(\w*)["']?\))?\n(?:@.*\n)*def (\w+)""", re.MULTILINE)


def library_of(architecture: str) -> tuple[str, str]:
    """The library and the name in "timm:resnet101"; UserError for anything else."""
    library, _, name = architecture.partition(":")
    if not name or library not in LIBRARIES:
        expected = ", ".join(f"{prefix}:NAME" for prefix in LIBRARIES)
        raise UserError(f"expected an architecture as {expected}, got {architecture!r}; for example timm:resnet18")
    return library, name


def unknown(library: str, name: str, known: list[str]) -> UserError:
    """The message for a name that a library lacks, with the closest of those it has."""
    near = difflib.get_close_matches(name, known, 3)
    hint = f"did you mean {', '.join(near)}?" if near else f"'lightleak skips \"{library}:*\"' lists them"
    return UserError(f"{library} has no model {name!r}; {hint}")


def check(architecture: str, own: list[str]) -> None:
    """UserError for an architecture that the libraries' sources do not have; `own`: the names in face:NAME."""
    library, name = library_of(architecture)
    if library == "face":
        if own and name not in own:
            raise unknown(library, name, own)
        return
    forms = (f"\ndef {name}(", f'"{name}"', f"'{name}'")
    if not any(form in text_of(library) for form in forms) and (known := names_in(library)):
        raise unknown(library, name, known)


def check_pattern(pattern: str, own: list[str]) -> None:
    """UserError for a pattern such as "timm:resnet*" that no name can fit."""
    library, _, wanted = pattern.partition(":")
    if library not in LIBRARIES:
        raise no_library(library)
    possible = own if library == "face" else names_in(library)
    if possible and not any(fnmatchcase(name, wanted) for name in possible):
        raise no_match(library, wanted)


def no_library(library: str) -> UserError:
    """The message for an unknown library."""
    return UserError(f"there is no library {library!r}; known are {', '.join(LIBRARIES)}")


def no_match(library: str, wanted: str) -> UserError:
    """The message for a pattern that fits no name of a library."""
    return UserError(f"no model of {library} fits {wanted!r}")


@cache
def names_in(library: str) -> list[str]:
    """The names that a library's sources register; empty where that is unknown."""
    return sorted({name or function for name, function in REGISTERED.findall(text_of(library))})


@cache
def text_of(library: str) -> str:
    """The source text of a library's networks, which contains every name; empty where that is not certain.

    Packages that add to Lightleak may add to timm as well, so beside them nothing is ruled out.
    """
    found = PathFinder.find_spec(library)  # not through what is done when torchvision is imported
    if found is None or found.origin is None or points(""):
        return ""
    return "\n".join(file.read_text(encoding="utf-8") for file in (Path(found.origin).parent / "models").glob("*.py"))


def is_spec(text: str) -> bool:
    """Whether a text names a network as FILE.py:NAME."""
    file, _, name = text.rpartition(":")
    return file.endswith(".py") and name.isidentifier()


def file_and_name(spec: str) -> tuple[Path, str]:
    """The file and the name in FILE.py:NAME; UserError if the text has another form or the file does not exist."""
    if not is_spec(spec):
        raise UserError(f"expected a network as FILE.py:NAME, such as mymodel.py:make_model, got {spec!r}")
    text, _, name = spec.rpartition(":")
    path = Path(text).expanduser()
    if not path.is_file():
        raise UserError(f"there is no Python file {path}")
    return path, name
