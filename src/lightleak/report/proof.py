"""What attackers who know a defence, and those who do not, show of it: that it is real, hides, or is a trade.

Of every defended network, by each measure, with the attacks that were run on it and on the undefended one:

    real        every attack, the strongest that knows the defence among them, finds fewer people than the strongest
                attack finds of the undefended network, at equal natural accuracy
    hiding      attackers who do not know it find fewer than the same attacks do of the undefended network; the
                strongest that knows it does not, and finds more of this very network than each of them
    a trade     every attack finds fewer than of the undefended network, but not at equal natural accuracy, and most of
                the difference is what the undefended network loses when it is stopped there

and else it cannot be told. Each is a chain of paired differences whose intervals must leave out zero; its p is the
largest of theirs. A maximum over attacks is never one of luck: either all of them must hold, or the p of the one that
was chosen counts once for each that it was chosen from. Of several worlds each must show every difference by itself, by
its own interval; p is that of all of them together, corrected by Holm over all defences and all three words. Two
trainings of each network are the least that speaks of a defence.

Equal natural accuracy: that of the defended network itself, whatever an attacker copied or changed of it. Where it is
below the undefended network's, that is read off the latter's checkpoints, and a difference counts from `STOPPED` on.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightleak.attacks.adaptive import knowing
from lightleak.metrics.evidence import Comparison, Measure, compare, over_worlds, seeds_interval, worlds_interval
from lightleak.metrics.frontier import STOPPED, Curve, added
from lightleak.report.attackers import Key, Network
from lightleak.report.trainings import accuracies, everybody, scored
from lightleak.report.verdicts import LEAST, SURELY
from lightleak.study.record import Record

Scores = Mapping[Key, Tensor]  # what was found of each attacked person, C
Alike = Mapping[str, Tensor | None]  # by world: the families of its people


@dataclass(frozen=True)
class Gap(Comparison):
    """A paired difference over worlds, trainings and people, and whether every world shows it by itself."""

    agree: bool = True


@dataclass(frozen=True)
class Stopped:
    """The undefended network at the natural accuracy of a defended one."""

    strongest: str  # the attack that finds most of it there
    scores: Mapping[str, Scores]  # by attack
    accuracy: float
    early: bool  # whether it was stopped before its end


@dataclass(frozen=True)
class Judged:
    """What the attacks on one defended network come to, by one measure."""

    network: Network
    metric: str
    keys: tuple[Key, ...]
    found: Mapping[str, Scores]  # by attack
    plain: Mapping[str, Scores]  # the same of the undefended network
    stopped: Stopped | None
    alike: Alike

    @property
    def aware(self) -> list[str]:
        """The attacks that know the defence; all where there is nothing to know."""
        if not knowing(self.network.defences):
            return list(self.found)
        return [name for name in self.found if self.network.attacks[name].known is not None]

    @property
    def ignorant(self) -> list[str]:
        """The attacks that do not."""
        return [name for name in self.found if self.network.attacks[name].known is None]

    @property
    def enough(self) -> bool:
        """Whether there are trainings enough to speak of the defence."""
        return units_of(self.keys) >= LEAST

    def against(self, name: str, other: Scores, rate: bool = True) -> Gap:
        """What an attack finds, minus what is in `other`."""
        return paired(self.found[name], other, self.alike, rate)

    def at_end(self, name: str) -> Gap:
        """An attack against the strongest on the undefended network."""
        return self.against(name, self.plain[strongest(self.plain, self.plain)])

    def at_equal(self, name: str) -> Gap | None:
        """An attack against the strongest on the undefended network at equal natural accuracy, if that is known."""
        return self.against(name, self.stopped.scores[self.stopped.strongest]) if self.stopped else None

    @property
    def least(self) -> float:
        """Below which a difference at equal natural accuracy says nothing."""
        return STOPPED if self.stopped and self.stopped.early else 0.0

    def p_real(self) -> float:
        """Of "real"."""
        if self.stopped is None or not self.aware:
            return 1.0
        gaps = [self.at_equal(name) for name in self.found]
        return chosen(max(_less(gap, self.least) for gap in gaps), len(self.stopped.scores))

    def p_hiding(self) -> float:
        """Of "hiding"."""
        ignorant = self.ignorant
        if not ignorant or not self.aware or set(ignorant) & set(self.aware):
            return 1.0
        top = strongest(self.aware, self.found)
        gain = chosen(max(_more(self.against(top, self.found[name])) for name in ignorant), len(self.aware))
        both = [name for name in ignorant if {name, top} <= set(self.plain)]
        beyond = [_more(self._beyond(top, name)) for name in both]
        ways = []
        if set(ignorant) <= set(self.plain) and not _surely(self.at_end(top)):
            ways.append(max(_less(self.against(name, self.plain[name])) for name in ignorant))
        of = self.stopped.scores if self.stopped else {}
        if (held := [name for name in ignorant if name in of]) and not _surely(self.at_equal(top), self.least):
            ways.append(max(_less(self.against(name, of[name]), self.least) for name in held))
        return max(gain, *beyond, chosen(min(ways, default=1.0), len(ways)))

    def _beyond(self, top: str, name: str) -> Gap:
        """By how much more one attack finds than another of this network than of the undefended one."""
        gap, before = (
            {key: tables[top][key] - tables[name][key] for key in self.keys} for tables in (self.found, self.plain)
        )
        return paired(gap, before, self.alike, rate=False)

    def p_trade(self) -> float:
        """Of "a trade"."""
        top = strongest(self.found, self.found)
        if self.stopped is None or not self.stopped.early or _surely(self.at_equal(top), self.least):
            return 1.0
        fewer = chosen(max(_less(self.at_end(name)) for name in self.found), len(self.plain))
        return max(fewer, chosen(_more(self._explained(top)), len(self.found)))

    def _explained(self, top: str) -> Gap:
        """What stopping takes from the undefended network, minus what the defence takes beyond that."""
        assert self.stopped is not None
        name = self.stopped.strongest
        end, there = self.plain[name], self.stopped.scores[name]
        sides = [
            {key: end[key] + self.found[top][key] for key in self.keys},
            {key: 2 * there[key] for key in self.keys},
        ]
        return paired(sides[0], sides[1], self.alike, rate=False)


def judge(own: Network, base: Network, metric: str, alike: Alike) -> Judged | None:
    """The tables of the trainings in which every attack on the network was run; None if there is no such training."""
    found = {name: scores_of(one.records, metric) for name, one in own.attacks.items()}
    keys = sorted(set.intersection(*(set(one) for one in found.values())) & set(base.own))
    plain = {name: scores_of(one.records, metric) for name, one in base.attacks.items()}
    plain = {name: table for name, table in plain.items() if set(keys) <= set(table)}
    if not keys or not plain:
        return None
    found, plain = (
        {name: {key: table[key] for key in keys} for name, table in side.items()} for side in (found, plain)
    )
    return Judged(own, metric, tuple(keys), found, plain, _stopped(own, base, plain, keys, metric), alike)


def scores_of(records: Mapping[Key, Record], metric: str) -> dict[Key, Tensor]:
    """What was found of each attacked person, where the metric was measured."""
    found = {key: scored([one], metric) for key, one in records.items()}
    return {key: table[0] for key, table in found.items() if table is not None}


def accuracy_of(record: Record) -> Tensor:
    """Natural accuracy of each attacked person, C."""
    known = accuracies(record)
    return torch.tensor([known[person] for person in everybody(record)], dtype=torch.float64)


def _stopped(
    own: Network, base: Network, plain: Mapping[str, Scores], keys: Sequence[Key], metric: str
) -> Stopped | None:
    """The undefended network at the defended one's accuracy; None if that is not known, or below all checkpoints."""
    if not set(keys) <= set(own.own):
        return None
    wanted, end = ({key: accuracy_of(side.own[key]) for key in keys} for side in (own, base))
    level = mean_of(wanted)
    if all(
        mean_of(_of(wanted, world)) >= mean_of(_of(end, world)) for world in dict.fromkeys(world for world, _ in keys)
    ):
        return Stopped(strongest(plain, plain), plain, level, early=False)
    there = {}
    for name in plain:
        curves = {
            key: _curve([*base.stops.get(name, {}).get(key, ()), base.attacks[name].records[key]], metric)
            for key in keys
        }
        if all(one.accuracy.shape[1] > 1 and one.reach[0] <= float(wanted[key].mean()) for key, one in curves.items()):
            there[name] = {key: added(one, wanted[key][None])[0] for key, one in curves.items()}
    return Stopped(strongest(there, there), there, level, early=True) if there else None


