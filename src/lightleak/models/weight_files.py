"""Published files of weights: read as plain tensors, identified by their contents."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from lightleak.errors import UserError
from lightleak.models.weights import Content, choose, read, stripped


@dataclass(frozen=True)
class Weights:
    """A file of weights; two files with the same bytes are the same weights wherever they lie."""

    sha256: str
    path: str = field(compare=False)

    @classmethod
    def of(cls, path: str | Path) -> "Weights":
        """The weights in a file; UserError if it is not there."""
        path = Path(path).expanduser()
        try:
            with path.open("rb") as file:
                return cls(hashlib.file_digest(file, "sha256").hexdigest(), str(path.resolve()))
        except OSError as error:
            raise UserError(f"the weights {path} cannot be read ({error.strerror or error})") from None

    @property
    def title(self) -> str:
        """The file's name and the beginning of its hash."""
        return f"{Path(self.path).name} (sha256 {self.sha256[:8]})"


def read_tensors(path: str | Path, anchors: Collection[str] = ()) -> dict[str, Tensor]:
    """The state dict in a .safetensors, .pt or .pth file, on the CPU; nothing in the file is executed.

    A dict of tensors may lie within another one, and under prefixes; `anchors` are names that the wanted network has,
    by which it is found whatever lies beside it. Raises UserError for anything else.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"there is no file of weights {path}")
    return chosen(read(path), anchors, path)


def chosen(content: Content, anchors: Collection[str], path: str | Path) -> dict[str, Tensor]:
    """The state dict that `anchors` tell in what was read of a file; UserError if that is ambiguous."""
    return stripped(choose(content, anchors, lambda state: state.keys() >= set(anchors), str(path)).tensors)
