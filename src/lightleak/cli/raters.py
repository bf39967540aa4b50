"""`lightleak raters`: show people a study's pairs on a local page, and report what they prefer."""

import json
import threading
import webbrowser
from functools import partial
from pathlib import Path

import tyro
from rich.markup import escape
from rich.table import Table

from lightleak.cli.kinds import Pairs, Port, Seconds
from lightleak.cli.running import renewed
from lightleak.errors import UserError
from lightleak.files import check_folder, publish
from lightleak.raters import Answers, PairsToRate, Preference, Questions, Serving, in_words, pairs_to_rate, preference
from lightleak.report.study import NOTE, pairs_of
from lightleak.terminal import console

RESULT = "preference.json"


def main(
    study: tyro.conf.Positional[Pairs],
    seconds: Seconds = 60.0,
    port: Port = 0,
    results: bool = False,
    browser: bool = False,
) -> None:
    """Ask people which of two reconstructions looks more like the person; Ctrl-C ends it and shows what they prefer.

    The page is for browsers on this machine alone; nothing leaves it. Answers are written as they come, and each rater
    goes on under the same name.

    Example: lightleak raters runs/tab10_user_study

    Args:
        study: a study with pairs (its folder or its file), or a folder of pairs.
        seconds: how long a pair is shown.
        port: of this machine's loopback; 0 takes a free one.
        results: only show what was answered so far.
        browser: open the page in this machine's browser.
    """
    asked = pairs_to_rate(study)
    answers = Answers(asked.folder)
    answers.read()  # a damaged file is said before anybody is asked
    if not results:
        check_folder(asked.folder, "the raters' answers")
        _serve(Questions(asked.pairs, answers, seconds), port, browser)
    told = preference(asked.pairs, answers.read())
    if not told.raters:
        if results:
            raise UserError(
                f"nobody has answered yet; 'lightleak raters {study}' puts {len(asked.pairs)} pairs to people"
            )
        console.print("nobody answered")
        return
    show(told, asked, answers)
    for home in _homes(asked):
        for page in renewed(home):
            console.print(f"[dim]page {page} shows them too[/]", highlight=False, soft_wrap=True)


def _homes(asked: PairsToRate) -> list[Path]:
    """The folders whose pages tell of these pairs."""
    root = asked.folder.parent.parent
    homes = [note.parent for note in sorted([*root.glob(NOTE), *root.glob(f"*/{NOTE}")])]
    paged = [home for home in homes if (home / "report.html").is_file()]
    return [home for home in paged if asked.folder.name in {place.name for place in pairs_of(home)}]


def _serve(questions: Questions, port: int, browser: bool) -> None:
    with Serving(questions, port) as serving:
        console.print(f"{len(questions.pairs)} pairs at [bold]{serving.address}[/]", highlight=False, soft_wrap=True)
        console.print("[dim]for browsers on this machine alone; Ctrl-C ends it and shows the results[/]")
        if browser:
            threading.Thread(target=webbrowser.open, args=(serving.address,), daemon=True).start()
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            console.print()


def show(told: Preference, asked: PairsToRate, answers: Answers) -> None:
    """Print a row for each rater, then the preference; write the same as JSON beside the answers."""
    table = Table(title=f"{told.answers} answers to {told.pairs} of {len(asked.pairs)} pairs")
    for name in ("rater", "answers", "no answer in time", f"took {told.first}"):
        table.add_column(escape(name), justify="left" if name == "rater" else "right")
    names, everything = {pair.name for pair in asked.pairs}, answers.read().values()
    for rater in told.raters:
        mine = [one.chosen for one in everything if one.rater == rater and one.pair in names]
        given = [one for one in mine if one is not None]
        share = f"{given.count(told.first) / len(given):.0%}" if given else "–"
        table.add_row(escape(rater), str(len(given)), str(len(mine) - len(given)), share)
    console.print(table)
    for line in in_words(told):
        console.print(escape(line), highlight=False)
    text = json.dumps(told.to_json(), indent=1, ensure_ascii=False) + "\n"
    publish(asked.folder / RESULT, partial(Path.write_text, data=text, encoding="utf-8"), "the preference")
    console.print(f"[dim]{answers.path} has every answer, {asked.folder / RESULT} these numbers[/]", highlight=False)
