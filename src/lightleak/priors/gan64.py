"""The 64-pixel generator and critic that GMI and KED-MI share, at any size from 8 to 256, and a prior made of
them.

GMI: Zhang et al., The Secret Revealer, CVPR 2020. KED-MI: Chen et al., Knowledge-Enriched Distributional
Model Inversion Attacks, ICCV 2021. At size 64, width 64 and 100 latents the parameters carry the published
names and shapes (5,142,083 in the generator), so published weights load strictly. Other sizes drop or add
stages of the same kind.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import log2

import torch
from torch import Tensor, nn

from lightleak.errors import UserError

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


@dataclass(frozen=True, eq=False)
class GanPrior:
    """A generator learnt from public images: latents are N(0, 1), realism is the critic's score.

    Both networks are in evaluation mode and frozen, so gradients flow to the latents alone.
    """

    generator: Generator
    critic: Critic

    def __post_init__(self) -> None:
        if self.generator.size != self.critic.size:
            raise UserError(f"generator and critic differ in size: {self.generator.size} and {self.critic.size}")
        self.generator.eval().requires_grad_(False)
        self.critic.eval().requires_grad_(False)

    @property
    def size(self) -> int:
        """Side length of the images in pixels."""
        return self.generator.size

    @property
    def latents(self) -> int:
        """Length of a latent vector."""
        return self.generator.latents

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        """Latents count x L, standard normal."""
        return torch.randn(count, self.latents, generator=rng, device=rng.device)

    def decode(self, latents: Tensor, classes: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Images N x 3 x size x size in [0, 1]; classes are ignored, the generator has none."""
        return self.generator(latents)

    def realism(self, images: Tensor, classes: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The critic's score, one per image, unbounded: only differences mean something (GMI's D(x))."""
        return self.critic(images)

    def settings(self) -> dict[str, int]:
        """What rebuilds the two networks."""
        return {
            "size": self.size,
            "width": self.generator.width,
            "critic_width": self.critic.width,
            "latents": self.latents,
        }

    def state(self) -> dict[str, Tensor]:
        """All weights, names prefixed by `generator.` and `critic.`."""
        pairs = (("generator", self.generator), ("critic", self.critic))
        return {f"{part}.{name}": value for part, net in pairs for name, value in net.state_dict().items()}

    @classmethod
    def restore(cls, settings: dict[str, int], state: dict[str, Tensor]) -> "GanPrior":
        """The prior that `settings` and `state` describe; a mismatch of names or shapes raises
        RuntimeError.
        """
        size, width = settings["size"], settings["width"]
        generator = Generator(size, width, settings["latents"])
        critic = Critic(size, settings["critic_width"])
        for part, net in (("generator.", generator), ("critic.", critic)):
            net.load_state_dict({name[len(part) :]: value for name, value in state.items() if name.startswith(part)})
        return cls(generator, critic)
