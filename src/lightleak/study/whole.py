"""Whether a finished task's files are as they were written: sizes and hashes, kept in its made.json."""

import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from lightleak.errors import UserError

MADE, RESULT = "made.json", "result.json"


def seal(folder: Path) -> dict[str, list[Any]]:
    """Size and sha256 of each file in a folder, by its name below it; made.json, which will hold them, aside."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file != folder / MADE)
    return {file.relative_to(folder).as_posix(): [file.stat().st_size, _hash(file)] for file in files}


def damage(folder: Path, thorough: bool = True) -> str | None:
    """What is wrong with a finished task's folder, in one line; None if it is whole or nothing is there.

    Sizes are compared each time. Contents are read once in a process, and again where size or time of change are
    others; unless `thorough`, only of files that were changed after they were published.
    """
    place = os.fspath(folder)
    try:
        with open(f"{place}/{MADE}", "rb") as stream:
            files, published = _files(stream.read()), os.fstat(stream.fileno()).st_mtime_ns
    except FileNotFoundError:
        return f"{place}/{MADE} is missing" if os.path.isdir(place) else None
    except OSError as error:
        return f"{place}/{MADE} cannot be read ({error.strerror})"
    if files is None:
        return f"{place}/{MADE} is damaged"
    if not files:  # of Lightleak 0.2 or older, which kept no sizes
        return _readable(folder / RESULT)
    for name, (size, sha256) in files.items():
        if wrong := _changed(place, name, size, sha256, 0 if thorough else published):
            return wrong
    return None


def check_file(file: Path) -> None:
    """UserError if a file in a finished task's folder is not as it was written; nothing is known of older ones."""
    try:
        files = _files((file.parent / MADE).read_bytes())
    except OSError:
        return
    if files and file.name in files and (wrong := _changed(os.fspath(file.parent), file.name, *files[file.name])):
        raise UserError(f"{wrong}; run the study again, which makes it anew")


def _files(text: bytes) -> dict[str, tuple[int, str]] | None:
    """What a made.json says of files; empty if it is an old one, None if it is damaged."""
    try:
        files = json.loads(text).get("files", {})
        return {str(name): (int(size), str(sha256)) for name, (size, sha256) in files.items()}
    except (ValueError, AttributeError, TypeError, RecursionError):
        return None


def _changed(folder: str, name: str, size: int, sha256: str, trusted: int = 0) -> str | None:
    file = f"{folder}/{name}"
    try:
        status = os.stat(file)
    except OSError:
        return f"{file} is missing"
    if status.st_size != size:
        return f"{file} is damaged ({status.st_size} bytes, {size} were written)"
    if status.st_mtime_ns <= trusted:
        return None
    if _known(file, status.st_size, status.st_mtime_ns, status.st_ino) != sha256:
        return f"{file} is damaged (its content is not what was written)"
    return None


@lru_cache(1 << 16)
def _known(file: str, size: int, changed: int, inode: int) -> str:  # noqa: ARG001
    return _hash(file)


def _hash(file: str | Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _readable(file: Path) -> str | None:
    try:
        json.loads(file.read_bytes())
    except FileNotFoundError:
        return f"{file} is missing"
    except (OSError, ValueError, RecursionError):
        return f"{file} is damaged"
    return None
