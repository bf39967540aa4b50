"""Files of other projects as ours: classifiers, priors and settings, read without executing anything in them."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from lightleak.attacks.knowledge import Knowledge
from lightleak.convert.generators import is_of_gan, prior
from lightleak.convert.public import is_p_reg, knowledge
from lightleak.convert.published import FORMATS, NORMALISATIONS, PLAIN, Format, Hints, classifier
from lightleak.convert.settings import as_python, settings
from lightleak.convert.skips import STAGES, Cuts
from lightleak.errors import UserError
from lightleak.models.classifier import Classifier
from lightleak.models.torchfile import MAGIC, checkpoint, stripped
from lightleak.priors import Prior, official
from lightleak.priors.stylegan2 import StyleGAN2Prior


def convert(
    path: str | Path,
    hints: Hints = PLAIN,
    critic: str | Path | None = None,
    students: Sequence[str | Path] = (),
    **usage: Any,
) -> Classifier | Prior | Knowledge:
    """The classifier, prior or knowledge in a foreign file; UserError, in one line, if it is none that is known.

    `hints`: what a classifier's file does not say. `critic`: the file of the other network of a GAN. `students`: of a
    p_reg file of LOMMA, the files of its augmented models. `usage`: of a StyleGAN2 prior (crop, psi, space, cutoff,
    noise).
    """
    try:
        with Path(path).open("rb") as file:
            start = file.read(len(MAGIC))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    if start[:1] == b"\x80" and start != MAGIC:
        if hints != PLAIN or critic is not None:
            raise UserError(f"{path} is a StyleGAN2 file, which none of the options for classifiers and GANs fits")
        return official.convert(path, **usage)
    defaults = {field.name: field.default for field in fields(StyleGAN2Prior)}
    if given := [f"--{name}" for name, value in usage.items() if value != defaults[name]]:
        raise UserError(f"{path} is no StyleGAN2 file, so {', '.join(given)} has no meaning")
    found = checkpoint(path)
    if is_p_reg(state := stripped(found.tensors)):
        if hints != PLAIN or critic is not None:
            raise UserError(f"{path} is a p_reg file of LOMMA, which takes no option but --students")
        return knowledge(state, path, students)
    if students:
        raise UserError(f"{path} is no p_reg file of LOMMA, so --students has no meaning")
    if hints.architecture is None and is_of_gan(state):
        if hints != PLAIN:
            raise UserError(f"{path} is of a GAN, which none of the options for classifiers fits")
        return prior(state, path, critic)
    if critic is not None:
        raise UserError(f"{path} is no generator, so --critic {critic} has no meaning")
    return classifier(found, path, hints)


def described(found: Classifier) -> str:
    """What a converted classifier was taken for, in a sentence: what the file does not say can be seen to be right."""
    way = next((name for name, (mean, _) in NORMALISATIONS.items() if mean == found.mean), "twice")
    told = {"half": "[-1, 1]", "none": "[0, 1]", "imagenet": "ImageNet's", "twice": "normalised twice, as trained"}[way]
    cut = sum(len(step.get("skips", ())) for step in found.recipe["surgery"])
    kind = found.record["converted"]["format"]
    skips = f", {cut} skips cut or scaled" if cut else ""
    if not cut and "RoLSS" in kind and any(name in str(found.architecture) for name in STAGES):
        skips = ", all skips whole (give --skip if its training left some out: the file does not say)"
    return f"{kind}: {found.architecture}, {found.classes} classes, images of {found.size} pixels ({told}){skips}"


__all__ = [
    "FORMATS",
    "PLAIN",
    "Cuts",
    "Format",
    "Hints",
    "as_python",
    "checkpoint",
    "classifier",
    "convert",
    "described",
    "prior",
    "settings",
]
