"""The command line: a verb is a function; its flags are its arguments or the fields of the library's dataclasses."""

import ast
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from json import dumps as as_json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lightleak import data, defences, doctor, priors, surgery
from lightleak.attacks import (
    GMI,
    KEDMI,
    LOMMA,
    PLGMI,
    PPA,
    Distillation,
    Guess,
    Knowledge,
    Oracle,
    Reconstruction,
    learn,
)
from lightleak.attacks.knowledge import FEATURES, SMALL
from lightleak.attacks.ppa import PRESETS
from lightleak.convert import PLAIN, Hints, as_python, convert, described
from lightleak.convert import settings as read_settings
from lightleak.errors import UserError
from lightleak.files import publish
from lightleak.metrics import appraiser as appraisers
from lightleak.metrics.evaluate import METRICS, evaluate
from lightleak.metrics.knowledge import teach
from lightleak.models import facenet, zoo
from lightleak.models import inception as inceptions
from lightleak.models.classifier import Classifier, load, save
from lightleak.models.precision import Precision
from lightleak.priors import RenderedPrior
from lightleak.priors.fit import QUICK, TRAININGS, check_target, fit
from lightleak.report import index as overview
from lightleak.report import main_table, narrowed, terminal, write
from lightleak.report.study import NOTE, noted, pages, studied
from lightleak.study import OnRay, OnSlurm, Store, live, study_files
from lightleak.study import load as load_study
from lightleak.study import plan as plan_study
from lightleak.study import run as run_study
from lightleak.study import status as study_status
from lightleak.study.comparison import Demo
from lightleak.study.parcel import Cluster
from lightleak.study.run import published as published_numbers
from lightleak.study.run import titled
from lightleak.study.task import Task
from lightleak.terminal import bar, checked, console, ends, tell_plan, tell_status
from lightleak.training import RECIPES, Recipe, accuracy_and_loss, train

app = tyro.extras.SubcommandApp()
NOBODY = ("faces", "digits")  # painted faces and digits are nobody's: their pages show them as they are
if TYPE_CHECKING:
    from lightleak.priors.fit import Settings as Training
else:
    Training = tyro.extras.subcommand_type_from_defaults(TRAININGS)
Settings = Annotated[dict[str, str], tyro.conf.arg(metavar="NAME VALUE ...")]


@app.command(name="demo")
def demo(
    data: str = "faces",
    out: Path = Path("runs/demo"),
    people: int = 20,
    seed: int = 0,
    workers: int = 2,
    show_private: bool = False,
) -> None:
    """The main job: train four targets, invert each, judge what leaked, write a page.

    Example: lightleak demo --data folder:photos

    Args:
        data: faces (rendered), digits (handwritten), or folder:PATH with one folder of images per person.
        out: where results are kept; the same command again reuses them.
        people: private people of the rendered world, a multiple of 4.
        seed: decides everything random.
        workers: processes at a time.
        show_private: do not blur private images on the page.
    """
    began = time.monotonic()
    tasks = Demo(data, people, seed).tasks()
    with noted(tasks, out, f"Lightleak demo: {data}", _command()):
        _run(tasks, out, workers)
    _show(out, show_private)
    console.print(f"[dim]{time.monotonic() - began:.0f} seconds; the same command again reuses what is done[/]")


@app.command(name="skips")
def skips(model: tyro.conf.Positional[str], size: int | None = None, json: bool = False, joins: bool = False) -> None:
    """Table of the skip connections of timm:NAME, torchvision:NAME, face:NAME or a checkpoint.

    Example: lightleak skips timm:resnet101

    Args:
        model: a name, or the path of a checkpoint; a pattern such as "timm:res*" lists the names that fit.
        size: side length of the images (default: the model's own).
        json: print JSON with everything that is known.
        joins: also list the joins that are no skips, and why.
    """
    if "*" in model:
        print("\n".join(zoo.matching(model)))
        return
    classifier = _classifier(model, size)
    found = (surgery.find_joins if joins else surgery.find_skips)(classifier.net, classifier.example)
    if json:
        print(as_json([asdict(join) for join in found], indent=1))
        return
    skips = [join for join in found if join.is_skip]
    table = Table(title=f"{model}: {len(skips)} skip connections at {classifier.size} x {classifier.size}")
    for name in ("name", "kind", "stage", "channels", "resolution"):
        table.add_column(name, justify="right" if name in ("stage", "channels") else "left", no_wrap=True)
    if console.width >= 100 or joins:  # a narrow terminal has room for the essentials only; --json tells all
        table.add_column("goes around")
        table.add_column("projection")
    for join in found:
        row = [join.name, join.kind, str(join.stage or "–"), str(join.channels), " x ".join(map(str, join.resolution))]
        around, projection = ends(join.owner, join.around), ends(join.owner, join.projection)
        row += [around, projection] if join.is_skip else [f"no skip: {join.reason}", ""]
        table.add_row(*map(escape, row[: len(table.columns)]), style=None if join.is_skip else "dim")
    console.print(table)
    if skips:
        stages = {stage: sum(join.stage == stage for join in skips) for stage in sorted({j.stage for j in skips})}
        told = ", ".join(f"stage {stage}: {count}" for stage, count in stages.items())
        console.print(f"{told}. 'last' means stage {max(stages)}.", highlight=False)


