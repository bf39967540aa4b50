"""Does a judge recognise the person? Attack accuracy and distances, from logits and features.

Numbers are computed where the first argument is; the others follow it there.
"""

import torch
from torch import Tensor

from lightleak.errors import UserError


def true_rank(scores: Tensor, classes: Tensor) -> Tensor:
    """How many other classes score at least as high as the true one, per row of `scores` (N x C): 0 is a
    clear winner.

    A tie counts against the true class, so a judge that says the same of everybody recognises nobody; a row
    that is not finite ranks last.
    """
    if scores.dim() != 2 or classes.shape != scores.shape[:1]:
        raise UserError(f"expected scores N x C and N classes, got {tuple(scores.shape)} and {tuple(classes.shape)}")
    if len(classes) and (int(classes.min()) < 0 or int(classes.max()) >= scores.shape[1]):
        raise UserError(f"expected classes from 0 to {scores.shape[1] - 1}, got up to {int(classes.max())}")
    own = scores.gather(1, classes.to(scores.device)[:, None])
    rank = (scores >= own).sum(1) - 1
    return torch.where(scores.isfinite().all(1), rank, scores.shape[1])


def hits(logits: Tensor, classes: Tensor, k: int = 1) -> Tensor:
    """Whether the true class is among the k best, one boolean per image; its mean is the attack accuracy @k.

    With k >= C everything would be a hit: that is an error, not a perfect score.
    """
    if not 1 <= k < logits.shape[1]:
        raise UserError(f"accuracy @{k} says nothing among {logits.shape[1]} classes; k must be smaller")
    return true_rank(logits, classes) < k


def per_class(values: Tensor, classes: Tensor, which: Tensor) -> Tensor:
    """The mean of `values` (N) over each class in `which`, in that order; NaN where it has no image."""
    classes, which = classes.cpu(), which.cpu()
    known, place = classes.unique(return_inverse=True)
    total = torch.zeros(len(known), dtype=torch.float64).index_add_(0, place, values.double().cpu())
    mean = total / torch.bincount(place, minlength=len(known))
    where = torch.searchsorted(known, which).clamp(max=max(len(known) - 1, 0))
    if not len(known):
        return torch.full((len(which),), torch.nan, dtype=torch.float64)
    return torch.where(known[where] == which, mean[where], torch.nan)


def rows_of(classes: Tensor, which: Tensor) -> tuple[Tensor, ...]:
    """For each class in `which`, the rows (of `classes`, N) that are of it, ascending; in one pass over all."""
    order = classes.argsort(stable=True)
    ascending = classes[order].contiguous()
    low, high = torch.searchsorted(ascending, which), torch.searchsorted(ascending, which, right=True)
    return tuple(order[first:last] for first, last in zip(low.tolist(), high.tolist()))


def nearest(features: Tensor, classes: Tensor, private: Tensor, labels: Tensor, squared: bool = True) -> Tensor:
    """The shortest distance from each row of `features` to a private image of its own class, one number per
    row.

    Squared L2 by default: that is delta_eval of PPA (features of the judge), delta_face (an embedding of
    faces) and the "KNN Dist" of the 64-pixel attacks. NaN where the class has no private image.
    """
    if features.dim() != 2 or private.dim() != 2 or features.shape[1] != private.shape[1]:
        raise UserError(f"expected features N x D and M x D, got {tuple(features.shape)} and {tuple(private.shape)}")
    classes, private, labels = (tensor.to(features.device) for tensor in (classes, private, labels))
    distance = torch.full((len(features),), torch.nan, dtype=torch.float64, device=features.device)
    for mine, own in zip(rows_of(classes, (known := classes.unique())), rows_of(labels, known)):
        if len(own):
            # Differences, not the Gram matrix: its cancellation would swallow small distances.
            table = torch.cdist(
                features[mine].double(), private[own].double(), compute_mode="donot_use_mm_for_euclid_dist"
            )
            distance[mine] = table.amin(1)
    return distance.square() if squared else distance
