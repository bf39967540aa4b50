"""Steps that attacks share: identity losses, randomness that belongs to an attempt, candidates, belief, descent."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lightleak.attacks.oracle import Oracle
from lightleak.data.views import DRAWS, View, resized
from lightleak.errors import UserError
from lightleak.priors import Prior
from lightleak.priors.stylegan2 import StyleGAN2Prior
from lightleak.ranking import as_lowest
from lightleak.training.losses import max_margin

# ---------------------------------------------------------------------------------------------------------------------
# Identity losses: logits N x C and classes N to one loss per image, smaller is better


def poincare(logits: Tensor, classes: Tensor, xi: float = 1e-4) -> Tensor:
    """Poincaré distance between the L1-normalised logits and a shrunken corner (Struppek et al., ICML 2022, Eq. 4), N.

    With a = 1 - xi, s = ||u||^2: arccosh(1 + 2 (s - 2 a u_t + a^2) / ((1 - s)(1 - a^2))). Guarded where all logits
    are zero (then u = 0) and where one logit carries everything (1 - s is kept above 1e-12), so that it is always
    finite. Computed in float64: 1 - s and the distance both vanish as the target becomes sure.
    """
    logits = logits.double()
    u = logits / logits.abs().sum(1, keepdim=True).clamp(min=1e-12)
    at_class = u.gather(1, classes[:, None]).squeeze(1)
    s = u.square().sum(1)
    a = 1 - xi
    outside = (1 - s).clamp(min=1e-12) * (2 * xi - xi * xi)
    return torch.acosh(1 + (2 * (s - 2 * a * at_class + a * a) / outside).clamp(min=1e-9)).float()


def cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """Minus the logarithm of the target's belief, N."""
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

# What an attack descends beside the prior's own term. Bound to the classes and attempts of a batch (each N), it turns
# images into one loss each and the target's logits; differentiable in the images.
Identity = Callable[[Tensor], tuple[Tensor, Tensor]]
Identities = Callable[[Tensor, Tensor], Identity]


def asked(oracle: Oracle, loss: str) -> Identities:
    """The identity loss of the target alone, by name."""

    def bind(classes: Tensor, _attempts: Tensor) -> Identity:
        def identity(images: Tensor) -> tuple[Tensor, Tensor]:
            logits = oracle.logits(images)
            return LOSSES[loss](logits, classes), logits

        return identity

    return bind


def implausible(prior: Prior, images: Tensor, classes: Tensor) -> Tensor:
    """How unlike public images they look, N: -log p(real) where the prior knows the odds, else minus its score.

    So a Wasserstein critic counts as in GMI (-D) and KED-MI's discriminator as in KED-MI.
    """
    score = prior.realism(images, classes)
    return F.softplus(-score) if getattr(prior, "log_odds", False) else -score


# ---------------------------------------------------------------------------------------------------------------------
# Randomness: what an identity gets depends on (seed, class, attempt), never on its batch


def seed_of(rng: torch.Generator) -> int:
    """One number that stands for this run's randomness."""
    return int(torch.randint(2**62, (), generator=rng, device=rng.device))


def keyed(seed: int, *key: int) -> torch.Generator:
    """A generator of its own for each key, such as (class, attempt)."""
    return torch.Generator().manual_seed(_scramble(seed, *key))


