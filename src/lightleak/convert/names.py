"""Which class each output of a foreign network stands for: names that are given, names in the file, or none."""

import re
from pathlib import Path
from typing import Literal

from lightleak.data.listing import printable
from lightleak.errors import UserError

Order = Literal["text", "natural"]
MOST_BYTES = 2**24


def of(given: Path | None, order: Order, found: tuple[str, ...], classes: int) -> tuple[tuple[str, ...], str]:
    """The names of a network's classes, and a remark on their order.

    `given`: a text file with a name a line, or a folder with a folder for each class; `found`: names that came with the
    weights. UserError if the given ones are not as many as there are classes.
    """
    if given is not None:
        names, told = _given(given, order)
        if len(names) != classes:
            raise UserError(f"{given} names {len(names)} classes, but the network knows {classes}")
        return names, told
    if len(found) == classes and len(set(found)) == classes:
        return found, "class names are those that came with the weights"
    return (), (
        "no class names: output 0 is taken for the first class of the data, whose folders are numbered 1, 10, 2 here "
        "and in torchvision, but 1, 2, 10 in timm (--class-names says the order)"
    )


def natural(name: str) -> list[tuple[bool, int, str]]:
    """A sort key as timm orders folders: numbers within names count as numbers, and letters as lower case."""
    parts = re.split(r"([0-9]+)", name.lower())
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _given(path: Path, order: Order) -> tuple[tuple[str, ...], str]:
    try:
        if path.is_dir():
            folders = [entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
            names = tuple(map(printable, sorted(folders, key=natural if order == "natural" else None)))
            shown = ", ".join(names[:3])
            return names, f"class names are the folders of {path.name} in {order} order ({shown}, ...)"
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path} is larger than a list of names")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"cannot read the class names {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is no text in UTF-8; expected one class name a line") from None
    names = tuple(printable(line.strip()) for line in lines if line.strip())
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{path} names the class {twice[:60]!r} twice")
    return names, f"class names are the {len(names)} lines of {path.name}, in the order of the outputs"