@app.command(name="train")
def train_(
    out: Path,
    data: str = "faces",
    architecture: str = "timm:resnet18",
    defence: str = "none",
    recipe: Recipe = RECIPES["small"],
    seed: int = 0,
    judge: bool = False,
    size: int | None = None,
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
        settings: of the data set's function.
    """
    population = _population(data, settings)
    chosen = defences.parse(defence)
    plan, public = defences.plan(chosen, recipe), defences.pretraining(chosen, recipe)
    torch.manual_seed(seed)
    if not population.classes:
        raise UserError(f"{data} has public images only; they train priors ('lightleak fit')")
    classifier = zoo.build(architecture, population.classes, size or zoo.only_size(architecture) or population.size)
    classifier.class_names = population.class_names
    images = population.judge if judge else population.train
    scratch = out.with_name(f".{out.name}.training")
    if public:
        with bar(f"train {architecture} on public images") as watch:
            classifier = defences.pretrain(classifier, population.public, public, seed, scratch / "public", watch)
    with bar(f"train {architecture}") as watch:
        trained = train(classifier, images, population.validation, recipe, plan, seed=seed, folder=scratch, watch=watch)
    trained.class_names = population.class_names
    save(trained, out)
    shutil.rmtree(scratch, ignore_errors=True)
    right, _ = accuracy_and_loss(trained, population.test)
    console.print(f"natural accuracy {right:.1%} on {len(population.test)} test images: {out}")


@app.command(name="fit")
def fit_(
    out: Path,
    data: str = "faces",
    training: Training = QUICK,
    target: Path | None = None,
    seed: int = 0,
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
        settings: of the data set's function.
    """
    check_target(training, target is not None)
    statistics = getattr(training, "batch_statistics", False)
    oracle = Oracle(load(target), batch_statistics=statistics) if target else None
    population = _population(data, settings)
    if not len(population.public):
        raise UserError(f"{data} has no public images: add --settings public ffhq:PATH, or fit to ffhq:PATH itself")
    out.mkdir(parents=True, exist_ok=True)
    with bar("fit the prior") as watch:
        asked = oracle.logits if oracle else None
        prior = fit(population.public, training, seed, out / ".training", watch, target=asked)
    priors.save(prior, out)
    priors.show(prior, out / "samples.png")
    shutil.rmtree(out / ".training", ignore_errors=True)
    console.print(f"{out}: a prior of {prior.size} x {prior.size} images from {len(population.public)} public ones")


@app.command(name="convert")
def convert_(
    file: tyro.conf.Positional[Path],
    out: Path,
    hints: Annotated[Hints, tyro.conf.OmitArgPrefixes] = PLAIN,
    critic: Path | None = None,
    students: tuple[Path, ...] = (),
    crop: int | None = None,
    psi: float = 0.5,
    space: Literal["w", "w+"] = "w",
    cutoff: int | None = None,
    noise: Literal["const", "none"] = "const",
) -> None:
    """Turn a published file into a checkpoint or a prior, without executing anything in it.

    Example: lightleak convert VGG16_88.26.tar --out vgg16.safetensors

    Example: lightleak convert ffhq.pkl --out ffhq --crop 800

    Example: lightleak convert configs/training/targets/resnet101_skip.yaml --out study.py

    Args:
        file: what torch.save wrote (.pth, .pt, .tar), a StyleGAN2-ADA .pkl, or PPA's or RoLSS's .yaml.
        out: the checkpoint to write; of a generator, the folder; of settings, a .py that runs or a .json.
        hints: what a classifier's file does not say.
        critic: of GMI, KED-MI and PLG-MI: the file of the critic or discriminator; FILE is the generator's.
        students: of LOMMA: the files of the augmented models; FILE is the p_reg file.
        crop: of StyleGAN2: side of the centre that attacks look at (default: the whole image).
        psi: of StyleGAN2: truncation of the sampled styles; 1 is none, 0 the mean image.
        space: of StyleGAN2: w is one style for all layers, w+ one for each.
        cutoff: of StyleGAN2: in w+, only the first so many styles are truncated.
        noise: of StyleGAN2: the stored noise maps, or none.
    """
    if file.suffix.lower() in (".yaml", ".yml"):
        _settings(file, out)
        return
    found = convert(file, hints, critic, students, crop=crop, psi=psi, space=space, cutoff=cutoff, noise=noise)
    if isinstance(found, Knowledge):
        found.save(out)
        console.print(f"{out}: knowledge for LOMMA, {len(found.mean)} features, {len(found.students)} students")
        return
    if isinstance(found, Classifier):
        save(found, out)
        console.print(f"{out}: {described(found)}", highlight=False)
        return
    priors.save(found, out)
    judged = "without" if getattr(found, "critic", found) is None else "with"
    console.print(f"{out}: a prior of {found.size} x {found.size} images, {judged} a discriminator", highlight=False)


@app.command(name="attack")
def attack_(
    target: Path,
    out: Path,
    prior: str = "rendered",
    attack: PPA | GMI | KEDMI | LOMMA | PLGMI | Guess = PRESETS["rendered"],
    preset: str | None = None,
    classes: tuple[int, ...] = (),
    seed: int = 0,
    precision: Precision = "float32",
    knowledge: Path | None = None,
    public: str | None = None,
    distillation: Distillation = SMALL,
    settings: Settings = {},  # noqa: B006
) -> None:
    """Reconstruct the people of a checkpoint.

    Example: lightleak attack --target rolss.safetensors --out found.safetensors attack:ppa --attack.steps 70

    Args:
        target: the checkpoint to invert.
        out: the reconstructions to write.
        prior: "rendered", or the folder of a fitted prior.
        attack: which attack, and its settings.
        preset: PPA with a paper's settings instead, such as ppa, ppa-celeba, ppa-dogs, rolss, taa or published.
        classes: whom to reconstruct (default: all).
        seed: decides everything random.
        precision: of the target's and the prior's convolutions; bfloat16 is faster where the hardware has it.
        knowledge: LOMMA: the folder of what it learns from public images; learnt there if it does not exist yet.
        public: LOMMA: the data set whose public images it learns from (faces, digits or folder:PATH).
        distillation: LOMMA: how its students learn.
        settings: of that data set's function.
    """
    if preset is not None:
        if preset not in PRESETS:
            raise UserError(f"there is no preset {preset!r}; choose from {', '.join(PRESETS)}")
        if attack != PRESETS["rendered"]:
            raise UserError("give a preset or an attack with its own settings, not both")
        attack = PRESETS[preset]
    classifier = load(target)
    bad = [label for label in classes if not 0 <= label < classifier.classes]
    if bad:
        raise UserError(f"{target} has classes 0 to {classifier.classes - 1}, not {bad[0]}")
    generator = RenderedPrior(size=classifier.size) if prior == "rendered" else priors.load(prior)
    wanted = torch.tensor(classes) if classes else torch.arange(classifier.classes)
    if hasattr(generator, "precision"):
        generator = replace(generator, precision=precision)  # pyright: ignore
    oracle = Oracle(classifier, attack.access, precision=precision)
    learnt = {}
    if getattr(attack, "needs_knowledge", False):
        learnt["knowledge"] = _knowledge(classifier, knowledge, public, settings, distillation, seed)
    elif knowledge or public:
        raise UserError(
            f"{type(attack).__name__} uses no knowledge from public images; leave --knowledge, --public out"
        )
    with bar(f"{type(attack).__name__} on {target.name}") as watch:
        found = attack.run(oracle, generator, wanted, torch.Generator().manual_seed(seed), watch, **learnt)
    found.save(out)
    console.print(
        f"{out}: {len(found)} images of {len(wanted)} people, mean confidence {found.confidence.mean():.3f}, "
        f"{found.queries} queries, {found.seconds:.0f} s"
    )


@app.command(name="evaluate")
def evaluate_(
    found: Path,
    judge: Path,
    out: Path,
    data: str = "faces",
    null: Path | None = None,
    prior: str = "rendered",
    appraiser: Path | None = None,
    inception: Path | None = None,
    face: Path | None = None,
    student: str | None = None,
    published: bool = False,
    fed_8_bit: bool = False,
    settings: Settings = {},  # noqa: B006
) -> None:
    """Measure reconstructions by a judge and, in the rendered world, by the truth.

    Example: lightleak evaluate --found found.safetensors --judge judge.safetensors --out evaluation.json

    Args:
        found: the reconstructions.
        judge: the checkpoint of a classifier that the attacker never saw ('lightleak train --judge').
        out: the evaluation to write, as JSON.
        data: the data set of the target: faces, digits or folder:PATH.
        null: reconstructions that cannot have leaked anything, scored in the same way.
        prior: what the reconstructions were made with; only "rendered" tells their factors.
        appraiser: reads factors off images, where no rendered prior tells them.
        inception: weights of pytorch-fid or torchvision, for FID, precision, recall, density and coverage.
        face: weights of facenet-pytorch, for delta_face.
        student: an architecture to teach by the reconstructions alone, for the knowledge extraction score.
        published: PPA's conventions for FID, precision, recall, density and coverage.
        fed_8_bit: hand reconstructions to the judge as 8-bit images, as the 64-pixel attacks do.
        settings: of the data set's function, as in training.
    """
    population = _population(data, settings)
    factors = None
    if population.factors is not None and prior == "rendered":
        factors = RenderedPrior(size=population.size).factors_of
    classifier = load(judge)
    reconstruction = Reconstruction.load(found)
    nulls = {null.name: Reconstruction.load(null)} if null else {}
    reader = appraisers.load(appraiser) if appraiser else None
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
        appraiser=reader,
        face_embedding=embedding,
        inception=realism,
        student=taught(reconstruction, found.name),
        nulls=nulls,
        null_students={name: pupil for name, images in nulls.items() if (pupil := taught(images, name))},
        published=published,
        fed_8_bit=fed_8_bit,
    )
    publish(out, lambda part: part.write_text(as_json(result.to_json(), indent=1, allow_nan=False)), "the evaluation")
    table = Table(title=f"{found.name}: {len(result.classes)} people, {result.images} images")
    for name in ("metric", "value", "95 % interval", "chance"):
        table.add_column(name)
    for name, measure in result.measures.items():
        if measure is not None:
            span = "" if measure.low is None else f"{measure.low:.3f} to {measure.high:.3f}"
            chance = result.chance.get(name)
            table.add_row(METRICS[name].label, f"{measure.value:.3f}", span, "" if chance is None else f"{chance:.3f}")
    console.print(table)
    for name in METRICS:
        if name not in result.measures or result.measures[name] is None:
            console.print(f"[dim]{METRICS[name].label} is missing: {escape(result.missing[name])}[/]", highlight=False)
    for metric, network in result.networks.items():
        console.print(f"[dim]{metric}: {escape(network)}[/]", highlight=False)
    for warning in result.warnings:
        console.print(f"[yellow]{escape(warning)}[/]")


