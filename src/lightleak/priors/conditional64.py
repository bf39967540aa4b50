"""PLG-MI's class-conditional generator and projection discriminator, at any size from 8 to 256, and a prior of them;
and LOKT's discriminator, which says beside its score whom an image shows.

PLG-MI: Yuan et al., Pseudo Label-Guided Model Inversion Attack via Conditional GAN, AAAI 2023; conditional batch norm
and projection: Miyato and Koyama, cGANs with Projection Discriminator, ICLR 2018; spectral norm: Miyato et al.,
Spectral Normalization for GANs, ICLR 2018. At size 64, width 64, 128 latents and 1,000 classes the parameters carry the
published names and shapes (17,973,379 and 11,165,441), so published weights load strictly.

Wherever the published block enlarges (or pools) before a 1 x 1 convolution, here the convolution comes first (or last):
the two commute exactly, and the convolution sees a quarter of the pixels.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightleak.errors import UserError
from lightleak.place import Precision, lowered
from lightleak.priors.gan64 import doublings
from lightleak.priors.networks import GanPair

Range = Literal["signed", "unit"]


class ClassNorm(nn.BatchNorm2d):
    """Batch norm whose scale and shift are looked up for each image's class."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__(channels, affine=False)
        self.weights = nn.Embedding(classes, channels)
        self.biases = nn.Embedding(classes, channels)
        nn.init.ones_(self.weights.weight)
        nn.init.zeros_(self.biases.weight)

    def forward(self, input: Tensor, classes: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        scale, shift = (table(classes)[:, :, None, None] for table in (self.weights, self.biases))
        return torch.addcmul(shift, super().forward(input), scale)


class UpBlock(nn.Module):
    """A residual block that doubles the resolution: norm, ReLU, enlarge, convolve, norm, ReLU, convolve."""

    def __init__(self, inputs: int, outputs: int, classes: int) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.c2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.b1 = ClassNorm(inputs, classes)
        self.b2 = ClassNorm(outputs, classes)
        self.c_sc = nn.Conv2d(inputs, outputs, 1)

    def forward(self, maps: Tensor, classes: Tensor) -> Tensor:
        main = self.c1(_doubled(self.b1(maps, classes).relu_()))
        return self.c2(self.b2(main, classes).relu_()) + _doubled(self.c_sc(maps))


def _doubled(maps: Tensor) -> Tensor:
    return F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)


class ConditionalGenerator(nn.Module):
    """Latents N x `latents` and classes N to N x 3 x size x size in (-1, 1), by residual blocks from 4 x 4 up."""

    def __init__(self, size: int = 64, width: int = 64, latents: int = 128, classes: int = 1000) -> None:
        super().__init__()
        self.size, self.width, self.latents, self.classes = size, width, latents, classes
        count = doublings(size)
        widest = width * 2**count  # 1,024 at the paper's size
        self.l1 = nn.Linear(latents, widest * 16)
        # Published names are numbered on from the linear layer: block2 to block5, then b6 and conv6.
        self.blocks = tuple(f"block{number}" for number in range(2, count + 2))
        for index, name in enumerate(self.blocks):
            self.add_module(name, UpBlock(widest >> index, widest >> index + 1, classes))
        self.last = count + 2
        self.add_module(f"b{self.last}", nn.BatchNorm2d(width))
        self.add_module(f"conv{self.last}", nn.Conv2d(width, 3, 1))

    def forward(self, latents: Tensor, classes: Tensor) -> Tensor:
        maps = self.l1(latents).unflatten(1, (-1, 4, 4))
        for name in self.blocks:
            maps = self.get_submodule(name)(maps, classes)
        maps = self.get_submodule(f"b{self.last}")(maps).relu_()
        return self.get_submodule(f"conv{self.last}")(maps).tanh()


