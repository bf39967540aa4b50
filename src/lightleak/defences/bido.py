"""BiDO: hidden layers depend little on the image and much on the label.

Peng et al., "Bilateral Dependency Optimization: Defending Against Model-inversion Attacks" (KDD 2022).

    loss = cross-entropy + sum over layers Z of  lambda_x d(X, Z) - lambda_y d(Z, Y)

    K = exp(-|a_i - a_j|^2 / (2 sigma^2 D)) for images X and layers Z of D values;  K = Y Y' for one-hot labels
    HSIC   R = HKH (HKH + ridge m I)^-1,  d(A, B) = trace(R_A R_B)        m images, H = I - 11'/m
    COCO   d(A, B) = sqrt( |HK_A H HK_B H|_F ) / m

Deviations from the published code: kernels are computed where the tensors live, each of them once per step and
factorised together (there: on the CPU, 20 inversions instead of 7); K is centred on both sides, which gives the same
value and a symmetric matrix; the measure that is asked for is the one used (there: always HSIC). As there, COCO takes
the Frobenius norm, where the literature has the largest singular value.
"""

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightleak.errors import UserError
from lightleak.models.bottleneck import Bottleneck
from lightleak.models.classifier import Classifier
from lightleak.place import Place, precise
from lightleak.surgery.observe import undone
from lightleak.training.plan import Batch, Plan, Term
from lightleak.training.recipes import Recipe

Measure = Literal["hsic", "coco"]
PUBLISHED = {"hsic": (0.05, 0.5), "coco": (1.0, 50.0)}  # lambda_x, lambda_y: CelebA with VGG-16; MNIST


@dataclass(frozen=True)
class BiDO:
    """Bilateral Dependency Optimization."""

    measure: Measure = "hsic"
    lambda_x: float | None = None  # weight of d(X, Z), minimised; None: as published for the measure
    lambda_y: float | None = None  # weight of d(Z, Y), maximised
    layers: tuple[str, ...] = ()  # names of modules; (): the last of each resolution, and the features
    sigma: float = 5.0
    ridge: float = 1e-5
    title: ClassVar[str] = "BiDO"

    def __post_init__(self) -> None:
        problems = []
        if self.measure not in PUBLISHED:
            raise UserError(f"BiDO measures dependence by {' or '.join(get_args(Measure))}, not {self.measure!r}")
        if not min(self.weights) >= 0:
            problems.append(f"its weights are at least 0, not lambda_x {self.weights[0]}, lambda_y {self.weights[1]}")
        elif not any(self.weights):
            problems.append("with lambda_x and lambda_y both 0 it would change nothing")
        if not (self.sigma > 0 and self.ridge > 0):
            problems.append(f"sigma and ridge are above 0, not {self.sigma} and {self.ridge}")
        if problems:
            raise UserError(f"BiDO: {'; '.join(problems)}")

    @property
    def weights(self) -> tuple[float, float]:
        """lambda_x and lambda_y."""
        x, y = PUBLISHED[self.measure]
        return x if self.lambda_x is None else self.lambda_x, y if self.lambda_y is None else self.lambda_y

    def plan(self, recipe: Recipe) -> Plan:  # noqa: ARG002
        x, y = self.weights
        weights = {f"{self.measure}_image": x, f"{self.measure}_label": -y}
        return Plan(terms=(Term(weights, self.watched, self._measure),))

    def watched(self, classifier: Classifier) -> tuple[str, ...]:
        """The layers Z by name; UserError that proposes some if a name is wrong."""
        shapes = _shapes(classifier)
        wrong = [name for name in self.layers if name not in shapes]
        if wrong:
            near = difflib.get_close_matches(wrong[0], shapes, 3)
            raise UserError(
                f"BiDO finds no layer {wrong[0]!r} that {type(classifier.net).__name__} runs before its head; "
                f"by default it takes {', '.join(_stages(classifier, shapes))}"
                + (f"; close to yours are {', '.join(near)}" if near else "")
            )
        found = self.layers or _stages(classifier, shapes)
        if not found:
            raise UserError(
                f"BiDO finds no stages in {type(classifier.net).__name__}, nor blocks throughout it; name its layers"
            )
        return found

    def _measure(self, batch: Batch, outputs: list[Tensor]) -> dict[str, Tensor]:
        labels = F.one_hot(batch.labels, batch.classifier.classes)
        kernels = [linear_kernel(labels)]
        kernels += [gaussian_kernel(values, self.sigma) for values in (batch.images, *outputs)]
        image, label = dependence(torch.stack(kernels), self.measure, self.ridge)
        place = Place(batch.images.device)
        return {
            f"{self.measure}_image": image.to(place.device, place.finest),
            f"{self.measure}_label": label.to(place.device, place.finest),
        }


