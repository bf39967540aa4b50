"""One page over several worlds: drawings of other people by the same settings, each with its own trainings and judges.

What is compared is compared within each world, over the same people and trainings. `report.units` says of what the
differences then speak: of other worlds if each has one training, of other people and trainings if all have several.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from lightleak.data import DRAWN
from lightleak.errors import UserError
from lightleak.metrics.evaluation import METRICS
from lightleak.metrics.evidence import Measure, worlds_interval
from lightleak.metrics.registry import shown_in
from lightleak.report import trainings
from lightleak.report.collect import NULLS
from lightleak.report.fairness import Entry, entries, grouped, training_of
from lightleak.report.gallery import gallery, note
from lightleak.report.glossary import columns
from lightleak.report.provenance import people, provenance
from lightleak.report.remarks import of_leaks
from lightleak.report.results import Column, Difference, Results, Row
from lightleak.report.trainings import ACCURACY, families_of, named, scored
from lightleak.report.units import (
    Alike,
    Scores,
    accuracy_of,
    by_world,
    even,
    interval_of,
    natural_accuracy,
    paired,
    tables_of,
    units_of,
)
from lightleak.report.verdicts import corrected
from lightleak.study.record import Record

Kept = dict[str, dict[str, list[Record]]]  # by target, by world: its trainings, judge by judge


def world_of(record: Record) -> str:
    """The settings that the record's world shares with others: all by which its people were drawn, except the seed.

    Where a seed draws no other people (photographs, digits), no world shares anything: people who are counted again
    would count as others.
    """
    return _described(record, seeded=record.population.name not in DRAWN)


def _described(record: Record, seeded: bool) -> str:
    settings = {name: value for name, value in record.population.settings.items() if seeded or name != "seed"}
    return f"{record.population.name} {sorted(settings.items(), key=lambda pair: pair[0])}"


def divided_anew(records: Iterable[Record]) -> list[str]:
    """A note on each data set of which a study has several populations that hold the same people."""
    seeds: dict[str, set[int]] = {}
    for one in records:
        if one.population.name not in DRAWN:
            seeds.setdefault(_described(one, seeded=False), set()).add(one.population.settings.get("seed", 0))
    return [
        f"the seeds {', '.join(map(str, sorted(each)))} divide the pictures of the same people anew, so these are not "
        "worlds that could be averaged: each has a page of its own; other trainings are seeds of the targets"
        for each in seeds.values()
        if len(each) > 1
    ]


def held_in_worlds(entry: Entry) -> dict[str, Any]:
    """The settings that must be equal on one page over worlds: all but people, defence, seeds and judge."""
    own = ("judge", "judge architecture")
    return {name: value for name, value in entry.held.items() if name not in own and "population" not in name.split()}


def collect_worlds(
    places: Mapping[Path, Record], title: str, command: str = "", primary: Sequence[str] = ()
) -> Results:
    """The results of one attack over several worlds, a row for each target; the first target is the baseline.

    A world counts where a target and the baseline were both finished in it. Several judges are averaged, and each has
    a column of its own beside. `primary` are the measures that the study declared before it ran.
    """
    kept: Kept = {}
    for record in places.values():
        kept.setdefault(training_of(record.target), {}).setdefault(record.population.key, []).append(record)
    if len({record.population.key for record in places.values()}) < 2:
        raise UserError("a page over worlds needs at least two; these evaluations are of one")
    first = next(iter(places.values()))
    judges = list(dict.fromkeys(record.judge.architecture for record in places.values()))
    of_first = next(iter(kept.values()))
    asked = [name for name in (ACCURACY, *shown_in("table")) if _of(of_first, name) or _of_sets(of_first, name)]
    without = {metric for own in kept.values() for metric in trainings.reasons(_all(own))}
    by_judge = [f"hits@1 {judge}" for judge in judges] if len(judges) > 1 else []
    baseline = next(iter(kept))
    alike = {one.population.key: families_of(one) for one in places.values()}
    found = [
        difference
        for name, worlds in kept.items()
        if name != baseline
        for metric in (*shown_in("difference"), *by_judge, ACCURACY)
        if (difference := _compared(name, worlds, kept[baseline], metric, alike)) is not None
    ]
    rows = [_row(name, worlds, [*asked, *by_judge], alike) for name, worlds in kept.items()]
    told = [name for name in shown_in("table") if name in without and name not in asked]
    columned = tuple(_columns([*asked, *told], judges if by_judge else []))
    return Results(
        title=title,
        columns=columned,
        rows=(*rows, *_nulls(kept[baseline], asked, alike), _chance(kept[baseline], asked)),
        summary=_summary(kept, first, judges),
        baseline=baseline,
        whose={name: trainings.of_whom(_all(worlds)) for name, worlds in kept.items()},
        differences=corrected([one for one in found if any(one.column == column.name for column in columned)]),
        primary=tuple(name for name in primary if name in asked),
        tables={
            name: {
                metric: _lists(scores) for metric in (ACCURACY, *shown_in("record")) if (scores := _of(worlds, metric))
            }
            for name, worlds in kept.items()
        },
        families=() if (own := alike[first.population.key]) is None else tuple(own.tolist()),
        leaks=tuple(name for name in ("hits@1", "true@1") if name in asked),
        gallery=gallery(grouped(shown)) if (shown := _pictured(places, kept[baseline], judges[0])) else (),
        gallery_note=f"Of the first world. {note(first.population.classes)}",
        warnings=tuple(_warnings(kept, baseline, judges)),
        notes=first.population.notes,
        recipe=_recipe(places.values(), judges),
        command=command,
        protocol=first.protocol.label if first.protocol else "no named protocol",
        **provenance(list(places)),
    )


Judged = dict[tuple[str, int], dict[str, Tensor]]  # by world and training, by judge


def _judged(worlds: Mapping[str, Sequence[Record]], metric: str) -> Judged:
    """What each judge says of each training, or the one that `metric` names ("hits@1 timm:resnet14t").

    An attack that was repeated is averaged. Empty where one training lacks the metric, as it lacks a distance to images
    of somebody of whom none came back.
    """
    metric, _, judge = metric.partition(" ")
    found: dict[tuple[str, int], dict[str, list[Tensor]]] = {}
    for world, records in worlds.items():
        for record in records:
            value, told_by = _measured(record, metric), record.judge.architecture
            if value is None:
                return {}
            if judge in ("", told_by):
                found.setdefault((world, record.target.seed), {}).setdefault(told_by, []).append(value)
    return {key: {told_by: _mean(own) for told_by, own in each.items()} for key, each in sorted(found.items())}


def _of(worlds: Mapping[str, Sequence[Record]], metric: str) -> Scores:
    """By world and training; judges averaged."""
    return {key: _mean(list(each.values())) for key, each in _judged(worlds, metric).items()}


def _of_sets(worlds: Mapping[str, Sequence[Record]], metric: str) -> Measure | None:
    """What was measured of all images at once, mean over judges, trainings and worlds; None where one lacks it.

    Worlds are the unit: from three on they make its interval.
    """
    if metric not in METRICS or any(metric in one.evaluation.per_class for one in _all(worlds)):
        return None  # natural accuracy, or by one of several judges
    each = [[one.evaluation.measures.get(metric) for one in own] for own in worlds.values()]
    told = [[one for one in own if one is not None] for own in each]
    if any(len(known) < len(own) or not known for known, own in zip(told, each)):
        return None
    mean = [torch.tensor([fmean(one.value for one in known)]) for known in told]
    return (
        worlds_interval(mean, rate=METRICS[metric].rate)
        if len(mean) >= trainings.FEWEST
        else Measure(fmean(map(float, mean)))
    )


def _all(worlds: Mapping[str, Sequence[Record]]) -> list[Record]:
    return [one for own in worlds.values() for one in own]


def _measured(record: Record, metric: str) -> Tensor | None:
    if metric == ACCURACY:
        return accuracy_of(record)
    values = scored([record], metric)
    everybody = len(record.evaluation.classes) == (0 if values is None else values.shape[1])
    return values[0] if values is not None and (everybody or METRICS[metric].rate) else None


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean(0)


def _rate(metric: str) -> bool:
    name = metric.partition(" ")[0]
    return name == ACCURACY or METRICS[name].rate


def _compared(
    name: str, own: Mapping[str, Any], base: Mapping[str, Any], metric: str, alike: Alike
) -> Difference | None:
    """The paired comparison over shared worlds and trainings; None where one of them lacks the metric."""
    worlds = [world for world in own if world in base]
    one, other = (_judged({world: side[world] for world in worlds}, metric) for side in (own, base))
    both = {key: [judge for judge in one[key] if judge in other[key]] for key in one if key in other}
    shared = even(key for key, judges in both.items() if judges)
    if not shared:
        return None
    first, second = ({key: _mean([side[key][judge] for judge in both[key]]) for key in shared} for side in (one, other))
    gap = paired(first, second, alike, rate=_rate(metric))
    count = len({world for world, _ in shared}) if len(worlds) > 1 else 0
    return named(name, metric, gap, trainings=1 if by_world(shared) else units_of(shared), worlds=count)


def _row(name: str, worlds: Mapping[str, Sequence[Record]], metrics: Sequence[str], alike: Alike) -> Row:
    measures = {metric: found for metric in metrics if (found := _measure(worlds, metric, alike)) is not None}
    return Row(name, measures, detail=f"{len(worlds)} worlds", missing=trainings.reasons(_all(worlds)))


def _measure(worlds: Mapping[str, Sequence[Record]], metric: str, alike: Alike) -> Measure | None:
    """A metric over worlds; natural accuracy is of all whom the targets know, not of the attacked alone."""
    if metric == ACCURACY:
        return natural_accuracy({(one.population.key, one.target.seed): one for one in _all(worlds)})
    scores = _of(worlds, metric)
    return interval_of(scores, alike, rate=_rate(metric)) if scores else _of_sets(worlds, metric)


def _nulls(worlds: Mapping[str, Sequence[Record]], metrics: Sequence[str], alike: Alike) -> list[Row]:
    """The baseline's nulls over the worlds that have them."""
    names = dict.fromkeys(name for own in worlds.values() for record in own for name in record.evaluation.nulls)
    rows = []
    for name in names:
        held = {
            world: [replace(one, evaluation=one.evaluation.nulls[name]) for one in own if name in one.evaluation.nulls]
            for world, own in worlds.items()
        }
        row = _row(f"null: {name}", {world: own for world, own in held.items() if own}, metrics, alike)
        told = {metric: value for metric, value in row.measures.items() if metric != ACCURACY}
        rows.append(Row(row.name, told, "null", NULLS.get(name, "")))
    return rows


