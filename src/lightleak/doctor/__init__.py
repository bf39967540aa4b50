"""What is installed, which data sets are whole, which judges are good enough, and what time and memory to expect."""

import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import torch

from lightleak.attacks import PPA
from lightleak.data.decoded import cache_folder
from lightleak.data.population import Images, Population
from lightleak.errors import UserError
from lightleak.forecast import Pace, forecast
from lightleak.metrics import evidence
from lightleak.metrics.evaluate import FEW_PEOPLE, GOOD_JUDGE
from lightleak.models import zoo
from lightleak.models.classifier import Classifier
from lightleak.models.inception import after_transform
from lightleak.place import Place, Precision, found_cards, here
from lightleak.priors import Prior
from lightleak.ranking import answers
from lightleak.study.amounts import Amount
from lightleak.training import RECIPES, predict

LIBRARIES = ("lightleak", "torch", "torchvision", "timm", "numpy", "pillow", "safetensors", "scikit-learn", "scipy")
EXTRAS = {"opacus": "dp", "ray": "cluster", "submitit": "slurm"}
SPLITS = ("train", "validation", "test", "judge", "public")
SHARED = 0.01  # of the judge's correct answers: two normalisations that differ by less are the same


@dataclass(frozen=True)
class Line:
    """One thing that was looked at."""

    what: str
    said: str
    state: Literal["good", "note", "bad"] = "good"
    files: tuple[str, ...] = ()  # all that it is about


def installed() -> list[Line]:
    """Versions, extras, device, cores, memory and the cache."""
    lines = [Line("Python", platform.python_version())]
    for name in LIBRARIES:
        found = _version(name)
        lines.append(Line(name, found or "not installed as a package", "good" if found else "note"))
    for name, extra in EXTRAS.items():
        found = _version(name)
        lines.append(Line(f"{name} (extra '{extra}')", found or f"absent: pip install 'lightleak[{extra}]'",
                          "good" if found else "note"))  # fmt: skip
    lines += [Line(card, said, "good" if fit else "note") for card, said, fit in found_cards()]
    if not any(line.what.startswith("cuda") for line in lines):
        lines.append(Line("GPU", "torch finds none here", "note"))
    lines.append(Line("computing on", f"{here().device}: {here().name}"))
    quick = here().computes_bfloat16()
    lines.append(Line("bfloat16", "computed by the device" if quick else "not computed by the device: float32"))
    lines.append(Line("cores", f"{_cores()}, {torch.get_num_threads()} threads in a process"))
    memory = Place().memory()
    lines.append(Line("memory", str(memory) if memory else "unknown"))
    folder = cache_folder(None)
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    writable = os.access(place, os.W_OK)
    free = in_bytes(shutil.disk_usage(place).free)
    lines.append(Line("cache", f"{folder}, {free} free" if writable else f"{folder} cannot be written",
                      "good" if writable else "bad"))  # fmt: skip
    return lines


def whole(population: Population) -> list[Line]:
    """How many people and images each part has, and everything that is wrong with the data, with file names."""
    lines = []
    if population.classes:
        few = population.classes < FEW_PEOPLE
        text = f"{population.classes} private people" + (", few: intervals will be wide" if few else "")
        lines.append(Line("people", text, "note" if few else "good"))
    for name in SPLITS:
        images: Images = getattr(population, name)
        if not len(images):
            wanted = name == "public" or not population.classes
            text = "none: give public images for a prior" if name == "public" else "none"
            lines.append(Line(name, text, "note" if wanted else "bad"))
            continue
        counts = torch.bincount(images.labels)
        counts = counts[counts > 0]
        each = str(int(counts.min())) if counts.min() == counts.max() else f"{int(counts.min())} to {int(counts.max())}"
        text = f"{len(images):,} images of {len(counts):,} people, {each} each"
        if name == "public" and int(counts.max()) == 1:
            text = f"{len(images):,} images"
        lines.append(Line(name, text))
    for finding in population.findings:
        noted = finding.kind in ("departure", "duplicate", "division")
        lines.append(Line(finding.kind, finding.text, "note" if noted else "bad", finding.files))
    known = {str(finding) for finding in population.findings}
    lines += [Line("note", note, "note") for note in population.notes if note not in known]
    return lines


def shared(population: Population) -> list[Line]:
    """Images that are in two parts of a population: where what is measured was seen before."""
    marks = {name: {p.numpy().tobytes() for p in getattr(population, name).pixels} for name in SPLITS}
    pairs = (("train", "judge"), ("train", "test"), ("judge", "test"), *((p, "public") for p in SPLITS[:-1]))
    lines = []
    for first, second in pairs:
        count = len(marks[first] & marks[second])
        if count:
            # The published split shares them on purpose; the finding that says so is there already.
            meant = (first, second) == ("train", "judge")
            text = f"{count:,} images are in {first} and in {second}"
            lines.append(Line("overlap", text, "note" if meant else "bad"))
    return lines or [Line("overlap", "no image is in two parts that must not meet")]


