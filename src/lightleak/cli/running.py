"""Run tasks under a live display, and show their results."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from rich.markup import escape

from lightleak.errors import UserError
from lightleak.place import Place, cards
from lightleak.raters import Answers, Preference, in_words, pairs_to_rate, preference
from lightleak.report import Results, answer, main_table, narrowed, terminal, write
from lightleak.report.study import Studied, pages, studied
from lightleak.study import Store, live
from lightleak.study import run as run_study
from lightleak.study.payload import Cluster
from lightleak.study.task import Task
from lightleak.terminal import console

NOBODY = ("faces", "digits")  # painted faces and digits are nobody's: their pages show them as they are


def workers_on(device: str, asked: int | None = None) -> int:
    """The number of parallel processes on this machine: as asked, else one per GPU, else two."""
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
    for place, results in _placed(study, out, mixed_protocols):
        table, left = narrowed(main_table(results), console.width)
        console.print(terminal(table))
        if said := answer(results):
            console.print(escape(said), highlight=False)
        for sentence in results.sentences:
            console.print(escape(sentence), highlight=False)
        if left:
            console.print(
                f"[dim]left out at {console.width} characters, on the page: {', '.join(left)}[/]", highlight=False
            )
        for different in results.unequal:
            console.print(f"[dim]not compared: {escape(different)}[/]", highlight=False)
        for sentence in results.raters:
            console.print(escape(sentence), highlight=False)
        for remark in (*results.notes, *results.warnings):
            console.print(f"[yellow]![/] {escape(remark)}", highlight=False)
        page = write(results, place, show_private or _open_to_all(results))
        console.print(
            f"page [bold]{page}[/], LaTeX {place / 'tables'}/*.tex, figures {place / 'figures'}/*.svg",
            highlight=False, soft_wrap=True,
        )  # fmt: skip


def renewed(out: Path) -> list[Path]:
    """Write the pages of a study again with the answers of raters; private images are blurred."""
    study = studied(out)
    return [write(results, place, _open_to_all(results)) for place, results in _placed(study, out)]


def _open_to_all(results: Results) -> bool:
    return results.recipe["population"]["name"] in NOBODY


def _placed(study: Studied, out: Path, mixed_protocols: bool = False) -> Iterator[tuple[Path, Results]]:
    """The pages of a study, each with its folder; what raters preferred stands where the targets of their pairs do."""
    found = list(pages(study, mixed_protocols))
    for one in filter(None, map(_preferred, study.pairs)):
        fits = [{one.first, one.second} <= {row.name for row in results.rows} for results in found]
        place = fits.index(True) if True in fits else 0
        found[place] = replace(found[place], raters=(*found[place].raters, *in_words(one)))
    for index, results in enumerate(found):
        yield out if index == 0 else out / f"page-{index + 1}", results


def _preferred(pairs: Path) -> Preference | None:
    """What raters said of a folder of pairs; None as long as nobody was asked."""
    asked = pairs_to_rate(pairs)
    answers = Answers(asked.folder).read()
    return preference(asked.pairs, answers) if answers else None
