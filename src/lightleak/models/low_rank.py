"""A head that reads features through a few numbers squashed by tanh (LoFt), in place of a network's last layer."""

from typing import Any

import torch
from torch import Tensor, nn

from lightleak.errors import UserError
from lightleak.models.bottleneck import exchanged
from lightleak.surgery.copies import copied


class LowRank(nn.Module):
    """Normalises features N x d, maps them to a few numbers, squashes these by tanh, and computes logits from them."""

    def __init__(self, features: int, rank: int, classes: int, bias: bool = True) -> None:
        super().__init__()
        self.straight = False  # whether the slope of tanh is taken for 1: an attacker's look through it
        self.norm = nn.BatchNorm1d(features)
        self.down = nn.Linear(features, rank)
        self.head = nn.Linear(rank, classes, bias)

    def forward(self, features: Tensor) -> Tensor:
        raw = self.down(self.norm(features))
        squashed = torch.tanh(raw)
        return self.head(raw + (squashed - raw).detach() if self.straight else squashed)


def insert(net: nn.Module, change: dict[str, Any]) -> nn.Module:
    """A copy of `net` whose layer change["head"] is replaced by such a head, change["rank"] numbers wide."""
    name, rank = str(change["head"]), int(change["rank"])
    old = dict(net.named_modules()).get(name)
    if not isinstance(old, nn.Linear):
        raise UserError(f"a head of low rank replaces a linear layer; {name!r} of {type(net).__name__} is none")
    if not 1 <= rank <= 2**16:
        raise UserError(f"a head of low rank is 1 to 65536 numbers wide, not {rank}")
    new = LowRank(old.in_features, rank, old.out_features, old.bias is not None)
    return exchanged(net, name, new.to(old.weight))


def straighten(net: nn.Module, change: dict[str, Any]) -> nn.Module:  # noqa: ARG001
    """A copy of `net` with the same outputs, whose gradients take tanh's slope to be 1 (BPDA)."""
    net = copied(net)
    found = [module for module in net.modules() if isinstance(module, LowRank)]
    if not found:
        raise UserError(f"{type(net).__name__} has no head of low rank; only networks trained with LoFt or CALoR do")
    for module in found:
        module.straight = True
    return net
