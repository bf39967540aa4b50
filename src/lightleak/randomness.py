"""Randomness of our own: draws that leave the user's global generators alone, and seeds made of keys.

A generator draws on the processor, one number after the other. What is as large as images is drawn by `uniforms` and
`normals` instead, where the images are: each number is a function of its key and its place alone.
"""

import hashlib
import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

BITS = 2**64 - 1
STEP, MIXERS = 0x9E3779B97F4A7C15, ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))  # splitmix64's
PIECE = 2**17, 2**24  # words that are drawn at a time, on the processor (what its caches hold) and on a card


@contextmanager
def own(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Draws without a generator, as of new layers and dropout, follow `seed` in here, on the CPU and on `device`.

    So do those of NumPy and of Python, which networks of others may make; all are as they were afterwards.
    """
    device = torch.device(device)
    of_card, of_numpy, of_python = state_of(device), np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            if device.type == "cuda":
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            elif device.type == "mps":
                torch.mps.manual_seed(seed)
            yield
    finally:
        np.random.set_state(of_numpy)
        random.setstate(of_python)
        if device.type == "cuda":
            torch.cuda.set_rng_state(of_card, device)
        elif device.type == "mps":
            torch.mps.set_rng_state(of_card)


def state_of(device: torch.device) -> Tensor:
    """The state of the generator that draws on a device, on the processor."""
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.mps.get_rng_state() if device.type == "mps" else torch.get_rng_state()


def keyed(*key: int) -> torch.Generator:
    """A generator of its own for each key of integers, such as (seed, class, attempt)."""
    return torch.Generator().manual_seed(hashed(*key))


def named(*key: object) -> torch.Generator:
    """A generator of its own for each key of words and numbers, by their SHA-256."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def hashed(*numbers: Any) -> Any:
    """A 63-bit hash of integers (splitmix64), so that neighbouring seeds give unrelated generators.

    Numbers are integers, or arrays of uint64 for a hash of each of their entries.
    """
    state: Any = 0
    for number in numbers:
        state = (state ^ (number & BITS)) + STEP & BITS
        for shift, factor in MIXERS:
            state = (state ^ state >> shift) * factor & BITS
        state = state ^ state >> 31
    return state >> 1


def hashes(*numbers: Tensor | int) -> Tensor:
    """`hashed` of each entry of int64 tensors of one shape (or that broadcast), on the processor."""
    entries = (each if isinstance(each, int) else each.cpu().numpy().astype(np.uint64) for each in numbers)
    return torch.from_numpy(hashed(*entries).astype(np.int64))


def uniforms(keys: Tensor, *shape: int) -> Tensor:
    """Uniform numbers in [0, 1) of 24 bits for each key (int64, N), N x shape, the same on every device."""
    return _drawn(keys, shape, lambda high, low: (high.add_(2**23).mul_(2**-24), low.mul_(2**-24)))


def normals(keys: Tensor, *shape: int) -> Tensor:
    """Standard normal numbers for each key (int64, N), N x shape, on every device the same to the last digits."""

    def box_muller(angle: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        angle.mul_(math.pi / 2**23)
        radius.add_(1).mul_(2**-24).log_().mul_(-2).sqrt_()  # in (0, 1]: no logarithm of 0
        return angle.cos().mul_(radius), angle.sin().mul_(radius)

    return _drawn(keys, shape, box_muller)


def _drawn(keys: Tensor, shape: tuple[int, ...], pair: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Tensor:
    """Two numbers of each word of splitmix64 from each key on, N x shape, float32, where the keys are.

    `pair` makes them of the word's highest 24 bits, as whole numbers from -2**23, and of its lowest, from 0. All before
    it is exact, in integers of 64 bits, which Apple's GPUs have, too; shifts are masked, since torch's keep the sign.
    """
    size = math.prod(shape)
    words = -(-size // 2)
    steps = torch.arange(1, words + 1, device=keys.device) * (STEP - 2**64)
    found = torch.empty(len(keys), 2 * words, device=keys.device)
    rows = max(1, min(len(keys), PIECE[keys.device.type != "cpu"] // max(1, words)))
    both = torch.empty(2, rows, words, dtype=torch.int64, device=keys.device)  # new memory costs as much as the sums
    for some, numbers in zip(keys.split(rows), found.split(rows)):
        state, spare = both[:, : len(some)]
        torch.add(steps, some[:, None], out=state)
        for shift, factor in MIXERS:
            state ^= torch.bitwise_right_shift(state, shift, out=spare).bitwise_and_(2 ** (64 - shift) - 1)
            state *= factor - 2**64
        low = torch.bitwise_right_shift(state, 31, out=spare).bitwise_xor_(state).bitwise_and_(2**24 - 1).float()
        high = torch.bitwise_right_shift(state, 40, out=spare).float()
        torch.cat(pair(high, low), 1, out=numbers)
    return found[:, :size].reshape(len(keys), *shape)


def spread(seed: int, number: int) -> int:
    """A number for each seed and small `number`, such as a label: an older formula that what is on disk depends on."""
    return seed * 1_000_003 + number
