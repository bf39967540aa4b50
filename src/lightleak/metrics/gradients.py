"""How much of the gradient runs through the shortcuts, and how much through the layers that they go around.

Koh et al. ("On the Vulnerability of Skip Connections to Model Inversion Attacks", ECCV 2024), equation 2: before a
block z' = z + F(z), dL/dz = dL/dz' (1 + dF/dz). The two terms are the gradients through shortcut and block.
"""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.nn import functional as F

from lightleak.errors import UserError
from lightleak.surgery.observe import Seen, observe
from lightleak.surgery.skips import Skip, joins_of

Loss = Callable[[Tensor, Tensor], Tensor]  # logits N x classes, labels N -> a sum over the images
Edge = tuple[Any, int]  # a value in autograd's graph: the node that made it, and which of the node's results


@dataclass(frozen=True)
class GradientShare:
    """The two terms of equation 2 at one skip, where signal and shortcut part; means over the images."""

    skip: str
    stage: int
    arriving: float  # norm of the gradient at the join, dL/dz'
    shortcut: float  # norm of the term through the shortcut
    block: float  # norm of the term through the block
    cosine: float  # between the two terms
    share: float  # shortcut / (shortcut + block), in [0, 1]


def gradient_shares(
    model: nn.Module, images: Tensor, labels: Tensor | None = None, loss: Loss | None = None
) -> tuple[GradientShare, ...]:
    """One row for each skip of the model, in the order of computation; none for a network without skips.

    `images`: as the model takes them, N x 3 x H x W; `labels`: N classes, by default those the model predicts;
    `loss`: by default the sum of cross-entropies. The model, cut or not, runs in eval mode and is left as it was.
    At a concatenation, the shortcut's term is what comes back to the older maps directly, and the block's term what
    comes back to the same maps through the newest. Raises UserError for labels that do not fit.
    """
    seen = observe(model, images)
    logits = seen.output
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(images):
        raise UserError(f"expected a classifier with logits N x classes, got {_shape(logits)} for {len(images)} images")
    labels = logits.argmax(1) if labels is None else labels.to(logits.device)
    if labels.shape != (len(images),):
        raise UserError(f"expected one label for each of the {len(images)} images, got {tuple(labels.shape)}")
    skips = [join for join in joins_of(model, seen) if join.is_skip]
    joins = [seen.joins[skip.depth] for skip in skips]
    if not skips:
        return ()
    with torch.enable_grad():
        value = (loss or _cross_entropy)(logits, labels)
    results = [GradientEdge(join.result, 0) for join in joins]
    arriving = torch.autograd.grad(value, results, retain_graph=True, allow_unused=True)
    return tuple(
        _row(skip, join, gradient, len(images))
        for skip, join, gradient in zip(skips, joins, arriving)
        if gradient is not None  # an auxiliary head's skip, which these logits do not depend on
    )


def stage_shares(shares: Iterable[GradientShare], like: Iterable[GradientShare] = ()) -> dict[int, float]:
    """The mean share of the shortcuts in each stage.

    `like`: the rows of the network before surgery; its stages are then used, and a skip that is gone counts 0.
    """
    rows, after = list(like), list(shares)
    if rows:
        now = {row.skip: row.share for row in after}
        pairs = [(row.stage, now.get(row.skip, 0.0)) for row in rows]
    else:
        pairs = [(row.stage, row.share) for row in after]
    stages = sorted({stage for stage, _ in pairs})
    members = {stage: [share for other, share in pairs if other == stage] for stage in stages}
    return {stage: sum(each) / len(each) for stage, each in members.items()}


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="sum")


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def _row(skip: Skip, join: Seen, arriving: Tensor, images: int) -> GradientShare:
    through_shortcut, through_block = _terms(skip, join, arriving)
    # A map that the block does not read itself gets nothing from it.
    block_there = [through_block.get(edge, torch.zeros_like(each)) for edge, each in through_shortcut.items()]
    one, two = _flat(list(through_shortcut.values()), images), _flat(block_there, images)
    shortcut, block = one.norm(dim=1), two.norm(dim=1)
    return GradientShare(
        skip=skip.name,
        stage=skip.stage,
        arriving=_flat([arriving], images).norm(dim=1).mean().item(),
        shortcut=shortcut.mean().item(),
        block=block.mean().item(),
        cosine=F.cosine_similarity(one, two, dim=1).mean().item(),
        share=(shortcut / (shortcut + block).clamp(min=torch.finfo(block.dtype).tiny)).mean().item(),
    )


