"""Running tasks under a live display, and showing what came of them."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path

import torch
from rich.markup import escape

from lightleak.errors import UserError
from lightleak.place import Place, cards
from lightleak.report import answer, main_table, narrowed, terminal, write
from lightleak.report.study import pages, studied
from lightleak.study import Store, live
from lightleak.study import run as run_study
from lightleak.study.payload import Cluster
from lightleak.study.task import Task
from lightleak.terminal import console

NOBODY = ("faces", "digits")  # painted faces and digits are nobody's: their pages show them as they are


def workers_on(device: str, asked: int | None = None) -> int:
    """Processes at a time on this machine: as asked, else one for each card, else two."""
    if asked is not None and asked < 1:
        raise UserError(f"at least one process is needed, not {asked}")
    return asked or len(cards(device)) or 2


def run_tasks(
    tasks: Iterable[Task],
    out: Path,
    asked: int | None,
    device: str = "auto",
    cluster: Callable[[], Cluster | None] = lambda: None,
) -> None:
    """Run tasks under a live display; UserError that says what failed."""
    workers = workers_on(device, asked)
    store = Store(out).open()
    with cluster() or nullcontext() as executor, live() as listen:
        retries = 1 if executor is None else 3  # nodes come and go, which is no task's fault
        if executor is None and (shared := cards(device)):
            names = ", ".join(f"{card} {Place(torch.device(card)).name}" for card in shared)
            console.print(f"[dim]computing on {escape(names)}: {workers} processes[/]", highlight=False)
        failures = run_study(
            list(tasks), store, workers=workers, executor=executor, listen=listen, retries=retries, device=device
        )
    if failures:
        failure = next(iter(failures.values()))
        more = f" ({len(failures)} failed in all)" if len(failures) > 1 else ""
        raise UserError(f"{failure.task.label} failed: {failure.error}{more}; the traceback is in {failure.file}")


def show(out: Path, show_private: bool, mixed_protocols: bool = False) -> None:
    """Print the tables and write the pages of what is finished."""
    study = studied(out)
    if study.pairs:
        console.print(f"put its pairs of pictures to people: lightleak raters {escape(str(out))}", highlight=False)
    if study.missing:
        total = study.missing + len(study.evaluations)
        console.print(f"[yellow]![/] {study.missing} of {total} evaluations are not finished yet")
    for index, results in enumerate(pages(study, mixed_protocols)):
        table, left = narrowed(main_table(results), console.width)
        console.print(terminal(table))
        if said := answer(results):
            console.print(escape(said), highlight=False)
        if left:
            console.print(
                f"[dim]left out at {console.width} characters, on the page: {', '.join(left)}[/]", highlight=False
            )
        for different in results.unequal:
            console.print(f"[dim]not compared: {escape(different)}[/]", highlight=False)
        for remark in (*results.notes, *results.warnings):
            console.print(f"[yellow]![/] {escape(remark)}", highlight=False)
        open_to_all = results.recipe["population"]["name"] in NOBODY
        place = out if index == 0 else out / f"page-{index + 1}"
        page = write(results, place, show_private or open_to_all)
        console.print(
            f"page [bold]{page}[/], LaTeX {place / 'tables'}/*.tex, figures {place / 'figures'}/*.svg",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
