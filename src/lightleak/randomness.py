"""Randomness of our own: draws that leave the user's global generators alone, and seeds made of keys."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

BITS = 2**64 - 1


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
        state = (state ^ (number & BITS)) + 0x9E3779B97F4A7C15 & BITS
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & BITS
        state = (state ^ state >> 27) * 0x94D049BB133111EB & BITS
        state = state ^ state >> 31
    return state >> 1


def spread(seed: int, number: int) -> int:
    """A number for each seed and small `number`, such as a label: an older formula that what is on disk depends on."""
    return seed * 1_000_003 + number
