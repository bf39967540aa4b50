"""One model, one device: train, keep the best on validation images, resume after anything."""

import copy
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from lightleak.data.population import Images
from lightleak.data.views import uniform
from lightleak.errors import UserError
from lightleak.files import publish
from lightleak.models.classifier import Classifier
from lightleak.training.recipes import Recipe


class Watch(Protocol):
    """Called as long work goes on; the numbers are what a person would want to see."""

    def __call__(self, step: int, total: int, **numbers: float) -> None: ...


@dataclass(frozen=True)
class Batch:
    """What a loss may look at in one training step."""

    classifier: Classifier
    images: Tensor  # augmented, in [0, 1]
    labels: Tensor
    progress: float  # epochs done over epochs in all, in [0, 1)


Loss = Callable[[Batch], Tensor]
Change = Callable[[Classifier], Classifier]


def cross_entropy(batch: Batch) -> Tensor:
    """The plain objective."""
    return F.cross_entropy(batch.classifier(batch.images), batch.labels)


@dataclass(frozen=True)
class Term:
    """What a defence measures in the loss's own forward pass and adds to the loss; every epoch's means are recorded."""

    weights: dict[str, float]  # quantity -> its weight in the loss; the names of different terms differ
    layers: Callable[[Classifier], Sequence[str]]  # the modules of the network whose outputs it reads
    measure: Callable[[Batch, list[Tensor]], dict[str, Tensor]]  # (batch, those outputs) -> quantities, unweighted
    by_image: bool = False  # whether each quantity is a mean over images of what every image alone decides


Objective = Callable[[Tensor], Tensor]  # indices of images -> their mean loss, to be differentiated
Step = Callable[[Objective, Tensor], float]  # (objective, indices of a batch) -> the loss, after one step of descent


class Mechanism(Protocol):
    """How batches are drawn and how a step is made of their losses; a defence may bring its own."""

    def draws(self, rng: torch.Generator) -> Iterable[Tensor]:
        """The indices of the images of each step of one epoch."""
        ...

    def check(self, classifier: Classifier, loss: Loss, batch: Batch) -> None:
        """UserError if this network, in the modes it is trained in, cannot be trained so; tried on a few images."""
        ...

    def stepping(self, classifier: Classifier, optimiser: torch.optim.Optimizer) -> AbstractContextManager[Step]:
        """Makes steps of the optimiser while it is open."""
        ...

    def spent(self) -> dict[str, Any]:
        """What the whole run costs beside time, as JSON data for the record."""
        ...


