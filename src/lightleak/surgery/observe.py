"""Observe one run of a model: where signals join, what went around what, and which method of which module joins them.

The weights are frozen and the image asks for a gradient, so a tensor asks for one exactly if it depends on the image:
masks, position tables and biases drop out by themselves. What a signal passed through is read off autograd's graph.
"""

import inspect
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves, tree_map

from lightleak.surgery.joins import ELEMENTWISE, Call, Kind, read
from lightleak.surgery.through import Edge, SurgeryError, Through, changes_in_place, depends, outputs_of

Place = tuple[str, str]  # a module's name and one of its methods


def _captured(value: Any) -> Any:
    """An argument as it is now: a view of a weight asks for gradients again as soon as the weight does."""
    return value.detach() if isinstance(value, Tensor) and not value.requires_grad else value


@dataclass
class Seen:
    """One executed join: the places of its operands in autograd's graph."""

    place: Place
    index: int  # among the joins of one call of that method
    kind: Kind
    form: str  # how it is written: "add", "sub", "stack"
    operands: tuple[Any, ...]  # grad_fn of each operand, None where it does not depend on the image
    outputs: tuple[int, ...]  # and which of that function's outputs it is
    extra: tuple[int, ...]  # layers within the join itself, before each operand meets the others
    dim: int  # a concatenation's dimension
    widths: tuple[int, ...]  # of the operands, along that dimension (additions: along dimension 1)
    shape: tuple[int, ...]  # of the joined signal
    result: Any = None  # grad_fn of the joined signal


@dataclass
class Observation:
    """Everything one run has shown."""

    shape: tuple[int, ...]  # of the example
    joins: list[Seen] = field(default_factory=list)
    calls: dict[Place, tuple[tuple, dict[str, Any]]] = field(default_factory=dict)  # arguments of the first call
    finished: list[Place] = field(default_factory=list)  # inner methods before those that call them
    layers: dict[Any, str] = field(default_factory=dict)  # grad_fn of what left a weight layer: its module
    inside: dict[Any, str] = field(default_factory=dict)  # grad_fn of any result: the module that computed it
    pooled: set[Any] = field(default_factory=set)  # grad_fn of what was pooled until one token was left
    inner: dict[Edge, Edge] = field(default_factory=dict)  # behind a checkpoint: what was computed inside
    output: Any = None


@contextmanager
def undone(model: nn.Module, training: bool = False) -> Iterator[None]:
    """Run in a given mode, then restore everything: modes, buffers, what modules cached, the random state."""
    modes = {module: module.training for module in model.modules()}
    notes = [(vars(module), _notes(module)) for module in model.modules()]
    buffers = [(b, b.clone()) for b in model.buffers()] if training else []
    devices = {t.device for t in (*model.parameters(), *model.buffers()) if t.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(devices, key=str)), torch.enable_grad():
        try:
            model.train(training)
            for module in model.modules():
                vars(module).pop("_compiled_call_impl", None)  # compiled in place: watched as it was written
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode
            for attributes, before in notes:
                for name in [n for n in attributes if n not in before and n not in _OWN]:
                    del attributes[name]
                for name, (value, inside) in before.items():
                    attributes[name] = value
                    if isinstance(value, dict):
                        value.clear()
                        value.update(inside)
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)


_OWN = {*vars(nn.Module()), "__class__"}


def _notes(module: nn.Module) -> dict[str, tuple[Any, Any]]:
    """What a module keeps beside parameters, buffers, modules and hooks; caches that are dictionaries, with content."""
    return {
        name: (value, dict(value) if isinstance(value, dict) else None)
        for name, value in vars(module).items()
        if name not in _OWN
    }


@contextmanager
def frozen(model: nn.Module, training: bool = False) -> Iterator[None]:
    """As `undone`, with frozen weights: then a tensor asks for a gradient exactly if it depends on the image."""
    wanted = [p for p in model.parameters() if p.requires_grad]
    with undone(model, training):
        try:
            for parameter in wanted:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in wanted:
                parameter.requires_grad_(True)


@contextmanager
def wrapped(module: nn.Module, method: str, around: Callable[[Callable], Callable]) -> Iterator[None]:
    """Replace one method of one instance within this context."""
    before = vars(module).get(method)
    object.__setattr__(module, method, around(getattr(module, method)))
    try:
        yield
    finally:
        if before is None:
            object.__delattr__(module, method)
        else:
            object.__setattr__(module, method, before)


