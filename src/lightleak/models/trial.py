"""A trial pass through a user's own network: what it takes and returns, and how its output is read as logits.

A network is not taken at its word. Where the right reading is plain (the logits of a tuple or a dictionary, the
logarithm of probabilities, grey images for a network of one channel), it is done and said; where it is not, one line
says what came and what was expected.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lightleak import randomness
from lightleak.errors import UserError
from lightleak.surgery.observe import undone

Scale = Literal["logits", "probabilities", "log-probabilities", "sigmoid"]
Item = str | int | None
# What libraries call the logits, where several outputs have one number a class.
LOGITS = ("logits", "logit", "out", "output", "outputs", "pred", "preds", "prediction", "predictions", "scores")
MOST_LEVELS = 3  # of tuples in tuples


@dataclass(frozen=True)
class Reading:
    """How a network is fed and read, beside size and normalisation."""

    channels: int = 3  # 1: images become grey (ITU-R BT.601) before they are normalised
    item: str | None = None  # which of several outputs holds the logits, by its place ("1", "logits", "0.1")
    scale: Scale = "logits"
    notes: tuple[str, ...] = field(default=())  # what was concluded, not stated; a sentence each


def example(net: nn.Module, channels: int, sides: tuple[int, int], count: int = 2) -> Tensor:
    """A batch of zeros as the network itself receives images, in its own precision and on its device."""
    like = anchor(net)
    return torch.zeros(count, channels, *sides, device=like.device, dtype=like.dtype)


def anchor(net: nn.Module) -> Tensor:
    """A tensor of the precision in which the network computes, on its device."""
    tensors = (value for value in (*net.parameters(), *net.buffers()) if value.is_floating_point())
    return next(tensors, torch.zeros(()))


def logits(output: Any, reading: Reading, classes: int, name: str) -> Tensor:
    """The logits, N x classes, in a network's output; UserError if there are none."""
    if not isinstance(output, Tensor):
        parts = _parts(output)
        item = reading.item if reading.item in parts else _item(parts, classes, name)
        output = parts[item]
    if output.layout != torch.strided:
        output = output.to_dense()
    if output.dim() > 2 and output.flatten(1).shape[1] == output.shape[1]:  # N x classes x 1 x 1
        output = output.flatten(1)
    if output.dtype in (torch.float16, torch.bfloat16, torch.float64):
        output = output.float()
    match reading.scale:
        case "probabilities":  # softmax(log p) is p
            return output.clamp_min(torch.finfo(output.dtype).tiny).log()
        case "sigmoid":
            return output.logit(1e-7)
    return output


def tried(
    net: nn.Module,
    classes: int,
    sides: tuple[int, int],
    normalise: tuple[tuple[float, ...], tuple[float, ...]],
    channels: int | None = None,
    item: Item = None,
) -> Reading:
    """What a pass of random images shows of a network; UserError, in one line, if its output cannot be read.

    `channels`: of the input, None if nobody said. `item`: which of several outputs holds the logits. Nothing of the
    network changes, nor the state of the global random generator.
    """
    name, notes = type(net).__name__, []
    if any(value.is_meta for value in net.parameters()):
        return Reading(channels or 3, None if item is None else str(item))
    found, output, gates = _passed(net, sides, normalise, (channels,) if channels else (3, 1))
    if found == 1 and channels is None:
        notes.append(f"{name} takes grey images: colours become luminance (ITU-R BT.601)")
    place = None if item is None else str(item)
    if not isinstance(output, Tensor):
        parts = _parts(output)
        if place is None:
            place = _item(parts, classes, name)
            notes.append(f"{name} returns {len(parts)} tensors ({_shapes(parts)}); {place!r} is read as logits")
        elif place not in parts:
            raise UserError(_no_output(parts, place, name))
    elif place is not None and place not in _of_training(net, sides, normalise, found):
        raise UserError(f"{name} returns one tensor, so output={item!r} has no meaning")
    raw = logits(output, Reading(item=place), classes, name)
    if raw.dim() != 2 or len(raw) != 2 or raw.shape[1] != classes:
        raise UserError(_other_classes(raw, classes, name))
    if not raw.isfinite().all():
        raise UserError(f"{name} returns values that are no numbers for random images; are its weights whole?")
    precision = anchor(net).dtype
    if precision != torch.float32:
        notes.append(f"{name} computes in {str(precision).removeprefix('torch.')}: images are given to it in that")
    last = {kind for kind, gate in gates if gate.shape == raw.shape and torch.equal(gate.to(raw), raw)}
    near = 2e-2 if precision in (torch.float16, torch.bfloat16) else 1e-4
    if (moving := _moving(net, sides, normalise, Reading(found, place), classes)) is not None:
        notes.append(f"{name} {moving}")
    scale = "sigmoid" if "sigmoid" in last else _scale(raw, near)
    if scale != "logits":
        notes.append(f"{name} {SAID[scale]}")
    elif (bounded := _bounded(raw, last)) is not None:
        notes.append(f"{name} {bounded}")
    return Reading(found, place, scale, tuple(notes))


