"""Each image's gradient as a length and as a share of a sum, without keeping it: fast gradient clipping.

    1. one backward pass as far as the output of every layer: `slopes`, with the `inputs` of that layer beside it
    2. a layer's gradient for one image is the sum over positions of slope x unfolded input; where that is smaller than
       what it is made of, it is made and kept
    3. elsewhere its length comes from positions alone: sum over i, j of (input i . input j)(slope i . slope j), and the
       sum in which each image has a weight from one product, as for a gradient without privacy
    4. what is neither a plain convolution nor a linear layer is kept by image, as Opacus makes it

2 to 4 cost little beside the pass itself. Lee and Kifer, "Scaling up Differentially Private Deep Learning with Fast
Per-Example Gradient Clipping" (PoPETs 2021); the choice by layer: Bu et al., "Scalable and Efficient Training of Large
Convolutional Neural Networks with Differential Privacy" (NeurIPS 2022).
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

Hooks = Callable[..., Any]  # Opacus's GradSampleHooks
Layer = nn.Conv2d | nn.Linear


class Part(Protocol):
    """One parameter's gradient for each of `count` images."""

    @property
    def count(self) -> int: ...

    def squares(self) -> Tensor:
        """Squared lengths, one per image."""
        ...

    def weighted(self, weights: Tensor) -> Tensor:
        """The sum over images of weight x gradient, of the parameter's shape."""
        ...


@dataclass(frozen=True)
class Kept:
    """Gradients that have been computed, images x shape."""

    gradients: Tensor

    @property
    def count(self) -> int:
        return len(self.gradients)

    def squares(self) -> Tensor:
        return self.gradients.flatten(1).square().sum(1)

    def weighted(self, weights: Tensor) -> Tensor:
        return (weights @ self.gradients.flatten(1)).view(self.gradients.shape[1:])


@dataclass(frozen=True)
class Ghost:
    """Gradients of a layer's weight that are never computed image by image."""

    layer: Layer
    inputs: Tensor
    slopes: Tensor
    lengths: Tensor  # squared

    @property
    def count(self) -> int:
        return len(self.lengths)

    def squares(self) -> Tensor:
        return self.lengths

    def weighted(self, weights: Tensor) -> Tensor:
        slopes = self.slopes * weights.view(-1, *[1] * (self.slopes.dim() - 1))
        if isinstance(self.layer, nn.Linear):
            return slopes.flatten(0, -2).T @ self.inputs.flatten(0, -2)
        how: dict[str, Any] = {name: getattr(self.layer, name) for name in ("stride", "padding", "dilation", "groups")}
        return conv2d_weight(self.inputs, self.layer.weight.shape, slopes, **how)


@dataclass(frozen=True)
class Call:
    """One call of a layer in a forward pass."""

    layer: Layer
    inputs: Tensor
    output: Tensor

    def parts(self, slopes: Tensor, one_by_one: set[Tensor]) -> Iterator[tuple[Tensor, Part]]:
        """2 and 3, for what this layer learns; one by one at least for the parameters given."""
        layer = self.layer
        rows, columns = self._by_position(slopes)
        if layer.bias is not None and layer.bias.requires_grad:
            yield layer.bias, Kept(rows.sum(-1).flatten(1))
        if not layer.weight.requires_grad:
            return
        high, wide, places = rows.shape[-2], columns.shape[-2], rows.shape[-1]
        if layer.weight in one_by_one or high * wide <= places * (high + wide):
            yield layer.weight, Kept((rows @ columns.mT).reshape(len(rows), *layer.weight.shape))
        else:
            lengths = ((rows.mT @ rows) * (columns.mT @ columns)).sum((1, 2, 3)).clamp_min(0)  # rounding goes below
            yield layer.weight, Ghost(layer, self.inputs, slopes, lengths)

    def _by_position(self, slopes: Tensor) -> tuple[Tensor, Tensor]:
        """Slopes and inputs, each images x groups x channels x positions; a layer multiplies them over positions."""
        layer, inputs = self.layer, self.inputs
        if isinstance(layer, nn.Linear):
            rows, columns = (each.reshape(len(each), -1, each.shape[-1]).mT[:, None] for each in (slopes, inputs))
            return rows, columns
        if layer.kernel_size == (1, 1) and layer.padding == (0, 0):
            unfolded = inputs[:, :, :: layer.stride[0], :: layer.stride[1]].flatten(2)
        else:
            unfolded = nn.functional.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # pyright: ignore[reportArgumentType]
        return slopes.flatten(2).unflatten(1, (layer.groups, -1)), unfolded.unflatten(1, (layer.groups, -1))


