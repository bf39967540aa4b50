"""The Inception-v3 whose 2,048 features FID is defined on, with weights from a file.

Two files have its parameter names. That of pytorch-fid (`pt_inception-2015-12-05-6726825d.pth`, 1,008 outputs) holds
the network of the FID paper, ported from TensorFlow; its blocks leave the border out of average poolings, and its last
block pools by maximum. That of torchvision (`inception_v3_google-0cc3c7bd.pth`, 1,000 outputs) is another training of
the same network; numbers from the two do not compare, so the title says which it was.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import Inception3
from torchvision.models import inception as blocks

from lightleak.errors import UserError
from lightleak.models.weight_files import Weights, read_tensors
from lightleak.models.weights import check_keys
from lightleak.place import here

SIZE = 299
ANCHORS = ("fc.weight", "Mixed_7c.branch_pool.conv.weight")  # names that tell it
FID_OUTPUTS = 1008  # of the network of the FID paper
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation


def _average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _fork(block: nn.Module, x: Tensor, name: str) -> list[Tensor]:
    """Two convolutions that read the same."""
    return [block.get_submodule(f"{name}a")(x), block.get_submodule(f"{name}b")(x)]


class BlockA(blocks.InceptionA):
    """Torchvision's block A, with average pooling over pixels inside the image only."""

    def _forward(self, x: Tensor) -> list[Tensor]:
        narrow = self.branch5x5_2(self.branch5x5_1(x))
        wide = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return [self.branch1x1(x), narrow, wide, self.branch_pool(_average(x))]


class BlockC(blocks.InceptionC):
    """Torchvision's block C, with average pooling over pixels inside the image only."""

    def _forward(self, x: Tensor) -> list[Tensor]:
        once = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return [self.branch1x1(x), once, twice, self.branch_pool(_average(x))]


class BlockE(blocks.InceptionE):
    """Torchvision's block E, with average pooling over pixels inside the image, or with max pooling."""

    def __init__(self, inputs: int, maximum: bool) -> None:
        super().__init__(inputs)
        self.maximum = maximum

    def _forward(self, x: Tensor) -> list[Tensor]:
        once = _fork(self, self.branch3x3_1(x), "branch3x3_2")
        twice = _fork(self, self.branch3x3dbl_2(self.branch3x3dbl_1(x)), "branch3x3dbl_3")
        pooled = F.max_pool2d(x, 3, stride=1, padding=1) if self.maximum else _average(x)
        return [self.branch1x1(x), torch.cat(once, 1), torch.cat(twice, 1), self.branch_pool(pooled)]


class InceptionFeatures(nn.Module):
    """Maps images N x 3 x H x W in [0, 1] to pooled features N x 2,048.

    They are resized to 299 pixels (bilinear, antialiased) and scaled to [-1, 1]. `published` scales twice, to [-3, 1]:
    PPA and what builds on it gave images in [-1, 1] to a network that expects [0, 1].
    """

    def __init__(self, outputs: int = FID_OUTPUTS, published: bool = False) -> None:
        super().__init__()
        net = Inception3(num_classes=outputs, aux_logits=False, transform_input=False, init_weights=False)
        if outputs == FID_OUTPUTS:
            net.Mixed_5b, net.Mixed_5c, net.Mixed_5d = BlockA(192, 32), BlockA(256, 64), BlockA(288, 64)
            for name, width in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
                setattr(net, f"Mixed_{name}", BlockC(768, width))
            net.Mixed_7b, net.Mixed_7c = BlockE(1280, maximum=False), BlockE(2048, maximum=True)
        self.net = net
        self.published = published
        self.title = "Inception-v3 without weights"

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != (SIZE, SIZE):
            images = F.interpolate(images, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
        images = 2 * images - 1
        return self.net(2 * images - 1 if self.published else images)


def after_transform(
    mean: tuple[float, ...] = (0.5, 0.5, 0.5), std: tuple[float, ...] = (0.5, 0.5, 0.5)
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of a Classifier that repeat torchvision's `transform_input` after this normalisation.

    Torchvision turns it on whenever ImageNet's weights are asked for, and off otherwise, and no checkpoint says which.
    PPA trained its judge with it and evaluated without; which a checkpoint needs, its accuracy tells (`lightleak
    doctor`). The transform is x -> (s x + m - 1/2) / (1/2) per channel, for ImageNet's m and s.
    """
    shift = tuple(m - s * (big - 0.5) / small for m, s, big, small in zip(mean, std, *IMAGENET))
    return shift, tuple(0.5 * s / small for s, small in zip(std, IMAGENET[1]))


def inception(weights: str | Path | Weights, published: bool = False) -> InceptionFeatures:
    """The feature network of FID in eval mode, with the weights of a file, all of whose tensors must fit."""
    weights = weights if isinstance(weights, Weights) else Weights.of(weights)
    tensors = read_tensors(weights.path, ANCHORS)
    if "fc.weight" not in tensors or "Mixed_7c.branch_pool.conv.weight" not in tensors:
        raise UserError(
            f"{weights.path} is no Inception-v3 with torchvision's names; FID takes "
            "pt_inception-2015-12-05-6726825d.pth of pytorch-fid, or torchvision's inception_v3_google-0cc3c7bd.pth"
        )
    outputs = len(tensors["fc.weight"])
    network = InceptionFeatures(outputs, published)
    tensors = {name: value for name, value in tensors.items() if not name.startswith("AuxLogits.")}
    # Files from before PyTorch 1.0 count no batches.
    wanted = network.net.state_dict()
    tensors = {**{name: value for name, value in wanted.items() if name.endswith("num_batches_tracked")}, **tensors}
    check_keys(wanted, tensors, weights.path)
    network.net.load_state_dict(tensors)
    network.net.fc = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    network.title = f"Inception-v3 of {weights.title}" + (", fed in [-3, 1]" if published else "")
    return here().put(network.eval().requires_grad_(False))
