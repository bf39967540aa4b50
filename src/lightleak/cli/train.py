"""`lightleak train`: train a classifier, with or without defences."""

import logging
import shutil
from pathlib import Path
from typing import Annotated

import tyro

from lightleak import defences, randomness
from lightleak.cli.arguments import (
    NOTHING,
    OVERLAP,
    Own,
    OwnNet,
    Settings,
    check_data,
    check_own,
    check_weights,
    computing,
    overlap,
    population_of,
    warn,
)
from lightleak.cli.kinds import Architecture, Count, Device, File, LikeRecipe, Seed, Source
from lightleak.data import Population
from lightleak.defences.lasting import lasting
from lightleak.errors import UserError
from lightleak.files import check_place
from lightleak.metrics.robustness import robust_accuracy
from lightleak.models import whose, zoo
from lightleak.models.classifier import Classifier, save
from lightleak.models.own import is_checkpoint, opened
from lightleak.models.own import own as own_network
from lightleak.terminal import bar, console
from lightleak.training import RECIPES, Recipe, accuracy_and_loss, train
from lightleak.training.loop import phases

log = logging.getLogger("lightleak")


@computing
def main(
    out: Path,
    data: Source = "faces",
    architecture: Architecture | None = None,
    defence: str = "none",
    recipe: Recipe = RECIPES["small"],
    like: LikeRecipe | None = None,
    seed: Seed = 0,
    judge: bool = False,
    size: Count | None = None,
    device: Device = "auto",  # noqa: ARG001
    settings: Settings = {},  # noqa: B006
    start: Annotated[Path | None, tyro.conf.arg(name="from")] = None,
    train_list: File | None = None,
    own: OwnNet = NOTHING,
) -> None:
    """Train a classifier, with or without defences, and save it as a checkpoint.

    Example: lightleak train --data faces --settings people 40 --defence rolss --out rolss.safetensors

    Example: lightleak train --net mymodel.py:make_model --from w.pt --data folder:photos --defence rolss --out cut.st

    Args:
        out: the checkpoint to write.
        data: faces, digits, folder:PATH, or a published set such as celeba:PATH.
        architecture: timm:NAME, torchvision:NAME or face:NAME; by default timm:resnet18.
        defence: none, or names separated by commas, with settings in brackets: "ssf(factor=0.5),bido".
        recipe: how to train.
        like: a recipe by name, such as rolss or ir152, in place of --recipe.
        seed: decides initial weights and the order of images.
        judge: train a judge instead, on the images that are set aside for it.
        size: pixels a side that the network sees; by default those of the images, or the only ones that it takes.
        device: auto (a GPU where there is one), cpu, cuda, cuda:N or mps.
        settings: of the data set's function.
        start: weights to go on from: a checkpoint, or with --net any file of your own network's.
        train_list: a file with the pictures that those weights were trained on, one a line: training goes on with them,
            all others choose and test.
        own: a network of your own in place of --architecture.
    """
    recipe = RECIPES[like] if like else recipe
    population = population_of(data, settings, train_list=train_list)
    chosen = defences.parse(defence)
    plan, public = defences.plan(chosen, recipe), defences.pretraining(chosen, recipe)
    if not population.classes:
        raise UserError(f"{data} has public images only; they train priors ('lightleak fit')")
    with randomness.own(seed):
        classifier = _untrained(architecture or USUAL, population, size, start, own)
    architecture = (architecture or USUAL) if own.net is None and start is None else "the network"
    left = lasting(classifier.record)
    plan = left.joined(plan)
    gone = [name for name in (*left.by_views, *left.by_freezing, *left.void, *left.undone) if name not in plan.names]
    if gone:
        log.warning(f"training undoes {', '.join(gone)}, which the network has; the result is recorded without")
    if any(epoch for epoch, _ in plan.changes):
        phases(classifier, plan, recipe, seed)  # what is refused at a later epoch is refused now
    begun = start or own.weights
    unsure = overlap(classifier, data, train_list, population) if begun else ""
    if unsure:
        warn(unsure)
    whose.name(classifier, population)
    images = population.judge if judge else population.train
    scratch = out.with_name(f".{out.name}.training")
    if public:
        with bar(f"train {architecture} on public images") as watch:
            classifier = defences.pretrain(classifier, population.public, public, seed, scratch / "public", watch)
    with bar(f"train {architecture}") as watch:
        trained = train(classifier, images, population.validation, recipe, plan, seed=seed, folder=scratch, watch=watch)
    trained.record |= {OVERLAP: unsure} if unsure else {}
    save(whose.name(trained, population), out)
    shutil.rmtree(scratch, ignore_errors=True)
    right, _ = accuracy_and_loss(trained, population.test)
    held = f", robust accuracy {robust_accuracy(trained, population.test):.1%} within 2/255" if plan.robust else ""
    console.print(f"natural accuracy {right:.1%}{held} on {len(population.test)} test images: {out}")


USUAL = "timm:resnet18"
EXAMPLE = "Example: lightleak train"
NAMES = ", ".join([*defences.DEFENCES, *defences.PRESETS])
main.__doc__ = str(main.__doc__).replace(EXAMPLE, f"Defences: {NAMES}.\n\n    {EXAMPLE}", 1)


def check_arguments(
    out: Path, data: str, architecture: str | None, defence: str, recipe: Recipe, like: str | None,
    settings: dict[str, str], size: int | None, start: Path | None, train_list: Path | None, own: Own,
) -> None:  # fmt: skip
    """UserError, before anything is read, for arguments that do not go together."""
    if like is not None and recipe != RECIPES["small"]:
        raise UserError("--like is a whole recipe: leave --recipe out, or leave --like out")
    if start is not None and own.weights is not None:
        raise UserError("--from and --weights are the same; give one of them")
    if own.net is None and own != NOTHING:
        raise UserError(
            "--weights, --entry, --mean, --std and --output are of a network of your own; name it with --net"
        )
    if train_list is not None and start is None and own.weights is None:
        raise UserError("--train-list is of weights that training goes on from; name them with --from")
    check_weights(start)
    check_own(own)
    file = start or own.weights
    if architecture is not None and (own.net is not None or file is not None):
        raise UserError(f"{'--net' if own.net else '--from'} says which network it is: leave --architecture out")
    if size is not None and file is not None and (own.net is None or is_checkpoint(file)):
        raise UserError(f"{file} says at how many pixels its network sees: leave --size out")
    defences.parse(defence)
    check_data(data, settings, train_list)
    check_place(out, "the checkpoint")


def _untrained(architecture: str, population: Population, size: int | None, start: Path | None, own: Own) -> Classifier:
    """The network that training begins with: by name, the user's own, or with the weights that it goes on from."""
    file = start or own.weights
    if own.net is None and file is None:
        return zoo.build(architecture, population.classes, size or zoo.only_size(architecture) or population.size)
    if own.net is None or (file is not None and is_checkpoint(file)):
        classifier = opened(
            own.net, file, mean=own.mean or None, std=own.std or None, entry=own.entry, output=own.output
        )
    else:
        classifier = own_network(
            own.net, file, size=size, classes=population.classes, mean=own.mean or None, std=own.std or None,
            entry=own.entry, output=own.output,
        )  # fmt: skip
    names, known = population.class_names, classifier.class_names
    if classifier.classes != population.classes:
        raise UserError(
            f"the network gives {classifier.classes} classes, the data have {population.classes} people; training goes "
            "on with the same people, or begin with a network for these"
        )
    if known and known != names and sorted(known) == sorted(names):
        raise UserError("the network knows the same people in another order; pass its order as the data's class names")
    return classifier
