"""Convert published classifiers, recognised by the names and shapes of their tensors.

One row of FORMATS for each layout that is around. A row says which tensors a file must have and which it must not, and
how to make a Classifier of it; then every name and every shape has to agree. How images are normalised is not in such
files: it is what the published code does, and `Hints` overrule it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch

from lightleak.convert import names
from lightleak.convert.layouts import Shape, State, nearness, recognise
from lightleak.convert.skips import WHOLE, Cuts, cut
from lightleak.errors import UserError
from lightleak.models import bottleneck, weights, zoo
from lightleak.models.classifier import Classifier
from lightleak.models.normalisation import HALF, IMAGENET, NONE
from lightleak.models.torchfile import Checkpoint, Content, Entry
from lightleak.models.weights import Found, check_keys, completed, finite, relevant

Normalisation = Literal["half", "imagenet", "none"]
Order = names.Order

NORMALISATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "half": HALF,  # to [-1, 1], as PPA and RoLSS do
    "imagenet": IMAGENET,
    "none": NONE,  # as all 64-pixel attacks do
}


@dataclass(frozen=True)
class Hints:
    """Facts about a network that its file does not hold."""

    architecture: str | None = None  # of a classifier: timm:NAME, torchvision:NAME or face:NAME; None: recognised
    size: int | None = None  # side of the images that the classifier reads; None: as in the published code
    normalise: Normalisation | None = None  # half: to [-1, 1]; none: [0, 1] as it is; None: as in the published code
    transform_input: bool = True  # of Inception: normalise once more, as in its training
    cuts: Cuts = WHOLE  # which skips its training left out
    entry: str | None = None  # which of several networks in the file, such as state_dict_ema; None: the one that fits
    class_names: Path | None = None  # a text file, one name a line in order of the outputs, or the folder of classes
    class_order: Order = "text"  # of such a folder: text is 1, 10, 2 (torchvision, Lightleak); natural 1, 2, 10 (timm)


PLAIN = Hints()


@dataclass(frozen=True)
class Format:
    """A layout of a published classifier."""

    name: str
    has: dict[str, Shape]
    lacks: tuple[str, ...]
    make: Callable[[State, Hints, str], Classifier]


def classifier(found: Checkpoint | Content, path: str | Path, hints: Hints = PLAIN) -> Classifier:
    """The classifier in a file's tensors; UserError if no format fits, or if a name or a shape differs."""
    if isinstance(found, Checkpoint):
        found = Content((Entry(found.place, found.tensors),), found.beside)
    source, config = str(path), weights.beside(path)
    chosen = chosen_from(found, hints, source)
    finite(chosen.tensors, source)
    if hints.architecture:
        kind, result = hints.architecture, from_zoo((hints.architecture,), "half")(chosen.tensors, hints, source)
    else:
        format_ = recognise(
            chosen.tensors, FORMATS, source, "; if it is a network of timm or torchvision, name it with --architecture"
        )
        kind, result = format_.name, format_.make(chosen.tensors, hints, source)
    result.class_names, order = names.of(
        hints.class_names, hints.class_order, chosen.class_names or weights.names_beside(config), result.classes
    )
    about = {"file": Path(path).name, "format": kind, "beside": chosen.beside, "entry": chosen.place}
    told = [note for note in (*chosen.notes, order, _assumed(result, hints)) if note]
    result.record = {"converted": {**about, "others": list(chosen.others), "notes": told}}
    return result.eval()


def _assumed(result: Classifier, hints: Hints) -> str:
    """What to check where a file was read as the published code normalises, and did not say so itself."""
    if hints.normalise or result.mean != HALF[0]:
        return ""
    return (
        "the file does not say how its images were normalised: to [-1, 1], as in the releases of PPA and RoLSS, is "
        "assumed; of a network that was trained with ImageNet's mean and std say --normalise imagenet"
    )


def chosen_from(found: Content, hints: Hints, source: str) -> Found:
    """The network in a file, among several, that fits an architecture or a published format."""
    if hints.architecture:
        head, shapes = _shapes(hints.architecture)
        body = {name for name in shapes if not name.startswith(f"{head}.") and not name.endswith("batches_tracked")}
        return weights.choose(found, shapes, lambda state: body <= state.keys(), source, hints.entry)
    anchors = {name for format_ in FORMATS for name in format_.has}
    return weights.choose(found, anchors, lambda state: nearness(state, FORMATS) == 1, source, hints.entry)


# --- how a row becomes a Classifier


