"""One self-contained page: no script, no asset outside it, private images blurred before they get in."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image, ImageFilter

from lightleak.errors import UserError
from lightleak.report.answer import answer, subject
from lightleak.report.figures import Figure, figures
from lightleak.report.results import MISSING, Column, Difference, Picture, Results, clean, heading, known, visible
from lightleak.report.table import Cell, Table, in_parts, tables, write_cell
from lightleak.report.template import template
from lightleak.report.verdicts import families, standing, verdict

THUMBNAIL = 128  # pixels: no picture of the page is larger
BLURRED = 7  # a blurred picture keeps so many pixels a side


def page(results: Results, show_private: bool = False, drawn: Sequence[Figure] | None = None) -> str:
    """The report as HTML. Private images are blurred unless `show_private`; `drawn`: its figures, if already drawn."""
    whole = tables(results)
    return template(
        "lightleak.report", "page.html.j2", _finished, heading=heading, percent=_percent, tree=_tree
    ).render(
        results=results,
        subject=subject(results),
        answer=answer(results),
        tables=[{"table": table, "parts": [_filled(part) for part in in_parts(table)]} for table in whole],
        footnotes=[text for column in whole[0].columns for text in results.footnotes.get(column.name, ())],
        figures=figures(results) if drawn is None else drawn,
        gallery=_gallery(results, show_private),
        unmeasured=_unmeasured(results),
        dash=MISSING,
        show_private=show_private,
        pictured=_pictured(results),
    )


def _finished(value: Any) -> Any:
    """What every expression of the template passes through before it is escaped."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _unmeasured(results: Results) -> list[tuple[Column, str]]:
    """The columns that nobody has, with a reason if any row gives one."""
    shown = {column.name for column in tables(results)[0].columns}
    absent = [column for column in results.columns if column.name not in shown]
    reasons = [(c, [row.missing[c.name] for row in results.rows if row.missing.get(c.name)]) for c in absent]
    return [(column, why[0] if why else "") for column, why in reasons]


def _filled(table: Table) -> dict[str, Any]:
    """A table with every cell's texts, and the place of its bar between 0 and 100."""
    chance = {line.kind: line.cells for line in table.lines if line.kind == "chance"}.get("chance")
    tried = families([one for line in table.lines for one in line.cells if isinstance(one, Difference)])
    scales = [_scale(table, index) for index in range(len(table.columns))]
    lines = []
    for line in table.lines:
        cells = []
        for index, (cell, column) in enumerate(zip(line.cells, table.columns)):
            value, interval = write_cell(cell, column, table.signed)
            cells.append(
                {
                    "column": column,
                    "value": value,
                    "interval": interval,
                    "why": line.why[index],
                    "bar": None if line.kind == "chance" else _bar(cell, scales[index]),
                    "tick": None if chance is None else _place(chance[index], scales[index]),
                    "verdict": verdict(cell, column) if isinstance(cell, Difference) else "",
                    "standing": standing(cell, tried.get(cell.column, 1)) if isinstance(cell, Difference) else "",
                }
            )
        lines.append({"line": line, "cells": cells})
    return {"table": table, "lines": lines}


def _scale(table: Table, index: int) -> tuple[float, float]:
    """The two ends of a column's bars: 0 and 1 for a rate, symmetric about 0 for differences."""
    ends = [
        value
        for line in table.lines
        if (cell := line.cells[index]) is not None and not isinstance(cell, str)
        for value in (cell.value, cell.low, cell.high)
        if value is not None and known(value)
    ]
    widest = max((abs(value) for value in ends), default=0.0) or 1.0
    if table.signed or table.columns[index].signed:
        return -widest, widest
    return (0.0, 1.0) if table.columns[index].rate else (min([0.0, *ends]), widest)


def _place(cell: Cell, scale: tuple[float, float]) -> float | None:
    return None if cell is None or isinstance(cell, str) else _percent((cell.value - scale[0]) / (scale[1] - scale[0]))


def _percent(share: float) -> float:
    return round(100 * min(1.0, max(0.0, share)), 2)


def _bar(cell: Cell, scale: tuple[float, float]) -> dict[str, float] | None:
    if cell is None or isinstance(cell, str):
        return None
    width = scale[1] - scale[0]
    low = cell.value if cell.low is None or not known(cell.low) else cell.low
    high = cell.value if cell.high is None or not known(cell.high) else cell.high
    start, end = _percent((low - scale[0]) / width), _percent((high - scale[0]) / width)
    return {"dot": _percent((cell.value - scale[0]) / width), "start": start, "width": round(end - start, 2)}


def _pictured(results: Results) -> list[str]:
    """The targets of which the gallery has any reconstruction."""
    return [row.name for row in results.targets() if any(row.name in one.frames for one in results.gallery)]


def _gallery(results: Results, show_private: bool) -> list[dict[str, Any]]:
    shown = []
    for portrait in results.gallery:
        frames = []
        for name in _pictured(results):
            frame = portrait.frames.get(name)
            if frame is None:
                frames.append(None)
                continue
            confidence = (
                f"{100 * frame.confidence:.0f} %" if frame.confidence is not None and known(frame.confidence) else ""
            )
            words = {True: "it is the person", False: "it is not the person", None: ""}[frame.verified]
            said = ", ".join(
                part for part in (f"the target is confident by {confidence}" if confidence else "", words) if part
            )
            alt = f"Reconstruction of {clean(portrait.name)} from {clean(name)}"
            frames.append(
                {
                    "picture": embed(frame.picture),
                    "confidence": confidence,
                    "verified": frame.verified,
                    "alt": f"{alt}: {said}" if said else alt,
                }
            )
        private = None if portrait.private is None else embed(portrait.private, blurred=not show_private)
        shown.append({"name": clean(portrait.name), "private": private, "frames": frames})
    return shown


def embed(picture: Picture, blurred: bool = False) -> str:
    """A picture as a data address, at most 128 pixels a side; blurring happens here, in the pixels."""
    image = _open(picture)
    if max(image.size) > THUMBNAIL:
        image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    if blurred:
        size = image.size
        image = image.resize((BLURRED, BLURRED), Image.Resampling.BOX).resize(size, Image.Resampling.BICUBIC)
        image = image.filter(ImageFilter.GaussianBlur(max(size) / 16))
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def _open(picture: Picture) -> Image.Image:
    try:
        if isinstance(picture, Path):
            return Image.open(picture).convert("RGB")
        if isinstance(picture, bytes):
            return Image.open(io.BytesIO(picture)).convert("RGB")
    except OSError as error:
        raise UserError(f"cannot read the picture {str(picture)[:80]}: {error}") from None
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise UserError(f"expected a picture as H x W x 3 uint8, got {picture.dtype} of shape {picture.shape}")
    return Image.fromarray(np.ascontiguousarray(picture))


def _tree(value: Any) -> list[tuple[str, Any]] | str:
    """Settings for the page: pairs of name and value, where a value is a text or pairs again."""
    if isinstance(value, Mapping):
        return [(clean(str(name)), _tree(item)) for name, item in value.items()]
    if isinstance(value, list | tuple):
        if any(isinstance(item, Mapping | list | tuple) for item in value):
            return [(str(index + 1), _tree(item)) for index, item in enumerate(value)]
        return ", ".join(clean(str(item)) for item in value) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else clean(str(value))
