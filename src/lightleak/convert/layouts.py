"""Recognise published networks by the names and shapes of their tensors."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from torch import Tensor

from lightleak.errors import UserError

State = dict[str, Tensor]
Shape = tuple[int | None, ...]  # None: any length but 0


class Layout(Protocol):
    """A format: a name, the tensors that a file must have, and those that it must not have."""

    @property
    def name(self) -> str: ...
    @property
    def has(self) -> dict[str, Shape]: ...
    @property
    def lacks(self) -> tuple[str, ...]: ...


L = TypeVar("L", bound=Layout)

# Files that are known, and why they cannot become what Lightleak uses.
KNOWN_STRANGERS: tuple[tuple[dict[str, Shape], str], ...] = (
    (
        {"input_layer.0.weight": (64, 3, 3, 3), "body.0.res_layer.0.weight": (64,)},
        "is a backbone of face.evoLVe without classes, which no attack can aim at; training starts from it",
    ),
    (
        {"feature.0.weight": (64, 1, 7, 7)},
        "is an MNIST classifier of grey images; Lightleak's classifiers take three channels",
    ),
    (
        {"l2_5.2.weight": (None, 1, 5, 5)},
        "is an MNIST generator of grey images; Lightleak's priors make three channels",
    ),
    (
        {"layer1.0.weight": (None, 1, 7, 7)},
        "is an MNIST classifier of grey images; Lightleak's classifiers take three channels",
    ),
)


def fits(state: State, has: dict[str, Shape], lacks: tuple[str, ...]) -> list[str]:
    """Why tensors are not of this layout; empty if they are."""
    problems = [f"it has {name}" for name in lacks if name in state]
    for name, wanted in has.items():
        shape = tuple(state[name].shape) if name in state else None
        if shape is None:
            problems.append(f"{name} is missing")
        elif len(shape) != len(wanted) or any(s < 1 or w not in (None, s) for w, s in zip(wanted, shape)):
            problems.append(f"{name} is {shape}")
    return problems


def nearness(state: State, layouts: Sequence[Layout]) -> float:
    """The share of the closest layout that is present, from 0 to 1; 1 only if a layout fits."""
    shares = [1 - len(fits(state, one.has, one.lacks)) / (len(one.has) + len(one.lacks)) for one in layouts]
    return max(shares)


def recognise(state: State, formats: Sequence[L], source: str, advice: str = "") -> L:
    """The format that fits; UserError that names the closest one, followed by the advice."""
    if refused := next((why for has, why in KNOWN_STRANGERS if not fits(state, has, ())), None):
        raise UserError(f"{source} {refused}")
    problems = {format_.name: fits(state, format_.has, format_.lacks) for format_ in formats}
    for format_ in formats:
        if not problems[format_.name]:
            return format_
    shares = {f.name: 1 - len(problems[f.name]) / (len(f.has) + len(f.lacks)) for f in formats}
    near = max(shares, key=lambda name: shares[name])
    names = ", ".join(list(state)[:4])
    closest = f"; closest is {near}, but {'; '.join(problems[near][:3])}" if shares[near] >= 0.5 else ""
    raise UserError(
        f"{source} is none of the {len(formats)} known formats: it has {len(state)} tensors ({names}, ...)"
        + closest
        + advice
    )
