"""Randomness that belongs to an attempt: what an identity gets depends on (seed, class, attempt), never on its batch.

Everything is drawn on the CPU and then moved, so that all devices draw alike; but of perturbed copies, which are as
large as images, only the keys are (`randomness.normals`).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightleak.priors.prior import Prior
from lightleak.randomness import hashed, hashes, keyed, named


def seed_of(rng: torch.Generator) -> int:
    """One number that stands for this run's randomness."""
    return int(torch.randint(2**62, (), generator=rng, device=rng.device))


def seed_for(seed: int, purpose: str) -> int:
    """The seed of one purpose: what is drawn for another from the same number is unrelated to it."""
    return seed_of(named(seed, purpose))


def own_draws(seed: int, classes: Tensor, attempts: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Uniform numbers in [0, 1) for each (class, attempt), N x shape, the same in whatever batch they are asked for."""
    return _each(seed, classes, attempts, lambda own: torch.rand(shape, generator=own))


def own_normals(seed: int, classes: Tensor, attempts: Tensor, shape: tuple[int, ...]) -> Tensor:
    """As `own_draws`, but standard normal."""
    return _each(seed, classes, attempts, lambda own: torch.randn(shape, generator=own))


def own_latents(prior: Prior, seed: int, classes: Tensor, attempts: Tensor) -> Tensor:
    """One latent of the prior for each (class, attempt), N x L, the same in whatever batch it is asked for."""
    return _each(seed, classes, attempts, lambda own: prior.sample(1, own)[0])


class Streams:
    """A random generator for each search, kept from step to step; a search that ends does not affect the others."""

    def __init__(self, seed: int, classes: Tensor, attempts: Tensor, stream: int = 0) -> None:
        pairs = zip(classes.tolist(), attempts.tolist(), strict=True)
        self.own = [keyed(seed + stream, *pair) for pair in pairs]
        self.device = classes.device

    def normals(self, index: Tensor, *shape: int) -> Tensor:
        """Standard normal numbers of the searches at `index`, N x shape."""
        return self._drawn(index, lambda own: torch.randn(shape, generator=own))

    def uniforms(self, index: Tensor, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1) of the searches at `index`, N x shape."""
        return self._drawn(index, lambda own: torch.rand(shape, generator=own))

    def numbers(self, index: Tensor, below: int, *shape: int) -> Tensor:
        """Whole numbers from 0 to below - 1 of the searches at `index`, int64, N x shape."""
        return self._drawn(index, lambda own: torch.randint(below, shape, generator=own))

    def _drawn(self, index: Tensor, draw) -> Tensor:
        return torch.stack([draw(self.own[place]) for place in index.tolist()]).to(self.device)


def _each(seed: int, classes: Tensor, attempts: Tensor, draw) -> Tensor:
    pairs = zip(classes.tolist(), attempts.tolist(), strict=True)
    return torch.stack([draw(keyed(seed, *pair)) for pair in pairs]).to(classes.device)


@dataclass(frozen=True)
class Rows:
    """Whose images a query shows, one row an image: what is random in an answer belongs to its row.

    Copies of one image (views, perturbed ones) are told apart by `copies`.
    """

    seed: int
    classes: Tensor  # int64, N: whom each image is meant to show
    attempts: Tensor  # int64, N
    step: int = 0
    copies: Tensor | None = None  # int64, N

    def __len__(self) -> int:
        return len(self.classes)

    def at(self, index: Tensor | slice, copies: Tensor | None = None) -> "Rows":
        """The rows at `index`; with `copies`, as so numbered copies of them."""
        mine = None if self.copies is None else self.copies[index]
        if copies is not None:
            mine = copies.to(self.classes.device) + (0 if mine is None else (mine + 1) << 20)
        return replace(self, classes=self.classes[index], attempts=self.attempts[index], copies=mine)

    def repeated(self, count: int) -> "Rows":
        """Each row `count` times in a row, as numbered copies."""
        index = torch.arange(len(self), device=self.classes.device).repeat_interleave(count)
        return self.at(index, torch.arange(count, device=index.device).repeat(len(self)))

    def keys(self, number: Tensor, stream: int = 0) -> Tensor:
        """A key for the `number`-th perturbed copy of each row, int64, N, where the rows are; streams are independent
        of each other.
        """
        copies = [] if self.copies is None else [self.copies]
        found = hashes(self.seed + stream, self.classes, self.attempts, self.step, number, *copies)
        return found.to(self.classes.device)

    def seeds(self) -> list[int]:
        """A number for each row that stands for its randomness."""
        copies = torch.zeros_like(self.classes) if self.copies is None else self.copies + 1
        return hashes(hashed(self.seed, self.step), self.classes, self.attempts, copies).tolist()
