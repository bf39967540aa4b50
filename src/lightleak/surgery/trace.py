"""The graph of one method of one module, traced beside a real run of it; every module it calls stays a single call.

Dropout, norms, attention and all other children keep their own code, mode switch, hooks and names. Beside each node of
the graph runs the real computation, so that sizes may steer the control flow (the example's branch is taken), while
arithmetic on sizes stays in the graph and other batch sizes work. Control flow on the *values* of signals is refused.
"""

import inspect
import math
import operator
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from types import FrameType
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, fx, nn
from torch.amp.autocast_mode import _enter_autocast, _exit_autocast
from torch.fx.node import map_arg
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from lightleak.surgery.joins import LISTED, Call, read
from lightleak.surgery.observe import Observation, Place, frozen, signal, wrapped
from lightleak.surgery.through import SurgeryError, Through, depends

SIZES = {"size", "dim", "numel", "nelement", "stride", "ndimension", "is_contiguous", "is_floating_point", "get_device"}
ACTS = {operator.setitem, _enter_autocast, _exit_autocast}


def same(value: Any, traced: Any, name: str) -> None:
    """Raise SurgeryError if an argument on which the traced code branched has another value now."""
    if isinstance(value, fx.Proxy):  # someone else traces the module, such as a feature extractor
        return
    if value is not traced and value != traced:
        raise SurgeryError(
            f"argument '{name}' was {traced!r} when this module was cut and is {value!r} now; "
            "cut the model on an example that goes the same way"
        )


ACTS.add(same)


class Value(fx.Proxy):
    """A node of the graph together with the value it has in the run beside it."""

    @property
    def _value(self) -> Any:
        return self.tracer.values[self.node]  # type: ignore[attr-defined]

    @property
    def __class__(self) -> type:  # isinstance() in the traced code asks about the value
        _refuse_function(self.tracer.label, sys._getframe(1))  # type: ignore[attr-defined]
        return type(self._value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and not hasattr(self._value, name):
            raise AttributeError(name)
        attribute = getattr(self._value, name)
        if isinstance(attribute, str):  # a device's type
            return Named(attribute, self.tracer.create_proxy("call_function", getattr, (self, name), {}).node)
        if callable(attribute) and not isinstance(attribute, Tensor):
            return lambda *args, **kwargs: self.tracer.create_proxy("call_method", name, (self, *args), kwargs)
        return self.tracer.create_proxy("call_function", getattr, (self, name), {})

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, index, value), {})

    def __iter__(self) -> Iterator[Any]:
        return iter([self[i] for i in range(len(self._value))])  # type: ignore[index]

    def __len__(self) -> int:
        return len(self._value)

    def __int__(self) -> int:
        return int(_plain(self, "int()"))

    def __index__(self) -> int:
        return operator.index(_plain(self, "an index"))

    def __float__(self) -> float:
        return float(_plain(self, "float()"))

    def __ceil__(self) -> int:
        return math.ceil(_plain(self, "ceil()"))

    def __floor__(self) -> int:
        return math.floor(_plain(self, "floor()"))

    def __round__(self, digits: int | None = None) -> Any:
        return round(_plain(self, "round()"), digits)

    def __bool__(self) -> bool:
        return bool(_plain(self, "a branch"))

    def __contains__(self, item: Any) -> bool:
        return any(bool(item == each) for each in self)

    def __hash__(self) -> int:
        return id(self)


class Named(str):
    """A string that was read off a signal, such as its device type; the graph reads it again."""

    node: fx.Node

    def __new__(cls, word: str, node: fx.Node) -> "Named":
        made = super().__new__(cls, word)
        made.node = node
        return made


class Appended:
    """Placeholder in a list of the traced code for a signal that a module appended to it."""

    def __init__(self, by: str):
        self.by = by


CHECKPOINT = torch.utils.checkpoint.__file__
APPLY = torch.autograd.Function.apply.__func__.__code__  # type: ignore[attr-defined]


