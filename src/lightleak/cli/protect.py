"""`lightleak protect`: skip surgery on a trained network, and its recovery from the original."""

import shutil
from pathlib import Path

from rich.markup import escape

from lightleak import defences
from lightleak.cli.arguments import (
    NOTHING,
    OVERLAP,
    Own,
    OwnNet,
    Settings,
    check_data,
    check_network,
    classifier_of,
    computing,
    overlap,
    population_of,
    warn,
)
from lightleak.cli.kinds import Checkpoint, Count, Device, File, Seed, Share, Source
from lightleak.data.people import differ
from lightleak.defences.retrofit import protect, summary_lines
from lightleak.errors import UserError
from lightleak.files import check_place
from lightleak.models import whose
from lightleak.models.classifier import save
from lightleak.place import here
from lightleak.terminal import bar, console
from lightleak.training import accuracy_and_loss


@computing
def main(
    out: Path,
    target: Checkpoint | None = None,
    data: Source = "faces",
    defence: str = "rolss",
    keep_accuracy: Share | None = None,
    epochs: Count | None = None,
    seed: Seed = 0,
    device: Device = "auto",  # noqa: ARG001
    settings: Settings = {},  # noqa: B006
    train_list: File | None = None,
    size: Count | None = None,
    own: OwnNet = NOTHING,
) -> None:
    """Retrofit a trained classifier: skip surgery, then recovery by distillation from the original.

    Example: lightleak protect --target trained.safetensors --defence rolss --data folder:photos --out safer.safetensors

    Example: lightleak protect --target trained.safetensors --defence ssf --keep-accuracy 0.98 --out safer.safetensors

    Args:
        out: the checkpoint to write.
        target: the checkpoint of the trained classifier.
        data: the pictures that it was trained on; its labels are not used, its answers are.
        defence: rolss, rolss+ or ssf.
        keep_accuracy: a share of the original's accuracy: the strongest surgery that keeps it is looked for, among
            stages (rolss) or among stages and k (ssf).
        epochs: of recovery; by default a tenth of those that the original took.
        seed: decides the order of images.
        device: auto (a GPU where there is one), cpu, cuda, cuda:N or mps.
        settings: of the data set's function.
        train_list: a file with the pictures that the model was trained on, one a line: all others choose and test.
        size: of an own network: side of the images that it takes, in pixels; by default what it says of itself.
        own: a network of your own, in place of a checkpoint of Lightleak's.
    """
    model = classifier_of(target, own, size).to(here().device)
    population = population_of(data, settings, train_list=train_list)
    if population.classes != model.classes:
        raise UserError(f"{data} has {population.classes} classes, the model {model.classes}; give its own pictures")
    if other := differ(whose.people_of(model), population.people, "the model", "the data"):
        raise UserError(other)
    if unsure := overlap(model, data, train_list, population):
        warn(unsure)
    before, _ = accuracy_and_loss(model, population.test)
    scratch = out.with_name(f".{out.name}.retrofit")
    with bar("recover") as watch:
        result = protect(
            model,
            population.train,
            population.validation if len(population.validation) else None,
            defence,
            keep_accuracy=keep_accuracy,
            epochs=epochs,
            seed=seed,
            folder=scratch,
            watch=watch,
        )
    result.record |= {OVERLAP: unsure} if unsure else {}
    save(whose.name(result, population), out)
    shutil.rmtree(scratch, ignore_errors=True)
    for line in summary_lines(result.record):
        console.print(escape(line), highlight=False)
    after, _ = accuracy_and_loss(result, population.test)
    length = result.record["recipe"]["epochs"]
    console.print(
        f"natural accuracy {before:.1%} before, {after:.1%} after {length} epoch{'s' * (length > 1)} of recovery, "
        f"on {len(population.test)} test images: {out}",
        highlight=False,
    )


def check_arguments(
    out: Path, target: Path | None, data: str, defence: str, settings: dict[str, str], train_list: Path | None, own: Own
) -> None:
    """UserError, before anything is read, for arguments that do not go together."""
    check_network(target, own, "--target")
    defences.parse(defence)
    check_data(data, settings, train_list)
    check_place(out, "the checkpoint")
