"""The console that everything is shown on, and its bars."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from lightleak.study.progress import EVERY, animated, duration

console = Console()


@contextmanager
def bar(label: str, shown_on: Console | None = None) -> Iterator[Callable[..., None]]:
    """A progress bar with the time left; a `watch` function to move it. Where none can be drawn, a line a minute."""
    shown_on = shown_on or Console(stderr=True, force_jupyter=False)
    if not animated(shown_on):
        yield _by_the_minute(label, shown_on)
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
        console=shown_on,
        transient=True,
    ) as bars:
        task = bars.add_task(label, total=1, note="")

        def watch(step: int, total: int | None = None, **numbers: float) -> None:
            bars.update(task, completed=step, total=total or step, note=_numbers(numbers))

        yield watch


def _by_the_minute(label: str, shown_on: Console, clock: Callable[[], float] = time.monotonic) -> Callable[..., None]:
    """A `watch` function that writes how far the work is, and how long it will still take, once a minute."""
    began = last = clock()

    def watch(step: int, total: int | None = None, **numbers: float) -> None:
        nonlocal last
        now = clock()
        if now - last < EVERY:
            return
        last = now
        left = f", {duration((now - began) * (total - step) / step)} left" if total and step else ""
        told = f"{escape(label)} {step}/{total or '?'}{left}  {_numbers(numbers)}".rstrip()
        shown_on.print(told, highlight=False, soft_wrap=True)

    return watch


def _numbers(numbers: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3g}" for name, value in list(numbers.items())[:3])
