"""What an attacker learns of a target from public images before attacking (LOMMA: Nguyen et al., CVPR 2023).

    1. ask the target about every public image once: logits and penultimate features
    2. keep the mean and the spread of the features
    3. train students that answer as the target does

Deviations: the features are averaged over all public images (published: over 5,050 of them); the target is asked once
(published: in every step, with gradients through it that nobody uses); students train for as many epochs as their
name says (published: the file called 20 is of the 19th epoch); the divergence is divided by the square of the
temperature, as published, where others multiply (at temperature 1 there is no difference).
"""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lightleak.attacks.draws import own_latents, seed_of
from lightleak.attacks.oracle import Access, Oracle
from lightleak.attacks.surrogate import PLAIN, Lessons, Practice, as_logits
from lightleak.attacks.surrogate import learn as taught
from lightleak.data.population import Images, as_bytes
from lightleak.data.views import resized
from lightleak.errors import UserError
from lightleak.files import publish
from lightleak.fingerprint import deciding, fingerprint
from lightleak.models.classifier import Classifier, load, save
from lightleak.models.weight_files import Weights
from lightleak.priors.prior import Prior
from lightleak.ranking import agreement_of, named, tally

FEATURES = "features.safetensors"


@dataclass(frozen=True)
class Distillation:
    """How students learn from the target; the defaults are the ones behind the published results."""

    students: tuple[str, ...] = (
        "torchvision:efficientnet_b0",
        "torchvision:efficientnet_b1",
        "torchvision:efficientnet_b2",
    )
    pretrained: bool = True  # students start from their library's ImageNet weights (a download)
    epochs: int = 20
    rate: float = 0.02
    momentum: float = 0.9
    decay: float = 1e-4
    temperature: float = 1.0
    batch: int = 64
    checkpoint_every: int = field(default=200, compare=False)

    def __post_init__(self) -> None:
        _ = self.lessons  # which checks the rest

    @property
    def lessons(self) -> Lessons:
        """How each student is trained."""
        return Lessons(**{name: value for name, value in asdict(self).items() if name != "students"})

    @property
    def practice(self) -> Practice:
        """No further settings."""
        return PLAIN


# Two small students without a download, for two cores.
SMALL = Distillation(students=("timm:resnet10t", "timm:resnet14t"), pretrained=False, batch=32)


@dataclass(frozen=True)
class Transfer:
    """How surrogates learn of images that a prior draws, not of public ones; the defaults are LOKT's published ones."""

    students: tuple[str, ...] = ("torchvision:densenet121", "torchvision:densenet161", "torchvision:densenet169")
    images: int = 500  # of each class that the prior draws
    lessons: Lessons = Lessons(epochs=200, rate=0.1, decay=5e-4, batch=128, pretrained=False)  # passes, rate, batch
    practice: Practice = Practice(augmented=True, cosine=True, shown=30_000)  # which images, how changed, at what rate

    def __post_init__(self) -> None:
        if self.images < 1:
            raise UserError(f"surrogates learn of at least one image of each class, not {self.images}")


# Three small surrogates, for two cores.
SMALL_TRANSFER = Transfer(
    students=("timm:resnet10t", "timm:resnet14t", "timm:resnet18"),
    images=100,
    lessons=Lessons(epochs=15, rate=0.05, decay=5e-4, batch=64, pretrained=False),
)


