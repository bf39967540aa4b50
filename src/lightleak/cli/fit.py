"""`lightleak fit`: a generator from public images."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from torch import Tensor

from lightleak import priors
from lightleak.attacks.surrogate import asked, lesson, teacher
from lightleak.cli.arguments import Settings, check_data, computing, population_of
from lightleak.cli.kinds import Checkpoint, Device, Seed, Source
from lightleak.errors import UserError
from lightleak.files import check_folder
from lightleak.models.classifier import load
from lightleak.priors.fit import QUICK, TRAININGS, check_target, fit
from lightleak.terminal import bar, console

DESCRIPTIONS = {
    "wgan": "GMI's WGAN-GP, small and quick, with a warm-up as a decoder",
    "wgan-published": "GMI's WGAN-GP with its settings for CelebA",
    "kedmi": "KED-MI's GAN, small and quick; it is made for one --target",
    "kedmi-published": "KED-MI's GAN with its settings for CelebA; it is made for one --target",
    "plgmi": "PLG-MI's GAN of given classes, small and quick; it is made for one --target",
    "plgmi-published": "PLG-MI's GAN with its settings for CelebA; it is made for one --target",
    "lokt": "LOKT's GAN, small and quick; one --target's labels teach it",
    "lokt-published": "LOKT's GAN with its settings for CelebA; one --target's labels teach it",
    "stylegan2": "a small StyleGAN2, at the size of the images",
}

if TYPE_CHECKING:
    from lightleak.priors.fit import FitSettings as Training
else:
    Training = tyro.extras.subcommand_type_from_defaults(TRAININGS, DESCRIPTIONS)


@computing
def main(
    out: Path,
    data: Source = "faces",
    training: Training = QUICK,
    target: Checkpoint | None = None,
    seed: Seed = 0,
    device: Device = "auto",  # noqa: ARG001
    settings: Settings = {},  # noqa: B006
) -> None:
    """Fit a generator to the public images of a data set.

    Example: lightleak fit --target rolss.safetensors --out rolss-prior training:kedmi --training.steps 500

    Args:
        out: the folder to write.
        data: faces, digits, folder:PATH, or a published set such as celeba:PATH.
        training: which generator, and how to train it.
        target: the checkpoint that it is made for, where the training needs one.
        seed: decides everything random.
        device: auto (a GPU where there is one), cpu, cuda, cuda:N or mps.
        settings: of the data set's function.
    """
    oracle = teacher(load(target), training) if target else None
    population = population_of(data, settings)
    if not len(population.public):
        raise UserError(f"{data} has no public images: add --settings public ffhq:PATH, or fit to ffhq:PATH itself")
    with bar("fit the prior") as watch:
        told = asked(oracle, training) if oracle else None
        prior = fit(population.public, training, seed, out / ".training", watch, target=told)
    priors.save(prior, out, lesson(oracle, told))
    priors.show(prior, out / "samples.png")
    shutil.rmtree(out / ".training", ignore_errors=True)
    if prior.hits is not None:
        console.print(_heard(prior.hits), highlight=False)
    console.print(f"{out}: a prior of {prior.size} x {prior.size} images from {len(population.public)} public ones")


def check_arguments(out: Path, data: str, training: "Training", target: Path | None, settings: dict[str, str]) -> None:
    """UserError, before anything is read, for arguments that do not go together."""
    check_target(training, target is not None)
    check_data(data, settings)
    check_folder(out, "the prior")


def _heard(hits: Tensor) -> str:
    """Which classes the target's labels taught a prior."""
    silent = (hits == 0).nonzero().flatten().tolist()
    some = ", ".join(map(str, silent[:10])) + (", ..." if len(silent) > 10 else "")
    line = f"the target named {len(hits) - len(silent)} of {len(hits)} classes in {int(hits.sum())} made images"
    return f"{line}; never: {some}" if silent else f"{line}, each at least {int(hits.min())} times"
