"""The report: self-contained, honest about what is missing, unimpressed by hostile names."""

import base64
import csv
import html
import io
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from lightleak.errors import UserError
from lightleak.metrics.evaluation import Unshown
from lightleak.metrics.evidence import Measure
from lightleak.report import (
    Column,
    Difference,
    Frame,
    Portrait,
    Results,
    Row,
    answer,
    columns,
    figures,
    index,
    main_table,
    narrowed,
    page,
    read,
    tables,
    terminal,
    to_csv,
    to_latex,
    write,
)
from lightleak.report.answer import subject
from lightleak.report.collect import _swept
from lightleak.report.figures import alone
from lightleak.report.page import embed
from lightleak.report.remarks import of_leaks
from lightleak.report.results import clean, number
from lightleak.report.table import in_parts
from lightleak.report.template import others

COLUMNS = (
    Column("accuracy", "natural accuracy", "right on real test images", rate=True),
    Column("hits@1", "AttAcc@1", "the judge sees the right person", 1, True, "As papers report it."),
    Column("hits@5", "AttAcc@5", "among the judge's five best guesses", 1, True),
    Column("verified", "verified at 1e-3", "passes verification", 1, True, "The strictest number here."),
    Column("true@1", "true match @1", "nearest to the right person", 1, True),
    Column("true@5", "true match @5", "among the five nearest", 1, True),
    Column("error", "error", "0 = the person, 1 = a random person", -1),
    Column("fid", "FID", "distance of the whole set", 0),
)
TARGETS = {
    "no defence": ("", (0.981, 0.978, 0.999, 0.381, 0.933, 0.99, 0.381)),
    "RoLSS": ("skips of the last stage removed", (0.979, 0.962, 0.996, 0.219, 0.781, 0.92, 0.437)),
    "SSF": ("skips of the last stage times 0.2", (0.982, 0.966, 0.999, 0.262, 0.842, 0.95, 0.420)),
    "TTS": ("first with, then without skips", (0.975, 0.951, 0.990, 0.198, 0.744, 0.90, 0.455)),
}


def around(value: float, rate: bool = True) -> Measure:
    half = 1.96 * (max(value * (1 - value), 0.002) / 60) ** 0.5 if rate else 0.05
    return Measure(value, max(0.0, value - half), min(1.0, value + half) if rate else value + half)


