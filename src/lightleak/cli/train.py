"""`lightleak train`: a classifier, with or without defences, as a checkpoint."""

import shutil
from pathlib import Path

from lightleak import defences, randomness
from lightleak.cli.arguments import Settings, computing, population_of
from lightleak.errors import UserError
from lightleak.files import check_place
from lightleak.metrics.robustness import robust_accuracy
from lightleak.models import whose, zoo
from lightleak.models.classifier import save
from lightleak.terminal import bar, console
from lightleak.training import RECIPES, Recipe, accuracy_and_loss, train


@computing
def main(
    out: Path,
    data: str = "faces",
    architecture: str = "timm:resnet18",
    defence: str = "none",
    recipe: Recipe = RECIPES["small"],
    seed: int = 0,
    judge: bool = False,
    size: int | None = None,
    device: str = "auto",  # noqa: ARG001
    settings: Settings = {},  # noqa: B006
) -> None:
    """Train a classifier, with or without defences, to a checkpoint.

    Example: lightleak train --data faces --settings people 40 --defence rolss --out rolss.safetensors

    Args:
        out: the checkpoint to write.
        data: faces, digits, folder:PATH, or a published set such as celeba:PATH.
        architecture: timm:NAME, torchvision:NAME or face:NAME.
        defence: none, or names separated by commas.
        recipe: how to train.
        seed: decides initial weights and the order of images.
        judge: train a judge instead, on the images that are set aside for it.
        size: pixels a side that the network sees (default: those of the images, or the only ones that it takes).
        device: auto (a GPU where there is one), cpu, cuda, cuda:N or mps.
        settings: of the data set's function.
    """
    check_place(out, "the checkpoint")
    population = population_of(data, settings)
    chosen = defences.parse(defence)
    plan, public = defences.plan(chosen, recipe), defences.pretraining(chosen, recipe)
    if not population.classes:
        raise UserError(f"{data} has public images only; they train priors ('lightleak fit')")
    side = size or zoo.only_size(architecture) or population.size
    with randomness.own(seed):
        classifier = zoo.build(architecture, population.classes, side)
    whose.name(classifier, population)
    images = population.judge if judge else population.train
    scratch = out.with_name(f".{out.name}.training")
    if public:
        with bar(f"train {architecture} on public images") as watch:
            classifier = defences.pretrain(classifier, population.public, public, seed, scratch / "public", watch)
    with bar(f"train {architecture}") as watch:
        trained = train(classifier, images, population.validation, recipe, plan, seed=seed, folder=scratch, watch=watch)
    save(whose.name(trained, population), out)
    shutil.rmtree(scratch, ignore_errors=True)
    right, _ = accuracy_and_loss(trained, population.test)
    held = f", robust accuracy {robust_accuracy(trained, population.test):.1%} within 2/255" if plan.robust else ""
    console.print(f"natural accuracy {right:.1%}{held} on {len(population.test)} test images: {out}")


EXAMPLE = "Example: lightleak train"
NAMES = ", ".join([*defences.DEFENCES, *defences.PRESETS])
main.__doc__ = str(main.__doc__).replace(EXAMPLE, f"Defences: {NAMES}.\n\n    {EXAMPLE}", 1)
