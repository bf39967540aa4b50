"""The 64-pixel networks of GMI and KED-MI, at any size from 8 to 256, and the priors made of them.

GMI: Zhang et al., The Secret Revealer, CVPR 2020. KED-MI: Chen et al., Knowledge-Enriched Distributional
Model Inversion Attacks, ICCV 2021. At size 64, width 64 and 100 latents the parameters carry the published
names and shapes (5,142,083 in the generator), so published weights load strictly. Other sizes drop or add
stages of the same kind.

Deviation: published, KED-MI's discriminator compares the images of one batch with each other when it attacks, so that
what is found for one person depends on who else is in the batch (and on the number of devices). Here each image is
compared with samples of the generator, as many as it was trained beside.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from math import log2
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from lightleak.errors import UserError
from lightleak.place import Precision, lowered
from lightleak.priors.networks import GanPair

SIZES = (8, 16, 32, 64, 128, 256)


def doublings(size: int) -> int:
    """How often 4 x 4 doubles to size x size; UserError for another size."""
    if size not in SIZES:
        raise UserError(
            f"this GAN makes images of {', '.join(map(str, SIZES))} pixels, not {size}; choose one of these"
        )
    return int(log2(size)) - 2


class Generator(nn.Module):
    """Latents N x `latents` to images N x 3 x size x size in [0, 1], by 5 x 5 transposed convolutions from 4
    x 4 up.
    """

    def __init__(self, size: int = 64, width: int = 64, latents: int = 100, channels: int = 3) -> None:
        super().__init__()
        stages = doublings(size)
        self.size, self.width, self.latents, self.channels = size, width, latents, channels
        widths = [width * 2**power for power in reversed(range(stages))]  # 512, 256, 128, 64 at the paper's size
        first = widths[0] * 4 * 4
        self.l1 = nn.Sequential(nn.Linear(latents, first, bias=False), nn.BatchNorm1d(first), nn.ReLU())
        self.l2_5 = nn.Sequential(
            *(
                nn.Sequential(_upsample(wide, narrow, bias=False), nn.BatchNorm2d(narrow), nn.ReLU())
                for wide, narrow in pairwise(widths)
            ),
            _upsample(widths[-1], channels, bias=True),
            nn.Sigmoid(),
        )

    def forward(self, latents: Tensor) -> Tensor:
        return self.l2_5(self.l1(latents).unflatten(1, (-1, 4, 4)))


def _upsample(inputs: int, outputs: int, bias: bool) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=1, bias=bias)


class Critic(nn.Module):
    """Images N x 3 x size x size in [0, 1] to one score each (DGWGAN): higher is more like a real image."""

    def __init__(self, size: int = 64, width: int = 64, channels: int = 3) -> None:
        super().__init__()
        stages = doublings(size)
        self.size, self.width, self.channels = size, width, channels
        widths = [width * 2**power for power in range(stages)]
        self.ls = nn.Sequential(
            nn.Conv2d(channels, width, 5, stride=2, padding=2),
            nn.LeakyReLU(0.2),
            *(
                nn.Sequential(
                    nn.Conv2d(narrow, wide, 5, stride=2, padding=2),
                    nn.InstanceNorm2d(wide, affine=True),
                    nn.LeakyReLU(0.2),
                )
                for narrow, wide in pairwise(widths)
            ),
            nn.Conv2d(widths[-1], 1, 4),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.ls(images).flatten()


class Closeness(nn.Module):
    """How close an image's features come to those of others (Salimans et al., NeurIPS 2016, section 3.2)."""

    def __init__(self, features: int, kernels: int, dimensions: int) -> None:
        super().__init__()
        self.T = nn.Parameter(torch.randn(features, kernels, dimensions))

    def project(self, features: Tensor) -> Tensor:
        """Features N x F to points N x kernels x dimensions."""
        return (features @ self.T.flatten(1)).unflatten(1, self.T.shape[1:])

    def forward(self, features: Tensor, group: int) -> Tensor:
        """For each kernel the sum of exp(-|a - b|_1) over the others of an image's group, N x kernels.

        Groups are consecutive. Distances are taken without the N x N x kernels x dimensions table of differences.
        """
        points = self.project(features).unflatten(0, (-1, group)).transpose(1, 2)  # groups x kernels x group x D
        near = torch.exp(-torch.cdist(points, points, p=1)).sum(3) - 1
        return near.transpose(1, 2).flatten(0, 1)

    def to_reference(self, features: Tensor, reference: Tensor) -> Tensor:
        """The same sum over fixed reference points R x kernels x dimensions, for each image alone, N x kernels."""
        points = self.project(features).transpose(0, 1)
        return torch.exp(-torch.cdist(points, reference.transpose(0, 1), p=1)).sum(2).T


