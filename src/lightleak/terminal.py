"""What the command line shows in a terminal: bars, and tables of what is found, planned and done."""

from collections.abc import Callable
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from lightleak import doctor
from lightleak.study import Plan, Status
from lightleak.study.progress import duration
from lightleak.study.task import Task

console = Console()
TOLD = 40  # tasks that a dry run names


@contextmanager
def bar(label: str):
    """A progress bar with the time left; a `watch` function to move it."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
        console=Console(stderr=True),
        transient=True,
    ) as bars:
        task = bars.add_task(label, total=1, note="")

        def watch(step: int, total: int | None = None, **numbers: float) -> None:
            note = "  ".join(f"{name} {value:.3g}" for name, value in list(numbers.items())[:3])
            bars.update(task, completed=step, total=total or step, note=note)

        yield watch


def checked(title: str, lines: list[doctor.Line]) -> Table:
    """What was looked at, as a table that wraps in a narrow terminal."""
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


def tell_plan(todo: Plan, workers: int) -> None:
    """What a run would do, by kind of task, with time and disk."""
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
    console.print(f"time: {told}; disk: {disk} (from earlier results; before the first, only guesses)", highlight=False)


def tell_status(found: Status, workers: int) -> None:
    """What is done, at work, failed and to do."""
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
        console.print(f"time left: {told}", highlight=False)


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


def ends(owner: str, modules: tuple[str, ...]) -> str:
    """The first and the last of some modules, as their owner calls them."""
    own = [name.removeprefix(f"{owner}.") for name in modules]
    return own[0] if len(own) == 1 else f"{own[0]} … {own[-1]}" if own else ""
