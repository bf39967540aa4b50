"""`lightleak doctor`: what is installed, whole and good enough."""

import sys
from dataclasses import asdict
from json import dumps as as_json
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from lightleak import doctor, priors
from lightleak.attacks.ppa import PRESETS
from lightleak.cli.arguments import Settings, check_data, computing, population_of, values
from lightleak.cli.kinds import Architecture, Checkpoint, Count, Device, Preset, Prior, Source, Study
from lightleak.cli.running import workers_on
from lightleak.data.portrait import LARGEST
from lightleak.doctor import studies
from lightleak.errors import UserError
from lightleak.models import zoo
from lightleak.models.classifier import load
from lightleak.place import Precision
from lightleak.priors import RenderedPrior
from lightleak.study import load as load_study
from lightleak.study.loading import check_settings
from lightleak.study.photographs import Lacking
from lightleak.terminal import bar, console


@computing
def main(
    data: Source | None = None,
    judge: Checkpoint | None = None,
    architecture: Architecture = "timm:resnet18",
    preset: Preset | None = None,
    study: Study | None = None,
    out: Path | None = None,
    here: Count | None = None,
    prior: Prior = "rendered",
    people: Count = 530,
    precision: Precision = "float32",
    json: bool = False,
    device: Device = "auto",
    settings: Settings = {},  # noqa: B006
) -> None:
    """Check what is installed, and whether data and judge are complete and good enough. Exit code 0: yes, 1: no.

    Example: lightleak doctor --data celeba:/data/celeba --judge judge.safetensors

    Example: lightleak doctor --preset rolss --prior ffhq --architecture timm:resnet101 --device cuda

    Example: lightleak doctor --study studies/paper/tab2_stages.py --settings scale paper data facescrub:PATH prior FFHQ

    Args:
        data: a data set to read through: what is missing, damaged or there twice, by name.
        judge: a checkpoint to try on its test images.
        architecture: whose training time to estimate, and which target a preset attacks.
        preset: settings of PPA, such as rolss: the memory and the time that it takes on this device.
        study: a study's file: all that it lacks, what does not fit, and the room and the time that it will take here.
        out: where the study would keep its results; by default runs/NAME.
        here: of a study: processes at a time on this machine, as it would be run.
        prior: what the preset draws with: "rendered", or the folder of a prior.
        people: whom the preset attacks (with --data: those of the data).
        precision: of the preset's convolutions, as of 'lightleak attack'.
        json: print JSON, with the name of every file.
        device: auto (a GPU where there is one), cpu, cuda, cuda:N or mps.
        settings: of the data set's function; with a study, arguments of its tasks().
    """
    sections = {"installed": doctor.installed()}
    if study is not None:
        sections[study.name] = _of_study(study, out or Path("runs") / study.stem, workers_on(device, here), settings)
    if data is not None:
        population = population_of(data, settings, aloud=False)
        sections[data] = [*doctor.whole(population), *doctor.shared(population)]
        sections[data] += doctor.expected(population, architecture)
        if judge is not None:
            with bar(f"try {judge.name}") as watch:
                sections[judge.name] = doctor.good_judge(load(judge), population, watch)
        people = population.classes or people
    if preset is not None:
        target = zoo.build(architecture, people).eval()
        with bar("try a step of the attack"):
            generator = RenderedPrior(size=min(target.size, LARGEST)) if prior == "rendered" else priors.load(prior)
            told = doctor.attack_expected(preset, PRESETS[preset], generator, target, people, precision)
            sections[f"preset {preset}"] = told
    bad = sum(line.state == "bad" for lines in sections.values() for line in lines)
    if json:
        print(as_json({name: [asdict(line) for line in lines] for name, lines in sections.items()}, indent=1))
    else:
        for name, lines in sections.items():
            console.print(checked(name, lines))
        console.print("[green]all is well[/]" if not bad else f"[red]{bad} to mend[/]; --json names every file")
    if bad:
        sys.exit(1)


def check_arguments(
    data: str | None, judge: Path | None, preset: str | None, study: Path | None, settings: dict[str, str],
    out: Path | None, here: int | None, prior: str, people: int, precision: str,
) -> None:  # fmt: skip
    """UserError, before anything is read, for arguments that do not go together."""
    for name, idle, wanted in (
        ("settings", settings and data is None and study is None, "--data or --study"),
        ("out", out is not None and study is None, "--study"),
        ("here", here is not None and study is None, "--study"),
        ("prior", prior != "rendered" and preset is None, "--preset"),
        ("people", people != 530 and preset is None, "--preset"),
        ("precision", precision != "float32" and preset is None, "--preset"),
    ):
        if idle:
            raise UserError(f"--{name} has no meaning without {wanted}")
    if judge is not None and data is None:
        raise UserError("a judge is tried on the test images of its data: add --data")
    if study is not None:
        if data is not None or preset is not None:
            raise UserError("a study has data and an attack of its own: leave --data and --preset out")
        check_settings(study, values(settings))
    else:
        check_data(data, settings)


def _of_study(file: Path, out: Path, workers: int, settings: dict[str, str]) -> list[doctor.Line]:
    """What is to be said of a study before it runs."""
    try:
        tasks = load_study(file, **values(settings))
    except Lacking as lacking:
        return [doctor.Line("missing", what, "bad") for what in lacking.what]
    lines = studies.whole(tasks, out)
    if any(line.state == "bad" for line in lines):
        return lines
    with bar("try a few steps of each kind") as watch:
        return [*lines, *studies.outlook(tasks, out, workers, watch)]


def checked(title: str, lines: list[doctor.Line]) -> Table:
    """Print what was checked, as a table that wraps in a narrow terminal."""
    signs = {"good": "[green]✓[/]", "note": "[yellow]![/]", "bad": "[red]✗[/]"}
    table = Table(title=escape(title), title_justify="left", show_header=False, box=None, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for line in lines:
        shown = "".join(f"\n  {escape(file)}" for file in line.files[:3])
        more = f"\n  and {len(line.files) - 3:,} more" if len(line.files) > 3 else ""
        table.add_row(signs[line.state], escape(line.what), escape(line.said) + shown + more)
    return table
