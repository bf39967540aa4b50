"""Randomness of our own: what is drawn inside leaves the user's global generators as they were."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def own(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Draws without a generator, as of new layers and dropout, follow `seed` in here, on the CPU and on `device`."""
    device = torch.device(device)
    card = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=card):
        torch.default_generator.manual_seed(seed)
        for each in card:
            with torch.cuda.device(each):
                torch.cuda.manual_seed(seed)
        yield
