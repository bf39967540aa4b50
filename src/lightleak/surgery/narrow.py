"""Narrow the layers that read a cut concatenation."""

from torch import Tensor, nn

from lightleak.surgery.skips import Skip


def narrow(model: nn.Module, example: Tensor, chosen: list[Skip]) -> None:
    pass
