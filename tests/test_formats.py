"""Every published layout comes in by the public door, and a file that lacks any one tensor is refused in a line."""

import re

import pytest
import torch

from lightleak.convert import FORMATS, convert
from lightleak.convert.generators import CRITICS, GENERATORS, is_of_gan
from lightleak.convert.layouts import fits
from lightleak.errors import UserError
from lightleak.models.classifier import Classifier
from lightleak.models.face import FACE_MODELS
from lightleak.models.zoo import build
from lightleak.priors.conditional64 import ConditionalGenerator, ProjectionDiscriminator
from lightleak.priors.gan64 import Critic, Generator, MinibatchDiscriminator
from test_convert import in_parts, rolss, written

CLASSES = 3


def face(name):
    return FACE_MODELS[name](CLASSES).state_dict()


def zoo(name):
    return build(name, CLASSES).net.state_dict()


def softmaxed(name):
    return {key.replace("fc_layer.", "fc_layer.0."): value for key, value in face(name).items()}


def mid(parts):
    body = {key: value for key, value in face("vgg16-plain").items() if not key.startswith("fc_layer")}
    body = in_parts(body) if parts else body
    return body | {"st_layer.weight": torch.ones(64, 2048), "st_layer.bias": torch.ones(64),
                   "fc_layer.weight": torch.ones(CLASSES, 32), "fc_layer.bias": torch.ones(CLASSES)}  # fmt: skip


def student():
    names = {"features.": "feature.0.", "classifier.1.": "fc_layer."}
    return {re.sub(r"^(features\.|classifier\.1\.)", lambda found: names[found[0]], key): value
            for key, value in zoo("torchvision:efficientnet_b0").items()}  # fmt: skip


def flat_heads():
    return {key.replace("heads.head.", "heads."): value for key, value in zoo("torchvision:vit_b_16").items()}


# For each row a file of its layout, and the network that it should become; slow ones are large.
FILES = {
    "VGG-16 at 64 pixels (GMI, KED-MI, LOMMA, PLG-MI)": (lambda: face("vgg16"), "face:vgg16", False),
    "VGG-16 at 64 pixels in five parts (BiDO)": (lambda: in_parts(face("vgg16")), "face:vgg16", False),
    "VGG-16 at 64 pixels with a variational bottleneck (MID)": (lambda: mid(False), "face:vgg16-plain", False),
    "VGG-16 at 64 pixels in five parts with a variational bottleneck (MID in BiDO's code)":
        (lambda: mid(True), "face:vgg16-plain", False),
    "IR-50 at 64 pixels (FaceNet64, face.evoLVe)": (lambda: face("facenet64"), "face:facenet64", True),
    "IR-152 at 64 pixels (IR152, ResNet-152)": (lambda: face("ir152"), "face:ir152", True),
    "IR-50 at 112 pixels (FaceNet, the judge of the 64-pixel attacks)":
        (lambda: face("facenet112"), "face:facenet112", True),
    "IR-50 at 64 pixels with its softmax": (lambda: softmaxed("facenet64"), "face:facenet64", True),
    "IR-50 at 112 pixels with its softmax": (lambda: softmaxed("facenet112"), "face:facenet112", True),
    "EfficientNet-B0 to B2 at 64 pixels (LOMMA's augmented models)": (student, "torchvision:efficientnet_b0", False),
    "Inception-v3 (judge of PPA and RoLSS)":
        (lambda: zoo("torchvision:inception_v3"), "torchvision:inception_v3", True),
    "ResNeSt (PPA, RoLSS)": (lambda: zoo("timm:resnest50d"), "timm:resnest50d", True),
    "ResNet or ResNeXt (PPA, RoLSS)": (lambda: zoo("torchvision:resnet18"), "torchvision:resnet18", False),
    "DenseNet (PPA, RoLSS)": (lambda: zoo("torchvision:densenet121"), "torchvision:densenet121", True),
    "VGG (RoLSS)": (lambda: zoo("torchvision:vgg11"), "torchvision:vgg11", True),
    "MobileNetV2 or EfficientNet (RoLSS)":
        (lambda: zoo("torchvision:mobilenet_v2"), "torchvision:mobilenet_v2", False),
    "ConvNeXt (RoLSS)": (lambda: zoo("torchvision:convnext_tiny"), "torchvision:convnext_tiny", True),
    "Swin (RoLSS)": (lambda: zoo("torchvision:swin_t"), "torchvision:swin_t", True),
    "ViT (RoLSS)": (lambda: zoo("torchvision:vit_b_16"), "torchvision:vit_b_16", True),
    "ViT with one linear layer in place of its heads (RoLSS)": (flat_heads, "torchvision:vit_b_16", True),
    "MaxViT (RoLSS)": (lambda: zoo("torchvision:maxvit_t"), "torchvision:maxvit_t", True),
    "ViT or DeiT of timm (PPA, RoLSS)":
        (lambda: zoo("timm:deit_tiny_patch16_224"), "timm:deit_tiny_patch16_224", False),
}  # fmt: skip


