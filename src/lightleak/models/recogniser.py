"""Recognisers: embeddings of faces, or of anything, by a network that never met the people in question."""

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from lightleak.data.views import resized
from lightleak.errors import UserError
from lightleak.fingerprint import LATER
from lightleak.models.classifier import Penultimate, load
from lightleak.models.facenet import facenet
from lightleak.models.iresnet import iresnet, layout_of
from lightleak.models.named import is_spec
from lightleak.models.own import is_checkpoint, made
from lightleak.models.weight_files import Weights
from lightleak.place import here

FACES = "faces"  # the extra, and what a user calls its recogniser
DLIB = "models/dlib_face_recognition_resnet_model_v1.dat"  # in PyPI's face-recognition-models
CHIP = 150  # pixels a side that dlib's network takes, no others
Kind = Literal["dlib", "facenet", "arcface", "adaface", "checkpoint", "own"]
NAMES: dict[Kind, str] = {
    "dlib": "dlib's ResNet", "facenet": "FaceNet", "arcface": "ArcFace", "adaface": "AdaFace",
    "checkpoint": "checkpoint", "own": "own network",
}  # fmt: skip


@dataclass(frozen=True)
class Recogniser:
    """Identifies a recogniser; files with the same bytes are the same recogniser, wherever they lie."""

    kind: Kind
    sha256: str
    path: str = field(compare=False)
    name: str = field(default="", metadata=LATER)  # of several in one Python file

    @property
    def title(self) -> str:
        """What a table calls it."""
        named = f" {self.name}" if self.name else ""
        return f"{NAMES[self.kind]}{named} ({self.file.name}, sha256 {self.sha256[:8]})"

    @property
    def file(self) -> Path:
        """Where its bytes lie."""
        return Path(self.path.rpartition(":")[0] if self.kind == "own" else self.path)

    def load(self) -> nn.Module:
        """The network: images N x 3 x H x W in [0, 1] to embeddings N x D."""
        if self.kind == "dlib":
            return DlibFaces(self.path)
        if self.kind == "facenet":
            return facenet(self.path)
        if self.kind == "arcface" or self.kind == "adaface":
            return iresnet(self.path, self.kind)
        return Penultimate(load(self.path)) if self.kind == "checkpoint" else here().put(made(self.path).eval())


def recogniser(name: str) -> Recogniser:
    """The recogniser that a text names: "faces" (the extra), a file of FaceNet, ArcFace or AdaFace, a checkpoint of
    ours, or FILE.py:NAME.

    FILE.py:NAME makes a module of images N x 3 x H x W in [0, 1] that gives embeddings; that Python is executed.
    """
    if name == FACES:
        path = faces_file()
        if path is None:
            raise UserError("the recogniser 'faces' is not installed; get it with: pip install 'lightleak[faces]'")
        return Recogniser("dlib", Weights.of(path).sha256, str(path))
    if is_spec(name):
        file, _, function = name.rpartition(":")
        return Recogniser("own", Weights.of(file).sha256, name, function)
    weights = Weights.of(name)
    kind: Kind = "checkpoint" if is_checkpoint(weights.path) else layout_of(weights.path) or "facenet"
    return Recogniser(kind, weights.sha256, weights.path)


def faces_file() -> Path | None:
    """Where the extra `faces` keeps its network; None if it is not installed.

    The package is looked up and not imported: its import needs `pkg_resources`, which setuptools 82 dropped.
    """
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or not spec.submodule_search_locations or importlib.util.find_spec("_dlib_pybind11") is None:
        return None
    path = Path(next(iter(spec.submodule_search_locations))) / DLIB
    return path if path.is_file() else None


class DlibFaces(nn.Module):
    """dlib's face network: 128 numbers of a 150 x 150 chip, without jitter; about 12 chips a second on one core.

    Its usual threshold (a distance of 0.6) is for aligned photographs alone; calibrate it for any other picture.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        import dlib

        library: Any = dlib
        self._net = library.face_recognition_model_v1(str(path))

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        chips = resized(images, CHIP).clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        found = [np.asarray(self._net.compute_face_descriptor(np.ascontiguousarray(chip))) for chip in chips]
        return torch.from_numpy(np.stack(found)).float() if found else torch.empty(0, 128)


@torch.no_grad()
def embedded(network: nn.Module, images: Tensor, batch: int = 32) -> Tensor:
    """Embeddings N x D, on the CPU, of uint8 images N x 3 x S x S; UserError if the network gives anything else."""
    found, like = [], next(network.parameters(), torch.empty(0))
    for piece in images.split(batch):
        given = network(piece.to(like.device).float().div(255))
        if not isinstance(given, Tensor) or given.dim() != 2 or len(given) != len(piece):
            came = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
            raise UserError(f"a recogniser gives one row of numbers an image, {len(piece)} x D; this one gave {came}")
        found.append(given.float().cpu())
    return torch.cat(found)
