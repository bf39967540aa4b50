"""Figures as SVG text, without a display, readable on light and dark pages."""

import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from statistics import median
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from lightleak.metrics.evidence import Measure
from lightleak.report.results import Column, Results, Row, clean, heading, known, number

INK = "#010203"  # becomes the page's own text colour
COLOURS = ("#d9622b", "#3f8fb5", "#8f9a35", "#b0579a", "#c9982a", "#5f7fd1", "#45a086", "#a0705a")
MARKERS = "osD^vP*X"
BINS = 20
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9,
    "font.family": "sans-serif",
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


@dataclass(frozen=True)
class Figure:
    """A drawing with its text alternative."""

    name: str  # also of its file
    title: str
    caption: str  # what to see
    alt: str  # what it shows, for those who cannot see it
    svg: str


def figures(results: Results) -> tuple[Figure, ...]:
    """All figures that the results allow."""
    drawn = [trade_off(results, leak) for leak in results.drawn_leaks()]
    drawn += [frontier(results, column) for column in results.columns if column.leak]
    drawn += [over_setting(results), repetitions(results), likelihoods(results), gradients(results)]
    drawn += [searches(results)]
    return tuple(figure for figure in drawn if figure is not None)


def colour(results: Results, name: str) -> str:
    """The colour of one target in every figure."""
    names = [row.name for row in results.targets()]
    return COLOURS[names.index(name) % len(COLOURS)] if name in names else INK


