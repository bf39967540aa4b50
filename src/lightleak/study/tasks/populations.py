"""The people of a study: drawn or read once, and read by every other task from there."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from lightleak import data
from lightleak.data import faces
from lightleak.data.decoded import cache_folder
from lightleak.data.listed import read_list, redivided
from lightleak.data.listing import scan
from lightleak.data.naming import read_names
from lightleak.data.outlook import Outlook, outlook
from lightleak.data.population import Images, Population
from lightleak.errors import UserError
from lightleak.files import publish
from lightleak.study.amounts import Amount, rough
from lightleak.study.task import Progress, Store, Task

SPLITS = ("train", "validation", "test", "judge", "public")


@dataclass(frozen=True)
class Draw(Task):
    """A population, drawn or read once; every other task reads it from here."""

    source: str = "faces"  # faces, digits or folder:PATH
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the population function
    contents: str = ""  # what a folder holds, see `contents_of`

    def keyed(self) -> Mapping[str, Any]:
        """Where pictures are read from files, what is in them counts and not where they lie."""
        if not self.contents:
            return super().keyed()
        settings = {name: value for name, value in self.settings.items() if name != "cache"}
        if settings.get("public"):
            settings["public"] = _kind(settings["public"])
        return {"source": _kind(self.source), "settings": settings, "contents": self.contents}

    @property
    def label(self) -> str:
        kind, _, path = self.source.partition(":")
        seed = f", seed {self.settings['seed']}" if self.settings.get("seed") else ""
        return f"read {kind}:{Path(path).name}{seed}" if path else f"draw {kind}{seed}"

    def drawn(self, watch: Progress | None = None) -> Population:
        """The population, drawn or read anew."""
        return data.load(self.source, **dict(self.settings), watch=watch)

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:  # noqa: ARG002
        if self.contents and source(self.source, **self.settings).contents != self.contents:
            raise UserError(f"the pictures in {self.source} have changed since the study was planned; start it again")
        population = self.drawn(watch)
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

    def amounts(self) -> tuple[Amount, ...]:
        """Its faces, if they are painted."""
        seen = outlook("faces", **dict(self.settings)) if self.source == "faces" else None
        return (Amount("paint", sum(seen.images.values()), size=seen.size),) if seen else ()

    @property
    def cost(self) -> float | None:
        """Roughly, if they are painted."""
        return rough(self.amounts()) or None

    def reads(self) -> Outlook | None:
        """What its folders will be."""
        return outlook(self.source, **dict(self.settings)) if self.contents else None

    @property
    def room(self) -> int:
        """Its images."""
        try:
            seen = outlook(self.source, **dict(self.settings))
        except UserError:  # whoever reads it will say so
            return 0
        return 0 if seen is None else seen.bytes

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


@dataclass(frozen=True)
class Redivided(Draw):
    """A population of pictures divided by a list of those that a model was trained on, see `data.listed`."""

    listed: str = ""  # sha256 of the list
    file: str = field(default="", compare=False)  # where it lies

    def keyed(self) -> Mapping[str, Any]:
        """As any population, and by the list."""
        return {**super().keyed(), "listed": self.listed}

    def drawn(self, watch: Progress | None = None) -> Population:
        """The population: training pictures are those listed, all others are held out."""
        return redivided(super().drawn(watch), self.source, read_list(self.file))


def contents_of(folder: str | Path, classes: bool = True) -> str:
    """What a folder holds (names and contents of its files), as a hash; `classes`: only images in folders of classes.

    Contents are read once: their hashes are kept with sizes and times of change in the cache for decoded images.
    """
    root = Path(folder).expanduser()
    if not classes and not root.is_dir():
        raise UserError(f"there is no folder {root}")
    names = scan(root).files if classes else sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())
    place = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    kept = cache_folder(None) / f"hashes-{place}.json"
    try:
        known = json.loads(kept.read_text())
    except (OSError, ValueError, RecursionError):
        known = {}
    hashes: dict[str, list[Any]] = {}
    for name in names:
        try:
            status = (root / name).stat()
            mark = [status.st_size, status.st_mtime_ns]
            before = known.get(name) if isinstance(known, dict) else None
            if not (isinstance(before, list) and before[:2] == mark and len(before) == 3):
                with (root / name).open("rb") as file:
                    before = [*mark, hashlib.file_digest(file, "sha256").hexdigest()]
        except OSError as error:  # a dangling link, or no permission: reading the data will say so
            before = [0, 0, str(error.strerror)]
        hashes[name] = before
    if hashes != known:
        with suppress(UserError):  # then they are read again the next time
            publish(kept, lambda part: part.write_text(json.dumps(hashes)), "hashes of pictures")
    total = hashlib.sha256()
    for name, (_, _, content) in hashes.items():
        total.update(os.fsencode(name) + b"\0" + str(content).encode() + b"\n")
    return total.hexdigest()[:20]


def source(text: str, **settings: Any) -> Draw:
    """The population that "faces", "digits" or "celeba:PATH" names, with the settings of its function.

    A file of class names is read now: who has which label is part of what it is. UserError for an unknown name or
    setting, a value of the wrong type, or a folder that is not there.
    """
    data.check(text, **settings)
    if isinstance(settings.get("classes"), str | Path):
        settings["classes"] = read_names(settings["classes"])
    kind, _, path = text.partition(":")
    other = str(settings.get("public") or "").partition(":")[2]
    if kind == "folder":
        seen = [contents_of(path)] if path else []
        return Draw(text, settings, " ".join([*seen, *([contents_of(other, classes=False)] if other else [])]))
    places = [place for place in (path, other) if place]
    return Draw(text, settings, " ".join(contents_of(place, classes=False) for place in places))


def _kind(source: str) -> str:
    return source.partition(":")[0]
