"""Images of private and public people, and the truth about them where it is known."""

from dataclasses import dataclass
from typing import Literal

import torch
from PIL.Image import Image, fromarray
from torch import Tensor

from lightleak.data.people import People, digest_of
from lightleak.errors import UserError
from lightleak.notebook import figure
from lightleak.place import Place


@dataclass(frozen=True, repr=False)
class Images:
    """A labelled set of square images, held as bytes."""

    pixels: Tensor  # uint8, N x 3 x S x S
    labels: Tensor  # int64, N

    def __post_init__(self) -> None:
        if self.pixels.dtype != torch.uint8 or self.pixels.dim() != 4 or self.pixels.shape[1] != 3:
            how = "images.round().byte()" if of_bytes(self.pixels) else "(images * 255).round().byte()"
            raise UserError(
                f"expected pixels as uint8 of shape N x 3 x S x S, got {self.pixels.dtype} of shape "
                f"{tuple(self.pixels.shape)}; convert with {how}"
            )
        if len(self.labels) != len(self.pixels):
            raise UserError(f"expected one label per image, got {len(self.labels)} for {len(self.pixels)} images")

    def __len__(self) -> int:
        return len(self.pixels)

    def __repr__(self) -> str:
        side = self.pixels.shape[-1]
        return f"Images({len(self)} of {len(self.labels.unique())} classes, {side} x {side} pixels)"

    def grid(self, each: int = 4, people: int = 12) -> Image:
        """A sheet of the first `each` images of each of the first `people` classes, a row for each class."""
        if each < 1 or people < 1:
            raise UserError(f"a grid has at least one class and one image of each, not {people} and {each}")
        labels = self.labels.unique()[:people]
        sheet = torch.full((len(labels), each, 3, self.size, self.size), 255, dtype=torch.uint8)
        for row, label in enumerate(labels):
            own = self.pixels[self.labels == label][:each]
            sheet[row, : len(own)] = own.cpu()
        return fromarray(sheet.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1).numpy())

    def _repr_html_(self) -> str:
        return figure(f"{self!r}; the first images of the first classes", self.grid()) if len(self) else repr(self)

    @property
    def size(self) -> int:
        """Side length in pixels."""
        return self.pixels.shape[-1]

    def floats(self, index: Tensor | slice = slice(None), device: torch.device | None = None) -> Tensor:
        """The images at `index` as float32 in [0, 1], N x 3 x S x S, on `device`; they are moved as bytes."""
        chosen = self.pixels[index.to(self.pixels.device) if isinstance(index, Tensor) else index]
        if device is not None and chosen.device != device:
            chosen = chosen.pin_memory() if device.type == "cuda" else chosen
            chosen = chosen.to(device, non_blocking=True)
        return chosen.float().div_(255)

    def labelled(self, index: Tensor, device: torch.device) -> Tensor:
        """The labels at `index`, on `device`."""
        return self.labels[index.to(self.labels.device)].to(device)

    def on(self, device: torch.device) -> "Images":
        """The same images with their bytes moved to a GPU if they fit there; else unchanged, and they
        are moved in pieces.
        """
        if self.pixels.device == device or not Place(device).holds(self.pixels.numel()):
            return self
        return Images(self.pixels.to(device), self.labels.to(device))

    def at(self, index: Tensor) -> "Images":
        """The subset at `index` (integers or booleans)."""
        return Images(self.pixels[index.to(self.pixels.device)], self.labels[index.to(self.labels.device)])

    def of(self, label: int) -> "Images":
        """Only the images of one class."""
        return self.at(self.labels == label)


@dataclass(frozen=True)
class Finding:
    """Something that a reader should know about a data set, with the files that it concerns."""

    kind: Literal["missing", "unreadable", "duplicate", "overlap", "few", "departure", "division"]
    text: str
    files: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.files:
            return self.text
        return f"{self.text}: {self.files[0] if len(self.files) == 1 else f'such as {self.files[0]}'}"


@dataclass(frozen=True, repr=False)
class Population:
    """Private people (classes 0 to C - 1) in four disjoint sets of images, and public people who are none of them.

    See [population](glossary.md#population).
    """

    name: str
    class_names: tuple[str, ...]
    train: Images
    validation: Images
    test: Images
    judge: Images  # images of the same people that only the judge is trained on
    public: Images  # other people; labels are public identities
    factors: Tensor | None = None  # C x F identity factors in [-1, 1]: the truth, in a rendered world
    public_factors: Tensor | None = None  # one row per public identity
    families: Tensor | None = None  # int64, C: which of the look-alikes belong together; None where all are strangers
    family_factors: Tensor | None = None  # one row per family: its centre, which knows nothing of any member
    notes: tuple[str, ...] = ()  # what was left out while reading, one line each
    findings: tuple[Finding, ...] = ()  # the same with every file's name, as far as files are concerned
    division: str = ""  # how private images are divided: rule and seed; "" where nothing is divided
    pictures: str = ""  # hash of the private pictures, whatever their size; "" where they are drawn

    def __repr__(self) -> str:
        sets = ("train", "validation", "test", "judge", "public")
        told = ", ".join(f"{len(getattr(self, name))} {name}" for name in sets)
        truth = "" if self.factors is None else ", truth known"
        return f"Population({self.name!r}, {self.classes} people, {self.size} pixels, images: {told}{truth})"

    @property
    def people(self) -> People:
        """The people whom the labels mean, as stored with everything made from this population."""
        known = self.factors
        who = "" if known is None else digest_of([known.double().mul(1e4).round().long().numpy().tobytes()])
        return People(self.class_names, who, self.division, self.pictures)

    @property
    def classes(self) -> int:
        """Number of private people."""
        return len(self.class_names)

    @property
    def size(self) -> int:
        """Side length of the images in pixels."""
        return self.train.size


BRIGHT = 16  # no image in [0, 1], noisy or not clamped, has a value above this and none below 0


def of_bytes(images: Tensor) -> bool:
    """Whether images hold values of 0 to 255 where [0, 1] is meant."""
    return images.numel() > 0 and float(images.max()) > BRIGHT and float(images.min()) >= 0


def check_unit(images: Tensor, who: str = "images") -> None:
    """UserError if images that are meant to lie in [0, 1] hold values of 0 to 255."""
    if of_bytes(images):
        low, high = map(float, images.aminmax())
        raise UserError(f"expected {who} with values in [0, 1], came {low:.3g} to {high:.3g}: divide by 255")


def as_bytes(images: Tensor) -> Tensor:
    """Float images in [0, 1] as uint8, rounded to the nearest of 256 levels."""
    return images.detach().clamp(0, 1).mul(255).round().to(torch.uint8).cpu()
