"""The trap patterns of Trap-MID, kept as a buffer of the network trained with them."""

from typing import Any

import torch
from torch import nn

from lightleak.errors import UserError
from lightleak.surgery.copies import copied

KIND, DETACHED, NAME = "traps", "no_traps", "trap_patterns"
MOST = 2**31  # values


def attach(net: nn.Module, change: dict[str, Any]) -> nn.Module:
    """A copy of `net` with room for change["classes"] patterns of change["size"] pixels a side."""
    classes, size = int(change["classes"]), int(change["size"])
    if classes < 1 or size < 1 or classes * size * size > MOST // 3:
        raise UserError(f"there are no patterns for {classes} classes of {size} x {size} pixels")
    net = copied(net)
    device = next((parameter.device for parameter in net.parameters()), torch.device("cpu"))
    net.register_buffer(NAME, torch.zeros(classes, 3, size, size, device=device))
    return net


def detach(net: nn.Module, change: dict[str, Any]) -> nn.Module:  # noqa: ARG001
    """A copy of `net` without its patterns."""
    net = copied(net)
    if NAME not in net._buffers:
        raise UserError(f"{type(net).__name__} has no patterns of Trap-MID to take off")
    del net._buffers[NAME]
    return net
