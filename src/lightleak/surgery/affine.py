"""The algebra of re-parameterisation: affine maps, chained and added.

Convolutions, batch norms in eval mode and the identity are affine and treat every position alike, so each is
a convolution with a bias, and so are their sums and a batch norm's effect on them (Ding et al., RepVGG, CVPR
2021, section 3.3). Weights are computed only when they are needed.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Pair = tuple[int, int]
Weights = Callable[[], tuple[Tensor, Tensor]]
Norm = nn.BatchNorm2d | nn.SyncBatchNorm


@dataclass(frozen=True)
class Affine:
    """A convolution with bias; `weights` gives kernel and bias in double precision."""

    inputs: int
    outputs: int
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    weights: Weights
    like: Tensor  # where the result shall live and in which precision

    @property
    def pointwise(self) -> bool:
        """Whether it only scales and shifts each channel, like a batch norm."""
        still = (self.kernel, self.stride, self.padding) == ((1, 1), (1, 1), (0, 0))
        return still and self.groups == self.inputs == self.outputs

    def module(self) -> nn.Conv2d:
        """The map as a convolution module."""
        kernel, bias = self.weights()
        # No random initialisation: it would move the global random state.
        convolution = nn.Conv2d(
            self.inputs,
            self.outputs,
            self.kernel,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            device="meta",
            dtype=self.like.dtype,
        )
        convolution.weight = nn.Parameter(kernel.to(self.like), requires_grad=self.like.requires_grad)
        convolution.bias = nn.Parameter(bias.to(self.like), requires_grad=self.like.requires_grad)
        return convolution

    def __call__(self, images: Tensor) -> Tensor:
        """What the convolution computes, in double precision."""
        kernel, bias = self.weights()
        return F.conv2d(images.double(), kernel, bias, self.stride, self.padding, self.dilation, self.groups)


def of_layer(layer: nn.Module) -> Affine | None:
    """A convolution or batch norm layer in eval mode as an affine map; None for anything else."""
    affine = _map(layer)
    exact = type(layer) in (nn.Conv2d, nn.BatchNorm2d, nn.SyncBatchNorm)
    return affine if affine and (exact or _agrees(layer)) else None


def _map(layer: nn.Module) -> Affine | None:
    if isinstance(layer, nn.Conv2d):
        return _of_convolution(layer)
    return _of_norm(layer) if isinstance(layer, Norm) else None


def _of_convolution(layer: nn.Conv2d) -> Affine | None:
    kernel, stride, dilation = _pair(layer.kernel_size), _pair(layer.stride), _pair(layer.dilation)
    padding = layer.padding
    if isinstance(padding, str):
        reach = [d * (k - 1) if padding == "same" else 0 for k, d in zip(kernel, dilation)]
        if any(r % 2 for r in reach):  # padded unevenly, which a padding number cannot say
            return None
        padding = tuple(r // 2 for r in reach)
    if layer.padding_mode != "zeros":
        return None

    def weights() -> tuple[Tensor, Tensor]:
        weight = _double(layer.weight)
        return weight, weight.new_zeros(len(weight)) if layer.bias is None else _double(layer.bias)

    inputs, outputs, groups = layer.in_channels, layer.out_channels, layer.groups
    return Affine(inputs, outputs, kernel, stride, _pair(padding), dilation, groups, weights, layer.weight)


def _of_norm(layer: Norm) -> Affine | None:
    mean, variance = layer.running_mean, layer.running_var
    if mean is None or variance is None:  # always the batch's own statistics
        return None

    def weights() -> tuple[Tensor, Tensor]:
        scale = (_double(variance) + layer.eps).rsqrt()
        if layer.affine:
            scale = scale * _double(layer.weight)
        shift = -_double(mean) * scale
        return scale.view(-1, 1, 1, 1), shift + _double(layer.bias) if layer.affine else shift

    return pointwise(layer.num_features, weights, layer.weight if layer.affine else mean)


def _agrees(layer: nn.Module) -> bool:
    """Whether a subclass computes what its parent class would, tried on random weights and small images."""
    layer, rng = copy.deepcopy(layer).to_empty(device="cpu").double().eval(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in [*layer.parameters(), *layer.buffers()]:
            tensor.copy_(0.1 + torch.rand(tensor.shape, generator=rng))
        affine = _map(layer)
        if affine is None:
            return False
        for size in (8, 9):  # even and odd: padding that depends on the size shows
            images = 10 * torch.randn(2, affine.inputs, size, size, generator=rng, dtype=torch.float64)
            try:
                result, expected = layer(images), affine(images)
            except (RuntimeError, ValueError, TypeError):
                return False
            if result.shape != expected.shape or not torch.allclose(result, expected):
                return False
    return True


def pointwise(channels: int, weights: Weights, like: Tensor) -> Affine:
    """The affine map that scales (channels x 1 x 1 x 1) and shifts (channels) each channel."""
    return Affine(channels, channels, (1, 1), (1, 1), (0, 0), (1, 1), channels, weights, like)


def identity(like: Affine) -> Affine:
    """The identity map on the input of another map."""
    ones = _double(like.like.new_ones(like.inputs))
    return pointwise(like.inputs, lambda: (ones.view(-1, 1, 1, 1), ones * 0), like.like)


def chain(first: Affine, second: Affine) -> Affine | None:
    """The second map applied after the first; None unless the second acts on each channel alone.

    After a bias, a second convolution's padding would not be the border of the first one's result.
    """
    if not second.pointwise or second.inputs != first.outputs:
        return None

    def weights() -> tuple[Tensor, Tensor]:
        (kernel, bias), (scale, shift) = first.weights(), second.weights()
        return kernel * scale, bias * scale.flatten() + shift

    return replace(first, weights=weights)


def add(one: Affine, two: Affine) -> Affine | None:
    """The sum of two maps of one value; None if no single convolution does the same."""
    rows, columns = _frame(one, two, 0), _frame(one, two, 1)
    if not (rows and columns) or len({(a.inputs, a.outputs, a.stride) for a in (one, two)}) > 1:
        return None
    kernel, padding, dilation = zip(rows, columns)
    groups = math.gcd(one.groups, two.groups)

    def placed(affine: Affine) -> tuple[Tensor, Tensor]:
        weight, bias = affine.weights()
        top, left = ((k - s) // 2 for k, s in zip(kernel, affine.kernel))
        return F.pad(_regroup(weight, affine.groups, groups), (left, left, top, top)), bias

    def weights() -> tuple[Tensor, Tensor]:
        (first, first_bias), (second, second_bias) = placed(one), placed(two)
        return first + second, first_bias + second_bias

    return Affine(one.inputs, one.outputs, kernel, one.stride, padding, dilation, groups, weights, one.like)


def _frame(one: Affine, two: Affine, axis: int) -> tuple[int, int, int] | None:
    """Kernel size, padding, dilation along an axis of a convolution that holds both around one centre."""
    small, large = sorted((one, two), key=lambda affine: affine.kernel[axis])
    size, padding, dilation = large.kernel[axis], large.padding[axis], large.dilation[axis]
    margin, rest = divmod(padding - small.padding[axis], dilation)
    inner = small.kernel[axis]
    same_grid = inner == 1 or small.dilation[axis] == dilation
    return (size, padding, dilation) if same_grid and rest == 0 and inner + 2 * margin == size else None


def _regroup(weight: Tensor, groups: int, fewer: int) -> Tensor:
    """The same convolution in fewer groups: zeros where a channel was not looked at."""
    parts, (outputs, inputs, *size) = groups // fewer, weight.shape
    blocks = weight.view(fewer, parts, outputs // groups, inputs, *size)
    wide = weight.new_zeros(fewer, parts, outputs // groups, parts, inputs, *size)
    each = torch.arange(parts)
    wide[:, each, :, each] = blocks.transpose(0, 1)
    return wide.view(outputs, parts * inputs, *size)


def _double(tensor: Tensor) -> Tensor:
    place = "cpu" if tensor.device.type == "mps" else tensor.device  # Apple's GPUs have no double precision
    return tensor.detach().to(place, torch.float64)


def _pair(values: tuple[int, ...]) -> Pair:
    first, second = values
    return first, second
