"""The step that takes most of a task's time, and how often it is repeated: measured briefly, then multiplied."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from lightleak.priors.fit import FitSettings
from lightleak.priors.prior import Prior


@dataclass(frozen=True)
class Amount:
    """A number of images that go through a network in one way."""

    # A step of training; a look at an image; a step of an attack's search; a step of fitting a generator.
    kind: Literal["train", "look", "search", "fit"]
    images: float = field(compare=False)  # of "fit": steps
    architecture: str = ""
    size: int | None = None
    classes: int = 1000
    batch: int = 64
    precision: str = "auto"
    prior: str = ""  # which one images are made with
    sketch: Callable[[], Prior | None] | None = field(default=None, compare=False)  # it, or one of its size
    fit: FitSettings | None = None

    @property
    def named(self) -> dict[str, Any]:
        """Its name for people to read."""
        return {"kind": self.kind, "network": self.architecture, "pixels": self.size, "batch": self.batch}