def _chance(worlds: Mapping[str, Sequence[Record]], metrics: Sequence[str]) -> Row:
    """What a guess scores, mean over worlds."""
    own = [records[0] for records in worlds.values()]
    chance = {
        metric: Measure(sum(one.evaluation.chance[metric] for one in own) / len(own))
        for metric in metrics
        if all(metric in one.evaluation.chance for one in own)
    }
    chance[ACCURACY] = Measure(1 / own[0].population.classes)
    return Row("chance", chance, "chance", "a guess, or a person drawn at random")


def _columns(metrics: Sequence[str], judges: Sequence[str]) -> list[Column]:
    found = []
    for column in columns(*metrics):
        found.append(column)
        if column.name == "hits@1":
            found += [
                Column(f"hits@1 {judge}", f"by {judge.rpartition(':')[2]}", "AttAcc@1 by this judge alone", 1, True)
                for judge in judges
            ]
    return found


def _pictured(places: Mapping[Path, Record], baseline: Mapping[str, Any], judge: str) -> list[Entry]:
    """The evaluations whose pictures are shown: of the first world in which the baseline is, by the first judge."""
    world = next(iter(baseline))
    own: dict[str, tuple[Record, Path]] = {}
    for place, record in places.items():
        if (record.population.key, record.judge.architecture) == (world, judge):
            own.setdefault(training_of(record.target), (record, place))
    return entries(list(own.values()))


