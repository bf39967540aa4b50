"""From the evaluations of a study to the results that a page shows."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from lightleak.errors import UserError
from lightleak.metrics.evaluate import FAMILY
from lightleak.metrics.evaluation import METRICS, Evaluation
from lightleak.metrics.evidence import Measure
from lightleak.metrics.registry import shown_in
from lightleak.report import trainings
from lightleak.report.curves import Curves, curves_of, levels_of, points, taken_of
from lightleak.report.fairness import Entry, Group, counting, entries, grouped, swept_counting, training_of
from lightleak.report.gallery import gallery, note
from lightleak.report.glossary import OF_TARGETS, columns
from lightleak.report.provenance import people, provenance
from lightleak.report.remarks import of_leaks
from lightleak.report.results import Difference, Results, Row
from lightleak.report.verdicts import corrected
from lightleak.report.whose import OfWhom
from lightleak.study.record import CostsRecord, Record, SharesRecord, read, read_costs, read_shares

COSTS = ("training", "answering", "parameters", "memory", "robust", "calibration")  # of Costs and Utility tasks


def collect(
    folders: Sequence[Path],
    title: str,
    command: str = "",
    costs: Sequence[Path] = (),
    mixed_protocols: bool = False,
    shares: Sequence[Path] = (),
    published: Mapping[str, Any] | None = None,
    primary: Sequence[str] = (),
) -> Results:
    """The results of finished evaluations (their folders) of one population; seeds of one defence become one row.

    With one seed an interval speaks of other people; with several, of other seeds and other people. The first target
    is the baseline. Only targets that differ from it in their defence alone are compared with it; others (another
    network, recipe, attack or set of seeds) are listed as references, with what differs. Checkpoints are no rows: they
    make the curves on which a target and the baseline are compared at equal natural accuracy. `costs` are the folders
    of Costs and Utility tasks. Evaluations that were counted differently (by another protocol or another judge) share
    a table only if `mixed_protocols`. `shares` are the folders of GradientShares tasks. `published` are the paper's
    numbers by architecture: {"of": whose they are, "rows": {title: {"accuracy": ..., "hits@1": ...}}}. `primary` are
    the measures that the study declared before it ran.
    """
    everything = entries([(read(folder), folder) for folder in folders])
    whole = _final(everything)
    ways = _counted(everything, whole, mixed_protocols)
    rowed, first = grouped(whole), whole[0].record
    targets, baseline = [group for group in rowed if not group.different], rowed[0].name
    papers = [_paper(group, published or {}) for group in rowed]
    rows = _measured(rowed, _priced_by_title(map(read_costs, costs)), [theirs for _, theirs in papers])
    shown, told = _shown(rows, first.protocol.metrics if first.protocol else ())
    curves = curves_of(everything, targets, [name for name in shown_in("curve") if name in shown])
    alike, levels = trainings.families_of(first), tuple(levels_of(curves, baseline))
    whose = {group.name: trainings.of_whom([one.record for one in group.entries]) for group in rowed}
    swept, sweep = _any_swept(rowed, targets, baseline)
    of_network = [one for one in map(read_shares, shares) if one.architecture == first.target.architecture]
    return Results(
        title=title,
        columns=columns(*told),
        rows=tuple(_only_shown(row, shown, told) for row in (*rows, *_beside_targets(whole))),
        summary=_summary(first, whose[baseline], len(rowed), max(len(group.entries) for group in rowed)),
        baseline=baseline,
        differences=corrected(_differences(targets, shown)),
        primary=tuple(name for name in primary if name in shown),
        tables=_tables(rowed, shown),
        families=() if alike is None else tuple(alike.tolist()),
        curves={name: tuple(points(way)) for name, way in curves.items()},
        levels=levels,
        unequal=tuple(f"{group.name}: {group.different}" for group in rowed if group.different),
        runs=_runs([group for group in targets if len(group.entries) > 2], shown),
        swept=swept,
        sweep=sweep,
        shares=_shares(of_network, targets),
        whose=whose,
        leaks=tuple(name for name in ("hits@1", "verified") if name in shown),
        confidences={group.name: _confidences(group) for group in rowed},
        gallery=gallery(rowed),
        gallery_note=note(first.population.classes),
        warnings=(
            *([f"counted differently, and so not comparable: {'; '.join(ways)}"] if _apart(ways) else []),
            *_warnings(targets),
            *(_never_met(name, baseline) for name in curves if name not in {one.row for one in levels} | {baseline}),
            *_left_out(everything, whole, targets, curves),
            *_unfinished(rowed),
        ),
        footnotes={"hits@1": deltas} if (deltas := _deltas(targets)) and "hits@1" in shown else {},
        notes=(
            *first.population.notes,
            *_networks([one.record.evaluation for one in whole]),
            *_absent(whole),
            *_of_whom(whose),
            *([f"The published numbers are of {'; of '.join(theirs)}."] if (theirs := _whose(papers)) else []),
        ),
        recipe=_recipe(whole),
        command=command,
        protocol="; ".join(ways),
        **provenance([*folders, *costs]),
    )


def _confidences(group: Group) -> tuple[float, ...]:
    """The target's confidence in each kept image of a row's evaluations."""
    return tuple(value for one in group.entries for value in one.record.confidence)


def _any_swept(rowed: Sequence[Group], targets: Sequence[Group], baseline: str) -> tuple[str, dict[str, float]]:
    """What the rows sweep, and where each of them stands: factors, else a defence's setting, else any other."""
    swept, sweep = _factors(targets)
    if not swept:
        swept, sweep = _swept({group.name: group.entries[0].record.target.defences for group in targets}, baseline)
    return (swept, sweep) if swept else _swept_otherwise(rowed)


