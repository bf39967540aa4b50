"""Separable CMA-ES (Ros and Hansen, A Simple Modification in CMA-ES, PPSN 2008), many searches at once.

Each search has its own mean, step size and variances, and draws from its own generator: what it finds depends on
nobody else. The constants are those of Hansen's tutorial (2016), the rates of the variances (n + 2) / 3 times as large.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightleak.ranking import as_lowest


@dataclass(frozen=True)
class Rates:
    """The constants of n dimensions and a population of `size`."""

    weights: Tensor  # of the better half, descending, sum 1
    mass: float  # the variance that a weighted mean of them loses
    cs: float
    damping: float
    cc: float
    c1: float
    cmu: float
    length: float  # the expected length of a standard normal vector

    @classmethod
    def of(cls, n: int, size: int) -> "Rates":
        """Those of the tutorial, but for the variances'."""
        parents = size // 2
        raw = torch.log(torch.tensor((size + 1) / 2)) - torch.arange(1, parents + 1).log()
        weights = raw / raw.sum()
        mass = float(1 / weights.square().sum())
        cs = (mass + 2) / (n + mass + 5)
        damping = 1 + 2 * max(0.0, ((mass - 1) / (n + 1)) ** 0.5 - 1) + cs
        cc = (4 + mass / n) / (n + 4 + 2 * mass / n)
        c1 = 2 / ((n + 1.3) ** 2 + mass)
        cmu = min(1 - c1, 2 * (mass - 2 + 1 / mass) / ((n + 2) ** 2 + mass))
        c1 = min(1.0, c1 * (n + 2) / 3)
        cmu = min(1 - c1, cmu * (n + 2) / 3)
        return cls(weights, mass, cs, damping, cc, c1, cmu, n**0.5 * (1 - 1 / (4 * n) + 1 / (21 * n**2)))


@dataclass(frozen=True)
class Evolution:
    """Where so many searches are, after a number of generations."""

    mean: Tensor  # N x L
    step: Tensor  # N: the step size
    variances: Tensor  # N x L
    paths: tuple[Tensor, Tensor]  # N x L each: of the step size, of the variances
    generation: int = 0

    @classmethod
    def at(cls, mean: Tensor, step: float) -> "Evolution":
        """The start: at `mean`, with one step size for all."""
        start = torch.full((len(mean),), step, device=mean.device)
        return cls(mean, start, torch.ones_like(mean), (torch.zeros_like(mean), torch.zeros_like(mean)))

    def candidates(self, normals: Tensor) -> Tensor:
        """The next generation, of standard normal numbers N x P x L."""
        return self.mean[:, None] + self.step[:, None, None] * self.variances.sqrt()[:, None] * normals

    def after(self, normals: Tensor, fitness: Tensor, rates: Rates) -> "Evolution":
        """One generation later: `fitness` N x P (higher is better, NaN the worst) of the candidates of `normals`."""
        order = as_lowest(fitness).argsort(dim=1, descending=True, stable=True)[:, : len(rates.weights)]
        best = normals.gather(1, order[:, :, None].expand(-1, -1, normals.shape[2]))
        weights = rates.weights.to(normals)[:, None]
        move = (weights * best).sum(1)  # before it is scaled
        spread = self.variances.sqrt()
        mean = self.mean + self.step[:, None] * spread * move
        pace = (1 - rates.cs) * self.paths[0] + (rates.cs * (2 - rates.cs) * rates.mass) ** 0.5 * move
        length = pace.norm(dim=1)
        fresh = (1 - (1 - rates.cs) ** (2 * (self.generation + 1))) ** 0.5
        slow = (length / fresh < (1.4 + 2 / (self.mean.shape[1] + 1)) * rates.length).to(normals)[:, None]
        way = (1 - rates.cc) * self.paths[1] + slow * (rates.cc * (2 - rates.cc) * rates.mass) ** 0.5 * spread * move
        kept = 1 - rates.c1 - rates.cmu + rates.c1 * (1 - slow) * rates.cc * (2 - rates.cc)
        seen = self.variances * (weights * best.square()).sum(1)
        variances = kept * self.variances + rates.c1 * way.square() + rates.cmu * seen
        step = self.step * ((rates.cs / rates.damping) * (length / rates.length - 1)).clamp(max=1).exp()
        return Evolution(mean, step, variances, (pace, way), self.generation + 1)

    def within(self, low: Tensor, high: Tensor) -> "Evolution":
        """The same with means in a box: it cannot drift to where all candidates look alike."""
        return replace(self, mean=self.mean.clamp(low, high))
