"""What an attacker learns of a target from public images before attacking (LOMMA: Nguyen et al., CVPR 2023).

    1. ask the target about every public image once: logits and penultimate features
    2. keep the mean and the spread of the features
    3. train students that answer as the target does

Deviations: the features are averaged over all public images (published: over 5,050 of them); the target is asked once
(published: in every step, with gradients through it that nobody uses); students train for as many epochs as their
name says (published: the file called 20 is of the 19th epoch); the divergence is divided by the square of the
temperature, as published, where others multiply (at temperature 1 there is no difference).
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from lightleak.attacks.oracle import Oracle
from lightleak.attacks.steps import keyed, seed_of
from lightleak.data.population import Images
from lightleak.errors import UserError
from lightleak.files import publish
from lightleak.models.classifier import Classifier, load, save
from lightleak.models.zoo import build
from lightleak.priors.fit.state import State, fingerprint, update

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
        wrong = [f"{name} must be at least {low}, not {getattr(self, name)}"
                 for name, low in {"epochs": 1, "batch": 2, "momentum": 0, "decay": 0, "checkpoint_every": 1}.items()
                 if getattr(self, name) < low]  # fmt: skip
        above = {name: getattr(self, name) for name in ("rate", "temperature")}
        wrong += [f"{name} must be above 0, not {value}" for name, value in above.items() if value <= 0]
        if wrong:
            raise UserError("; ".join(wrong))


# Two small students without a download, for two cores.
SMALL = Distillation(students=("timm:resnet10t", "timm:resnet14t"), pretrained=False, batch=32)


@dataclass(frozen=True, eq=False)
class Knowledge:
    """Students of a target, and where its features of public images lie."""

    students: tuple[Classifier, ...]
    mean: Tensor  # D: of the target's penultimate features
    spread: Tensor  # D: their standard deviation
    agreement: tuple[float, ...]  # share of public images on which each student names the target's class
    queries: int = 0  # images shown to the target

    def save(self, folder: str | Path) -> None:
        """Write one checkpoint for each student, and the features, each whole or not at all."""
        folder = Path(folder)
        for number, student in enumerate(self.students):
            save(student, folder / f"student-{number}.safetensors")
        about = {"students": len(self.students), "agreement": self.agreement, "queries": self.queries}
        tensors = {"mean": self.mean.cpu().contiguous(), "spread": self.spread.cpu().contiguous()}
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
                mean, spread = file.get_tensor("mean"), file.get_tensor("spread")
            count, agreement, queries = about["students"], tuple(about["agreement"]), about["queries"]
        except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise UserError(f"{folder / FEATURES} holds no knowledge of Lightleak ({error}); learn it again") from error
        students = tuple(load(folder / f"student-{number}.safetensors") for number in range(count))
        return cls(students, mean, spread, agreement, queries)


def learn(
    oracle: Oracle,
    images: Images,
    settings: Distillation,
    rng: torch.Generator,
    folder: Path | None = None,
    watch: Callable[..., None] | None = None,
) -> Knowledge:
    """What public images tell of a target; with a folder, training goes on from the checkpoints in it.

    `watch(step, total, divergence=...)` hears each step of all students together.
    """
    if len(images) < 2:
        raise UserError(f"students need public images to learn from, got {len(images)}")
    before, seed = oracle.queries, seed_of(rng)
    # 1. ask the target about every public image once
    with torch.no_grad():
        asked = [oracle.features(images.floats(part)) for part in torch.arange(len(images)).split(256)]
    features, logits = (torch.cat(parts) for parts in zip(*asked, strict=True))
    # 2. where its features lie
    mean, spread = features.mean(0), features.std(0)
    # 3. students that answer as it does
    each = settings.epochs * _batches(images, settings)
    students, agreement = [], []
    for number, name in enumerate(settings.students):

        def tell(step: int, done: int = number * each, **numbers: float) -> None:
            if watch:
                watch(done + step, len(settings.students) * each, **numbers)

        place = None if folder is None else Path(folder) / f"student-{number}"
        student = _taught(name, number, images, logits, settings, seed, place, tell)
        students.append(student)
        with torch.no_grad():
            named = [student(images.floats(part)).argmax(1) for part in torch.arange(len(images)).split(256)]
        agreement.append(float((torch.cat(named) == logits.argmax(1)).double().mean()))
    return Knowledge(tuple(students), mean, spread, tuple(agreement), oracle.queries - before)


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher, student) of softened answers (logits N x C), mean over images, over the temperature's square."""
    theirs, ours = (teacher / temperature).log_softmax(1), (student / temperature).log_softmax(1)
    return F.kl_div(ours, theirs, reduction="batchmean", log_target=True) / temperature**2


def _taught(
    name: str,
    number: int,
    images: Images,
    logits: Tensor,
    settings: Distillation,
    seed: int,
    folder: Path | None,
    tell: Callable[..., None],
) -> Classifier:
    """Step 3 for one student: minimise the divergence from the target's answers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(keyed(seed, number, 0)))
        built = build(name, logits.shape[1], images.size, pretrained=settings.pretrained)
    # Students see images in [0, 1] as they are, and their last layer without dropout.
    student = Classifier(
        built.net, size=images.size, classes=built.classes, architecture=name, mean=(0.0,) * 3, std=(1.0,) * 3
    ).train()
    for module in student.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    optimiser = torch.optim.SGD(
        student.parameters(), settings.rate, momentum=settings.momentum, weight_decay=settings.decay
    )
    digest = sha256(images.pixels.contiguous().numpy().tobytes()).hexdigest()[:16]
    about = asdict(settings) | {"students": name, "seed": seed, "images": digest, "target": fingerprint(logits)}
    about.pop("checkpoint_every")
    state = State({"net": student.net}, {"sgd": optimiser}, keyed(seed, number, 1), folder, json.dumps(about))
    state.resume()
    each = _batches(images, settings)
    while state.step < settings.epochs * each:
        epoch, place = divmod(state.step, each)
        order = torch.randperm(len(images), generator=keyed(seed, number, 2 + epoch))
        chosen = order[place * settings.batch : (place + 1) * settings.batch]
        with torch.random.fork_rng(devices=[]):  # networks that drop whole branches draw from the global generator
            torch.manual_seed(seed_of(state.rng))
            loss = divergence(student(images.floats(chosen)), logits[chosen], settings.temperature)
            update(optimiser, loss)
        state.step += 1
        tell(state.step, divergence=float(loss.detach()))
        if state.step % settings.checkpoint_every == 0 or state.step == settings.epochs * each:
            state.keep()
    return student.eval()


def _batches(images: Images, settings: Distillation) -> int:
    """Batches of an epoch: a rest that would be a smaller one is left out, unless there is nothing else."""
    return max(1, len(images) // settings.batch)
