"""What an attack brings home."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lightleak.errors import UserError
from lightleak.files import publish


@dataclass(frozen=True)
class Reconstruction:
    """Images that an attack holds for those of the asked classes; the first axis of every tensor is the image."""

    images: Tensor  # N x 3 x S x S, float32 in [0, 1]
    classes: Tensor  # int64, N: whom each image is meant to show
    latents: Tensor  # N x ...: what the prior made it of
    confidence: Tensor  # N in [0, 1]: the target's own belief
    queries: int = 0  # images shown to the target
    seconds: float = 0.0
    shared: int = 0  # of the queries, those that serve all identities alike: every shard asks them again

    def __post_init__(self) -> None:
        lengths = {len(self.images), len(self.classes), len(self.latents), len(self.confidence)}
        if len(lengths) > 1:
            raise UserError(f"a reconstruction needs as many classes, latents and confidences as images, got {lengths}")

    def __len__(self) -> int:
        return len(self.images)

    def best(self, count: int = 1) -> "Reconstruction":
        """The `count` images of each class that the target believes most, best first, classes ascending."""
        order = sorted(range(len(self)), key=lambda i: (int(self.classes[i]), -float(self.confidence[i])))
        taken: dict[int, int] = {}
        index = []
        for i in order:
            label = int(self.classes[i])
            if taken.setdefault(label, 0) < count:
                taken[label] += 1
                index.append(i)
        return self.at(torch.tensor(index, dtype=torch.long))

    def at(self, index: Tensor) -> "Reconstruction":
        """The images at `index`, in its order."""
        return replace(self, **{name: getattr(self, name)[index] for name in TENSORS})

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, whole or not at all."""
        tensors = {name: getattr(self, name).detach().cpu().contiguous() for name in TENSORS}
        about = {
            "reconstruction": json.dumps({"queries": self.queries, "seconds": self.seconds, "shared": self.shared})
        }
        return publish(path, lambda part: save_file(tensors, part, metadata=about), "the reconstructions")

    @classmethod
    def load(cls, path: str | Path) -> "Reconstruction":
        """Read what `save` wrote; UserError if it is something else."""
        if not Path(path).is_file():
            raise UserError(f"there are no reconstructions {path}")
        try:
            with safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {})["reconstruction"])
                return cls(**{name: file.get_tensor(name) for name in TENSORS}, **about)
        except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise UserError(f"{path} holds no reconstructions of Lightleak ({error})") from error


TENSORS = ("images", "classes", "latents", "confidence")


def join(parts: Sequence[Reconstruction]) -> Reconstruction:
    """Reconstructions of several shards one after the other; queries that each shard repeated count once."""
    whole = {name: torch.cat([getattr(part, name) for part in parts]) for name in TENSORS}
    shared = max(part.shared for part in parts)
    own = sum(part.queries - part.shared for part in parts)
    return Reconstruction(**whole, queries=own + shared, seconds=sum(p.seconds for p in parts), shared=shared)


def merge(parts: Sequence[Reconstruction]) -> Reconstruction:
    """Reconstructions of several shards as one, classes ascending, order within a class kept."""
    whole = join(parts)
    order = torch.sort(whole.classes, stable=True).indices
    return replace(whole, **{name: getattr(whole, name)[order] for name in TENSORS})