def _warnings(kept: Kept, baseline: str, judges: Sequence[str]) -> list[str]:
    everything = {name: _all(worlds) for name, worlds in kept.items()}
    said = [f"{name}: {text}" for name, records in everything.items() for text in trainings.warnings(records)]
    said += filter(None, [trainings.of_whom(everything[baseline]).some_attacked])
    said += of_leaks({name: trainings.unshown(records) for name, records in everything.items()})
    for name, worlds in kept.items():
        again = 0
        for records in worlds.values():
            seen = Counter((one.target.key, one.judge.architecture) for one in records)
            again += sum(count - 1 for count in seen.values())
        if again:
            said.append(f"{name}: {again} evaluations repeat a training with other seeds; averaged within their world")
    for name, worlds in kept.items():
        missing = [world for world in kept[baseline] if world not in worlds]
        if missing:
            said.append(f"{name}: {len(missing)} of {len(kept[baseline])} worlds are not finished")
        said += _uneven(name, worlds, kept[baseline], judges)
    rates = [r.evaluation.family_match_rate for own in kept[baseline].values() for r in own]
    known = [rate for rate in rates if rate is not None]
    if known:
        said.append(
            f"verification takes {sum(known) / len(known):.1%} of look-alikes for the person, and the family's centre "
            f"in as many cases as its null says: who it is, only 'true match @1' and 'right member' say here"
        )
    return said


