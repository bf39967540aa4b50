"""Find skip connections by data flow: a join where a signal that went around layers meets the one that went through.

He et al. (CVPR 2016) add the two signals, Huang et al. (CVPR 2017) concatenate them. Neither is looked for by name.
"""

import math
import operator
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightleak.surgery.observe import Observation, Seen, SurgeryError, observe


@dataclass(frozen=True)
class Join:
    """A place where two signals that depend on the image are added or concatenated."""

    name: str  # "layer4.1.add": the module that joins, then which of its joins
    kind: Literal["add", "cat"]
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

    @property
    def is_skip(self) -> bool:
        """Whether one of the signals went around layers."""
        return not self.reason


Skip = Join


def find_skips(model: nn.Module, example: Tensor | None = None) -> list[Skip]:
    """Every additive and concatenative skip of a model, in the order of computation.

    `example`: an image batch, N x 3 x H x W; by default one of the size that the model declares. The model is run once
    and left as it was. Raises SurgeryError where it cannot be run or seen through.
    """
    return [join for join in find_joins(model, example) if join.is_skip]


def find_joins(model: nn.Module, example: Tensor | None = None) -> list[Join]:
    """Every join of two signals: the skips, and with a `reason` those that are none."""
    return joins_of(model, observe(model, prepare(model, example)))


def prepare(model: nn.Module, example: Tensor | None) -> Tensor:
    """An image batch for this model: the given one (two images at least), or one of the model's declared size."""
    weight = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    if example is None:
        config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None) or {}
        config = config if isinstance(config, dict) else vars(config)
        shape = config.get("input_size")
        if shape is None and type(model).__module__.startswith("torchvision."):
            size = 299 if type(model).__name__ == "Inception3" else getattr(model, "image_size", 224)
            shape = (3, size, size)
        if shape is None:
            raise SurgeryError(
                f"{type(model).__name__} does not say what images it reads; pass example=torch.rand(2, 3, H, W)"
            )
        example = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    if example.dim() != 4 or not example.is_floating_point():
        raise SurgeryError(
            f"the example must be float images, N x 3 x H x W, not {tuple(example.shape)} {example.dtype}"
        )
    if len(example) == 1:
        example = example.repeat(2, 1, 1, 1)
    return example.to(weight.device, weight.dtype)


def joins_of(model: nn.Module, seen: Observation) -> list[Join]:
    """The joins of an observed run, told apart into skips and others."""
    flow = _Flow(seen)
    found: dict[tuple, Join] = {}
    for depth, join in enumerate(seen.joins):
        key = (join.place, join.index)
        if key not in found:  # a module that is called again joins the same way
            found[key] = _judge(model, join, flow, seen, depth)
    return _with_stages(_with_names(list(found.values())))


def signals_of(join: Seen) -> list[tuple[Any, int]]:
    """The operands' places in autograd's graph: a function and which of its outputs."""
    return list(zip(join.operands, join.outputs))


class _Flow:
    """What lies behind each signal of autograd's graph, as sets of signals held in integers."""

    def __init__(self, seen: Observation):
        self.seen = seen
        self.number: dict[tuple[Any, int], int] = {}
        self.nodes: list[tuple[Any, int]] = []
        self.behind: list[int] = []
        self.parents: list[list[int]] = []
        for join in seen.joins:
            for signal in (*signals_of(join), (join.result, 0)):
                self._walk(signal)
        self.layers = sum(1 << number for node, number in self.number.items() if node[0] in seen.layers)

    def _walk(self, start: Any) -> None:
        stack = [start] if start[0] is not None else []
        while stack:
            node = stack[-1]
            if node in self.number:
                stack.pop()
                continue
            inputs = [each for each in node[0].next_functions if each[0] is not None]
            missing = [each for each in inputs if each not in self.number]
            if missing:
                stack.extend(missing)
                continue
            stack.pop()
            self.number[node] = len(self.nodes)
            self.nodes.append(node)
            numbers = [self.number[each] for each in inputs]
            self.parents.append(numbers)
            all_behind = 1 << self.number[node]
            for number in numbers:
                all_behind |= self.behind[number]
            self.behind.append(all_behind)

    def of(self, node: Any) -> int:
        """Everything a signal came through, itself included."""
        return self.behind[self.number[node]] if node in self.number else 0

    def members(self, nodes: int) -> list[int]:
        """The numbers in a set, inputs before what was computed from them."""
        return [number for number, bit in enumerate(reversed(bin(nodes))) if bit == "1"]

    def depth(self, nodes: int) -> int:
        """The longest chain of weight layers within a set."""
        if not nodes & self.layers:
            return 0
        longest: dict[int, int] = {}
        for number in self.members(nodes):  # inputs carry smaller numbers
            before = max((longest.get(p, 0) for p in self.parents[number]), default=0)
            longest[number] = before + (self.layers >> number & 1)
        return max(longest.values())

    def modules(self, nodes: int) -> list[str]:
        """The modules that computed a set, in order."""
        inside = (self.seen.inside.get(self.nodes[number][0]) for number in self.members(nodes))
        return list(dict.fromkeys(name for name in inside if name is not None))


