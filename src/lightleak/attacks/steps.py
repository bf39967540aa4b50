"""Steps that attacks share: identity losses, candidates, confidence over views."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from lightleak.attacks.draws import Rows, own_draws
from lightleak.attacks.frame import Common
from lightleak.attacks.oracle import Oracle
from lightleak.data.views import DRAWS, View, resized
from lightleak.place import precise
from lightleak.priors.prior import Prior
from lightleak.ranking import as_lowest
from lightleak.training.losses import max_margin

CANDIDATES = -3  # the step that scoring candidates counts as; their mirrors are one below

# ---------------------------------------------------------------------------------------------------------------------
# Identity losses: logits N x C and classes N to one loss per image, smaller is better


def poincare(logits: Tensor, classes: Tensor, xi: float = 1e-4) -> Tensor:
    """Poincaré distance between the L1-normalised logits and a shrunken corner (Struppek et al., ICML 2022, Eq. 4), N.

    With a = 1 - xi, s = ||u||^2: arccosh(1 + 2 (s - 2 a u_t + a^2) / ((1 - s)(1 - a^2))). Guarded where all logits
    are zero (then u = 0) and where one logit carries everything (1 - s is kept above 1e-12), so that it is always
    finite. Computed in float64: 1 - s and the distance both vanish as the target becomes sure.
    """
    device, logits = logits.device, precise(logits)
    u = logits / logits.abs().sum(1, keepdim=True).clamp(min=1e-12)
    at_class = u.gather(1, classes[:, None].to(u.device)).squeeze(1)
    s = u.square().sum(1)
    a = 1 - xi
    outside = (1 - s).clamp(min=1e-12) * (2 * xi - xi * xi)
    distance = torch.acosh(1 + (2 * (s - 2 * a * at_class + a * a) / outside).clamp(min=1e-9))
    return distance.float().to(device)


def cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """Minus the logarithm of the target's confidence, N."""
    return F.cross_entropy(logits.float(), classes, reduction="none")


def negative_logit(logits: Tensor, classes: Tensor) -> Tensor:
    """Minus the class's own logit (LOMMA, Nguyen et al., CVPR 2023, Eq. 3 without its regulariser), N."""
    return -logits.gather(1, classes[:, None]).squeeze(1)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "poincare": poincare,
    "cross-entropy": cross_entropy,
    "max-margin": max_margin,
    "logit": negative_logit,
}


def loss_problems(name: str) -> list[str]:
    """What is wrong with the name of an identity loss: nothing, or that there is none."""
    return [] if name in LOSSES else [f"there is no loss {name!r}; choose from {', '.join(LOSSES)}"]


# What an attack descends beside the prior's own term: images, and whose they are, to one loss each and the target's
# logits; differentiable in the images.
Identity = Callable[[Tensor, Rows], tuple[Tensor, Tensor]]


def identity_loss(oracle: Oracle, loss: str) -> Identity:
    """The identity loss of the target alone, by name."""

    def identity(images: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        logits = oracle.logits(images, rows)
        return LOSSES[loss](logits, rows.classes), logits

    return identity


def implausible(prior: Prior, images: Tensor, classes: Tensor) -> Tensor:
    """How implausible images are as public ones, N: -log p(real) where the prior knows the odds, else minus its score.

    So a Wasserstein critic counts as in GMI (-D) and KED-MI's discriminator as in KED-MI.
    """
    score = prior.realism(images, classes)
    return F.softplus(-score) if prior.log_odds else -score


# ---------------------------------------------------------------------------------------------------------------------
# Candidates and confidence


def draw_candidates(
    oracle: Oracle, prior: Prior, count: int, seed: int, batch: int, cutoff: int | None = None
) -> Common:
    """Latents of a run's seed, scored once for all classes: `latents` N x L and `scores` N x C, each the mean of the
    target's confidence in an image and in its mirror.

    With a `cutoff`, only the first so many style slots are truncated in what is scored, never in the latents.
    """
    asked = oracle.queries
    latents = prior.sample(count, torch.Generator().manual_seed(seed))
    shown = latents if cutoff is None else prior.untruncated(latents, cutoff)
    scores = candidate_scores(oracle, prior, shown, batch, seed)
    return Common({"latents": latents, "scores": scores.cpu()}, seed, oracle.queries - asked)


@torch.no_grad()
def candidate_scores(oracle: Oracle, prior: Prior, latents: Tensor, batch: int, seed: int = 0) -> Tensor:
    """The target's confidence in every class for each latent, averaged over the image and its mirror, N x C."""
    scores = []
    for index in torch.arange(len(latents)).split(batch):
        chunk = latents[index].to(oracle.device)
        images = resized(prior.decode(chunk).clamp(0, 1), oracle.size)
        mine = index.to(oracle.device)
        rows = Rows(seed, torch.zeros_like(mine), mine, CANDIDATES)
        both = [oracle.scores(images, rows), oracle.scores(images.flip(3), replace(rows, step=CANDIDATES - 1))]
        scores.append((both[0] + both[1]) / 2)
    return torch.cat(scores)


def select_candidates(scores: Tensor, classes: Tensor, attempts: int) -> Tensor:
    """For each class the indices of its `attempts` best candidates, best first, C x attempts; one top-k for all."""
    return as_lowest(scores[:, classes]).topk(attempts, dim=0).indices.T


@torch.no_grad()
def confidence_over_views(oracle: Oracle, images: Tensor, rows: Rows, view: View, draws: Tensor, batch: int) -> Tensor:
    """The target's confidence in each image's class, averaged over its views (draws N x V x DRAWS), N."""
    out = []
    views = draws.shape[1]
    for index in torch.arange(len(images), device=images.device).split(max(1, batch // views)):
        seen = view(images[index].repeat_interleave(views, 0), draws[index].flatten(0, 1).to(images))
        mine = rows.at(index).repeated(views)
        confidence = oracle.scores(seen, mine).gather(1, mine.classes[:, None])
        out.append(confidence.view(len(index), views).mean(1))
    return torch.cat(out)


def view_draws(seed: int, classes: Tensor, attempts: Tensor, steps: int) -> Tensor:
    """The draws of `steps` views for each (class, attempt), N x steps x DRAWS."""
    return own_draws(seed, classes, attempts, (steps, DRAWS))
