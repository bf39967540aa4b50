"""Tables as data, and as text for the terminal, CSV and LaTeX."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rich.table import Table as TerminalTable
from rich.text import Text

from lightleak.metrics.evidence import Measure
from lightleak.metrics.frontier import STOPPED
from lightleak.report.glossary import columns as described
from lightleak.report.glossary import current
from lightleak.report.results import (
    MISSING,
    Column,
    Difference,
    Level,
    Results,
    clean,
    heading,
    known,
    number,
    short_span,
    span,
)
from lightleak.report.verdicts import corrected, families

Cell = Measure | Difference | str | None

LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "−": r"$-$",
    "–": "--",
}


@dataclass(frozen=True)
class Line:
    """One line of a table."""

    name: str
    kind: str
    cells: tuple[Cell, ...]  # one for each column
    why: tuple[str, ...]  # for each column, why its cell is empty
    detail: str = ""


@dataclass(frozen=True)
class Table:
    """A table independent of its output format."""

    name: str  # also of its files
    title: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    signed: bool = False  # differences
    note: str = ""  # how it was tested


def tables(results: Results) -> tuple[Table, ...]:
    """All tables of a page: the main one, and if there are any, verdicts, paired differences, and those at equal
    accuracy.
    """
    found = (main_table(results), verdict_table(results), difference_table(results), level_table(results))
    return tuple(table for table in found if table is not None)


def main_table(results: Results) -> Table:
    """Every target, null and chance level by every metric that any has; nulls only if they have values."""
    columns = tuple(current(c) for c in results.columns if any(r.measures.get(c.name) for r in results.rows))
    lines = [
        Line(
            row.name,
            row.kind,
            tuple(_measured(row.measures.get(column.name)) for column in columns),
            tuple(row.missing.get(column.name, "") for column in columns),
            row.detail,
        )
        for kind in ("target", "reference", "null", "chance")
        for row in results.rows
        if row.kind == kind and (kind == "target" or row.missing or any(row.measures.get(c.name) for c in columns))
    ]
    return Table("main", "How much each target leaks", columns, tuple(lines))


def verdict_table(results: Results) -> Table | None:
    """Which defence is real, hiding or a trade, by each measure; None where nobody asked that."""
    table = {(one.row, one.column): one for one in results.verdicts}
    found: list[Column] = []
    metrics = list(dict.fromkeys(one.column for one in results.verdicts))
    for column in described(*metrics):
        against = f"{column.label}, strongest attack, against the undefended network"
        found += [
            Column(f"verdict {column.name}", f"verdict by {column.label}", essential=True),
            replace(column, name=f"against {column.name}", label=against, words="", signed=True, essential=True),
        ]
    lines = []
    for row in [row for row in results.rows if any(row.name == name for name, _ in table)]:
        cells: list[Cell] = []
        for one in (table.get((row.name, metric)) for metric in metrics):
            cells += [one.word if one else None, one.against if one else None]
        lines.append(Line(row.name, row.kind, tuple(cells), ("",) * len(cells)))
    return Table("verdicts", "Which defence is real", tuple(found), tuple(lines), signed=True) if lines else None


def difference_table(results: Results) -> Table | None:
    """Target minus baseline over the same people, None if nothing was compared."""
    table = {(one.row, one.column): one for one in results.differences}
    if not table:
        return None
    columns = tuple(current(c) for c in results.columns if any(c.name == column for _, column in table))
    rows = [row for row in results.rows if any(row.name == name for name, _ in table)]
    lines = tuple(
        Line(row.name, row.kind, tuple(table.get((row.name, c.name)) for c in columns), ("",) * len(columns))
        for row in rows
    )
    return Table(
        "differences",
        f"Paired differences to {clean(results.baseline)}",
        columns,
        lines,
        signed=True,
        note=_tested(results),
    )


def _tested(results: Results) -> str:
    """How the differences were tested, in words."""
    tried = max(families(results.differences).values(), default=0)
    said = []
    units = Counter((one.trainings, one.worlds) for one in results.differences)
    side_by_side = [pair for pair in units if pair[0] > 1 and pair[1]]
    over_worlds = [pair for pair in units if pair[0] <= 1 and pair[1]]
    if side_by_side:
        how = " or ".join(f"{trainings} trainings in each of {worlds} worlds" for trainings, worlds in side_by_side)
        said.append(f"{how[0].upper()}{how[1:]}, whose people stand side by side.")
    if over_worlds:
        rest = "Elsewhere one" if side_by_side else "One"
        count = " or ".join(str(worlds) for _, worlds in over_worlds)
        said.append(f"{rest} paired difference a world, Student's t over {count} worlds.")
    if set(units) == {(1, 0)}:
        said.append("One training of each: this speaks of these trained networks, not of the defences; no verdict.")
    if tried > 1:
        said.append(f"p in brackets: Holm's, over the {tried} targets of a column.")
    primary = [column.label for column in results.columns if column.name in results.primary]
    if primary:
        said.append(f"Declared before it ran: {', '.join(primary)}. Everything else is secondary.")
    return " ".join(said)


def level_table(results: Results) -> Table | None:
    """Target and baseline at the highest natural accuracy that both reach, None if there are no checkpoints."""
    utility = results.column(results.utility)
    if not results.levels or utility is None:
        return None
    leaks = [column for column in results.columns if any(one.column == column.name for one in results.levels)]
    beside = clean(results.baseline)
    columns = [replace(utility, label=f"at {utility.label}")]
    for leak in leaks:
        columns += [
            leak,
            replace(leak, name=f"{leak.name} baseline", label=f"{leak.label} of {beside} there"),
            replace(leak, name=f"{leak.name} difference", label=f"{leak.label}, difference", signed=True),
        ]
    gaps = {(one.row, one.column): _nameable(one) for one in corrected(list(map(_as_difference, results.levels)))}
    lines = []
    for row in results.rows:
        own = {one.column: one for one in results.levels if one.row == row.name}
        if not own:
            continue
        cells: list[Cell] = [Measure(next(iter(own.values())).accuracy)]
        for leak in leaks:
            one = own.get(leak.name)
            cells += [one.target, one.baseline, gaps[row.name, leak.name]] if one else [None, None, None]
        lines.append(Line(row.name, row.kind, tuple(cells), ("",) * len(columns)))
    return Table("equal-accuracy", f"Against {beside} at equal natural accuracy", tuple(columns), tuple(lines))


def _as_difference(level: Level) -> Difference:
    gap, units = level.difference, {"trainings": level.trainings, "worlds": level.worlds}
    return Difference(level.row, level.column, gap.value, gap.low, gap.high, level.p, **units)


def _nameable(gap: Difference) -> Difference:
    """A difference at equal natural accuracy; below what being stopped alone may move it, it has no corrected p."""
    return gap if abs(gap.value) >= STOPPED else replace(gap, corrected=None)


def _measured(measure: Measure | None) -> Measure | None:
    return measure if measure is not None and known(measure.value) else None


def write_cell(cell: Cell, column: Column, signed: bool = False) -> tuple[str, str]:
    """The number and its interval, as text."""
    if cell is None:
        return MISSING, ""
    if isinstance(cell, str):
        return cell, ""
    signed = signed or column.signed
    return number(cell.value, column, signed), span(cell.low, cell.high, column, signed)


ROOM = 12  # characters that a column takes in a terminal, its frame included
NAMES = 22  # characters that names take at most
TOGETHER = 5  # columns that fit beside each other on a sheet of paper


def of_columns(table: Table, places: Sequence[int]) -> Table:
    """The table reduced to the columns at these places."""
    lines = tuple(
        replace(line, cells=tuple(line.cells[i] for i in places), why=tuple(line.why[i] for i in places))
        for line in table.lines
    )
    return replace(table, columns=tuple(table.columns[i] for i in places), lines=lines)


def by_weight(table: Table) -> list[int]:
    """The places of a table's columns, essential ones first."""
    return sorted(range(len(table.columns)), key=lambda place: not table.columns[place].essential)


