"""A network with its own preprocessing, its surgery and its record; saved as safetensors with a JSON recipe."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lightleak import surgery
from lightleak.data.views import resized
from lightleak.errors import UserError
from lightleak.files import publish
from lightleak.models import bottleneck, group_norm

FORMAT = 1


class Classifier(nn.Module):
    """Images in [0, 1] of any size go in, logits come out; resizing and normalisation are its own business."""

    def __init__(
        self,
        net: nn.Module,
        *,
        size: int,
        classes: int,
        architecture: str | None = None,
        mean: tuple[float, ...] = (0.5, 0.5, 0.5),
        std: tuple[float, ...] = (0.5, 0.5, 0.5),
        class_names: tuple[str, ...] = (),
        record: dict[str, Any] | None = None,
        changes: tuple[dict[str, Any], ...] = (),
    ) -> None:
        super().__init__()
        self.net = net
        self.size = size
        self.classes = classes
        self.architecture = architecture  # None: a network of the user's own
        self.class_names = tuple(class_names)
        self.record = dict(record or {})  # how it was trained, as JSON
        self.changes = tuple(changes)  # what defences did beside surgery, as JSON
        self.mean, self.std = tuple(mean), tuple(std)
        self.register_buffer("_mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, N x classes, of images N x 3 x H x W in [0, 1]; another size is resized with antialiasing."""
        return self.net(self.prepared(images))

    def prepared(self, images: Tensor) -> Tensor:
        """Images in [0, 1] as the network itself takes them: resized and normalised."""
        if images.dim() != 4 or images.shape[1] != 3:
            raise UserError(f"expected images of shape N x 3 x H x W in [0, 1], got {tuple(images.shape)}")
        images = resized(images, self.size)
        return (images - torch.as_tensor(self._mean)) / torch.as_tensor(self._std)

    def features(self, images: Tensor) -> Tensor:
        """What the last linear layer reads, N x D."""
        return self.features_and_logits(images)[0]

    def features_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Penultimate features (N x D) and logits (N x classes) of one pass."""
        seen: list[Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            logits = self(images)
        finally:
            hook.remove()
        return seen[-1].flatten(1), logits

    @property
    def head(self) -> nn.Module:
        """The layer that makes the logits: the last linear layer or convolution with one output per class."""
        for module in reversed(list(self.net.modules())):
            width = getattr(module, "out_features", getattr(module, "out_channels", None))
            if isinstance(module, nn.Linear | nn.Conv2d) and width == self.classes:
                return module
        raise UserError(f"found no layer with {self.classes} outputs in {type(self.net).__name__}; is 'classes' right?")

    @property
    def device(self) -> torch.device:
        """Where the classifier is."""
        return torch.as_tensor(self._mean).device

    @property
    def example(self) -> Tensor:
        """Two grey images as the network itself receives them, for tracing."""
        return torch.zeros(2, 3, self.size, self.size, device=self.device)

    def with_net(self, net: nn.Module, *, change: dict[str, Any] | None = None) -> "Classifier":
        """The same classifier around another network; `change` notes what a defence did, if that was not surgery."""
        return Classifier(
            net,
            size=self.size,
            classes=self.classes,
            architecture=self.architecture,
            mean=self.mean,
            std=self.std,
            class_names=self.class_names,
            record=self.record,
            changes=(*self.changes, change) if change else self.changes,
        ).to(self.device)

    @property
    def recipe(self) -> dict[str, Any]:
        """Everything but the weights, as JSON data."""
        return {
            "format": FORMAT,
            "architecture": self.architecture,
            "size": self.size,
            "classes": self.classes,
            "mean": list(self.mean),
            "std": list(self.std),
            "class_names": list(self.class_names),
            "surgery": surgery.recipe(self.net),
            "changes": list(self.changes),
            "record": self.record,
        }


class Penultimate(nn.Module):
    """Images in [0, 1] to what a classifier's last linear layer reads, N x D: an embedding for distances and FID."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier.features(images)