@app.command(name="study")
def study(
    file: tyro.conf.Positional[Path],
    out: Path | None = None,
    here: int = 2,
    ray: str | None = None,
    slurm: str | None = None,
    minutes: int = 24 * 60,
    jobs: int = 200,
    slurm_options: Settings = {},  # noqa: B006
    dry_run: bool = False,
    status: bool = False,
    mixed_protocols: bool = False,
    show_private: bool = False,
    settings: Settings = {},  # noqa: B006
) -> None:
    """Run a study: a Python file with a function tasks(). What is done stays done.

    Example: lightleak study studies/demo_faces.py --here 2; how it stands: lightleak study status studies/demo_faces.py

    Args:
        file: the study.
        out: where results are kept (default: runs/NAME); on a cluster, a folder that all its machines see.
        here: processes at a time on this machine.
        ray: run on the Ray cluster at HOST:PORT; "auto" finds this machine's, "local" starts one here.
        slurm: run as Slurm jobs in this partition.
        minutes: time limit of a Slurm job.
        jobs: Slurm jobs at a time.
        slurm_options: further options of sbatch by their long names, such as account.
        dry_run: only say what would run, how long it should take, and how much disk.
        status: only say what is done, at work, failed and to do ("study status FILE" does the same).
        mixed_protocols: let evaluations of several protocols share a table.
        show_private: do not blur private images on the page.
        settings: arguments of the study's tasks(), such as: scale paper data facescrub:PATH prior FOLDER.
    """
    tasks = load_study(file, **_values(settings))
    out = out or Path("runs") / file.stem
    if status:
        return tell_status(study_status(tasks, Store(out)), here)
    if dry_run:
        return tell_plan(plan_study(tasks, Store(out), here), here)
    if ray is not None and slurm is not None:
        raise UserError("a study runs on one cluster: give --ray or --slurm, not both")
    with noted(tasks, out, titled(file), _command(), published_numbers(file)):
        _run(tasks, out, here, partial(_cluster, ray, slurm, Store(out), minutes, jobs, slurm_options))
    _show(out, show_private, mixed_protocols)
    return None