class Gradients:
    """The gradients of a mean loss by image; `parts` has those of every parameter that the pass went through."""

    def __init__(self, parts: dict[Tensor, Part]):
        self.parts = parts

    def lengths(self) -> Tensor:
        """The length of each image's gradient over all parameters."""
        return torch.stack([part.squares() for part in self.parts.values()]).sum(0).sqrt()

    def weighted(self, weights: Tensor) -> dict[Tensor, Tensor]:
        """The sum over images of weight x gradient."""
        return {parameter: part.weighted(weights) for parameter, part in self.parts.items()}


@contextmanager
def listening(net: nn.Module, hooks_of: Hooks) -> Iterator[Callable[[Tensor, int], Gradients]]:
    """While this is open: from a mean loss over `count` images, made since the last call, to each image's gradient.

    Opacus 1.6 unfolds the input of a convolution by strides, as if it lay in memory as N, C, H, W: of any other layout
    it makes wrong gradients without a word. So every layer that it listens to gets its input in that order, also
    where a network permutes inside.
    """
    every = hooks_of(net)
    listed = list(every.iterate_submodules(net))
    every.cleanup()
    direct = _direct(net, listed)
    taken = {id(each) for each in direct}

    class Rest(hooks_of):  # pyright: ignore[reportGeneralTypeIssues, reportUntypedBaseClass]
        """4: Opacus, on all other layers."""

        def iterate_submodules(self, module: nn.Module) -> Iterator[nn.Module]:
            return (each for each in super().iterate_submodules(module) if id(each) not in taken)

    calls: list[Call] = []

    def remember(layer: Layer, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if output.requires_grad and torch.is_grad_enabled():
            calls.append(Call(layer, inputs[0].detach(), output))

    rest = Rest(net, loss_reduction="sum")
    others = [p for each in rest.iterate_submodules(net) for p in each.parameters() if p.requires_grad]
    handles = [each.register_forward_hook(remember) for each in direct]
    handles += [each.register_forward_pre_hook(_contiguous) for each in rest.iterate_submodules(net)]

    def gradients_of(loss: Tensor, count: int) -> Gradients:
        for parameter in others:
            parameter.grad_sample = None  # pyright: ignore[reportAttributeAccessIssue]
        try:
            # As far as the outputs alone: the gradients of the whole batch, a third of the work, are nobody's.
            found = torch.autograd.grad(loss * count, [each.output for each in calls] + others, allow_unused=True)
            passed = [(call, slopes) for call, slopes in zip(calls, found) if slopes is not None]
        finally:
            calls.clear()
        parts = _joined(passed)
        for parameter in others:
            if (stored := parameter.grad_sample) is not None:  # pyright: ignore[reportAttributeAccessIssue]
                if not isinstance(stored, Tensor):
                    raise ValueError(f"{len(stored)} gradients of {tuple(parameter.shape)} for an image, not one")
                parts[parameter] = Kept(stored)
                parameter.grad_sample = None  # pyright: ignore[reportAttributeAccessIssue]
        return Gradients(parts)

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Full backward hook is firing")  # the images need no gradient
            warnings.filterwarnings("ignore", message="There is a performance drop")  # attention, image by image
            yield gradients_of
    finally:
        rest.cleanup()
        for handle in handles:
            handle.remove()


def _contiguous(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(each.contiguous() if isinstance(each, Tensor) else each for each in inputs)


def _direct(net: nn.Module, listed: list[nn.Module]) -> list[Layer]:
    """The layers that 1 to 3 know, unless what they learn is also learnt by one that they do not know."""
    known: list[Layer] = [each for each in listed if _known(each)]  # pyright: ignore[reportAssignmentType]
    while True:
        ids = {id(each) for each in known}
        elsewhere = {id(p) for m in net.modules() if id(m) not in ids for p in m.parameters(recurse=False)}
        left = [each for each in known if not any(id(p) in elsewhere for p in each.parameters(recurse=False))]
        if len(left) == len(known):
            return known
        known = left


def _known(layer: nn.Module) -> bool:
    """A plain convolution or linear layer: subclasses and hooks may compute what they like with the same weight."""
    if not {name for name, _ in layer.named_parameters(recurse=False)} <= {"weight", "bias"}:
        return False
    if type(layer) is nn.Conv2d:
        return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return type(layer) is nn.Linear


def _joined(passed: list[tuple[Call, Tensor]]) -> dict[Tensor, Part]:
    """The parts of all calls; what several calls share is added up by image, for lengths of sums are no sums."""
    uses = Counter(p for call, _ in passed for p in (call.layer.weight, call.layer.bias) if p is not None)
    shared = {parameter for parameter, times in uses.items() if times > 1}
    parts: dict[Tensor, Part] = {}
    sums: dict[Tensor, Tensor] = {}
    for call, slopes in passed:
        for parameter, part in call.parts(slopes, shared):
            if parameter in shared:
                assert isinstance(part, Kept)
                before = sums.get(parameter)
                sums[parameter] = part.gradients if before is None else before + part.gradients
            else:
                parts[parameter] = part
    return parts | {parameter: Kept(total) for parameter, total in sums.items()}
