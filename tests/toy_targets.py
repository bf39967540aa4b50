"""Targets and a prior so simple that the right answer of an attack is known in closed form."""

from dataclasses import dataclass

import torch
from torch import nn

from lightleak.attacks import Oracle
from lightleak.models.classifier import Classifier
from lightleak.priors.prior import Prior

SIDE, LATENTS, SCALE = 2, 12, 0.05


@dataclass(frozen=True)
class Plain(Prior):
    """Latents are the 12 colours of 2 x 2 pixels, standard normal, where 0.5 is 0 and a deviation is SCALE."""

    size: int = SIDE
    latents: int = LATENTS

    def sample(self, count, rng):
        return torch.randn(count, LATENTS, generator=rng)

    def decode(self, latents, classes=None):  # noqa: ARG002
        return (latents * SCALE + 0.5).unflatten(1, (3, SIDE, SIDE))

    def realism(self, images, classes=None):  # noqa: ARG002
        return 0 * images.flatten(1).sum(1)

    def settings(self):
        return {}

    def state(self):
        return {}

    @classmethod
    def restore(cls, settings, state):  # noqa: ARG003
        return cls()


class Latent(nn.Module):
    """Logits of the latents that images were made of."""

    def __init__(self, logits) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))  # a network has parameters
        self.logits = logits

    def forward(self, images):
        return self.logits((images.flatten(1) - 0.5) / SCALE) + self.anchor


def classifier_of(logits, classes):
    """A target with so many classes whose logits are a function of latents N x 12."""
    return Classifier(Latent(logits), size=SIDE, classes=classes, mean=(0.0,) * 3, std=(1.0,) * 3)


def oracle_of(logits, classes, access):
    """An oracle of such a target."""
    return Oracle(classifier_of(logits, classes), access)


def balls(centres, radius):
    """Class c is the ball around centre c; the last class is everything outside (logit 0)."""

    def logits(latents):
        apart = (latents[:, None] - centres).square().sum(2)
        return torch.cat([radius**2 - apart, torch.zeros(len(latents), 1)], 1)

    return logits


def rng(seed=0):
    return torch.Generator().manual_seed(seed)