@app.command(name="report")
def report(folder: tyro.conf.Positional[Path], show_private: bool = False, mixed_protocols: bool = False) -> None:
    """Make the page of a study's folder again, from what is finished so far; or one page over a folder of records.

    Example: lightleak report runs/demo, or: lightleak report results

    Args:
        folder: where a study or the demo kept its results; or a folder with records below it.
        show_private: do not blur private images on the page.
        mixed_protocols: let evaluations of several protocols share a table.
    """
    if not (folder / NOTE).exists() and next(folder.rglob("record.json"), None):
        console.print(f"[bold]{overview(folder, folder.resolve().name.capitalize())}[/] shows them all")
        return
    _show(folder, show_private, mixed_protocols)


@app.command(name="doctor")
def doctor_(
    data: str | None = None,
    judge: Path | None = None,
    architecture: str = "timm:resnet18",
    json: bool = False,
    settings: Settings = {},  # noqa: B006
) -> None:
    """What is installed, and whether data and judge are whole and good enough. Exit code 0: yes, 1: no.

    Example: lightleak doctor --data celeba:/data/celeba --judge judge.safetensors

    Args:
        data: a data set to read through: what is missing, damaged or there twice, by name.
        judge: a checkpoint to try on its test images.
        architecture: whose training time to estimate.
        json: print JSON, with the name of every file.
        settings: of the data set's function.
    """
    if judge is not None and data is None:
        raise UserError("a judge is tried on the test images of its data: add --data")
    sections = {"installed": doctor.installed()}
    if data is not None:
        population = _population(data, settings, aloud=False)
        sections[data] = [*doctor.whole(population), *doctor.shared(population)]
        sections[data] += doctor.expected(population, architecture)
        if judge is not None:
            with bar(f"try {judge.name}") as watch:
                sections[judge.name] = doctor.good_judge(load(judge), population, watch)
    bad = sum(line.state == "bad" for lines in sections.values() for line in lines)
    if json:
        print(as_json({name: [asdict(line) for line in lines] for name, lines in sections.items()}, indent=1))
    else:
        for name, lines in sections.items():
            console.print(checked(name, lines))
        console.print("[green]all is well[/]" if not bad else f"[red]{bad} to mend[/]; --json names every file")
    if bad:
        sys.exit(1)