def _apart(ways: Mapping[str, Sequence[Record]]) -> bool:
    """Whether evaluations were counted in ways that do not compare."""
    return len(ways) > 1 and not swept_counting(ways)


def _counted(everything: Sequence[Entry], whole: Sequence[Entry], mixed: bool) -> Mapping[str, Sequence[Record]]:
    """By whose protocols the evaluations were counted; UserError if they make no table together."""
    if not whole:
        raise UserError("there is no finished evaluation to report; run the study first")
    if len({one.record.population.key for one in everything}) > 1:
        raise UserError("one table compares targets of one population; these evaluations are of several")
    ways = counting([one.record for one in everything])
    if _apart(ways) and not mixed:
        told = "; ".join(f"{name}: {', '.join(_titles(own))}" for name, own in ways.items())
        raise UserError(f"numbers counted differently do not compare ({told}); ask for it with --mixed-protocols")
    return ways


def _paper(group: Group, published: Mapping[str, Any]) -> tuple[str, Mapping[str, float]]:
    """Whose numbers the paper has for a row, and these; ("", {}) without any.

    A row that differs from the others in its network alone stands for that network's row.
    """
    target = group.entries[0].record.target
    paper = published.get(target.architecture, {})
    other_network = {name for name, *_ in group.changed} == {"architecture"}
    theirs = paper.get("rows", {}).get(training_of(target) if other_network else group.name, {})
    return (paper["of"], theirs) if theirs else ("", {})


def _whose(papers: Sequence[tuple[str, Mapping[str, float]]]) -> list[str]:
    """Whose the paper's numbers are, each once."""
    return list(dict.fromkeys(of for of, _ in papers if of))


def _measured(
    rowed: Sequence[Group], priced: Mapping[str, Mapping[str, float]], papers: Sequence[Mapping[str, float]]
) -> list[Row]:
    """A row for each target or reference, with what its defence costs and what the paper says."""
    rows = []
    for group, paper in zip(rowed, papers):
        row = _priced(_row(group.name, [one.record for one in group.entries]), priced)
        if not group.different and group is not rowed[0]:
            traded = trainings.traded(*([one.record for one in some.entries] for some in (group, rowed[0])))
            row = replace(row, measures={**row.measures, "delta": traded})
        row = replace(row, kind="reference" if group.different else "target")
        rows.append(_beside(row, paper))
    return rows


def _shown(rows: Sequence[Row], named: Sequence[str]) -> tuple[list[str], list[str]]:
    """The columns that have numbers, in order: what belongs in the table, or is named by the protocol; and all columns,
    those included of which a row says only why it has no number.
    """
    measured = {name for row in rows for name, measure in row.measures.items() if measure is not None}
    known = measured | {name for row in rows for name in row.missing}
    order = list(dict.fromkeys(("accuracy", *shown_in("table"), *OF_TARGETS, *named)))
    return [name for name in order if name in measured], [name for name in order if name in known]


