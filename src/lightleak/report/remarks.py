"""Warnings of a page: one remark for each measure; what concerns a column becomes a note below its table."""

import re
from collections.abc import Iterable, Mapping, Sequence

from lightleak.metrics.evaluation import Unshown

Notes = dict[str, tuple[str, ...]]  # by column

# Of records that were written before remarks were merged.
OF_DELTA = re.compile(r"(^|: )Delta (=|is undefined)")
OF_NULL = re.compile(
    r"^(?:(?P<rows>.+): )?(?P<label>[^:]+?) is not clearly worse than that of the null '(?P<null>.+)': "
)
AS_OF = "AttAcc@1"  # the column that an older Delta is a note of, by its heading


def of_leaks(found: Mapping[str, Sequence[Unshown]]) -> list[str]:
    """One remark for each measure by which some targets are not shown to leak, from the findings by target."""
    by_measure: dict[str, list[tuple[str, Unshown]]] = {}
    for name, unshown in found.items():
        for one in unshown:
            by_measure.setdefault(one.label, []).append((name, one))
    told = []
    for label, those in by_measure.items():
        who = "any target" if len(those) == len(found) > 1 else ", ".join(name for name, _ in those)
        counts = ", ".join(f"{one.hits} of {one.trials}" for _, one in those)
        p = min(one.p for _, one in those)
        told.append(
            f"{label} shows no leak of {who}: {counts} images, where a guess gets {100 * those[0][1].chance:.3g} % "
            f"of them (p = {p:.2g}{' at least' if len(those) > 1 else ''})"
        )
    return told


def sorted_out(remarks: Iterable[str], columns: Mapping[str, str]) -> tuple[tuple[str, ...], Notes]:
    """The remarks of an older record, rearranged: both nulls of a measure in one, and Delta as a note to its column.

    `columns` are the headings of columns, by name.
    """
    kept: dict[str, None] = {}
    nulls: dict[str, dict[str, None]] = {}
    deltas: list[str] = []
    for text in remarks:
        if OF_DELTA.search(text):
            deltas.append(text)
        elif found := OF_NULL.match(text):
            for row in re.split(r", (?![^()]*\))", found["rows"] or "any target"):
                nulls.setdefault(found["label"], {}).setdefault(row)
        else:
            kept.setdefault(text)
    merged = [
        f"{label} shows no leak of {', '.join(rows)}: it is not clearly above that of images that know nothing"
        for label, rows in nulls.items()
    ]
    place = next((name for name, label in columns.items() if label == AS_OF), next(iter(columns), ""))
    return (*kept, *merged), ({place: tuple(deltas)} if deltas and place else {})
