"""Follow a signal through code that hides it from autograd: activation checkpoints, `no_grad`, `detach`.

A skip behind such a place is as real as any other. While a model is watched, what would be computed without a record
is computed with one; the results are the same numbers.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from lightleak.errors import UserError

DETACHED = {torch.detach, Tensor.detach, Tensor.data.__get__}  # type: ignore[attr-defined]
LEAVING = {Tensor.numpy, Tensor.__array__}

Edge = tuple[Any, int]  # a value in autograd's graph: the function that made it, and which of its outputs


class SurgeryError(UserError):
    """Surgery that is impossible: one line that names the module and says what can be done instead."""


def depends(value: Any) -> bool:
    """Whether a value depends on the image."""
    return isinstance(value, Tensor) and value.requires_grad


def changes_in_place(function: Any, args: tuple, kwargs: dict[str, Any]) -> bool:
    """Whether a call overwrites a signal."""
    name = getattr(function, "__name__", "")
    written = kwargs.get("inplace") or (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")
    return bool(written) and bool(args) and depends(args[0])


def outputs_of(output: Any) -> list[Tensor]:
    """The tensors that a model outputs: its logits, if it names them."""
    logits = getattr(output, "logits", None)
    plain = logits if isinstance(logits, Tensor) else output
    if hasattr(plain, "__dataclass_fields__"):
        plain = list(vars(plain).values())
    return [each for each in tree_leaves(plain) if isinstance(each, Tensor)]


class Through(TorchFunctionMode):
    """Compute with autograd's graph wherever a signal takes part.

    `inner` leads on from the one function that stands for a whole checkpoint to what was computed inside.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inner: dict[Edge, Edge] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return self.compute(func, args, kwargs or {})

    def compute(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """The call's result."""
        if getattr(func, "__name__", "") == "__get__" and func not in DETACHED:  # an attribute, such as a shape
            return func(*args, **kwargs)
        signals = [each for each in tree_leaves((args, kwargs)) if depends(each)]
        if not signals:
            return func(*args, **kwargs)
        for each in signals:
            self.notice(each)
        if func in LEAVING:
            raise SurgeryError(
                f"'{self.where()}' takes a signal to NumPy, where it cannot be followed; stay in torch there"
            )
        if func in DETACHED:
            return args[0].view_as(args[0])
        if torch.is_inference_mode_enabled():
            raise SurgeryError(
                f"'{self.where()}' runs in torch.inference_mode, behind which no signal can be followed; "
                "use torch.no_grad there"
            )
        dark = not torch.is_grad_enabled() and (not changes_in_place(func, args, kwargs) or depends(args[0]))
        if not dark:
            result = func(*args, **kwargs)
        else:
            with torch.enable_grad():
                result = func(*args, **kwargs)
        for each in tree_leaves(result):
            if isinstance(each, Tensor):  # a checkpoint will put itself before what was computed inside
                vars(each).pop("_inner", None)
                if dark and each.grad_fn is not None:
                    vars(each)["_inner"] = (each.grad_fn, each.output_nr)
        return result

    def where(self) -> str:
        """The module whose code runs, for messages."""
        return "the model"

    def notice(self, signal: Tensor) -> None:
        """Remember what was computed inside a checkpoint that hides it behind its own node."""
        made, edge = vars(signal).get("_inner"), (signal.grad_fn, signal.output_nr)
        if made is not None and made != edge and isinstance(signal.grad_fn, BackwardCFunction):
            self.inner[edge] = made