def width(
    net: nn.Module,
    sides: tuple[int, int],
    normalise: tuple[tuple[float, ...], tuple[float, ...]],
    channels: int | None = None,
    item: Item = None,
) -> int:
    """The number of classes, from the output of the network; UserError if that is ambiguous."""
    _, output, _ = _passed(net, sides, normalise, (channels,) if channels else (3, 1))
    alone = isinstance(output, Tensor)  # whether an item has a meaning all the same, `tried` finds out
    parts = {"": output} if alone else _parts(output)
    if not alone and item is not None and str(item) not in parts:
        raise UserError(_no_output(parts, item, type(net).__name__))
    chosen = None if alone else item if item is not None else "logits" if "logits" in parts else None
    found = {key: value for key, value in parts.items() if chosen is None or key == str(chosen)}
    flat = {
        value.shape[1] for value in found.values() if value.dim() > 1 and value.flatten(1).shape[1] == value.shape[1]
    }
    if len(flat) > 1:  # features beside logits: the last linear layer makes the logits
        flat &= set([module.out_features for module in net.modules() if isinstance(module, nn.Linear)][-1:])
    if len(flat) != 1:
        told = _which(parts) if len(parts) > 1 else "return its logits, N x classes, alone"
        raise UserError(f"{type(net).__name__} returns {_shapes(parts) or 'no tensor'}; {told}")
    return flat.pop()


SAID = {
    "probabilities": "ends in a softmax: the logarithm of its probabilities is read as logits",
    "log-probabilities": "ends in a log-softmax, whose values serve as logits as they are",
    "sigmoid": "ends in a sigmoid, one for each class: the inverse of it is read as logits",
}


def _largest(classes: int) -> float:
    """The largest confidence that logits between -1 and 1 can give."""
    return math.exp(1) / (math.exp(1) + (classes - 1) * math.exp(-1))


def _bounded(raw: Tensor, last: set[str]) -> str | None:
    """What to say of logits that cannot leave [-1, 1]: no image is recognised surely by them."""
    cosines = raw.shape[1] > 1 and (raw.norm(dim=1) - 1).abs().max() < 1e-4
    if not cosines and "tanh" not in last:
        return None
    told = "ends in a tanh" if "tanh" in last else "returns vectors of length 1"
    return f"{told}: no confidence above {_largest(raw.shape[1]):.2f} comes of that; a scale belongs into the network"