def trade_off(results: Results, leak: Column) -> Figure | None:
    """Draw natural accuracy against one leak, with error bars; None if no target has both."""
    utility = results.column(results.utility)
    if utility is None:
        return None
    points: list[tuple[Row, Measure, Measure]] = []
    for row in results.targets():
        x, y = row.measures.get(utility.name), row.measures.get(leak.name)
        if x is not None and y is not None and known(x.value) and known(y.value):
            points.append((row, x, y))
    if not points:
        return None
    longest = max(len(_short(row.name, 40)) for row, _, _ in points)
    abreast = 3 if longest <= 13 else 2 if longest <= 22 else 1
    legend_lines = -(-len(points) // abreast)
    bounds = [_first(row.measures.get(leak.name)) for row in results.rows if row.kind == "chance"]

    def draw(axes: Axes) -> None:
        for index, (row, x, y) in enumerate(points):
            axes.errorbar(
                _scaled(x.value, utility),
                _scaled(y.value, leak),
                xerr=_whiskers(x, utility),
                yerr=_whiskers(y, leak),
                fmt=MARKERS[(index + index // len(COLOURS)) % len(MARKERS)],
                color=colour(results, row.name),
                markersize=7,
                elinewidth=1.2,
                capsize=2.5,
                label=_short(row.name, 40),
            )
        for chance in bounds:
            if known(chance):
                axes.axhline(_scaled(chance or 0.0, leak), color=INK, linewidth=0.7, linestyle=(0, (4, 3)))
                axes.annotate(
                    "chance", (1, _scaled(chance or 0.0, leak)), xycoords=("axes fraction", "data"),
                    xytext=(0, 2), textcoords="offset points", ha="right", fontsize=8,
                )  # fmt: skip
        axes.set_xlabel(_short(heading(utility), 40))
        axes.set_ylabel(_short(heading(leak), 34))
        axes.margins(0.12)
        if leak.rate:
            axes.set_ylim(0, min(axes.get_ylim()[1], 104))
        _keep_wide(axes, utility)
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=abreast, handletextpad=0.3, columnspacing=1.2
        )

    said = "; ".join(
        f"{clean(row.name)}: {number(x.value, utility)} and {number(y.value, leak)}" for row, x, y in points
    )
    return Figure(
        name=f"utility-{re.sub(r'[^a-z0-9]+', '-', leak.name.lower()).strip('-')}",
        title=f"What accuracy costs, by {clean(leak.label)}",
        caption="Lower is safer, further right is more useful. Bars are 95 % intervals"
        + (", the dashed line is chance." if any(map(known, bounds)) else "."),
        alt=f"Scatter plot of {heading(utility)} (horizontal) against {heading(leak)} (vertical). {said}.",
        svg=_svg(f"utility-{leak.name}", (4.6, 3.3 + 0.2 * legend_lines), 1, lambda axes: draw(axes[0])),
    )


def frontier(results: Results, leak: Column) -> Figure | None:
    """Each target's curve of natural accuracy and one leak, checkpoint by checkpoint (RoLSS paper, Fig. 3)."""
    utility = results.column(results.utility)
    ways = {
        name: [(point.accuracy, point.leaks[leak.name]) for point in points if leak.name in point.leaks]
        for name, points in results.curves.items()
    }
    ways = {name: sorted(way, key=lambda pair: pair[0].value) for name, way in ways.items() if len(way) > 1}
    if utility is None or not ways:
        return None
    longest = max(len(_short(name, 40)) for name in ways)
    abreast = 3 if longest <= 13 else 2 if longest <= 22 else 1

    def draw(axes: Axes) -> None:
        for index, (name, way) in enumerate(ways.items()):
            base = name == results.baseline
            axes.errorbar(
                [_scaled(x.value, utility) for x, _ in way],
                [_scaled(y.value, leak) for _, y in way],
                yerr=np.hstack([_whiskers(y, leak) or [[0.0], [0.0]] for _, y in way]) if base else None,
                fmt=MARKERS[(index + index // len(COLOURS)) % len(MARKERS)],
                color=INK if base else colour(results, name),
                linestyle="-" if base else (0, (3, 1.5)),
                linewidth=1.8 if base else 1.1,
                markersize=6 if base else 5,
                elinewidth=0.8,
                capsize=2,
                label=_short(name, 40),
                zorder=2 if base else 3,
            )
        axes.set_xlabel(_short(heading(utility), 40))
        axes.set_ylabel(_short(heading(leak), 34))
        axes.margins(0.06)
        if leak.rate:
            axes.set_ylim(0, min(axes.get_ylim()[1], 104))
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=abreast, handletextpad=0.3, columnspacing=1.2
        )

    said = "; ".join(
        f"{clean(name)}: " + ", ".join(f"{number(y.value, leak)} at {number(x.value, utility)}" for x, y in way)
        for name, way in ways.items()
    )
    return Figure(
        name=f"frontier-{re.sub(r'[^a-z0-9]+', '-', leak.name.lower()).strip('-')}",
        title=f"{clean(leak.label)} at equal accuracy",
        caption=f"Each line is one target, from its early checkpoints to its end. A defence that works lies "
        f"{'below' if leak.leak > 0 else 'above'} {clean(results.baseline)} at the same natural accuracy, not just "
        "further left. Bars are 95 % intervals.",
        alt=f"Lines of {heading(leak)} (vertical) over {heading(utility)} (horizontal). {said}.",
        svg=_svg(f"frontier-{leak.name}", (4.6, 3.3 + 0.2 * -(-len(ways) // abreast)), 1, lambda axes: draw(axes[0])),
    )


def over_setting(results: Results) -> Figure | None:
    """Natural accuracy and leaks over the one setting in which targets differ (RoLSS paper, Fig. 9)."""
    utility = results.column(results.utility)
    rows = sorted((row for row in results.rows if row.name in results.sweep), key=lambda r: results.sweep[r.name])
    lines = [column for column in (utility, *results.drawn_leaks()) if column is not None and column.rate]
    lines = [c for c in lines if all((m := row.measures.get(c.name)) and known(m.value) for row in rows)]
    if len(rows) < 3 or not lines:
        return None
    places = [results.sweep[row.name] for row in rows]

    def draw(axes: Axes) -> None:
        for index, column in enumerate(lines):
            measures = [measure for row in rows if (measure := row.measures[column.name]) is not None]
            axes.errorbar(
                places,
                [_scaled(measure.value, column) for measure in measures],
                yerr=np.hstack([_whiskers(measure, column) or [[0.0], [0.0]] for measure in measures]),
                fmt=MARKERS[index],
                linestyle="-" if column is utility else (0, (3, 1.5)),
                color=INK if column is utility else COLOURS[index - 1],
                linewidth=1.3,
                markersize=5,
                elinewidth=0.8,
                capsize=2,
                label=_short(column.label, 30),
            )
        axes.set_xlabel(_short(results.swept, 40))
        axes.set_ylabel("%")
        axes.set_ylim(0, 104)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, handletextpad=0.3, columnspacing=1.2)

    said = "; ".join(
        f"{clean(column.label)}: "
        + ", ".join(
            f"{number(_first(row.measures.get(column.name)), column)} at {place:g}" for row, place in zip(rows, places)
        )
        for column in lines
    )
    return Figure(
        name="setting",
        title=f"What {clean(results.swept)} does",
        caption="Solid: what the model is good for. Dashed: what it gives away. Bars are 95 % intervals.",
        alt=f"Lines over {clean(results.swept)}. {said}.",
        svg=_svg("setting", (4.6, 3.3 + 0.2 * -(-len(lines) // 2)), 1, lambda axes: draw(axes[0])),
    )


def repetitions(results: Results) -> Figure | None:
    """Every training run next to the mean of its target (RoLSS paper, Figs. 12 and 13)."""
    columns = [c for c in results.drawn_leaks() if any(c.name in runs for runs in results.runs.values())]
    rows = [row for row in results.targets() if row.name in results.runs]
    if len(rows) < 2 or not columns:
        return None

    def draw(panels: Sequence[Axes]) -> None:
        for axes, column in zip(panels, columns):
            for place, row in enumerate(rows):
                values = [_scaled(value, column) for value in results.runs[row.name].get(column.name, ())]
                if not values:
                    continue
                axes.plot(values, [place] * len(values), "o", color=colour(results, row.name), alpha=0.75, markersize=5)
                axes.plot([sum(values) / len(values)], [place], "|", color=INK, markersize=14, markeredgewidth=1.6)
            axes.set_yticks(range(len(rows)), [_short(row.name, 22) for row in rows], fontsize=8)
            axes.set_ylim(len(rows) - 0.5, -0.5)
            axes.set_title(_short(heading(column), 40), loc="left", fontsize=9, pad=3)
            axes.tick_params(labelbottom=True)

    said = "; ".join(
        f"{clean(column.label)} of {clean(row.name)}: "
        + ", ".join(number(value, column) for value in results.runs[row.name].get(column.name, ()))
        for column in columns
        for row in rows
    )
    return Figure(
        name="repetitions",
        title="The same training again",
        caption="A dot is one training run, the bar their mean. Where the dots of two targets mix, their difference "
        "is no larger than that between two runs of one.",
        alt=f"Dots for every training run. {said}.",
        svg=_svg("repetitions", (4.6, len(columns) * (0.6 + 0.24 * len(rows))), len(columns), draw),
    )


def gradients(results: Results) -> Figure | None:
    """How much of the gradient runs through the skips of each stage (RoLSS paper, Eq. 2)."""
    rows = [row for row in results.targets() if row.name in results.shares]
    stages = sorted({stage for row in rows for stage in results.shares[row.name]}, key=int)
    if not rows or not stages:
        return None

    def draw(axes: Axes) -> None:
        width = 0.8 / len(rows)
        for index, row in enumerate(rows):
            places = [place + (index - (len(rows) - 1) / 2) * width for place in range(len(stages))]
            heights = [100 * results.shares[row.name].get(stage, 0.0) for stage in stages]
            axes.bar(places, heights, width * 0.9, color=colour(results, row.name), label=_short(row.name, 22))
        axes.set_xticks(range(len(stages)), [f"stage {stage}" for stage in stages])
        axes.set_ylabel("share through shortcuts, %")
        axes.set_ylim(0, 100)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, handletextpad=0.4, columnspacing=1.2)

    said = "; ".join(
        f"{clean(row.name)}: " + ", ".join(f"stage {s} {100 * v:.0f} %" for s, v in results.shares[row.name].items())
        for row in rows
    )
    return Figure(
        name="gradients",
        title="The way the gradient takes",
        caption="Of the gradient that reaches each stage, the part that came through its shortcuts. A skip that was "
        "removed carries nothing.",
        alt=f"Bars of the share of the gradient that runs through shortcuts. {said}.",
        svg=_svg("gradients", (4.6, 2.9 + 0.2 * -(-len(rows) // 2)), 1, lambda axes: draw(axes[0])),
    )


def likelihoods(results: Results) -> Figure | None:
    """The targets' confidence in the reconstructions, P(y|x*), one histogram below the other (RoLSS paper, Fig. 2)."""
    shown = [(row, [v for v in results.confidences.get(row.name, ()) if known(v)]) for row in results.targets()]
    shown = [(row, values) for row, values in shown if values]
    if not shown:
        return None
    edges = np.linspace(0, 1, BINS + 1)
    truth = results.drawn_leaks()[-1:]

    def beside(row: Row, values: list[float]) -> str:
        leaks = [(leak, row.measures.get(leak.name)) for leak in truth]
        found = [
            f", {clean(leak.label)} {number(m.value, leak)}{' %' * leak.rate}" for leak, m in leaks if m is not None
        ]
        return f"median {median(values):.2f}{''.join(found)}"

    def draw(panels: Sequence[Axes]) -> None:
        for axes, (row, values) in zip(panels, shown):
            share = np.histogram(np.clip(values, 0, 1), edges)[0] / len(values)
            axes.stairs(share, edges, fill=True, color=colour(results, row.name), alpha=0.85)
            axes.set_ylim(0, 1.05)
            axes.set_xlim(0, 1)
            axes.set_yticks([0, 1], ["0", "100 %"], fontsize=7)
            axes.set_title(_short(row.name, 26), loc="left", fontsize=9, pad=3)
            axes.set_title(beside(row, values), loc="right", fontsize=8, pad=3)
            axes.tick_params(labelbottom=axes is panels[len(shown) - 1])
        panels[len(shown) - 1].set_xlabel("the target's confidence that it sees the person, P(y|x*)")

    said = "; ".join(f"{clean(row.name)}: {beside(row, values)}" for row, values in shown)
    return Figure(
        name="likelihood",
        title="How sure each target is of its reconstructions",
        caption="Confidence near 1 does not mean that the person was found.",
        alt=f"Histograms of each target's confidence in its reconstructions. {said}.",
        svg=_svg("likelihood", (4.6, 0.45 + 0.78 * len(shown)), len(shown), draw),
    )


def searches(results: Results) -> Figure | None:
    """How confident each target became with the queries that an attacker spent on a person, attack by attack."""
    rows = [row for row in results.rows if results.searches.get(row.name)]
    names = list(dict.fromkeys(name for row in rows for name in results.searches[row.name]))
    if not names:
        return None

    def draw(panels: Sequence[Axes]) -> None:
        for axes, row in zip(panels, rows):
            for place, name in enumerate(names):
                points = results.searches[row.name].get(name, ())
                asked, confidence = [max(1.0, point[0]) for point in points], [100 * point[1] for point in points]
                colour, label = COLOURS[place % len(COLOURS)], _short(name, 26)
                marker = MARKERS[place % len(MARKERS)] if len(points) == 1 else ""
                axes.plot(asked, confidence, color=colour, label=label, marker=marker, linewidth=1.3, markersize=5)
            axes.set_xscale("log")
            axes.set_ylim(-2, 104)
            axes.set_title(_short(row.name, 40), loc="left", fontsize=9, pad=3)
        panels[-1].set_xlabel("queries of a person")
        panels[-1].legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.35), ncols=2, handletextpad=0.3, columnspacing=1.2
        )

    ends = "; ".join(
        f"{clean(row.name)}: " + ", ".join(f"{clean(name)} {100 * points[-1][1]:.0f} % with {points[-1][0]:.0f} queries"
                                           for name, points in results.searches[row.name].items())
        for row in rows
    )  # fmt: skip
    return Figure(
        name="searches",
        title="How far queries go",
        caption="The target's own confidence in the best image so far, in %, mean over people. A line is a search by "
        "scores; a single mark is where an attack with gradients ended. Confidence is not recognition: see the table.",
        alt=f"Lines of confidence over queries for each target. {ends}.",
        svg=_svg("searches", (4.6, 0.9 + 1.15 * len(rows) + 0.2 * len(names) / 2), len(rows), draw),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(), rc_context(STYLE):
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the reader's browser has its own fonts
        yield


def _svg(name: str, size: tuple[float, float], panels: int, draw: Callable[[Sequence[Axes]], None]) -> str:
    """Draw and return SVG whose identifiers begin with `name`, so that many can share one page."""
    with _quiet(), rc_context({"svg.hashsalt": name}):
        canvas = Canvas(figsize=size, layout="constrained")
        draw(list(canvas.subplots(panels, 1, squeeze=False, sharex=panels > 1)[:, 0]))
        out = io.StringIO()
        canvas.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    prefix = re.sub(r"[^a-z0-9]+", "-", name.lower())
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r'(url\(|xlink:href=")#', rf"\1#{prefix}-", text)
    text = re.sub(r"(font: [^;\"]*?px) [^;\"]*", r"\1 system-ui, sans-serif", text)
    return text.replace(INK, "currentColor")


def alone(figure: Figure) -> str:
    """The SVG as a stand-alone file that contains its description."""
    opening, rest = figure.svg.split(">", 1)
    label = f"<title>{escape(figure.title)}</title><desc>{escape(figure.alt)}</desc>"
    return f'<?xml version="1.0" encoding="utf-8"?>\n{opening} role="img">{label}{rest}'


def _short(text: str, length: int) -> str:
    text = clean(text)
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _first(measure: Measure | None) -> float | None:
    return None if measure is None else measure.value


def _scaled(value: float, column: Column) -> float:
    return 100 * value if column.rate else value


def _whiskers(measure: Measure, column: Column) -> list[list[float]] | None:
    if measure.low is None or measure.high is None or not known(measure.low) or not known(measure.high):
        return None
    below, above = max(0.0, measure.value - measure.low), max(0.0, measure.high - measure.value)
    return [[_scaled(below, column)], [_scaled(above, column)]]


def _keep_wide(axes: Axes, column: Column) -> None:
    """Never zoom into noise: at least ten points (or a tenth) of accuracy stay in view."""
    low, high = axes.get_xlim()
    least = 10.0 if column.rate else 0.1
    if high - low < least:
        middle = (low + high) / 2
        low, high = middle - least / 2, middle + least / 2
    if column.rate:
        high, low = min(high, 101.0), max(low, -1.0)
        low = min(low, high - least)
    axes.set_xlim(low, high)