def test_every_row_has_a_file():
    assert FILES.keys() == {format_.name for format_ in FORMATS}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * FILES[n][2]) for n in FILES])
def test_every_row_comes_in(name, tmp_path):
    make, architecture, _ = FILES[name]
    found = convert(written(rolss(make()), tmp_path / "file.pth", new=True))
    assert isinstance(found, Classifier)
    assert (found.record["converted"]["format"], found.architecture, found.classes) == (name, architecture, CLASSES)


HALVES = {
    "generator of GMI and KED-MI": lambda: Generator(64, 4, 6).state_dict(),
    "generator of PLG-MI": lambda: ConditionalGenerator(64, 4, 6, CLASSES).state_dict(),
    "critic of GMI (DGWGAN)": lambda: Critic(64, 4).state_dict(),
    "discriminator of KED-MI": lambda: MinibatchDiscriminator(64, 4, CLASSES, kernels=2, dimensions=2).state_dict(),
    "discriminator of PLG-MI": lambda: ProjectionDiscriminator(64, 4, CLASSES).state_dict(),
}
PARTNER = {
    "generator of GMI and KED-MI": "critic of GMI (DGWGAN)",
    "generator of PLG-MI": "discriminator of PLG-MI",
    "critic of GMI (DGWGAN)": "generator of GMI and KED-MI",
    "discriminator of KED-MI": "generator of GMI and KED-MI",
    "discriminator of PLG-MI": "generator of PLG-MI",
}


def test_every_half_has_a_file():
    assert HALVES.keys() == {half.name for half in (*GENERATORS, *CRITICS)}


def pair(name, state, tmp_path):
    """The generator's file and the critic's, one of them with this state."""
    mine = written({"state_dict": state}, tmp_path / "mine.tar")
    other = tmp_path / "other.tar"
    if not other.exists():
        written({"state_dict": HALVES[PARTNER[name]]()}, other)
    return (mine, other) if "generator" in name else (other, mine)


@pytest.mark.parametrize("name", HALVES)
def test_a_gan_that_lacks_any_tensor_is_one_line(name, tmp_path):
    """Also the tensor that a width is read from."""
    whole = HALVES[name]()
    generator, critic = pair(name, whole, tmp_path)
    assert convert(generator, critic=critic).size == 64
    deciding = {key for half in (*GENERATORS, *CRITICS) for key in half.has}
    others = [key for key in whole if key not in deciding and not key.endswith("num_batches_tracked")]
    for key in [key for key in whole if key in deciding] + others[:2]:
        less = {other: value for other, value in whole.items() if other != key}
        for state in (less, {**less, key: whole[key][:0]}):
            generator, critic = pair(name, state, tmp_path)
            with pytest.raises(UserError) as caught:
                convert(generator, critic=critic)
            assert "\n" not in str(caught.value), key


def test_gans_are_told_from_classifiers_by_the_whole_layout():
    """BiDO's VGG-16 shares two names with KED-MI's discriminator."""
    with torch.device("meta"):
        states = {name: make() for name, (make, *_) in FILES.items() if "VGG-16" in name}
        halves = {name: make() for name, make in HALVES.items()}
    assert not any(map(is_of_gan, states.values()))
    assert all(map(is_of_gan, halves.values()))
    both = [
        (row.name, name) for row in FORMATS for name, state in halves.items() if not fits(state, row.has, row.lacks)
    ]
    assert both == []