def gaussian_kernel(values: Tensor, sigma: float = 5.0) -> Tensor:
    """Gaussian kernel of m examples of D values each, m x m, float64; its bandwidth grows with D."""
    values = values.flatten(1)
    values = values if values.dtype == torch.float64 else values.float()
    values = values - values.mean(0)  # leaves distances alone and spares the next line its cancellation
    inner = precise(values @ values.T)
    square = inner.diagonal()
    distance = (square[:, None] + square[None, :] - 2 * inner).clamp_min(0)
    return torch.exp(-distance / (2 * sigma**2 * values.shape[1]))


def linear_kernel(values: Tensor) -> Tensor:
    """Inner products of m examples, m x m, float64."""
    values = precise(values.flatten(1))
    return values @ values.T


def dependence(kernels: Tensor, measure: Measure = "hsic", ridge: float = 1e-5) -> tuple[Tensor, Tensor]:
    """Sums over layers Z of d(X, Z) and of d(Z, Y), from the kernels of Y, X, Z1, Z2, ... stacked: L + 2 x m x m."""
    size = kernels.shape[-1]
    centred = kernels - kernels.mean(-1, keepdim=True)
    centred = centred - centred.mean(-2, keepdim=True)
    if measure == "hsic":
        # One batched factorisation of them all: K (K + e)^-1 = 1 - e (K + e)^-1. float64, for e is 1e-5 of K's scale.
        shift = ridge * size * torch.eye(size, dtype=kernels.dtype, device=kernels.device)
        factor, _ = torch.linalg.cholesky_ex(centred + shift)
        label, image, *layers = torch.eye(size).to(shift) - ridge * size * torch.cholesky_inverse(factor)
        return (sum((image * each).sum() for each in layers), sum((label * each).sum() for each in layers))  # pyright: ignore[reportReturnType]
    label, image, *layers = centred

    def coco(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b).square().sum().clamp_min(1e-60) ** 0.25 / size  # the root has no slope at 0: a dead layer

    return sum(coco(image, each) for each in layers), sum(coco(label, each) for each in layers)  # pyright: ignore[reportReturnType]


def _shapes(classifier: Classifier) -> dict[str, tuple[int, ...]]:
    """The output shape of each module that gives one tensor, in the order in which they end, before the head."""
    shapes: dict[str, tuple[int, ...]] = {}
    reached: list[nn.Module] = []
    heads = [classifier.net.get_submodule(name) for name in classifier.heads or (classifier.head_name,)]

    def note(name: str, output: object) -> None:
        if isinstance(output, Tensor) and not reached:
            shapes.pop(name, None)
            shapes[name] = tuple(output.shape)

    handles = [head.register_forward_pre_hook(lambda module, _: reached.append(module)) for head in heads]
    for name, module in classifier.net.named_modules():
        handles.append(module.register_forward_hook(lambda _module, _inputs, output, name=name: note(name, output)))
    try:
        with undone(classifier), torch.no_grad():
            classifier.net(classifier.example)
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def _stages(classifier: Classifier, shapes: dict[str, tuple[int, ...]]) -> tuple[str, ...]:
    """The last module at each resolution below the image's; where there is but one, the quarters of the blocks.

    Nothing where all of them lie in one block, so that the rest of the network would not be watched.
    """
    net, order = classifier.net, list(shapes)
    units = [name for name in _units(net, shapes) if _of_images(shapes[name], classifier)]
    last: dict[int, str] = {}
    for name in units:
        last.pop(side := _side(shapes[name]), None)
        last[side] = name
    features = (last[1],) if 1 in last else ()
    maps = tuple(name for side, name in last.items() if side not in (1, classifier.size))
    blocks = _quarters(shapes, lambda name: name.rpartition(".")[0])
    blocks = () if _in_one_block(net, blocks, order) else blocks
    tokens = any(len(shapes[name]) == 3 for name in units)
    if tokens and _span(blocks, order) > 0.5:  # of one resolution, whatever made them
        return (*blocks, *features)
    beside = tokens and len(maps) > 1 and order.index(maps[0]) > len(order) / 2  # all resolutions last to the end
    if len(maps) > 1 and not beside and not _in_one_block(net, maps, order):
        return maps + features
    blocks = blocks or _quarters(shapes, lambda name: re.sub(r"\b\d+\b", "*", name)) or maps
    return () if _in_one_block(net, blocks, order) else (*blocks, *features)


