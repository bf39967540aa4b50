"""The result of an attack: latents, confidences, and images in 8 bits at the size that the target sees."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lightleak.attacks import pictures
from lightleak.attacks.pieces import Column, write_pieces
from lightleak.data.people import UNKNOWN, People
from lightleak.data.population import as_bytes
from lightleak.errors import UserError
from lightleak.files import publish
from lightleak.fingerprint import LATER
from lightleak.notebook import figure
from lightleak.priors.prior import Prior
from lightleak.ranking import as_lowest

IN_NOTEBOOK = 32  # classes of which a notebook shows an image
PIECE = 256  # images that are in memory as floats at a time


class _Images:
    """The field `images`: takes bytes, or floats in [0, 1]; gives floats, all at once. What was taken is `pixels`."""

    def __get__(self, owner: "Reconstruction | None", kind: type | None = None) -> Tensor:
        if owner is None:
            raise AttributeError("a reconstruction has no images by default")
        return owner.floats()

    def __set__(self, owner: "Reconstruction", images: Tensor) -> None:
        owner.__dict__["kept"] = images


@dataclass(frozen=True, repr=False)
class Reconstruction:
    """Images that an attack holds for those of the asked classes; the first axis of every tensor is the image.

    What `load` gives is read from the disk when it is looked at. `images` are floats, all at once: of a large
    reconstruction take `floats(index)`, piece by piece.
    """

    images: Tensor = _Images()  # pyright: ignore  # N x 3 x S x S, float32 in [0, 1]
    classes: Tensor  # pyright: ignore  # int64, N: whom each image is meant to show
    latents: Tensor  # pyright: ignore  # N x ...: what the prior made it of
    confidence: Tensor  # pyright: ignore  # N in [0, 1]: the target's own confidence
    queries: int = 0  # images shown to the target
    seconds: float = 0.0
    shared: int = 0  # of the queries, those that serve all identities alike: every shard asks them again
    beforehand: int = 0  # queries of what was learnt before: of a prior made for the target, of students
    redrawn: bool = True  # whether the prior makes these images again of the latents alone
    attempts: Tensor | None = None  # int64, N: which of its class's attempts each image is
    large: Tensor | None = None  # uint8, N x 3 x P x P: as the prior drew them, where larger and never to be made again
    asked: Tensor | None = None  # int64, C: whom the attack looked for, in order
    per_class: Mapping[str, Tensor] = field(default_factory=dict)  # C x ...: what it found out about each of `asked`
    failures: Mapping[int, str] = field(default_factory=dict)  # class -> why there is no image of it
    drawn_at: int = field(default=0, metadata=LATER)  # pixels a side that the prior draws, where more than are kept
    people: People = UNKNOWN  # whom the classes mean, as the target said; older files do not know
    target: str = field(default="", metadata=LATER)  # `weights_of` its network; "": unknown, as in older files

    def __post_init__(self) -> None:
        lengths = {len(self.pixels), len(self.classes), len(self.latents), len(self.confidence)}
        if len(lengths) > 1:
            raise UserError(f"a reconstruction needs as many classes, latents and confidences as images, got {lengths}")
        if self.classes.is_floating_point() or self.classes.is_complex():
            raise UserError(f"classes are whole numbers, not {str(self.classes.dtype).removeprefix('torch.')}")

    def __len__(self) -> int:
        return len(self.pixels)

    def __repr__(self) -> str:
        people = len(self.classes.unique())
        return f"Reconstruction({len(self)} images of {people} classes, {self.size} pixels, {self.queries} queries)"

    @property
    def pixels(self) -> Tensor:
        """The images as they are kept: uint8, or in older files and by hand float32 in [0, 1]; N x 3 x S x S."""
        return self.__dict__["kept"]

    @property
    def size(self) -> int:
        """Side length of the kept images in pixels."""
        return self.pixels.shape[-1]

    def floats(self, index: Tensor | slice = slice(None)) -> Tensor:
        """The images at `index` as float32 in [0, 1]."""
        kept = self.pixels[index]
        return kept.float().div(255) if kept.dtype == torch.uint8 else kept.float()

    def bytes(self, index: Tensor | slice = slice(None)) -> Tensor:
        """The images at `index` as uint8."""
        kept = self.pixels[index]
        return kept.cpu() if kept.dtype == torch.uint8 else as_bytes(kept)

    def drawn_by(self, prior: Prior | None) -> "Drawn":
        """The images as the prior draws them where that is larger than what is kept: made again piece by piece, or as
        they were kept where that cannot be.
        """
        if prior is not None and self.large is not None:
            return Drawn(self.with_fields(images=self.large), None)
        if prior is None or not self.redrawn or prior.size <= self.size:
            return Drawn(self, None)
        return Drawn(self, prior if self.latents.shape[1:] == (prior.latents,) else None)  # a null may be of another

    def best(self, count: int = 1) -> "Reconstruction":
        """The `count` images of each class of which the target is most confident, best first, classes ascending."""
        order = _most_confident(self.confidence)
        order = order[self.classes[order].argsort(stable=True)]
        return self.at(_first_of_each(self.classes[order], order, count))

    def kept_of_each(self, count: int, best_first: bool) -> "Reconstruction":
        """The `count` images of highest confidence in each class, classes as they come; best first, or by attempt."""
        place = {label: number for number, label in enumerate(dict.fromkeys(self.classes.tolist()))}
        places = torch.tensor([place[label] for label in self.classes.tolist()], dtype=torch.int64)
        order = _most_confident(self.confidence)
        order = order[places[order].argsort(stable=True)]
        chosen = _first_of_each(places[order], order, count)
        if not best_first:
            chosen = (
                chosen.sort().values if self.attempts is None else chosen[self.attempts[chosen].argsort(stable=True)]
            )
            chosen = chosen[places[chosen].argsort(stable=True)]
        return self.at(chosen)

    def without_repetition(self) -> "Reconstruction":
        """Of each attempt the first image, of each asked class the first row; of a search's course, what all searches
        of the class spent together, and the best that any of them had.
        """
        attempts = self.attempts if self.attempts is not None else torch.arange(len(self))
        pairs = list(zip(self.classes.tolist(), attempts.tolist(), strict=True))
        found = self.at(torch.tensor(sorted({pair: row for row, pair in reversed(list(enumerate(pairs)))}.values())))
        if self.asked is None:
            return found
        rows = sorted({label: row for row, label in reversed(list(enumerate(self.asked.tolist())))}.values())
        own = [self.asked == label for label in self.asked[rows]]
        per_class = {
            name: torch.stack([_together(value[mine]) for mine in own]) if name in COURSES else value[rows]
            for name, value in self.per_class.items()
        }
        return found.with_fields(asked=self.asked[rows], per_class=per_class)

    def at(self, index: Tensor) -> "Reconstruction":
        """The images at `index`, in its order."""
        return self.with_fields(**{name: value[index] for name, value in self._rows().items()})

    def named(self, people: People) -> "Reconstruction":
        """The same, with the names of its classes."""
        return self.with_fields(people=people)

    def grid(self, each: int = 1, columns: int = 8) -> Image:
        """A sheet of the `each` images of highest confidence in each class, classes ascending, `columns` in a row."""
        if each < 1 or columns < 1:
            raise UserError(f"a grid has at least one image of each class and one column, not {each} and {columns}")
        return pictures.sheet(self, each, columns)

    def save_images(self, folder: str | Path) -> list[Path]:
        """Write every image as PNG, in a folder for each class: "folder/003-anna/000.png"; return the files."""
        return pictures.save(self, Path(folder).expanduser())

    def _repr_html_(self) -> str:
        first = self.classes.unique()[:IN_NOTEBOOK]
        shown = self.at(torch.isin(self.classes, first).nonzero().flatten())
        more = "" if len(first) == len(self.classes.unique()) else f"; of the first {len(first)} classes"
        return figure(f"{self!r}; those of highest confidence in each class{more}", shown.grid())

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, whole or not at all."""
        return write(path, [self])

    @classmethod
    def load(cls, path: str | Path) -> "Reconstruction":
        """Read what `save` wrote; UserError if it is something else."""
        if not Path(path).is_file():
            raise UserError(f"there are no reconstructions {path}")
        try:
            with safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {})["reconstruction"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            beside = {name: tensors.pop(name) for name in list(tensors) if name.startswith(BESIDE)}
            about["people"] = People.from_json(about.get("people"))
            if not isinstance(about.get("target", ""), str):
                raise ValueError("its target's mark is no text")
            about["failures"] = {int(label): why for label, why in about.get("failures", {}).items()}
            per_class = {name.removeprefix(BESIDE): value for name, value in beside.items()}
            return cls(**tensors, **about, per_class=per_class)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        except (SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path} holds no reconstructions of Lightleak ({error})") from error

    def _rows(self) -> dict[str, Tensor]:
        """Every tensor with a row for each image."""
        rows = {"images": self.pixels, "classes": self.classes, "latents": self.latents, "confidence": self.confidence}
        beside = {"attempts": self.attempts, "large": self.large}
        return rows | {name: value for name, value in beside.items() if value is not None}

    def with_fields(self, **changes: Any) -> "Reconstruction":
        """The same with other fields, as `dataclasses.replace`, but leaving bytes as bytes."""
        return replace(self, **({"images": self.pixels} | changes))

    def _about(self) -> dict[str, Any]:
        """What is no tensor, as JSON data; what stands at its default is left out, but for the oldest three."""
        about = {name: getattr(self, name) for name in ("queries", "seconds", "shared")}
        if self.beforehand:
            about["beforehand"] = self.beforehand
        if not self.redrawn:
            about["redrawn"] = False
        if self.drawn_at:
            about["drawn_at"] = self.drawn_at
        if self.failures:
            about["failures"] = {str(label): why for label, why in self.failures.items()}
        if self.people:
            about["people"] = self.people.to_json()
        if self.target:
            about["target"] = self.target
        return about


@dataclass(frozen=True)
class Drawn:
    """The images of a reconstruction at another size than the target's."""

    found: Reconstruction
    prior: Prior | None

    def __len__(self) -> int:
        return len(self.found)

    @torch.no_grad()
    def floats(self, index: Tensor, device: torch.device | None = None) -> Tensor:
        """The images at `index`, float32 in [0, 1], on `device`."""
        if self.prior is None:
            return self.found.floats(index).to(device or "cpu")
        there = self.prior.device
        latents, classes = self.found.latents[index].to(there), self.found.classes[index].to(there)
        return self.prior.decode(latents, classes).clamp(0, 1).float().to(device or there)


TENSORS = ("images", "classes", "latents", "confidence")
BESIDE = "per_class."
COURSES = ("curve", "radii")  # of searches by queries: how far a class has come with how many


def write(path: str | Path, parts: Sequence[Reconstruction]) -> Path:
    """Write reconstructions, one after the other, as one file, piece by piece; whole or not at all."""
    first, whole = parts[0], _joined_notes(parts)
    kinds = {part.pixels.dtype for part in parts}

    def column(name: str, dtype: torch.dtype | None = None) -> Column:
        tensors = [part._rows()[name] for part in parts]
        shape = (sum(map(len, tensors)), *tensors[0].shape[1:])
        return Column(dtype or tensors[0].dtype, shape, (piece for one in tensors for piece in _pieces(one, dtype)))

    names = _common(parts)
    mixed = torch.uint8 if len(kinds) > 1 else None
    columns = {name: column(name, mixed if name == "images" else None) for name in names}
    if whole["asked"] is not None:
        columns["asked"] = Column(torch.int64, tuple(whole["asked"].shape), [whole["asked"]])
    for name, value in whole["per_class"].items():
        columns[BESIDE + name] = Column(value.dtype, tuple(value.shape), [value])
    notes = {name: value for name, value in whole.items() if name not in ("asked", "per_class")}
    about = first.with_fields(asked=None, per_class={}, **notes)._about()
    metadata = {"reconstruction": json.dumps(about)}
    return publish(path, lambda part: write_pieces(part, columns, metadata), "the reconstructions")


def _common(parts: Sequence[Reconstruction]) -> list[str]:
    """The tensors with a row for each image that all of these have."""
    return [name for name in parts[0]._rows() if all(name in part._rows() for part in parts)]


def _pieces(tensor: Tensor, dtype: torch.dtype | None) -> Iterator[Tensor]:
    for piece in tensor.split(PIECE):
        yield as_bytes(piece) if dtype == torch.uint8 and piece.dtype != torch.uint8 else piece


def _together(courses: Tensor) -> Tensor:
    """The course of several parts of one class's searches, K x P x 2 to P x 2: queries add up, the best counts."""
    return torch.stack([courses[:, :, 0].sum(0), courses[:, :, 1].amax(0)], 1)


def _joined_notes(parts: Sequence[Reconstruction]) -> dict[str, Any]:
    """What reconstructions of several shards say together, beside their rows; what each repeated counts once."""
    shared = max(part.shared for part in parts)
    known = all(part.asked is not None for part in parts)
    names = parts[0].per_class.keys() if known else ()
    return {
        "queries": sum(part.queries - part.shared for part in parts) + shared,
        "seconds": sum(part.seconds for part in parts),
        "shared": shared,
        "beforehand": max(part.beforehand for part in parts),
        "redrawn": all(part.redrawn for part in parts),
        "drawn_at": max(part.drawn_at for part in parts),
        "asked": torch.cat([part.asked for part in parts if part.asked is not None]) if known else None,
        "per_class": {name: torch.cat([part.per_class[name] for part in parts]) for name in names},
        "failures": {label: why for part in parts for label, why in part.failures.items()},
        "people": parts[0].people,
        "target": parts[0].target if len({part.target for part in parts}) == 1 else "",
    }


def join(parts: Sequence[Reconstruction]) -> Reconstruction:
    """Reconstructions of several shards one after the other; queries that each shard repeated count once."""
    if len({part.pixels.dtype for part in parts}) > 1:
        parts = [part.with_fields(images=part.bytes()) for part in parts]
    rows = {name: torch.cat([part._rows()[name] for part in parts]) for name in _common(parts)}
    return Reconstruction(**rows, **_joined_notes(parts))


def merge(parts: Sequence[Reconstruction]) -> Reconstruction:
    """Reconstructions of several shards as one, classes ascending, order within a class kept."""
    whole = join(parts)
    return whole.at(torch.sort(whole.classes, stable=True).indices)


def _most_confident(confidence: Tensor) -> Tensor:
    """The order from most to least confident; NaN comes last."""
    return as_lowest(confidence).argsort(descending=True, stable=True)


def _first_of_each(classes: Tensor, index: Tensor, count: int) -> Tensor:
    """Of `index`, whose classes stand in blocks, the first `count` of each block."""
    if not len(classes):
        return index
    _, lengths = classes.unique_consecutive(return_counts=True)
    starts = torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths)
    return index[torch.arange(len(classes), device=classes.device) - starts < count]