def _judge(model: nn.Module, join: Seen, flow: _Flow, seen: Observation, depth: int) -> Join:
    owner = join.place[0]
    sets = [flow.of(signal) for signal in signals_of(join)]
    signals = [i for i, nodes in enumerate(sets) if nodes]
    resolution, channels = _layout(join.shape, seen.shape)
    if join.kind == "cat":
        shortcut, reason = _around_concatenation(join, channels, flow, sets, signals)
    else:
        shortcut, reason = _around_addition(owner, flow, sets, signals)
    main = [i for i in signals if i not in shortcut]
    short_set = _union(sets, shortcut)
    main_set = _union(sets, main)
    children = [_child(owner, name) for name in flow.modules(main_set & ~short_set)]
    around = tuple(dict.fromkeys(child for child in children if child))
    types = (f"{owner}.{type(model.get_submodule(child)).__name__}".lstrip(".") for child in around)
    projected = flow.modules(short_set & ~main_set) if join.kind == "add" else []
    return Join(
        name=join.place[0],
        kind=join.kind,  # type: ignore[arg-type]
        owner=owner,
        method=join.place[1],
        index=join.index,
        operands=len(sets),
        shortcut=tuple(shortcut),
        around=around,
        classes=tuple(dict.fromkeys(types)),
        projection=tuple(n for n in projected if n != owner and list(model.get_submodule(n).parameters())),
        channels=join.shape[channels] if join.shape else 1,
        resolution=resolution,
        depth=depth,
        reason=reason,
    )


def _around_addition(owner: str, flow: _Flow, sets: list[int], signals: list[int]) -> tuple[list[int], str]:
    """Which operand of a sum went around layers: the one that passed fewer, at most half, of those not shared."""
    a, b = signals[:2]
    only = {a: sets[a] & ~sets[b], b: sets[b] & ~sets[a]}
    short, main = sorted((a, b), key=lambda i: flow.depth(only[i]))
    low, high = flow.depth(only[short]), flow.depth(only[main])
    if low < high:
        if low > 1 and 2 * low > high:
            return [], f"parallel branches, {low} and {high} layers deep"
        return [short], ""
    if low:
        return [], f"parallel branches, both {low} layer{'s' * (low > 1)} deep"
    outside = {i: [n for n in flow.modules(only[i]) if n != owner] for i in (a, b)}
    if bool(outside[a]) != bool(outside[b]):  # around modules without weights, such as pooling
        return [a if outside[b] else b], ""
    return [], "arithmetic within a module, around no layer"


def _around_concatenation(
    join: Seen, channels: int, flow: _Flow, sets: list[int], signals: list[int]
) -> tuple[list[int], str]:
    """Which operands of a concatenation another one was computed from."""
    if join.dim != channels:
        return [], f"joins along dimension {join.dim}, not the channels"
    shortcut = []
    for i in signals:
        bit = 1 << flow.number[signals_of(join)[i]]
        if any(sets[j] & bit and flow.depth(sets[j] & ~sets[i]) for j in signals if j != i):
            shortcut.append(i)
    return shortcut, "" if shortcut else "parallel branches, none computed from another"


def _union(sets: list[int], chosen: list[int]) -> int:
    return reduce(operator.or_, (sets[i] for i in chosen), 0)


def _layout(shape: tuple[int, ...], example: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """A signal's resolution and the dimension of its channels; of four, by the image's aspect ratio."""
    if len(shape) == 4:
        height, width = example[2:]
        first, last = (abs(h * width - w * height) for h, w in (shape[2:], shape[1:3]))
        return (shape[2:], 1) if first <= last else (shape[1:3], 3)
    if len(shape) < 3:
        return (1,), len(shape) - 1
    windows = shape[0] // example[0]
    return (max(windows, 1) * math.prod(shape[1:-1]),), len(shape) - 1


def _with_names(joins: list[Join]) -> list[Join]:
    counts: dict[str, int] = {}
    named = []
    for join in joins:
        stem = f"{join.owner}.{join.kind}".lstrip(".")
        count = counts[stem] = counts.get(stem, 0) + 1
        named.append(replace(join, name=stem if count == 1 else f"{stem}_{count}"))
    return named


def _with_stages(joins: list[Join]) -> list[Join]:
    """Stage = rank of the resolution; sizes within a quarter of each other (a class token more) are one."""
    skips = [join for join in joins if join.is_skip]
    sizes = sorted({math.prod(skip.resolution) for skip in skips}, reverse=True)
    stages = [size for i, size in enumerate(sizes) if i == 0 or size < 0.75 * sizes[i - 1]]  # the largest of each
    order = iter(range(len(skips)))

    def stage(join: Join) -> int:
        if len(stages) == 1:
            return 1 + 4 * next(order) // len(skips)
        return sum(math.prod(join.resolution) <= size for size in stages)

    return [replace(join, stage=stage(join)) if join.is_skip else join for join in joins]


def _child(owner: str, name: str) -> str:
    """The owner's direct child in which a module lies; empty for the owner itself and for what lies elsewhere."""
    prefix = f"{owner}." if owner else ""
    if name == owner or not name.startswith(prefix):
        return ""
    return prefix + name[len(prefix) :].split(".")[0]