def _refuse_function(label: str, frame: FrameType | None) -> None:
    """Refuse a custom autograd function before it takes a node for the tensor that it says it is."""
    for _ in range(4):
        if frame is None:
            return
        name = frame.f_locals["cls"].__name__ if frame.f_code is APPLY else ""
        if frame.f_code.co_filename == CHECKPOINT or name == "CheckpointFunction":
            raise SurgeryError(
                f"the code of '{label}' that joins calls torch.utils.checkpoint, which no graph can hold; "
                "turn activation checkpointing off while the model is cut, or checkpoint inside the branch"
            )
        if name:
            raise SurgeryError(
                f"the code of '{label}' that joins calls {name}, which no graph can hold; call it in its own module"
            )
        frame = frame.f_back


def _plain(proxy: Value, use: str) -> Any:
    """A size or flag, for Python to decide on; never what depends on the image."""
    value, tracer = proxy._value, proxy.tracer
    assert isinstance(tracer, MethodTracer)
    if tracer.from_image(proxy.node):
        raise SurgeryError(
            f"'{tracer.label}' decides on the values of a signal ({use} in {tracer.method}), which no graph can hold; "
            "leave the skips of that module out, by giving the others by name"
        )
    return value


class MethodTracer(fx.Tracer):
    """Trace one method of a module, with the arguments it was called with."""

    def __init__(self, label: str, method: str):
        super().__init__()
        self.label, self.method = label, method
        self.traced_func_name = method
        self.values: dict[fx.Node, Any] = {}
        self.joins: list[tuple[str, int, fx.Node]] = []  # method, index among its joins, node
        self.renamed: dict[fx.Node, fx.Node] = {}  # an overwritten signal: the one that took its place
        self.busy = False  # computing a value: modules and parameters behave as usual
        self.running = [[method, 0]]  # the module's methods under way, and how often each has joined

    def graph_of(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], others: set[str]) -> fx.Graph:
        """The method's graph; `others` are methods of the same module that also join signals, traced into it."""
        self.call_arguments = (args, kwargs)
        self.names = {
            id(t): name
            for kind in (module.named_buffers, module.named_parameters)
            for name, t in kind(remove_duplicate=False)
        }

        def inner(name: str) -> Callable[[Callable], Callable]:
            def wrap(method: Callable) -> Callable:
                def run(*args: Any, **kwargs: Any) -> Any:
                    self.running.append([name, 0])
                    try:
                        return method(*args, **kwargs)
                    finally:
                        self.running.pop()

                return run

            return wrap

        with ExitStack() as stack:
            stack.enter_context(_switches(self))
            for other in others:
                stack.enter_context(wrapped(module, other, inner(other)))
            return self.trace(module)

    # what fx asks for

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> Any:  # noqa: ARG002
        args, kwargs = self.call_arguments
        function = inspect.unwrap(getattr(vars(self.root).get(self.method), "__func__", root_fn))
        bound = inspect.signature(function).bind(self.root, *args, **kwargs)
        bound.apply_defaults()
        parameters = list(bound.signature.parameters.values())[1:]
        stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
        first = next(iter(bound.signature.parameters))
        for parameter in parameters:
            default = () if parameter.default is parameter.empty else (parameter.default,)
            value = bound.arguments[parameter.name]
            node = self.create_node("placeholder", stars.get(parameter.kind, "") + parameter.name, default, {})
            self.values[node] = value
            bound.arguments[parameter.name] = self.argument(node, value, parameter.name)
        bound.arguments[first] = self.root
        return (lambda: function(*bound.args, **bound.kwargs)), []

    def argument(self, node: fx.Node, value: Any, name: str) -> Any:
        """An argument as the traced code sees it: signals and numbers as values to follow, containers opened."""
        if isinstance(value, Tensor) or type(value) in (int, float):
            return Value(node, self)
        if type(value) in (list, tuple, torch.Size):
            parts = [self.part(node, i, each, name) for i, each in enumerate(value)]
            return parts if type(value) is list else tuple(parts)
        if type(value) is dict:
            return {key: self.part(node, key, each, name) for key, each in value.items()}
        if value is None or isinstance(value, (bool, str)):
            self.create_node("call_function", same, (node, value, name), {})
        return value

    def part(self, node: fx.Node, key: Any, value: Any, name: str) -> Any:
        if isinstance(value, Tensor) or type(value) in (int, float, list, tuple, dict):
            part = self.create_node("call_function", operator.getitem, (node, key), {})
            self.values[part] = value
            return self.argument(part, value, name)
        return value

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *_: Any, **__: Any) -> Any:
        lists = [each for each in (*args, *kwargs.values()) if type(each) is list]
        args, kwargs = self.create_arg(args), self.create_arg(kwargs)
        overwritten = self.overwritten(kind, target, args, kwargs)
        if overwritten is not None:  # `x.add_(y)` makes a new signal; whoever reads x later reads that one
            target = target[:-1] if kind == "call_method" else getattr(torch, target.__name__.rstrip("_"), target)
            kwargs = {key: value for key, value in kwargs.items() if key != "inplace"}
        if target in LISTED and args and isinstance(args[0], fx.Node):
            args = (self.opened(args[0]), *args[1:])
        node = self.create_node(kind, target, args, kwargs)
        self.values[node], handed = self.compute(node)
        self.grown(lists, handed, target)
        if overwritten is not None:
            self.renamed[overwritten] = node
        if join_at(node, self.values) is not None:
            method, count = self.running[-1]
            self.joins.append((method, count, node))
            self.running[-1][1] += 1
        return Value(node, self)

    def switch(self, target: Any, args: tuple) -> fx.Node:
        """A node that switches autocast, which the run beside the graph has switched already."""
        node = self.create_node("call_function", target, self.create_arg(args), {})
        self.values[node] = None
        return node

    def overwritten(self, kind: str, target: Any, args: Any, kwargs: Any) -> fx.Node | None:
        """The signal that a call overwrites, if it could make a new one instead."""
        signal = args[0] if args and isinstance(args[0], fx.Node) else None
        if signal is None or not depends(self.values[signal]) or self.values[signal]._is_view():
            return None
        home, name = (Tensor, target) if kind == "call_method" else (torch, getattr(target, "__name__", ""))
        named = kind != "call_module" and name.endswith("_") and hasattr(home, name[:-1])
        return signal if named or kwargs.get("inplace") is True else None

    def from_image(self, node: fx.Node) -> bool:
        """Whether a value was computed from what the image shows (and not only from its size)."""
        stack, visited = [node], set()
        while stack:
            node = stack.pop()
            if node in visited or node.target is getattr or node.target in SIZES:
                continue
            if depends(self.values[node]):
                return True
            visited.add(node)
            stack.extend(node.all_input_nodes)
        return False

    def opened(self, node: fx.Node) -> list[fx.Node]:
        """The parts of a tuple or list, one node each."""
        parts = [
            self.create_node("call_function", operator.getitem, (node, i), {}) for i in range(len(self.values[node]))
        ]
        self.values.update(zip(parts, self.values[node]))
        return parts

    def compute(self, node: fx.Node) -> tuple[Any, list[list]]:
        """The value of a node, and the lists that were handed over, as the call left them."""
        args, kwargs = map_arg((node.args, node.kwargs), self.values.__getitem__)  # type: ignore[misc]
        args = [list(each) if isinstance(each, list) else each for each in args]  # fx's own lists cannot grow
        kwargs = {name: list(each) if isinstance(each, list) else each for name, each in kwargs.items()}
        handed = [each for each in (*args, *kwargs.values()) if isinstance(each, list)]
        self.busy = True
        try:
            return self.result(node, args, kwargs), handed
        finally:
            self.busy = False

    def result(self, node: fx.Node, args: Any, kwargs: dict[str, Any]) -> Any:
        """The value of a node, followed even where autograd would lose it."""
        with Through():
            if node.op == "call_function":
                return node.target(*args, **kwargs)  # type: ignore[operator]
            if node.op == "call_method":
                return getattr(args[0], str(node.target))(*args[1:], **kwargs)
            if node.op == "call_module":
                return self.root.get_submodule(str(node.target))(*args, **kwargs)  # type: ignore[union-attr]
            return operator.attrgetter(str(node.target))(self.root)

    def grown(self, lists: list[list], handed: list[list], target: Any) -> None:
        """What a call appended to a list of the traced code; it may stay there, but no graph can read it."""
        for mine, theirs in zip(lists, handed):
            mine.extend(Appended(str(target)) for _ in theirs[len(mine) :])

    def create_arg(self, a: Any) -> Any:
        if type(a) is Value:
            node = a.node
            while node in self.renamed:
                node = self.renamed[node]
            return node
        if isinstance(a, fx.Node):
            return a
        if type(a) is Named:
            return a.node
        if isinstance(a, Appended):
            raise SurgeryError(
                f"'{self.label}' reads what '{a.by}' appends to a list, which no graph can hold; "
                "leave the skips of that module out, by giving the others by name"
            )
        if isinstance(a, Tensor) and id(a) not in self.names and a not in self.tensor_attrs:
            return self.constant(a)
        if isinstance(a, Tensor):
            name = self.names.get(id(a)) or self.tensor_attrs[a]
            node = self.create_node("get_attr", name, (), {})
            self.values[node] = a
            return node
        return super().create_arg(a)

    def constant(self, value: Tensor) -> fx.Node:
        """A constant tensor made by the method itself, kept with the buffers so that it follows the device."""
        root: Any = self.root
        mine = ((n, b) for n, b in root._buffers.items() if n.startswith("_constant_"))
        name = next((n for n, b in mine if b.dtype == value.dtype and torch.equal(b, value)), None)
        if name is None:
            name = f"_constant_{sum(n.startswith('_constant_') for n in root._buffers)}"
            root.register_buffer(name, value.detach().clone(), persistent=False)
        node = self.create_node("get_attr", name, (), {})
        self.values[node] = value
        return node

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if self.busy:
            return forward(*args, **kwargs)
        return self.create_proxy("call_module", self.path_of_module(m), args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:  # noqa: ARG002
        if self.busy or not isinstance(attr_val, Tensor) or id(attr_val) not in self.names:
            return attr_val
        return self.create_proxy("get_attr", self.names[id(attr_val)], (), {})


def join_at(node: fx.Node, values: dict[fx.Node, Any]) -> Call | None:
    """The join of two signals of the image that a node is, if it is one."""

    def value(each: Any) -> Any:
        return values[each] if isinstance(each, fx.Node) else each

    join = read(node.target, node.args, node.kwargs, value) if node.op in ("call_function", "call_method") else None
    return join if join and sum(depends(value(each)) for each in join.signals) > 1 else None


def _switches(tracer: MethodTracer) -> AbstractContextManager:
    """Let the graph switch autocast where the code does.

    `torch.autocast` itself tells modes of this one class, which `torch.export` uses for the same purpose.
    """
    from torch.fx.experimental.proxy_tensor import PreDispatchTorchFunctionMode

    class Switches(PreDispatchTorchFunctionMode):
        def __init__(self) -> None:
            TorchFunctionMode.__init__(self)
            self.entered: list[Any] = []

        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is _enter_autocast:
                self.entered.append(None if tracer.busy else tracer.switch(_enter_autocast, tuple(args)))
            elif func is _exit_autocast:
                if (node := self.entered.pop()) is not None:
                    tracer.switch(_exit_autocast, (node,))
            else:
                return func(*args, **(kwargs or {}))
            return None

    return Switches()


def graphs_of(
    model: nn.Module, seen: Observation, place: Place, edit: Callable[[MethodTracer], None]
) -> tuple[Place, fx.Graph, fx.Graph]:
    """Trace one method in both modes, and edit the graphs."""
    name, method = place
    owner = model.get_submodule(name)
    label = name or type(model).__name__
    others = {other for module, other in seen.finished if module == name and other != method}
    graphs = []
    for training in (True, False):
        tracer = MethodTracer(label, method)
        with frozen(owner, training):
            args, kwargs = tree_map(_fresh, seen.calls[place])
            try:
                graph = tracer.graph_of(owner, args, kwargs, others)
            except SurgeryError:
                raise
            except Exception as error:
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                raise SurgeryError(
                    f"the code of '{label}' ({type(owner).__name__}.{method}) cannot be held in a graph: {reason}; "
                    "leave its skips out by naming the others"
                ) from error
        idle = {node for node in graph.nodes if not node.users}
        edit(tracer)
        graph.eliminate_dead_code(lambda node, idle=idle: node in idle or _acts(node))
        graphs.append(graph)
    return place, graphs[0], graphs[1]


def _fresh(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return signal(value) if value.requires_grad else value.detach().clone()


def _acts(node: fx.Node) -> bool:
    """Whether a node does something beside computing its value."""
    if node.op in ("placeholder", "output") or node.target in ACTS:
        return True
    name = str(node.target)
    return node.op == "call_method" and name.endswith("_") and not name.endswith("__")
