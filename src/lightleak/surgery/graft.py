"""Replace one method of one module by an edited graph: a *graft*, see docs/glossary.md.

The module becomes an instance of a subclass of its own class, so it keeps its other methods, attributes, hooks and
parameter names, and the rest of the model is untouched. Where training and evaluation differ, two graphs are kept.
"""

import importlib
import linecache
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import fx, nn

_classes: dict[Any, type] = {}


@dataclass(frozen=True)
class Source:
    """A method as text, with the objects that its text names."""

    text: str
    names: dict[str, Any]

    @staticmethod
    def of(graph: fx.Graph) -> "Source":
        code = graph.python_code("self")
        return Source(code.src, dict(code.globals))

    @property
    def key(self) -> tuple:
        return self.text, tuple(sorted((name, id(value)) for name, value in self.names.items()))

    def function(self, name: str) -> Callable:
        """The compiled function; its text is there for tracebacks and for torch.compile."""
        file = f"<surgery {name} {abs(hash(self.key)):x}>"
        linecache.cache[file] = (len(self.text), None, self.text.splitlines(True), file)
        space = dict(self.names)
        exec(compile(self.text, file, "exec"), space)
        made = space["forward"]
        made.__name__ = made.__qualname__ = name
        return made

    def __deepcopy__(self, memo: dict) -> "Source":
        return self

    def __reduce__(self) -> tuple:
        modules = {name: value.__name__ for name, value in self.names.items() if isinstance(value, ModuleType)}
        others = {name: value for name, value in self.names.items() if name not in modules}
        return _source, (self.text, others, modules)


def _source(text: str, others: dict[str, Any], modules: dict[str, str]) -> Source:
    return Source(text, others | {name: importlib.import_module(path) for name, path in modules.items()})


Methods = dict[str, tuple[Source, Source]]  # of each replaced method: for training and for evaluation


def graft(module: nn.Module, method: str, training: fx.Graph, evaluating: fx.Graph) -> None:
    """Make this one module run the given graphs instead of its method."""
    cls = type(module)
    base, methods = getattr(cls, "_surgery", (cls, {}))
    sources = Source.of(training), Source.of(evaluating)
    vars(module).pop(method, None)  # some choose a method by setting it on the instance
    module.__class__ = _grafted(base, methods | {method: sources})


def _grafted(base: type, methods: Methods) -> type:
    key = (base, tuple((name, *(s.key for s in both)) for name, both in sorted(methods.items())))
    if key not in _classes:
        space: dict[str, Any] = {name: _method(name, *both) for name, both in methods.items()}
        space |= {"_surgery": (base, methods), "__reduce_ex__": _reduce, "__module__": base.__module__}
        space["__doc__"] = base.__doc__
        _classes[key] = type(base)(f"Cut{base.__name__}", (base,), space)
    return _classes[key]


def _method(name: str, training: Source, evaluating: Source) -> Callable:
    if training.text == evaluating.text:
        return evaluating.function(name)
    train, evaluate = training.function(name), evaluating.function(name)

    def run(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return (train if self.training else evaluate)(self, *args, **kwargs)

    run.__name__ = run.__qualname__ = name
    return run


def _reduce(self: nn.Module, protocol: int) -> tuple:  # noqa: ARG001
    base, methods = type(self)._surgery  # type: ignore[attr-defined]
    return _restore, (base, methods), self.__dict__


def _restore(base: type, methods: Methods) -> nn.Module:
    cls = _grafted(base, methods)
    return cls.__new__(cls)  # type: ignore[return-value]