def signal(example: Tensor) -> Tensor:
    """The example as a signal to follow; not a leaf, since models may overwrite their input."""
    return example.detach().clone().requires_grad_() * 1


def methods_of(model: nn.Module) -> Callable[[FrameType | None], Place | None]:
    """A function that tells to which module and which of its methods a frame belongs."""
    names = {id(module): name for name, module in model.named_modules()}
    general = {nn.Module.__call__.__code__, nn.Module._call_impl.__code__}
    spaces = {space for module in model.modules() for space in (*type(module).__mro__[:-1],) if space is not nn.Module}
    attributes = [each for space in spaces for each in vars(space).values()]
    # Bound ones alone: a plain function that a module keeps is part of whatever method calls it.
    attributes += [each for module in model.modules() for each in vars(module).values() if hasattr(each, "__self__")]
    functions = (inspect.unwrap(getattr(each, "__func__", each)) for each in attributes if callable(each))
    codes = {code for each in functions if (code := getattr(each, "__code__", None))} - general

    def place(frame: FrameType | None) -> Place | None:
        while frame is not None:
            code = frame.f_code
            if code in codes and code.co_argcount:
                owner = frame.f_locals.get(code.co_varnames[0])
                if id(owner) in names:
                    own = (n for n, each in vars(owner).items() if getattr(each, "__code__", None) is code)
                    return names[id(owner)], next(own, code.co_name)  # `self.forward = self.forward_slicing`
            frame = frame.f_back
        return None

    return place


