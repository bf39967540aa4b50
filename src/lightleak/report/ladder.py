"""One page over attacks of different access: a row for each target, a column for each attack, and who hides gradients.

A defence that fools the gradients of a network and leaves in it what it knows of its people stops the attacks that need
gradients, and not those that see labels alone. So a defence *hides gradients* if, person by person,

    1. the strongest attack with gradients finds less than of the undefended network,
    2. an attack by labels finds more of the defended network than that strongest attack does, and
    3. it does so by more than of the undefended network,

each by a paired interval that leaves out zero. The p value of such a finding is the largest of the three, corrected by
Holm over all defences and attacks by labels. Two trainings of each are the least that speaks of a defence.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lightleak.attacks import ATTACKS, Access
from lightleak.metrics.evidence import Comparison, Measure, holm
from lightleak.report.apart import labelled
from lightleak.report.fairness import training_of
from lightleak.report.glossary import ACCURACY, columns
from lightleak.report.provenance import people, provenance
from lightleak.report.results import Column, Difference, Results, Row, counted
from lightleak.report.trainings import everybody, families_of, named, of_whom, scored
from lightleak.report.units import Alike, Key, Scores, interval_of, mean_of, natural_accuracy, paired
from lightleak.report.verdicts import LEAST, SURELY, corrected, stated
from lightleak.study.record import Record

RUNGS: tuple[Access, ...] = ("labels", "scores", "gradients")  # from the least that is granted upwards
MEASURED = ("hits@1", "true@1")  # by the judge and by the truth
Found = Mapping[str, Mapping[str, list[Record]]]  # by target, by attack: its trainings


@dataclass(frozen=True)
class Hidden:
    """What a label-only attack finds in a defended network, compared with the strongest attack with gradients."""

    target: str
    labels: str
    gradients: str
    more: Comparison  # labels minus gradients on the defended network
    p: float  # of all three conditions together, before correction; 1 where one points the other way


def access_of(record: Record) -> Access | None:
    """The access of an attack; None if it is not installed, and for nulls, which have no rung."""
    kind = next((kind for kind in ATTACKS.values() if kind.__name__ == record.attack.name), None)
    return None if kind is None or kind.null else kind.access


def by_target(records: Sequence[Record]) -> dict[str, dict[str, list[Record]]]:
    """The trainings of each target by attack, from labels up to gradients; only attacks run on the first and another.

    Attacks are told apart by their settings and priors, not by seeds and judges.
    """
    known = [one for one in records if access_of(one) is not None and one.target.moment is None]
    ranked = sorted(known, key=lambda one: RUNGS.index(access_of(one) or "gradients"))
    targets = dict.fromkeys(training_of(one.target) for one in known)
    names = _names(ranked)
    met: dict[str, set[str]] = {}
    for one in ranked:
        met.setdefault(names[_identity(one)], set()).add(training_of(one.target))
    found: dict[str, dict[str, list[Record]]] = {target: {} for target in targets}
    for one in ranked:
        name = names[_identity(one)]
        if len(met[name]) > 1 and next(iter(targets)) in met[name]:
            found[training_of(one.target)].setdefault(name, []).append(one)
    return {target: attacks for target, attacks in found.items() if attacks}


def _identity(record: Record) -> str:
    held = [record.attack.name, record.attack.settings, record.prior.name, record.prior.settings]
    return json.dumps(held, sort_keys=True, default=str)


def _names(records: Sequence[Record]) -> dict[str, str]:
    """By identity, what a column calls an attack; with what differs, where several have one name."""
    firsts: dict[str, Record] = {}
    for one in records:
        firsts.setdefault(_identity(one), one)
    named = [
        (_name(one), {**one.attack.settings, **{f"prior {key}": v for key, v in (one.prior.settings or {}).items()}})
        for one in firsts.values()
    ]
    return dict(zip(firsts, labelled(named)))


def _name(record: Record) -> str:
    return record.attack.title or record.attack.name


def by_training(records: Sequence[Record], metric: str) -> Scores:
    """What was found of each person in each training, C; means of repeated attacks and of several judges."""
    found: dict[Key, list[Tensor]] = {}
    for one in records:
        values = scored([one], metric)
        if values is None:
            return {}
        found.setdefault((one.population.key, one.target.seed), []).append(values[0])
    return {key: torch.stack(each).mean(0) for key, each in sorted(found.items())}


def is_ladder(records: Sequence[Record]) -> bool:
    """Whether several targets of one population and network were each attacked with different access."""
    if len({(one.population.key, one.target.architecture) for one in records}) != 1:
        return False
    found = by_target(records)
    rungs = {access_of(own[0]) for attacks in found.values() for own in attacks.values()}
    return len(found) > 1 and len(rungs) > 1


def collect_ladder(places: Mapping[Path, Record], title: str, command: str = "") -> Results:
    """The results of a ladder; the first target is the undefended network that all are compared with."""
    found = by_target(list(places.values()))
    first = next(iter(places.values()))
    baseline, alike = next(iter(found)), {first.population.key: families_of(first)}
    tables = [own for attacks in found.values() for own in attacks.values()]
    measured = [name for name in MEASURED if all(by_training(own, name) for own in tables)]
    judged = measured[-1] if measured else ""  # where truth is known, it decides who hides
    tried = hidden(found, judged, alike) if measured else []
    sure = holm([one.p for one in tried])
    named = [(one, p) for one, p in zip(tried, sure) if p < SURELY and _trainings(found[one.target]) >= LEAST]
    return Results(
        title=title,
        columns=(ACCURACY, *_columns(found[baseline], measured)),
        rows=tuple(_row(name, attacks, measured, alike) for name, attacks in found.items()),
        summary=_summary(found, first),
        baseline=baseline,
        differences=corrected(_differences(found, baseline, measured, alike)),
        searches=searches_of(found),
        leaks=(),
        warnings=tuple(_sentence(one, p) for one, p in named),
        notes=(*_notes(found, tried, named, judged), *first.population.notes),
        recipe={
            "population": people(first.population),
            "architecture": first.target.architecture,
            "training": first.target.recipe,
            "attacks": {name: own[0].attack.settings for name, own in found[baseline].items()},
            "priors": {name: own[0].prior.name for name, own in found[baseline].items()},
        },
        command=command,
        protocol=first.protocol.label if first.protocol else "no named protocol",
        **provenance(list(places)),
    )


def hidden(found: Found, metric: str, alike: Alike) -> list[Hidden]:
    """Every label-only attack on every defended network, compared with the strongest attack with gradients on it."""
    baseline, *defended = found
    plain = {name: by_training(own, metric) for name, own in found[baseline].items()}
    rung = {name: access_of(own[0]) for name, own in found[baseline].items()}
    white = [name for name in plain if rung[name] == "gradients"]
    tried = []
    for target in [one for one in defended if any(name in found[one] for name in white)]:
        own = {name: by_training(records, metric) for name, records in found[target].items()}
        best, before = (max((mean_of(side[name]), name) for name in white if name in side)[1] for side in (own, plain))
        held = _paired(plain[before], own[best], alike)
        for name in (name for name in own if rung[name] == "labels"):
            more = _paired(own[name], own[best], alike)
            gaps = [
                {key: side[name][key] - side[best][key] for key in side[name] if key in side[best]}
                for side in (own, plain)
            ]
            beyond = _paired(gaps[0], gaps[1], alike, rate=False)
            right = all(one is not None and one.low is not None and one.low > 0 for one in (held, more, beyond))
            p = max(one.p for one in (held, more, beyond) if one) if right else 1.0
            if more is not None:
                tried.append(Hidden(target, name, best, more, p))
    return tried


def searches_of(found: Found) -> dict[str, dict[str, tuple[tuple[float, float], ...]]]:
    """By target and attack: queries per person and the best confidence so far, means over people and trainings.

    An attack that records no curve is one point: where it ended.
    """
    told: dict[str, dict[str, tuple[tuple[float, float], ...]]] = {}
    for target, attacks in found.items():
        for name, records in attacks.items():
            curves = [one.search for one in records if one.search]
            if access_of(records[0]) == "labels" and not curves:
                continue  # it sees no confidence
            if len(curves) == len(records) and len({len(curve) for curve in curves}) == 1:
                points = torch.tensor(curves, dtype=torch.float64).mean(0).tolist()
            else:
                best = [sum(one.confidence) / len(one.confidence) for one in records if one.confidence]
                points = [[sum(map(_queries, records)) / len(records), sum(best) / len(best)]] if best else []
            if points:
                told.setdefault(target, {})[name] = tuple((a, b) for a, b in points)
    return told


def _paired(one: Scores, other: Scores, alike: Alike, rate: bool = True) -> Comparison | None:
    """The paired comparison over the trainings that both sides have; None if there is none."""
    shared = [key for key in one if key in other]
    if not shared:
        return None
    first, second = ({key: side[key] for key in shared} for side in (one, other))
    return paired(first, second, alike, rate)


def _trainings(attacks: Mapping[str, list[Record]]) -> int:
    return min(len({one.target.seed for one in own}) for own in attacks.values())


def _queries(record: Record) -> float:
    """Queries of a person, what was learnt beforehand included."""
    return (record.evaluation.queries + record.beforehand) / max(1, len(everybody(record)))


def _columns(attacks: Mapping[str, list[Record]], measured: Sequence[str]) -> list[Column]:
    found = []
    for metric in columns(*measured):
        for name, own in attacks.items():
            label = f"{name} ({access_of(own[0])}), {metric.label}"
            found.append(
                Column(f"{metric.name} {name}", label, metric.meaning, 1, True, words=metric.words, essential=True)
            )
    return found


def _row(name: str, attacks: Mapping[str, list[Record]], measured: Sequence[str], alike: Alike) -> Row:
    measures: dict[str, Measure | None] = {
        f"{metric} {attack}": interval_of(by_training(own, metric), alike)
        for metric in measured
        for attack, own in attacks.items()
    }
    own = {(one.population.key, one.target.seed): one for records in attacks.values() for one in records}
    measures["accuracy"] = natural_accuracy(own)
    return Row(name, measures, detail=counted(_trainings(attacks), "training"))


def _differences(found: Found, baseline: str, measured: Sequence[str], alike: Alike) -> list[Difference]:
    told = []
    for target in [name for name in found if name != baseline]:
        for metric in measured:
            for name, own in found[target].items():
                sides = [by_training(side, metric) for side in (own, found[baseline][name])]
                if (gap := _paired(sides[0], sides[1], alike)) is not None:
                    told.append(named(target, f"{metric} {name}", gap, trainings=len(set(sides[0]) & set(sides[1]))))
    return told


def _sentence(one: Hidden, p: float) -> str:
    low, high = (100 * (value or 0.0) for value in (one.more.low, one.more.high))
    return (
        f"{one.target} hides gradients: {one.labels}, which sees labels alone, finds {100 * one.more.value:+.0f} "
        f"points [{low:+.0f}, {high:+.0f}] beside {one.gradients}, the strongest with gradients (corrected "
        f"{stated(p)})"
    )


def _summary(found: Found, first: Record) -> str:
    attacks = next(iter(found.values()))
    by = {rung: [name for name, own in attacks.items() if access_of(own[0]) == rung] for rung in RUNGS}
    told = "; ".join(f"{rung}: {', '.join(names)}" for rung, names in by.items() if names)
    return f"{len(found)} targets ({first.target.architecture}), attacked with less and with more access ({told})."


def _notes(found: Found, tried: Sequence[Hidden], named: Sequence[tuple[Hidden, float]], judged: str) -> list[str]:
    spent = {name: sum(map(_queries, own)) / len(own) for name, own in next(iter(found.values())).items()}
    each = ", ".join(f"{name} {count:,.0f}" for name, count in spent.items())
    said = [f"queries of each person, what was learnt beforehand included, on the first target: {each}"]
    if tried:
        by = "the truth" if judged == "true@1" else "the judge"
        said.append(
            f"whether a defence hides gradients was asked of {len(tried)} pairs of a defence and an attack by labels, "
            f"by {by}, and is shown for {len(named) or 'none'}"
        )
    whose = of_whom([one for own in next(iter(found.values())).values() for one in own])
    return [*said, *filter(None, (whose.some_attacked, whose.some_tested))]
