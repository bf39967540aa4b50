"""One model, one device: train, keep the best on validation images, resume after anything."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightleak import randomness
from lightleak.data.population import Images
from lightleak.data.views import uniform
from lightleak.errors import UserError
from lightleak.fingerprint import fingerprint
from lightleak.models.classifier import Classifier
from lightleak.place import Place, batch_of, in_pieces
from lightleak.place import lowered as computed_in
from lightleak.ranking import answers
from lightleak.surgery.copies import copied
from lightleak.training.plan import (
    UNDEFENDED,
    Batch,
    Change,
    CheckpointCriterion,
    Companion,
    Mechanism,
    Objective,
    Plain,
    Plan,
    Step,
    Term,
    Tuning,
    combine,
    cross_entropy,
    mechanism_of,
)
from lightleak.training.recipes import Recipe
from lightleak.training.state import State


class Watch(Protocol):
    """Called while long work is in progress; the numbers are for a person to watch."""

    def __call__(self, step: int, total: int, **numbers: float) -> None: ...


def train(
    classifier: Classifier,
    images: Images,
    validation: Images,
    recipe: Recipe,
    plan: Plan = UNDEFENDED,
    *,
    seed: int = 0,
    folder: Path | None = None,
    watch: Watch | None = None,
    moments: Sequence[CheckpointCriterion] = (),
    keep: Callable[[int, Classifier], None] | None = None,
) -> Classifier:
    """Train `classifier` and return it as of its best epoch on `validation` (or its last), in eval mode, with a record.

    The test images have no part in it: choosing the best epoch on them, as published code does, flatters natural
    accuracy. Modules whose parameters are all frozen stay in eval mode, so that their running statistics are frozen
    too. With a `folder`, the state is stored there after each epoch, and a later call with the same arguments
    continues to the same result, bit for bit; with any other arguments it is refused. Equal validation accuracies are
    decided by the lower validation loss. `keep(i, copy)` gets the network at each of the `moments`; a later copy of
    the same i is nearer to its accuracy. The global random generators stay as they are. UserError if the training
    diverges, or the folder cannot be written.
    """
    _check_labels(classifier, images, validation)
    settled = _settled(images, validation, recipe, plan, moments)
    made = {} if folder is None else _made(classifier, images, validation, recipe, plan, seed, moments)
    state = State(folder, made)
    device = classifier.device
    images, validation = images.on(device), validation.on(device)
    mechanism = mechanism_of(plan, recipe, len(images))
    tuned = sum(tuning.recipe.epochs for tuning in plan.tuning)
    settings = _settings(classifier, len(images), recipe, plan, seed)

    def delivered(trained: Classifier, score: float, **more: Any) -> Classifier:
        """What leaves training: after the plan's last changes, with the record of the run until now."""
        for change in (*([companion.finish] if companion else []), *plan.after):
            trained = _changed(trained, change, epoch_seed(seed, recipe.epochs))
        if plan.after:
            score = accuracy_and_loss(trained, validation)[0]
        run = {"best_epoch": state.best_epoch + 1, "validation_accuracy": score, "history": list(state.history)}
        spent = mechanism.spent()
        trained.record = {**settings, **run, "seconds": round(state.seconds, 2), **more}
        trained.record |= {"privacy": spent} if spent else {}
        frozen = [name for name, parameter in trained.net.named_parameters() if not parameter.requires_grad]
        trained.record |= {"frozen": frozen} if frozen else {}
        return trained.eval()

    todo = list(plan.changes)
    classifier = _rebuilt(classifier, todo, max(0, state.epoch - 1), seed)  # a change due now is carried over below
    optimiser = optimiser_of(classifier, recipe)
    state.restore(classifier, optimiser)
    companion = None if plan.companion is None else _companion(plan.companion, classifier, seed, state)
    if state.epoch < recipe.epochs:
        check(classifier, images, plan, mechanism, state.epoch / recipe.epochs)
    for epoch in range(state.epoch, recipe.epochs):
        if todo and todo[0][0] <= epoch:
            classifier, optimiser = _exchanged(classifier, optimiser, recipe, todo, epoch, seed)
            check(classifier, images, plan, mechanism, epoch / recipe.epochs)
            state.forget()  # an earlier network is another network; the best is chosen among the final ones
        with batch_of(min(recipe.batch, len(images)), "--recipe.batch", device):
            means = one_epoch(classifier, optimiser, images, recipe, plan, mechanism, epoch, seed, companion)
        right, loss_there = accuracy_and_loss(classifier, validation)
        _check_finite(classifier, {**means, "validation loss": loss_there}, epoch)
        state.history.append({"loss": means["loss"], "validation": right, "validation_loss": loss_there, **means})
        state.epoch = epoch + 1
        beside = companion.state() if companion else {}
        state.consider(epoch, (right, -loss_there), classifier, recipe.keep == "last", beside)
        if watch:
            watch(epoch + 1, recipe.epochs + tuned, loss=means["loss"], validation=right)
        if not todo and keep and not plan.tuning:
            seen = [entry["validation"] for entry in state.history[settled:]]
            for place in [place for place, moment in enumerate(moments) if moment.reached(seen, epoch + 1)]:
                keep(place, delivered(classifier.with_net(copied(classifier.net)), right, epoch=epoch + 1))
        state.store(classifier, optimiser, beside)
    classifier.net.load_state_dict(state.best)
    if companion:
        companion.restore(state.beside)
    if plan.tuning:
        return _tuned(classifier, images, validation, plan, recipe, delivered, seed, folder, watch, moments, keep)
    return delivered(classifier, state.best_score[0])


