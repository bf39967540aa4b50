"""`lightleak evaluate`: what reconstructions give away."""

from pathlib import Path

from rich.markup import escape
from rich.table import Table
from torch import Tensor

from lightleak import priors
from lightleak.attacks import Reconstruction
from lightleak.cli.arguments import (
    NOTHING,
    Own,
    OwnNet,
    Settings,
    check_data,
    check_network,
    classifier_of,
    computing,
    population_of,
)
from lightleak.cli.kinds import Architecture, Checkpoint, Count, Device, File, Found, Prior, Protocol, Source
from lightleak.errors import UserError
from lightleak.files import check_place
from lightleak.metrics import attribute_regressor as regressors
from lightleak.metrics.evaluate import METRICS, evaluate
from lightleak.metrics.knowledge import teach
from lightleak.models import facenet
from lightleak.models import inception as inceptions
from lightleak.models.classifier import Classifier
from lightleak.priors import RenderedPrior
from lightleak.study.protocols import protocol as named_protocol
from lightleak.terminal import bar, console

FLAGS = {  # where a reason names an argument of `evaluate`
    "student": "--student",
    "face_embedding": "--face",
    "inception": "--inception",
    "attribute_regressor": "--attribute-regressor",
    "factors": "--prior rendered",
}


@computing
def main(
    found: Found,
    out: Path,
    judge: Checkpoint | None = None,
    data: Source = "faces",
    null: Found | None = None,
    prior: Prior = "rendered",
    attribute_regressor: File | None = None,
    inception: File | None = None,
    face: File | None = None,
    student: Architecture | None = None,
    published: bool = False,
    fed_8_bit: bool = False,
    protocol: Protocol | None = None,
    device: Device = "auto",  # noqa: ARG001
    settings: Settings = {},  # noqa: B006
    size: Count | None = None,
    own: OwnNet = NOTHING,
) -> None:
    """Measure reconstructions by a judge and, in the rendered world, by the truth.

    Example: lightleak evaluate --found found.safetensors --judge judge.safetensors --out evaluation.json

    Args:
        found: the reconstructions.
        out: the evaluation to write, as JSON.
        judge: the checkpoint of a classifier that the attacker never saw ('lightleak train --judge').
        data: the data set of the target: faces, digits or folder:PATH.
        null: reconstructions that cannot have leaked anything, scored in the same way.
        prior: what the reconstructions were made with: "rendered", which tells their factors, "pixels", or a folder,
            whose prior judges then see the images of at the size that it draws.
        attribute_regressor: a network that reads factors off images, where no rendered prior tells them.
        inception: weights of pytorch-fid or torchvision, for FID, precision, recall, density and coverage.
        face: weights of facenet-pytorch, for delta_face.
        student: an architecture to teach by the reconstructions alone, for the knowledge extraction score.
        published: PPA's conventions for FID, precision, recall, density and coverage.
        fed_8_bit: hand reconstructions to the judge as 8-bit images, as the 64-pixel attacks do.
        protocol: paper-ppa, celeba-300x5 or another by name: refused if these images or this judge depart from it.
        device: auto (a GPU where there is one), cpu, cuda, cuda:N or mps.
        settings: of the data set's function, as in training.
        size: of an own network: side of the images that it takes, in pixels; by default what it says of itself.
        own: a network of your own as the judge, in place of a checkpoint of Lightleak's.
    """
    classifier = classifier_of(judge, own, size)
    population = population_of(data, settings)
    factors = None
    if population.factors is not None and prior == "rendered":
        painter = RenderedPrior(size=population.size)

        def of_painter(latents: Tensor) -> Tensor | None:
            return painter.factors_of(latents) if latents.shape[1] == painter.latents else None

        factors = of_painter
    reconstruction = Reconstruction.load(found)
    counted = None if protocol is None else named_protocol(protocol)
    if counted is not None:
        counted.check(reconstruction.classes, population.classes, classifier.architecture, classifier.size, None)
        if fed_8_bit and counted.fed != "8-bit":
            raise UserError(f"{counted.label} hands judges {counted.fed} images: leave --fed-8-bit out")
        fed_8_bit = counted.fed == "8-bit"
    nulls = {null.name: Reconstruction.load(null)} if null else {}
    reader = regressors.load(attribute_regressor) if attribute_regressor else None
    embedding = facenet.facenet(face) if face else None
    realism = inceptions.inception(inception, published) if inception else None

    def taught(images: Reconstruction, by: str) -> Classifier | None:
        if student is None:
            return None
        with bar(f"teach {student} by {by}") as watch:
            return teach(images, population.classes, student, watch=watch)

    result = evaluate(
        reconstruction,
        classifier,
        population,
        factors=factors,
        prior=None if prior in ("rendered", "pixels") else priors.load(prior),
        attribute_regressor=reader,
        face_embedding=embedding,
        inception=realism,
        student=taught(reconstruction, found.name),
        nulls=nulls,
        null_students={name: pupil for name, images in nulls.items() if (pupil := taught(images, name))},
        published=published,
        fed_8_bit=fed_8_bit,
    )
    fed = "8-bit" if fed_8_bit else "float"
    result.scored.update(protocol=counted and counted.label, fed=fed, published=published)
    result.save(out)
    how = f", counted as {counted.label}" if counted else ""
    table = Table(title=f"{found.name}: {len(result.classes)} people, {result.images} images{how}")
    for name in ("metric", "value", "95 % interval", "chance", *("null" for _ in result.nulls)):
        table.add_column(name)
    for name, measure in result.measures.items():
        if measure is not None:
            span = "" if measure.low is None else f"{measure.low:.3f} to {measure.high:.3f}"
            chance = result.chance.get(name)
            others = (null.measures.get(name) for null in result.nulls.values())
            beside = (f"{other.value:.3f}" if other else "" for other in others)
            plain = "" if chance is None else f"{chance:.3f}"
            table.add_row(METRICS[name].label, f"{measure.value:.3f}", span, plain, *beside)
    console.print(table)
    missing: dict[str, list[str]] = {}
    for name in METRICS:
        if result.measures.get(name) is None:
            missing.setdefault(result.missing[name], []).append(METRICS[name].label)
    for why, labels in missing.items():
        for argument, flag in FLAGS.items():
            why = why.replace(f"{argument}=", flag)
        console.print(f"[dim]not measured, as {escape(why)}: {', '.join(labels)}[/]", highlight=False)
    for metric, network in result.networks.items():
        console.print(f"[dim]{metric}: {escape(network)}[/]", highlight=False)
    for warning in result.warnings:
        console.print(f"[yellow]{escape(warning)}[/]")
    console.print(f"{escape(str(out))}: the same, with every person's numbers", highlight=False)


def check_arguments(out: Path, judge: Path | None, data: str, settings: dict[str, str], own: Own) -> None:
    """UserError, before anything is read, for arguments that do not go together."""
    check_network(judge, own, "--judge")
    check_data(data, settings)
    check_place(out, "the evaluation")


EXAMPLE = "Example: lightleak evaluate"
main.__doc__ = str(main.__doc__).replace(EXAMPLE, f"Measures: {', '.join(METRICS)}.\n\n    {EXAMPLE}", 1)
