"""Turn results into a page, tables and figures; only plain data and pictures are read."""

import json
from functools import partial
from pathlib import Path

from lightleak.files import publish
from lightleak.report.answer import answer
from lightleak.report.figures import Figure, alone, figures
from lightleak.report.glossary import columns
from lightleak.report.index import index
from lightleak.report.page import page
from lightleak.report.results import Column, Difference, Frame, Portrait, Results, Row, read
from lightleak.report.table import Table, main_table, narrowed, tables, terminal, to_csv, to_latex

__all__ = [
    "Column",
    "Difference",
    "Figure",
    "Frame",
    "Portrait",
    "Results",
    "Row",
    "Table",
    "answer",
    "columns",
    "figures",
    "index",
    "main_table",
    "narrowed",
    "page",
    "read",
    "tables",
    "terminal",
    "to_csv",
    "to_latex",
    "write",
]


def write(results: Results, folder: Path | str, show_private: bool = False) -> Path:
    """Write report.html, record.json, tables (CSV, LaTeX) and figures (SVG) into `folder`; returns the page's path.

    Each file appears whole or not at all. Private images are blurred unless `show_private`; the record holds none.
    """
    folder = Path(folder)
    drawn = figures(results)
    files = {"report.html": page(results, show_private, drawn)}
    files["record.json"] = json.dumps(results.to_json(), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    for table in tables(results):
        files |= {f"tables/{table.name}.csv": to_csv(table), f"tables/{table.name}.tex": to_latex(table)}
    files |= {f"figures/{figure.name}.svg": alone(figure) for figure in drawn}
    for name, text in files.items():
        publish(folder / name, partial(Path.write_text, data=text, encoding="utf-8"), "the report")
    return folder / "report.html"