def own_draws(seed: int, classes: Tensor, attempts: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Uniform numbers in [0, 1) for each (class, attempt), N x shape, the same in whatever batch they are asked for."""
    pairs = zip(classes.tolist(), attempts.tolist(), strict=True)
    return torch.stack([torch.rand(shape, generator=keyed(seed, *pair)) for pair in pairs])


def own_normals(seed: int, classes: Tensor, attempts: Tensor, shape: tuple[int, ...]) -> Tensor:
    """As `own_draws`, but standard normal."""
    pairs = zip(classes.tolist(), attempts.tolist(), strict=True)
    return torch.stack([torch.randn(shape, generator=keyed(seed, *pair)) for pair in pairs])


def own_latents(prior: Prior, seed: int, classes: Tensor, attempts: Tensor) -> Tensor:
    """One latent of the prior for each (class, attempt), N x L, the same in whatever batch it is asked for."""
    pairs = zip(classes.tolist(), attempts.tolist(), strict=True)
    return torch.cat([prior.sample(1, keyed(seed, *pair)) for pair in pairs])


def _scramble(*numbers: int) -> int:
    """A 63-bit hash of integers (splitmix64), so that neighbouring seeds give unrelated generators."""
    state = 0
    for number in numbers:
        state = (state ^ (number & (2**64 - 1))) + 0x9E3779B97F4A7C15 & (2**64 - 1)
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & (2**64 - 1)
        state = (state ^ state >> 27) * 0x94D049BB133111EB & (2**64 - 1)
        state ^= state >> 31
    return state >> 1


# ---------------------------------------------------------------------------------------------------------------------
# Candidates, belief, batches


@dataclass(frozen=True)
class Candidates:
    """Latents and what the target believes of each: all that the choice of a start depends on."""

    latents: Tensor  # N x L
    scores: Tensor  # N x classes: probabilities, averaged over the image and its mirror
    seed: int  # of the run that drew them
    queries: int  # what the scores cost


def draw_candidates(
    oracle: Oracle, prior: Prior, count: int, seed: int, batch: int, cutoff: int | None = None
) -> Candidates:
    """Latents of a run's seed, scored once for all classes.

    With a `cutoff`, only the first so many style slots are truncated in what is scored, never in the latents.
    """
    asked = oracle.queries
    latents = prior.sample(count, torch.Generator().manual_seed(seed))
    shown = latents
    if cutoff is not None:
        if not isinstance(prior, StyleGAN2Prior):
            raise UserError(
                f"only a StyleGAN2 prior has style slots to cut off at {cutoff}, not {type(prior).__name__}"
            )
        shown = prior.untruncated(latents, cutoff)
    scores = candidate_scores(oracle, prior, shown, batch)
    return Candidates(latents, scores.cpu(), seed, oracle.queries - asked)


@torch.no_grad()
def candidate_scores(oracle: Oracle, prior: Prior, latents: Tensor, batch: int) -> Tensor:
    """The target's belief in every class for each latent, averaged over the image and its mirror, N x C."""
    rows = []
    for chunk in latents.split(batch):
        images = resized(prior.decode(chunk.to(oracle.device)).clamp(0, 1), oracle.size)
        rows.append((oracle.scores(images) + oracle.scores(images.flip(3))) / 2)
    return torch.cat(rows)


def select_candidates(scores: Tensor, classes: Tensor, attempts: int) -> Tensor:
    """For each class the indices of its `attempts` best candidates, best first, C x attempts; one top-k for all."""
    return as_lowest(scores[:, classes]).topk(attempts, dim=0).indices.T


@torch.no_grad()
def shown(
    oracle: Oracle, prior: Prior, latents: Tensor, classes: Tensor, parts: Iterable[slice]
) -> tuple[Tensor, Tensor]:
    """The images of latents, and the target's belief that each shows its class; batch by batch."""
    images, belief = [], []
    for part in parts:
        images.append(prior.decode(latents[part], classes[part]))
        belief.append(oracle.scores(images[-1]).gather(1, classes[part, None]).squeeze(1))
    return torch.cat(images), torch.cat(belief)


@torch.no_grad()
def belief_over_views(oracle: Oracle, images: Tensor, classes: Tensor, view: View, draws: Tensor, batch: int) -> Tensor:
    """The target's belief in each image's class, averaged over its views (draws N x V x DRAWS), N."""
    out = []
    views = draws.shape[1]
    for index in torch.arange(len(images)).split(max(1, batch // views)):
        seen = view(images[index].repeat_interleave(views, 0), draws[index].flatten(0, 1).to(images))
        wanted = classes[index].repeat_interleave(views)
        belief = oracle.scores(seen).gather(1, wanted[:, None])
        out.append(belief.view(len(index), views).mean(1))
    return torch.cat(out)


def best_first(belief: Tensor, keep: int) -> Tensor:
    """The order of N images, `keep` of each class in a row, that puts the best believed of each class first, N."""
    order = as_lowest(belief.view(-1, keep)).argsort(dim=1, descending=True, stable=True)
    return (order + keep * torch.arange(len(order))[:, None]).flatten()


def batches(count: int, batch: int) -> Iterator[slice]:
    """Consecutive slices of at most `batch`."""
    for start in range(0, count, batch):
        yield slice(start, min(start + batch, count))


def group_of(each: int, batch: int) -> int:
    """How many identities of `each` images share a batch, at least one."""
    return max(1, batch // each)


def whole_batches(identities: int, each: int, batch: int) -> Iterator[slice]:
    """Slices of at most `batch` images: `group_of` whole identities, or an even part of one that is larger.

    So identities that are optimised together stay together in any shard that is cut between groups, and since
    kernels are chosen by the shape of a batch, each image comes out the same to the last bit.
    """
    size = group_of(each, batch) * each
    for start in range(0, identities * each, size):
        stop = min(start + size, identities * each)
        pieces = -(-(stop - start) // batch)
        for part in batches(stop - start, -(-(stop - start) // pieces)):
            yield slice(start + part.start, start + part.stop)


def view_draws(seed: int, classes: Tensor, attempts: Tensor, steps: int) -> Tensor:
    """The draws of `steps` views for each (class, attempt), N x steps x DRAWS."""
    return own_draws(seed, classes, attempts, (steps, DRAWS))