def _beside_targets(whole: Sequence[Entry]) -> list[Row]:
    """The nulls, and chance."""
    first = whole[0].record
    chance = {name: Measure(value) for name, value in first.evaluation.chance.items()}
    chance["accuracy"] = Measure(1 / first.population.classes)
    nulls = trainings.null_rows([one.record for one in whole], NULLS)
    return [*nulls, Row("chance", chance, "chance", "a guess, or a person drawn at random")]


def _only_shown(row: Row, shown: list[str], told: list[str]) -> Row:
    return replace(row, measures=_only(row.measures, shown), missing=_only(row.missing, told))


def _of_whom(whose: Mapping[str, OfWhom]) -> list[str]:
    """Of whom natural accuracy and leaks speak, each remark once; by row where rows differ."""
    said: dict[str, list[str]] = {}
    for name, one in whose.items():
        for text in filter(None, (one.some_attacked, one.some_tested, one.some_paired)):
            said.setdefault(text, []).append(name)
    return [text if len(names) == len(whose) else f"{', '.join(names)}: {text}" for text, names in said.items()]


def _differences(targets: Sequence[Group], shown: Sequence[str]) -> list[Difference]:
    """Every target minus the baseline, where both have as many trainings."""
    found = []
    for group in targets[1:]:
        if len(group.entries) != len(targets[0].entries):
            continue
        own, base = ([one.record for one in some.entries] for some in (group, targets[0]))
        compared = [metric for metric in shown_in("difference") if metric in shown]
        gaps = (trainings.difference(own, base, group.name, metric) for metric in compared)
        found += [gap for gap in gaps if gap is not None]
    return found


def _tables(rowed: Sequence[Group], shown: Sequence[str]) -> dict[str, dict[str, list[list[float]]]]:
    """By row, what is kept person by person."""
    kept = [metric for metric in shown if metric in ("accuracy", *shown_in("record"))]
    return {group.name: trainings.stored([one.record for one in group.entries], kept) for group in rowed}


def _never_met(name: str, baseline: str) -> str:
    return f"{name}: no natural accuracy is reached by it and by {baseline} alike"


def _recipe(whole: Sequence[Entry]) -> dict[str, Any]:
    """What the numbers were made with, for the page's recipe."""
    first = whole[0].record
    attack, judge = first.attack, first.judge
    return {
        "population": people(first.population),
        "architecture": first.target.architecture,
        "training": first.target.recipe,
        "attack": {
            "name": attack.name,
            **({"title": attack.title} if attack.title else {}),
            **attack.settings,
            **({"classes": attack.classes} if attack.classes else {}),
            **({"knowledge": attack.knowledge} if attack.knowledge else {}),
        },
        "prior": {"name": first.prior.name, **(first.prior.settings or {})},
        "judge": {"architecture": judge.architecture, **({"sha256": judge.sha256} if judge.sha256 else {})},
        "protocol": vars(first.protocol) if first.protocol else "none",
        "seeds": sorted({one.record.target.seed for one in whole}),
        "surgery": {one.record.target.title: [_cut(step) for step in one.record.target.surgery] for one in whole},
    }


def _titles(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(record.target.title for record in records))


def _absent(whole: Sequence[Entry]) -> list[str]:
    """Which nulls these data do not allow."""
    found = {(name, why): None for one in whole for name, why in one.record.absent.items()}
    return [f"there is no null '{name}' here: {why}" for name, why in found]


def _left_out(
    everything: Sequence[Entry], whole: Sequence[Entry], targets: Sequence[Group], curves: Mapping[str, Curves]
) -> list[str]:
    """Evaluations at checkpoints that are on no curve: said, never dropped in silence."""
    drawn = {one.folder for one in whole}
    for group in targets:
        if group.name in curves:
            drawn |= {one.folder for moment in taken_of(everything, group) for one in moment}
    left = Counter(training_of(one.record.target) for one in everything if one.folder not in drawn)
    return [
        f"{title}: {count} evaluation{'s' * (count > 1)} at checkpoints stand{'s' * (count == 1)} on no curve "
        "(another setting, or a moment at which not all seeds were attacked)"
        for title, count in left.items()
    ]


