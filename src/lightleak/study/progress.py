"""The terminal's view of a run: one bar for the whole with an estimate, one for each task at work."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, Task, TextColumn
from rich.text import Text

from lightleak.study.run import Event

NUMBERS_SHOWN = 3
EVERY = 60.0  # seconds between lines where no bar can be drawn


def animated(console: Console) -> bool:
    """Whether progress bars can move: on a terminal, not in a log file, a notebook or continuous integration."""
    watched = console.is_terminal and not console.is_jupyter and not console.is_dumb_terminal
    return watched and not os.environ.get("CI")


def lines(console: Console, clock: Callable[[], float] = time.monotonic) -> Callable[[Event], None]:
    """A listener that writes a line for each task that ended, and one a minute about a task that goes on."""
    last = clock()

    def listen(event: Event) -> None:
        nonlocal last
        if event.kind in ("finished", "failed", "damaged"):
            _line(console, event)
            last = clock()
        elif event.kind == "progress" and clock() - last >= EVERY:
            last = clock()
            share = f" {event.step / event.steps:.0%}" if event.steps else f" step {event.step}"
            left = "" if event.left is None else f", {duration(event.left)} left"
            told = f"… {escape(event.task.label)}{share}; {event.done} of {event.total} tasks done{left}"
            console.print(told, highlight=False, soft_wrap=True)

    return listen


@contextmanager
def live(console: Console | None = None) -> Iterator[Callable[[Event], None]]:
    """Shows a run while it lasts: `with live() as listen: run(tasks, store, listen=listen)`.

    On a terminal, bars; elsewhere (a log file, a notebook, continuous integration) a line for each task that ended, and
    a line a minute.
    """
    console = console or Console(stderr=True, force_jupyter=False)
    if not animated(console):
        yield lines(console)
        return
    with Progress(
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        _Left(),
        TextColumn("[dim]{task.fields[note]}"),
        console=console,
        transient=False,
    ) as bars:
        whole = bars.add_task("[bold]all tasks", total=None, note="", ends=None)
        shown = {}

        def listen(event: Event) -> None:
            key, label = event.task.key, escape(event.task.label)
            ends = None if event.left is None else time.monotonic() + event.left
            bars.update(whole, total=event.total, completed=event.done, ends=ends)
            bars.update(whole, note=f"{event.done} of {event.total} done")
            if event.kind == "started" and key not in shown:
                shown[key] = bars.add_task(label, total=None, note="", ends=None)
            elif event.kind == "progress" and key in shown:
                bars.update(shown[key], completed=event.step, total=event.steps, note=_numbers(event))
            elif event.kind in ("finished", "failed") and key in shown:
                bars.remove_task(shown.pop(key))
            if event.kind in ("finished", "failed", "damaged"):
                _line(bars.console, event)

        yield listen


class _Left(TextColumn):
    """Time left of the whole (as estimated from all tasks), share done of the others."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        if (ends := task.fields["ends"]) is not None and not task.finished:
            return Text(f"{duration(max(0.0, ends - time.monotonic()))} left", style="cyan")
        return Text("" if task.total is None else f"{task.percentage:.0f} %")


def duration(seconds: float) -> str:
    """Seconds in words: 8 s, 2:05 min, 3:10 h."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 or seconds == 0 else f"{seconds:.1f} s"
    hours, rest = divmod(timedelta(seconds=round(seconds)).total_seconds(), 3600)
    if hours:
        return f"{hours:.0f}:{rest // 60:02.0f} h"
    return f"{rest // 60:.0f}:{rest % 60:02.0f} min"


def _numbers(event: Event) -> str:
    return "  ".join(f"{name} {value:.3g}" for name, value in list(event.numbers.items())[:NUMBERS_SHOWN])


def _line(console: Console, event: Event) -> None:
    label = escape(event.task.label)
    if event.kind == "finished":
        console.print(f"[green]✓[/] {label} [dim]{duration(event.seconds or 0)}", highlight=False)
    elif event.kind == "failed":
        console.print(f"[red]✗[/] {label}: {escape(event.error)}", highlight=False, soft_wrap=True)
    elif event.kind == "damaged":
        console.print(f"[yellow]![/] {label}: {escape(event.error)}; made anew", highlight=False, soft_wrap=True)
