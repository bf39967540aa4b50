"""The people of a study: drawn or read once, and read by every other task from there."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from lightleak import data
from lightleak.data import faces
from lightleak.data.folders import scan
from lightleak.data.population import Images, Population
from lightleak.errors import UserError
from lightleak.study.task import Store, Task, Watch

SPLITS = ("train", "validation", "test", "judge", "public")


@dataclass(frozen=True)
class Draw(Task):
    """A population, drawn or read once; every other task reads it from here."""

    source: str = "faces"  # faces, digits or folder:PATH
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the population function
    contents: str = ""  # what a folder holds, see `fingerprint`

    def run(self, store: Store, folder: Path, watch: Watch) -> dict[str, Any]:  # noqa: ARG002
        population = data.load(self.source, **dict(self.settings), watch=watch)
        tensors: dict[str, Tensor] = {}
        for split in SPLITS:
            images: Images = getattr(population, split)
            tensors |= {f"{split}.pixels": images.pixels, f"{split}.labels": images.labels}
        if population.factors is not None and population.public_factors is not None:
            tensors |= {"factors": population.factors, "public_factors": population.public_factors}
        save_file(tensors, folder / "population.safetensors")
        about = {
            "name": population.name,
            "class_names": list(population.class_names),
            "notes": list(population.notes),
        }
        kept = {**about, "division": population.division, "pictures": population.pictures}
        (folder / "population.json").write_text(json.dumps(kept))
        counts = {split: len(getattr(population, split)) for split in SPLITS}
        return {**about, "classes": population.classes, "size": population.size, "images": counts}

    def load(self, store: Store) -> Population:
        """The population as it was drawn."""
        folder = store.folder(self)
        tensors = load_file(folder / "population.safetensors")
        about = json.loads((folder / "population.json").read_text())
        # Not stored: who looks alike follows from the settings, also in stores that are older than families.
        families, centres = (faces.families(**self.settings) if self.source == "faces" else None) or (None, None)
        return Population(
            name=about["name"],
            class_names=tuple(about["class_names"]),
            notes=tuple(about["notes"]),
            findings=(),
            division=about.get("division", ""),  # populations of older stores do not know
            pictures=about.get("pictures", ""),
            factors=tensors.get("factors"),
            public_factors=tensors.get("public_factors"),
            families=families,
            family_factors=centres,
            **{split: Images(tensors[f"{split}.pixels"], tensors[f"{split}.labels"]) for split in SPLITS},
        )


def fingerprint(folder: str | Path, classes: bool = True) -> str:
    """What a folder holds (names, sizes, times of change), as a hash; `classes`: only images in folders of classes."""
    root = Path(folder).expanduser()
    if not classes and not root.is_dir():
        raise UserError(f"there is no folder {root}")
    names = scan(root).files if classes else sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())
    lines = []
    for name in names:
        status = (root / name).stat()
        lines.append(f"{name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:20]


def source(text: str, **settings: Any) -> Draw:
    """The population that "faces", "digits" or "celeba:PATH" names, with the settings of its function."""
    kind, _, path = text.partition(":")
    if kind == "folder":
        return Draw(text, settings, fingerprint(path) if path else "")
    places = [place for place in (path, str(settings.get("public") or "").partition(":")[2]) if place]
    return Draw(text, settings, " ".join(fingerprint(place, classes=False) for place in places))
