"""The classifiers of the 64-pixel attacks (KED-MI, LOMMA, PLG-MI), with the parameter names of their checkpoints.

Improved residual networks with the layout of face.evoLVe, and a small VGG-16; beside them narrow networks of each kind
for a CPU. All take images in [0, 1] as they are, without normalisation, and give logits only; `features` gives what the
last layer reads.
"""

from collections.abc import Callable, Iterable

from torch import Tensor, nn
from torchvision.models import densenet, vgg

# Residual units per stage; the stages have 64, 128, 256 and 512 channels.
UNITS = {18: (2, 2, 2, 2), 50: (3, 4, 14, 3), 152: (3, 8, 36, 3)}
CHANNELS = (64, 128, 256, 512)
NARROW = 16  # channels of the first stage, where published networks have 64
NARROW_GROWTH = 24  # channels that a layer of the narrow DenseNet adds, where published networks have 32


class Unit(nn.Module):
    """A residual unit without an activation after the sum."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if inputs != outputs:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.res_layer(x) + self.shortcut_layer(x)


class Backbone(nn.Module):
    """Stem and residual units; with `size` 112 also the head to 512 features, as face.evoLVe has it."""

    def __init__(self, depth: int, size: int, width: int = 64) -> None:
        super().__init__()
        stem = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.input_layer = nn.Sequential(stem, nn.BatchNorm2d(width), nn.PReLU(width))
        units, inputs = [], width
        for outputs, count in zip((channels * width // 64 for channels in CHANNELS), UNITS[depth]):
            units += [Unit(inputs, outputs, 2), *(Unit(outputs, outputs, 1) for _ in range(count - 1))]
            inputs = outputs
        self.body = nn.Sequential(*units)
        self.output_layer: nn.Module = head(size, inputs) if size == 112 else nn.Identity()
        initialise(self.modules())

    def forward(self, images: Tensor) -> Tensor:
        return self.output_layer(self.body(self.input_layer(images)))


class FaceNet(nn.Module):
    """A residual backbone, 512 features (at width 64), and one linear layer of classes."""

    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(self, depth: int, size: int, classes: int, width: int = 64) -> None:
        super().__init__()
        self.input_size = (3, size, size)
        self.feature = Backbone(depth, size, width)
        # The 112-pixel network keeps its head within the backbone; names of published checkpoints depend on it.
        self.output_layer: nn.Module = nn.Identity() if size == 112 else head(size, 8 * width)
        self.fc_layer = nn.Linear(8 * width, classes)

    def features(self, images: Tensor) -> Tensor:
        """What the last layer reads, N x 512, not normalised."""
        return self.output_layer(self.feature(images))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, N x classes, of images N x 3 x size x size in [0, 1]."""
        return self.fc_layer(self.features(images))


class VGG16(nn.Module):
    """The convolutions of VGG-16 with batch norm at 64 pixels, a batch norm over their 2,048 values, a linear layer."""

    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(self, classes: int, norm: bool = True, width: int = 64, size: int = 64) -> None:
        super().__init__()
        self.input_size = (3, size, size)
        features = 8 * width * (size // 32) ** 2
        layers = [layer if isinstance(layer, str) else layer * width // 64 for layer in vgg.cfgs["D"]]
        self.feature = vgg.make_layers(layers, batch_norm=True)
        for layer in self.feature:
            if isinstance(layer, nn.Conv2d):  # as torchvision does
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]
        self.bn: nn.Module = nn.BatchNorm1d(features) if norm else nn.Identity()
        if isinstance(self.bn, nn.BatchNorm1d):
            self.bn.bias.requires_grad_(False)  # published checkpoints keep it at zero
        self.fc_layer = nn.Linear(features, classes)

    def features(self, images: Tensor) -> Tensor:
        """What the last layer reads, N x 2048."""
        return self.bn(self.feature(images).flatten(1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, N x classes, of images N x 3 x 64 x 64 in [0, 1]."""
        return self.fc_layer(self.features(images))


class NarrowDenseNet(nn.Module):
    """A DenseNet whose stages can be cut and still learn in minutes: four layers a stage, each of 24 channels.

    torchvision's blocks and transitions (0.56 million parameters; DenseNet-121: 7 million). A 3 x 3 stem
    that halves the image, and no pooling after it, leave the last stage 3 x 3 pixels of a 48-pixel image.
    """

    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(self, classes: int, size: int = 64) -> None:
        super().__init__()
        self.input_size = (3, size, size)
        whole = densenet.DenseNet(NARROW_GROWTH, (4, 4, 4, 4), 2 * NARROW_GROWTH, num_classes=classes)
        whole.features.conv0 = nn.Conv2d(3, 2 * NARROW_GROWTH, 3, 2, 1, bias=False)
        nn.init.kaiming_normal_(whole.features.conv0.weight)  # as torchvision does
        del whole.features.pool0
        self.feature, self.fc_layer = whole.features, whole.classifier

    def features(self, images: Tensor) -> Tensor:
        """What the last layer reads, N x 186."""
        return self.feature(images).relu().mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, N x classes, of images N x 3 x size x size in [0, 1]."""
        return self.fc_layer(self.features(images))


def head(size: int, width: int = 512) -> nn.Sequential:
    """The layers from the last feature map (width x size/16 x size/16) to that many features."""
    layers = (nn.BatchNorm2d(width), nn.Dropout(0.5), nn.Flatten(), nn.Linear(width * (size // 16) ** 2, width))
    return nn.Sequential(*layers, nn.BatchNorm1d(width))


def initialise(modules: Iterable[nn.Module]) -> None:
    """Initialise as face.evoLVe does: Xavier weights, zero biases, norms at PyTorch's defaults."""
    for module in modules:
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def ir50(classes: int) -> nn.Module:
    """IR-50 at 64 pixels, which the attacks' papers call face.evoLVe and their code FaceNet64."""
    return FaceNet(50, 64, classes)


def ir152(classes: int) -> nn.Module:
    """IR-152 at 64 pixels, which the attacks' papers also call ResNet-152."""
    return FaceNet(152, 64, classes)


def facenet112(classes: int) -> nn.Module:
    """IR-50 at 112 pixels, the judge of the 64-pixel attacks."""
    return FaceNet(50, 112, classes)


def vgg16_plain(classes: int) -> nn.Module:
    """VGG-16 without the batch norm over its 2,048 values, to which MID's code attaches its bottleneck."""
    return VGG16(classes, norm=False)


def ir18_narrow(classes: int, size: int = 64) -> nn.Module:
    """IR-50's units, two per stage, with a quarter of the channels: for a CPU, at multiples of 16 from 32 pixels on."""
    return FaceNet(18, size, classes, NARROW)


def vgg16_narrow(classes: int, size: int = 64) -> nn.Module:
    """VGG-16 with a quarter of the channels: for a CPU, at multiples of 16 from 32 pixels on."""
    return VGG16(classes, width=NARROW, size=size)


FACE_MODELS: dict[str, Callable[..., nn.Module]] = {
    "ir50": ir50,
    "ir152": ir152,
    "facenet64": ir50,
    "facenet112": facenet112,
    "vgg16": VGG16,
    "vgg16-plain": vgg16_plain,
    "ir18-narrow": ir18_narrow,
    "vgg16-narrow": vgg16_narrow,
    "densenet-narrow": NarrowDenseNet,
}
# Those that also take other sizes than 64 pixels: any multiple of 16 from 32 on.
SIZED = tuple(name for name in FACE_MODELS if name.endswith("-narrow"))
