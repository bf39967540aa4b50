"""What a metric is: a function of what was seen of a reconstruction, and how to read and where to show its number."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from lightleak.attacks.reconstruction import Reconstruction
from lightleak.data.population import Population
from lightleak.metrics.evidence import Measure
from lightleak.metrics.reference import Reference
from lightleak.metrics.truth import Truth, Yardstick
from lightleak.models.wrap import Classifier


class Unmeasured(Exception):
    """Raised by a metric's function where it has no number, with the reason in one line."""


@dataclass(frozen=True)
class Seen:
    """One reconstruction of N images, and what the judge and others say of them; what nobody was asked for is None."""

    reconstruction: Reconstruction
    population: Population
    which: Tensor  # int64, P: who was attacked, ascending
    known: Reference  # the same networks' features of the private images
    features: Tensor  # the judge's, N x D
    logits: Tensor  # the judge's, N x C
    embedded: Tensor | None = None  # by the face embedding, N x E
    truth: Truth | None = None  # in a rendered world: each image against the true factors
    scale: Yardstick | None = None
    truth_from: str | None = None  # how it was read off the images: "latents" or "images"
    student: Classifier | None = None  # taught by these images alone
    realism: Mapping[str, Measure] = field(default_factory=dict)  # of the whole set, by metric
    unreal: Mapping[str, str] = field(default_factory=dict)  # why some of it is missing

    @property
    def classes(self) -> Tensor:
        """Whom each image is meant to show, int64, N."""
        return self.reconstruction.classes


# Where a number stands: a column of the page ("table"); paired with the undefended network's ("difference"); drawn
# against natural accuracy ("curve"); kept person by person in record.json ("record"); held against chance ("chance");
# in the table that a page begins with, where there is room for five ("essential").
Place = Literal["table", "difference", "curve", "record", "chance", "essential"]


def _unknown(seen: Seen) -> float | None:  # noqa: ARG001
    return None


@dataclass(frozen=True)
class Metric:
    """One measure of a reconstruction.

    `of` gives one value per image (a tensor of N), or with `over="people"` one per attacked person (P, in the order of
    `seen.which`), or with `over="set"` a Measure of the whole set; it raises Unmeasured where it has none. Means and
    intervals over people are taken of what it gives.
    """

    label: str  # heading of its column
    meaning: str  # one clause
    leak: int  # 1: more is a worse leak, -1: less is, 0: neither
    rate: bool = False  # a share in [0, 1]
    of: Callable[[Seen], Tensor | Measure] = field(kw_only=True)
    over: Literal["images", "people", "set"] = "images"
    chance: Callable[[Seen], float | None] = _unknown  # what a guess or a random person scores; None: not known
    shown: tuple[Place, ...] = ("table",)
    explanation: str = ""  # a paragraph for readers who are new to it
    words: str = ""  # what stands above the heading: what it is to somebody who does not know its name
