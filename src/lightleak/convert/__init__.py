"""Convert files of other projects: classifiers, priors and settings, read without executing anything in them."""

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from lightleak.attacks.knowledge import Knowledge
from lightleak.convert import names
from lightleak.convert.formats import FORMATS, NORMALISATIONS, PLAIN, Format, Hints, classifier
from lightleak.convert.generators import CRITICS, GENERATORS, is_of_gan, prior
from lightleak.convert.layouts import nearness
from lightleak.convert.public import MEAN, SPREAD, is_p_reg, knowledge
from lightleak.convert.settings import as_python, settings
from lightleak.convert.skips import STAGES, Cuts
from lightleak.errors import UserError
from lightleak.models import weights
from lightleak.models.classifier import Classifier
from lightleak.models.own import own
from lightleak.models.torchfile import MAGIC, checkpoint
from lightleak.priors import Prior, official
from lightleak.priors.stylegan2 import StyleGAN2Prior

OF_OWN = ("size", "normalise", "entry", "class_names", "class_order")  # what may be said of an own network


def convert(
    path: str | Path,
    hints: Hints = PLAIN,
    critic: str | Path | None = None,
    students: Sequence[str | Path] = (),
    **usage: Any,
) -> Classifier | Prior | Knowledge:
    """The classifier, prior or knowledge in a foreign file; UserError, in one line, if the format is unknown.

    `hints`: what a classifier's file does not say. `critic`: the file of the other network of a GAN. `students`: of a
    p_reg file of LOMMA, the files of its augmented models. `usage`: of a StyleGAN2 prior (crop, psi, space, cutoff,
    noise).
    """
    try:
        with weights.file_of(path).open("rb") as file:
            start = file.read(len(MAGIC))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    if start[:1] == b"\x80" and start != MAGIC:
        if hints != PLAIN or critic is not None or students:
            raise UserError(f"{path} is a StyleGAN2 file, which none of the options for classifiers and GANs fits")
        return official.convert(path, **usage)
    defaults = {field.name: field.default for field in fields(StyleGAN2Prior)}
    if given := [f"--{name}" for name, value in usage.items() if value != defaults[name]]:
        raise UserError(f"{path} is no StyleGAN2 file, so {', '.join(given)} has no meaning")
    content = weights.read(path)
    if hints.architecture is None:
        every = (*FORMATS, *GENERATORS, *CRITICS)
        anchors = {MEAN, SPREAD, *(name for layout in every for name in layout.has)}
        found = weights.choose(content, anchors, lambda state: nearness(state, every) == 1, str(path), hints.entry)
        if is_p_reg(found.tensors):
            if hints != PLAIN or critic is not None:
                raise UserError(f"{path} is a p_reg file of LOMMA, which takes no option but --students")
            return knowledge(found.tensors, path, students)
        if is_of_gan(found.tensors) and not students:
            if hints != replace(PLAIN, entry=hints.entry):
                raise UserError(f"{path} is of a GAN, which none of the options for classifiers fits")
            return prior(found.tensors, path, critic)
    if students:
        raise UserError(f"{path} is no p_reg file of LOMMA, so --students has no meaning")
    if critic is not None:
        raise UserError(f"{path} is no generator, so --critic {critic} has no meaning")
    return classifier(content, path, hints)


def own_network(spec: str, path: str | Path, hints: Hints = PLAIN, output: str | int | None = None) -> Classifier:
    """The classifier around the user's own network FILE.py:NAME, which is executed, with the weights of a file.

    `output`: which of several outputs holds its logits, by index or name.
    """
    if hints != replace(PLAIN, **{name: getattr(hints, name) for name in OF_OWN}):
        raise UserError(f"of the options for published classifiers, an own network takes {', '.join(OF_OWN)} alone")
    mean, std = NORMALISATIONS[hints.normalise] if hints.normalise else (None, None)
    found = own(spec, path, size=hints.size, mean=mean, std=std, entry=hints.entry, output=output)
    if hints.class_names is not None:
        found.class_names, _ = names.of(hints.class_names, hints.class_order, (), found.classes)
    return found


def described(found: Classifier) -> str:
    """What a converted classifier was taken to be, in a sentence, so that assumptions can be checked."""
    way = next((name for name, (mean, _) in NORMALISATIONS.items() if mean == found.mean), "twice")
    told = {
        "half": "normalised to [-1, 1]",
        "none": "not normalised",
        "imagenet": "normalised by ImageNet's mean and std",
        "twice": "normalised twice, as trained",
    }[way]
    cut = sum(len(step.get("skips", ())) for step in found.recipe["surgery"])
    kind = found.record["converted"]["format"]
    skips = f", {cut} skips cut or scaled" if cut else ""
    if not cut and "RoLSS" in kind and any(name in str(found.architecture) for name in STAGES):
        skips = ", all skips whole (give --skip if its training left some out: the file does not say)"
    about = found.record["converted"]
    there = f"from {about['entry']} (beside it: {', '.join(about['others'])}), " if about.get("others") else ""
    known = "" if kind == found.architecture else f"{kind}: "
    what = f"{known}{found.architecture}, {found.classes} classes, {there}images of {found.size} pixels"
    return f"{what} ({told}){skips}"


def remarks(found: Classifier) -> tuple[str, ...]:
    """The choices and assumptions made in converting a classifier, one sentence each."""
    return tuple(found.record["converted"].get("notes", ()))


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
    "own_network",
    "prior",
    "remarks",
    "settings",
]