LASTING = ("pretraining", "start", "overlap")  # what a record says of the weights that a run begins with


def _settings(classifier: Classifier, images: int, recipe: Recipe, plan: Plan, seed: int) -> dict[str, Any]:
    """What the record of a run says of how it was made."""
    return {
        "recipe": asdict(recipe),
        "seed": seed,
        "images": images,
        "precision": "bfloat16" if bfloat16(plan, recipe, classifier.device) else "float32",
        "device": Place(classifier.device).name,
        **{name: value for name, value in classifier.record.items() if name in LASTING},
        **({"defences": list(plan.names)} if plan.names else {}),
        **({"defence_settings": dict(plan.settings)} if plan.settings else {}),
    }


def _companion(make: Callable[[Classifier], Companion], classifier: Classifier, seed: int, state: State) -> Companion:
    """What a plan trains beside the network, as the kept state left it."""
    with randomness.own(epoch_seed(seed, 0), classifier.device):
        companion = make(classifier)
    if state.epoch:
        companion.restore(state.companion)
    return companion


def _tuned(
    classifier: Classifier,
    images: Images,
    validation: Images,
    plan: Plan,
    recipe: Recipe,
    delivered: Callable[..., Classifier],
    seed: int,
    folder: Path | None,
    watch: Watch | None,
    moments: Sequence[CheckpointCriterion],
    keep: Callable[[int, Classifier], None] | None,
) -> Classifier:
    """The network after the plan's further training; copies at accuracies are of the last part of it."""
    done, total = recipe.epochs, recipe.epochs + sum(tuning.recipe.epochs for tuning in plan.tuning)
    records: list[dict[str, Any]] = []

    def with_records(trained: Classifier, score: float, **more: Any) -> Classifier:
        return delivered(trained, score, tuning=[*records], **more)

    for place, tuning in enumerate(plan.tuning):
        last = place == len(plan.tuning) - 1

        def kept(at: int, copy: Classifier) -> None:
            if keep:
                keep(
                    at,
                    with_records(copy, copy.record["validation_accuracy"], epoch=recipe.epochs + copy.record["epoch"]),
                )

        classifier = train(
            classifier,
            images,
            validation,
            tuning.recipe,
            Plan(loss=tuning.loss, exact=plan.exact),
            seed=seed + 1 + place,
            folder=None if folder is None else folder / f"tuning-{place}",
            watch=watch and _onwards(watch, done, total),
            moments=moments if last else (),
            keep=kept if last else None,
        )
        records.append({name: classifier.record[name] for name in ("recipe", "history", "seconds")})
        done += tuning.recipe.epochs
    return with_records(classifier, classifier.record["validation_accuracy"])


def _onwards(watch: Watch, done: int, whole: int) -> Watch:
    """The same watch for a part of the work that begins after `done` of the `whole`."""

    def seen(step: int, total: int, **numbers: float) -> None:  # noqa: ARG001
        watch(done + step, whole, **numbers)

    return seen


def _settled(
    images: Images, validation: Images, recipe: Recipe, plan: Plan, moments: Sequence[CheckpointCriterion]
) -> int:
    """The epoch from which on it is the network that is returned; UserError for what cannot be trained."""
    if len(images) < 2:
        raise UserError(f"training needs at least two images (batch norm does), got {len(images)}")
    if not len(validation):
        raise UserError("training needs validation images to choose its best epoch, got none")
    settled = max((epoch for epoch, _ in plan.changes), default=0)
    timed = [moment for moment in moments if moment.epoch is not None]
    if timed and plan.tuning:
        raise UserError("with training that goes on after its epochs, copies are kept at accuracies, not at epochs")
    early = [moment for moment in timed if not settled < (moment.epoch or 0) <= recipe.epochs]
    if early:
        raise UserError(f"checkpoints can be kept after epochs {settled + 1} to {recipe.epochs}, not {early[0].epoch}")
    return settled


