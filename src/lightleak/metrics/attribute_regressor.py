"""Estimates identity factors from images that were not rendered, and its own error in doing so.

Trained on endless fresh renders of people who are in no population, so it knows the world but nobody in it.
What it says of a generator's images can be no better than what it says of true photographs, which is its
`quality`.
"""

import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from lightleak.data import faces
from lightleak.errors import UserError
from lightleak.files import publish
from lightleak.metrics.truth import SIZE, Yardstick, compare
from lightleak.optimisers import fused
from lightleak.place import here, in_pieces
from lightleak.randomness import own
from lightleak.training.loop import Watch


@dataclass(frozen=True)
class Quality:
    """How good a regressor is on held-out renders, in the units of the truth: the best a reconstruction could do."""

    error: float  # normalised: 0 = the person, 1 = a random person, 0.7 = the average face
    verified: float  # share accepted at the false match rate
    matched: float  # share that is nearest to itself among 1,000 strangers
    images: int


class AttributeRegressor(nn.Module):
    """Estimates the identity factors of a portrait: images N x 3 x S x S in [0, 1] to N x F in [-1, 1]."""

    def __init__(self, width: int = 32, quality: Quality | None = None) -> None:
        super().__init__()
        self.width, self.quality = width, quality
        widths = [3, width, 2 * width, 4 * width, 6 * width]
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(a, b, 3, 2, 1, bias=False),
                    nn.BatchNorm2d(b),
                    nn.SiLU(),
                    nn.Conv2d(b, b, 3, 1, 1, groups=b, bias=False),
                    nn.BatchNorm2d(b),
                    nn.SiLU(),
                )
                for a, b in pairwise(widths)
            )
        )
        # Positions matter (where the eyes are), so the last map is flattened, not averaged.
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(widths[-1] * 16, 8 * width),
            nn.SiLU(),
            nn.Linear(8 * width, len(faces.FACTORS)),
        )

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] != SIZE:
            images = F.interpolate(images, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
        return self.head(self.stages(images * 2 - 1)).tanh()


@dataclass(frozen=True)
class Fit:
    """Settings of an attribute regressor's training; the default takes about two minutes on one core."""

    steps: int = 600
    batch: int = 64
    width: int = 32
    rate: float = 2e-3
    strength: float = 1.2  # circumstances are drawn with a standard deviation of up to this much
    noise: float = 0.08  # pixel noise has a standard deviation of up to this much (of 1)
    images: int = 512  # held-out renders for the quality
    seed: int = 0


def fit_attribute_regressor(settings: Fit | None = None, watch: Watch | None = None) -> AttributeRegressor:
    """Train an attribute regressor on endless fresh renders of people who are in no population.

    The loss is the squared error in canonical portrait space to first order: e' M e for an error e of the factors,
    with M the mean of J'J over people and J the derivative of the portrait. The regressor carries its `quality`.
    """
    settings = settings or Fit()
    rng = torch.Generator().manual_seed(settings.seed)
    with own(settings.seed):  # for the initial weights alone
        regressor = here().put(AttributeRegressor(settings.width))
    metric = here().put(_portrait_metric(rng))
    optimiser = fused(torch.optim.AdamW, regressor.parameters(), lr=settings.rate, weight_decay=1e-2)
    for step in range(settings.steps):
        for group in optimiser.param_groups:
            group["lr"] = settings.rate * min((step + 1) / 50, 1 - step / settings.steps)
        factors = faces.sample_factors(settings.batch, rng)
        wrong = regressor(_photographs(factors, settings, rng)) - here().put(factors)
        # The second term keeps factors in the game that hardly show.
        loss = ((wrong @ metric) * wrong).sum(1).mean() + 0.01 * wrong.square().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if watch is not None:
            watch(step + 1, settings.steps, loss=float(loss.detach()))
    regressor.eval().requires_grad_(False)
    factors = faces.sample_factors(settings.images, rng)
    regressor.quality = quality(estimate(regressor, _photographs(factors, settings, rng)), factors)
    return regressor


def estimate(regressor: AttributeRegressor, images: Tensor, batch: int = 256) -> Tensor:
    """Estimated identity factors of images N x 3 x S x S in [0, 1]: N x F."""
    with torch.no_grad():
        device = next(regressor.parameters()).device
        return in_pieces(lambda rows: regressor(images[rows].to(device).float()).cpu(), len(images), batch)


def quality(estimated: Tensor, factors: Tensor, scale: Yardstick | None = None) -> Quality:
    """How well `estimated` factors (N x F) give back the true `factors`, row by row."""
    truth = compare(estimated, torch.arange(len(factors)), factors, scale)
    return Quality(
        error=float(truth.error.mean()),
        verified=float(truth.verified.double().mean()),
        matched=float((truth.rank_among_strangers == 0).double().mean()),
        images=len(factors),
    )


def save(regressor: AttributeRegressor, path: str | Path) -> Path:
    """Write weights, width and quality into one safetensors file, whole or not at all."""
    about = {"width": regressor.width, "quality": asdict(regressor.quality) if regressor.quality else None}
    metadata = {"appraiser": json.dumps(about)}
    return publish(
        path, lambda part: save_file(regressor.state_dict(), part, metadata=metadata), "the attribute regressor"
    )


def load(path: str | Path) -> AttributeRegressor:
    """Read what `save` wrote; UserError if it is something else."""
    if not Path(path).is_file():
        raise UserError(f"there is no attribute regressor {path}")
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["appraiser"])
            regressor = AttributeRegressor(about["width"], Quality(**about["quality"]) if about["quality"] else None)
            regressor.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, RuntimeError, json.JSONDecodeError) as error:
        raise UserError(
            f"{path} holds no attribute regressor of this version ({str(error).splitlines()[0]}); fit a new one"
        ) from error
    return here().put(regressor.eval().requires_grad_(False))


def _photographs(factors: Tensor, settings: Fit, rng: torch.Generator) -> Tensor:
    """One noisy picture of each person, in circumstances of random strength; drawn on the processor, painted here."""
    count, paint = len(factors), here().put
    with torch.no_grad():
        circumstances = faces.sample_circumstances(count, rng) * settings.strength * torch.rand(count, 1, generator=rng)
        pieces = zip(factors.split(64), circumstances.split(64))
        images = torch.cat([faces.render(paint(who), paint(how), SIZE) for who, how in pieces])
        grain = settings.noise * torch.rand(count, 1, 1, 1, generator=rng)
        return (images + paint(grain * torch.randn(images.shape, generator=rng))).clamp(0, 1)


def _portrait_metric(rng: torch.Generator, people: int = 64, size: int = 32, reach: float = 0.25) -> Tensor:
    """M, F x F with trace 1: what an error of the factors changes in a portrait, by differences over
    `reach`.
    """
    factors = faces.sample_factors(people, rng)
    slopes = []
    with torch.no_grad():
        for index in range(factors.shape[1]):
            up, down = factors.clone(), factors.clone()
            up[:, index] = (up[:, index] + reach).clamp(max=1)
            down[:, index] = (down[:, index] - reach).clamp(min=-1)
            change = (faces.canonical(up, size) - faces.canonical(down, size)).flatten(1)
            slopes.append(change / (up - down)[:, index, None])
    jacobian = torch.stack(slopes, 1)
    metric = (jacobian @ jacobian.transpose(1, 2)).mean(0)
    return metric / metric.diagonal().sum()
