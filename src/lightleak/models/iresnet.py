"""Face recognisers of ArcFace and AdaFace: improved residual networks at 112 pixels, read from their published files.

Sources: Duta et al. (ICPR 2020) for the network, Deng et al. (CVPR 2019) for ArcFace, Kim et al. (CVPR 2022), AdaFace.
Files: `backbone.pth` of insightface's arcface_torch, `adaface_ir50_ms1mv2.ckpt` and its kin. Both are one network with
parameters of different names; AdaFace's sees blue first, and takes every second pixel where ArcFace's has a projection.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightleak.data.views import resized
from lightleak.errors import UserError
from lightleak.models.weight_files import Weights, chosen, read_tensors
from lightleak.models.weights import check_keys, read
from lightleak.place import here

SIZE = 112
Layout = Literal["arcface", "adaface"]
ANCHORS: dict[Layout, tuple[str, ...]] = {  # names that tell them
    "arcface": ("layer1.0.bn1.weight", "layer4.0.prelu.weight", "features.running_mean"),
    "adaface": ("input_layer.0.weight", "body.0.res_layer.5.weight", "output_layer.4.running_mean"),
}
UNIT = {"res_layer.0": "bn1", "res_layer.1": "conv1", "res_layer.2": "bn2", "res_layer.3": "prelu"}
UNIT |= {"res_layer.4": "conv2", "res_layer.5": "bn3", "shortcut_layer": "downsample"}
ENDS = {"input_layer.0": "conv1", "input_layer.1": "bn1", "input_layer.2": "prelu"}
ENDS |= {"output_layer.0": "bn2", "output_layer.3": "fc", "output_layer.4": "features"}


class Unit(nn.Module):
    """A residual unit: norm, convolution, norm, PReLU, convolution with the stride, norm; nothing after the sum."""

    def __init__(self, inputs: int, outputs: int, stride: int, projected: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.MaxPool2d(1, stride)
        if projected:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        seen = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(seen)) + self.downsample(x)


class FaceResNet(nn.Module):
    """Maps images N x 3 x H x W in [0, 1], resized to 112 pixels, to embeddings N x D of length 1.

    Its widths and depth are those of the tensors, in ArcFace's names. UserError if they are no such network.
    """

    def __init__(self, tensors: Mapping[str, Tensor], blue_first: bool, source: str) -> None:
        super().__init__()
        self.blue_first, self.title = blue_first, source
        width = len(tensors["conv1.weight"])
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1, self.prelu = nn.BatchNorm2d(width), nn.PReLU(width)
        for stage in range(1, 5):
            units = []
            while (weight := tensors.get(f"layer{stage}.{len(units)}.conv1.weight")) is not None:
                projected = f"layer{stage}.{len(units)}.downsample.0.weight" in tensors
                units.append(Unit(width, len(weight), 1 if units else 2, projected))
                width = len(weight)
            setattr(self, f"layer{stage}", nn.Sequential(*units))
        self.bn2 = nn.BatchNorm2d(width)
        features = len(tensors["features.running_mean"])
        self.fc = nn.Linear(width * (SIZE // 16) ** 2, features, bias="fc.bias" in tensors)
        self.features = nn.BatchNorm1d(features, affine="features.weight" in tensors)

    def forward(self, images: Tensor) -> Tensor:
        x = 2 * resized(images, SIZE) - 1
        x = self.prelu(self.bn1(self.conv1(x.flip(1) if self.blue_first else x)))
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return F.normalize(self.features(self.fc(self.bn2(x).flatten(1))))


def layout_of(path: str | Path) -> Layout | None:
    """Which project's weights these are, by the names of the tensors; None if neither's."""
    try:
        content = read(path)
    except UserError:
        return None
    for layout, anchors in ANCHORS.items():
        try:
            if chosen(content, anchors, path).keys() >= set(anchors):
                return layout
        except UserError:
            continue
    return None


def iresnet(weights: str | Path | Weights, layout: Layout) -> FaceResNet:
    """ArcFace's or AdaFace's network in eval mode, with a published file's weights, all of which must fit."""
    weights = weights if isinstance(weights, Weights) else Weights.of(weights)
    found = {name: value for name, value in read_tensors(weights.path, ANCHORS[layout]).items() if _own(name)}
    tensors = found if layout == "arcface" else _renamed(found)
    network = FaceResNet(tensors, layout == "adaface", f"{layout} of {weights.title}")
    counters = {name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}
    tensors = {**counters, **tensors}
    check_keys(network.state_dict(), tensors, weights.path)
    network.load_state_dict(tensors)
    return here().put(network.eval().requires_grad_(False))


def _own(name: str) -> bool:
    """Whether a tensor is of the network and not of the head that it was trained with."""
    return not name.startswith(("head.", "module.head."))


def _renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """AdaFace's tensors by ArcFace's names; a stage begins with the first unit and where the width grows."""
    units = sorted({int(found[1]) for name in tensors if (found := re.match(r"body\.(\d+)\.", name))})
    places, stage, within = {}, 0, 0
    for unit in units:
        conv = tensors.get(f"body.{unit}.res_layer.1.weight", torch.empty(0, 0))
        begins = not places or conv.shape[0] != conv.shape[1]
        stage, within = (stage + 1, 0) if begins else (stage, within + 1)
        places[unit] = f"layer{stage}.{within}"
    renamed = {}
    for name, value in tensors.items():
        found = re.match(r"body\.(\d+)\.(res_layer\.\d|shortcut_layer)\.(.+)", name)
        if found:
            renamed[f"{places[int(found[1])]}.{UNIT[found[2]]}.{found[3]}"] = value
        else:
            start = next((one for one in ENDS if name.startswith(f"{one}.")), "")
            renamed[f"{ENDS[start]}.{name.removeprefix(start + '.')}" if start else name] = value
    return renamed
