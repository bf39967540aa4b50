"""`lightleak convert`: a published file as a checkpoint, a prior or settings."""

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.markup import escape

from lightleak import priors
from lightleak.attacks import (
    Knowledge,
)
from lightleak.cli.kinds import Count, File, FileOrFolder, Truncation
from lightleak.convert import PLAIN, Hints, as_python, convert, described, own_network, remarks
from lightleak.convert import settings as read_settings
from lightleak.errors import UserError
from lightleak.files import publish
from lightleak.models import named
from lightleak.models.classifier import Classifier, save
from lightleak.models.face import FACE_MODELS
from lightleak.terminal import console

YAML = (".yaml", ".yml")


def main(
    file: tyro.conf.Positional[FileOrFolder],
    out: Path,
    hints: Annotated[Hints, tyro.conf.OmitArgPrefixes] = PLAIN,
    critic: File | None = None,
    students: tuple[Path, ...] = (),
    crop: Count | None = None,
    psi: Truncation = 0.5,
    space: Literal["w", "w+"] = "w",
    cutoff: int | None = None,
    noise: Literal["const", "none"] = "const",
    net: str | None = None,
    output: str | None = None,
) -> None:
    """Turn a published file into a checkpoint or a prior, without executing anything in it.

    Example: lightleak convert VGG16_88.26.tar --out vgg16.safetensors

    Example: lightleak convert ffhq.pkl --out ffhq --crop 800

    Example: lightleak convert w.pt --net mymodel.py:make_model --normalise imagenet --out mine.safetensors

    Example: lightleak convert configs/training/targets/resnet101_skip.yaml --out study.py

    Args:
        file: what torch.save wrote (.pth, .pt, .tar), safetensors, their index or folder, a StyleGAN2-ADA .pkl, or
            PPA's or RoLSS's .yaml.
        out: the checkpoint to write; of a generator, the folder; of settings, a .py that runs or a .json.
        hints: what a classifier's file does not say.
        critic: of GMI, KED-MI and PLG-MI: the file of the critic or discriminator; FILE is the generator's.
        students: of LOMMA: the files of the augmented models; FILE is the p_reg file.
        crop: of StyleGAN2: side of the centre that attacks look at; by default the whole image.
        psi: of StyleGAN2: truncation of the sampled styles; 1 is none, 0 the mean image.
        space: of StyleGAN2: w is one style for all layers, w+ one for each.
        cutoff: of StyleGAN2: in w+, only the first so many styles are truncated.
        noise: of StyleGAN2: the stored noise maps, or none.
        net: FILE.py:NAME that makes the network of these weights; that file is executed.
        output: which of several outputs of that network holds the logits, by index or name; by default what fits.
    """
    if file.suffix.lower() in YAML:
        _settings(file, out)
        return
    if net is not None:
        mine = own_network(net, file, hints, output)
        save(mine, out)
        about = f"{net}, {mine.classes} classes, images of {mine.size} pixels"
        console.print(f"{out}: {about}; other verbs need --net {net} with it", highlight=False)
        return
    found = convert(file, hints, critic, students, crop=crop, psi=psi, space=space, cutoff=cutoff, noise=noise)
    if isinstance(found, Knowledge):
        found.save(out)
        features = 0 if found.mean is None else len(found.mean)
        console.print(f"{out}: knowledge for LOMMA, {features} features, {len(found.students)} students")
        return
    if isinstance(found, Classifier):
        save(found, out)
        console.print(f"{out}: {described(found)}", highlight=False)
        for remark in remarks(found):
            console.print(f"[yellow]![/] {escape(remark)}", highlight=False)
        return
    priors.save(found, out)
    judged = "with a discriminator of these" if found.judges else "without a discriminator of these"
    console.print(f"{out}: a prior of {found.size} x {found.size} images, {judged}", highlight=False)


def check_arguments(
    file: Path, out: Path, hints: Hints, students: tuple[Path, ...], net: str | None, output: str | None,
    critic: Path | None, crop: int | None, psi: float, space: str, cutoff: int | None, noise: str,
) -> None:  # fmt: skip
    """UserError, before anything is read, for arguments that do not go together."""
    published = {"critic": critic, "students": students, "crop": crop, "cutoff": cutoff}
    idle = [name for name, value in published.items() if value not in (None, ())]
    idle += [name for name, odd in (("psi", psi != 0.5), ("space", space != "w"), ("noise", noise != "const")) if odd]
    settings = file.suffix.lower() in YAML
    if settings:
        idle += ["net"] if net is not None else []
        idle += [field.name for field in fields(hints) if getattr(hints, field.name) != getattr(PLAIN, field.name)]
    if idle and (settings or net is not None):
        what = "settings" if settings else "weights of a network of your own"
        flags = ", ".join("--" + name.replace("_", "-") for name in idle)
        raise UserError(f"{file} is read as {what}: leave {flags} out")
    if missing := [student for student in students if not student.expanduser().exists()]:
        raise UserError(f"there is no file {missing[0]}")
    if hints.architecture is not None:
        named.check(hints.architecture, [*FACE_MODELS])
    if hints.class_names is not None and not hints.class_names.expanduser().exists():
        raise UserError(f"there are no names of classes at {hints.class_names}")
    if net is not None:
        named.file_and_name(net)
    elif output is not None:
        raise UserError("--output is of a network of your own; name it with --net FILE.py:NAME")
    if file.suffix.lower() in YAML and out.suffix not in (".py", ".json"):
        raise UserError(f"settings become a .py that runs or a .json, so --out should end so, not {out.name}")


def _settings(file: Path, out: Path) -> None:
    """PPA's or RoLSS's settings as a Python file or as JSON, and which keys were left out."""
    asked = read_settings(file)
    text = as_python(asked, file.name) if out.suffix == ".py" else asked.to_json()
    publish(out, lambda part: part.write_text(text), "the settings")
    console.print(f"{out}: {asked.kind} of {asked.architecture}", highlight=False)
    for key, why in asked.ignored:
        console.print(f"[yellow]![/] {escape(key)}: {escape(why)}", highlight=False)
