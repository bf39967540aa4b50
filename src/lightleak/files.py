"""Files that are there whole or not at all."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from lightleak.errors import UserError


def parsed(text: str) -> Any:
    """JSON data; ValueError for what is none, and for halves of characters, which neither pages nor files can hold."""
    found = json.loads(text)
    if "\\ud" in text.lower():
        json.dumps(found, ensure_ascii=False).encode()
    return found


def publish(path: str | Path, write: Callable[[Path], object], what: str) -> Path:
    """Let `write` fill a temporary file beside `path`, then give it that name; UserError if that cannot be.

    `what` names the content in the error ("the checkpoint"). A crash at any moment leaves the old file, or none.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write {what} {path}: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return path


def check_folder(folder: str | Path, what: str, bytes_needed: int = 2**20) -> Path:
    """Make `folder` and try to write there; UserError in one line, before any work, if `what` could not be kept."""
    folder = Path(folder)
    probe = folder / f".{os.getpid()}.probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"0" * 4096)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UserError(f"{what} cannot be written in {folder}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    if free < bytes_needed:
        raise UserError(f"{what} cannot be written in {folder}: {free / 2**20:,.0f} MiB free, needed "
                        f"{bytes_needed / 2**20:,.0f}")  # fmt: skip
    return folder


def check_place(path: str | Path, what: str) -> Path:
    """UserError in one line, before any work, if `publish` could not write `what` to the file `path`."""
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{what} is a file, and {path} is a folder; name a file, such as {path / 'NAME'}")
    check_folder(path.parent, what)
    return path