class Spectral(nn.Module):
    """A weight divided by its largest singular value, estimated by one step of power iteration per training pass."""

    bias: nn.Parameter | None
    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, *shape: int, gain: float, bias: bool = True) -> None:
        super().__init__()
        self.weight_orig = nn.Parameter(torch.empty(shape))
        nn.init.xavier_uniform_(self.weight_orig, gain)
        rows = self.weight_orig.flatten(1)
        reach = rows.shape[1] ** -0.5  # as PyTorch's layers start
        start = torch.empty(shape[0]).uniform_(-reach, reach)
        self.register_parameter("bias", nn.Parameter(start) if bias else None)
        self.register_buffer("weight_u", F.normalize(torch.randn(len(rows)), dim=0))
        self.register_buffer("weight_v", torch.empty(rows.shape[1]))
        for _ in range(15):
            self.follow()

    @property
    def weight(self) -> Tensor:
        """The normalised weight, differentiable; in training mode the estimate of its norm is updated by one step."""
        if self.training:
            self.follow()
        # Copies, since a second pass may move the estimate before this one's gradient is taken.
        u, v = self.weight_u.clone(), self.weight_v.clone()
        with lowered("float32", u.device):  # a norm wants full precision
            return self.weight_orig / torch.dot(u, self.weight_orig.flatten(1) @ v)

    @torch.no_grad()
    def follow(self) -> None:
        """One step of power iteration towards the largest singular value's vectors."""
        rows = self.weight_orig.flatten(1)
        self.weight_v.copy_(F.normalize(rows.T @ self.weight_u, dim=0, eps=1e-12))
        self.weight_u.copy_(F.normalize(rows @ self.weight_v, dim=0, eps=1e-12))


