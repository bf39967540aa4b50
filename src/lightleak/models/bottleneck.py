"""A variational bottleneck in place of a network's last layer (Alemi et al., ICLR 2017, as used by MID)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightleak.errors import UserError
from lightleak.surgery.copies import copied


class Bottleneck(nn.Module):
    """Turns features into a Gaussian and computes logits from a sample of it, in training and evaluation alike."""

    def __init__(self, features: int, width: int, classes: int, bias: bool = True) -> None:
        super().__init__()
        self.draws = 1  # logits are the mean over so many draws; 0: over infinitely many
        self.statistics = nn.Linear(features, 2 * width)
        self.head = nn.Linear(width, classes, bias)

    def forward(self, features: Tensor) -> Tensor:
        mean, std = moments(self.statistics(features))
        if self.draws:
            # The head is linear, so the mean over n draws is one draw with a deviation smaller by sqrt(n).
            mean = mean + std * torch.randn_like(std) / self.draws**0.5
        return self.head(mean.to(features.dtype))


def moments(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, each N x width, float32; the latter: softplus(x - 5) of the second half of `raw`."""
    mean, spread = raw.float().chunk(2, dim=-1)
    return mean, F.softplus(spread - 5).clamp_min(1e-30)  # softplus underflows to 0, whose logarithm is no number


def divergence(raw: Tensor) -> Tensor:
    """Kullback-Leibler divergence from N(0, I), summed over dimensions, averaged over images, in nats; a scalar."""
    mean, std = moments(raw)
    return -0.5 * (1 + 2 * std.log() - mean.square() - std.square()).sum(-1).mean()


def insert(net: nn.Module, change: dict[str, Any]) -> nn.Module:
    """A copy of `net` whose layer change["head"] is replaced by a bottleneck, change["width"] dimensions wide."""
    name, width = str(change["head"]), int(change["width"])
    old = dict(net.named_modules()).get(name)
    if not isinstance(old, nn.Linear):
        raise UserError(f"a bottleneck replaces a linear layer; {name!r} of {type(net).__name__} is none")
    if not 1 <= width <= 2**16:  # it may be wider than the features, if surgery has narrowed those since
        raise UserError(f"a bottleneck is 1 to 65536 wide, not {width}")
    return exchanged(
        net, name, Bottleneck(old.in_features, width, old.out_features, old.bias is not None).to(old.weight)
    )


def with_bias(net: nn.Module, change: dict[str, Any]) -> nn.Module:
    """A copy of `net` whose linear layer change["head"] gets a bias, initialised at zero."""
    old = net.get_submodule(str(change["head"]))
    if not isinstance(old, nn.Linear) or old.bias is not None:
        raise UserError(f"{change['head']!r} of {type(net).__name__} is no linear layer without a bias")
    new = nn.Linear(old.in_features, old.out_features).to(old.weight)
    new.load_state_dict({"weight": old.weight, "bias": torch.zeros_like(new.bias)})
    return exchanged(net, str(change["head"]), new)


def exchanged(net: nn.Module, name: str, layer: nn.Module) -> nn.Module:
    """A copy of `net` with the module of that name replaced by `layer`."""
    net = copied(net)
    parent, _, child = name.rpartition(".")
    setattr(net.get_submodule(parent), child, layer)
    return net


def average(net: nn.Module, change: dict[str, Any]) -> nn.Module:
    """A copy of `net` whose bottleneck averages over change["draws"] draws; 0 switches the noise off."""
    draws = int(change["draws"])
    if draws < 0:
        raise UserError(f"a bottleneck averages over 0 (no noise), 1 or more draws, not {draws}")
    net = copied(net)
    found = [module for module in net.modules() if isinstance(module, Bottleneck)]
    if not found:
        raise UserError(f"{type(net).__name__} has no bottleneck to average over; only networks trained with MID do")
    for module in found:
        module.draws = draws
    return net
