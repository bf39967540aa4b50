"""The console that everything is shown on, and its bars."""

from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

console = Console()


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
