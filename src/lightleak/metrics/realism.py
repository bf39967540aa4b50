"""How far images lie from the real ones: FID, precision, recall, density, coverage, over given features.

The features are the caller's: N x D rows of any embedding of images in [0, 1]; published comparisons use the
2048 features of the FID Inception. Numbers compare only between runs with the same features and numbers of
images.

Sources: Heusel et al. 2017 (FID), Kynkäänniemi et al. 2019 (precision, recall), Naeem et al. 2020 (density,
coverage).
"""

from dataclasses import dataclass

import torch
from scipy.special import stdtrit
from torch import Tensor

from lightleak.errors import UserError
from lightleak.metrics.evidence import Measure
from lightleak.metrics.recognition import rows_of

PIECE = 1024  # images whose distances are held at once
MOST_BOOTSTRAPPED = 10**7  # numbers beyond which people are not drawn again
FEW_DIFFERENCES = 10**7  # numbers up to which distances are taken from differences alone
PAIRS = 2**14  # images whose differences are held at once


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
    real, fake = real.double(), fake.to(real.device).double()
    shift = (real.mean(0) - fake.mean(0)).square().sum()
    # tr sqrt(A B) is the nuclear norm of X Y' for A = X'X, B = Y'Y: no matrix root, no complex noise.
    x = (real - real.mean(0)) / (len(real) - 1) ** 0.5
    y = (fake - fake.mean(0)) / (len(fake) - 1) ** 0.5
    overlap = torch.linalg.svdvals(_root(x) @ _root(y).T).sum()
    return max(0.0, float(shift + x.square().sum() + y.square().sum() - 2 * overlap))


def _root(rows: Tensor) -> Tensor:
    """A matrix R with R'R = rows'rows and no more than D rows."""
    return torch.linalg.qr(rows, mode="r").R if len(rows) > rows.shape[1] else rows


def fid_over_people(
    real: Tensor, labels: Tensor, fake: Tensor, classes: Tensor, level: float = 0.95, draws: int = 40
) -> Measure:
    """FID with an interval over people: they are drawn again with all their real images and all reconstructions.

    `labels` and `classes` say whom each image shows. FID of few images is biased upwards, and of people drawn twice
    more so: the interval is the normal one about the value, from the spread of the draws alone. None for sets so large
    that it would take minutes.
    """
    value, people = fid(real, fake), classes.unique()
    if len(people) < 2 or real.numel() + fake.numel() > MOST_BOOTSTRAPPED:
        return Measure(value)
    mine, theirs = (rows_of(side, people) for side in (labels, classes))
    rng, found = torch.Generator().manual_seed(0), []
    for _ in range(draws):
        who = torch.randint(len(people), (len(people),), generator=rng).tolist()
        found.append(fid(real[torch.cat([mine[i] for i in who])], fake[torch.cat([theirs[i] for i in who])]))
    half = float(stdtrit(len(people) - 1, (1 + level) / 2)) * float(torch.tensor(found, dtype=torch.float64).std())
    return Measure(value, max(0.0, value - half), value + half)


def manifold(real: Tensor, fake: Tensor, k: int = 3, published: bool = False) -> Manifold:
    """Precision, recall, density and coverage of `fake` (M x D) against `real` (N x D), k nearest neighbours.

    `published` repeats PPA's evaluation: precision and recall look at the *nearest* image of the other set
    only, where the definition asks for any ball, and density averages over the real images.
    """
    return Manifold(**{name: float(values.mean()) for name, values in by_image(real, fake, k, published).items()})


def by_image(real: Tensor, fake: Tensor, k: int = 3, published: bool = False) -> dict[str, Tensor]:
    """What `manifold` averages: precision and density of each of `fake`, recall and coverage of each of `real`.

    (As published, density is of each real image.)
    """
    _check(real, fake, least=k + 1)
    real, fake = real.double(), fake.to(real.device).double()
    # The distance to oneself comes first, so the k-th neighbour is entry k + 1.
    real_ball, fake_ball = _ball(real, k + 1), _ball(fake, k + 1)
    near, inside_nearest = torch.full_like(fake_ball, torch.inf), torch.zeros_like(fake_ball, dtype=torch.bool)
    inside_any, balls = torch.zeros_like(inside_nearest), torch.zeros_like(fake_ball)
    recalled, covered, held = [], [], []
    for piece, ball in zip(real.split(PIECE), real_ball.split(PIECE)):
        between = _distances(piece, fake, ball[:, None], fake_ball, nearest=True)
        inside_real, inside_fake = between < ball[:, None], between < fake_ball[None, :]
        if published:
            inside_real, inside_fake = between <= ball[:, None], between <= fake_ball[None, :]
            nearest = between.argmin(0, keepdim=True)
            distance, inside = between.gather(0, nearest)[0], inside_real.gather(0, nearest)[0]
            inside_nearest = torch.where(distance < near, inside, inside_nearest)
            near = torch.minimum(near, distance)
            inside_fake = inside_fake.gather(1, between.argmin(1, keepdim=True))
        inside_any |= inside_real.any(0)
        balls += inside_real.sum(0)
        held.append(inside_real.sum(1))
        recalled.append(inside_fake.any(1))
        covered.append(inside_real.any(1) if published else between.amin(1) < ball)
    return {
        "precision": (inside_nearest if published else inside_any).double(),
        "recall": torch.cat(recalled).double(),
        "density": (torch.cat(held) if published else balls).double() / k,
        "coverage": torch.cat(covered).double(),
    }


def _ball(rows: Tensor, place: int) -> Tensor:
    """The distance from each row to the `place`-th nearest, itself the first."""
    return torch.cat(
        [_distances(piece, rows, place=place).kthvalue(place, dim=1).values for piece in rows.split(PIECE)]
    )


def _distances(a: Tensor, b: Tensor, *bounds: Tensor, nearest: bool = False, place: int = 0) -> Tensor:
    """Distances from all of `a` to all of `b`, right in float64 wherever a comparison may turn on it.

    Differences take N x M x D steps and give duplicates exactly 0. Of many rows, a matrix product in float32 says
    nearly as much at a fraction of the time; what it leaves open is done by differences: which side of the `bounds` a
    pair lies on, which pair is the `nearest` of a row or column, and how far the `place`-th of a row is.
    """
    if len(a) * len(b) * a.shape[1] <= FEW_DIFFERENCES:
        return _by_differences(a, b)
    centre = b.mean(0)
    x, y = (a - centre).float(), (b - centre).float()
    norms = x.square().sum(1)[:, None] + y.square().sum(1)
    squares = (norms - 2 * x @ y.T).clamp_(min=0)
    error = norms.mul_(4 * (a.shape[1] + 8) * torch.finfo(torch.float32).eps)  # a bound, of any order of summation
    doubt = squares <= error
    for bound in bounds:
        doubt |= (squares - bound.square().float()).abs() <= error
    if nearest:
        for dim in (0, 1):
            doubt |= squares - error <= (squares + error).amin(dim, keepdim=True)
    if place:
        doubt |= squares - error <= (squares + error).kthvalue(place, dim=1, keepdim=True).values
    one, other = doubt.nonzero(as_tuple=True)
    if len(one) > squares.numel() // 8 or not bool(error.isfinite().all()):
        return _by_differences(a, b)
    distances = squares.double().sqrt_()
    for part in torch.arange(len(one), device=a.device).split(PAIRS):
        pairs = one[part], other[part]
        distances[pairs] = _by_differences(a[pairs[0]][:, None], b[pairs[1]][:, None]).flatten()
    return distances


def _by_differences(a: Tensor, b: Tensor) -> Tensor:
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
