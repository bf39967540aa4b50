"""From the evaluations of a study to the results that a page shows."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from lightleak.errors import UserError
from lightleak.metrics.evaluation import METRICS, Evaluation, difference
from lightleak.metrics.evidence import Measure, interval, seeds_interval, trade_off, wilson
from lightleak.metrics.frontier import Curve, matched
from lightleak.report.glossary import OF_TARGETS, columns
from lightleak.report.results import Difference, Frame, Level, Point, Portrait, Results, Row
from lightleak.study.task import versions

SHOWN = ("hits@1", "hits@5", "verified", "true@1", "true@5", "stranger@1", "error", "confidence")
ASKED = ("knowledge", "delta_face", "fid", "precision", "recall", "density", "coverage")  # shown where measured
FRONTIER = ("hits@1", "true@1", "verified")  # leaks that are compared at equal natural accuracy
COSTS = ("training", "answering", "parameters")  # what a Costs task measures
COMPARED = ("hits@1", "verified", "true@1", "error")  # differences to the baseline are given in these
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
    ways = _counted([one for one, _ in everything])
    if len(ways) > 1 and not mixed_protocols:
        told = "; ".join(f"{name}: {', '.join(dict.fromkeys(titles))}" for name, titles in ways.items())
        raise UserError(f"numbers counted differently do not compare ({told}); ask for it with --mixed-protocols")
    made = _made([*folders, *costs])
    records, folders = [one for one, _ in whole], [folder for _, folder in whole]
    groups, unequal = _groups(records)
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
    curves = _curves(everything, equal, records, [name for name in FRONTIER if name in shown])
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
    levels = tuple(_levels(curves, baseline))
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
        curves={name: tuple(_points(way)) for name, way in curves.items()},
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
        versions=_versions(made),
        command=command,
        date=max((one["finished"][:10] for one in made if "finished" in one), default=""),
        machine=_all(made, "machine"),
        device=_all(made, "device"),
        commit=_all(made, "commit"),
        protocol="; ".join(ways),
        seconds=sum(one["seconds"] for one in made),
    )


NULLS = {
    "never optimised": "images of the prior, given out at random",
    "other people": "the same attack on the same network, trained on none of these people",
}


def record(folder: Path) -> dict[str, Any]:
    """What an evaluation's folder says; UserError if it is not whole."""
    try:
        return json.loads((folder / "result.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{folder} holds no finished evaluation ({error}); run the study again") from None


def _counted(records: list[dict[str, Any]]) -> dict[str, list[str]]:
    """By how it was counted (protocol and judge), the titles of the targets."""
    judges = list(dict.fromkeys(one["judge"].get("sha256", one["judge"]["architecture"]) for one in records))
    found: dict[str, list[str]] = {}
    for one in records:
        protocol = one.get("protocol")
        name = f"{protocol['name']} v{protocol['version']}" if protocol else "no named protocol"
        if len(judges) > 1:
            judge = one["judge"].get("sha256", one["judge"]["architecture"])
            name += f", judge {one['judge']['architecture']} {judge[:8] if judge in judges else ''}".rstrip()
        found.setdefault(name, []).append(one["target"]["title"])
    return found


def _made(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """How these evaluations and everything they rest on came about, each task once, by their specifications."""
    found: dict[str, dict[str, Any]] = {}
    look = [(folder.parent.parent, f"{folder.parent.name}/{folder.name}") for folder in folders]
    while look:
        root, name = look.pop()
        if name not in found:
            try:
                made = found[name] = json.loads((root / name / "made.json").read_text())
                if "needs" not in made:  # of an older version
                    made["needs"] = _needs(json.loads((root / name / "spec.json").read_text()))
                look += [(root, need) for need in made["needs"]]
            except (OSError, ValueError):  # an evaluation that was moved here alone
                continue
    return list(found.values())


def _needs(value: Any) -> list[str]:
    """The tasks that a specification names."""
    if isinstance(value, dict):
        own = value.get("task")
        found = [own] if isinstance(own, str) and set(value) == {"task"} else []
        return found + [need for item in value.values() for need in _needs(item)]
    return [need for item in value for need in _needs(item)] if isinstance(value, list) else []


def _all(made: list[dict[str, Any]], name: str) -> str:
    """What the tasks say, each once, the most frequent first."""
    return "; ".join(value for value, _ in Counter(one[name] for one in made if one.get(name)).most_common())


def _versions(made: list[dict[str, Any]]) -> dict[str, str]:
    """The versions that the tasks were run with, not those that make the report."""
    names = dict.fromkeys(name for one in made for name in one.get("versions", {}))
    return {name: _all([one["versions"] for one in made if "versions" in one], name) for name in names} or versions()


def _row(name: str, records: list[dict[str, Any]], evaluations: list[Evaluation]) -> Row:
    measures: dict[str, Measure | None] = {"accuracy": _accuracy([record["target"] for record in records])}
    for metric in METRICS:
        if len(evaluations) == 1:
            measures[metric] = evaluations[0].measures.get(metric)  # older records lack new metrics
        elif all(metric in evaluation.per_class for evaluation in evaluations):
            table = torch.tensor([evaluation.per_class[metric] for evaluation in evaluations], dtype=torch.float64)
            found = seeds_interval(table)
            measures[metric] = _share(found) if METRICS[metric].rate else found
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
        run = json.dumps([_run(target), target["seed"], _held_equal(one)], sort_keys=True)
        if run not in ends or rank(target) > rank(ends[run][0]["target"]):
            ends[run] = (one, folder)
    return list(ends.values())


def _run(target: dict[str, Any]) -> str:
    """The name of the training that a target is, or is a checkpoint of."""
    return target["title"] if target.get("moment") is None else target["run"]


def _groups(records: list[dict[str, Any]]) -> tuple[dict[str, list[int]], dict[str, str]]:
    """The seeds of each target by the name of its row, and in what some differ from the first beside their defence."""
    base = _held_equal(records[0])
    kinds: dict[str, dict[str, list[int]]] = {}  # title -> what differs -> its seeds
    for index, one in enumerate(records):
        kinds.setdefault(_run(one["target"]), {}).setdefault(_differing(base, _held_equal(one)), []).append(index)
    groups: dict[str, list[int]] = {}
    unequal: dict[str, str] = {}
    seeds = next({records[i]["target"]["seed"] for i in own} for own in next(iter(kinds.values())).values())
    for title, variants in kinds.items():
        for different, own in variants.items():
            one = records[own[0]]["target"]
            name = title if not different else f"{title} ({one['architecture']})"
            while name in groups:
                name += "'"
            groups[name] = own
            others = {records[i]["target"]["seed"] for i in own}
            if others != seeds:
                listed = ["seeds " + ", ".join(map(str, sorted(some))) for some in (others, seeds)]
                different = "; ".join(filter(None, (different, " instead of ".join(listed))))
            if different:
                unequal[name] = different
    return groups, unequal


def _networks(evaluations: list[Evaluation]) -> list[str]:
    """Over whose features realism and faces are measured; a table of two networks says so."""
    notes = []
    for metric in dict.fromkeys(name for one in evaluations for name in one.networks if name in METRICS):
        used = list(dict.fromkeys(one.networks[metric] for one in evaluations if metric in one.networks))
        notes.append(f"{METRICS[metric].label}: features of {' and of '.join(used)}")
        if len(used) > 1:
            notes[-1] += "; numbers of different networks do not compare"
    return notes


def _held_equal(record: dict[str, Any]) -> dict[str, Any]:
    """Everything that must be equal for a difference to be the defence's, by name."""
    target = record["target"]
    held = {
        "architecture": target["architecture"],
        "recipe": target["recipe"],
        "attack": record["attack"],
        "prior": record["prior"],
        "judge": record["judge"]["architecture"],
        "protocol": record.get("protocol"),
    }
    flat: dict[str, Any] = {}

    def spread(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for inner, item in value.items():
                spread(f"{name} {inner}", item)
        else:
            flat[name] = value

    for name, value in held.items():
        spread(name, value)
    return flat


def _differing(base: dict[str, Any], other: dict[str, Any]) -> str:
    """In words, what is not as in `base`."""
    names = [name for name in dict.fromkeys((*base, *other)) if base.get(name) != other.get(name)]
    return "; ".join(f"{name} {_said(other.get(name))} instead of {_said(base.get(name))}" for name in names)


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_said, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)


Way = dict[str, Curve]  # by metric


def _curves(
    everything: list[tuple[dict[str, Any], Path]],
    groups: dict[str, list[int]],
    records: list[dict[str, Any]],
    metrics: list[str],
) -> dict[str, Way]:
    """For each target with checkpoints of all its seeds, natural accuracy and leaks, checkpoint by checkpoint."""
    found: dict[str, Way] = {}
    for name, own in groups.items():
        base = _held_equal(records[own[0]])
        # By moment (the end is None), by seed.
        taken: dict[str, dict[int, dict[str, Any]]] = {}
        for one, _ in everything:
            target = one["target"]
            if _run(target) == name and _held_equal(one) == base:
                taken.setdefault(json.dumps(target.get("moment")), {})[target["seed"]] = one
        seeds = sorted(records[i]["target"]["seed"] for i in own)
        whole = [by_seed for by_seed in taken.values() if sorted(by_seed) == seeds]
        if len(whole) < 2:
            continue
        table = [[by_seed[seed] for by_seed in whole] for seed in seeds]
        accuracy = torch.tensor([[one["target"]["accuracy_of"] for one in row] for row in table])
        classes = table[0][0]["evaluation"]["classes"]
        way = {}
        for metric in metrics:
            if all(metric in one["evaluation"]["per_class"] for row in table for one in row):
                leak = torch.tensor([[one["evaluation"]["per_class"][metric] for one in row] for row in table])
                way[metric] = Curve(accuracy[:, :, classes], leak)
        found[name] = way
    return found


def _points(way: Way) -> list[Point]:
    """The checkpoints of a way in order of natural accuracy, each with intervals."""
    points = []
    for place in range(next(iter(way.values())).accuracy.shape[1]):

        def measured(table: torch.Tensor, place: int = place) -> Measure:
            values = table[:, place].double()
            return seeds_interval(values) if len(values) > 1 else interval(values[0], torch.Generator().manual_seed(0))

        accuracy = _share(measured(next(iter(way.values())).accuracy))
        leaks = {m: _share(measured(c.leak)) if METRICS[m].rate else measured(c.leak) for m, c in way.items()}
        points.append(Point(accuracy, leaks))
    return sorted(points, key=lambda point: point.accuracy.value)


def _levels(curves: dict[str, Way], baseline: str) -> list[Level]:
    """Every target beside the baseline at equal natural accuracy."""
    levels = []
    for name, way in curves.items():
        for metric in [m for m in way if m in curves.get(baseline, {})] if name != baseline else ():
            told = matched(way[metric], curves[baseline][metric], torch.Generator().manual_seed(0))
            if told is not None:
                levels.append(Level(name, metric, told.accuracy, told.first, told.second, told.difference))
    return levels


def _accuracy(targets: list[dict[str, Any]]) -> Measure:
    """Natural accuracy: of one network a binomial share; of several seeds as for the other metrics."""
    if len(targets) == 1:
        tested = targets[0]["test_images"]
        return wilson(round(targets[0]["accuracy"] * tested), tested)
    return _share(seeds_interval(torch.tensor([target["accuracy_of"] for target in targets], dtype=torch.float64)))


def _share(found: Measure) -> Measure:
    """An interval of a share, kept within [0, 1]."""
    if found.low is None or found.high is None:
        return found
    return Measure(found.value, max(found.low, 0.0), min(found.high, 1.0))


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