def _made(
    classifier: Classifier,
    images: Images,
    validation: Images,
    recipe: Recipe,
    plan: Plan,
    seed: int,
    moments: Sequence[CheckpointCriterion],
) -> dict[str, str]:
    """All that decides the result of a training, by name."""
    frame = {name: value for name, value in classifier.recipe.items() if name not in ("record", "class_names")}
    return {
        "network": fingerprint(frame, [(name, type(m), m.extra_repr()) for name, m in classifier.net.named_modules()]),
        "weights": fingerprint(
            dict(classifier.net.state_dict()), [(n, p.requires_grad) for n, p in classifier.net.named_parameters()]
        ),
        "recipe": fingerprint(recipe),
        "images": fingerprint(images.pixels),
        "labels": fingerprint(images.labels),
        "validation images": fingerprint(validation.pixels, validation.labels),
        "defences": fingerprint(plan),
        "seed": fingerprint(seed),
        "precision": fingerprint(bfloat16(plan, recipe, classifier.device)),
        "checkpoints": fingerprint(tuple(moments)),
    }


def _check_labels(classifier: Classifier, *parts: Images) -> None:
    """UserError if there are more people in the images than the network has classes for."""
    labels = torch.cat([part.labels for part in parts])
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classifier.classes:
        raise UserError(
            f"the network has classes 0 to {classifier.classes - 1}, and the images show {int(labels.min())} to "
            f"{int(labels.max())}; build it for {int(labels.max()) + 1} classes"
        )


def _check_finite(classifier: Classifier, numbers: dict[str, float], epoch: int) -> None:
    """UserError if an epoch left anything that is no number: nothing recovers from that."""
    wrong = [name for name, value in numbers.items() if not math.isfinite(value)]
    wrong += [f"weights {name}" for name, p in classifier.net.named_parameters() if not p.isfinite().all()][:1]
    if wrong:
        raise UserError(
            f"training diverged in epoch {epoch + 1}: no finite number any more in {', '.join(wrong)}; lower the rate"
        )


def phases(classifier: Classifier, plan: Plan, recipe: Recipe, seed: int = 0) -> list[tuple[int, Classifier]]:
    """The networks of a run in order, each with its number of epochs; more than one only if a defence cuts halfway."""
    begins = sorted({0, *(epoch for epoch, _ in plan.changes)})
    todo, networks = list(plan.changes), []
    for begin, end in zip(begins, [*begins[1:], recipe.epochs]):
        classifier = _rebuilt(classifier, todo, begin, seed)
        networks.append((end - begin, classifier.with_net(copied(classifier.net))))
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
    companion: Companion | None = None,
) -> dict[str, float]:
    """Train through one epoch (0-based); the means over its steps of the loss and of what the terms measure."""
    device = classifier.device
    lowered = bfloat16(plan, recipe, device)
    rng = torch.Generator().manual_seed(epoch_seed(seed, epoch))
    for group in optimiser.param_groups:
        group["lr"] = recipe.rate_at(epoch)
    _train_mode(classifier)
    losses: list[Tensor | float] = []  # on a card, nothing is waited for before the epoch ends
    measured: dict[str, list[Tensor]] = {}

    layout = layout_of(classifier.net, device)

    def objective(index: Tensor) -> Tensor:
        pixels = recipe.view(images.floats(index, device), uniform(len(index), rng).to(device))
        for view in plan.views:
            pixels = view(pixels)
        pixels = pixels.contiguous(memory_format=layout)
        batch = Batch(classifier, pixels, images.labelled(index, device), epoch / recipe.epochs)
        loss, quantities = measured_loss(plan, batch, lowered, companion)
        for name, value in quantities.items():
            measured.setdefault(name, []).append(value)
        return loss

    # Dropout and the like know no source but the global one.
    with randomness.own(epoch_seed(seed, epoch), device), mechanism.stepping(classifier, optimiser) as step:
        for index in mechanism.draws(rng):
            losses.append(step(objective, index))
    steps = len(losses)
    return {name: sum(map(float, values)) / steps for name, values in ({"loss": losses} | measured).items()}