def save(classifier: Classifier, path: str | Path) -> Path:
    """Write weights and recipe into one safetensors file, whole or not at all."""
    # Some networks tie weights; safetensors wants every tensor to own its memory.
    state = classifier.net.state_dict()
    tensors = {name: value.detach().contiguous().clone().cpu() for name, value in state.items()}
    metadata = {"lightleak": json.dumps(classifier.recipe, allow_nan=False)}
    return publish(path, lambda part: save_file(tensors, part, metadata=metadata), "the checkpoint")


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The recipe in a checkpoint's header; UserError if the file is none of ours."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("lightleak")
        recipe = json.loads(text) if text else None
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise UserError(
            f"{path} is not a whole safetensors file ({error}); foreign checkpoints go through 'lightleak convert'"
        ) from error
    if not isinstance(recipe, dict) or recipe.get("format") != FORMAT:
        raise UserError(
            f"{path} has no Lightleak recipe of format {FORMAT}; use 'lightleak convert' on foreign checkpoints"
        )
    return recipe


def load(path: str | Path, net: nn.Module | None = None) -> Classifier:
    """Rebuild a classifier from its checkpoint: same architecture, same surgery, exactly the stored weights.

    `net` is needed only for a network that was not built by name; it must be as it was before any surgery.
    Raises UserError that lists the differing keys if the file and the rebuilt network disagree. Nothing in the file
    is executed.
    """
    from lightleak.models.zoo import build

    recipe = read_recipe(path)
    try:
        size, classes = int(recipe["size"]), int(recipe["classes"])
        if net is None:
            if recipe["architecture"] is None:
                raise UserError(f"{path} holds a network of your own; pass it as load(path, net=...)")
            classifier = build(recipe["architecture"], classes, size)
        else:
            classifier = Classifier(net, size=size, classes=classes, architecture=recipe["architecture"])
        cut = surgery.replay(classifier.net, recipe["surgery"], classifier.example)
        for change in recipe["changes"]:
            cut = CHANGES[change["kind"]](cut, change)
        classifier = Classifier(
            cut,
            size=size,
            classes=classes,
            architecture=recipe["architecture"],
            mean=tuple(recipe["mean"]),
            std=tuple(recipe["std"]),
            class_names=tuple(recipe["class_names"]),
            record=recipe["record"],
            changes=tuple(recipe["changes"]),
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"the recipe in {path} is damaged: {error!r}") from error
    with safe_open(path, "pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    check_keys(classifier.net.state_dict(), stored, str(path))
    classifier.net.load_state_dict(stored)
    return classifier.eval()


# How a stored change that is not surgery is made again: (network, change) -> network.
CHANGES: dict[str, Callable[[nn.Module, dict[str, Any]], nn.Module]] = {
    "bottleneck": bottleneck.insert,
    "draws": bottleneck.average,
    "group_norm": group_norm.regroup,
    "bias": bottleneck.with_bias,
}


def check_keys(wanted: dict[str, Tensor], stored: dict[str, Tensor], source: str) -> None:
    """UserError that names up to five differing tensors and counts all, unless names and shapes agree."""
    missing = [f"{name} is missing" for name in wanted if name not in stored]
    unexpected = [f"{name[:80]} is not in the network" for name in stored if name not in wanted]
    reshaped = [
        f"{name} is {tuple(stored[name].shape)}, not {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in stored and stored[name].shape != value.shape
    ]
    differing = [*missing, *unexpected, *reshaped]
    if differing:
        more = f" and {len(differing) - 5} more" if len(differing) > 5 else ""
        counts = f" ({len(missing)} missing, {len(unexpected)} not in the network, {len(reshaped)} of another shape)"
        raise UserError(
            f"{source} does not fit its architecture: {'; '.join(differing[:5])}{more}{counts if more else ''}"
        )
