"""`lightleak raters`: a study's pairs put to people, on a local page; and what they prefer."""

import json
import threading
import webbrowser
from functools import partial
from pathlib import Path

import tyro
from rich.markup import escape
from rich.table import Table

from lightleak.cli.kinds import Pairs
from lightleak.errors import UserError
from lightleak.files import check_folder, publish
from lightleak.metrics.evidence import Measure
from lightleak.raters import Answers, Asked, Preference, Questions, Serving, asked_of, preference
from lightleak.terminal import console

RESULT = "preference.json"


def main(
    study: tyro.conf.Positional[Pairs],
    seconds: float = 60.0,
    port: int = 0,
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
    asked = asked_of(study)
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


def show(told: Preference, asked: Asked, answers: Answers) -> None:
    """A row a rater, then the preference; the same as JSON beside the answers."""
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
    for line in lines(told):
        console.print(escape(line), highlight=False)
    text = json.dumps(told.to_json(), indent=1, ensure_ascii=False) + "\n"
    publish(asked.folder / RESULT, partial(Path.write_text, data=text, encoding="utf-8"), "the preference")
    console.print(f"[dim]{answers.path} has every answer, {asked.folder / RESULT} these numbers[/]", highlight=False)


def lines(told: Preference) -> list[str]:
    """The preference in words."""
    if told.share is None:
        return ["no answer was given in time"]
    found = [f"the picture from {told.first!r} was preferred to that from {told.second!r} in {_share(told.share)}"]
    alpha = told.why_no_alpha if told.alpha is None else f"{told.alpha:.2f} (1: all alike, 0: as by chance)"
    found.append(f"agreement between raters, Krippendorff's alpha: {alpha}")
    if told.left and told.left.low is not None and not told.left.low <= 0.5 <= (told.left.high or 1):
        found.append(f"the left picture was taken in {_share(told.left)}: sides are random, so this is a habit")
    return found


def _share(measure: Measure) -> str:
    told = f"{100 * measure.value:.1f} %"
    return told if measure.low is None else f"{told} ({100 * measure.low:.0f} to {100 * (measure.high or 0):.0f})"
