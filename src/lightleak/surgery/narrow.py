"""Narrow the layers that read a cut concatenation to the channels that are left, keeping the right columns.

The cut model runs once on the example. Every signal that lost channels remembers which ones it still has; a layer that
meets it is cut to the columns of those before it computes. So a trained DenseNet can be cut, not only a new one.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode, handle_torch_function, has_torch_function
from torch.utils._pytree import tree_leaves, tree_map

from lightleak.surgery.joins import CONCATENATIONS, ELEMENTWISE, read
from lightleak.surgery.observe import call, undone

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
CONTRACTIONS = {
    *(F.conv1d, F.conv2d, F.conv3d, F.linear, torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__),
    *(torch.bmm, torch.Tensor.bmm, torch.einsum, F.scaled_dot_product_attention, torch.conv2d, torch.mm),
}
MOVES = {
    *("permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims", "flip", "roll", "channel_shuffle"),
    *("view", "view_as", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "contiguous", "clone"),
    *("chunk", "split", "tensor_split", "unbind", "narrow", "__getitem__", "expand", "repeat"),
}


def concatenate(
    maps: list[Tensor | None],
    widths: tuple[int, ...],
    older: tuple[int, ...],
    factor: float,
    dim: int,
    masked: bool = False,
    surgery: int = 0,
) -> Tensor:
    """A cut concatenation: of each older map the first `round(factor * C)` channels (Koh et al., equation 8).

    `widths` are those of the uncut network; None stands for a map that is not needed any more. With `masked`, what is
    cut is zero instead of absent, for readers that need the full width. `surgery` says which of the model's surgeries
    this was: readers are narrowed once. Python rounds halves to even.
    """
    if has_torch_function([m for m in maps if m is not None]):
        present = [m for m in maps if m is not None]
        return handle_torch_function(concatenate, present, maps, widths, older, factor, dim, masked, surgery)
    like = next(m for m in maps if m is not None)
    dim %= like.dim()
    parts = []
    for i, (each, width) in enumerate(zip(maps, widths)):
        kept = 0 if each is None else round(factor * each.shape[dim]) if i in older else each.shape[dim]
        if each is not None and kept:
            parts.append(each.narrow(dim, 0, kept))
        if masked and kept < width:
            shape = [*like.shape[:dim], width - kept, *like.shape[dim + 1 :]]
            parts.append(like.new_zeros(shape))
    return torch.cat(parts, dim)


class Refusal(Exception):
    """A reader needs the full width."""


class _Again(Exception):
    """A layer that had run already was narrowed; run once more."""


@dataclass(frozen=True)
class _Kept:
    """Which of the original channels a signal still has."""

    dim: int
    index: Tensor
    width: int  # of the uncut signal

    def is_same(self, other: "_Kept | None") -> bool:
        return other is not None and self.width == other.width and torch.equal(self.index, other.index)


def narrow(model: nn.Module, example: Tensor, surgery: int) -> None:
    """Narrow, in place, whatever reads a concatenation cut in this surgery.

    Raises Refusal where a reader needs the full width.
    """
    outputs: dict[nn.Module, _Kept] = {}
    attributes: dict[tuple[nn.Module, str], Any] = {}
    done: dict[nn.Module, _Kept] = {}
    for _ in range(10_000):
        follow = _Follow(model, surgery, outputs, done, attributes)
        try:
            with undone(model), torch.no_grad(), follow.hooks(), follow:
                output = call(model, example)
        except _Again:
            continue
        finally:
            for (module, name), value in attributes.items():
                setattr(module, name, value)
        if any(_kept(t) is not None for t in tree_leaves(output) if isinstance(t, Tensor)):
            raise Refusal("the output itself was cut")
        for kept in (kept for layer, kept in done.items() if isinstance(layer, nn.Linear)):
            for name in ("num_features", "head_hidden_size"):  # from which timm's reset_classifier builds anew
                if vars(model).get(name) == kept.width:
                    setattr(model, name, len(kept.index))
        return
    raise Refusal("narrowing found no end")


def _kept(value: Any) -> _Kept | None:
    return value.__dict__.get("kept") if isinstance(value, Tensor) else None


def _mark(value: Tensor, kept: _Kept | None) -> Tensor:
    if kept is not None and len(kept.index) == kept.width:
        kept = None
    value.kept = kept  # type: ignore[attr-defined]
    return value


class _Follow(TorchFunctionMode):
    """Follow which channels each signal still has, and narrow what reads it."""

    def __init__(
        self,
        model: nn.Module,
        surgery: int,
        outputs: dict[nn.Module, _Kept],
        done: dict[nn.Module, _Kept],
        attributes: dict[tuple[nn.Module, str], Any],
    ):
        super().__init__()
        self.model, self.surgery = model, surgery
        self.outputs, self.done, self.attributes = outputs, done, attributes
        self.holders = {id(p): (m, n) for m in model.modules() for n, p in m._parameters.items() if p is not None}

    @contextmanager
    def hooks(self) -> Iterator[None]:
        handles = []
        for module in self.model.modules():
            if isinstance(module, (*CONVOLUTIONS, nn.Linear, *NORMS)):
                handles.append(module.register_forward_pre_hook(self.before))
                handles.append(module.register_forward_hook(self.after))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    # layers

    def before(self, module: nn.Module, args: tuple) -> None:
        kept = _kept(args[0]) if args else None
        if kept is None:
            return
        if module in self.done:
            if not kept.is_same(self.done[module]):
                raise Refusal("a shared layer reads signals that were cut differently")
            return
        if isinstance(module, NORMS):
            self.narrow_norm(module, kept.index)
        elif isinstance(module, nn.Linear):
            if kept.dim != args[0].dim() - 1:
                return
            module.weight = _part(module.weight, kept.index, 1)
            self.note(module, in_features=len(kept.index))
        else:
            self.narrow_convolution(module, kept)
        self.done[module] = kept

    def after(self, module: nn.Module, args: tuple, output: Any) -> None:
        if not isinstance(output, Tensor):
            return
        before = args[0].__dict__.get("makers", ()) if args and isinstance(args[0], Tensor) else ()
        layer = not isinstance(module, NORMS)
        made_by = (module,) if layer else (*before, module) if before else ()
        output.makers = made_by  # type: ignore[attr-defined]
        if layer:
            _mark(output, self.outputs.get(module))

    def note(self, module: nn.Module, **values: Any) -> None:
        """Set a module's attributes that state its widths; again after the run, which restores attributes."""
        for name, value in values.items():
            setattr(module, name, value)
            self.attributes[module, name] = value

    def narrow_norm(self, norm: Any, index: Tensor) -> None:
        if isinstance(norm, nn.GroupNorm) and norm.num_groups > 1:
            raise Refusal("a group norm needs the full width")
        for name in ("weight", "bias", "running_mean", "running_var"):
            if getattr(norm, name, None) is not None:
                setattr(norm, name, _part(getattr(norm, name), index, 0))
        if isinstance(norm, nn.LayerNorm):
            self.note(norm, normalized_shape=(len(index),))
        else:
            self.note(norm, **{"num_channels" if isinstance(norm, nn.GroupNorm) else "num_features": len(index)})

    def narrow_convolution(self, layer: Any, kept: _Kept) -> None:
        """Drop a convolution's input channels; of a grouped one, whole groups."""
        index, groups = kept.index, layer.groups
        if groups == 1:
            layer.weight = _part(layer.weight, index, 1)
            self.note(layer, in_channels=len(index))
            return
        size = layer.in_channels // groups
        left = torch.unique(index // size)
        if len(left) * size != len(index):
            raise Refusal("a grouped convolution would lose parts of its groups")
        per = layer.out_channels // groups
        rows = (left[:, None] * per + torch.arange(per)).flatten()
        self.outputs[layer] = _Kept(1, rows, layer.out_channels)
        layer.weight, layer.bias = _part(layer.weight, rows, 0), _part(layer.bias, rows, 0)
        self.note(layer, in_channels=len(index), out_channels=len(rows), groups=len(left))

    def narrow_output(self, value: Tensor, kept: _Kept) -> None:
        """Narrow the layers that made a signal, because it meets one with fewer channels; then start again."""
        makers = value.__dict__.get("makers", ())
        if isinstance(value, nn.Parameter) and id(value) in self.holders:
            owner, name = self.holders[id(value)]
            (dim,) = [d for d, n in enumerate(value.shape) if n == kept.width][:1]
            owner._parameters[name] = _part(value, kept.index, dim)
            raise _Again
        if not makers or makers[0] in self.outputs:
            raise Refusal("a signal of full width meets one that was cut")
        layer = makers[0]
        if isinstance(layer, CONVOLUTIONS) and layer.groups != 1:
            raise Refusal("a grouped convolution makes a signal of full width")
        layer.weight = _part(layer.weight, kept.index, 0)
        layer.bias = _part(layer.bias, kept.index, 0)
        count = "out_features" if isinstance(layer, nn.Linear) else "out_channels"
        self.note(layer, **{count: len(kept.index)})
        dim = 1 if isinstance(layer, CONVOLUTIONS) else value.dim() - 1
        self.outputs[layer] = _Kept(dim, kept.index, kept.width)
        raise _Again

    # functions

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is concatenate:
            return self.concatenated(*args)
        if func in CONCATENATIONS:
            return self.catted(func, args, kwargs)
        signals = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        cut = [t for t in signals if _kept(t) is not None]
        if func is F.avg_pool2d:
            self.transition(args[0])
        if cut and func in ELEMENTWISE:
            for other in signals:
                same_place = other.dim() - (cut[0].dim() - cut[0].kept.dim)  # type: ignore[attr-defined]
                if _kept(other) is None and same_place >= 0 and other.shape[same_place] == cut[0].kept.width:  # type: ignore[attr-defined]
                    self.narrow_output(other, cut[0].kept)  # type: ignore[attr-defined]
        try:
            result = func(*args, **kwargs)
        except (RuntimeError, ValueError, IndexError) as error:
            if not cut:
                raise
            raise Refusal(str(error)) from error
        if not cut:
            return self.remember(signals, result)
        if func in CONTRACTIONS:
            return result
        kept = _kept(cut[0])
        assert kept is not None
        if any(not kept.is_same(_kept(each)) for each in cut):
            raise Refusal("signals that were cut differently meet")
        if getattr(func, "__name__", "") in MOVES:
            return self.moved(func, args, kwargs, cut[0], kept, result)
        return tree_map(lambda t: self.passed(cut[0], kept, t) if isinstance(t, Tensor) else t, result)

    def remember(self, signals: list[Tensor], result: Any) -> Any:
        """Record that an elementwise function keeps the channels of its input."""
        makers = [t for t in signals if t.__dict__.get("makers")]
        if len(makers) == 1 and isinstance(result, Tensor):
            size = makers[0].shape[1] if makers[0].dim() > 1 else -1
            if result.dim() > 1 and result.shape[1] == size:
                result.makers = makers[0].makers  # type: ignore[attr-defined]
        return result

    def passed(self, source: Tensor, kept: _Kept, result: Tensor) -> Tensor:
        count = len(kept.index)
        if result.dim() == source.dim() and result.shape[kept.dim] == count:
            return _mark(result, kept)
        if kept.dim == 1 and 1 < result.dim() < source.dim() and result.shape[1] == count:
            return _mark(result, kept)
        if count not in result.shape or result.dim() == 0:
            return result
        raise Refusal("a function spreads the channels that were cut")

    def moved(self, func: Callable, args: tuple, kwargs: dict, source: Tensor, kept: _Kept, result: Any) -> Any:
        """Move the indices of channels in the same way as the channels."""

        def numbered(index: Tensor) -> Any:
            shape = [1] * source.dim()
            shape[kept.dim] = len(index)
            size = [*source.shape[: kept.dim], len(index), *source.shape[kept.dim + 1 :]]
            shadow = index.view(shape).expand(size).contiguous()
            return func(*tree_map(lambda v: shadow if v is source else v, args), **kwargs)

        now = tree_leaves(numbered(kept.index))
        try:
            full = tree_leaves(numbered(torch.arange(kept.width)))
        except (RuntimeError, ValueError, IndexError):
            full = None
        results = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        for i, (numbers, each) in enumerate(zip(now, results)):
            dims = [d for d in range(each.dim()) if not bool((numbers == numbers.narrow(d, 0, 1)).all())]
            if len(dims) > 1 or len(kept.index) == 1:
                dims = [d for d in (kept.dim,) if d < each.dim() and each.shape[d] == len(kept.index)]
                if not dims:
                    raise Refusal("channels that were cut are spread over dimensions")
            if not dims:
                continue
            index = numbers.movedim(dims[0], 0).flatten(1)[:, 0]
            part = full[i].movedim(dims[0], 0).flatten(1)[:, 0] if full and len(full) == len(now) else None
            if part is None:
                raise Refusal("a reshape names the full width")
            if not torch.equal(index, part[torch.isin(part, kept.index)]):
                raise Refusal("a signal that was cut is taken apart")
            place = torch.searchsorted(part.contiguous(), index.contiguous())
            _mark(each, _Kept(dims[0], place, len(part)))
        return result

    def concatenated(
        self,
        maps: list[Tensor | None],
        widths: tuple[int, ...],
        older: tuple[int, ...],
        factor: float,
        dim: int,
        masked: bool,
        surgery: int,
    ) -> Tensor:
        result = concatenate(maps, widths, older, factor, dim, masked)
        labels = [None if each is None else _kept(each) for each in maps]
        now = surgery == self.surgery
        if masked or not (now or any(labels)):
            if any(labels):
                raise Refusal("a signal that was cut meets a masked concatenation")
            return result
        dim %= result.dim()
        index, start = [], 0
        for i, (each, kept, width) in enumerate(zip(maps, labels, widths)):
            before = 0 if each is None else each.shape[dim] if kept is None else kept.width
            if not now:  # cut in an earlier surgery: what its readers have seen since
                width = round(factor * before) if i in older else before
            elif each is not None and before != width:
                raise Refusal("a map changed its width")
            if each is not None:
                mine = torch.arange(before) if kept is None else kept.index
                mine = mine[: round(factor * len(mine))] if i in older else mine
                index.append(mine[mine < width] + start)
            start += width
        return _mark(result, _Kept(dim, torch.cat(index), start))

    def catted(self, func: Callable, args: tuple, kwargs: dict) -> Tensor:
        join = read(func, args, kwargs)
        assert join is not None
        maps = join.signals
        result = func(*args, **kwargs)
        labels = [_kept(each) for each in maps]
        if not any(labels):
            return result
        dim = join.dim % result.dim()
        index, start = [], 0
        for each, kept in zip(maps, labels):
            if kept is not None and kept.dim != dim:
                raise Refusal("a signal that was cut is concatenated along another dimension")
            index.append((torch.arange(each.shape[dim]) if kept is None else kept.index) + start)
            start += each.shape[dim] if kept is None else kept.width
        return _mark(result, _Kept(dim, torch.cat(index), start))

    def transition(self, value: Tensor) -> None:
        """Keep a dense block's transition at half of what it reads (Huang et al., section 3)."""
        makers = value.__dict__.get("makers", ())
        layer = makers[0] if len(makers) == 1 else None
        if layer not in self.done or layer in self.outputs or not isinstance(layer, nn.Conv2d):
            return
        columns = self.done[layer]
        if math.prod(layer.kernel_size) == 1 and layer.out_channels == columns.width // 2:
            self.narrow_output(value, _Kept(1, torch.arange(len(columns.index) // 2), layer.out_channels))


def _part(parameter: Any, index: Tensor, dim: int) -> Any:
    """The chosen rows or columns of a parameter or buffer, as a new one."""
    if parameter is None:
        return None
    data = parameter.detach().index_select(dim, index.to(parameter.device)).clone()
    return nn.Parameter(data, parameter.requires_grad) if isinstance(parameter, nn.Parameter) else data
