"""FaceNet: Inception-ResNet-v1 with the parameter names of facenet-pytorch, whose VGGFace2 weights measure delta_face.

Sources: Schroff et al. (CVPR 2015) for the embedding, Szegedy et al. (AAAI 2017) for the network. Weights:
`20180402-114759-vggface2.pt` (or `20180408-102900-casia-webface.pt`) of facenet-pytorch's releases.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightleak.errors import UserError
from lightleak.models.weight_files import Weights, read_tensors
from lightleak.models.weights import check_keys
from lightleak.place import here

SIZE = 160
ANCHORS = ("last_linear.weight", "conv2d_1a.conv.weight")  # names that tell it


class Convolution(nn.Module):
    """A convolution without bias, batch norm, ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Residual(nn.Module):
    """x + scale * (a 1 x 1 convolution of several branches), ReLU unless it is the last."""

    def __init__(self, channels: int, branches: tuple[nn.Module, ...], width: int, scale: float, last: bool) -> None:
        super().__init__()
        self.branches = [f"branch{number}" for number in range(len(branches))]
        for name, branch in zip(self.branches, branches):
            setattr(self, name, branch)
        self.conv2d = nn.Conv2d(width, channels, 1)
        self.scale, self.last = scale, last

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.cat([self.get_submodule(name)(x) for name in self.branches], 1)
        x = x + self.scale * self.conv2d(seen)
        return x if self.last else F.relu(x)


class Reduction(nn.Module):
    """Branches with stride 2 and a max pooling, side by side."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        for number, branch in enumerate(branches):
            setattr(self, f"branch{number}", branch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], 1)


def residual35() -> Residual:
    """The block at 17 x 17: 256 channels, 3 x 3 kernels."""
    branches = (
        Convolution(256, 32, 1),
        nn.Sequential(Convolution(256, 32, 1), Convolution(32, 32, 3, padding=1)),
        nn.Sequential(Convolution(256, 32, 1), Convolution(32, 32, 3, padding=1), Convolution(32, 32, 3, padding=1)),
    )
    return Residual(256, branches, 96, 0.17, last=False)


def residual17() -> Residual:
    """The block at 8 x 8: 896 channels, 1 x 7 and 7 x 1 kernels."""
    split = (Convolution(128, 128, (1, 7), padding=(0, 3)), Convolution(128, 128, (7, 1), padding=(3, 0)))
    branches = (Convolution(896, 128, 1), nn.Sequential(Convolution(896, 128, 1), *split))
    return Residual(896, branches, 256, 0.10, last=False)


def residual8(last: bool = False) -> Residual:
    """The block at 3 x 3: 1,792 channels, 1 x 3 and 3 x 1 kernels; the last one has scale 1 and no ReLU."""
    split = (Convolution(192, 192, (1, 3), padding=(0, 1)), Convolution(192, 192, (3, 1), padding=(1, 0)))
    branches = (Convolution(1792, 192, 1), nn.Sequential(Convolution(1792, 192, 1), *split))
    return Residual(1792, branches, 384, 1.0 if last else 0.20, last)


class FaceEmbedding(nn.Module):
    """Maps images N x 3 x H x W in [0, 1] to embeddings N x 512 of length 1.

    They are resized to 160 pixels (bilinear, antialiased) and scaled to [-1, 1], as in PPA's evaluation.
    """

    def __init__(self, people: int | None = None) -> None:
        super().__init__()
        self.conv2d_1a = Convolution(3, 32, 3, 2)
        self.conv2d_2a = Convolution(32, 32, 3)
        self.conv2d_2b = Convolution(32, 64, 3, padding=1)
        self.conv2d_3b = Convolution(64, 80, 1)
        self.conv2d_4a = Convolution(80, 192, 3)
        self.conv2d_4b = Convolution(192, 256, 3, 2)
        self.repeat_1 = nn.Sequential(*(residual35() for _ in range(5)))
        self.mixed_6a = Reduction(
            Convolution(256, 384, 3, 2),
            nn.Sequential(Convolution(256, 192, 1), Convolution(192, 192, 3, padding=1), Convolution(192, 256, 3, 2)),
            nn.MaxPool2d(3, 2),
        )
        self.repeat_2 = nn.Sequential(*(residual17() for _ in range(10)))
        self.mixed_7a = Reduction(
            nn.Sequential(Convolution(896, 256, 1), Convolution(256, 384, 3, 2)),
            nn.Sequential(Convolution(896, 256, 1), Convolution(256, 256, 3, 2)),
            nn.Sequential(Convolution(896, 256, 1), Convolution(256, 256, 3, padding=1), Convolution(256, 256, 3, 2)),
            nn.MaxPool2d(3, 2),
        )
        self.repeat_3 = nn.Sequential(*(residual8() for _ in range(5)))
        self.block8 = residual8(last=True)
        self.last_linear = nn.Linear(1792, 512, bias=False)
        self.last_bn = nn.BatchNorm1d(512, eps=1e-3)
        self.logits: nn.Module = nn.Linear(512, people) if people else nn.Identity()  # never asked here
        self.title = "FaceNet without weights"

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != (SIZE, SIZE):
            images = F.interpolate(images, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
        x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(2 * images - 1)))
        x = self.conv2d_4b(self.conv2d_4a(self.conv2d_3b(F.max_pool2d(x, 3, 2))))
        x = self.repeat_2(self.mixed_6a(self.repeat_1(x)))
        x = self.block8(self.repeat_3(self.mixed_7a(x)))
        return F.normalize(self.last_bn(self.last_linear(x.mean((2, 3)))))


def facenet(weights: str | Path | Weights) -> FaceEmbedding:
    """FaceNet in eval mode, with the weights of a file in facenet-pytorch's layout, all of whose tensors must fit."""
    weights = weights if isinstance(weights, Weights) else Weights.of(weights)
    network = from_state(read_tensors(weights.path, ANCHORS), weights.path)
    network.title = f"FaceNet of {weights.title}"
    return here().put(network)


def from_state(tensors: Mapping[str, Tensor], source: str = "the state dict") -> FaceEmbedding:
    """FaceNet with these tensors, with or without a layer `logits` for any number of people."""
    if "last_linear.weight" not in tensors or "conv2d_1a.conv.weight" not in tensors:
        raise UserError(
            f"{source} is no FaceNet of facenet-pytorch: it has no conv2d_1a and last_linear; "
            "the file is called 20180402-114759-vggface2.pt"
        )
    people = len(tensors["logits.weight"]) if "logits.weight" in tensors else None
    network = FaceEmbedding(people)
    # Files from before PyTorch 1.0 count no batches.
    counters = {name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}
    tensors = {**counters, **tensors}
    check_keys(network.state_dict(), tensors, source)
    network.load_state_dict(tensors)
    return network.eval().requires_grad_(False)