class SpectralConv(Spectral):
    """A convolution that keeps the resolution, with a normalised weight."""

    def __init__(self, inputs: int, outputs: int, kernel: int, gain: float = 1.0) -> None:
        super().__init__(outputs, inputs, kernel, kernel, gain=gain)

    def forward(self, maps: Tensor) -> Tensor:
        return F.conv2d(maps, self.weight, self.bias, padding=self.weight_orig.shape[-1] // 2)


class SpectralLinear(Spectral):
    """A linear layer with a normalised weight."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(outputs, inputs, gain=1.0)

    def forward(self, rows: Tensor) -> Tensor:
        return F.linear(rows, self.weight, self.bias)


class SpectralEmbedding(Spectral):
    """A table of one row a class, normalised as a whole."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__(classes, width, gain=1.0, bias=False)

    def forward(self, classes: Tensor) -> Tensor:
        return F.embedding(classes, self.weight)


class DownBlock(nn.Module):
    """A residual block that halves the resolution; the first one of a network does not rectify the image."""

    def __init__(self, inputs: int, outputs: int, first: bool = False) -> None:
        super().__init__()
        self.first = first
        middle = outputs if first else inputs
        self.c1 = SpectralConv(inputs, middle, 3, 2**0.5)
        self.c2 = SpectralConv(middle, outputs, 3, 2**0.5)
        self.c_sc = SpectralConv(inputs, outputs, 1, 2**0.5 if first else 1.0)

    def forward(self, maps: Tensor) -> Tensor:
        main = self.c2(self.c1(maps if self.first else maps.relu()).relu_())
        return F.avg_pool2d(main, 2) + self.c_sc(F.avg_pool2d(maps, 2))


class Discriminator(nn.Module):
    """Images N x 3 x size x size in the range of a generator to features, and those to a score: higher is more real."""

    def __init__(self, size: int = 64, width: int = 64, classes: int = 1000) -> None:
        super().__init__()
        self.size, self.width, self.classes = size, width, classes
        count = doublings(size) + 1
        self.blocks = tuple(f"block{number}" for number in range(1, count + 1))
        for index, name in enumerate(self.blocks):
            block = DownBlock(width << index - 1, width << index) if index else DownBlock(3, width, first=True)
            self.add_module(name, block)
        self.last = count + 1
        self.widest = width << count - 1
        self.add_module(f"l{self.last}", SpectralLinear(self.widest, 1))

    def seen(self, images: Tensor) -> Tensor:
        """Features N x F."""
        maps = images
        for name in self.blocks:
            maps = self.get_submodule(name)(maps)
        return maps.relu_().sum((2, 3))

    def score(self, seen: Tensor) -> Tensor:
        """One score of each row of features, N."""
        return self.get_submodule(f"l{self.last}")(seen).flatten()


class ProjectionDiscriminator(Discriminator):
    """Images and classes N to one score each: higher is more like a real image of the class."""

    def __init__(self, size: int = 64, width: int = 64, classes: int = 1000) -> None:
        super().__init__(size, width, classes)
        self.l_y = SpectralEmbedding(classes, self.widest)

    def forward(self, images: Tensor, classes: Tensor) -> Tensor:
        seen = self.seen(images)
        return self.score(seen) + (self.l_y(classes) * seen).sum(1)


class NamingDiscriminator(Discriminator):
    """Maps images to the log-odds of being real, whatever their class, and to logits of the classes of a target."""

    hits: Tensor  # int64, C: how often the target named each class of the images that it was taught with

    def __init__(self, size: int = 64, width: int = 64, classes: int = 1000) -> None:
        super().__init__(size, width, classes)
        self.l_c = nn.Linear(self.widest, classes)
        self.register_buffer("hits", torch.zeros(classes, dtype=torch.int64))

    def forward(self, images: Tensor, classes: Tensor | None = None) -> Tensor:  # noqa: ARG002
        return self.score(self.seen(images))

    def both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Log-odds N and logits N x C."""
        seen = self.seen(images)
        return self.score(seen), self.l_c(seen)


def to_images(made: Tensor, span: Range) -> Tensor:
    """The output of a generator as images in [0, 1]."""
    return (made + 1) / 2 if span == "signed" else made.clamp(0, 1)


def from_images(images: Tensor, span: Range) -> Tensor:
    """Images in [0, 1], mapped to the range in which a generator and its discriminator work."""
    return images * 2 - 1 if span == "signed" else images


@dataclass(frozen=True, eq=False)
class ConditionalPrior(GanPair):
    """A generator of images of a target's classes, learnt from public images: latents are N(0, 1).

    `span` says how the generator's (-1, 1) is read: "signed" as
    [0, 1] shifted and scaled; "unit" as [0, 1] itself, clamped, as published checkpoints were trained.
    """

    generator: ConditionalGenerator
    discriminator: Discriminator
    span: Range = "signed"
    critic: ClassVar[type[Discriminator]] = ProjectionDiscriminator
    precision: Precision = "float32"  # of the convolutions; not kept: a choice of each run

    def __post_init__(self) -> None:
        if self.span not in get_args(Range):
            raise UserError(f"the range of a generator is one of {', '.join(get_args(Range))}, not {self.span!r}")
        super().__post_init__()

    @classmethod
    def shared(cls) -> tuple[str, ...]:
        """The settings in which both networks must agree."""
        return ("size", "classes")

    @property
    def classes(self) -> int:
        """How many classes it can draw."""
        return self.generator.classes

    def decode(self, latents: Tensor, classes: Tensor | None = None) -> Tensor:
        """Images N x 3 x size x size in [0, 1] of the classes N; UserError without them."""
        with lowered(self.precision, latents.device):
            drawn = self.generator(latents, self._checked(classes)).float()
        return to_images(drawn, self.span)

    def realism(self, images: Tensor, classes: Tensor | None = None) -> Tensor:
        """The discriminator's score of each image as one of its class, unbounded; UserError without classes."""
        with lowered(self.precision, images.device):
            return self.discriminator(from_images(images, self.span), self._checked(classes)).float()

    def _checked(self, classes: Tensor | None) -> Tensor:
        if classes is None:
            raise UserError("this prior draws people of given classes; pass decode(latents, classes)")
        if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < self.classes:
            raise UserError(
                f"this prior draws classes 0 to {self.classes - 1}, not {int(classes.min())} to {int(classes.max())}; "
                "it was made for another target"
            )
        return classes

    def settings(self) -> dict[str, int | str]:
        """What rebuilds the two networks."""
        return {
            "size": self.size,
            "width": self.generator.width,
            "critic_width": self.discriminator.width,
            "latents": self.latents,
            "classes": self.classes,
            "span": self.span,
        }

    @classmethod
    def built(cls, settings: dict[str, Any]) -> Self:
        """New networks of these settings."""
        size, classes = settings["size"], settings["classes"]
        generator = ConditionalGenerator(size, settings["width"], settings["latents"], classes)
        return cls(generator, cls.critic(size, settings["critic_width"], classes), settings["span"])


@dataclass(frozen=True, eq=False)
class NamingPrior(ConditionalPrior):
    """A generator of a target's classes and a discriminator that names them, taught by labels alone (LOKT)."""

    critic: ClassVar[type[Discriminator]] = NamingDiscriminator
    log_odds: ClassVar[bool] = True

    @property
    def named(self) -> "NamingDiscriminator":
        """The discriminator."""
        assert isinstance(self.discriminator, NamingDiscriminator)
        return self.discriminator

    @property
    def recognises(self) -> bool:
        """Whether `recognise` can be asked."""
        return True

    def recognise(self, images: Tensor) -> Tensor:
        """Logits N x C of whom images in [0, 1] show, as learnt from the target's labels; differentiable."""
        with lowered(self.precision, images.device):
            return self.named.both(from_images(images, self.span))[1].float()

    @property
    def hits(self) -> Tensor:
        """How often the target named each class of the images that taught it, int64, C."""
        return self.named.hits