def expected(population: Population, architecture: str = "timm:resnet18") -> list[Line]:
    """Memory that the images take, and how long an epoch of an architecture takes on this device, from a few steps."""
    total = sum(getattr(population, name).pixels.numel() for name in SPLITS)
    machine = Place().memory()
    memory = machine.total if machine else None
    tight = bool(memory and 2 * total > memory)  # decoded bytes, and their parts
    text = f"{in_bytes(2 * total)} for images while they are read, {in_bytes(total)} after"
    lines = [Line("memory to expect", text + (f" of {in_bytes(memory)}" if tight and memory else ""),
                  "bad" if tight else "good")]  # fmt: skip
    if not population.classes or not len(population.train):
        return lines
    size = zoo.only_size(architecture) or population.size
    recipe, images, pace = RECIPES["rolss"], len(population.train), Pace()
    amount = Amount(
        "train", images, architecture, size, population.classes, min(recipe.batch, images), recipe.precision,
        recipe.view,
    )  # fmt: skip
    epoch = pace.seconds(amount)
    if epoch is None:
        return [*lines, Line("time to expect", f"unknown: {next(iter(pace.failed.values()))}", "bad")]
    text = f"about {duration(epoch)} an epoch of {architecture} at {size} pixels, "
    text += f"{duration(epoch * recipe.epochs)} for {recipe.epochs} epochs on {here().device}"
    return [*lines, Line("time to expect", text)]


def attack_expected(
    name: str, attack: PPA, prior: Prior, target: Classifier, people: int, precision: Precision = "float32"
) -> list[Line]:
    """Memory and time that an attack on so many people takes on this device, from a few steps of it."""
    found = forecast(attack, prior, target, people, precision)
    need = f"{in_bytes(found.networks)} for the networks and {in_bytes(found.image)} for each image of a batch: "
    need += f"{in_bytes(found.memory)} for batches of {found.batch}"
    line = Line(f"memory of {name}", need)
    if found.fits is not None and found.free is not None:
        enough = found.fits >= found.batch
        text = f"{need}; {in_bytes(found.free)} free"
        text += "" if enough else f": --attack.batch {found.fits} fits" if found.fits else ": not even one fits"
        line = Line(line.what, text, "good" if enough else "bad")
    text = (
        f"about {duration(found.seconds)} on {here().device} for {people} people, each {attack.attempts} attempts of "
    )
    text += f"{attack.steps} steps and {attack.views} views, after {attack.candidates:,} candidates"
    return [line, Line(f"time of {name}", text)]


def good_judge(judge: Classifier, population: Population, watch: Callable[..., None] | None = None) -> list[Line]:
    """Whether a judge knows these people well enough on images that nobody trained on, and sees them as it should."""
    if judge.classes != population.classes:
        text = f"it knows {judge.classes} classes, the data has {population.classes} people"
        return [Line("judge", text, "bad")]
    if not len(population.test):
        raise UserError(f"'{population.name}' has no test images; a judge cannot be checked")
    lines = [Line("judge", f"{judge.architecture or type(judge.net).__name__} at {judge.size} pixels")]
    if judge.class_names and population.class_names and judge.class_names != population.class_names:
        differ = [pair for pair in zip(judge.class_names, population.class_names) if pair[0] != pair[1]]
        text = f"class names differ, such as {differ[0][0]!r} in the judge and {differ[0][1]!r} in the data"
        lines.append(Line("judge's classes", text, "bad"))
    right = _right(judge, population.test)
    if watch is not None:
        watch(1, 2)
    measure = evidence.wilson(right, len(population.test))
    enough = measure.value >= GOOD_JUDGE
    span = f" ({measure.low:.1%} to {measure.high:.1%})" if measure.low is not None else ""
    text = f"{measure.value:.1%} right{span} on {len(population.test):,} test images"
    text += "" if enough else f"; wanted: {GOOD_JUDGE:.0%}"
    lines.append(Line("judge's accuracy", text, "good" if enough else "bad"))
    seen = _right(judge, population.judge) / len(population.judge) if len(population.judge) else None
    if seen is not None and seen < measure.value - 0.05:
        text = f"{seen:.1%} on the images set aside for it, fewer than on test images: was it trained on others?"
        lines.append(Line("judge's training", text, "note"))
    if judge.architecture == "torchvision:inception_v3":
        lines.append(_transform(judge, population.test, right))
    return lines


def _transform(judge: Classifier, images: Images, right: int) -> Line:
    """Whether an Inception was trained with torchvision's input transform: the normalisation that makes it better."""
    mean, std = after_transform()
    other = (mean, std) if judge.mean != mean else ((0.5,) * 3, (0.5,) * 3)
    twin = Classifier(judge.net, size=judge.size, classes=judge.classes, mean=other[0], std=other[1]).to(judge.device)
    better = _right(twin, images) - right
    if better <= SHARED * len(images):
        return Line("input transform", "as stored: the other setting is not better")
    name = "with" if other[0] == mean else "without"
    numbers = f"mean {', '.join(f'{m:.4f}' for m in other[0])}, std {', '.join(f'{s:.4f}' for s in other[1])}"
    text = f"{better:,} more test images are right {name} torchvision's input transform: set {numbers}"
    return Line("input transform", text, "bad")


def _right(classifier: Classifier, images: Images) -> int:
    return int((answers(predict(classifier, images)) == images.labels).sum())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_bytes(count: float) -> str:
    """Bytes as people say them."""
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"


def duration(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
