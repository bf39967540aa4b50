"""When a difference counts as shown: by its interval, its p corrected for all comparisons, and several trainings."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lightleak.metrics.evidence import holm
from lightleak.report.results import Column, Difference, counted, known

SURELY = 0.05  # a corrected p value below names a difference
LEAST = 2  # trainings (or worlds) that speak of a defence; one speaks of these trained networks


def corrected(differences: Sequence[Difference]) -> tuple[Difference, ...]:
    """The differences with p values corrected by Holm's method over the targets of each column."""
    found = list(differences)
    for column in dict.fromkeys(one.column for one in differences):
        places = [i for i, one in enumerate(differences) if one.column == column and known(one.p)]
        for place, p in zip(places, holm([differences[i].p or 0.0 for i in places])):
            found[place] = replace(found[place], corrected=p)
    return tuple(found)


def verdict(difference: Difference, column: Column) -> str:
    """The direction of a clear difference; empty unless interval, corrected p and number of trainings agree."""
    low, high, p = difference.low, difference.high, difference.corrected
    if not (known(low) and known(high) and known(p)) or not (low > 0 or high < 0):
        return ""
    if p >= SURELY or difference.units < LEAST:
        return ""
    if column.leak == 0:
        return "higher" if difference.value > 0 else "lower"
    return "more leak" if difference.value * column.leak > 0 else "less leak"


def standing(difference: Difference, tried: int = 1) -> str:
    """The text beside a difference: its p, corrected if several were `tried`, and the number of trainings."""
    if not known(difference.p):
        return ""
    p = stated(difference.p)
    if tried > 1 and known(difference.corrected):
        p += f" ({rounded(difference.corrected)} of {tried})"
    if difference.worlds and difference.trainings > 1:
        return f"{p}, {difference.trainings} trainings in each of {difference.worlds} worlds"
    if difference.worlds:
        return f"{p}, {difference.worlds} worlds"
    if not difference.trainings:
        return f"{p}, trainings unknown"
    return f"{p}, {counted(difference.trainings, 'training')}"


def rounded(p: float) -> str:
    """A p value as text: two digits, never zero."""
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def stated(p: float) -> str:
    """A p value as a statement: "p = 0.012", "p < 0.001"."""
    return "p < 0.001" if p < 0.001 else f"p = {rounded(p)}"


def families(differences: Sequence[Difference]) -> Mapping[str, int]:
    """How many differences of each column were tested."""
    columns = [one.column for one in differences if known(one.p)]
    return {column: columns.count(column) for column in dict.fromkeys(columns)}
