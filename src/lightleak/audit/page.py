"""audit.html: one self-contained page; the answer first, then what was done, one warning a measure, and the rest."""

import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from lightleak.audit.record import PAGE
from lightleak.files import publish
from lightleak.metrics.verification import RATES
from lightleak.report.page import embed
from lightleak.report.template import template

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--no-pdf-header-footer",
)  # fmt: skip
Pictures = Mapping[int, Mapping[str, Tensor]]  # person -> what -> 3 x S x S bytes


def page(record: Mapping[str, Any], pictures: Pictures, names: tuple[str, ...], show_private: bool = False) -> str:
    """The record as HTML, with pictures of each person: `private` (blurred unless asked), `attack`, `null`."""
    place = {name: index for index, name in enumerate(names)}
    gallery = {
        row["name"]: _embedded(pictures.get(place[row["name"]], {}), show_private) for row in record["people"]["each"]
    }
    return template(
        "lightleak.audit", "audit.html.j2", percent=percent, interval=interval, share=share, points=points, at=at
    ).render(record=record, gallery=gallery, show_private=show_private, rates=RATES)


def save(
    record: Mapping[str, Any], pictures: Pictures, names: tuple[str, ...], folder: Path, show_private: bool
) -> Path:
    """Write the page, whole or not at all."""
    text = page(record, pictures, names, show_private)
    return publish(folder / PAGE, partial(Path.write_text, data=text, encoding="utf-8"), "the page")


def printed(file: Path, seconds: float = 90) -> Path | None:
    """The page as a PDF beside it, by a Chromium on this machine; None where there is none or it fails."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        return None
    out = file.with_suffix(".pdf")
    with tempfile.TemporaryDirectory() as profile:
        part = Path(profile) / "page.pdf"
        told = [
            browser,
            *QUIET,
            f"--user-data-dir={profile}/profile",
            f"--print-to-pdf={part}",
            file.absolute().as_uri(),
        ]
        try:
            subprocess.run(told, capture_output=True, timeout=seconds, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        if not part.is_file():
            return None
        return publish(out, lambda place: shutil.copyfile(part, place), "the page as PDF")


def percent(value: float | None) -> str:
    """A share as per cent."""
    return (
        "–"
        if value is None
        else f"{100 * value:.0f} %"
        if abs(value) >= 0.0995 or value == 0
        else f"{100 * value:.1f} %"
    )


def share(measure: Mapping[str, Any] | None) -> str:
    """A measured share with its interval, in per cent."""
    if measure is None:
        return "–"
    told = percent(measure["value"])
    return told if measure["low"] is None else f"{told} ({100 * measure['low']:.0f} to {100 * measure['high']:.0f})"


def points(measure: Mapping[str, Any] | None) -> str:
    """A difference of shares with its interval, in points."""
    if measure is None:
        return "–"
    told = f"{100 * measure['value']:.0f}"
    return told if measure["low"] is None else f"{told} ({100 * measure['low']:.0f} to {100 * measure['high']:.0f})"


def at(curve: Sequence[Sequence[float]] | None, rate: float) -> float | None:
    """The true match rate at a false match rate, of pairs of both; None where it could not be shown."""
    return next((value for each, value in curve or () if each == rate), None)


def interval(measure: Mapping[str, Any] | None) -> str:
    """A measured number with its interval."""
    if measure is None:
        return "–"
    told = f"{measure['value']:.2f}"
    return told if measure["low"] is None else f"{told} ({measure['low']:.2f} to {measure['high']:.2f})"


def _embedded(pictures: Mapping[str, Tensor], show_private: bool) -> dict[str, str]:
    return {
        what: embed(picture.permute(1, 2, 0).numpy(), blurred=what == "private" and not show_private)
        for what, picture in pictures.items()
    }
