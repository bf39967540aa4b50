"""Which calls join signals, however they are written: one definition for observing, tracing and fusing.

A sum may be written `x + f(x)`, `x - f(x)`, `torch.lerp(x, f(x), w)`, `torch.stack([x, f(x)]).sum(0)` and so on. What
these share: the result is linear in some of the arguments, so each of those can be scaled, or left out, alone.
"""

import operator
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Kind = Literal["add", "cat"]
Slot = tuple[int | str, int | None]  # an argument by its position or name; of a list of signals, which of them


@dataclass(frozen=True)
class Form:
    """One way to write a join: the names of its arguments in order, and which of them are signals that meet."""

    name: str
    kind: Kind
    parameters: tuple[str, ...]
    signals: tuple[str, ...]
    listed: bool = False  # the signals come as one list
    product: Literal["", "each", "matrix"] = ""  # the second and third are multiplied before they are added: how


@dataclass(frozen=True)
class Call:
    """One call of a join."""

    form: Form
    slots: tuple[Slot, ...]
    signals: tuple[Any, ...]  # the arguments in those slots: tensors in a run, nodes in a graph
    dim: int  # a concatenation's or stack's dimension; 1 for sums

    @property
    def kind(self) -> Kind:
        return self.form.kind


_BOTH = ("input", "other")
_SUMS = (
    Form("add", "add", _BOTH, _BOTH),
    Form("sub", "add", _BOTH, _BOTH),
    Form("rsub", "add", _BOTH, _BOTH),
    Form("lerp", "add", ("input", "end", "weight"), ("input", "end")),
    *(
        Form(name, "add", names, names, product="matrix")
        for name, names in {
            "addmm": ("input", "mat1", "mat2"),
            "addmv": ("input", "mat", "vec"),
            "addr": ("input", "vec1", "vec2"),
            "addbmm": ("input", "batch1", "batch2"),
            "baddbmm": ("input", "batch1", "batch2"),
        }.items()
    ),
    Form("addcmul", "add", ("input", "tensor1", "tensor2"), ("input", "tensor1", "tensor2"), product="each"),
    Form("addcdiv", "add", ("input", "tensor1", "tensor2"), ("input", "tensor1")),
    Form("index_add", "add", ("input", "dim", "index", "source"), ("input", "source")),
    Form("scatter_add", "add", ("input", "dim", "index", "src"), ("input", "src")),
)
_ADD, _SUB = _SUMS[:2]
_CAT = Form("cat", "cat", ("tensors", "dim"), ("tensors",), listed=True)
_STACK = Form("stack", "add", ("tensors", "dim"), ("tensors",), listed=True)
FIXED: dict[Any, int] = {torch.hstack: 1, torch.vstack: 0, torch.row_stack: 0}  # concatenations that name no dimension


def _spellings() -> dict[Hashable, Form]:
    """Every function, method, operator and method name that means one of the forms."""
    found: dict[Hashable, Form] = {}
    for form in _SUMS:
        for name in (form.name, f"{form.name}_"):
            found |= {getattr(home, name): form for home in (torch, Tensor) if hasattr(home, name)}
            found |= {name: form} if hasattr(Tensor, name) else {}
    for form in (_ADD, _SUB):
        for name in (f"__{form.name}__", f"__i{form.name}__"):
            found |= {name: form, getattr(Tensor, name): form}
        found |= {getattr(operator, name): form for name in (form.name, f"i{form.name}")}
    found |= {torch.subtract: _SUB, **dict.fromkeys(("subtract", "subtract_"), _SUB)}
    found |= {Tensor.subtract: _SUB, Tensor.subtract_: _SUB}
    found |= {"__radd__": _ADD, Tensor.__radd__: _ADD}
    reversed_ = next(form for form in _SUMS if form.name == "rsub")
    found |= {"__rsub__": reversed_, Tensor.__rsub__: reversed_}
    found |= dict.fromkeys((torch.cat, torch.concat, torch.concatenate, *FIXED), _CAT)
    return found | {torch.stack: _STACK}


FORMS: dict[Hashable, Form] = _spellings()
ADDITIONS = {target for target, form in FORMS.items() if form is _ADD}
CONCATENATIONS = {target for target, form in FORMS.items() if form is _CAT}
LISTED = {target for target, form in FORMS.items() if form.listed}
MULTIPLICATIONS = {torch.mul, Tensor.mul, Tensor.mul_, Tensor.__mul__, Tensor.__imul__, Tensor.__rmul__}
# Calls that treat every position alone: a weight in them is a gain or a table, no layer.
ELEMENTWISE = {t for t, form in FORMS.items() if not form.listed and form.product != "matrix"} | MULTIPLICATIONS


def read(target: Any, args: Any, kwargs: Any, value: Callable[[Any], Any] = lambda each: each) -> Call | None:
    """A call as a join: its signals and where they stand among the arguments; None if it joins nothing.

    `value` gives the tensor of an argument, where arguments are nodes of a graph.
    """
    form = FORMS.get(target) if isinstance(target, Hashable) else None
    if form is None:
        return None
    slots: list[Slot] = []
    signals: list[Any] = []
    if form.listed:
        place: int | str = 0 if args else form.signals[0]
        signals = list(args[0] if args else kwargs[place])
        slots = [(place, i) for i in range(len(signals))]
        dim = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else FIXED.get(target, 0)))
        stacked = form is _CAT and _as_stack([value(each) for each in signals], dim)
        return Call(_STACK if stacked else form, tuple(slots), tuple(signals), dim)
    for name in form.signals:
        position = form.parameters.index(name)
        if position < len(args) or name in kwargs:
            slots.append((position if position < len(args) else name, None))
            signals.append(args[position] if position < len(args) else kwargs[name])
    return Call(form, tuple(slots), tuple(signals), 1)


def _as_stack(maps: list[Any], dim: Any) -> bool:
    """Whether a concatenation is a stack in disguise: of maps given a dimension of their own, or of whole batches."""
    if not all(isinstance(each, Tensor) and each.dim() > 1 for each in maps):
        return False
    return dim in (0, -maps[0].dim()) or all(each.dim() > 4 and each.shape[dim] == 1 for each in maps)


def put(args: Any, kwargs: Any, slot: Slot, value: Any) -> tuple[tuple, dict[str, Any]]:
    """The arguments of a call with the value in one slot replaced."""
    place, part = slot
    args, kwargs = list(args), dict(kwargs)
    holder: Any = args if isinstance(place, int) else kwargs
    if part is None:
        holder[place] = value
    else:
        maps = list(holder[place])
        maps[part] = value
        holder[place] = maps
    return tuple(args), kwargs
