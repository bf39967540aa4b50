"""Copy a network, even one that has kept tensors of an earlier run.

Some networks keep what they computed on a plain attribute: LeViT, TinyViT, EfficientViT and EfficientFormer their
attention biases of the last evaluation, others the maps of an image. Such tensors belong to autograd's graph, and
`copy.deepcopy` refuses them; the copy keeps their numbers.
"""

import copy
from typing import Any, TypeVar

from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def copied(model: Network, shared: dict[int, Any] | None = None) -> Network:
    """An independent copy of a network; `shared`: objects that both are to use, by id."""
    memo = dict(shared or {})
    seen: set[int] = set()
    for module in model.modules():
        for value in vars(module).values():
            _leave_graph(value, memo, seen)
    return copy.deepcopy(model, memo)


def _leave_graph(value: Any, memo: dict[int, Any], seen: set[int]) -> None:
    """Note, for every tensor in a container that autograd has made, a copy outside its graph."""
    if id(value) in seen or isinstance(value, nn.Module):
        return
    if isinstance(value, Tensor):
        if not value.is_leaf:
            memo.setdefault(id(value), value.detach().clone())
        return
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple, set)) else ()
    if parts:
        seen.add(id(value))
    for part in parts:
        _leave_graph(part, memo, seen)
