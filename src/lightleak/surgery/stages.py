"""Joins, and the stage of each: a stage is everything that works at one resolution, on all tokens."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from lightleak.notebook import table


@dataclass(frozen=True, repr=False)
class Join:
    """A place where two signals that depend on the image are added or concatenated."""

    name: str  # "layer4.1.add": the module that joins, then which of its joins
    kind: Literal["add", "cat", "product", "other"]  # only the first two can be cut
    owner: str  # the module whose code joins
    method: str  # and which of its methods
    index: int  # which of the method's joins
    operands: int  # how many signals meet
    shortcut: tuple[int, ...]  # positions of the operands that went around
    around: tuple[str, ...]  # the owner's modules which the others went through
    classes: tuple[str, ...]  # the classes of those: "blocks.0.Attention"
    projection: tuple[str, ...]  # modules with weights on the shortcut
    channels: int  # of the joined signal
    resolution: tuple[int, ...]  # (height, width), or (tokens,)
    depth: int  # which of the model's joins, in the order of computation
    stage: int = 0  # of a skip: 1 is the highest resolution; one resolution only: quarters of the depth
    reason: str = ""  # why it is no skip; empty for a skip
    through: tuple[str, ...] = ()  # every module, wherever it lies, that the signals which did not go around passed
    pooled: bool = False  # all that it joins was pooled to one token before

    def __repr__(self) -> str:
        name, kind, stage, channels, resolution = self._row
        what = "Skip" if self.is_skip else "Join"
        return f"{what}({name!r}, {kind}, stage {stage}, {channels} channels, {resolution})"

    @property
    def _row(self) -> tuple[str, str, str, str, str]:
        """The essentials, for people."""
        size = " x ".join(map(str, self.resolution))
        return (self.name, self.kind, str(self.stage or "–"), str(self.channels), size)

    @property
    def is_skip(self) -> bool:
        """Whether one of the signals went around layers, so that it can be cut."""
        return not self.reason

    @property
    def is_stuck(self) -> bool:
        """Whether one of the signals went around layers in a way that surgery cannot cut."""
        return self.kind == "other"


Skip = Join


class Joins(list[Join]):
    """A list that prints one join per line."""

    def __repr__(self) -> str:
        return "[" + ",\n ".join(map(repr, self)) + "]"

    def _repr_html_(self) -> str:
        skips = sum(one.is_skip for one in self)
        others = () if skips == len(self) else ("no skip, because",)
        rows = [(*one._row, one.reason) if others else one._row for one in self]
        title = f"{skips} skips" + (f" and {len(self) - skips} other joins" if others else "")
        return table(title, ("name", "kind", "stage", "channels", "resolution", *others), rows)


def with_stages(joins: list[Join]) -> list[Join]:
    """The joins with their stage, the rank of their resolution; sizes that differ by less than a quarter count as one.

    A network of one resolution is cut into quarters. Heads that work on one token are no stage of their own: what they
    add belongs to the stage before them.
    """
    counted = [join for join in joins if join.is_skip or join.is_stuck]
    head = {id(join) for join in _heads(counted)}
    trunk = [join for join in counted if id(join) not in head]
    sizes = sorted({_size(join) for join in trunk}, reverse=True)
    largest = [size for i, size in enumerate(sizes) if i == 0 or size < 0.75 * sizes[i - 1]]  # of each stage
    order = {id(join): position for position, join in enumerate(trunk)}
    stages: dict[int, int] = {}
    now = 1
    for join in counted:
        if id(join) in order and len(largest) == 1:
            now = 1 + 4 * order[id(join)] // len(trunk)
        elif id(join) in order:
            now = sum(_size(join) <= size for size in largest)
        stages[id(join)] = now
    return [replace(join, stage=stages[id(join)]) if id(join) in stages else join for join in joins]


def _size(join: Join) -> int:
    return math.prod(join.resolution)


def _heads(joins: list[Join]) -> list[Join]:
    """The joins of one token in a network that worked on many before: class attention, attention pooling, pooled maps.

    A pyramid of small images ends in maps of 1 x 1 as well. Its last step is no steeper than those before, and a map of
    pixels stays one; what was pooled, or comes in another layout, or follows a trunk of one resolution is a head.
    """
    many = [join for join in joins if _size(join) > 1]
    one = [join for join in joins if _size(join) == 1]
    if not many or not one:
        return []
    sizes = {_size(join) for join in many}
    steep = min(sizes) > 16
    flat = all(len(join.resolution) == 2 for join in many)
    isotropic = min(sizes) >= 0.75 * max(sizes)

    def is_head(join: Join) -> bool:
        return join.pooled or steep or (len(join.resolution) == 1 and (flat or isotropic))

    return [join for join in one if is_head(join)]