def main(arguments: list[str] | None = None) -> None:
    """Run a verb; bad input is one line and exit code 2, Ctrl-C is 130."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:2] == ["study", "status"] and not Path("status").exists():
        arguments = ["study", "--status", *arguments[2:]]
    try:
        app.cli(prog="lightleak", description=__doc__ and "How much does a vision model leak?", args=arguments)
    except UserError as error:
        Console(stderr=True).print(f"[red]lightleak:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; the same command again continues where it was")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


# --- what verbs share


def _settings(file: Path, out: Path) -> None:
    """PPA's or RoLSS's settings as a Python file or as JSON, and which keys were left out."""
    if out.suffix not in (".py", ".json"):
        raise UserError(f"settings become a .py that runs or a .json, so --out should end so, not {out.name}")
    asked = read_settings(file)
    text = as_python(asked, file.name) if out.suffix == ".py" else asked.to_json()
    publish(out, lambda part: part.write_text(text), "the settings")
    console.print(f"{out}: {asked.kind} of {asked.architecture}", highlight=False)
    for key, why in asked.ignored:
        console.print(f"[yellow]![/] {escape(key)}: {escape(why)}", highlight=False)


def _run(tasks: Iterable[Task], out: Path, workers: int, cluster: Callable[[], Cluster | None] = lambda: None) -> None:
    """Run tasks under a live display; UserError that says what failed."""
    if workers < 1:
        raise UserError(f"at least one process is needed, not {workers}")
    store = Store(out).open()
    with cluster() or nullcontext() as executor, live() as listen:
        retries = 1 if executor is None else 3  # nodes come and go, which is no task's fault
        failures = run_study(list(tasks), store, workers=workers, executor=executor, listen=listen, retries=retries)
    if failures:
        failure = next(iter(failures.values()))
        more = f" ({len(failures)} failed in all)" if len(failures) > 1 else ""
        raise UserError(f"{failure.task.label} failed: {failure.error}{more}; the traceback is in {failure.file}")


def _cluster(
    ray: str | None, slurm: str | None, store: Store, minutes: int, jobs: int, options: dict[str, str]
) -> Cluster | None:
    """The cluster that the flags ask for; None for processes of this machine."""
    if ray is not None:
        return OnRay(ray, study_files())
    if slurm is not None:
        folder = store.root / "slurm"
        return OnSlurm(folder, slurm, study_files(), minutes=minutes, jobs=jobs, options=options)
    return None


def _command() -> str:
    """What was typed, so that it can be typed again."""
    return "lightleak " + " ".join(shlex.quote(argument) for argument in sys.argv[1:])


def _show(out: Path, show_private: bool, mixed_protocols: bool = False) -> None:
    """Print the tables and write the pages of what is finished."""
    study = studied(out)
    if study.missing:
        total = study.missing + len(study.evaluations)
        console.print(f"[yellow]![/] {study.missing} of {total} evaluations are not finished yet")
    for index, results in enumerate(pages(study, mixed_protocols)):
        console.print(terminal(narrowed(main_table(results), console.width)))
        for different in results.unequal:
            console.print(f"[dim]not compared: {escape(different)}[/]", highlight=False)
        for remark in (*results.notes, *results.warnings):
            console.print(f"[yellow]![/] {escape(remark)}", highlight=False)
        open_to_all = results.recipe["population"]["name"] in NOBODY
        place = out if index == 0 else out / f"page-{index + 1}"
        page = write(results, place, show_private or open_to_all)
        console.print(f"[bold]{page}[/] shows it all")


def _values(settings: dict[str, str]) -> dict[str, Any]:
    """Settings as Python values where they read as such, else as text."""
    values: dict[str, Any] = {}
    for name, text in settings.items():
        try:
            values[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[name] = text
    return values


def _population(source: str, settings: dict[str, str], aloud: bool = True) -> data.Population:
    values = _values(settings)
    with bar(f"read {source}") as watch:
        population = data.load(source, **values, watch=watch)
    for note in population.notes if aloud else ():
        console.print(f"[yellow]![/] {escape(note)}", highlight=False)
    return population


def _knowledge(
    target: Classifier,
    folder: Path | None,
    public: str | None,
    settings: dict[str, str],
    distillation: Distillation,
    seed: int,
) -> Knowledge:
    """What is in the folder, or what the public images teach, kept there."""
    if folder and (folder / FEATURES).exists():
        return Knowledge.load(folder)
    if public is None:
        raise UserError("LOMMA learns from public images first; name them with --public, or a folder with --knowledge")
    images = _population(public, settings).public
    scratch = folder / ".training" if folder else None
    with bar("learn from public images") as watch:
        rng = torch.Generator().manual_seed(seed)
        knowledge = learn(Oracle(target), images, distillation, rng, scratch, watch)
    told = ", ".join(f"{share:.0%}" for share in knowledge.agreement)
    console.print(f"students name the target's class on {told} of {len(images)} public images", highlight=False)
    if folder:
        knowledge.save(folder)
        shutil.rmtree(folder / ".training", ignore_errors=True)
    return knowledge


def _classifier(model: str, size: int | None) -> Classifier:
    if ":" in model and not Path(model).exists():
        return zoo.build(model, 1000, size).eval()
    classifier = load(model)
    if size is not None:
        classifier.size = size
    return classifier
