"""Any classifier by name: "timm:resnet101", "torchvision:densenet121", "face:ir152"."""

import fnmatch
from collections.abc import Callable
from typing import Any

import timm
import torch
import torchvision
from torch import nn

from lightleak.errors import UserError
from lightleak.models import named
from lightleak.models.wrap import Classifier
from lightleak.place import here
from lightleak.surgery.observe import undone

# Constructor arguments that some torchvision models need to give plain logits and a deterministic, quick start.
TORCHVISION_OPTIONS = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


def build(architecture: str, classes: int, size: int | None = None, *, pretrained: bool = False) -> Classifier:
    """A freshly initialised Classifier by name, for `classes` classes and images of `size` pixels (default: its own).

    `pretrained=True` downloads the library's weights and so needs a network. Raises UserError for an unknown name,
    or for a size that the architecture cannot take.
    """
    if classes < 1:
        raise UserError(f"expected at least one class, got {classes}")
    library, name = named.library_of(architecture)
    wanted = size
    net, size = BUILDERS[library](name, classes, size, pretrained)
    if wanted is not None and library != "face" and not _takes(architecture, net, wanted):  # those of ours say so
        own = _native(architecture)
        raise UserError(
            f"{architecture} cannot take images of {wanted} x {wanted} pixels; it is made for {own} x {own}: give "
            f"size {own}"
        )
    mean = std = (0.5,) * 3
    if library == "face":  # ours of the 64-pixel attacks bring the normalisation that they were published with
        mean, std = getattr(net, "mean", mean), getattr(net, "std", std)
    about: dict[str, Any] = {"architecture": architecture, "mean": tuple(mean), "std": tuple(std)}
    # Built on the processor everywhere, so that all devices begin with the same weights.
    return here().put(Classifier(net, size=size, classes=classes, **about))


_TAKEN: dict[tuple[str, int], bool] = {}  # what a pass of an earlier network of that name has shown


def _takes(architecture: str, net: nn.Module, size: int) -> bool:
    """Whether a network can be run on images of that size: it was made for them, or a trial pass shows it."""
    key = architecture, size
    if key not in _TAKEN and size != _native(architecture):
        anchor = next(net.parameters())
        if anchor.is_meta:  # has nothing to compute with; whoever runs it builds it again
            return True
        try:
            with undone(net), torch.no_grad():
                net(anchor.new_zeros(1, 3, size, size))
        except Exception:  # libraries raise what they like
            _TAKEN[key] = False
        else:
            _TAKEN[key] = True
    return _TAKEN.get(key, True)


def _native(architecture: str) -> int:
    """The side of the images that a network of timm's or torchvision's is made for."""
    library, _, name = architecture.partition(":")
    config = timm.get_pretrained_cfg(name) if library == "timm" else None
    if config:
        return int(config.input_size[-1])
    return 299 if architecture == "torchvision:inception_v3" else 224


def only_size(architecture: str) -> int | None:
    """The only side length in pixels that a network takes, such as 112; None if it takes others too."""
    library, _, name = architecture.partition(":")
    if library != "face":
        return None
    from lightleak.models.face import FACE_MODELS, SIZED

    if name in SIZED or name not in FACE_MODELS:
        return None
    with torch.device("meta"):  # nothing but its size is asked for
        net = FACE_MODELS[name](1)
    return int(getattr(net, "input_size", (3, 64, 64))[-1])


def names(library: str = "timm") -> list[str]:
    """All classifier names of a library, without its prefix."""
    if library == "face":
        from lightleak.models.face import FACE_MODELS

        return sorted(FACE_MODELS)
    if library == "timm":
        return timm.list_models()
    return torchvision.models.list_models(module=torchvision.models)


