"""A warm start: the generator first learns as the decoder of a variational autoencoder.

That needs no balance with a critic and so takes large steps (Kingma and Welling, ICLR 2014); its images are right but
soft.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Adam

from lightleak.data.population import Images
from lightleak.priors.fit.state import update


def encoder(size: int, width: int, latents: int) -> nn.Sequential:
    """The critic's convolutions with batch norms, giving mean and log standard deviation of the latents, N x L each."""
    layers: list[nn.Module] = []
    channels = 3
    while size > 4:
        wide = width if channels == 3 else 2 * channels
        layers += [nn.Conv2d(channels, wide, 5, stride=2, padding=2), nn.BatchNorm2d(wide), nn.LeakyReLU(0.2)]
        channels, size = wide, size // 2
    return nn.Sequential(*layers, nn.Conv2d(channels, 2 * latents, 4), nn.Flatten())


def tolerance(images: Images, blur: float) -> float:
    """The error that a pixel may have: `blur` times the standard deviation of a pixel over the images."""
    floats = images.floats(slice(None, None, 1 + len(images) // 2000))
    spread = float((floats - floats.mean(0)).square().mean().sqrt())
    return blur * max(spread, 0.02)  # pictures may be all alike


def redraw(
    encoder: nn.Module,
    generator: Callable[[Tensor], Tensor],
    optimiser: Adam,
    real: Tensor,
    noise: Tensor,
    tolerance: float,
) -> dict[str, float]:
    """One step of the autoencoder; returns its root mean squared error (of 1) and nats per image."""
    # 1. An encoder says where in latent space an image lies, and how sure it is.
    mean, log_spread = encoder(real).chunk(2, dim=1)
    log_spread = log_spread.clamp(-8, 2)
    latents = mean + log_spread.exp() * noise
    # 2. The generator draws it again; the latents of all images together should look standard normal.
    error = (generator(latents) - real).square().flatten(1)
    nats = (0.5 * (mean.square() + (2 * log_spread).exp() - 1) - log_spread).sum(1).mean()
    loss = error.sum(1).mean() / (2 * tolerance**2) + nats
    update(optimiser, loss / error.shape[1])
    return {"error": float(error.detach().mean().sqrt()), "nats": float(nats.detach())}


def slow_down(optimiser: torch.optim.Optimizer, rate: float, share: float) -> None:
    """Lower the learning rate to a tenth as `share` goes from 0 to 1."""
    for group in optimiser.param_groups:
        group["lr"] = rate * (1 - 0.9 * share)