def _flat(gradients: list[Tensor], images: int) -> Tensor:
    """One row for each image; windows and tokens of an image follow one another."""
    rows = images if all(len(each) % images == 0 for each in gradients if each.dim()) else 1
    return torch.cat([each.reshape(rows, -1) for each in gradients], 1).double()


def _terms(skip: Skip, join: Seen, arriving: Tensor) -> tuple[dict[Edge, Tensor], dict[Edge, Tensor]]:
    """The join's gradient, pulled back through either side to where the two sides part."""
    edges: list[Edge] = [edge for edge in join.result.next_functions if edge[0] is not None]
    signals = [i for i, operand in enumerate(join.operands) if operand is not None]
    if [edge[0] for edge in edges] != [join.operands[i] for i in signals]:
        raise UserError(f"'{skip.name}' writes its result into a part of another signal, which cannot be followed back")
    pulled = [each for each in _backward(join.result, [arriving]) if each is not None]
    sides: tuple[dict[Edge, Tensor], dict[Edge, Tensor]] = {}, {}
    for i, edge, gradient in zip(signals, edges, pulled):
        _add(sides[i not in skip.shortcut], edge, gradient)
    behind = [_behind(edge[0] for edge in side) for side in sides]
    return _pull(sides[0], behind[0] - behind[1]), _pull(sides[1], behind[1] - behind[0])


def _behind(nodes: Iterable[Any]) -> set[Any]:
    """Everything that a value was computed from."""
    found, stack = set(), list(nodes)
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack.extend(each for each, _ in node.next_functions if each is not None)
    return found


def _pull(gradients: dict[Edge, Tensor], region: set[Any]) -> dict[Edge, Tensor]:
    """Pull gradients back through a region of autograd's graph, to the values at which it begins.

    Autograd itself would go on to every path around the region; here, a value on its border keeps what arrived.
    """
    border: dict[Edge, Tensor] = {}
    waiting: dict[Any, dict[int, Tensor]] = {}
    order: list[tuple[int, int, Any]] = []  # the latest first, when all that read it are done

    def arrive(edge: Edge, gradient: Tensor) -> None:
        node, number = edge
        if node not in region:
            _add(border, edge, gradient)
            return
        if node not in waiting:
            waiting[node] = {}
            heapq.heappush(order, (-node._sequence_nr(), id(node), node))
        _add(waiting[node], number, gradient)

    for edge, gradient in gradients.items():
        arrive(edge, gradient)
    while order:
        node = heapq.heappop(order)[2]
        results = waiting.pop(node)
        arrived = [results.get(number) for number in range(len(node._input_metadata))]
        for edge, gradient in zip(node.next_functions, _backward(node, arrived)):
            if edge[0] is not None and gradient is not None:
                arrive(edge, gradient)
    return border


def _backward(node: Any, gradients: list[Tensor | None]) -> list[Tensor | None]:
    """One node's own step of the chain rule, with broadcasting undone as autograd's engine does."""
    with torch.no_grad():
        results = node(*gradients)
    results = results if isinstance(results, tuple) else (results,)
    return [
        gradient.sum_to_size(edge[0]._input_metadata[edge[1]].shape) if gradient is not None and edge[0] else None
        for gradient, edge in zip(results, node.next_functions)
    ]


def _add(gradients: dict[Any, Tensor], key: Any, gradient: Tensor) -> None:
    gradients[key] = gradients[key] + gradient if key in gradients else gradient
