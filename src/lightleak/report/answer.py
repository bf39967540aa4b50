"""The top of a page: whose model and which people, and the result in one sentence."""

from collections.abc import Mapping
from typing import Any

from lightleak.report.results import Column, Difference, Results, Row, known
from lightleak.report.verdicts import LEAST, verdict
from lightleak.report.whose import percent

WHOM = {"faces": "rendered people, none of them real", "digits": "handwritten digits"}  # by population
MAIN = ("hits@1", "true@1")  # by what the first sentence speaks: what was declared of them, else what was measured


def subject(results: Results) -> str:
    """Whose model and which people: "timm:resnet18, trained on 20 rendered people, attacked by PPA"; "" if unknown."""
    recipe = results.recipe
    people, attack = _part(recipe, "population"), _part(recipe, "attack")
    if not recipe.get("architecture") or not people.get("classes"):
        return ""
    by = attack.get("title") or attack.get("name")
    whom = WHOM.get(people.get("name", ""), "people of “{name}”").format(**people)
    worlds = _part(people, "settings").get("seed")
    times = f", in each of {len(worlds)} worlds" if isinstance(worlds, list) else ""
    told = f"{recipe['architecture']}, trained on {people['classes']} {whom}{times}"
    attacked = len(attack.get("classes") or ())
    some = f" {attacked} of them" if 0 < attacked < people["classes"] else ""
    return f"{told},{some} attacked by {by}" if by else told


def answer(results: Results) -> str:
    """One sentence: how much the first target leaks, against a guess, and which defences are shown to change it."""
    declared = [name for name in results.primary if name in MAIN]
    column = next((c for name in (*declared, *MAIN) if (c := results.column(name)) is not None), None)
    first = next((row for row in results.targets() if row.name == results.baseline), None)
    first = first or next(iter(results.targets()), None)
    leak = first.measures.get(column.name) if first and column else None
    if column is None or first is None or leak is None:
        return ""
    who = "The judge recognises" if column.name == "hits@1" else "The truth finds"
    guess = _chance(results, column)
    share, of_all, people = f"{percent(leak.value)} of what was reconstructed", "", results.whose.get(first.name)
    if people and people.unanswered and people.answered:  # of nobody is 0 % of anything
        share, of_all = str(people.of_answered(leak.value)), f", {people.of_attacked(leak.value)}"
    told = f"{who} the right person in {share} from “{first.name}”{of_all}{guess}"
    return f"{told}{_changes(results, column)}."


def _changes(results: Results, column: Column) -> str:
    """What is said of the other targets."""
    compared = [one for one in results.differences if one.column == column.name]
    if not compared:
        return ""
    if not any(one.units for one in compared):
        return "; on how many trainings differences rest this older record does not say, so none is named"
    if all(one.units < LEAST for one in compared):
        return "; with one training of each, differences speak of these networks and not of their defences"
    verdicts = {one.row: verdict(one, column) for one in compared}
    parts = [f"{word} from {', '.join(_by(one) for one in compared if verdicts[one.row] == word)}"
             for word in ("less leak", "more leak") if word in verdicts.values()]  # fmt: skip
    open_ = [one.row for one in compared if not verdicts[one.row]]
    if open_:
        parts.append(f"no difference is shown for {_listed(open_)}")
    return "; " + "; ".join(parts).replace("less leak", "less leaks").replace("more leak", "more leaks")


def _by(one: Difference) -> str:
    return f"{one.row} ({100 * one.value:+.0f} points)".replace("-", "−")


def _listed(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{len(names)} others"


def _chance(results: Results, column: Column) -> str:
    rows: list[Row] = [row for row in results.rows if row.kind == "chance"]
    level = next((m for row in rows if (m := row.measures.get(column.name)) is not None), None)
    return f" (a guess: {percent(level.value)})" if level is not None and known(level.value) else ""


def _part(recipe: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = recipe.get(name)
    return found if isinstance(found, Mapping) else {}
