"""From the evaluations of a study to the results that a page shows."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from lightleak.errors import UserError
from lightleak.metrics.evaluate import FAMILY
from lightleak.metrics.evaluation import METRICS, Evaluation, difference
from lightleak.metrics.evidence import Measure, seeds_interval, trade_off, wilson
from lightleak.report.fairness import counting, grouped, held_equal, run_of
from lightleak.report.glossary import OF_TARGETS, columns
from lightleak.report.origin import listed, made_of, record, versions_of
from lightleak.report.results import Difference, Frame, Portrait, Results, Row
from lightleak.report.ways import as_share, levels_of, points, ways_of

SHOWN = (
    "hits@1",
    "hits@5",
    "verified",
    "true@1",
    "true@5",
    "family@1",
    "member@1",
    "stranger@1",
    "error",
    "confidence",
)
ASKED = ("knowledge", "delta_face", "fid", "precision", "recall", "density", "coverage")  # shown where measured
FRONTIER = ("hits@1", "true@1", "verified")  # leaks that are compared at equal natural accuracy
COSTS = ("training", "answering", "parameters")  # what a Costs task measures
COMPARED = ("hits@1", "verified", "true@1", "member@1", "error")  # differences to the baseline are given in these
GALLERY = 12  # people shown


def collect(
    folders: Sequence[Path],
    title: str,
    command: str = "",
    costs: Sequence[Path] = (),
    mixed_protocols: bool = False,
    shares: Sequence[Path] = (),
    published: Mapping[str, Any] | None = None,
) -> Results:
    """The results of finished evaluations (their folders) of one population; seeds of one defence become one row.

    With one seed an interval speaks of other people; with several, of other seeds and other people. The first target
    is the baseline. Only targets that differ from it in their defence alone are compared with it; others (another
    network, recipe, attack or set of seeds) are listed as references, with what differs. Checkpoints are no rows: they
    make the curves on which a target and the baseline are compared at equal natural accuracy. `costs` are the folders
    of Costs tasks. Evaluations that were counted differently (by another protocol or another judge) share a table only
    if `mixed_protocols`. `shares` are the folders of Shares tasks. `published` are the paper's numbers by architecture:
    {"of": whose they are, "rows": {title: {"accuracy": ..., "hits@1": ...}}}.
    """
    everything = [(record(folder), folder) for folder in folders]
    whole = _ends(everything)
    if not whole:
        raise UserError("there is no finished evaluation to report; run the study first")
    if len({one["population"]["key"] for one, _ in everything}) > 1:
        raise UserError("one table compares targets of one population; these evaluations are of several")
    ways = counting([one for one, _ in everything])
    if len(ways) > 1 and not mixed_protocols:
        told = "; ".join(f"{name}: {', '.join(dict.fromkeys(titles))}" for name, titles in ways.items())
        raise UserError(f"numbers counted differently do not compare ({told}); ask for it with --mixed-protocols")
    made = made_of([*folders, *costs])
    records, folders = [one for one, _ in whole], [folder for _, folder in whole]
    groups, unequal = grouped(records)
    evaluations = [Evaluation.from_json(record["evaluation"]) for record in records]
    first = records[0]
    priced = {one["title"]: one for one in map(record, costs)}

    rows = [_row(name, [records[i] for i in own], [evaluations[i] for i in own]) for name, own in groups.items()]
    rows = [replace(_priced(row, priced), kind="reference" if row.name in unequal else "target") for row in rows]
    paper = (published or {}).get(first["target"]["architecture"], {})
    rows = [_beside(row, paper.get("rows", {}).get(row.name, {})) for row in rows]
    measured = {name for row in rows for name, measure in row.measures.items() if measure is not None}
    counted = (first.get("protocol") or {}).get("metrics", [])  # those that the protocol names beside the usual ones
    shown = [name for name in dict.fromkeys(("accuracy", *SHOWN, *ASKED, *OF_TARGETS, *counted)) if name in measured]
    references = [name for name in groups if name in unequal]
    equal = {name: own for name, own in groups.items() if name not in unequal}
    curves = ways_of([one for one, _ in everything], equal, records, [name for name in FRONTIER if name in shown])
    for name, null in evaluations[0].nulls.items():
        rows.append(Row(f"null: {name}", _only(null.measures, shown), "null", NULLS.get(name, "")))
    chance = {name: Measure(value) for name, value in evaluations[0].chance.items()}
    chance["accuracy"] = Measure(1 / first["population"]["classes"])
    rows.append(Row("chance", _only(chance, shown), "chance", "a guess, or a person drawn at random"))
    rows = [Row(r.name, _only(r.measures, shown), r.kind, r.detail, _only(r.missing, shown)) for r in rows]

    baseline = next(iter(groups))
    swept, sweep = _swept(
        {name: records[own[0]]["target"].get("defences", {}) for name, own in equal.items()}, baseline
    )
    told = [one for one in map(record, shares) if one["architecture"] == first["target"]["architecture"]]
    differences = []
    for name, own in equal.items():
        if name == baseline or len(own) != len(groups[baseline]):
            continue
        pair = [evaluations[i] for i in own], [evaluations[i] for i in groups[baseline]]
        for metric in COMPARED:
            gap = difference(*pair, metric, torch.Generator().manual_seed(0)) if metric in shown else None
            if gap is not None:
                differences.append(Difference(name, metric, gap.value, gap.low, gap.high, gap.p))
    levels = tuple(levels_of(curves, baseline))
    met = {one.row for one in levels} | {baseline}
    apart = [
        f"{name}: no natural accuracy is reached by it and by {baseline} alike" for name in curves if name not in met
    ]
    return Results(
        title=title,
        columns=columns(*shown),
        rows=tuple(rows),
        summary=_summary(first, len(groups), max(len(own) for own in groups.values())),
        baseline=baseline,
        differences=tuple(differences),
        curves={name: tuple(points(way)) for name, way in curves.items()},
        levels=levels,
        unequal=tuple(f"{name}: {unequal[name]}" for name in references),
        runs=_runs({name: own for name, own in equal.items() if len(own) > 2}, records, evaluations, shown),
        swept=swept,
        sweep=sweep,
        shares=_shares(told, equal),
        leaks=tuple(name for name in ("hits@1", "verified") if name in shown),
        confidences={name: tuple(v for i in own for v in records[i]["confidence"]) for name, own in groups.items()},
        gallery=_gallery(folders, groups, records),
        gallery_note=_note(first["population"]["classes"]),
        warnings=(
            *([f"counted differently, and so not comparable: {'; '.join(ways)}"] if len(ways) > 1 else []),
            *_warnings(records, evaluations, equal, baseline),
            *apart,
        ),
        notes=(
            *first["population"]["notes"],
            *_networks(evaluations),
            *([f"The published numbers are of {paper['of']}."] if paper else []),
        ),
        recipe={
            "population": {k: first["population"][k] for k in ("name", "size", "classes", "images", "settings")},
            "architecture": first["target"]["architecture"],
            "training": first["target"]["recipe"],
            "attack": first["attack"],
            "prior": first["prior"],
            "judge": {name: first["judge"][name] for name in ("architecture", "sha256") if name in first["judge"]},
            "protocol": first.get("protocol") or "none",
            "seeds": sorted({r["target"]["seed"] for r in records}),
            "surgery": {r["target"]["title"]: [_cut(step) for step in r["target"]["surgery"]] for r in records},
        },
        versions=versions_of(made),
        command=command,
        date=max((one["finished"][:10] for one in made if "finished" in one), default=""),
        machine=listed(made, "machine"),
        device=listed(made, "device"),
        commit=listed(made, "commit"),
        protocol="; ".join(ways),
        seconds=sum(one["seconds"] for one in made),
    )


NULLS = {
    "never optimised": "images of the prior, given out at random",
    FAMILY: "the centre of each person's family of look-alikes, which knows nothing of the person",
    "other people": "the same attack on the same network, trained on none of these people",
}


def _row(name: str, records: list[dict[str, Any]], evaluations: list[Evaluation]) -> Row:
    measures: dict[str, Measure | None] = {"accuracy": _accuracy([record["target"] for record in records])}
    for metric in METRICS:
        if len(evaluations) == 1:
            measures[metric] = evaluations[0].measures.get(metric)  # older records lack new metrics
        elif all(metric in evaluation.per_class for evaluation in evaluations):
            table = torch.tensor([evaluation.per_class[metric] for evaluation in evaluations], dtype=torch.float64)
            found = seeds_interval(table)
            measures[metric] = as_share(found) if METRICS[metric].rate else found
    seeds = len(evaluations)
    detail = f"{seeds} training seeds" if seeds > 1 else ""
    private = records[0]["target"].get("privacy")
    if private:
        epsilon = private["epsilon"]
        measures["epsilon"] = None if epsilon is None else Measure(epsilon)
        guarantee = "no guarantee" if epsilon is None else f"epsilon {epsilon:.3g} at delta {private['delta']:.0e}"
        detail = ", ".join(filter(None, (guarantee, detail)))
    return Row(name, measures, detail=detail, missing=evaluations[0].missing)


def _beside(row: Row, published: Mapping[str, float]) -> Row:
    """The row with the paper's numbers for it, if there are any."""
    theirs = {f"published {name}": Measure(value) for name, value in published.items()}
    return replace(row, measures={**row.measures, **theirs})