NULLS = {
    "never optimised": "images of the prior, given out at random",
    FAMILY: "the centre of each person's family of look-alikes, which knows nothing of the person",
    "adversarial": "MI-Face in the pixels, without a prior: who is recognised here was never shown",
    "other people": "the same attack on the same network, trained on none of these people",
}


def _row(name: str, records: list[Record]) -> Row:
    measures = trainings.measures(records) | trainings.spreads(records)
    seeds = len(records)
    detail = f"{seeds} training seeds" if seeds > 1 else ""
    private = records[0].target.privacy
    if private:
        epsilon = private["epsilon"]
        measures["epsilon"] = None if epsilon is None else Measure(epsilon)
        guarantee = "no guarantee" if epsilon is None else f"epsilon {epsilon:.3g} at delta {private['delta']:.0e}"
        detail = ", ".join(filter(None, (guarantee, detail)))
    return Row(name, measures, detail=detail, missing=trainings.reasons(records))


def _beside(row: Row, published: Mapping[str, float]) -> Row:
    """The row with the paper's numbers for it, if there are any."""
    theirs = {f"published {name}": Measure(value) for name, value in published.items()}
    return replace(row, measures={**row.measures, **theirs})


def _runs(groups: Sequence[Group], shown: list[str]) -> dict[str, dict[str, tuple[float, ...]]]:
    """What every single training seed of a target scored."""
    found: dict[str, dict[str, tuple[float, ...]]] = {}
    for group in groups:
        records = [one.record for one in group.entries]
        known = trainings.table(records, "accuracy")  # an older record does not say whose it is
        each = [record.target.accuracy for record in records] if known is None else known.mean(1).tolist()
        found[group.name] = {"accuracy": tuple(each)}
        for metric in ("hits@1", "verified", "true@1"):
            measures = [record.evaluation.measures.get(metric) for record in records]
            if metric in shown and all(measures):
                found[group.name][metric] = tuple(measure.value for measure in measures if measure)
    return found


def _swept(defences: Mapping[str, Mapping[str, Any]], baseline: str) -> tuple[str, dict[str, float]]:
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
        if not all(_number(value) for value in values.values()):
            continue
        if (kind, differing[0]) == ("SSF", "factor") and not defences[baseline]:
            values[baseline] = 1.0
        return f"{kind} {differing[0].replace('_', ' ')}", {name: float(v) for name, v in values.items()}  # pyright: ignore
    return "", {}


def _factors(targets: Sequence[Group]) -> tuple[str, dict[str, float]]:
    """By how much at least three targets scale one and the same skips before they are trained: RoLSS by 0.

    However that is spelled: what was done to each network is asked. Where nothing was done, the skips count 1.
    """
    found: dict[str, float] = {}
    cut = set()
    for group in targets:
        target = group.entries[0].record.target
        if set(target.defences) <= {"SSF", "RoLSS"} and len(target.surgery) == len(target.defences) <= 1:
            found[group.name] = float(target.surgery[0]["factor"]) if target.surgery else 1.0
            cut |= {json.dumps(step["skips"]) for step in target.surgery}
    enough = len(set(found.values())) == len(found) > 2 and len(cut) == 1 and len(set(found.values()) - {0.0, 1.0}) > 0
    return ("SSF factor", found) if enough else ("", {})


def _swept_otherwise(groups: Sequence[Group]) -> tuple[str, dict[str, float]]:
    """The one number of attack, prior, recipe or judge in which at least three rows of one target differ."""
    own = [group for group in groups if len(group.changed) == 1]
    own = [
        one
        for one in own
        if training_of(one.entries[0].record.target) == training_of(groups[0].entries[0].record.target)
    ]
    if len(own) < 2 or len({group.changed[0][0] for group in own}) != 1:
        return "", {}
    values = {groups[0].name: own[0].changed[0][2], **{group.name: group.changed[0][1] for group in own}}
    if not all(_number(value) for value in values.values()):
        return "", {}
    return own[0].changed[0][0], {name: float(value) for name, value in values.items()}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shares(told: Sequence[SharesRecord], groups: Sequence[Group]) -> dict[str, dict[str, float]]:
    """For each target, by stage, the mean over its seeds."""
    found: dict[str, dict[str, float]] = {}
    for group in groups:
        own = [one.stages for one in told if one.title == group.name]
        if own:
            found[group.name] = {stage: sum(one[stage] for one in own) / len(own) for stage in own[0]}
    return found