def narrowed(table: Table, width: int) -> tuple[Table, tuple[str, ...]]:
    """The table with as many columns, essential ones first, as a terminal of `width` characters has room for, and the
    headings of those that are left out; the page has them all.
    """
    names = min(NAMES, max((len(clean(line.name)) for line in table.lines), default=0))
    room = max(1, (width - names - 3) // ROOM)
    order = by_weight(table)
    kept, left = sorted(order[:room]), sorted(order[room:])
    return of_columns(table, kept), tuple(table.columns[place].label for place in left)


def in_parts(table: Table, count: int = TOGETHER) -> list[Table]:
    """The table divided into tables of at most `count` columns, essential ones first; one with fewer stays as it is."""
    order = by_weight(table)
    first, *rest = [of_columns(table, order[start : start + count]) for start in range(0, max(1, len(order)), count)]
    return [first, *(replace(part, lines=tuple(line for line in part.lines if any(line.cells))) for part in rest)]


def terminal(table: Table) -> TerminalTable:
    """The table for a rich console: each number above its 95 % interval."""
    drawn = TerminalTable(title=table.title, title_justify="left", title_style="bold", pad_edge=False)
    longest = max((len(clean(line.name)) for line in table.lines), default=0)
    drawn.add_column("", min_width=min(NAMES, longest), max_width=NAMES)
    for column in table.columns:
        drawn.add_column(heading(column).replace(", %", " %"), justify="right", min_width=8, max_width=9)
    last = table.lines[0].kind if table.lines else ""
    for line in table.lines:
        if line.kind != last:
            drawn.add_section()
            last = line.kind
        cells = []
        for cell, column in zip(line.cells, table.columns):
            value, _ = write_cell(cell, column, table.signed)
            interval = "" if cell is None or isinstance(cell, str) else short_span(cell.low, cell.high, column)
            text = Text(value, style="" if line.kind == "target" else "dim")
            cells.append(text.append(f"\n{interval}", style="dim") if interval else text)
        drawn.add_row(Text(clean(line.name), style="bold" if line.kind == "target" else "dim"), *cells)
    return drawn


def to_csv(table: Table) -> str:
    """The table with full precision: value, low, high of every metric; missing is empty.

    Of a difference also p, Holm's corrected p, and the number of trainings and worlds.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    whole = ("", "low", "high", *(("p", "corrected", "trainings", "worlds") if table.signed else ()))
    in_words = {place for line in table.lines for place, cell in enumerate(line.cells) if isinstance(cell, str)}
    parts = [("",) if place in in_words else whole for place in range(len(table.columns))]
    names = [f"{column.name} {part}".strip() for column, own in zip(table.columns, parts) for part in own]
    writer.writerow(["name", "kind", *names])
    for line in table.lines:
        values: list[str] = []
        for cell, own in zip(line.cells, parts):
            for part in own:
                value = None if cell is None or isinstance(cell, str) else getattr(cell, part or "value")
                values.append(cell if isinstance(cell, str) else repr(float(value)) if known(value) else "")
        name = clean(line.name)
        # A spreadsheet would compute what begins like a formula.
        writer.writerow([f"'{name}" if name.startswith(("=", "+", "-", "@")) else name, line.kind, *values])
    return out.getvalue()


def to_latex(table: Table) -> str:
    """The table for a paper (booktabs)."""
    escape = _latex
    head = " & ".join(["", *(escape(heading(column)) for column in table.columns)])
    out = [
        f"% {escape(table.title)}. Brackets: 95\\,\\% intervals. Needs \\usepackage{{booktabs}}.",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        rf"{head} \\",
        r"\midrule",
    ]
    last = table.lines[0].kind if table.lines else ""
    for line in table.lines:
        if line.kind != last:
            out.append(r"\midrule")
            last = line.kind
        cells = [_latex_cell(cell, column, table.signed, escape) for cell, column in zip(line.cells, table.columns)]
        out.append(" & ".join([escape(clean(line.name)), *cells]) + r" \\")
    return "\n".join([*out, r"\bottomrule", r"\end{tabular}", ""])


def _latex_cell(cell: Cell, column: Column, signed: bool, escape: Callable[[str], str]) -> str:
    value, interval = write_cell(cell, column, signed)
    if not interval:
        return escape(value)
    low, high = interval.split(" to ")
    return rf"{escape(value)} {{\scriptsize[{escape(low)}, {escape(high)}]}}"


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)