def _runs(
    groups: dict[str, list[int]], records: list[dict[str, Any]], evaluations: list[Evaluation], shown: list[str]
) -> dict[str, dict[str, tuple[float, ...]]]:
    """What every single training seed of a target scored."""
    found: dict[str, dict[str, tuple[float, ...]]] = {}
    for name, own in groups.items():
        found[name] = {"accuracy": tuple(records[i]["target"]["accuracy"] for i in own)}
        for metric in ("hits@1", "verified", "true@1"):
            measures = [evaluations[i].measures.get(metric) for i in own]
            if metric in shown and all(measures):
                found[name][metric] = tuple(measure.value for measure in measures if measure)
    return found


def _swept(defences: dict[str, dict[str, Any]], baseline: str) -> tuple[str, dict[str, float]]:
    """The one number in which at least three targets with one and the same defence differ, and each one's value.

    Skips that are scaled by 1 are whole: beside SSF the undefended target is such a value.
    """
    alone = {name: next(iter(each.items())) for name, each in defences.items() if len(each) == 1}
    for kind in dict.fromkeys(kind for kind, _ in alone.values()):
        own = {name: settings for name, (other, settings) in alone.items() if other == kind}
        fields = dict.fromkeys(field for settings in own.values() for field in settings)
        differing = [f for f in fields if len({json.dumps(settings.get(f)) for settings in own.values()}) > 1]
        if len(own) < 3 or len(differing) != 1:
            continue
        values = {name: settings.get(differing[0]) for name, settings in own.items()}
        if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values.values()):
            continue
        if (kind, differing[0]) == ("SSF", "factor") and not defences[baseline]:
            values[baseline] = 1.0
        return f"{kind} {differing[0].replace('_', ' ')}", {name: float(v) for name, v in values.items()}  # pyright: ignore
    return "", {}