def matching(pattern: str) -> list[str]:
    """The names that match a pattern such as "timm:resnet*", with their library's prefix; UserError if none does."""
    library, _, wanted = pattern.partition(":")
    if library not in named.LIBRARIES:
        raise named.no_library(library)
    found = [f"{library}:{name}" for name in fnmatch.filter(names(library), wanted)]
    if not found:
        raise named.no_match(library, wanted)
    return found


def check(architecture: str) -> None:
    """UserError if no library has a network of that name; nothing is built."""
    _known(*named.library_of(architecture))


def _known(library: str, name: str) -> None:
    known = names(library)
    if name not in known:
        raise named.unknown(library, name, known)


def _timm(name: str, classes: int, size: int | None, pretrained: bool) -> tuple[nn.Module, int]:
    _known("timm", name)
    native = _native(f"timm:{name}")
    # Only models with a position table or windows take an image size; the others take any.
    options: dict[str, Any] = {"img_size": size} if size and size != native else {}
    try:
        try:
            net = timm.create_model(name, pretrained=pretrained, num_classes=classes, **options)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
            net = timm.create_model(name, pretrained=pretrained, num_classes=classes)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(f"timm:{name} cannot be built for {size or native} x {size or native}: {error}") from error
    return net, size or native


def _torchvision(name: str, classes: int, size: int | None, pretrained: bool) -> tuple[nn.Module, int]:
    _known("torchvision", name)
    make = torchvision.models.get_model_builder(name)
    options: dict = dict(TORCHVISION_OPTIONS.get(name, {}))
    native = _native(f"torchvision:{name}")
    if size and "vit" in name and "maxvit" not in name:
        options["image_size"] = size
    if name == "maxvit_t" and size:
        options["input_size"] = (size, size)
    try:
        if not pretrained:
            return make(weights=None, num_classes=classes, **options), size or native
        if name in ("googlenet", "inception_v3"):
            # With weights, torchvision adds a transform that undoes ImageNet's normalisation; ours already is [-1, 1],
            # which these weights were trained for. A checkpoint would not remember the transform.
            options = {"transform_input": False}
        net = make(weights="DEFAULT", **options)
        for part in ("AuxLogits", "aux1", "aux2"):  # auxiliary heads come with the weights
            if hasattr(net, part):
                setattr(net, part, None)
                net.__dict__["aux_logits"] = False
    except (ValueError, AssertionError) as error:
        raise UserError(f"torchvision:{name} cannot be built for {size} x {size}: {error}") from error
    _replace_head(net, classes)
    return net, size or native


def _replace_head(net: nn.Module, classes: int) -> None:
    """Exchange the last linear (or 1 x 1 convolution) layer for one with as many outputs as there are classes."""
    path, layer = [(n, m) for n, m in net.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    if isinstance(layer, nn.Linear):
        new: nn.Module = nn.Linear(layer.in_features, classes)
    else:
        new = nn.Conv2d(layer.in_channels, classes, 1)
    parent, _, name = path.rpartition(".")
    setattr(net.get_submodule(parent), name, new)


def _face(name: str, classes: int, size: int | None, pretrained: bool) -> tuple[nn.Module, int]:
    from lightleak.models.face import FACE_MODELS, SIZED

    _known("face", name)
    if pretrained:
        raise UserError(
            f"face:{name} has no downloadable weights; convert a published checkpoint with 'lightleak convert'"
        )
    if name in SIZED and size:
        if size % 16 or size < 32:
            raise UserError(f"face:{name} takes images of a multiple of 16 pixels from 32 on, not {size} x {size}")
        return FACE_MODELS[name](classes, size), size
    net = FACE_MODELS[name](classes)
    native = int(getattr(net, "input_size", (3, 64, 64))[-1])
    if size not in (None, native):
        raise UserError(f"face:{name} takes images of {native} x {native}, not {size} x {size}")
    return net, native


Builder = Callable[[str, int, int | None, bool], tuple[nn.Module, int]]
BUILDERS: dict[str, Builder] = {"timm": _timm, "torchvision": _torchvision, "face": _face}
