"""What the judge and other networks say of private images, and its file."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lightleak.errors import UserError
from lightleak.files import publish
from lightleak.metrics.evidence import Measure


@dataclass(frozen=True)
class Reference:
    """What the judge and other networks say of the private images: the same for every reconstruction."""

    judge_accuracy: Measure  # on the population's test images
    labels: Tensor  # of the training images, N
    features: Tensor  # of the training images, N x D
    faces: Tensor | None = None  # the same by the face embedding
    inception: Tensor | None = None  # the same by the network for FID
    networks: dict[str, str] = field(default_factory=dict)  # metric -> which network

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, whole or not at all."""
        tensors = {name: getattr(self, name) for name in ("labels", "features", "faces", "inception")}
        about = {"judge_accuracy": asdict(self.judge_accuracy), "networks": self.networks}
        present = {name: value.contiguous() for name, value in tensors.items() if value is not None}
        metadata = {"reference": json.dumps(about)}
        return publish(path, lambda part: save_file(present, part, metadata=metadata), "the features")

    @classmethod
    def load(cls, path: str | Path) -> "Reference":
        """Read what `save` wrote; UserError if it is something else."""
        try:
            with safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {})["reference"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return cls(Measure(**about["judge_accuracy"]), networks=about["networks"], **tensors)
        except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise UserError(f"{path} holds no features of private images ({error})") from None
