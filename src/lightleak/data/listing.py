"""The contents of a folder of folders, listed before any picture is opened."""

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightleak.data.images import SUFFIXES, Frame
from lightleak.errors import UserError


@dataclass(frozen=True)
class Listing:
    """The contents of a folder of classes."""

    root: Path
    files: tuple[str, ...]  # relative to root, sorted; the first part is the class, a name alone is in none
    classes: tuple[str, ...]  # sorted, also those without images
    strangers: tuple[str, ...] = ()  # files that are no images by name, or lie outside of any class
    frames: tuple[Frame, ...] = ()  # what counts of each file; empty: the centre square of all
    part: str = ""  # which of a root's listings it is: each has a cache of its own
    links: tuple[str, ...] = ()  # links to folders, which are not followed
    closed: tuple[str, ...] = ()  # folders that could not be read
    marked: bool = False  # whether pictures get a hash of what they show in full


def scan(root: Path, loose: bool = False) -> Listing:
    """List the files below `root`; hidden files are skipped, and links to folders within a class are not followed.

    `loose`: images at the root count too, and folders are not needed.
    """
    what = f"give a folder that holds {'images, or ' if loose else ''}one folder of images per class"
    if not root.exists():
        raise UserError(f"there is no folder {printable(str(root))}; {what}")
    if not root.is_dir():
        raise UserError(f"{printable(str(root))} is a file; {what}")
    try:
        entries = sorted(entry for entry in root.iterdir() if not hidden(entry.name))
    except OSError as error:
        raise UserError(f"{root} cannot be read ({error.strerror}); check its permissions") from None
    classes = tuple(entry.name for entry in entries if entry.is_dir())
    single = [entry.name for entry in entries if not entry.is_dir()]
    files = [name for name in single if loose and Path(name).suffix.lower() in SUFFIXES]
    strangers = [name for name in single if name not in set(files)]
    links: list[str] = []
    closed: list[str] = []
    for name in classes:
        for file in walk(root / name, links, closed):
            place = f"{name}/{file}"
            (files if Path(file).suffix.lower() in SUFFIXES else strangers).append(place)
    where = tuple(Path(place).relative_to(root).as_posix() for place in (*links, *closed))
    if not classes and not loose:
        raise UserError(f"{root} holds {len(strangers)} files but no folders; give each class a folder of its own")
    if not files:
        why = f" ({len(closed)} of them cannot be read: check permissions)" if closed else ""
        if loose:
            raise UserError(f"{root} holds no images, nor do its {len(classes)} folders{why}; {what}")
        raise UserError(
            f"{root} holds no images in its {len(classes)} folders{why}; expected files like CLASS/NAME.jpg"
        )
    return Listing(
        root,
        tuple(sorted(files)),
        classes,
        tuple(strangers),
        links=where[: len(links)],
        closed=where[len(links) :],
        marked=True,
    )


def walk(root: Path, links: list[str], closed: list[str]) -> Iterator[str]:
    """Files below `root`, relative to it, in a fixed order; links to folders and unreadable ones go to lists."""
    for folder, inner, found in os.walk(root, onerror=lambda error: closed.append(str(error.filename))):
        inner[:] = sorted(name for name in inner if not hidden(name))
        links += [str(Path(folder) / name) for name in inner if (Path(folder) / name).is_symlink()]
        for file in sorted(found):
            if not hidden(file):
                yield (Path(folder) / file).relative_to(root).as_posix()


def hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def printable(name: str) -> str:
    """A file's name for any file, page or terminal: composed, invalid UTF-8 and unprintable characters escaped."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    text = unicodedata.normalize("NFC", text)
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
