"""`lightleak study`: run a file of tasks here or on a cluster, or show what it would do and how far it is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import tyro
from rich.markup import escape
from rich.table import Table

from lightleak.cli.arguments import Settings, command, values
from lightleak.cli.kinds import Count, Device, Study
from lightleak.cli.running import run_tasks, show, workers_on
from lightleak.doctor.studies import refuse
from lightleak.errors import UserError
from lightleak.forecast import expected
from lightleak.metrics.registry import METRICS
from lightleak.place import choose
from lightleak.report.power import KNOWN, MOST, check_effect, sizes, varied
from lightleak.report.study import place_of, recorded, settings_of
from lightleak.shipped import study_file
from lightleak.study import OnRay, OnSlurm, Schedule, Status, Store, study_files
from lightleak.study import load as load_study
from lightleak.study import schedule as schedule_of
from lightleak.study import status as study_status
from lightleak.study.loading import check_settings, declared, titled
from lightleak.study.loading import published as published_numbers
from lightleak.study.payload import Cluster
from lightleak.study.progress import duration
from lightleak.study.record import read
from lightleak.study.task import Task, with_needs
from lightleak.study.tasks import Evaluate, Invert
from lightleak.study.tasks.work import counts as counted
from lightleak.terminal import bar, console

TOLD = 40  # tasks that a dry run names


def main(
    file: tyro.conf.Positional[Study],
    out: Path | None = None,
    here: Count | None = None,
    device: Device = "auto",
    ray: str | None = None,
    slurm: str | None = None,
    minutes: Count = 24 * 60,
    jobs: Count = 200,
    slurm_options: Settings = {},  # noqa: B006
    dry_run: bool = False,
    status: bool = False,
    plan: bool = False,
    effect: float = 10.0,
    power: float = 0.8,
    mixed_protocols: bool = False,
    show_private: bool = False,
    settings: Settings = {},  # noqa: B006
) -> None:
    """Run a study: a Python file with a function tasks(). Finished tasks are not run again.

    Example: lightleak study studies/demo_faces.py --here 2; how it stands: lightleak study status studies/demo_faces.py

    Args:
        file: the study, or the name of one of ours, such as paper/tab2_stages.
        out: where results are kept; by default runs/NAME; on a cluster, a folder that all its machines see.
        here: processes at a time on this machine; by default one for each GPU, 2 where there is none.
        device: auto (a GPU where there is one), cpu, cuda, cuda:N or mps; no part of what a task is.
        ray: run on the Ray cluster at HOST:PORT; "auto" finds this machine's, "local" starts one here.
        slurm: run as Slurm jobs in this partition.
        minutes: time limit of a Slurm job.
        jobs: Slurm jobs at a time.
        slurm_options: further options of sbatch by their long names, such as account.
        dry_run: only say what would run, how long it should take, and how much disk.
        status: only say what is done, at work, failed and to do ("study status FILE" does the same).
        plan: only say how many worlds, people and trainings find an effect ("study plan FILE" does the same).
        effect: the difference to be found, in percentage points.
        power: how often it is to be found, from 0 to 1.
        mixed_protocols: let evaluations of several protocols share a table.
        show_private: do not blur private images on the page.
        settings: arguments of the study's tasks(), such as: scale paper data facescrub:PATH prior FOLDER.
    """
    file, asked = study_file(file), values(settings)
    tasks = load_study(file, **asked)
    out = out or Path("runs") / file.stem
    if status:
        before = settings_of(out, file.stem)
        if before is not None and place_of(out, asked, file.stem) != out:
            console.print(
                f"[yellow]![/] {escape(str(out))} was run with {escape(_as_text(before))}; this is how it stands with "
                f"{escape(_as_text(asked))}",
                highlight=False,
                soft_wrap=True,
            )
        return tell_status(study_status(tasks, Store(out)), workers_on(device, here))
    if plan:
        return tell_sizes(tasks, out, effect / 100, power, declared(file))
    if dry_run:
        workers = workers_on(device, here)
        with choose(device).entered(), bar("try a few steps of each kind") as watch:
            todo = schedule_of(tasks, Store(out), workers)
            seconds = {**todo.seconds, **expected(todo.todo, watch=watch, workers=workers)}
        return tell_plan(replace(todo, seconds=seconds), workers)
    refuse(tasks, out)
    told = (published_numbers(file), declared(file))
    with recorded(tasks, out, titled(file), command(), *told, settings=asked, study=file.stem) as place:
        run_tasks(tasks, out, here, device, partial(_cluster, ray, slurm, Store(out), minutes, jobs, slurm_options))
    show(place, show_private, mixed_protocols)
    return None


def check_arguments(
    file: Path, ray: str | None, slurm: str | None, plan: bool, effect: float, power: float, settings: dict[str, str]
) -> None:
    """UserError, before the study is read, for arguments that do not go together."""
    if ray is not None and slurm is not None:
        raise UserError("a study runs on one cluster: give --ray or --slurm, not both")
    if plan:
        check_effect(effect / 100, power)
    check_settings(file, values(settings))


def _as_text(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items()) or "no settings"


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


def tell_sizes(tasks: Sequence[Task], out: Path, effect: float, wanted: float, primary: Sequence[str]) -> None:
    """Print how large the study must be, given how its own records, or else earlier ones, varied."""
    metric = next(iter(primary), "true@1")
    store, evaluations = Store(out), [task for task in tasks if isinstance(task, Evaluate)]
    done = [task for task in evaluations if store.done(task) and not store.absent(task)]
    known = varied([read(store.folder(task)) for task in done], metric) or KNOWN
    tests = max(1, len({one.found.target.title for one in evaluations}) - 1)
    each, people = seconds_each(tasks, store)
    found = sizes(
        effect, wanted, known, tests, seconds=None if each is None else each * (tests + 1), seconds_people=people
    )
    if not found:
        raise UserError(f"no study of up to {MOST} worlds finds {100 * effect:g} points that often; ask for less")
    label = f"{METRICS[metric].label} ({metric})" if metric in METRICS else metric
    among = "with one defence" if tests == 1 else f"one of {tests} defences"
    table = Table(title=f"to find {100 * effect:g} points of {label} in {wanted:.0%} of studies, {among}")
    for name in ("worlds", "people each", "trainings each", "power", "hours of computing"):
        table.add_column(name, justify="right")
    for one in found:
        hours = "unknown" if one.hours is None else f"{one.hours:.1f}"
        table.add_row(str(one.worlds), str(one.people), str(one.trainings), f"{one.power:.0%}", hours)
    console.print(table)
    corrected = f", corrected for {tests} tests" if tests > 1 else ""
    console.print(f"from {known.source}; paired t over worlds{corrected}", highlight=False)


def seconds_each(tasks: Sequence[Task], store: Store) -> tuple[float | None, float]:
    """What one training with its attacks takes, as recorded or else as expected, and of how many people on average.

    None for the seconds where neither they nor the number of people are known.
    """
    evaluations = [task for task in tasks if isinstance(task, Evaluate)]
    trainings = {one.found.target.key: one.found for one in evaluations}
    people = [count for found in trainings.values() if (count := people_of(found, store))]
    expected = schedule_of(tasks, store).seconds
    made = [store.made(one)["seconds"] for one in with_needs(tasks) if one.key not in expected and store.done(one)]
    total = sum(made) + sum(seconds or 0.0 for seconds in expected.values())
    if not people or not total:
        return None, 1.0
    return total / len(trainings), sum(people) / len(people)


def people_of(found: Invert, store: Store) -> int | None:
    """How many people an attack is on; None where that is not known before its pictures are read."""
    if found.classes is not None:
        return len(found.classes)
    pictures = found.target.population
    if (seen := counted(pictures)) is not None:
        return seen.people
    return store.result(pictures)["classes"] if store.done(pictures) else None


def tell_plan(todo: Schedule, workers: int) -> None:
    """Print what a run would do, by kind of task, with time and disk space."""
    kinds: dict[str, list[Task]] = {}
    for task in todo.todo:
        kinds.setdefault(task.name, []).append(task)
    table = Table(title=f"{len(todo.todo)} tasks to run, {len(todo.done)} found done")
    for name in ("kind", "tasks", "computing", "disk"):
        table.add_column(name, justify="left" if name == "kind" else "right")
    for name, tasks in kinds.items():
        seconds = [todo.seconds[task.key] for task in tasks]
        sizes = [todo.sizes.get(task.key) for task in tasks]
        table.add_row(name, str(len(tasks)), _sum(seconds, duration), _sum(sizes, _size))
    console.print(table)
    for task in todo.todo[:TOLD]:
        console.print(f"  {escape(task.label)}", highlight=False)
    if len(todo.todo) > TOLD:
        console.print(f"  and {len(todo.todo) - TOLD} more", highlight=False)
    seconds, size = todo.total(workers), todo.bytes()
    told = "unknown" if seconds is None else f"about {duration(seconds)} on {workers} processes"
    disk = "unknown" if size is None else f"about {_size(size)} more"
    console.print(
        f"time: {told}; disk: {disk} (from a few steps of each kind here, and earlier results)", highlight=False
    )


def tell_status(found: Status, workers: int) -> None:
    """Print what is done, running, failed and still to do."""
    table = Table(title=f"{len(found.done)} tasks done, {len(found.plan.todo)} not")
    for name in ("kind", "done", "failed", "to do"):
        table.add_column(name, justify="left" if name == "kind" else "right")
    for name, counts in found.kinds().items():
        table.add_row(name, *(str(counts[column]) for column in ("done", "failed", "to do")))
    console.print(table)
    for work in found.at_work:
        share = "" if work.share is None else f", {work.share:.0%}"
        silent = f", silent for {duration(work.silent)}" if work.silent > 60 else ""
        console.print(
            f"[cyan]▸[/] {escape(work.label)}{share}, for {duration(work.seconds)} on {escape(work.machine)}{silent}",
            highlight=False,
        )
    for failed in found.failed:
        console.print(
            f"[red]✗[/] {escape(failed.task.label)}: {escape(failed.error)}\n  {escape(str(failed.file))}",
            highlight=False,
            soft_wrap=True,
        )
    seconds = found.plan.total(workers)
    if found.plan.todo:
        told = "unknown" if seconds is None else f"about {duration(seconds)} on {workers} processes"
        guess = "" if found.done or seconds is None else " (a guess, as none has run yet; --dry-run measures)"
        console.print(f"time left: {told}{guess}", highlight=False)


def _sum(numbers: list[float | None], write: Callable[[float], str]) -> str:
    """The sum as text; a plus if some are unknown, a question mark if all are."""
    known = [number for number in numbers if number is not None]
    return write(sum(known)) + ("" if len(known) == len(numbers) else " +") if known else "?"


def _size(count: float) -> str:
    """Bytes as people say them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