def _shares(told: list[dict[str, Any]], groups: dict[str, list[int]]) -> dict[str, dict[str, float]]:
    """For each target, by stage, the mean over its seeds."""
    found: dict[str, dict[str, float]] = {}
    for name in groups:
        own = [one["stages"] for one in told if one["title"] == name]
        if own:
            found[name] = {stage: sum(one[stage] for one in own) / len(own) for stage in own[0]}
    return found


def _priced(row: Row, priced: dict[str, dict[str, Any]]) -> Row:
    """The row with what its defence costs, if that was measured."""
    costs = priced.get(row.name, {})
    return replace(row, measures={**row.measures, **{name: Measure(costs[name]) for name in COSTS if name in costs}})


def _ends(everything: list[tuple[dict[str, Any], Path]]) -> list[tuple[dict[str, Any], Path]]:
    """The evaluations of whole runs; of a run that was attacked at its checkpoints only, that of the last of them."""
    ends: dict[str, tuple[dict[str, Any], Path]] = {}

    def rank(target: dict[str, Any]) -> float:
        return math.inf if target.get("moment") is None else target["epoch"]

    for one, folder in everything:
        target = one["target"]
        run = json.dumps([run_of(target), target["seed"], held_equal(one)], sort_keys=True)
        if run not in ends or rank(target) > rank(ends[run][0]["target"]):
            ends[run] = (one, folder)
    return list(ends.values())


def _networks(evaluations: list[Evaluation]) -> list[str]:
    """Over whose features realism and faces are measured; a table of two networks says so."""
    notes = []
    for metric in dict.fromkeys(name for one in evaluations for name in one.networks if name in METRICS):
        used = list(dict.fromkeys(one.networks[metric] for one in evaluations if metric in one.networks))
        notes.append(f"{METRICS[metric].label}: features of {' and of '.join(used)}")
        if len(used) > 1:
            notes[-1] += "; numbers of different networks do not compare"
    return notes


