"""One self-contained page over a folder of records: what was studied, what came out, and where the details are."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup, escape

from lightleak.errors import UserError
from lightleak.files import publish
from lightleak.report.results import Results, clean, heading, read
from lightleak.report.table import in_parts, main_table, write_cell
from lightleak.report.template import template

MARKS = ("<!-- findings", "<!-- end of findings")  # around the list of findings in the README of a folder
PARAGRAPH = 600  # characters shown of a text that has no record


@dataclass(frozen=True)
class Entry:
    """One record, or one text about something without a record."""

    place: str  # its folder or file, as a relative address
    title: str
    links: tuple[tuple[str, str], ...]  # what it is called, relative address
    results: Results | None = None
    about: str = ""


def index(folder: Path | str, title: str = "Results") -> Path:
    """Write index.html over every record.json and every text below `folder`; returns its path.

    UserError if there is nothing to show, or if a record is damaged.
    """
    folder = Path(folder)
    entries = _told_apart(list(_entries(folder)))
    if not entries:
        raise UserError(f"{folder} holds no record.json and no text; 'lightleak report STUDY_FOLDER' makes records")
    page = template("lightleak.report", "index.html.j2", heading=heading).render(
        title=title,
        findings=_findings(folder / "README.md"),
        entries=[(entry, _tables(entry.results) if entry.results else []) for entry in entries],
    )
    write = partial(Path.write_text, data=page, encoding="utf-8")
    return publish(folder / "index.html", write, "the page of all records")


def _told_apart(entries: list[Entry]) -> list[Entry]:
    """The entries; those of one title with the name of their folder."""
    often = Counter(one.title for one in entries)
    return [
        one if often[one.title] == 1 else replace(one, title=f"{one.title} ({Path(one.place).name})") for one in entries
    ]


def _entries(folder: Path) -> Iterator[Entry]:
    """Records in the order of their folders, then texts that belong to no record."""
    records = sorted(folder.rglob("record.json"))
    for file in records:
        place = file.parent
        names = (("the report", "report.html"), ("the record", "record.json"), ("what it says", "README.md"))
        links = [(told, _address(folder, place / name)) for told, name in names if (place / name).is_file()]
        above = place.parent / "README.md"
        if not (place / "README.md").is_file() and above.is_file() and above.parent != folder:
            links.append(("what it says", _address(folder, above)))
        results = read(file)
        yield Entry(str(place.relative_to(folder)), clean(results.title), tuple(links), results)
    explained = {file.parent for file in records} | {file.parent.parent for file in records}
    for file in sorted(folder.rglob("*.md")):
        if (file.parent == folder and file.name == "README.md") or file.parent in explained - {folder}:
            continue
        heading, about = _opening(file)
        links = [("the text", _address(folder, file))]
        links += [(other.name, _address(folder, other)) for other in sorted(file.parent.glob(f"{file.stem}.*json*"))]
        yield Entry(str(file.relative_to(folder)), heading, tuple(links), about=about)


def _address(folder: Path, file: Path) -> str:
    return quote(str(file.relative_to(folder)))


def _opening(file: Path) -> tuple[str, str]:
    """The heading and the first paragraph of a Markdown file, without its marks."""
    try:
        blocks = [block.strip() for block in file.read_text(encoding="utf-8").split("\n\n") if block.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {file}: {error}") from None
    first = blocks[0] if blocks and blocks[0].startswith("#") else ""
    rest = [block for block in blocks if not block.startswith(("#", "|", "```", "- ", "<"))]
    about = clean(rest[0].replace("`", "").replace("**", "")) if rest else ""
    short = about if len(about) <= PARAGRAPH else about[:PARAGRAPH].rsplit(" ", 1)[0] + " …"
    return clean(first.lstrip("# ")) or file.stem, short


def _findings(file: Path) -> list[Markup]:
    """The points of the list that the folder's README holds between its two marks, as HTML; none without them."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    between = text.partition(MARKS[0])[2].partition(MARKS[1])[0]
    points = re.findall(r"^- (.*(?:\n(?!- |\n).*)*)", between, flags=re.M)
    return [_inline(clean(point)) for point in points]


def _inline(text: str) -> Markup:
    """One line of Markdown with bold and code as HTML; everything else is text."""
    safe = str(escape(text))
    safe = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", safe)
    return Markup(re.sub(r"`(.+?)`", r"<code>\1</code>", safe))


def _tables(results: Results) -> list[dict[str, Any]]:
    """The main table in parts that fit a page, essential columns first."""
    found = []
    for table in in_parts(main_table(results)):
        lines = []
        for line in table.lines:
            cells = [write_cell(cell, column, table.signed) for cell, column in zip(line.cells, table.columns)]
            lines.append({"name": line.name, "kind": line.kind, "cells": list(zip(table.columns, cells))})
        found.append({"columns": table.columns, "lines": lines})
    return found
