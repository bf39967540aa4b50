"""Weights that others published as files: read as plain tensors, known by what is in them."""

import hashlib
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lightleak.errors import UserError


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


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a .safetensors, .pt or .pth file, on the CPU; nothing in the file is executed.

    A dict of tensors may lie within another one under "state_dict", "model_state_dict" or "model"; prefixes of
    DataParallel, torch.compile and training wrappers are taken off. Raises UserError for anything else.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"there is no file of weights {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on odd files; it refuses what it cannot read
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise UserError(f"{path} is no file of plain weights ({reason}); expected .safetensors, .pt or .pth") from None
    for name in ("state_dict", "model_state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    if not isinstance(found, Mapping) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(
            f"{path} holds no dict of tensors; expected a state dict, as torch.save(net.state_dict()) gives"
        )
    tensors = {str(name): value for name, value in found.items()}
    for prefix in ("module.", "_orig_mod."):
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors
