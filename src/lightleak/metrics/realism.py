"""How far images lie from the real ones: FID, precision, recall, density, coverage, over given features.

The features are the caller's: N x D rows of any embedding of images in [0, 1]; published comparisons use the
2048 features of the FID Inception. Numbers compare only between runs with the same features and numbers of
images.

Sources: Heusel et al. 2017 (FID), Kynkäänniemi et al. 2019 (precision, recall), Naeem et al. 2020 (density,
coverage).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightleak.errors import UserError


@dataclass(frozen=True)
class Manifold:
    """Precision, recall, density and coverage; all but density lie in [0, 1]."""

    precision: float
    recall: float
    density: float
    coverage: float


def fid(real: Tensor, fake: Tensor) -> float:
    """The Fréchet distance between normal distributions fitted to `real` (N x D) and `fake` (M x D).

    Computed in float64 with unbiased covariances. Biased upwards when N or M is not much larger than D.
    """
    _check(real, fake, least=2)
    real, fake = real.double(), fake.double()
    shift = (real.mean(0) - fake.mean(0)).square().sum()
    # tr sqrt(A B) is the nuclear norm of X Y' for A = X'X, B = Y'Y: no matrix root, no complex noise.
    x = (real - real.mean(0)) / (len(real) - 1) ** 0.5
    y = (fake - fake.mean(0)) / (len(fake) - 1) ** 0.5
    overlap = torch.linalg.svdvals(_root(x) @ _root(y).T).sum()
    return max(0.0, float(shift + x.square().sum() + y.square().sum() - 2 * overlap))


def _root(rows: Tensor) -> Tensor:
    """A matrix R with R'R = rows'rows and no more than D rows."""
    return torch.linalg.qr(rows, mode="r").R if len(rows) > rows.shape[1] else rows


def manifold(real: Tensor, fake: Tensor, k: int = 3, published: bool = False) -> Manifold:
    """Precision, recall, density and coverage of `fake` (M x D) against `real` (N x D), k nearest neighbours.

    `published` repeats PPA's evaluation: precision and recall look at the *nearest* image of the other set
    only, where the definition asks for any ball, and density averages over the real images.
    """
    _check(real, fake, least=k + 1)
    real, fake = real.double(), fake.double()
    between = _distances(real, fake)
    # The distance to oneself comes first, so the k-th neighbour is entry k + 1.
    real_ball = _distances(real, real).kthvalue(k + 1, dim=1).values
    fake_ball = _distances(fake, fake).kthvalue(k + 1, dim=1).values
    inside_real, inside_fake = between < real_ball[:, None], between < fake_ball[None, :]
    if published:
        inside_real, inside_fake = between <= real_ball[:, None], between <= fake_ball[None, :]
        precision = inside_real.gather(0, between.argmin(0, keepdim=True)).double().mean()
        recall = inside_fake.gather(1, between.argmin(1, keepdim=True)).double().mean()
        density = inside_real.sum(1).double().mean() / k
        return Manifold(float(precision), float(recall), float(density), float(inside_real.any(1).double().mean()))
    return Manifold(
        precision=float(inside_real.any(0).double().mean()),
        recall=float(inside_fake.any(1).double().mean()),
        density=float(inside_real.sum(0).double().mean() / k),
        coverage=float((between.amin(1) < real_ball).double().mean()),
    )


def _distances(a: Tensor, b: Tensor) -> Tensor:
    # Differences, not the Gram matrix: duplicates must come out at exactly 0.
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _check(real: Tensor, fake: Tensor, least: int) -> None:
    for name, rows in (("real", real), ("fake", fake)):
        if rows.dim() != 2 or len(rows) < least:
            raise UserError(
                f"expected {name} features N x D with N >= {least}, got {tuple(rows.shape)}; give more images"
            )
        if not rows.isfinite().all():
            raise UserError(f"the {name} features are not all finite; the embedding or the images are broken")
    if real.shape[1] != fake.shape[1]:
        raise UserError(f"expected one feature width, got {real.shape[1]} (real) and {fake.shape[1]} (fake)")
