"""The changes made to a network since it was built: an ordered list of plain data that can be replayed.

Surgery is one kind of change among others. A network notes its own surgeries (`surgery.recipe`), and loses the note
where a change puts another module around it; the list of a classifier keeps them all.
"""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from lightleak import surgery
from lightleak.errors import UserError
from lightleak.models import bottleneck, group_norm, low_rank, traps
from lightleak.plugins import Registry

SURGERY = "surgery"
Change = dict[str, Any]  # "kind" and what that kind needs, as JSON data

# How a change that is not surgery is made again: (network, change) -> network.
OURS: dict[str, Callable[[nn.Module, Change], nn.Module]] = {
    "bottleneck": bottleneck.insert,
    "draws": bottleneck.average,
    "group_norm": group_norm.regroup,
    "bias": bottleneck.with_bias,
    "low_rank": low_rank.insert,
    "straight": low_rank.straighten,
    traps.KIND: traps.attach,
    traps.DETACHED: traps.detach,
}
CHANGES: Registry[Callable[[nn.Module, Change], nn.Module]] = Registry(
    "lightleak.changes", OURS, callable, "function of a network and a change that returns the network"
)


def with_surgeries(changes: Iterable[Change], net: nn.Module) -> tuple[Change, ...]:
    """`changes`, followed by those surgeries of `net` that are not yet among them."""
    changes = tuple(changes)
    known = [_step(change) for change in changes if change.get("kind") == SURGERY]
    steps = surgery.recipe(net)
    seen = max(n for n in range(min(len(known), len(steps)) + 1) if known[len(known) - n :] == steps[:n])
    return (*changes, *({"kind": SURGERY, **step} for step in steps[seen:]))


def ordered(surgeries: Iterable[Change], changes: Iterable[Change]) -> tuple[Change, ...]:
    """The changes listed in a checkpoint; older checkpoints stored surgeries separately, and these came first."""
    changes = tuple(changes)
    if any(change["kind"] == SURGERY for change in changes):
        return changes
    return (*({"kind": SURGERY, **step} for step in surgeries), *changes)


def replay(net: nn.Module, changes: Iterable[Change], example: Tensor, source: str) -> nn.Module:
    """Apply all `changes` that the recipe in `source` names to `net` as it was built; UserError for unknown kinds."""
    for change in changes:
        if change["kind"] == SURGERY:
            net = surgery.replay(net, [_step(change)], example)
        elif change["kind"] in CHANGES:
            net = CHANGES[change["kind"]](net, change)
        else:
            raise UserError(f"the recipe in {source} names the unknown change {str(change['kind'])[:60]!r}")
    return net


def _step(change: Change) -> Change:
    return {name: value for name, value in change.items() if name != "kind"}