def _curve(records: Sequence[Record], metric: str) -> Curve:
    """The checkpoints of one training, and its end."""
    known = [(one, table) for one in records if (table := scored([one], metric)) is not None]
    return Curve(torch.stack([accuracy_of(one) for one, _ in known])[None], torch.stack([t[0] for _, t in known])[None])


def strongest(names: Iterable[str], tables: Mapping[str, Scores]) -> str:
    """The attack that finds most."""
    return max(names, key=lambda name: mean_of(tables[name]))


def units_of(keys: Iterable[Key]) -> int:
    """Trainings in each world or, where some world has one alone, worlds."""
    each = _trainings(keys)
    return len(each) if by_world(keys) else min(each, default=0)


def by_world(keys: Iterable[Key]) -> bool:
    """Whether worlds are the unit: there are several, and not each of them has several trainings."""
    each = _trainings(keys)
    return len(each) > 1 and min(each) < LEAST


def _trainings(keys: Iterable[Key]) -> list[int]:
    """How many trainings each world has."""
    return list(Counter(world for world, _ in keys).values())


def paired(first: Scores, second: Scores, alike: Alike, rate: bool = True) -> Gap:
    """The mean over worlds of `first - second`, over the same people and trainings.

    With several trainings in each world, all their people are one table; with one a world, worlds are the unit.
    """
    one, other = _tables(first), _tables(second)
    if by_world(first):
        return Gap(**vars(over_worlds(list(one.values()), list(other.values()), rate=rate)))
    found = compare(_together(one), _together(other), rate=rate, clusters=_families(one, alike))
    each = [compare(one[world], other[world], rate=rate, clusters=alike[world]) for world in one]
    agree = len(each) == 1 or all(own.p < SURELY and own.value * found.value > 0 for own in each)
    return Gap(**vars(found), agree=agree)