def measured_loss(
    plan: Plan, batch: Batch, lowered: bool = False, companion: Companion | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The whole loss of a batch, in bfloat16 if `lowered`, and what each term of the plan measured in its pass.

    Of a pass of more images than the batch has, the batch's own are the first.
    """
    layers = [tuple(term.layers(batch.classifier)) for term in plan.terms]
    quantities: dict[str, Tensor] = {}
    with hidden(batch.classifier, sum(layers, ())) as outputs:
        with computed_in("bfloat16" if lowered else "float32", batch.images.device):
            loss = (companion.loss if companion else plan.loss or cross_entropy)(batch)
        for term, names in zip(plan.terms, layers):
            for name, value in term.measure(batch, [outputs[layer][: len(batch.images)] for layer in names]).items():
                loss = loss + term.weights[name] * value
                quantities[name] = value.detach()
    return loss, quantities


def layout_of(net: nn.Module, device: torch.device) -> torch.memory_format:
    """Channels last, which is faster, but where torch 2.13 ends the process in the backward pass on a processor.

    RepVGG's stem has such a layer, and so have very narrow residual networks; in contiguous order the same is computed
    rightly.
    """
    fatal = any(
        isinstance(one, nn.Conv2d) and one.kernel_size == (1, 1) and max(one.stride) > 1 and one.in_channels < 16
        for one in net.modules()
    )
    return torch.contiguous_format if fatal and device.type == "cpu" else torch.channels_last


def check(classifier: Classifier, images: Images, plan: Plan, mechanism: Mechanism, progress: float = 0.0) -> None:
    """UserError if the mechanism cannot train this network: tried on four images before anything is trained."""
    index = torch.linspace(0, len(images) - 1, min(4, len(images))).long()
    _train_mode(classifier)
    mechanism.check(
        classifier,
        lambda batch: measured_loss(plan, batch)[0],
        Batch(
            classifier,
            images.floats(index, classifier.device),
            images.labelled(index, classifier.device),
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
    return Place(device).computes_bfloat16()


@torch.no_grad()
def predict(classifier: nn.Module, images: Images, batch: int = 256) -> Tensor:
    """Logits of all images in eval mode, N x classes; every module gets its mode back.

    What a network draws at random it draws alike in every call, and not from the global generators.
    """
    modes = [(module, module.training) for module in classifier.modules()]
    classifier.eval()
    device = next(classifier.parameters()).device
    with randomness.own(0, device):
        logits = in_pieces(lambda rows: classifier(images.floats(rows, device)).float().cpu(), len(images), batch)
    for module, training in modes:
        module.training = training
    return logits


def accuracy_and_loss(classifier: nn.Module, images: Images) -> tuple[float, float]:
    """Share of images whose largest logit is their class (no class where one is NaN), and the mean cross-entropy."""
    logits, labels = predict(classifier, images), images.labels.cpu()
    return float((answers(logits) == labels).double().mean()), float(F.cross_entropy(logits, labels))


@contextmanager
def hidden(classifier: Classifier, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """The outputs of the named modules while this context is open; each module's last call counts."""
    outputs: dict[str, Tensor] = {}

    def recorder(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: outputs.update({name: output})

    handles = [classifier.net.get_submodule(name).register_forward_hook(recorder(name)) for name in set(names)]
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
        classifier = _changed(classifier, change, epoch_seed(seed, due))
    return classifier.with_net(classifier.net.to(memory_format=layout_of(classifier.net, classifier.device)))  # pyright: ignore[reportCallIssue]


def _exchanged(
    classifier: Classifier,
    optimiser: torch.optim.Optimizer,
    recipe: Recipe,
    todo: list[tuple[int, Change]],
    epoch: int,
    seed: int,
) -> tuple[Classifier, torch.optim.Optimizer]:
    """The network after the changes that are due, and its optimiser, which goes on where parameters have stayed."""
    old = dict(classifier.net.named_parameters())
    changed = _rebuilt(classifier, todo, epoch, seed)
    fresh = optimiser_of(changed, recipe)
    _carry(optimiser, old, fresh, changed.net)
    return changed, fresh


def _changed(classifier: Classifier, change: Change, seed: int) -> Classifier:
    with randomness.own(seed, classifier.device):  # a change may add layers
        return change(classifier)


def optimiser_of(classifier: Classifier, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser for all parameters that are not frozen."""
    parameters = [p for p in classifier.net.parameters() if p.requires_grad]
    if not parameters:
        raise UserError(
            f"every parameter of {classifier.architecture or type(classifier.net).__name__} is frozen, so there is "
            "nothing to train; call net.requires_grad_(True), or freeze a smaller share"
        )
    return recipe.optimising(parameters)


def _carry(before: torch.optim.Optimizer, old: dict, after: torch.optim.Optimizer, net: nn.Module) -> None:
    """Let parameters of the same name and shape keep their optimiser state: one optimiser runs through a change."""
    for name, parameter in net.named_parameters():
        if name in old and old[name] in before.state and old[name].shape == parameter.shape:
            after.state[parameter] = before.state[old[name]]


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of an epoch."""
    return randomness.spread(seed, epoch * 7919 + 12_345) % 2**63


__all__ = [
    "Batch",
    "CheckpointCriterion",
    "Companion",
    "Mechanism",
    "Objective",
    "Plain",
    "Plan",
    "Step",
    "Term",
    "Tuning",
    "Watch",
    "accuracy_and_loss",
    "bfloat16",
    "check",
    "combine",
    "cross_entropy",
    "hidden",
    "measured_loss",
    "mechanism_of",
    "one_epoch",
    "optimiser_of",
    "phases",
    "precision",
    "predict",
    "train",
]
