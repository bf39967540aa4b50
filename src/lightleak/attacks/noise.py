"""What is random inside a target, drawn image by image from generators of their own.

MID's bottleneck, dropout and dropped paths draw from the process's generator for a whole batch at once. Then an answer
would depend on the batch that an image came in and on all that was drawn before. Here every random operation of a
forward pass is done for one image after the other, each from a seed of its own; the process's generators, NumPy's and
Python's among them, stay as they were. Only forward passes draw: autograd keeps the masks that it needs. What is drawn
otherwise (by NumPy, or once for a whole batch) is an image's own where images are asked one at a time.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightleak import randomness

# Random operations that can be done row by row; any other is seeded once for the batch.
ROWWISE = {
    "bernoulli", "bernoulli_", "native_dropout", "normal", "normal_", "uniform_", "randn", "rand", "randn_like",
    "rand_like", "randint", "randint_like", "exponential_", "cauchy_", "log_normal_", "geometric_", "poisson",
    "multinomial", "rrelu_with_noise",
}  # fmt: skip


def is_noisy(answer: Callable[[], object], device: torch.device) -> bool:
    """Whether a call draws random numbers; the process's generators are put back."""
    with randomness.own(0, device):
        before = _states(device)
        answer()
        return _states(device) != before


@contextmanager
def keyed_noise(seeds: Sequence[int], device: torch.device) -> Iterator[None]:
    """While it lasts, what is random about image i of a batch of len(seeds) comes from seeds[i]."""
    with randomness.own(seeds[0] if len(seeds) == 1 else 0, device), _RowByRow(seeds):
        yield


def content_seeds(images: Tensor) -> list[int]:
    """A seed for each image by what it shows, so that the same image gets the same answer."""
    flat = images.detach().flatten(1).cpu().contiguous().numpy()
    return [int.from_bytes(blake2b(row.tobytes(), digest_size=8).digest()) >> 1 for row in flat]


class _RowByRow(TorchDispatchMode):
    def __init__(self, seeds: Sequence[int]) -> None:
        super().__init__()
        self.seeds = seeds
        self.drawn = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if torch.Tag.nondeterministic_seeded not in func.tags or name not in ROWWISE:
            return func(*args, **kwargs)
        self.drawn += 1
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        size = next((value for value in args if isinstance(value, list | tuple)), None) if not tensors else None
        length = len(tensors[0]) if tensors and tensors[0].dim() else (size[0] if size else 0)
        if not length or length % len(self.seeds):
            return func(*args, **kwargs)
        each = length // len(self.seeds)
        device = tensors[0].device if tensors else torch.device(kwargs.get("device") or "cpu")
        made = []
        for row, seed in enumerate(self.seeds):

            def own(value: Any, part: slice = slice(row * each, (row + 1) * each)) -> Any:
                if isinstance(value, Tensor):
                    return (value[part] if value.dim() and len(value) == length else value).cpu()
                if value is size and size is not None:
                    return [each, *size[1:]]
                return torch.device("cpu") if isinstance(value, torch.device) else value

            torch.default_generator.manual_seed((seed + self.drawn * 0x9E3779B97F4A7C15) % 2**63)
            made.append(func(*map(own, args), **{key: own(value) for key, value in kwargs.items()}))
        if name.endswith("_"):
            args[0].copy_(torch.cat(made))
            return args[0]
        if isinstance(made[0], tuple):
            return tuple(torch.cat(parts).to(device) for parts in zip(*made, strict=True))
        return torch.cat(made).to(device)


def _states(device: torch.device) -> list[Any]:
    _, words, *place = np.random.get_state()
    of_torch = [state.numpy().tobytes() for state in (torch.get_rng_state(), randomness.state_of(device))]
    return [*of_torch, np.asarray(words).tobytes(), place, random.getstate()]
