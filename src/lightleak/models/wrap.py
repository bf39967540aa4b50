"""A network with its own preprocessing, its surgery and its record."""

import logging
from dataclasses import asdict, replace
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightleak import surgery
from lightleak.data.population import check_unit
from lightleak.data.views import resized
from lightleak.errors import UserError
from lightleak.models import normalisation, trial
from lightleak.models.changes import with_surgeries
from lightleak.models.heads import could_be, heads_of
from lightleak.models.normalisation import Normalisation
from lightleak.models.trial import Item, Reading
from lightleak.notebook import table

FORMAT = 1
LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's "L"
log = logging.getLogger("lightleak")


class Classifier(nn.Module):
    """Images in [0, 1] of any size go in, logits come out; resizing, normalisation and reading are its own business.

    `net`: any module. `size`: side of the images that it takes in pixels, or (height, width). `classes`: how many it
    knows. `mean`, `std`: of each channel, of images in [0, 1]; None: what the network says of itself, else 0.5, and
    that is said. `output`: which of several outputs holds the logits, by index or name; None: the one that fits.
    `architecture`: its name in the zoo, for a network that was built by name; without it, a trial pass of random images
    shows how the network is read, and `notes` keeps and the log "lightleak" says what was concluded rather than stated.
    Raises UserError, in one line, if the network cannot take such images or gives no N x classes numbers.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        size: int | tuple[int, int],
        classes: int,
        architecture: str | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        class_names: tuple[str, ...] = (),
        record: dict[str, Any] | None = None,
        changes: tuple[dict[str, Any], ...] = (),
        output: Item = None,
        reading: Reading | None = None,
        origin: str | None = None,
    ) -> None:
        super().__init__()
        sides = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        if min(sides) < 1 or classes < 1:
            raise UserError(f"a classifier has at least one class and one pixel, not {classes} and {size}")
        told = normalisation.of(net, mean, std)
        if reading is None:
            known = Reading(len(told.mean)) if architecture else None  # the zoo's networks need no trial
            reading = _concluded(known or _tried(net, classes, sides, told, mean, output), told)
        self.net = net
        self.sides = None if sides[0] == sides[1] else sides  # height and width, if they differ
        self.size = max(sides)
        self.classes = classes
        self.architecture = architecture  # None: a network of the user's own
        self.origin = origin  # of a network of the user's own: FILE.py:NAME that makes it
        self.class_names = tuple(class_names)
        self.record = dict(record or {})  # how it was trained, as JSON
        self.changes = with_surgeries(changes, net)  # what was done to the network since it was built
        self.reading = reading
        self.mean, self.std = told.mean[: reading.channels], told.std[: reading.channels]
        device = trial.anchor(net).device
        self.register_buffer("_mean", torch.tensor(self.mean, device=device).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(self.std, device=device).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, N x classes, of images N x 3 x H x W in [0, 1]; another size is resized with antialiasing."""
        name = type(self.net).__name__
        logits = trial.logits(self.net(self.prepared(images)), self.reading, self.classes, name)
        if logits.dim() != 2 or len(logits) != len(images):
            raise UserError(
                f"{name} returns {' x '.join(map(str, logits.shape))} for {len(images)} images, expected "
                f"{len(images)} x {self.classes}; does it squeeze or join what belongs to single images?"
            )
        return logits

    def prepared(self, images: Tensor) -> Tensor:
        """Images in [0, 1] as the network itself expects them: resized, normalised, with its channels and precision."""
        if images.dim() != 4 or images.shape[1] != 3:
            raise UserError(f"expected images of shape N x 3 x H x W in [0, 1], got {tuple(images.shape)}")
        if not images.is_floating_point():
            kind = str(images.dtype).removeprefix("torch.")
            raise UserError(f"expected images as floating-point numbers in [0, 1], got {kind}; divide bytes by 255")
        if _can_be_read(images):
            check_unit(images)
        if self.sides is None:
            images = resized(images, self.size)
        elif images.shape[-2:] != self.sides:
            images = F.interpolate(images, self.sides, mode="bilinear", antialias=True, align_corners=False)
        if self.reading.channels == 1:
            images = (images * images.new_tensor(LUMINANCE).view(1, 3, 1, 1)).sum(1, keepdim=True)
        images = (images - torch.as_tensor(self._mean)) / torch.as_tensor(self._std)
        precision = trial.anchor(self.net).dtype
        return images if precision == torch.float32 else images.to(precision)

    def features(self, images: Tensor) -> Tensor:
        """The input of the last linear layer, N x D."""
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
        """The last linear layer or convolution with one output per class; `heads` tells what makes the logits."""
        return self.net.get_submodule(self.head_name)

    @property
    def head_name(self) -> str:
        """The name of `head` in the network."""
        found = [name for name, module in self.net.named_modules() if could_be(module, self.classes)]
        if not found:
            raise UserError(
                f"found no layer with {self.classes} outputs in {type(self.net).__name__}; is 'classes' right?"
            )
        return found[-1]

    @cached_property
    def heads(self) -> tuple[str, ...]:
        """All layers that make the logits, by name, as a few passes show; () if something else makes them, too."""
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(2, 3, *(self.sides or (self.size, self.size)), generator=generator).to(self.device)
        return heads_of(self.net, self.classes, lambda: self(images))

    def only_head(self, who: str) -> tuple[str, nn.Linear]:
        """The linear layer that alone makes the logits, and its name; UserError that says why `who` needs one."""
        name, head = self.head_name, self.head
        if not isinstance(head, nn.Linear):
            raise UserError(f"{who} needs a linear layer as the head; {name!r} is a {type(head).__name__}")
        if self.heads != (name,):
            made = f"layers {', '.join(map(repr, self.heads))} do" if self.heads[1:] else f"{name!r} does not"
            whose = self.architecture or type(self.net).__name__
            raise UserError(f"{who} needs one linear layer that alone makes the logits; in {whose} {made}")
        return name, head

    @property
    def device(self) -> torch.device:
        """Where the classifier is."""
        return torch.as_tensor(self._mean).device

    @property
    def example(self) -> Tensor:
        """Two black images as the network itself receives them, for tracing."""
        images = trial.example(self.net, self.reading.channels, self.sides or (self.size, self.size))
        return images.to(self.device)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was inferred about the network rather than stated, one sentence each."""
        return self.reading.notes

    def _repr_html_(self) -> str:
        sides = self.sides or (self.size, self.size)
        rows = [
            ("network", self.architecture or type(self.net).__name__),
            ("classes", self.classes),
            ("image size", f"{sides[0]} x {sides[1]} pixels"),
            ("parameters", f"{sum(one.numel() for one in self.net.parameters()):,}"),
            ("changes", ", ".join(str(one["kind"]) for one in self.changes) or "none"),
            ("on", self.device),
        ]
        return table("Classifier", (), rows)

    def with_net(self, net: nn.Module, *, change: dict[str, Any] | None = None) -> "Classifier":
        """The same classifier around another network; `change` names the last change, unless it was a surgery."""
        return Classifier(
            net,
            size=self.sides or self.size,
            classes=self.classes,
            architecture=self.architecture,
            mean=self.mean,
            std=self.std,
            class_names=self.class_names,
            record=self.record,
            changes=(*with_surgeries(self.changes, net), *([change] if change else [])),
            reading=self.reading,
            origin=self.origin,
        ).to(self.device)

    @property
    def recipe(self) -> dict[str, Any]:
        """Everything but the weights, as JSON data."""
        plain = self.sides is None and self.reading == Reading() and self.origin is None
        own = {**asdict(self.reading), "notes": list(self.reading.notes)}
        return {
            "format": FORMAT,
            "architecture": self.architecture,
            "size": self.size,
            "classes": self.classes,
            "mean": list(self.mean),
            "std": list(self.std),
            "class_names": list(self.class_names),
            "surgery": surgery.recipe(self.net),  # for those who look for it alone; it is part of what follows
            "changes": list(self.changes),
            "record": self.record,
            # Left out where they say nothing, so that checkpoints of networks by name stay what they were.
            **({} if plain else {"sides": self.sides and list(self.sides), "reading": own, "origin": self.origin}),
        }


def _tried(
    net: nn.Module,
    classes: int,
    sides: tuple[int, int],
    told: Normalisation,
    mean: tuple[float, ...] | None,
    output: Item,
) -> Reading:
    return trial.tried(net, classes, sides, (told.mean, told.std), len(mean) if mean else None, output)


def _can_be_read(images: Tensor) -> bool:
    """Whether looking at the values costs nothing and disturbs nobody who traces, differentiates or vectorises."""
    if torch.compiler.is_compiling() or type(images) is not Tensor or images.requires_grad:
        return False
    if torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
        return False
    within = torch._C._functorch.is_functorch_wrapped_tensor  # pyright: ignore[reportAttributeAccessIssue]
    return images.device.type == "cpu" and not within(images)


def _concluded(found: Reading, told: Normalisation) -> Reading:
    """The reading with all that was concluded rather than stated, which is also said."""
    found = replace(found, notes=(*found.notes, *told.notes))
    for note in found.notes:
        say(note)
    return found


@cache
def say(note: str) -> None:
    """Tell the user once, in the log: a Python warning would suggest that something is wrong with the call."""
    log.warning(note)


class Penultimate(nn.Module):
    """Maps images in [0, 1] to what a classifier's last linear layer reads, N x D, for distances and FID."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier.features(images)
