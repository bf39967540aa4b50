"""Files that are there whole or not at all."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from lightleak.errors import UserError


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