def filled(result: Classifier, state: State, source: str) -> Classifier:
    """The classifier with exactly these weights."""
    wanted = result.net.state_dict()
    state = completed(wanted, relevant(state, wanted)[0])
    check_keys(wanted, state, source)
    result.net.load_state_dict(state)
    return result


def normalised(result: Classifier, mean: tuple[float, ...], std: tuple[float, ...]) -> Classifier:
    """The classifier with another normalisation."""
    return Classifier(
        result.net,
        size=result.size,
        classes=result.classes,
        architecture=result.architecture,
        mean=mean,
        std=std,
        changes=result.changes,
    )


def from_face(
    name: str, rename: Callable[[str], str] = lambda name: name, narrow: bool = False
) -> Callable[[State, Hints, str], Classifier]:
    """Formats of the 64-pixel classifiers; `narrow`: a variational bottleneck replaces the last layer (MID)."""

    def make(state: State, hints: Hints, source: str) -> Classifier:
        state = {rename(key): value for key, value in state.items()}
        head = state.get("fc_layer.head.weight" if narrow else "fc_layer.weight")
        if head is None:
            raise UserError(f"{source} has no last layer of classes, fc_layer")
        result = zoo.build(f"face:{name}", len(head), hints.size)
        if narrow:
            change = {"kind": "bottleneck", "head": "fc_layer", "width": head.shape[1]}
            result = result.with_net(bottleneck.insert(result.net, change), change=change)
        if hints.normalise:
            result = normalised(result, *NORMALISATIONS[hints.normalise])
        return cut(result, hints.cuts, source, state, filled)

    return make


def from_zoo(
    candidates: tuple[str, ...],
    way: Normalisation,
    size: int | None = None,
    rename: Callable[[str], str] = lambda name: name,
    extra: str = "",
) -> Callable[[State, Hints, str], Classifier]:
    """Formats of networks by name: the candidate with these tensor names and most of these shapes.

    `extra`: the prefix of tensors that only training needs.
    """

    def make(state: State, hints: Hints, source: str) -> Classifier:
        state = {rename(key): value for key, value in state.items() if not extra or not key.startswith(extra)}
        name, head = closest(candidates, state)
        result = zoo.build(name, len(state.get(f"{head}.weight", ())) or 1, hints.size or size)
        if f"{head}.bias" in state and f"{head}.bias" not in result.net.state_dict():
            change = {"kind": "bias", "head": head}  # whoever exchanged the last layer gave it a bias
            result = result.with_net(bottleneck.with_bias(result.net, change), change=change)
        result = normalised(result, *NORMALISATIONS[hints.normalise or way])
        return cut(result, hints.cuts, source, state, filled)

    return make


def closest(candidates: tuple[str, ...], state: State) -> tuple[str, str]:
    """The candidate whose tensors agree best in names, then in shapes; and the name of its last layer."""
    found = {name: tuple(value.shape) for name, value in state.items()}

    def difference(name: str) -> tuple[int, int]:
        head, wanted = _shapes(name)
        theirs, mine = (
            {k: v for k, v in each.items() if not k.startswith(f"{head}.") and not k.endswith("num_batches_tracked")}
            for each in (wanted, found)
        )
        return len(theirs.keys() ^ mine.keys()), sum(mine.get(key) != shape for key, shape in theirs.items())

    best = min(candidates, key=difference)
    return best, _shapes(best)[0]


@cache
def _shapes(name: str) -> tuple[str, dict[str, tuple[int, ...]]]:
    """The name of a network's last layer, and the shapes of all tensors, for one class."""
    with torch.device("meta"):
        empty = zoo.build(name, 1)
    return empty.head_name, {key: tuple(value.shape) for key, value in empty.net.state_dict().items()}


def inception(state: State, hints: Hints, source: str) -> Classifier:
    """Inception-v3, PPA's and RoLSS's judge, without the auxiliary head, which only training needs.

    Trained from torchvision's weights, it normalises its input once more, to undo ImageNet's normalisation, which its
    input never had. RoLSS judges with it as it was trained; PPA leaves that out when it judges.
    """
    make = from_zoo(("torchvision:inception_v3",), "half", 299, extra="AuxLogits.")
    result = make(state, hints, source)
    if not hints.transform_input:
        return result
    # x -> x s + t per channel, s = std / 0.5, t = (mean - 0.5) / 0.5, after (x - m) / d: one normalisation in all.
    scale = [std / 0.5 for std in IMAGENET[1]]
    shift = [(mean - 0.5) / 0.5 for mean in IMAGENET[0]]
    mean = tuple(m - d * t / s for m, d, s, t in zip(result.mean, result.std, scale, shift))
    std = tuple(d / s for d, s in zip(result.std, scale))
    return normalised(result, mean, std)


