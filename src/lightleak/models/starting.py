"""Pretrained weights to start from, learnt on ImageNet or on a million faces, in a file that the user has.

All but the last layer is taken, which knows other classes. A file of another network is refused with what differs;
nothing in it is executed. Files are looked for in one folder, under the names that they are published with:

- torchvision's networks begin with IMAGENET1K_V1, as Koh et al. (ECCV 2024) trained them; such a name ends with the
  first eight digits of the file's sha256 (`resnet101-63fe2227.pth`), which is checked;
- timm's under the name of their default weights (`repvgg_a0.rvgg_in1k.safetensors`, or a folder of that name);
- `face:` networks with the MS1M backbones of face.evoLVe that KED-MI's, LOMMA's and PLG-MI's targets begin with, VGG-16
  with torchvision's, as MID's and BiDO's targets do.

Any of them may also be called after the network alone (`resnet101.pth`), without a check of its name.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import timm
import torchvision
from torch import Tensor

from lightleak.errors import UserError
from lightleak.models.face import Backbone
from lightleak.models.inception import after_transform
from lightleak.models.weight_files import Weights
from lightleak.models.weights import Found, check_keys, choose, completed, read
from lightleak.models.wrap import Classifier

ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".tar")
IR50, IR152 = "backbone_ir50_ms1m_epoch120", "Backbone_IR_152_Epoch_112_Batch_2547328_Time_2019-07-13-02-59_checkpoint"
FACES = {"ir50": IR50, "facenet64": IR50, "facenet112": IR50, "ir152": IR152}
PLAIN = ("vgg16", "vgg16-plain")  # face: networks that begin with the layers of torchvision's VGG-16
TRANSFORMED = ("inception_v3", "googlenet")  # whose weights torchvision feeds with ImageNet's mean and deviation
BESIDE = ("AuxLogits", "aux1", "aux2")  # auxiliary heads that come with the weights
HEADS = ("output_layer.", "classifier.")  # of face.evoLVe's and torchvision's files
BEFORE_2018 = re.compile(
    r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)$"
)  # DenseNets' names in the published files


def published_name(architecture: str) -> str | None:
    """The published name of the file that a network starts from; None if there is none."""
    library, _, name = architecture.partition(":")
    if library == "torchvision":
        try:
            weights = torchvision.models.get_model_weights(name)
        except ValueError:
            return None
        first = getattr(weights, "IMAGENET1K_V1", None)
        return None if first is None else str(first.value.url).rpartition("/")[2]
    if library == "timm":
        config = timm.get_pretrained_cfg(name)
        if config is None or not config.has_weights:
            return None
        return f"{name}.{config.tag}.safetensors" if config.tag else f"{name}.safetensors"
    if library == "face" and name in PLAIN:
        return published_name("torchvision:vgg16_bn")
    return f"{FACES[name]}.pth" if library == "face" and name in FACES else None


def find(folder: str | Path, architecture: str) -> Weights:
    """The file in a folder that a network starts from; UserError that names the files that were looked for."""
    folder, name = Path(folder).expanduser(), published_name(architecture)
    if not folder.is_dir():
        raise UserError(f"there is no folder of weights {folder}")
    short = architecture.partition(":")[2]
    stems = [Path(name).stem, short] if name else [short]
    for one in stems:
        for place in (folder / one, *(folder / f"{one}{ending}" for ending in ENDINGS)):
            if place.is_file() or (place.is_dir() and (place / "model.safetensors").is_file()):
                found = Weights.of(place / "model.safetensors" if place.is_dir() else place)
                _check_name(found)
                return found
    raise UserError(f"{folder} has no {name or short} for {architecture} to begin with")


def begin(classifier: Classifier, weights: Weights) -> Classifier:
    """The classifier with all weights of the file except the last layer's, which stays as it was built.

    Raises UserError that lists the differing names and shapes if the file is of another network.
    """
    classifier.net.load_state_dict({**classifier.net.state_dict(), **taken(classifier, weights)})
    classifier.record["start"] = {"weights": Path(weights.path).name, "sha256": weights.sha256}
    if str(classifier.architecture).partition(":")[2] not in TRANSFORMED:
        return classifier
    mean, std = after_transform(classifier.mean, classifier.std)
    return Classifier(
        classifier.net, size=classifier.size, classes=classifier.classes, architecture=classifier.architecture,
        mean=mean, std=std, class_names=classifier.class_names, record=classifier.record,
    ).to(classifier.device)  # fmt: skip


def taken(classifier: Classifier, weights: Weights) -> dict[str, Tensor]:
    """The weights that a classifier (on any device, even "meta") starts from, by its names; UserError as in `begin`."""
    wanted = classifier.net.state_dict()
    own, (ours, theirs) = _own(classifier), _beginnings(classifier)
    needed = {name: value for name, value in wanted.items() if not name.startswith(own)}
    bare = {f"{theirs}{name.removeprefix(ours)}": value for name, value in needed.items()}
    found = _read(weights, bare)
    known = (*own, *BESIDE, *(HEADS if ours else ()))
    fitting = {name: value for name, value in found.items() if name in bare or not name.startswith(known)}
    fitting = completed(bare, fitting)
    check_keys(bare, fitting, weights.path)
    return {f"{ours}{name.removeprefix(theirs)}": value for name, value in fitting.items()}


def _own(classifier: Classifier) -> tuple[str, ...]:
    """Beginnings of the names of layers that no file brings: the head, and all that is beside a face's backbone."""
    if _beginnings(classifier) != ("", ""):
        return tuple(f"{name}." for name, _ in classifier.net.named_children() if name != "feature")
    return (f"{classifier.head_name}.",)


def _beginnings(classifier: Classifier) -> tuple[str, str]:
    """Beginnings of a backbone's names, here and in the files, which hold it alone or as torchvision does."""
    if not str(classifier.architecture).startswith("face:"):
        return "", ""
    return "feature.", "" if isinstance(classifier.net.get_submodule("feature"), Backbone) else "features."


def _read(weights: Weights, bare: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the file under the names that torchvision gives them today."""
    content = read(weights.path)
    counted = {name for name in bare if not name.endswith("num_batches_tracked")}

    def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {BEFORE_2018.sub(r"\1\2", name): value for name, value in state.items()}

    found: Found = choose(content, counted, lambda state: renamed(state).keys() >= counted, weights.path)
    return renamed(found.tensors)


def _check_name(weights: Weights) -> None:
    """UserError if a file is called after another hash than its own, as torchvision calls its files."""
    said = re.fullmatch(r".*-([0-9a-f]{8})\.pth", Path(weights.path).name)
    if said and not weights.sha256.startswith(said[1]):
        raise UserError(
            f"{weights.path} is damaged or another file: its sha256 begins with {weights.sha256[:8]}, not {said[1]}"
        )