def portrait(seed: int, size: int = 64) -> np.ndarray:
    """A round something with two eyes: enough to see whether a gallery looks right."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    picture = np.ones((size, size, 3)) * rng.uniform(0.3, 0.9, 3)
    width, height, skin = rng.uniform(0.45, 0.65), rng.uniform(0.6, 0.8), rng.uniform((0.5, 0.3, 0.2), (1, 0.8, 0.7))
    hair = rng.uniform(0, 0.6, 3)
    picture[(x / (width + 0.14)) ** 2 + ((y + 0.12) / (height + 0.1)) ** 2 < 1] = hair
    picture[(x / width) ** 2 + ((y - 0.05) / height) ** 2 < 1] = skin
    for side in (-0.22, 0.22):
        picture[((x - side) / 0.09) ** 2 + ((y + 0.08) / 0.06) ** 2 < 1] = 0.1
    picture[(np.abs(x) < 0.18) & (np.abs(y - 0.4) < 0.03)] = (0.6, 0.2, 0.2)
    noise = rng.normal(0, 0.02, picture.shape)
    return (255 * np.clip(picture + noise, 0, 1)).astype(np.uint8)


def realistic() -> Results:
    names = [column.name for column in COLUMNS[:7]]
    rng = np.random.default_rng(0)
    rows = [
        Row(
            target,
            {name: around(value, name != "error") for name, value in zip(names, values)},
            detail=detail,
            missing={"fid": "no feature network was given"},
        )
        for target, (detail, values) in TARGETS.items()
    ]
    null = dict(zip(names[1:], (0.021, 0.09, 0.002, 0.018, 0.088)))
    rows.append(Row("prior samples", {k: around(v) for k, v in null.items()} | {"error": around(0.98, False)}, "null"))
    rows.append(
        Row("other people", {k: around(1.3 * v) for k, v in null.items()}, "null", "trained without these people")
    )
    chance = {"hits@1": 1 / 60, "hits@5": 5 / 60, "verified": 0.001, "true@1": 1 / 60, "true@5": 5 / 60, "error": 1.0}
    rows.append(Row("chance", {name: Measure(value) for name, value in chance.items()}, "chance"))
    differences = [
        Difference(target, name, value - first, value - first - half, value - first + half, p, min(1, 3 * p), 3)
        for target, (_, values) in list(TARGETS.items())[1:]
        for name, value, first in zip(names, values, TARGETS["no defence"][1])
        for half, p in [((0.11, 0.004) if name in ("verified", "true@1") else (0.3, 0.31))]
    ]
    gallery = tuple(
        Portrait(
            f"person {seed:02d}",
            portrait(seed),
            {
                target: Frame(
                    portrait(seed + (0 if rng.random() < 0.4 else 100)),
                    float(rng.beta(20, 1)),
                    bool(rng.random() < 0.4),
                )
                for target in TARGETS
            },
        )
        for seed in range(6)
    )
    return Results(
        title="Rendered faces: what skip surgery hides",
        summary="60 people drawn by a renderer, four ResNet-18 trained on 16 images of each, inverted by Plug & Play "
        "Attacks with the renderer itself as the prior.",
        columns=COLUMNS,
        rows=tuple(rows),
        baseline="no defence",
        differences=tuple(differences),
        leaks=("hits@1", "verified"),
        confidences={target: tuple(rng.beta(14 - 3 * i, 0.6, 180)) for i, target in enumerate(TARGETS)},
        gallery=gallery,
        gallery_note="The first six people; of each, the image of which the target is most confident.",
        warnings=(
            "The judge is right on only 93.1 % of real test images (wanted: 95 %); distrust AttAcc.",
            "RoLSS: Delta is undefined, the accuracy loss of 0.2 points is within the noise of the test images.",
        ),
        notes=("One training seed: intervals speak of other people, not of other trainings.",),
        recipe={
            "data": {"name": "faces", "people": 60, "images": 16, "size": 64, "jitter": 0.45},
            "training": {"epochs": 14, "optimiser": {"name": "Adam", "rate": 0.001}},
            "attack": {"name": "PPA", "candidates": 600, "keep": 3, "steps": 50, "sizes": [1, 2, 3]},
            "seed": 0,
        },
        versions={"lightleak": "0.1.0", "torch": "2.13.0", "timm": "1.0.31"},
        command="lightleak demo --seed 0",
        date="2026-01-31",
        machine="2 cores",
        seconds=171.0,
    )  # fmt: skip


HOSTILE = (
    "<script>alert(1)</script>",
    'a" onload="x',
    "]]></style><b>&amp;",
    "$x^2$ \\input{/etc/passwd} 100% & _#",
    '=1+1,"quoted"\nnewline\x00\x1b[31m',
    "{{ 7*7 }}{% raw %}",
    "\u202eevil 名前 ✓",
)


class Page(HTMLParser):
    """What a test wants to know of a page; complains about tags that do not close."""

    EMPTY = ("meta", "link", "img", "br", "path", "use", "rect")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def results() -> Results:
    return realistic()


@pytest.fixture(scope="module")
def text(results: Results) -> str:
    return page(results)


def test_page_is_one_well_formed_file_that_loads_nothing(text: str) -> None:
    found = Page(text)
    assert not found.all("script")
    addresses = [
        v for _, attributes in found.tags for k, v in attributes.items() if k in ("src", "href", "xlink:href", "data")
    ]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"@import|url\((?!#)", text)
    outside = set(re.findall(r"https?://[^\s\"'<]+", text))
    assert all(address.startswith("http://www.w3.org/") for address in outside)  # names of XML namespaces
    names = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(names) == len(set(names))
    targets = {address[1:] for address in addresses if address.startswith("#")}
    targets |= set(re.findall(r"url\(#([^)]+)\)", text))
    assert targets <= set(names)


def test_every_picture_and_figure_says_what_it_shows(text: str, results: Results) -> None:
    found = Page(text)
    images = found.all("img")
    assert len(images) == 6 * 5
    assert all(image["alt"].strip() for image in images)
    figures_ = [attributes for _, attributes in found.tags if attributes.get("role") == "img"]
    assert len(figures_) == len(found.all("figure")) == len(found.all("svg")) == 3
    assert all(len(figure["aria-label"]) > 60 for figure in figures_)
    assert "no defence: 98.1 and 38.1" in figures(results)[1].alt
    assert "RoLSS: median" in figures(results)[2].alt


def test_page_holds_numbers_intervals_warnings_recipe_and_reasons(text: str) -> None:
    words = Page(text).text
    for part in (
        "38.1",
        "25.8 to 50.4",
        "wanted: 95 %",
        "Delta is undefined",
        "Paired differences to no defence",
        "less leak",
        "trained without these people",
        "lightleak demo --seed 0",
        "jitter",
        "Not measured: FID (no feature network was given)",
        "The strictest number here.",
        "One training seed",
    ):
        assert part in words, part


def test_missing_is_a_dash_and_never_zero(results: Results) -> None:
    bare = Column("x", "x", leak=1, rate=True)
    rows = (
        Row("a", {"x": None}, missing={"x": "no truth"}),
        Row("b", {"x": Measure(float("nan"))}),
        Row("c", {}),
        Row("d", {"x": Measure(0.0)}),
        Row("e", {"x": Measure(0.5, None, None)}),
        Row("f", {"x": Measure(0.5, float("nan"), 0.6)}),
    )
    small = Results("t", (bare,), rows)
    table = main_table(small)
    assert [line.cells[0] is None for line in table.lines] == [True, True, True, False, False, False]
    said = io.StringIO()
    Console(file=said, width=80, color_system=None).print(terminal(table))
    assert said.getvalue().count("–") >= 3
    assert [row["x"] for row in csv.DictReader(io.StringIO(to_csv(table)))] == ["", "", "", "0.0", "0.5", "0.5"]
    assert to_latex(table).count(" -- ") == 3
    shown = page(small)
    assert 'title="no truth"' in shown
    assert Page(shown).text.count(" – ") == 3
    assert "nan" not in shown
    assert page(replace(results, rows=(), differences=(), gallery=(), confidences={}))  # an empty study is a page too
    assert figures(replace(results, rows=(), differences=(), gallery=(), confidences={})) == ()


@pytest.mark.parametrize(
    ("value", "rate", "sign", "text"),
    [
        (None, True, False, "–"),
        (float("nan"), False, False, "–"),
        (float("inf"), False, False, "–"),
        (0.0, True, False, "0.0"),
        (-0.0001, True, True, "0.0"),
        (0.38123, True, False, "38.1"),
        (-0.0312, True, True, "−3.1"),
        (0.0312, True, True, "+3.1"),
        (0.4567, False, False, "0.46"),
        (12.34, False, False, "12.3"),
        (-1234.5, False, False, "−1234"),
    ],
)
def test_numbers_are_written_as_people_read_them(value: float | None, rate: bool, sign: bool, text: str) -> None:
    assert number(value, Column("x", "x", rate=rate), sign) == text


def test_names_are_only_ever_text(results: Results, text: str) -> None:
    everything = " ".join(HOSTILE)
    names = dict(zip((row.name for row in results.rows), HOSTILE))
    evil = replace(
        results,
        title=everything,
        summary=everything,
        rows=tuple(replace(row, name=names[row.name], detail=everything) for row in results.rows),
        columns=tuple(
            replace(c, label=everything, meaning=everything, explanation=everything) if c.leak == 1 else c
            for c in COLUMNS
        ),
        baseline=everything,
        differences=tuple(replace(one, row=names[one.row]) for one in results.differences),
        confidences={names[target]: values for target, values in results.confidences.items()},
        gallery=tuple(
            replace(one, name=everything, frames={names[k]: v for k, v in one.frames.items()})
            for one in results.gallery[:1]
        ),
        gallery_note=everything,
        warnings=(everything,),
        notes=(everything,),
        recipe={everything: {everything: [everything]}},
        versions={everything: everything},
        command=everything,
        machine=everything,
    )
    drawn = figures(evil)
    evil_text = page(evil, drawn=drawn)
    evil_page = Page(evil_text)
    assert {tag for tag, _ in evil_page.tags} <= {tag for tag, _ in Page(text).tags}
    assert not any(key.startswith("on") for _, attributes in evil_page.tags for key in attributes)
    assert "{{ 7*7 }}" in evil_page.text
    for name in HOSTILE:
        assert clean(name) in evil_page.text
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", evil_text)
    for figure in drawn:
        ElementTree.fromstring(figure.svg)
        assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", figure.alt + figure.title + figure.svg)
    for table in tables(evil):
        lines = list(csv.DictReader(io.StringIO(to_csv(table))))
        assert [line["name"].removeprefix("'") for line in lines] == [clean(line.name) for line in table.lines]
        assert not any(line["name"].startswith("=") for line in lines)
        assert "\\input" not in to_latex(table)
        Console(file=io.StringIO()).print(terminal(table))


def test_csv_keeps_every_digit(results: Results) -> None:
    main, differences = tables(results)
    lines = {line["name"]: line for line in csv.DictReader(io.StringIO(to_csv(main)))}
    measure = results.rows[0].measures["verified"]
    assert measure is not None
    assert float(lines["no defence"]["verified"]) == measure.value
    assert float(lines["no defence"]["verified low"]) == measure.low
    assert lines["prior samples"]["accuracy"] == ""
    assert lines["chance"]["kind"] == "chance"
    assert lines["chance"]["verified low"] == ""
    lines = {line["name"]: line for line in csv.DictReader(io.StringIO(to_csv(differences)))}
    assert float(lines["RoLSS"]["verified"]) == pytest.approx(-0.162)
    assert float(lines["RoLSS"]["verified p"]) == 0.004


def test_latex_is_a_booktabs_table_with_the_same_numbers(results: Results) -> None:
    latex = to_latex(main_table(results))
    body = latex[latex.index(r"\midrule") : latex.index(r"\bottomrule")]
    rows = [line.removesuffix(r" \\").split(" & ") for line in body.splitlines() if line.endswith(r"\\")]
    assert {len(row) for row in rows} == {8}
    assert r"\begin{tabular}{lrrrrrrr}" in latex
    table = {row[0]: row[1:] for row in rows}
    assert table["no defence"][3] == r"38.1 {\scriptsize[25.8, 50.4]}"
    assert table["prior samples"][0] == "--"
    assert table["chance"][1] == "1.7"
    assert latex.count("{") == latex.count("}")
    assert r"natural accuracy, \%" in latex


def test_private_images_are_blurred_in_their_pixels(results: Results) -> None:
    original = portrait(777)
    secret = replace(results, gallery=(replace(results.gallery[0], private=original),))
    hidden, shown = page(secret, drawn=()), page(secret, show_private=True, drawn=())
    assert embed(original) in shown
    assert embed(original) not in hidden
    assert embed(original, blurred=True) in hidden
    blurred = pixels(embed(original, blurred=True))
    # What is left of it is no more than a 7 x 7 mosaic: noise and features are gone.
    sharp = lambda image: np.abs(np.diff(image.astype(float), axis=0)).max()  # noqa: E731
    assert sharp(blurred) < sharp(original) / 6
    assert "Blurred private image of person 00" in hidden
    assert "Private image of person 00" in shown


def pixels(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",", 1)[1]))))


def test_pictures_come_from_files_bytes_and_arrays_and_are_small(tmp_path: Path) -> None:
    picture = portrait(1, 300)
    file = tmp_path / "a.png"
    Image.fromarray(picture).save(file)
    assert embed(file) == embed(picture) == embed(file.read_bytes())
    assert pixels(embed(picture)).shape == (128, 128, 3)
    with pytest.raises(UserError, match="expected a picture as H x W x 3 uint8"):
        embed(picture.astype(np.float32))
    (tmp_path / "b.png").write_text("no picture")
    with pytest.raises(UserError, match="cannot read the picture"):
        embed(tmp_path / "b.png")
    with pytest.raises(UserError, match="cannot read the picture"):
        embed(tmp_path / "missing.png")


def test_inconsistent_results_are_refused_with_the_name() -> None:
    column = COLUMNS[1]
    row = Row("a", {"hits@1": Measure(0.5)})
    for wrong, message in [
        ({"rows": (row, row)}, "several called a"),
        ({"rows": (Row("a", {"other": Measure(1.0)}),)}, "no column for other"),
        ({"rows": (row,), "leaks": ("verified",)}, "no column for verified"),
        ({"rows": (row,), "confidences": {"b": (1.0,)}}, "no row called b"),
        ({"rows": (row,), "differences": (Difference("c", "hits@1", 0.1),)}, "no row called c"),
    ]:
        with pytest.raises(UserError, match=message):
            Results("t", (column,), **wrong)  # type: ignore[arg-type]


def test_written_report_is_complete_and_its_record_reads_back(results: Results, tmp_path: Path) -> None:
    missing = replace(results, confidences={"RoLSS": (0.5, float("nan"))})
    file = write(missing, tmp_path / "new" / "report")
    assert {str(path.relative_to(file.parent)) for path in file.parent.rglob("*") if path.is_file()} == {
        "report.html",
        "record.json",
        "tables/main.csv",
        "tables/main.tex",
        "tables/differences.csv",
        "tables/differences.tex",
        "figures/utility-hits-1.svg",
        "figures/utility-verified.svg",
        "figures/likelihood.svg",
    }
    again = read(file.with_name("record.json"))
    assert again.rows == missing.rows
    assert again.differences == missing.differences
    assert again.gallery == ()
    assert to_csv(main_table(again)) == to_csv(main_table(missing))
    assert Page(page(again)).text.startswith(html.unescape("Rendered faces"))
    first = {path: path.read_bytes() for path in file.parent.rglob("*") if path.is_file()}
    write(missing, file.parent)
    assert {path: path.read_bytes() for path in file.parent.rglob("*") if path.is_file()} == first
    for path in (file.parent / "figures").iterdir():
        drawing = ElementTree.parse(path).getroot()
        assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
        assert drawing.find("{http://www.w3.org/2000/svg}desc") is not None


def test_bad_records_and_folders_are_one_clear_line(results: Results, tmp_path: Path) -> None:
    for text in ("{", "[]", '{"title": "x"}', '{"title": "x", "columns": [{"nme": 1}], "rows": []}'):
        (tmp_path / "record.json").write_text(text)
        with pytest.raises(UserError, match="no record of a study"):
            read(tmp_path / "record.json")
    with pytest.raises(UserError, match="no record of a study"):
        read(tmp_path / "nothing.json")
    with pytest.raises(UserError, match="cannot write the report"):
        write(results, tmp_path / "record.json" / "report")


def test_columns_come_with_their_explanations() -> None:
    found = columns("accuracy", "hits@1", "verified", "error", "density")
    assert [column.leak for column in found] == [0, 1, 1, -1, 0]
    assert all(column.meaning for column in found)
    assert "judge" in found[1].explanation
    with pytest.raises(UserError, match="there is no metric nonsense"):
        columns("nonsense")


def browser() -> str:
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
    )
    if not found:
        pytest.skip("no chromium here; 'apt-get install chromium' lets this test look at the page in a browser")
    return found


FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-sync",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--allow-file-access-from-files",
    "--virtual-time-budget=3000",
    "--dump-dom",
)


WIDTHS = (400, 800, 1001, 1200, 1400)


def test_page_fits_every_width_in_a_real_browser(results: Results, tmp_path: Path) -> None:
    program = browser()
    write(results, tmp_path)
    # Frames give the page its width: headless windows cannot be as narrow as a phone.
    measure = """
      document.title = JSON.stringify([...document.querySelectorAll('iframe')].map(frame => {
        const inside = frame.contentDocument, body = inside.documentElement;
        inside.querySelectorAll('details').forEach(one => one.open = true);
        const wide = [...inside.querySelectorAll('body *')].filter(e => !e.closest('svg, .sr')
          && !(e.closest('thead') && getComputedStyle(e.closest('thead')).position == 'absolute')
          && e.getBoundingClientRect().right > body.clientWidth + 1).map(e => e.tagName + '.' + e.className);
        return {width: body.clientWidth, scroll: body.scrollWidth, wide, images: inside.images.length,
          cards: getComputedStyle(inside.querySelector('td')).display == 'grid',
          broken: [...inside.images].filter(i => !i.naturalWidth).length,
          drawings: [...inside.querySelectorAll('figure svg')].map(s => Math.round(s.getBoundingClientRect().width))};
      }));
    """
    frames = "".join(f"<iframe src='report.html' style='width:{w}px;height:9000px;border:0'></iframe>" for w in WIDTHS)
    frame = tmp_path / "frame.html"
    frame.write_text(f"{frames}<script>onload = () => {{ {measure} }}</script>")
    said = subprocess.run(
        [program, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", frame.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    found = re.search(r"<title>(\[.*?\])</title>", said.stdout)
    assert found, said.stderr[-2000:]
    for width, seen in zip(WIDTHS, json.loads(html.unescape(found.group(1))), strict=True):
        assert seen["width"] == width
        assert seen["scroll"] <= width
        assert seen["wide"] == []
        assert seen["cards"] == (width <= 1000)
        assert seen["images"] == 30
        assert seen["broken"] == 0
        assert min(seen["drawings"]) > 0.75 * min(width, 520)


def test_a_narrow_terminal_keeps_what_matters_most():
    wide = main_table(
        Results(
            title="t",
            columns=tuple(Column(name, name) for name in ("accuracy", "hits@1", "stranger@1", "error", "confidence")),
            rows=(Row("one", {"accuracy": Measure(0.5), "hits@1": Measure(0.4), "stranger@1": Measure(0.3),
                              "error": Measure(0.2), "confidence": Measure(0.1)}),),
        )
    )  # fmt: skip
    assert narrowed(wide, 70) == (wide, ())
    kept, left = narrowed(wide, 58)
    assert [column.name for column in kept.columns] == ["accuracy", "hits@1", "stranger@1", "error"]
    assert left == ("confidence",)
    kept, left = narrowed(wide, 32)
    assert [column.name for column in kept.columns] == ["accuracy", "hits@1"]  # essential ones stay
    assert [cell.value for cell in kept.lines[0].cells] == [0.5, 0.4]


def test_a_wide_table_is_shown_in_parts_of_which_the_first_is_essential():
    names = ("error", "stranger@1", "accuracy", "confidence", "hits@5", "hits@1", "verified")
    values = dict(zip(names, map(Measure, (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7))))
    rows = (Row("one", values), Row("null", {"accuracy": Measure(0.5)}, kind="null"))
    first, rest = in_parts(main_table(Results(title="t", columns=columns(*names), rows=rows)), 5)
    assert [column.name for column in first.columns] == ["accuracy", "hits@1", "verified", "error", "stranger@1"]
    assert [column.name for column in rest.columns] == ["confidence", "hits@5"]
    assert [[line.name for line in part.lines] for part in (first, rest)] == [["one", "null"], ["one"]]


def test_the_first_sentence_answers():
    rows = (
        Row("no defence", {"hits@1": Measure(0.95)}),
        *(Row(name, {"hits@1": Measure(0.8)}) for name in ("RoLSS", "SSF")),
        Row("chance", {"hits@1": Measure(0.018)}, kind="chance"),
    )
    clear = Difference("RoLSS", "hits@1", -0.15, -0.2, -0.1, 0.001, 0.002, trainings=3)
    unclear = Difference("SSF", "hits@1", -0.15, -0.4, 0.1, 0.3, 0.3, trainings=3)
    recipe = {
        "architecture": "timm:resnet18",
        "population": {"name": "faces", "classes": 56},
        "attack": {"name": "PPA"},
    }
    made = Results(title="t", columns=columns("hits@1"), rows=rows, baseline="no defence", recipe=recipe)
    told = replace(made, differences=(clear, unclear))
    assert subject(told) == "timm:resnet18, trained on 56 rendered people, none of them real, attacked by PPA"
    assert answer(told) == (
        "The judge recognises the right person in 95 % of what was reconstructed from “no defence” (a guess: 1.8 %); "
        "less leaks from RoLSS (−15 points); no difference is shown for SSF."
    )
    alone = replace(made, differences=(replace(clear, trainings=1),))
    assert "speak of these networks and not of their defences" in answer(alone)
    assert answer(replace(made, rows=rows[1:2], baseline="", columns=columns("hits@1"))).startswith("The judge")
    assert answer(Results(title="t", columns=columns("error"), rows=(Row("one", {"error": Measure(1.0)}),))) == ""


def test_remarks_of_older_records_are_one_for_each_measure_and_delta_is_a_note(results: Results):
    said = (
        "few people",
        "RoLSS, BiDO (x 0.1, y 1): verified is not clearly worse than that of the null 'never': it shows no leak",
        "RoLSS: verified is not clearly worse than that of the null 'other people': it shows no leak",
        "RoLSS: Delta = 3.92 points of AttAcc@1 lost per point of natural accuracy (10.4 over 2.7)",
    )
    old = {**results.to_json(), "warnings": said}
    del old["footnotes"]
    again = Results.from_json(json.loads(json.dumps(old)))
    assert again.warnings == (
        "few people",
        "verified shows no leak of RoLSS, BiDO (x 0.1, y 1): it is not clearly above that of images that know nothing",
    )
    assert again.footnotes == {"hits@1": (said[3],)}
    assert Results.from_json(json.loads(json.dumps(again.to_json()))).footnotes == again.footnotes


def test_one_remark_for_each_measure():
    one, other = Unshown("verified", 0, 40, 0.001, 1.0), Unshown("verified", 1, 40, 0.001, 0.04)
    assert of_leaks({"RoLSS": [one], "SSF": [other], "TTS": []}) == [
        "verified shows no leak of RoLSS, SSF: 0 of 40, 1 of 40 images, where a guess gets 0.1 % of them (p = 0.04 at "
        "least)"
    ]
    assert "no leak of any target" in of_leaks({"RoLSS": [one], "SSF": [other]})[0]


def test_a_wide_record_is_folded_in_the_index(tmp_path: Path):
    values = {
        name: Measure(0.1) for name in ("error", "accuracy", "confidence", "hits@5", "hits@1", "verified", "true@1")
    }
    values |= {f"hits@1 {name}": Measure(0.1) for name in "ABCDEF"}
    names = [replace(columns("hits@1")[0], name=name, label=name) for name in values]
    made = Results(title="t", columns=tuple(names), rows=(Row("one", values),))
    (tmp_path / "record.json").write_text(json.dumps(made.to_json()))
    assert "<summary>The other " in index(tmp_path, "R").read_text()


def test_records_of_one_title_are_told_apart_by_their_folders(tmp_path: Path):
    for folder, title in (("first", "t"), ("second", "t"), ("third", "another")):
        (tmp_path / folder).mkdir()
        made = Results(title=title, columns=columns("hits@1"), rows=(Row("one", {"hits@1": Measure(0.1)}),))
        (tmp_path / folder / "record.json").write_text(json.dumps(made.to_json()))
    page = index(tmp_path, "R").read_text()
    assert "t (first)" in page
    assert "t (second)" in page
    assert "another (third)" not in page


def test_the_index_begins_with_the_findings(results: Results, tmp_path: Path):
    write(results, tmp_path / "one")
    (tmp_path / "README.md").write_text(
        "# R\n\n- no finding\n\n<!-- findings -->\n\n- **It `leaks`** <b>\n  so\n- and\n\n<!-- end of findings -->\n"
    )
    page = index(tmp_path, "R").read_text()
    assert "<li><b>It <code>leaks</code></b> &lt;b&gt; so</li><li>and</li>" in page
    assert page.index("What was found") < page.index("The records")
    assert "no finding" not in page


def swept(results: Results) -> Results:
    """The same results with a setting that was swept, several runs, and gradient shares."""
    names = [row.name for row in results.targets()]
    return replace(
        results,
        swept="SSF factor",
        sweep=dict(zip(names, (1.0, 0.0, 0.2, 0.5))),
        runs={
            name: {"accuracy": (0.97, 0.98, 0.96), "hits@1": (0.9, 0.95, 0.85), "verified": (0.2, 0.3, 0.25)}
            for name in names
        },
        shares={
            names[0]: {"1": 0.5, "2": 0.4, "3": 0.3, "4": 0.25},
            names[1]: {"1": 0.5, "2": 0.4, "3": 0.3, "4": 0.0},
        },
    )


def test_a_swept_setting_runs_and_gradient_shares_are_drawn(results: Results, tmp_path: Path) -> None:
    told = swept(results)
    drawn = {figure.name: figure for figure in figures(told)}
    assert {"setting", "repetitions", "gradients"} <= set(drawn)
    assert not {"setting", "repetitions", "gradients"} & {figure.name for figure in figures(results)}
    assert "98.1 at 1" in drawn["setting"].alt
    assert drawn["setting"].alt.index(" at 0,") < drawn["setting"].alt.index(" at 0.2,")  # in the order of the setting
    assert "AttAcc@1 of RoLSS: 90.0, 95.0, 85.0" in drawn["repetitions"].alt
    assert "RoLSS: stage 1 50 %, stage 2 40 %, stage 3 30 %, stage 4 0 %" in drawn["gradients"].alt
    for figure in drawn.values():
        ElementTree.fromstring(alone(figure).split("?>", 1)[1])
    write(told, tmp_path)
    assert replace(read(tmp_path / "record.json"), gallery=told.gallery).runs == told.runs
    with pytest.raises(UserError, match="no row called nobody"):
        replace(results, shares={"nobody": {"1": 0.1}})


def test_one_setting_in_which_targets_differ_is_found() -> None:
    def ssf(factor: float | None) -> dict[str, Any]:
        return {"SSF": {"factor": factor, "where": "last"}}

    three: dict[str, Any] = {"none": {}, "a": ssf(0.5), "b": ssf(0.2), "c": ssf(0.0)}
    assert _swept(three, "none") == ("SSF factor", {"a": 0.5, "b": 0.2, "c": 0.0, "none": 1.0})
    assert _swept({"none": {}, "a": ssf(0.5), "b": ssf(0.2)}, "none") == ("", {})  # two are no sweep
    assert _swept({**three, "d": ssf(None)}, "none") == ("", {})  # nor is a setting that is no number
    mixed = {name: {"BiDO": {"lambda_x": x, "lambda_y": y}} for name, x, y in (("a", 1, 1), ("b", 2, 2), ("c", 3, 3))}
    assert _swept(mixed, "a") == ("", {})  # nor are two at once
    where = {name: {"RoLSS": {"where": stage}} for name, stage in (("a", 1), ("b", 2), ("c", 4))}
    assert _swept(where, "a") == ("RoLSS where", {"a": 1.0, "b": 2.0, "c": 4.0})


def test_a_row_beside_targets_that_says_nothing_is_left_out(results: Results) -> None:
    silent = Row("ceiling: real pictures", {}, "null", "of what is not measured here")
    more = replace(results, rows=(*results.rows, silent))
    assert tables(more)[0].lines == tables(results)[0].lines


def test_folded_measures_are_counted_in_english():
    values = {name: Measure(0.1) for name in ("error", "accuracy", "confidence", "hits@5", "hits@1")}
    table = main_table(Results(title="t", columns=columns(*values), rows=(Row("one", values),)))
    folded = [[part.columns for part in in_parts(table, most)[1:]] for most in (4, 3)]
    assert [others(columns) for columns in folded] == ["The other measure", "The other 2 measures"]
