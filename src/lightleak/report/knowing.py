"""One page over attackers who know a defence and those who do not; `report.proof` says what is asked of each."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from lightleak.defences import DEFENCES
from lightleak.metrics.evidence import Comparison, Measure, holm
from lightleak.report.attackers import Network, networks
from lightleak.report.glossary import ACCURACY, columns
from lightleak.report.proof import Judged, judge, strongest
from lightleak.report.provenance import people, provenance
from lightleak.report.results import Column, Difference, Level, Results, Row, Verdict
from lightleak.report.trainings import families_of, named, of_whom
from lightleak.report.units import Alike, by_world, interval_of, mean_of, natural_accuracy, scores_of, units_of
from lightleak.report.verdicts import SURELY, corrected, stated
from lightleak.study.record import Record

MEASURED = {"hits@1": "the judge", "true@1": "the truth"}  # what a verdict is by
IGNORANT, AWARE = "ignorant", "knowing"  # begin the names of columns
TOLD = ("real", "hiding", "a trade")


def collect_knowing(
    places: Mapping[Path, Record], title: str, command: str = "", primary: Sequence[str] = ()
) -> Results:
    """The page of one group of `groups_of`."""
    baseline, *others = networks(places.values()).values()
    defended = [one for one in others if one.known]
    first = next(iter(places.values()))
    worlds = {one.population.key: one for one in places.values()}
    alike = {world: families_of(one) for world, one in worlds.items()}
    measured = [name for name in MEASURED if all(name in one.evaluation.per_class for one in places.values())]
    judged = {name: [j for one in defended if (j := judge(one, baseline, name, alike))] for name in measured}
    verdicts = [verdict for name in measured for verdict in _verdicts(judged[name])]
    seeds = sorted({one.population.settings.get("seed", 0) for one in worlds.values()})
    rows = {one.network.name: one for one in (judged[measured[0]] if measured else ())}
    usual = {name for each in others for name, one in each.attacks.items() if one.known is None}
    both = [(name, one) for name in measured for one in judged[name]]
    return Results(
        title=title,
        columns=(ACCURACY, *(column for name in measured for column in _columns(name))),
        rows=(_baseline_row(baseline, measured, alike), *(_row(name, judged, measured) for name in rows)),
        summary=_summary(verdicts, first, measured),
        baseline=baseline.name,
        differences=corrected([one for name, each in judged.items() for j in each for one in _differences(name, j)]),
        levels=tuple(level for name, one in both for level in _levels(name, one)),
        verdicts=tuple(verdicts),
        sentences=tuple(
            _sentence([(v, one) for v, (_, one) in zip(verdicts, both) if v.row == name], usual) for name in rows
        ),
        leaks=tuple(f"{AWARE} {name}" for name in measured),
        notes=(*_notes(baseline, others, rows), *first.population.notes),
        primary=tuple(f"{side} {name}" for name in primary if name in measured for side in (IGNORANT, AWARE)),
        recipe={
            "population": people(first.population, **({"seed": seeds} if len(seeds) > 1 else {})),
            "architecture": first.target.architecture,
            "training": first.target.recipe,
            "attacks": {one.label: one.first.attack.settings for one in baseline.attacks.values()},
            "attackers who know": {
                one.name: {"ran": [a.label for a in one.attacks.values() if a.known], "not run": one.untried}
                for one in defended
            },
        },
        command=command,
        protocol=first.protocol.label if first.protocol else "no named protocol",
        **provenance(list(places)),
    )


# Words ----------------------------------------------------------------------------------------------------------------


def _verdicts(judged: Sequence[Judged]) -> list[Verdict]:
    """The word for each defended network by one measure: the first of the three that is shown."""
    raw = [(one.p_real(), one.p_hiding(), one.p_trade()) if one.enough else (1.0,) * 3 for one in judged]
    sure = holm([p for row in raw for p in row])
    told = []
    for place, one in enumerate(judged):
        row = sure[3 * place : 3 * place + 3]
        word, p = next(((word, p) for word, p in zip(TOLD, row) if p < SURELY), ("cannot be told", None))
        gap = one.at_equal(strongest(one.found, one.found))
        against = None if gap is None else _difference(one, f"{AWARE} {one.metric}", gap)
        told.append(Verdict(one.network.name, one.metric, word, p, against))
    return told


def _difference(judged: Judged, column: str, gap: Comparison) -> Difference:
    return named(judged.network.name, column, gap, **_counted(judged))


def _counted(judged: Judged) -> dict[str, int]:
    """What a difference speaks of: so many trainings in each world, or worlds."""
    units = "worlds" if by_world(judged.keys) else "trainings"
    return {"trainings": 1, units: units_of(judged.keys)}


def _sentence(told: Sequence[tuple[Verdict, Judged]], usual: Collection[str]) -> str:
    """What is said of one defence, measure by measure. `usual`: the attacks that ask nothing of a defence."""
    name = told[0][0].row
    parts = [f"by {MEASURED[one.column]} it {_word(one.word)}: {_clause(one, judged)}" for one, judged in told]
    judged = told[0][1]
    untried = [*judged.network.untried, *(judged.base.attacks[each].label for each in judged.unrun if each in usual)]
    useless = [each for each in judged.found if not judged.network.useful(each)]
    more = f" Not tried: {', '.join(untried)}." if untried else ""
    more += f" Worth too little to count: {_on(judged.network, useless)}." if useless else ""
    return f"{name}: {'; '.join(parts)}.{more}"


def _on(network: Network, names: Sequence[str]) -> str:
    """Attacks, and how accurate what the attacker made of the network is."""
    attacks = [network.attacks[name] for name in names]
    return ", ".join(
        f"{one.label} (which names {_percent(one.accuracy)} of test images right)" if one.made else one.label
        for one in attacks
    )


def _word(word: str) -> str:
    return word if word == "cannot be told" else "is hiding" if word == "hiding" else f"is {word}"


def _clause(one: Verdict, judged: Judged) -> str:
    """The numbers behind a word."""
    p = f", corrected {stated(one.p)}" if one.p is not None else ""
    name = strongest(judged.found, judged.found)
    attack, share = judged.network.attacks[name], _percent(mean_of(judged.found[name]))
    who = f"the strongest attack ({attack.label}{', which knows it' if attack.known else ''})"
    end, level = judged.at_end(name), judged.at_equal(name)
    where = f"at equal natural accuracy ({_percent(judged.stopped.accuracy)})" if judged.stopped else ""
    if one.word == "real":
        fewer = f"{_points(level)} than of the undefended network {where}"
        return f"{who} finds {share} of people, {fewer}{p}"
    if one.word == "hiding":
        name, most = judged.revealing, strongest(judged.ignorant, judged.found)
        attack, share = judged.network.attacks[name], _percent(mean_of(judged.found[name]))
        end, level = judged.against_all(name)
        gain, other = judged.against(name, judged.found[most]), judged.network.attacks[most].label
        more = f"{_points(gain)} than {other}, which does not"
        ends = f"{_points(end)} than the strongest attack on the undefended network"
        ends += f", {_points(level)} {where}" if level and judged.stopped and judged.stopped.early else ""
        return f"{attack.label}, which knows it, finds {share} of people, {more}, and {ends}{p}"
    if one.word == "a trade":
        name = strongest(judged.found, judged.found)
        return (
            f"the strongest attack ({judged.network.attacks[name].label}) finds {_points(judged.at_end(name))} than of "
            f"the undefended network, but {_points(judged.at_equal(name))} {where}{p}"
        )
    if not judged.enough:
        return "one training of each speaks of these networks, not of the defence"
    if level is None:
        return f"{who} finds {_points(end)} than of the undefended network, {_unequal(judged)}"
    return f"{who} finds {_points(level)} than of the undefended network {where}, {_points(end)} than at its end"


def _unequal(judged: Judged) -> str:
    """Why nothing is known at equal natural accuracy."""
    if not set(judged.keys) <= set(judged.network.own):
        return "and how accurate this network is was not recorded in each training"
    if not judged.base.stops:
        return "no checkpoint of which was attacked"
    if judged.stopped is not None:
        return "no checkpoint of which was attacked in the same way"
    return "of which no checkpoint is as little accurate as this network in each training"


def _points(gap: Comparison | None) -> str:
    """A difference in words: "12 points [5, 19] fewer"."""
    if gap is None:
        return ""
    low, high = sorted((gap.low or 0.0, gap.high or 0.0)) if gap.low is not None else (None, None)
    less = gap.value < 0
    ends = (
        ""
        if low is None or high is None
        else f" [{100 * (-high if less else low):.0f}, {100 * (-low if less else high):.0f}]"
    )
    points = f"{abs(100 * gap.value):.0f}"
    word = "point" if points == "1" and not ends else "points"
    return f"{points} {word}{ends} {'fewer' if less else 'more'}".replace("-0", "0").replace("-", "−")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _summary(verdicts: Sequence[Verdict], first: Record, measured: Sequence[str]) -> str:
    """Which defences got which word, by the truth where it is known."""
    deciding = [one for one in verdicts if measured and one.column == measured[-1]]
    said = [
        f"{word}: {', '.join(own)}"
        for word in (*TOLD, "cannot be told")
        if (own := [one.row for one in deciding if one.word == word])
    ]
    by = MEASURED[measured[-1]] if measured else "nothing"
    if not deciding:
        return f"No defended network ({first.target.architecture}) was attacked in all ways that a verdict needs."
    return (
        f"{len(deciding)} defended networks ({first.target.architecture}), attacked by those who know the defence and "
        f"by those who do not. By {by}, {'; '.join(said)}."
    )


# Rows and tables ------------------------------------------------------------------------------------------------------


def _columns(metric: str) -> list[Column]:
    (one,) = columns(metric)
    return [
        Column(f"{side} {metric}", f"{one.label}, {whose}", one.meaning, 1, True, words=one.words, essential=True)
        for side, whose in ((IGNORANT, "strongest that does not know"), (AWARE, "strongest of all"))
    ]


def _baseline_row(base: Network, measured: Sequence[str], alike: Alike) -> Row:
    """The undefended network, of which there is nothing to know."""
    measures: dict[str, Measure | None] = {"accuracy": natural_accuracy(base.own)}
    told = []
    for metric in measured:
        found = {name: table for name, one in base.attacks.items() if (table := scores_of(one.records, metric))}
        best = strongest(found, found)
        measures |= dict.fromkeys((f"{IGNORANT} {metric}", f"{AWARE} {metric}"), interval_of(found[best], alike))
        told.append(base.attacks[best].label)
    return Row(base.name, measures, detail=f"strongest: {', '.join(dict.fromkeys(told))}")


def _row(name: str, judged: Mapping[str, Sequence[Judged]], measured: Sequence[str]) -> Row:
    measures: dict[str, Measure | None] = {}
    told = []
    for metric in measured:
        one = next(one for one in judged[metric] if one.network.name == name)
        if set(one.keys) <= set(one.network.own):
            measures["accuracy"] = natural_accuracy({key: one.network.own[key] for key in one.keys})
        for side, names in _sides(one):
            if names:
                best = strongest(names, one.found)
                measures[f"{side} {metric}"] = interval_of(one.found[best], one.alike)
                told += [one.network.attacks[best].label] if side == AWARE else []
    return Row(name, measures, detail=f"strongest: {', '.join(dict.fromkeys(told))}")


def _differences(metric: str, judged: Judged) -> list[Difference]:
    """The strongest attack of each side against the strongest on the undefended network."""
    return [
        _difference(judged, f"{side} {metric}", judged.at_end(strongest(names, judged.found)))
        for side, names in _sides(judged)
        if names
    ]


def _sides(judged: Judged) -> tuple[tuple[str, Collection[str]], ...]:
    """The attacks of somebody who does not know the defence, and of somebody who does: all of them."""
    return (IGNORANT, judged.ignorant), (AWARE, judged.found)


def _levels(metric: str, judged: Judged) -> list[Level]:
    """The same at equal natural accuracy."""
    if judged.stopped is None or judged.rival is None:
        return []
    there = interval_of(judged.rival, judged.alike)
    told = []
    for side, names in _sides(judged):
        if names:
            best = strongest(names, judged.found)
            gap, own = judged.at_equal(best), interval_of(judged.found[best], judged.alike)
            assert gap is not None
            at = (judged.network.name, f"{side} {metric}", judged.stopped.accuracy)
            between = Measure(gap.value, gap.low, gap.high)
            # More than a weaker attack than the strongest finds there is not more leak.
            p = gap.p if judged.rivals_known or gap.value < 0 else None
            told.append(Level(*at, own, there, between, p, **_counted(judged)))
    return told


def _notes(base: Network, others: Sequence[Network], rows: Mapping[str, Judged]) -> list[str]:
    whose = of_whom(list(base.own.values()))
    said = [f"attacks on the undefended network: {base.labels(base.attacks)}"]
    said += filter(None, (whose.some_attacked, whose.some_tested))
    for name, one in rows.items():
        if ran := [what for what in one.found if one.network.attacks[what].known]:
            said.append(f"{name} was attacked by those who know it with {_on(one.network, ran)}")
        worlds, count = len({world for world, _ in one.keys}), len(one.keys)
        if one.stopped and one.stopped.early and one.rivals and not one.rivals_known:
            best, ran = strongest(one.plain, one.plain), one.base.labels(one.rivals)
            said.append(
                f"{name}: at equal natural accuracy the undefended network was attacked by {ran} alone, not by "
                f"{one.base.labels([best])}, which finds most at its end; more than that is not asked there"
            )
        if count < len(base.own):
            said.append(f"{name}: {count} of {len(base.own)} trainings, in {worlds} worlds, were attacked in all ways")
    again = sum(attack.again for one in (base, *others) for attack in one.attacks.values())
    if again:
        said.append(f"{again} evaluations repeat an attack on a training with other seeds or judges; the first counts")
    alone = {
        one.network.attacks[what].known: None
        for one in rows.values()
        for what in one.aware
        if what not in one.ignorant and what not in one.controlled
    }
    if names := [known.name for known in alone if known]:
        said.append(f"not run on the undefended network, so no proof that anything was hidden: {', '.join(names)}")
    reasons: dict[str, list[str]] = {}
    for one in others:
        if one.name not in rows and one.defences:
            reasons.setdefault(_why_none(one), []).append(one.name)
    said += [f"no verdict on {', '.join(own)}: {why}" for why, own in reasons.items()]
    return said


def _why_none(network: Network) -> str:
    """Why there is no verdict on a network."""
    if network.known:
        return "in no training was it attacked in all ways, and the undefended network in one of them"
    useless = [name for name in network.attacks if not network.useful(name)]
    if useless:
        return f"what those who know it attacked is worth too little to count: {_on(network, useless)}"
    kinds = {name: DEFENCES[name].title if name in DEFENCES else name for name in network.unknown}
    part = ", ".join(kinds.values()) if 0 < len(kinds) < len(network.defences) else "the defence"
    return f"nobody who knows {part} attacked it"