def interval_of(scores: Scores, alike: Alike) -> Measure:
    """A share over worlds, trainings and people, with an interval made as that of `paired`."""
    tables = _tables(scores)
    if by_world(scores):
        return worlds_interval(list(tables.values()), rate=True)
    return seeds_interval(_together(tables), rate=True, clusters=_families(tables, alike))


def _tables(scores: Scores) -> dict[str, Tensor]:
    """By world, seeds x people."""
    return {world: torch.stack(list(_of(scores, world).values())) for world in dict.fromkeys(w for w, _ in scores)}


def _together(tables: Mapping[str, Tensor]) -> Tensor:
    """All worlds' people beside each other, with as many trainings as each world has."""
    seeds = min(map(len, tables.values()))
    return torch.cat([one[:seeds] for one in tables.values()], 1)


def _families(tables: Mapping[str, Tensor], alike: Alike) -> Tensor | None:
    """The families of all worlds' people; of a world without look-alikes everybody is one."""
    if all(alike[world] is None for world in tables):
        return None
    own, so_far = [], 0
    for world, one in tables.items():
        known = alike[world]
        own.append(so_far + (torch.arange(one.shape[1]) if known is None else known))
        so_far = int(own[-1].max()) + 1
    return torch.cat(own)


def _of(scores: Scores, world: str) -> Scores:
    return {key: table for key, table in scores.items() if key[0] == world}


def mean_of(scores: Scores) -> float:
    """The mean over people, trainings and worlds."""
    return float(torch.stack([table.double().mean() for table in scores.values()]).mean())


def chosen(p: float, among: int) -> float:
    """The p of a test that was chosen among so many."""
    return min(1.0, p * max(1, among))


def _less(gap: Gap | None, least: float = 0.0) -> float:
    """p of a difference below zero by at least so much; 1 where it is not, or not in every world."""
    return gap.p if gap is not None and gap.agree and gap.value < 0 and gap.value <= -least else 1.0


def _more(gap: Gap) -> float:
    return gap.p if gap.agree and gap.value > 0 else 1.0


def _surely(gap: Gap | None, least: float = 0.0) -> bool:
    """Whether a difference is shown to be below zero, uncorrected."""
    return _less(gap, least) < SURELY