def _accuracy(targets: list[dict[str, Any]]) -> Measure:
    """Natural accuracy: of one network a binomial share; of several seeds as for the other metrics."""
    if len(targets) == 1:
        tested = targets[0]["test_images"]
        return wilson(round(targets[0]["accuracy"] * tested), tested)
    return as_share(seeds_interval(torch.tensor([target["accuracy_of"] for target in targets], dtype=torch.float64)))


def _only(mapping: Any, names: list[str]) -> dict[str, Any]:
    return {name: mapping[name] for name in names if name in mapping}


def _cut(step: dict[str, Any]) -> dict[str, Any]:
    """What a reader wants to know of a step of surgery."""
    return {name: value for name, value in step.items() if isinstance(value, str | int | float | list)}


def _summary(record: dict[str, Any], targets: int, seeds: int) -> str:
    people, attack = record["population"]["classes"], record["attack"]["name"].upper()
    runs = f", {seeds} training seeds each" if seeds > 1 else ""
    return (
        f"{targets} targets ({record['target']['architecture']}{runs}) that know {people} people, inverted by {attack} "
        f"and judged by {record['judge']['architecture']} (right on {record['judge']['accuracy']:.1%} of test images)."
    )


def _warnings(records: list, evaluations: list[Evaluation], groups: dict[str, list[int]], baseline: str) -> tuple:
    said: dict[str, list[str]] = {}
    for name, own in groups.items():
        for warning in dict.fromkeys(warning for i in own for warning in evaluations[i].warnings):
            said.setdefault(warning, []).append(name)
    everyone = list(groups)
    found = [w if names == everyone else f"{', '.join(names)}: {w}" for w, names in said.items()]

    def mean(name: str, value: Any) -> float:
        return sum(value(i) for i in groups[name]) / len(groups[name])

    for name in groups:
        if name == baseline:
            continue
        leak = [mean(n, lambda i: evaluations[i].measures["hits@1"].value) for n in (baseline, name)]  # pyright: ignore
        accuracy = [mean(n, lambda i: records[i]["target"]["accuracy"]) for n in (baseline, name)]
        images = sum(records[i]["target"]["test_images"] for i in groups[name])
        told = trade_off((leak[0], leak[1]), (accuracy[0], accuracy[1]), images)
        if told.value is None:
            found.append(f"{name}: {told.warning}")
        else:
            found.append(
                f"{name}: Delta = {told.value:.2f} points of AttAcc@1 lost per point of natural accuracy "
                f"({100 * told.leak_drop:.1f} over {100 * told.accuracy_loss:.1f}); never read it alone"
            )
    return tuple(dict.fromkeys(found))


def _note(people: int) -> str:
    who = f"The first {GALLERY} of {people} people" if people > GALLERY else "All people"
    return f"{who}; of each target the reconstruction it believes most, of its first training seed."


def _gallery(folders: Sequence[Path], groups: dict[str, list[int]], records: list) -> tuple[Portrait, ...]:
    stored = {name: load_file(folders[own[0]] / "gallery.safetensors") for name, own in groups.items()}
    names = records[0]["population"]["class_names"]
    portraits = []
    one = next(iter(stored.values()))
    for place, label in enumerate(one["classes"].tolist()[:GALLERY]):
        frames = {}
        for name, tensors in stored.items():
            where = (tensors["classes"] == label).nonzero().flatten()
            if len(where):
                belief = records[groups[name][0]]["confidence"]  # best first within each class, classes ascending
                each = len(belief) // len(tensors["classes"])
                frames[name] = Frame(_array(tensors["reconstructed"][where[0]]), belief[int(where[0]) * each])
        portraits.append(Portrait(names[label], _array(one["private"][place]), frames))
    return tuple(portraits)


def _array(pixels: torch.Tensor) -> Any:
    """3 x S x S bytes as S x S x 3, enlarged without smoothing if it is tiny."""
    times = max(1, 96 // pixels.shape[-1])
    return pixels.repeat_interleave(times, 1).repeat_interleave(times, 2).permute(1, 2, 0).numpy()