class _Gates(TorchFunctionMode):
    """Notes what sigmoids and tanhs have given: their values alone do not tell them from small logits."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[tuple[str, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        kind = getattr(func, "__name__", "").removesuffix("_")
        if kind in ("sigmoid", "tanh"):
            self.given.append((kind, result))
        return result


def _passed(
    net: nn.Module,
    sides: tuple[int, int],
    normalise: tuple[tuple[float, ...], tuple[float, ...]],
    candidates: tuple[int, ...],
    training: bool = False,
) -> tuple[int, Any, list[tuple[str, Tensor]]]:
    """With how many channels the network took two random images, its output, and what sigmoids and tanhs gave."""
    first, draw = None, torch.Generator().manual_seed(0)
    for channels in candidates:
        images = _images(net, sides, normalise, channels, draw)
        try:
            with _unmoved(net, training), torch.no_grad(), _Gates() as gates:
                return channels, net(images), gates.given
        except Exception as error:  # a network of the user's own may raise anything
            first = first or error
    line = " ".join(f"{type(first).__name__}: {first}".split())[:200]
    taken = " or ".join(f"2 x {channels} x {sides[0]} x {sides[1]}" for channels in candidates)
    raise UserError(f"{type(net).__name__} cannot take images of {taken} ({line}); is its size right?") from first


@contextmanager
def _unmoved(net: nn.Module, training: bool = False) -> Iterator[None]:
    """As `undone`, with buffers that eval mode moves or replaces put back as well."""
    tables = [(module._buffers, dict(module._buffers)) for module in net.modules()]
    values = [(buffer, buffer.clone(), _version(buffer)) for buffer in net.buffers()]
    try:
        with undone(net, training):
            yield
    finally:
        for own, before in tables:
            own.clear()
            own.update(before)
        with torch.no_grad():
            for buffer, value, version in values:
                if _version(buffer) != version:
                    buffer.copy_(value)


def _version(value: Tensor) -> int | None:
    """How often a tensor was changed in place; None for one of inference mode, which does not count it."""
    return None if value.is_inference() else value._version


def _images(
    net: nn.Module,
    sides: tuple[int, int],
    normalise: tuple[tuple[float, ...], tuple[float, ...]],
    channels: int,
    draw: torch.Generator,
) -> Tensor:
    """Two random images as the network itself takes them."""
    images = torch.rand(2, channels, *sides, generator=draw)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in normalise)
    return ((images - mean[:, :channels]) / std[:, :channels]).to(anchor(net))


def _moving(
    net: nn.Module,
    sides: tuple[int, int],
    normalise: tuple[tuple[float, ...], tuple[float, ...]],
    reading: Reading,
    classes: int,
) -> str | None:
    """What to say of a network that answers the same images otherwise the second time, with the same random numbers."""
    images = _images(net, sides, normalise, reading.channels, torch.Generator().manual_seed(0))

    def state() -> dict[str, tuple[int, int | None]]:
        tensors = (*net.named_parameters(), *net.named_buffers())
        return {name: (id(value), _version(value)) for name, value in tensors}

    def answer() -> Tensor:
        with randomness.own(0, images.device):
            return logits(net(images), reading, classes, type(net).__name__).clone()

    with _unmoved(net), torch.no_grad():
        before, one = state(), answer()
        changed = [name for name, mark in state().items() if before.get(name) != mark]
        two = answer()
    rounded = 2e-2 if anchor(net).dtype in (torch.float16, torch.bfloat16) else 1e-6 if changed else 1e-3
    if (one - two).abs().max() <= rounded * one.abs().max():
        return None
    what = f" ({', '.join(changed[:3])} moved)" if changed else ""
    return (
        f"answers the same image otherwise the second time{what}: what is measured depends on how often it was asked; "
        "let it keep nothing in eval mode"
    )


def _of_training(
    net: nn.Module, sides: tuple[int, int], normalise: tuple[tuple[float, ...], tuple[float, ...]], channels: int
) -> dict[str, Tensor]:
    """The outputs of a network that returns more in training than otherwise, as those with auxiliary heads do."""
    output = _passed(net, sides, normalise, (channels,), training=True)[1]
    return {} if isinstance(output, Tensor) else _parts(output)


def _parts(output: Any, level: int = 0) -> dict[str, Tensor]:
    """The tensors of a tuple, a dictionary or an object with fields, by place; inner ones as "0.1"."""
    if isinstance(output, Mapping):
        entries = {str(key): value for key, value in output.items()}
    elif isinstance(output, tuple | list):
        entries = dict(zip(getattr(output, "_fields", map(str, range(len(output)))), output))
    else:
        entries = dict(getattr(output, "__dict__", {}))
    found: dict[str, Tensor] = {}
    for key, value in entries.items():
        if isinstance(value, Tensor):
            found[key] = value
        elif level < MOST_LEVELS and isinstance(value, Mapping | tuple | list):
            found |= {f"{key}.{inner}": tensor for inner, tensor in _parts(value, level + 1).items()}
    return found


def _item(parts: dict[str, Tensor], classes: int, name: str) -> str:
    """Which of several outputs holds the logits; UserError unless that is plain."""
    if "logits" in parts:
        return "logits"
    fitting = [key for key, value in parts.items() if value.dim() == 2 and value.shape[1] == classes]
    told = [key for key in LOGITS if key in fitting]
    if len(fitting) == 1 or told:
        return (told or fitting)[0]
    if not fitting:
        raise UserError(f"{name} returns no tensor of N x {classes} numbers, but {_shapes(parts) or 'none at all'}")
    raise UserError(
        f"{name} returns {len(fitting)} tensors of N x {classes} numbers ({_shapes(parts)}); {_which(fitting)}"
    )


def _which(places: Iterable[str]) -> str:
    """How a user says which of several outputs is meant, by the first of them."""
    first = next(iter(places))
    return f"say which holds the logits: --output {first} (in Python, output={first!r})"


def _no_output(parts: dict[str, Tensor], item: Item, name: str) -> str:
    return f"{name} returns no output {str(item)!r}; it has {_shapes(parts) or 'none'}"


def _shapes(parts: dict[str, Tensor]) -> str:
    shown = [f"{key}: {' x '.join(map(str, ('N', *value.shape[1:])))}" for key, value in list(parts.items())[:4]]
    return ", ".join([*shown, *(["..."] if len(parts) > 4 else [])])


def _other_classes(raw: Tensor, classes: int, name: str) -> str:
    shape = " x ".join(map(str, ("N", *raw.shape[1:])))
    if raw.dim() == 2 and raw.shape[1] == 1:
        return (
            f"{name} returns one number an image; expected {classes}, one for each class (two classes are two numbers)"
        )
    hint = f"; say classes={raw.shape[1]}" if raw.dim() == 2 else ""
    return f"{name} returns {shape}, expected N x {classes}: {classes} outputs, one for each class{hint}"


def _scale(raw: Tensor, near: float) -> Scale:
    """What two images' outputs look like."""
    classes = raw.shape[1]
    if classes > 1 and (raw >= 0).all() and (raw.sum(1) - 1).abs().max() < near:
        return "probabilities"
    if classes > 1 and (raw <= 0).all() and raw.logsumexp(1).abs().max() < near:
        return "log-probabilities"
    return "logits"
