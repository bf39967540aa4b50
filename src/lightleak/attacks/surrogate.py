"""Networks that answer as a target does, learnt from whatever its oracle gives out: logits, scores, or labels alone."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from json import dumps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightleak.attacks.draws import seed_of
from lightleak.attacks.guards import Guard
from lightleak.attacks.oracle import Access, Oracle
from lightleak.attacks.votes import voted
from lightleak.data.augmentation import DRAWS, Augmentation
from lightleak.data.population import Images
from lightleak.errors import UserError, refuse
from lightleak.fingerprint import LATER, told
from lightleak.models.classifier import Classifier
from lightleak.models.starting import begin
from lightleak.models.weight_files import Weights
from lightleak.models.zoo import build
from lightleak.optimisers import fused
from lightleak.priors.fit import FitSettings
from lightleak.priors.fit.state import Asked, State, digest_of, update
from lightleak.priors.fit.state import answers as answers_to
from lightleak.randomness import keyed, own

SURE = 20.0  # the logit of a class that is all that was told; the others' are 0


@dataclass(frozen=True)
class Lessons:
    """How a surrogate is trained: SGD on the divergence from what the target said."""

    epochs: int = 20
    rate: float = 0.02
    momentum: float = 0.9
    decay: float = 1e-4
    temperature: float = 1.0
    batch: int = 64
    pretrained: bool = True  # it starts from its library's ImageNet weights (a download)
    checkpoint_every: int = field(default=200, compare=False)
    votes: int = field(
        default=1, metadata=LATER
    )  # labels asked of each image, see `attacks.votes`; the majority counts

    def __post_init__(self) -> None:
        least = {"epochs": 1, "batch": 2, "momentum": 0, "decay": 0, "checkpoint_every": 1, "votes": 1}
        fields = asdict(self)
        wrong = [
            f"{name} must be at least {low}, not {fields[name]}"
            for name, low in least.items()
            if not fields[name] >= low
        ]
        wrong += [
            f"{name} must be above 0, not {fields[name]}" for name in ("rate", "temperature") if not fields[name] > 0
        ]
        refuse(wrong)


@dataclass(frozen=True)
class Practice:
    """Further settings of a surrogate's training besides its lessons; by default none."""

    augmented: bool = False  # half of the loss is of copies: cropped, coloured, mirrored, turned
    cosine: bool = False  # the rate falls along half a cosine, epoch by epoch
    shown: int | None = None  # images of an epoch, others in each; None: all

    def __post_init__(self) -> None:
        if self.shown is not None and self.shown < 1:
            raise UserError(f"an epoch shows at least one image, not {self.shown}")

    def rate_at(self, lessons: Lessons, epoch: int) -> float:
        """The rate in an epoch, from 0."""
        return lessons.rate * (0.5 + 0.5 * math.cos(math.pi * epoch / lessons.epochs) if self.cosine else 1.0)

    def passes(self, images: Images, lessons: Lessons) -> int:
        """Batches of an epoch: a rest that would be a smaller one is left out, unless there is nothing else."""
        return max(1, min(len(images), self.shown or len(images)) // lessons.batch)


PLAIN = Practice()


def as_logits(oracle: Oracle, votes: int = 1) -> Callable[[Tensor], Tensor]:
    """What an oracle tells of images, as logits N x C: its own where gradients are granted, and those flow.

    Of scores, their logarithms, whose softmax they are; of labels, logits that are sure of them (of no answer: even).
    With `votes` each image is asked about so often, and its label is that of the majority; UserError if the oracle
    grants more than labels.
    """
    if votes > 1 and oracle.access != "labels":
        raise UserError(f"a majority of {votes} votes is one of labels; this oracle grants {oracle.access}")

    def of_labels(images: Tensor) -> Tensor:
        labels = voted(oracle.labels, images, votes)
        return SURE * F.one_hot(labels.clamp(min=0), oracle.classes).float() * (labels >= 0)[:, None]

    by_access: dict[Access, Callable[[Tensor], Tensor]] = {
        "gradients": oracle.logits,
        "scores": lambda images: oracle.scores(images).clamp(min=1e-30).log(),
        "labels": of_labels,
    }
    return by_access[oracle.access]


def teacher(target: Classifier, training: FitSettings, guard: Guard | None = None) -> Oracle:
    """A target, behind its guard, for the training of a prior, with the access that this needs and no more."""
    return Oracle(target, training.asks or "labels", guard=guard, batch_statistics=training.batch_statistics)


def asked(oracle: Oracle, training: FitSettings) -> Asked:
    """What a teacher tells the training of a prior, as often as that asks about each image."""
    votes = getattr(training, "votes", 1)
    return Asked(as_logits(oracle, votes), votes)


def lesson(oracle: Oracle | None, told: Asked | None) -> dict[str, Any] | None:
    """What `priors.save` notes of a teacher that told so much; None without one."""
    return {"access": oracle.access, "queries": told.count, "target": oracle.weights} if oracle and told else None


def copied(
    oracle: Oracle, images: Images, architecture: str, lessons: Lessons, seed: int, **more: Any
) -> tuple[Classifier, Tensor]:
    """A network that learnt to answer images as the target does, and what the target told of them, N x C.

    `more` goes to `learn`.
    """
    with torch.no_grad():
        said = answers_to(as_logits(oracle, lessons.votes), images, device=oracle.device).cpu()
    return learn(images, said, architecture, lessons, seed, device=oracle.device, **more), said


def learn(
    images: Images,
    answers: Tensor,
    architecture: str,
    lessons: Lessons,
    seed: int,
    *,
    practice: Practice = PLAIN,
    number: int = 0,
    about: dict[str, object] | None = None,
    folder: Path | None = None,
    tell: Callable[..., None] = lambda *_, **__: None,
    device: torch.device | str = "cpu",
    weights: Weights | None = None,
) -> Classifier:
    """A network of any architecture that answers the images as `answers` (logits N x C, see `as_logits`) say.

    `number` tells surrogates of one seed apart. With a folder, training goes on from the checkpoint in it; one of other
    images, answers or lessons is refused. Networks that drop branches draw from a generator of their own. It begins
    with `weights`, if they are given (`models.starting`).
    """
    if len(images) < 2:
        raise UserError(f"students need public images to learn from, got {len(images)}")
    with own(seed_of(keyed(seed, number, 0))):
        built = build(architecture, answers.shape[1], images.size, pretrained=lessons.pretrained)
    built = begin(built, weights) if weights else built
    # It sees images in [0, 1] as they are, and its last layer without dropout.
    student = Classifier(
        built.net, size=images.size, classes=built.classes, architecture=architecture, mean=(0.0,) * 3, std=(1.0,) * 3
    )
    student = student.to(device).train()
    for module in student.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    moving = student.parameters()
    optimiser = fused(torch.optim.SGD, moving, lr=lessons.rate, momentum=lessons.momentum, weight_decay=lessons.decay)
    digest = sha256(images.pixels.contiguous().numpy().tobytes()).hexdigest()[:16]
    mark = told(lessons) | {"students": architecture, "seed": seed, "images": digest, "target": digest_of(answers)}
    mark |= {"weights": weights.sha256} if weights else {}
    mark.pop("checkpoint_every")
    mark |= asdict(practice) if practice != PLAIN else {}
    state = State({"net": student.net}, {"sgd": optimiser}, keyed(seed, number, 1), folder, dumps(mark | (about or {})))
    state.resume()
    each, answers = practice.passes(images, lessons), answers.to(device)
    while state.step < lessons.epochs * each:
        epoch, place = divmod(state.step, each)
        order = torch.randperm(len(images), generator=keyed(seed, number, 2 + epoch))
        chosen = order[place * lessons.batch : (place + 1) * lessons.batch]
        with own(seed_of(state.rng), device):  # networks that drop whole branches draw from the global generator
            seen, said = images.floats(chosen).to(device), answers[chosen.to(device)]
            if practice.augmented:
                copies = Augmentation()(seen, torch.rand(len(seen), DRAWS, generator=state.rng))
                seen, said = torch.cat([seen, copies]), said.repeat(2, 1)
            loss = divergence(student(seen), said, lessons.temperature)
            optimiser.param_groups[0]["lr"] = practice.rate_at(lessons, epoch)
            update(optimiser, loss)
        state.step += 1
        tell(state.step, divergence=float(loss.detach()))
        if state.step % lessons.checkpoint_every == 0 or state.step == lessons.epochs * each:
            state.save()
    return student.eval()


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher, student) of softened answers (logits N x C), mean over images, over the temperature's square."""
    theirs, ours = (teacher / temperature).log_softmax(1), (student / temperature).log_softmax(1)
    return F.kl_div(ours, theirs, reduction="batchmean", log_target=True) / temperature**2