# --- names


# Where BiDO's five parts of VGG-16 begin among its layers.
PARTS = {"layer1": 0, "layer2": 7, "layer3": 14, "layer4": 24, "layer5": 34}


def _parts(name: str) -> str:
    """BiDO's names of VGG-16's layers."""
    part, _, rest = name.partition(".")
    if part in PARTS and re.match(r"\d+\.", rest):
        index, _, rest = rest.partition(".")
        return f"feature.{PARTS[part] + int(index)}.{rest}"
    return _softmax(name)


def _softmax(name: str) -> str:
    """Early files hold the last layer with its softmax; ours gives the logits before it."""
    return re.sub(r"^fc_layer\.0\.", "fc_layer.", name)


def _narrow(name: str) -> str:
    """MID's names of its bottleneck, the later ones after BiDO's fashion."""
    name = re.sub(r"^st_layer\.", "fc_layer.statistics.", _parts(name))
    return re.sub(r"^fc_layer\.(weight|bias)$", r"fc_layer.head.\1", name)


def _student(name: str) -> str:
    """LOMMA's names of its augmented models."""
    return re.sub(r"^fc_layer\.", "classifier.1.", re.sub(r"^feature\.0\.", "features.", name))


def _heads(name: str) -> str:
    return re.sub(r"^heads\.(weight|bias)$", r"heads.head.\1", name)