@dataclass(frozen=True)
class Plain:
    """Batches in a random order, and the gradient of their mean loss."""

    images: int
    size: int  # of a batch
    steps: int  # of an epoch
    epochs: int

    def draws(self, rng: torch.Generator) -> Iterator[Tensor]:
        """Whole batches of one or several passes through all images."""
        passes = -(-self.steps // (self.images // self.size))
        order = torch.cat([torch.randperm(self.images, generator=rng) for _ in range(passes)])
        for step in range(self.steps):
            yield order[step * self.size : (step + 1) * self.size]

    def check(self, classifier: Classifier, loss: Loss, batch: Batch) -> None:
        """Whatever has a gradient will do."""

    def stepping(self, classifier: Classifier, optimiser: torch.optim.Optimizer) -> AbstractContextManager[Step]:  # noqa: ARG002
        """Ordinary steps."""

        def step(objective: Objective, index: Tensor) -> float:
            loss = objective(index)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            return float(loss.detach())

        return nullcontext(step)

    def spent(self) -> dict[str, Any]:
        """Nothing."""
        return {}


@dataclass(frozen=True)
class Plan:
    """What a defence does to plain training; several plans compose with `combine`."""

    changes: tuple[tuple[int, Change], ...] = ()  # (epoch, change): before it the network becomes change(network)
    loss: Loss | None = None  # in place of cross-entropy, a mean over images as well; at most one defence may set it
    terms: tuple[Term, ...] = ()  # beside it
    mechanism: Callable[[int, int, int, int], Mechanism] | None = None  # of (images, batch, steps an epoch, epochs)
    exact: bool = False  # whether it must be computed in float32: bfloat16 would round away what it promises


def combine(plans: dict[str, Plan]) -> Plan:
    """One plan of several, by defence name, changes in order of epoch; UserError if two cannot go together."""
    for part, what in (("loss", "replace the training loss"), ("mechanism", "make the steps of training")):
        rivals = [name for name, plan in plans.items() if getattr(plan, part) is not None]
        if len(rivals) > 1:
            raise UserError(f"{' and '.join(rivals)} each {what} and cannot be combined; choose one")
    private = [name for name, plan in plans.items() if plan.mechanism is not None]
    joint = [name for name, plan in plans.items() if any(not term.by_image for term in plan.terms)]
    if private and joint:
        raise UserError(
            f"{private[0]} bounds what each image alone adds to a gradient, but {joint[0]} compares the images of a "
            f"batch; combine {private[0]} with what changes the network or treats each image alone: RoLSS, RoLSS+, "
            "SSF, TTS, MID, NegLS, TL-DMI"
        )
    # Of equal epochs, what private training needs is done last: to the network as the others leave it.
    order = sorted(plans.values(), key=lambda plan: plan.mechanism is not None)
    changes = sorted((change for plan in order for change in plan.changes), key=lambda change: change[0])
    return Plan(
        tuple(changes),
        next((plan.loss for plan in plans.values() if plan.loss is not None), None),
        tuple(term for plan in plans.values() for term in plan.terms),
        next((plan.mechanism for plan in plans.values() if plan.mechanism is not None), None),
        any(plan.exact for plan in plans.values()),
    )


@dataclass(frozen=True)
class Moment:
    """When training leaves a copy behind: after an epoch, or where validation accuracy came nearest to a value."""

    epoch: int | None = None  # 1 is after the first
    accuracy: float | None = None

    def __post_init__(self) -> None:
        if (self.epoch is None) == (self.accuracy is None):
            raise UserError("a moment is an epoch or a validation accuracy, one of the two")
        if self.accuracy is not None and not 0 < self.accuracy <= 1:
            raise UserError(f"the accuracy of a moment is a share in (0, 1], not {self.accuracy}")
        if self.epoch is not None and self.epoch < 1:
            raise UserError(f"the epochs of a moment count from 1, not {self.epoch}")

    def __str__(self) -> str:
        return f"epoch {self.epoch}" if self.accuracy is None else f"accuracy {100 * self.accuracy:g} %"

    def reached(self, validation: Sequence[float], epoch: int) -> bool:
        """Whether a copy is due now, after `epoch` epochs, of which the last ones had these accuracies."""
        if self.accuracy is None:
            return epoch == self.epoch
        *before, now = [abs(value - self.accuracy) for value in validation]
        return not before or now < min(before)


def train(
    classifier: Classifier,
    images: Images,
    validation: Images,
    recipe: Recipe,
    plan: Plan = Plan(),
    *,
    seed: int = 0,
    folder: Path | None = None,
    watch: Watch | None = None,
    moments: Sequence[Moment] = (),
    keep: Callable[[int, Classifier], None] | None = None,
) -> Classifier:
    """Train `classifier`; its best epoch on `validation` (or its last) in eval mode, with the record of the run.

    The test images have no part in it: choosing the best epoch on them, as published code does, flatters natural
    accuracy. Modules whose parameters are all frozen stay in eval mode, so that their running statistics are frozen
    too. With a `folder`, the state is stored there after each epoch, and a later call with the same arguments
    continues to the same result, bit for bit. Equal validation accuracies are decided by the lower validation loss.
    `keep(i, copy)` gets the network at each of the `moments`; a later copy of the same i is nearer to its accuracy.
    """
    if len(images) < 2:
        raise UserError(f"training needs at least two images (batch norm does), got {len(images)}")
    settled = max((epoch for epoch, _ in plan.changes), default=0)  # from here on it is the network that is returned
    early = [moment for moment in moments if moment.epoch is not None and not settled < moment.epoch <= recipe.epochs]
    if early:
        raise UserError(f"checkpoints can be kept after epochs {settled + 1} to {recipe.epochs}, not {early[0].epoch}")
    device = classifier.device
    began = time.monotonic()
    learnt_before = {name: value for name, value in classifier.record.items() if name == "pretraining"}
    todo = list(plan.changes)
    classifier = _rebuilt(classifier, todo, 0, seed)
    optimiser = optimiser_of(classifier, recipe)
    state = _State()
    if folder is not None and (folder / "epoch.json").is_file():
        epoch = json.loads((folder / "epoch.json").read_text())["epoch"]
        classifier = _rebuilt(classifier, todo, epoch - 1, seed)  # a change due now comes with the carrying over below
        optimiser = optimiser_of(classifier, recipe)
        state.restore(folder, classifier, optimiser)
    mechanism = mechanism_of(plan, recipe, len(images))

    def record() -> dict[str, Any]:
        spent = mechanism.spent()
        return {
            "recipe": asdict(recipe),
            "seed": seed,
            "best_epoch": state.best_epoch + 1,
            "validation_accuracy": state.best_score[0],
            "history": list(state.history),
            "images": len(images),
            "seconds": round(state.seconds + time.monotonic() - began, 2),
            "precision": "bfloat16" if bfloat16(plan, recipe, device) else "float32",
            **learnt_before,
            **({"privacy": spent} if spent else {}),
        }

    if state.epoch < recipe.epochs:
        check(classifier, images, plan, mechanism, state.epoch / recipe.epochs)
    for epoch in range(state.epoch, recipe.epochs):
        if todo and todo[0][0] <= epoch:
            before, old = optimiser, dict(classifier.net.named_parameters())
            classifier = _rebuilt(classifier, todo, epoch, seed)
            optimiser = optimiser_of(classifier, recipe)
            _carry(before, old, optimiser, classifier.net)
            check(classifier, images, plan, mechanism, epoch / recipe.epochs)
            state.best = {}  # an earlier network is another network; the best is chosen among the final ones
            state.best_score = (-1.0, 0.0)
        means = one_epoch(classifier, optimiser, images, recipe, plan, mechanism, epoch, seed)
        right, loss_there = accuracy_and_loss(classifier, validation)
        measured = {name: value for name, value in means.items() if name != "loss"}
        state.history.append({"loss": means["loss"], "validation": right, "validation_loss": loss_there, **measured})
        state.epoch = epoch + 1
        if (recipe.keep == "last" and math.isfinite(loss_there)) or (right, -loss_there) > state.best_score:
            state.best_score = (right, -loss_there)
            state.best = {name: value.detach().clone() for name, value in classifier.net.state_dict().items()}
            state.best_epoch = epoch
        if watch:
            watch(epoch + 1, recipe.epochs, loss=means["loss"], validation=right)
        if not todo:
            seen = [entry["validation"] for entry in state.history[settled:]]
            for place, moment in enumerate(moments):
                if keep and moment.reached(seen, epoch + 1):
                    copied = classifier.with_net(copy.deepcopy(classifier.net)).eval()
                    copied.record = {**record(), "epoch": epoch + 1, "validation_accuracy": right}
                    keep(place, copied)
        if folder is not None:
            state.seconds += time.monotonic() - began
            began = time.monotonic()
            state.store(folder, classifier, optimiser)
    if not state.best:
        raise UserError("training diverged: the validation loss was never a number; lower the rate")
    classifier.net.load_state_dict(state.best)
    classifier.record = record()
    return classifier.eval()


def mechanism_of(plan: Plan, recipe: Recipe, images: int) -> Mechanism:
    """How the steps of training on so many images are made: plainly, unless a defence brings its own way."""
    size = min(recipe.batch, images)
    return (plan.mechanism or Plain)(images, size, recipe.passes(images) * (images // size), recipe.epochs)


def phases(classifier: Classifier, plan: Plan, recipe: Recipe, seed: int = 0) -> list[tuple[int, Classifier]]:
    """The networks of a run in order, each with its number of epochs: one, but for defences that cut halfway."""
    begins = sorted({0, *(epoch for epoch, _ in plan.changes)})
    todo, networks = list(plan.changes), []
    for begin, end in zip(begins, [*begins[1:], recipe.epochs]):
        classifier = _rebuilt(classifier, todo, begin, seed)
        networks.append((end - begin, classifier.with_net(copy.deepcopy(classifier.net))))
    return networks


def one_epoch(
    classifier: Classifier,
    optimiser: torch.optim.Optimizer,
    images: Images,
    recipe: Recipe,
    plan: Plan,
    mechanism: Mechanism,
    epoch: int,
    seed: int = 0,
) -> dict[str, float]:
    """Train through one epoch (0-based); the means over its steps of the loss and of what the terms measure."""
    device = classifier.device
    lowered = bfloat16(plan, recipe, device)
    torch.manual_seed(_mix(seed, epoch))  # dropout and the like know no other source
    rng = torch.Generator().manual_seed(_mix(seed, epoch))
    for group in optimiser.param_groups:
        group["lr"] = recipe.rate_at(epoch)
    _train_mode(classifier)
    total, steps = 0.0, 0
    measured: dict[str, float] = {}

    def objective(index: Tensor) -> Tensor:
        pixels = recipe.view(images.floats(index).to(device), uniform(len(index), rng).to(device))
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        batch = Batch(classifier, pixels, images.labels[index].to(device), epoch / recipe.epochs)
        loss, quantities = measured_loss(plan, batch, lowered)
        for name, value in quantities.items():
            measured[name] = measured.get(name, 0.0) + value
        return loss

    with mechanism.stepping(classifier, optimiser) as step:
        for index in mechanism.draws(rng):
            total += step(objective, index)
            steps += 1
    return {"loss": total / steps} | {name: value / steps for name, value in measured.items()}


def measured_loss(plan: Plan, batch: Batch, lowered: bool = False) -> tuple[Tensor, dict[str, float]]:
    """The whole loss of a batch, in bfloat16 if `lowered`, and what each term of the plan measured in its pass."""
    layers = [tuple(term.layers(batch.classifier)) for term in plan.terms]
    quantities: dict[str, float] = {}
    with hidden(batch.classifier, sum(layers, ())) as outputs:
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=lowered):
            loss = (plan.loss or cross_entropy)(batch)
        for term, names in zip(plan.terms, layers):
            for name, value in term.measure(batch, [outputs[layer] for layer in names]).items():
                loss = loss + term.weights[name] * value
                quantities[name] = float(value.detach())
    return loss, quantities


def check(classifier: Classifier, images: Images, plan: Plan, mechanism: Mechanism, progress: float = 0.0) -> None:
    """UserError if the mechanism cannot train this network: tried on four images before anything is trained."""
    index = torch.linspace(0, len(images) - 1, min(4, len(images))).long()
    _train_mode(classifier)
    mechanism.check(
        classifier,
        lambda batch: measured_loss(plan, batch)[0],
        Batch(
            classifier,
            images.floats(index).to(classifier.device),
            images.labels[index].to(classifier.device),
            progress,
        ),
    )


def bfloat16(plan: Plan, recipe: Recipe, device: torch.device) -> bool:
    """Whether training runs in bfloat16; UserError if the recipe asks for it and the plan forbids it."""
    if plan.exact and recipe.precision == "bfloat16":
        raise UserError("this defence is computed in float32: bfloat16 rounds away what it promises; precision float32")
    return not plan.exact and precision(recipe, device)


def precision(recipe: Recipe, device: torch.device) -> bool:
    """Whether to compute in bfloat16: as the recipe says, or where the device has instructions for it."""
    if recipe.precision != "auto":
        return recipe.precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


@torch.no_grad()
def predict(classifier: nn.Module, images: Images, batch: int = 256) -> Tensor:
    """Logits of all images in eval mode, N x classes; every module gets its mode back."""
    modes = [(module, module.training) for module in classifier.modules()]
    classifier.eval()
    device = next(classifier.parameters()).device
    logits = [
        classifier(images.floats(slice(i, i + batch)).to(device)).float().cpu() for i in range(0, len(images), batch)
    ]
    for module, training in modes:
        module.training = training
    return torch.cat(logits)


def accuracy_and_loss(classifier: nn.Module, images: Images) -> tuple[float, float]:
    """Share of images whose largest logit is their class, and the mean cross-entropy."""
    logits = predict(classifier, images)
    return float((logits.argmax(1) == images.labels).double().mean()), float(F.cross_entropy(logits, images.labels))


@contextmanager
def hidden(classifier: Classifier, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """What the named modules of the network give while this is open; the last call of each counts."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: outputs.update({name: output})

    handles = [classifier.net.get_submodule(name).register_forward_hook(keep(name)) for name in set(names)]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _train_mode(classifier: Classifier) -> None:
    """Train mode, but for what is frozen: batch norm would adapt its statistics there, dropout would stay random."""
    classifier.train()
    for module in classifier.modules():
        wanted = [parameter.requires_grad for parameter in module.parameters()]
        if wanted and not any(wanted):
            module.eval()


def _rebuilt(classifier: Classifier, todo: list[tuple[int, Change]], epoch: int, seed: int) -> Classifier:
    """The network after every change that is due; done ones leave the list."""
    while todo and todo[0][0] <= epoch:
        due, change = todo.pop(0)
        torch.manual_seed(_mix(seed, due))  # a change may add layers
        classifier = change(classifier)
    return classifier.with_net(classifier.net.to(memory_format=torch.channels_last))  # pyright: ignore[reportCallIssue]


def optimiser_of(classifier: Classifier, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over what is not frozen."""
    parameters = [p for p in classifier.net.parameters() if p.requires_grad]
    if not parameters:
        raise UserError(
            f"every parameter of {classifier.architecture or type(classifier.net).__name__} is frozen, so there is "
            "nothing to train; call net.requires_grad_(True), or freeze a smaller share"
        )
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(parameters, recipe.rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    kind = torch.optim.AdamW if recipe.optimiser == "adamw" else torch.optim.Adam
    return kind(parameters, recipe.rate, weight_decay=recipe.weight_decay)


def _carry(before: torch.optim.Optimizer, old: dict, after: torch.optim.Optimizer, net: nn.Module) -> None:
    """Let parameters of the same name and shape keep their optimiser state: one optimiser runs through a change."""
    for name, parameter in net.named_parameters():
        if name in old and old[name] in before.state and old[name].shape == parameter.shape:
            after.state[parameter] = before.state[old[name]]


def _mix(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch * 7919 + 12_345) % 2**63


class _State:
    """What must survive a stop: weights, optimiser, best weights, history."""

    def __init__(self) -> None:
        self.epoch = 0
        self.best: dict[str, Tensor] = {}
        self.best_score = (-1.0, 0.0)
        self.best_epoch = 0
        self.history: list[dict[str, float]] = []
        self.seconds = 0.0

    def store(self, folder: Path, classifier: Classifier, optimiser: torch.optim.Optimizer) -> None:
        tensors = {f"net.{name}": value for name, value in classifier.net.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for index, values in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": torch.as_tensor(value) for name, value in values.items()}
        summary: dict[str, Any] = {
            "epoch": self.epoch,
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "history": self.history,
            "seconds": self.seconds,
            "weights": f"epoch-{self.epoch}.safetensors",
        }
        folder.mkdir(parents=True, exist_ok=True)
        # The weights of this epoch lie whole on the disk before the one file that names them is exchanged.
        save_file(
            {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()},
            folder / summary["weights"],
        )
        publish(folder / "epoch.json", lambda part: part.write_text(json.dumps(summary)), "the training state")
        for stale in folder.glob("epoch-*.safetensors"):
            if stale.name != summary["weights"]:
                stale.unlink()

    def restore(self, folder: Path, classifier: Classifier, optimiser: torch.optim.Optimizer) -> None:
        summary = json.loads((folder / "epoch.json").read_text())
        try:
            tensors = load_file(folder / summary["weights"])
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"the stored training state in {folder} is damaged ({error}); delete that folder"
            ) from error
        self.epoch, self.best_epoch = summary["epoch"], summary["best_epoch"]
        self.best_score = tuple(summary["best_score"])
        self.history, self.seconds = summary["history"], summary["seconds"]
        part = {kind: {} for kind in ("net", "best", "optimiser")}
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            part[kind][rest] = value
        classifier.net.load_state_dict(part["net"])
        self.best = part["best"]
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in part["optimiser"].items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = value
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