class _RunObserver(Through):
    """What both looks at a run share: whose code runs."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.place = methods_of(model)
        self.whole = type(model).__name__

    def where(self) -> str:
        place = self.place(sys._getframe(1))
        return (place[0] if place else "") or self.whole


class _MethodRecorder(_RunObserver):
    """Note which methods join two signals (and which overwrite one)."""

    def __init__(self, model: nn.Module):
        super().__init__(model)
        self.joining: set[Place] = set()
        self.overwriting: set[Place] = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        join = read(func, args, kwargs)
        joins = join is not None and sum(map(depends, join.signals)) > 1
        overwrites = changes_in_place(func, args, kwargs)
        if (joins or overwrites) and (place := self.place(sys._getframe(1))):
            if joins:
                self.joining.add(place)
            if overwrites:
                self.overwriting.add(place)
        return self.compute(func, args, kwargs)


class _JoinRecorder(_RunObserver):
    """Record the joins of the wrapped methods, and what went through a layer with weights."""

    def __init__(self, model: nn.Module, seen: Observation):
        super().__init__(model)
        self.seen = seen
        self.running: list[list[Any]] = []  # the wrapped methods under way: place, joins so far

    def around(self, place: Place) -> Callable[[Callable], Callable]:
        def wrap(method: Callable) -> Callable:
            def run(*args: Any, **kwargs: Any) -> Any:
                if place not in self.seen.calls:
                    self.seen.calls[place] = tree_map(_captured, (args, kwargs))  # lists may grow later
                self.running.append([place, 0])
                try:
                    return method(*args, **kwargs)
                finally:
                    self.running.pop()
                    if place not in self.seen.finished:
                        self.seen.finished.append(place)

            return run

        return wrap

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        join = read(func, args, kwargs)
        entry = self.entry(join) if join else None
        result = self.compute(func, args, kwargs)
        if entry is not None:
            entry.result = result.grad_fn
            entry.shape = tuple(join.signals[0].shape if join.form.name == "stack" else result.shape)  # type: ignore[union-attr]
            entry.dim %= max(result.dim(), 1)
            self.seen.joins.append(entry)
        made = [each.grad_fn for each in tree_leaves(result) if depends(each)]
        if made and (join is None or not join.form.listed):
            place = self.place(sys._getframe(1))
            owner = place[0] if place else ""
            matrix = func not in ELEMENTWISE and any(_is_weight(func, p) for p in tree_leaves((args, kwargs)))
            for node in made:
                self.seen.inside.setdefault(node, owner)
                if matrix and join is None:
                    self.seen.layers.setdefault(node, owner)
            if getattr(func, "__name__", "") in POOLS and _one_token(result):
                self.seen.pooled.update(made)
        if func in TURNED and isinstance(args[0], nn.Parameter):
            vars(result)["_weight"] = True
        return result

    def entry(self, join: Call) -> Seen | None:
        """The record of a join; None if it does not join two signals of the image."""
        signals = join.signals
        if sum(map(depends, signals)) < 2 or not self.running:
            return None
        place, index = self.running[-1]
        self.running[-1][1] += 1
        dim = join.dim
        return Seen(
            place,
            index,
            join.kind,
            form=join.form.name,
            operands=tuple(each.grad_fn if depends(each) else None for each in signals),
            outputs=tuple(each.output_nr if isinstance(each, Tensor) else 0 for each in signals),
            extra=tuple(_weighed(join, i) for i in range(len(signals))),
            dim=dim,
            widths=tuple(
                each.shape[dim] if isinstance(each, Tensor) and each.dim() > 1 and join.form.name != "stack" else 1
                for each in signals
            ),
            shape=(),
        )


LAYERS = {F.linear, F.bilinear, *(getattr(F, f"conv{way}{d}d") for way in ("", "_transpose") for d in (1, 2, 3))}
LAYERS |= {torch.conv1d, torch.conv2d, torch.conv3d}
TURNED = {Tensor.t, torch.t, Tensor.T.__get__, Tensor.mT.__get__}  # type: ignore[attr-defined]


def _is_weight(func: Any, value: Any) -> bool:
    """Whether an argument makes a call a layer: a weight matrix, or what stands for one (standardised, transposed)."""
    if not isinstance(value, Tensor) or value.requires_grad or value.dim() < 2:
        return False
    return isinstance(value, nn.Parameter) or func in LAYERS or "_weight" in vars(value)


# Not avg_pool2d: halving 2 x 2 pixels is a step of a pyramid.
POOLS = {"mean", "sum", "amax", "max", "logsumexp", "adaptive_avg_pool2d", "adaptive_max_pool2d"}


def _one_token(result: Any) -> bool:
    """Whether a map or a row of tokens was pooled until one is left."""
    return isinstance(result, Tensor) and (result.dim() < 3 or math.prod(result.shape[2:]) == 1)


def _weighed(join: Call, slot: int) -> int:
    """The layers within the join itself: `torch.addmm(x, y, weight)` takes y through one."""
    factors = join.signals[1:] if join.form.product == "matrix" and slot else ()
    return int(any(isinstance(each, nn.Parameter) and each.dim() > 1 for each in factors))


def call(model: nn.Module, example: Tensor) -> Any:
    """Run the model on a signal made of the example."""
    return model(signal(example))


def find_places(model: nn.Module, example: Tensor) -> tuple[set[Place], set[Place]]:
    """The methods that join two signals, and those that overwrite one."""
    with frozen(model), _MethodRecorder(model) as recorder:
        try:
            call(model, example)
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            size = " x ".join(map(str, example.shape))
            raise SurgeryError(
                f"{type(model).__name__} cannot run on images of {size}: {reason}; pass an example of a size it reads"
            ) from error
    return recorder.joining, recorder.overwriting


def observe(model: nn.Module, example: Tensor, also: set[Place] = frozenset()) -> Observation:  # type: ignore[assignment]
    """Run the model on an example image batch (N x 3 x H x W) and note every join of signals that depend on it."""
    refuse_scripted(model)
    places = find_places(model, example)[0] | also
    seen = Observation(tuple(example.shape))
    modules = dict(model.named_modules())
    recorder = _JoinRecorder(model, seen)
    with frozen(model), ExitStack() as stack:
        for name, method in places:
            stack.enter_context(wrapped(modules[name], method, recorder.around((name, method))))
        with recorder:
            seen.output = call(model, example)
        for each in outputs_of(seen.output):
            recorder.notice(each)
    seen.inner = recorder.inner
    return seen


def refuse_scripted(model: nn.Module) -> None:
    """Raise SurgeryError where a part of the model hides what it computes."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise SurgeryError(
                f"'{name or type(model).__name__}' is a scripted module, whose joins cannot be seen; "
                "cut the eager model first and script the result"
            )
        if hasattr(module, "_orig_mod"):
            raise SurgeryError(
                f"'{name or type(model).__name__}' is already compiled; cut the model first, then compile it"
            )