class MinibatchDiscriminator(nn.Module):
    """Images N x 3 x size x size in [0, 1] to features and one logit for each of the target's classes (KED-MI).

    "Made" is one class more, whose logit is always 0: p(real | x) = e^s / (1 + e^s) with s the log-sum-exp of the
    logits.
    """

    def __init__(
        self,
        size: int = 64,
        width: int = 64,
        classes: int = 1000,
        channels: int = 3,
        kernels: int = 64,
        dimensions: int = 50,
    ) -> None:
        super().__init__()
        stages = doublings(size)
        self.size, self.width, self.classes, self.channels = size, width, classes, channels
        self.kernels, self.dimensions = kernels, dimensions
        self.stages = tuple(f"layer{number}" for number in range(1, stages + 1))
        inputs = channels
        for power, name in enumerate(self.stages):
            outputs = width * 2 ** min(power, 2)  # 64, 128, 256, 256 at the paper's size
            kernel = 5 if power < 3 else 3
            convolution = nn.Conv2d(inputs, outputs, kernel, stride=2, padding=kernel // 2)
            self.add_module(
                name, nn.Sequential(convolution, nn.InstanceNorm2d(outputs, affine=True), nn.LeakyReLU(0.2))
            )
            inputs = outputs
        features = inputs * 4 * 4
        self.mbd1 = Closeness(features, kernels, dimensions)
        self.fc_layer = nn.Linear(features + kernels, classes)

    def features(self, images: Tensor) -> Tensor:
        """The features that feature matching compares, N x F (4,096 at the paper's size)."""
        for name in self.stages:
            images = self.get_submodule(name)(images)
        return images.flatten(1)

    def logits(self, features: Tensor, group: int | None = None) -> Tensor:
        """Logits N x classes; each `group` consecutive images see each other (None: all of them)."""
        near = self.mbd1(features, group or len(features))
        return self.fc_layer(torch.cat([features, near], 1))

    def forward(self, images: Tensor, group: int | None = None) -> tuple[Tensor, Tensor]:
        """Features and logits."""
        features = self.features(images)
        return features, self.logits(features, group)


@dataclass(frozen=True, eq=False)
class GanPrior(GanPair):
    """A generator learnt from public images: latents are N(0, 1), realism is the critic's score."""

    generator: Generator
    critic: Critic
    rival: ClassVar[str] = "critic"
    precision: Precision = "float32"  # of the convolutions; not kept: a choice of each run

    def decode(self, latents: Tensor, classes: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Images N x 3 x size x size in [0, 1]; classes are ignored, the generator has none."""
        with lowered(self.precision, latents.device):
            return self.generator(latents).float()

    def realism(self, images: Tensor, classes: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The critic's score, one per image, unbounded: only differences mean something (GMI's D(x))."""
        with lowered(self.precision, images.device):
            return self.critic(images).float()

    def settings(self) -> dict[str, int]:
        """What rebuilds the two networks."""
        return {
            "size": self.size,
            "width": self.generator.width,
            "critic_width": self.critic.width,
            "latents": self.latents,
        }

    @classmethod
    def built(cls, settings: dict[str, int]) -> Self:
        """New networks of these settings."""
        generator = Generator(settings["size"], settings["width"], settings["latents"])
        return cls(generator, Critic(settings["size"], settings["critic_width"]))


@dataclass(frozen=True, eq=False)
class InversionPrior(GanPair):
    """An inversion-specific GAN (KED-MI), whose discriminator learnt the target's classes as well as what is real.

    Latents are N(0, 1). Realism is the log-odds of being real, so softplus(-realism) is -log p(real).
    """

    generator: Generator
    discriminator: MinibatchDiscriminator
    group: int = 64  # images that minibatch discrimination was trained on at a time
    coupled: int = 0  # as published: so many consecutive images see each other; 0: each sees only samples of its own
    precision: Precision = "float32"  # of the convolutions; not kept: a choice of each run
    log_odds: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group < 2 or self.coupled < 0:
            raise UserError(f"group must be at least 2 and coupled at least 0, not {self.group} and {self.coupled}")

    def coupled_by(self, count: int) -> Self:
        """The same, with so many consecutive images compared with each other in `realism`, as published."""
        return replace(self, coupled=count)

    def decode(self, latents: Tensor, classes: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Images N x 3 x size x size in [0, 1]; classes are ignored, the generator has none."""
        with lowered(self.precision, latents.device):
            return self.generator(latents).float()

    def realism(self, images: Tensor, classes: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The log-odds of being real, one per image: the log-sum-exp of the discriminator's logits."""
        net = self.discriminator
        with lowered(self.precision, images.device):
            features = net.features(images).float()
        if self.coupled:
            parts = [net.logits(part) for part in features.split(self.coupled)]
            return torch.cat(parts).logsumexp(1)
        near = net.mbd1.to_reference(features, self.reference)
        return net.fc_layer(torch.cat([features, near], 1)).logsumexp(1)

    @cached_property
    def reference(self) -> Tensor:
        """The points that each image is compared with: group - 1 samples of the generator."""
        latents = self.sample(self.group - 1, torch.Generator().manual_seed(0))
        with torch.no_grad():
            drawn = self.generator(latents.to(self.device))
            return self.discriminator.mbd1.project(self.discriminator.features(drawn))

    def settings(self) -> dict[str, int]:
        """What rebuilds the two networks."""
        net = self.discriminator
        return {
            "size": self.size,
            "width": self.generator.width,
            "latents": self.latents,
            "discriminator_width": net.width,
            "classes": net.classes,
            "kernels": net.kernels,
            "dimensions": net.dimensions,
            "group": self.group,
        }

    @classmethod
    def built(cls, settings: dict[str, int]) -> Self:
        """New networks of these settings."""
        generator = Generator(settings["size"], settings["width"], settings["latents"])
        discriminator = MinibatchDiscriminator(
            settings["size"],
            settings["discriminator_width"],
            settings["classes"],
            kernels=settings["kernels"],
            dimensions=settings["dimensions"],
        )
        return cls(generator, discriminator, settings["group"])
