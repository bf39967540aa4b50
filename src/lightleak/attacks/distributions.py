"""Distributions of a prior's noise, one for each class and all classes at once: drawn from, priced, kept and read back.

VMI fits them; what they became is in `Reconstruction.per_class`, and `distribution_of` makes them of it again.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from lightleak.errors import UserError


class Distribution(Protocol):
    """N distributions over R^d; its fields are tensors with a row for each."""

    def push(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Draws N x M x d of standard normal noise N x M x d, and the logarithm of their density, N x M."""
        ...

    def divergence(self, noise: Tensor) -> Tensor:
        """Kullback-Leibler divergence to the standard normal distribution, N; if not exact, then estimated by noise."""
        ...


def tensors(distribution: Distribution) -> dict[str, Tensor]:
    """What it consists of, by name: what `distribution_of` makes it of."""
    return {one.name: getattr(distribution, one.name) for one in fields(distribution)}  # pyright: ignore[reportArgumentType]


def distribution_of(kept: Mapping[str, Tensor]) -> Distribution:
    """The distributions that VMI left in `Reconstruction.per_class`; UserError if there are none."""
    for kind in (Normal, Couplings):
        names = [one.name for one in fields(kind)]
        if all(name in kept for name in names):
            return kind(**{name: kept[name] for name in names})
    raise UserError(f"there are no distributions of VMI among {', '.join(kept) or 'nothing'}")


@dataclass(frozen=True)
class Normal(Distribution):
    """z = mean + factor eps: a normal distribution with a full covariance."""

    mean: Tensor  # N x d
    factor: Tensor  # N x d x d; what lies above the diagonal does not count

    @classmethod
    def standard(cls, count: int, size: int) -> "Normal":
        """Standard normal distributions."""
        return cls(torch.zeros(count, size), torch.eye(size).repeat(count, 1, 1))

    def push(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Draws and the logarithm of their density."""
        z = self.mean[:, None] + noise @ self.factor.tril().mT
        return z, standard_log_density(noise) - self._log_volume()[:, None]

    def divergence(self, noise: Tensor) -> Tensor:  # noqa: ARG002
        """Exactly: (tr(L L') + |m|^2 - d) / 2 - log |det L|."""
        square = self.factor.tril().square().sum((1, 2)) + self.mean.square().sum(1)
        return (square - self.mean.shape[1]) / 2 - self._log_volume()

    def _log_volume(self) -> Tensor:
        return self.factor.diagonal(dim1=1, dim2=2).abs().log().sum(1)


@dataclass(frozen=True)
class Couplings(Distribution):
    """A flow of K steps: the second half of the permuted values is shifted by a function of the first; all are scaled.

    As VMI's Glow at one pixel, with linear layers where that has convolutions of which one tap in nine is used.
    """

    permutation: Tensor  # int64, N x K x d: kept, since another order would be another flow
    inward: Tensor  # N x K x d // 2 x H
    bias: Tensor  # N x K x H
    outward: Tensor  # N x K x H x (d - d // 2)
    shift: Tensor  # N x K x d
    log_scale: Tensor  # N x K x d

    @classmethod
    def standard(cls, count: int, size: int, steps: int, width: int) -> "Couplings":
        """Standard normal distributions: nothing is shifted yet. The same for every class, whatever the batch."""
        own, half = torch.Generator().manual_seed(0), size // 2
        order = torch.stack([torch.randperm(size, generator=own) for _ in range(steps)])
        inward = torch.randn(steps, half, width, generator=own) / math.sqrt(max(1, half))
        zeros = (torch.zeros(count, steps, *shape) for shape in ((width,), (width, size - half), (size,), (size,)))
        return cls(order.repeat(count, 1, 1), inward.repeat(count, 1, 1, 1), *zeros)

    def push(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Draws and the logarithm of their density."""
        z, half = noise, noise.shape[2] // 2
        for step in range(self.shift.shape[1]):
            z = z.gather(2, self.permutation[:, step, None].expand_as(z))
            first, second = z[..., :half], z[..., half:]
            hidden = F.elu(torch.baddbmm(self.bias[:, step, None], first, self.inward[:, step]))
            z = torch.cat([first, torch.baddbmm(second, hidden, self.outward[:, step])], 2)
            z = z * self.log_scale[:, step, None].exp() + self.shift[:, step, None]
        return z, standard_log_density(noise) - self.log_scale.sum((1, 2))[:, None]

    def divergence(self, noise: Tensor) -> Tensor:
        """The mean of log q(z) - log N(z; 0, I) over draws."""
        z, log_density = self.push(noise)
        return (log_density - standard_log_density(z)).mean(1)


def standard_log_density(z: Tensor) -> Tensor:
    """log N(z; 0, I) over the last axis."""
    return -(z.square().sum(-1) + z.shape[-1] * math.log(2 * math.pi)) / 2