@dataclass(frozen=True, eq=False)
class Knowledge:
    """Students of a target, and where its features of public images lie."""

    students: tuple[Classifier, ...]
    mean: Tensor | None  # D: of the target's penultimate features; None where only scores or labels were granted
    spread: Tensor | None  # D: their standard deviation
    agreement: tuple[float, ...]  # share of public images on which each student names the target's class
    queries: int = 0  # images shown to the target
    access: Access = "gradients"  # what the oracle granted of which this was learnt
    named: tuple[int, ...] = ()  # how often the target named each class of the images; empty: nobody counted
    target: str = ""  # `weights_of` its network; "": unknown, as in older files
    made: Mapping[str, Any] = field(
        default_factory=dict
    )  # by which settings, seed, images; empty: unknown, as in older

    def oracles(self, device: torch.device) -> tuple[Oracle, ...]:
        """The students as targets with gradients, made ready once."""
        if device not in self._ready:
            self._ready[device] = tuple(Oracle(copy.deepcopy(student).to(device)) for student in self.students)
        return self._ready[device]

    @cached_property
    def _ready(self) -> dict[torch.device, tuple[Oracle, ...]]:
        return {}

    def differing(self, settings: Distillation | Transfer, images: Images | None) -> list[str]:
        """How it was learnt otherwise than by these settings and of these images, where some are given, in words."""
        was, now = self.made.get("settings", {}), deciding(settings)
        others = [f"{name} {was.get(name)}, not {value}" for name, value in now.items() if was.get(name) != value]
        same = images is None or self.made.get("images") == fingerprint(images.pixels)
        return others if same else [*others, "of other images"]

    def save(self, folder: str | Path) -> None:
        """Write one checkpoint for each student, and the features, each whole or not at all."""
        folder = Path(folder)
        for number, student in enumerate(self.students):
            save(student, folder / f"student-{number}.safetensors")
        about: dict[str, Any] = {"students": len(self.students), "agreement": self.agreement, "queries": self.queries}
        about |= {"access": self.access, "named": self.named, "target": self.target, "made": dict(self.made)}
        both = {"mean": self.mean, "spread": self.spread}
        tensors = {name: value.cpu().contiguous() for name, value in both.items() if value is not None}
        metadata = {"knowledge": json.dumps(about)}
        publish(folder / FEATURES, lambda part: save_file(tensors, part, metadata=metadata), "the knowledge")

    @classmethod
    def load(cls, folder: str | Path) -> "Knowledge":
        """Read what `save` wrote; UserError if a part is missing or damaged."""
        folder = Path(folder)
        if not (folder / FEATURES).is_file():
            raise UserError(f"there is no knowledge in {folder}; learn it with --public")
        try:
            with safe_open(folder / FEATURES, "pt") as file:
                about = json.loads((file.metadata() or {})["knowledge"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            count, agreement, queries = about["students"], tuple(about["agreement"]), about["queries"]
            access, named = about.get("access", "gradients"), tuple(about.get("named", ()))
            target, made = about.get("target", ""), about.get("made", {})
            if access == "gradients" and not {"mean", "spread"} <= set(tensors):
                raise KeyError("mean and spread")
        except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise UserError(f"{folder / FEATURES} holds no knowledge of Lightleak ({error}); learn it again") from error
        students = tuple(load(folder / f"student-{number}.safetensors") for number in range(count))
        return cls(
            students, tensors.get("mean"), tensors.get("spread"), agreement, queries, access, named, target, made
        )


def learn(
    oracle: Oracle,
    images: Images,
    settings: Distillation | Transfer,
    rng: torch.Generator,
    folder: Path | None = None,
    watch: Callable[..., None] | None = None,
    weights: Sequence[Weights] = (),
) -> Knowledge:
    """What images, public or `drawn`, tell of a target; with a folder, training goes on from the checkpoints in it.

    `watch(step, total, divergence=...)` hears each step of all students together. `weights`: files that the students
    begin with, in their order, in place of a download.
    """
    if len(images) < 2:
        raise UserError(f"students need images to learn from, got {len(images)}")
    if weights and len(weights) != len(settings.students):
        raise UserError(f"{len(settings.students)} students begin with as many files of weights, not {len(weights)}")
    lessons = replace(settings.lessons, pretrained=False) if weights else settings.lessons
    before, seed = oracle.queries, seed_of(rng)
    # 1. ask the target about every public image once, and 2. where its features lie, if they can be seen
    logits, features = _answers(oracle, images, lessons.votes)
    mean, spread = (None, None) if features is None else (features.mean(0), features.std(0))
    # 3. students that answer as it does
    each = lessons.epochs * settings.practice.passes(images, lessons)
    students, agreement = [], []
    for number, name in enumerate(settings.students):

        def tell(step: int, done: int = number * each, **numbers: float) -> None:
            if watch:
                watch(done + step, len(settings.students) * each, **numbers)

        place = None if folder is None else Path(folder) / f"student-{number}"
        more = {"number": number, "folder": place, "tell": tell, "device": oracle.device}
        more |= {"practice": settings.practice, "weights": weights[number] if weights else None}
        student = taught(images, logits, name, lessons, seed, **more)
        with torch.no_grad():
            parts = torch.arange(len(images)).split(256)
            theirs = torch.cat([student(images.floats(part).to(oracle.device)).cpu() for part in parts])
        students.append(student.cpu())
        agreement.append(agreement_of(theirs, logits))
    spent, counts = oracle.queries - before, tuple(tally(named(logits), oracle.classes).tolist())
    made = {"settings": deciding(settings), "seed": seed, "images": fingerprint(images.pixels)}
    made |= {"weights": [one.sha256 for one in weights]} if weights else {}
    return Knowledge(
        tuple(students), mean, spread, tuple(agreement), spent, oracle.access, counts, oracle.weights, made
    )


@torch.no_grad()
def drawn(prior: Prior, settings: Transfer, size: int, rng: torch.Generator, batch: int = 256) -> Images:
    """The images of every class that surrogates learn of, at `size`, labelled as what the prior drew them."""
    if prior.classes is None:
        raise UserError(f"surrogates learn of images of every class, and {type(prior).__name__} draws no given classes")
    labels, seed = torch.arange(prior.classes).repeat_interleave(settings.images), seed_of(rng)
    pixels = []
    for part in torch.arange(len(labels)).split(batch):
        latents = own_latents(prior, seed, labels[part], part % settings.images).to(prior.device)
        images = prior.decode(latents, labels[part].to(prior.device)).clamp(0, 1)
        pixels.append(as_bytes(resized(images, size)).cpu())
    return Images(torch.cat(pixels), labels)


@torch.no_grad()
def _answers(oracle: Oracle, images: Images, votes: int) -> tuple[Tensor, Tensor | None]:
    """The target's logits of all images, N x C, as far as its access tells them, and its features; on the CPU."""
    logits, features = [], []
    for part in torch.arange(len(images)).split(256):
        shown = images.floats(part).to(oracle.device)
        if oracle.access == "gradients":
            seen, said = oracle.features(shown)
            features.append(seen.cpu())
        else:
            said = as_logits(oracle, votes)(shown)
        logits.append(said.cpu())
    return torch.cat(logits), torch.cat(features) if features else None