def _priced_by_title(told: Iterable[CostsRecord]) -> dict[str, dict[str, float]]:
    """What was measured of each title; means where several trainings were."""
    found: dict[str, dict[str, list[float]]] = {}
    for one in told:
        for name in COSTS:
            if (value := getattr(one, name)) is not None:
                found.setdefault(one.title, {}).setdefault(name, []).append(value)
    return {title: {name: mean(values) for name, values in own.items()} for title, own in found.items()}


def _priced(row: Row, priced: Mapping[str, Mapping[str, float]]) -> Row:
    """The row with what its defence costs, if that was measured."""
    costs = {name: Measure(value) for name, value in priced.get(row.name, {}).items()}
    return replace(row, measures={**row.measures, **costs})


def _final(everything: Sequence[Entry]) -> list[Entry]:
    """The evaluations of whole runs; of a run that was attacked at its checkpoints only, that of the last of them."""
    ends: dict[str, list[Entry]] = {}
    for one in everything:
        ends.setdefault(f"{one.run} {one.record.target.seed}", []).append(one)
    found = []
    for those in ends.values():
        finished = [one for one in those if one.record.target.moment is None]
        found += finished or [max(those, key=lambda one: one.record.target.epoch or 0)]
    return found


def _unfinished(rowed: Sequence[Group]) -> list[str]:
    """The rows whose trainings were attacked at checkpoints alone."""
    found = [group.name for group in rowed if any(one.record.target.moment is not None for one in group.entries)]
    return [f"{name}: not attacked at its end; the row is of its last checkpoint that was" for name in found]


def _networks(evaluations: list[Evaluation]) -> list[str]:
    """Over whose features realism and faces are measured; a table of two networks says so."""
    notes = []
    for metric in dict.fromkeys(name for one in evaluations for name in one.networks if name in METRICS):
        used = list(dict.fromkeys(one.networks[metric] for one in evaluations if metric in one.networks))
        notes.append(f"{METRICS[metric].label}: features of {' and of '.join(used)}")
        if len(used) > 1:
            notes[-1] += "; numbers of different networks do not compare"
    return notes


def _only(mapping: Any, names: list[str]) -> dict[str, Any]:
    return {name: mapping[name] for name in names if name in mapping}


def _cut(step: Mapping[str, Any]) -> dict[str, Any]:
    """What a reader wants to know of a step of surgery."""
    return {name: value for name, value in step.items() if isinstance(value, str | int | float | list)}


def _summary(record: Record, whose: OfWhom, targets: int, seeds: int) -> str:
    attack, judge = record.attack.title or record.attack.name, record.judge
    some = f" {whose.attacked} of them" if whose.attacked < whose.known else ""
    runs = f", {seeds} training seeds each" if seeds > 1 else ""
    return (
        f"{targets} targets ({record.target.architecture}{runs}) that know {whose.known} people,{some} "
        f"inverted by {attack} and judged by {judge.architecture} (right on {judge.accuracy:.1%} of test images)."
    )


def _warnings(targets: Sequence[Group]) -> tuple[str, ...]:
    said: dict[str, list[str]] = {}
    for group in targets:
        for warning in trainings.warnings([one.record for one in group.entries]):
            said.setdefault(warning, []).append(group.name)
    everyone = [group.name for group in targets]
    found = [w if names == everyone else f"{', '.join(names)}: {w}" for w, names in said.items()]
    unshown = {group.name: trainings.unshown([one.record for one in group.entries]) for group in targets}
    return tuple(dict.fromkeys([*found, *of_leaks(unshown)]))


def _deltas(targets: Sequence[Group]) -> tuple[str, ...]:
    """The paper's Delta of every target."""
    base = [one.record for one in targets[0].entries]
    own = {group.name: [one.record for one in group.entries] for group in targets[1:]}
    return tuple(trainings.delta_in_words(name, records, base) for name, records in own.items())