def _names(library: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{library}:{name}" for name in names)


RESNETS = _names(
    "torchvision",
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d"),
    *("resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
)
DENSENETS = _names("torchvision", "densenet121", "densenet161", "densenet169", "densenet201")
VGGS = _names("torchvision", *(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")))
EFFICIENT = _names(
    "torchvision", "mobilenet_v2", *(f"efficientnet_b{i}" for i in range(8)), *(f"efficientnet_v2_{s}" for s in "sml")
)
STUDENTS = EFFICIENT[1:4]
CONVNEXTS = _names("torchvision", *(f"convnext_{size}" for size in ("tiny", "small", "base", "large")))
SWINS = _names("torchvision", "swin_t", "swin_s", "swin_b")
VITS = _names("torchvision", "vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14")
TIMM_VITS = _names(
    "timm",
    *("vit_base_patch16_224", "vit_base_patch32_224", "vit_large_patch16_224", "vit_large_patch32_224"),
    *("vit_huge_patch14_224", "deit_small_patch16_224", "deit_tiny_patch16_224"),
)
RESNESTS = _names("timm", "resnest50d", "resnest101e", "resnest200e", "resnest269e")

BACKBONE_64: dict[str, Shape] = {"output_layer.3.weight": (512, 8192), "feature.input_layer.0.weight": (64, 3, 3, 3)}
BACKBONE_112: dict[str, Shape] = {"feature.output_layer.3.weight": (512, 25088)}

FORMATS: tuple[Format, ...] = (
    # The 64-pixel attacks: images as they are, in [0, 1].
    Format(
        "VGG-16 at 64 pixels (GMI, KED-MI, LOMMA, PLG-MI)",
        {"feature.0.weight": (64, 3, 3, 3), "bn.weight": (2048,), "fc_layer.weight": (None, 2048)},
        ("st_layer.weight", "layer1.0.weight"),
        from_face("vgg16"),
    ),
    Format(
        "VGG-16 at 64 pixels in five parts (BiDO)",
        {"layer1.0.weight": (64, 3, 3, 3), "bn.weight": (2048,), "fc_layer.weight": (None, 2048)},
        ("st_layer.weight", "feature.0.weight"),
        from_face("vgg16", _parts),
    ),
    Format(
        "VGG-16 at 64 pixels with a variational bottleneck (MID)",
        {"feature.0.weight": (64, 3, 3, 3), "st_layer.weight": (None, 2048), "fc_layer.weight": (None, None)},
        ("bn.weight",),
        from_face("vgg16-plain", _narrow, narrow=True),
    ),
    Format(
        "VGG-16 at 64 pixels in five parts with a variational bottleneck (MID in BiDO's code)",
        {"layer1.0.weight": (64, 3, 3, 3), "st_layer.weight": (None, 2048), "fc_layer.weight": (None, None)},
        ("bn.weight",),
        from_face("vgg16-plain", _narrow, narrow=True),
    ),
    Format(
        "IR-50 at 64 pixels (FaceNet64, face.evoLVe)",
        {**BACKBONE_64, "feature.body.23.res_layer.4.weight": (512,), "fc_layer.weight": (None, 512)},
        ("feature.body.24.res_layer.0.weight",),
        from_face("facenet64"),
    ),
    Format(
        "IR-152 at 64 pixels (IR152, ResNet-152)",
        {**BACKBONE_64, "feature.body.49.res_layer.4.weight": (512,), "fc_layer.weight": (None, 512)},
        (),
        from_face("ir152"),
    ),
    Format(
        "IR-50 at 112 pixels (FaceNet, the judge of the 64-pixel attacks)",
        {**BACKBONE_112, "fc_layer.weight": (None, 512)},
        (),
        from_face("facenet112"),
    ),
    Format(
        "IR-50 at 64 pixels with its softmax",
        {**BACKBONE_64, "feature.body.23.res_layer.4.weight": (512,), "fc_layer.0.weight": (None, 512)},
        ("feature.body.24.res_layer.0.weight",),
        from_face("facenet64", _softmax),
    ),
    Format(
        "IR-50 at 112 pixels with its softmax",
        {**BACKBONE_112, "fc_layer.0.weight": (None, 512)},
        (),
        from_face("facenet112", _softmax),
    ),
    Format(
        "EfficientNet-B0 to B2 at 64 pixels (LOMMA's augmented models)",
        {"feature.0.0.0.weight": (32, 3, 3, 3), "fc_layer.weight": (None, None)},
        (),
        from_zoo(STUDENTS, "none", 64, _student),
    ),
    # PPA and RoLSS: images of 224 pixels in [-1, 1].
    Format(
        "Inception-v3 (judge of PPA and RoLSS)",
        {"Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3), "fc.weight": (None, 2048)},
        (),
        inception,
    ),
    Format(
        "ResNeSt (PPA, RoLSS)",
        {"conv1.0.weight": (None, 3, 3, 3), "layer1.0.conv2.fc1.weight": (None,) * 4, "fc.weight": (None, 2048)},
        (),
        from_zoo(RESNESTS, "half", 224),
    ),
    Format(
        "ResNet or ResNeXt (PPA, RoLSS)",
        {"conv1.weight": (64, 3, 7, 7), "layer4.0.conv1.weight": (None,) * 4, "fc.weight": (None, None)},
        (),
        from_zoo(RESNETS, "half", 224),
    ),
    Format(
        "DenseNet (PPA, RoLSS)",
        {"features.conv0.weight": (None, 3, 7, 7), "classifier.weight": (None, None)},
        (),
        from_zoo(DENSENETS, "half", 224),
    ),
    Format(
        "VGG (RoLSS)",
        {"features.0.weight": (64, 3, 3, 3), "classifier.6.weight": (None, 4096)},
        (),
        from_zoo(VGGS, "half", 224),
    ),
    Format(
        "MobileNetV2 or EfficientNet (RoLSS)",
        {"features.0.0.weight": (None, 3, 3, 3), "classifier.1.weight": (None, None)},
        (),
        from_zoo(EFFICIENT, "half", 224),
    ),
    Format(
        "ConvNeXt (RoLSS)",
        {"features.0.0.weight": (None, 3, 4, 4), "classifier.2.weight": (None, None)},
        (),
        from_zoo(CONVNEXTS, "half", 224),
    ),
    Format(
        "Swin (RoLSS)",
        {"features.0.0.weight": (None, 3, 4, 4), "head.weight": (None, None)},
        (),
        from_zoo(SWINS, "half", 224),
    ),
    Format(
        "ViT (RoLSS)",
        {"conv_proj.weight": (None,) * 4, "heads.head.weight": (None, None)},
        (),
        from_zoo(VITS, "half", 224),
    ),
    Format(
        "ViT with one linear layer in place of its heads (RoLSS)",
        {"conv_proj.weight": (None,) * 4, "heads.weight": (None, None)},
        (),
        from_zoo(VITS, "half", 224, _heads),
    ),
    Format(
        "MaxViT (RoLSS)",
        {"stem.0.0.weight": (64, 3, 3, 3), "classifier.5.weight": (None, 512)},
        (),
        from_zoo(("torchvision:maxvit_t",), "half", 224),
    ),
    Format(
        "ViT or DeiT of timm (PPA, RoLSS)",
        {"patch_embed.proj.weight": (None,) * 4, "cls_token": (1, 1, None), "head.weight": (None, None)},
        (),
        from_zoo(TIMM_VITS, "half", 224),
    ),
)