def _span(names: Sequence[str], order: list[str]) -> float:
    """The share of a run between the first and the last of some layers."""
    return (order.index(names[-1]) - order.index(names[0])) / len(order) if names else 0.0


def _quarters(shapes: dict[str, tuple[int, ...]], kind: Callable[[str], str]) -> tuple[str, ...]:
    """The ends of the quarters of the longest row of blocks of one kind and shape; () if no row has four.

    Of rows as long, it is the shallowest, and of these the one that ends last.
    """
    rows: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for name, shape in shapes.items():
        rows.setdefault((kind(name), shape), []).append(name)
    order = {name: place for place, name in enumerate(shapes)}
    row = max(rows.values(), key=lambda row: (len(row), -row[0].count("."), order[row[-1]]), default=[])
    return tuple(row[round(len(row) * part / 4) - 1] for part in (1, 2, 3, 4)) if len(row) >= 4 else ()


def _of_images(shape: tuple[int, ...], classifier: Classifier) -> bool:
    """Whether an output has a row for each image and, of square images, square maps; heads and windows have not."""
    square = len(shape) != 4 or classifier.sides is not None or shape[2] in (shape[1], shape[3])
    return shape[0] == len(classifier.example) and square


def _in_one_block(net: nn.Module, names: Sequence[str], order: list[str]) -> bool:
    """Whether several layers lie within one of several blocks of a row, which is not most of the network itself."""
    if len(names) < 2 or _span(names, order) > 0.5:
        return False
    shared: list[str] = []
    for parts in zip(*(name.split(".") for name in names)):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    rows = (net.get_submodule(".".join(shared[:depth])) for depth in range(len(shared)))
    return any(_plain(row) and len(list(row.children())) > 1 for row in rows)


def _units(net: nn.Module, shapes: dict[str, tuple[int, ...]]) -> list[str]:
    """The modules of the main path, in order: children; of plain sequences and of what holds the head, theirs."""

    def opened(name: str, child: nn.Module) -> bool:
        return _plain(child) or (name not in shapes and not isinstance(child, Bottleneck))

    def within(module: nn.Module, prefix: str) -> list[str]:
        names = []
        for name, child in module.named_children():
            path = prefix + name
            names += within(child, f"{path}.") if opened(path, child) else [path]
        return names

    found = set(within(net, ""))
    units = [name for name in shapes if name in found]
    if not any(_side(shapes[name]) > 1 for name in units):  # a network inside a wrapper
        deeper = {name: within(net.get_submodule(name), f"{name}.") for name in found}
        found = {name for names in deeper.values() for name in names}
        units = [name for name in shapes if name in found or name in units]
    return units


def _plain(module: nn.Module) -> bool:
    """Whether a module does nothing but hold others, or run them one after the other."""
    return isinstance(module, nn.ModuleList) or type(module).forward is nn.Sequential.forward


def _side(shape: Sequence[int]) -> int:
    """Side of a square map, channels first or last, or of as many tokens, give or take a class's; 1 for features."""
    return shape[2] if len(shape) == 4 else isqrt(shape[1]) if len(shape) == 3 else 1