def _uneven(name: str, own: Mapping[str, Any], base: Mapping[str, Any], judges: Sequence[str]) -> list[str]:
    """Which trainings of a target count with less than all, or not."""
    keys, there = (
        {(world, one.target.seed) for world, records in side.items() for one in records} for side in (own, base)
    )
    said = []
    absent = [key for key in there if key[0] in own and key not in keys]
    if absent:
        said.append(f"{name}: {len(absent)} trainings of the baseline have no counterpart in their world")
    if surplus := len(keys) - len(even(keys)):
        said.append(f"{name}: {surplus} trainings are left out, so that all worlds have as many")
    for judge in judges if len(judges) > 1 else ():
        by = {
            (world, r.target.seed) for world, records in own.items() for r in records if r.judge.architecture == judge
        }
        if keys - by:
            said.append(f"{name}: {len(keys - by)} of {len(keys)} trainings were not judged by {judge}")
    return said


def _summary(kept: Kept, first: Record, judges: Sequence[str]) -> str:
    worlds = max(len(own) for own in kept.values())
    every = [one.judge for own in next(iter(kept.values())).values() for one in own]
    right = [
        f"{judge} (right on {fmean(one.accuracy for one in every if one.architecture == judge):.1%} of test images)"
        for judge in judges
        if any(one.architecture == judge for one in every)
    ]
    return (
        f"{len(kept)} targets ({first.target.architecture}) in each of {worlds} worlds of {first.population.classes} "
        f"people, inverted by {first.attack.title or first.attack.name} and judged by {' and '.join(right)}."
    )


def _recipe(records: Any, judges: Sequence[str]) -> dict[str, Any]:
    first = next(iter(records))
    seeds = sorted({one.population.settings.get("seed", 0) for one in records})
    return {
        "population": people(first.population, seed=seeds),
        "architecture": first.target.architecture,
        "training": first.target.recipe,
        "attack": {"name": first.attack.name, **first.attack.settings},
        "prior": first.prior.name,
        "judges": list(judges),
    }


def _lists(scores: Scores) -> list[list[list[float]]]:
    """By world, seeds x people."""
    return [[[round(value, 6) for value in row] for row in one.tolist()] for one in tables_of(scores).values()]
