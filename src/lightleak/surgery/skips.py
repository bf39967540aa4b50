"""Find skip connections by data flow: a join where a signal that went around layers meets the one that went through.

He et al. (CVPR 2016) add the two signals, Huang et al. (CVPR 2017) concatenate them. Neither is looked for by name.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from lightleak.surgery.flow import (
    Flow,
    Unseen,
    Verdict,
    around_concatenation,
    around_rows,
    around_sum,
    signals_of,
    union,
    unseen,
)
from lightleak.surgery.observe import Observation, observe
from lightleak.surgery.stages import Join, Joins, Skip, with_stages
from lightleak.surgery.through import SurgeryError


def find_skips(model: nn.Module, example: Tensor | None = None) -> list[Skip]:
    """Every additive and concatenative skip of a model, in the order of computation.

    `example`: an image batch, N x 3 x H x W; by default one of the size that the model declares. The model is run once
    and left as it was. Raises SurgeryError where it cannot be run or seen through.
    """
    return Joins(join for join in find_joins(model, example) if join.is_skip)


def find_joins(model: nn.Module, example: Tensor | None = None) -> list[Join]:
    """Every join of two signals: the skips, and the other joins with a `reason` why they are not."""
    return Joins(joins_of(model, observe(model, prepare(model, example))))


def prepare(model: nn.Module, example: Tensor | None) -> Tensor:
    """An image batch for this model: the given one (two images at least), or one of the model's declared size."""
    if not isinstance(model, nn.Module):
        raise SurgeryError(f"expected a network, such as torchvision.models.resnet18(), not {model!r:.60}")
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
    flow = Flow(seen)
    calls: dict[tuple, list[int]] = {}
    for depth, join in enumerate(seen.joins):
        calls.setdefault((join.place, join.index), []).append(depth)  # a module that is called again joins the same way
    found = [(float(depths[0]), _judge(model, flow, depths)) for depths in calls.values()]
    for meeting in unseen(flow):
        behind = flow.of(meeting.result)
        before = [depth for depth, join in enumerate(seen.joins) if flow.of((join.result, 0)) & ~behind == 0]
        found.append((max(before, default=-1) + 0.5, _not_cut(model, flow, meeting, len(seen.joins) + len(found))))
    return with_stages(_with_names([join for _, join in sorted(found, key=lambda each: each[0])]))


def _judge(model: nn.Module, flow: Flow, depths: list[int]) -> Join:
    join, seen = flow.seen.joins[depths[0]], flow.seen
    owner = join.place[0]
    sets = [flow.of(signal) for signal in signals_of(join)]
    signals = [i for i, nodes in enumerate(sets) if nodes]
    resolution, channels = _layout(join.shape, seen.shape)
    if join.kind == "cat":
        verdict = around_concatenation(flow, join, channels, sets, signals)
    else:
        difference = join.form in ("sub", "rsub")
        verdict = around_sum(flow, owner, sets, signals, join.extra, difference)
    kind = join.kind
    if kind == "cat" and not verdict.shortcut and join.dim != channels and (short := around_rows(flow, join, sets)):
        kind = "other"
        reason = f"lets a signal around layers by a concatenation along dimension {join.dim}, which surgery cannot cut"
        verdict = Verdict(short, reason)
    results = union(flow.of((seen.joins[depth].result, 0)) for depth in depths)
    if verdict.shortcut and flow.answer and not results & ~union(sets) & flow.answer:
        verdict = Verdict(reason="what the network answers does not depend on it")
    return _described(
        model,
        flow,
        sets,
        verdict,
        Join(
            name=f"{owner}.{join.form if join.kind == 'add' else 'cat'}".lstrip("."),
            kind=kind,
            owner=owner,
            method=join.place[1],
            index=join.index,
            operands=len(sets),
            shortcut=verdict.shortcut,
            around=(),
            classes=(),
            projection=(),
            channels=join.shape[channels] if join.shape else 1,
            resolution=resolution,
            depth=depths[0],
            reason=verdict.reason,
            pooled=math.prod(resolution) == 1 and flow.all_pooled((join.result, 0)),
        ),
    )


def _not_cut(model: nn.Module, flow: Flow, meeting: Unseen, depth: int) -> Join:
    """What is known of a meeting of signals that surgery cannot cut."""
    function, number = meeting.result
    owner = flow.seen.inside.get(function, "")
    shape = tuple(function._input_metadata[number].shape)
    resolution, channels = _layout(shape, flow.seen.shape)
    around = f"lets a signal around layers by '{meeting.operation}', which surgery cannot cut"
    join = Join(
        name=f"{owner}.{meeting.operation}".lstrip("."),
        kind="product" if meeting.product else "other",
        owner=owner,
        method="",
        index=-1,
        operands=len(meeting.sets),
        shortcut=meeting.verdict.shortcut,
        around=(),
        classes=(),
        projection=(),
        channels=shape[channels] if shape else 1,
        resolution=resolution,
        depth=depth,
        reason="a product: one signal weighs the other" if meeting.product else around,
    )
    return _described(model, flow, list(meeting.sets), meeting.verdict, join)


def _described(model: nn.Module, flow: Flow, sets: list[int], verdict: Verdict, join: Join) -> Join:
    """The join with the modules on either of its sides."""
    owner = join.owner
    short = union(sets[i] for i in verdict.shortcut)
    main = union(nodes for i, nodes in enumerate(sets) if i not in verdict.shortcut)
    passed = flow.modules(main & ~short)
    children = [_child(owner, name) for name in passed]
    around = tuple(dict.fromkeys(child for child in children if child))
    types = (f"{owner}.{type(model.get_submodule(child)).__name__}".lstrip(".") for child in around)
    projected = flow.modules(short & ~main) if join.kind == "add" else []
    return replace(
        join,
        around=around,
        classes=tuple(dict.fromkeys(types)),
        through=tuple(passed),
        projection=tuple(n for n in projected if n != owner and list(model.get_submodule(n).parameters())),
    )


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
        stem = join.name
        count = counts[stem] = counts.get(stem, 0) + 1
        named.append(replace(join, name=stem if count == 1 else f"{stem}_{count}"))
    return named


def _child(owner: str, name: str) -> str:
    """The owner's direct child in which a module lies; empty for the owner itself and for what lies elsewhere."""
    prefix = f"{owner}." if owner else ""
    if name == owner or not name.startswith(prefix):
        return ""
    return prefix + name[len(prefix) :].split(".")[0]
