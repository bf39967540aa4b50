"""What attackers who know a defence, and those who do not, show of it: that it is real, hides, or is a trade.

Of every defended network, by each measure, with the attacks that were run on it and on the undefended one:

    real        every attack, the strongest that knows the defence among them, finds fewer people than the strongest
                attack finds of the undefended network, at equal natural accuracy
    hiding      attackers who do not know it find fewer than the same attacks do of the undefended network; the
                strongest that knows it is not shown to, and finds more of this very network than each of them, by more
                than of the undefended network, and more than is then still missing to the strongest attack on that
    a trade     every attack finds fewer than of the undefended network, but not at equal natural accuracy, and most of
                the difference is what the undefended network loses when it is stopped there

and else it cannot be told. Each is a chain of paired differences whose intervals must leave out zero; its p is the
largest of theirs. A maximum over attacks is never one of luck: either all of them must hold, or the p of the one that
was chosen counts once for each that it was chosen from. Of several worlds each must show every difference by itself, by
its own interval; p is that of all of them together, corrected by Holm over all defences and all three words. Two
trainings of each network are the least that speaks of a defence; where a world has one alone, worlds are the unit.

What is missing proves nothing. Who hides or trades at equal natural accuracy is asked only where the attacks that are
strongest on the undefended network at its end were run on its checkpoints, too. The defended network is held against
attacks on the undefended one that were run on it as well (or that its guard does not allow), and hides nothing from an
attack of which nobody knows what it finds of the undefended network. Of this there is nothing to undo: there, an attack
on a changed network is the attack itself.

Equal natural accuracy: that of the defended network itself, whatever an attacker copied or changed of it. Where it is
below the undefended network's, that is read off the latter's checkpoints, and a difference counts from `STOPPED` on.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from lightleak.attacks.adaptive import knowing
from lightleak.metrics.frontier import STOPPED, Curve, added
from lightleak.report.attackers import Network
from lightleak.report.trainings import scored
from lightleak.report.units import (
    Alike,
    Gap,
    Key,
    Scores,
    accuracy_of,
    even,
    mean_of,
    of_world,
    paired,
    scores_of,
    units_of,
)
from lightleak.report.verdicts import LEAST, SURELY
from lightleak.study.record import Record


@dataclass(frozen=True)
class Stopped:
    """The undefended network at the natural accuracy of a defended one."""

    scores: Mapping[str, Scores]  # by attack
    accuracy: float
    early: bool  # whether it was stopped before its end


@dataclass(frozen=True)
class Judged:
    """What the attacks on one defended network come to, by one measure."""

    network: Network
    base: Network
    metric: str
    keys: tuple[Key, ...]
    found: Mapping[str, Scores]  # by attack
    plain: Mapping[str, Scores]  # the same of the undefended network
    stopped: Stopped | None
    alike: Alike

    @property
    def aware(self) -> list[str]:
        """The attacks that know the defence and are of use; all where there is nothing to know."""
        if not knowing(self.network.defences):
            return list(self.found)
        return [name for name in self.found if self.network.aware(name)]

    @property
    def ignorant(self) -> list[str]:
        """The attacks that do not."""
        return [name for name in self.found if self.network.attacks[name].known is None]

    @property
    def fair(self) -> list[str]:
        """The attacks on the undefended network that this one is held against: run on both, or not allowed on it."""
        return fair(self.network, self.base, self.found, self.plain)

    @property
    def unrun(self) -> list[str]:
        """The other attacks on the undefended network."""
        return [name for name in self.plain if name not in self.fair]

    @property
    def controlled(self) -> list[str]:
        """The attacks that know the defence of which is known what they find of the undefended network.

        Of whatever use they are: who finds people has shown it.
        """
        attacks = self.network.attacks
        return [name for name in self.found if attacks[name].known is not None and attacks[name].control in self.plain]

    @property
    def rivals(self) -> list[str]:
        """The attacks of `fair` that are known at equal natural accuracy."""
        return [name for name in self.fair if self.stopped and name in self.stopped.scores]

    @property
    def rival(self) -> Scores | None:
        """What the strongest of them finds there."""
        return self.stopped.scores[self._rival] if self.stopped and self.rivals else None

    @property
    def _rival(self) -> str:
        assert self.stopped is not None
        return strongest(self.rivals, self.stopped.scores)

    @property
    def enough(self) -> bool:
        """Whether there are trainings enough to speak of the defence."""
        return units_of(self.keys) >= LEAST

    @property
    def rivals_known(self) -> bool:
        """Whether the strongest attacks on the undefended network, of all and of the fair, are known there as well."""
        there = self.stopped.scores if self.stopped else {}
        return all(strongest(names, self.plain) in there for names in (self.plain, self.fair))

    def against(self, name: str, other: Scores, rate: bool = True) -> Gap:
        """What an attack finds, minus what is in `other`."""
        return paired(self.found[name], other, self.alike, rate)

    def at_end(self, name: str) -> Gap:
        """An attack against the strongest on the undefended network."""
        return self.against(name, self.plain[strongest(self.fair, self.plain)])

    def against_all(self, name: str) -> tuple[Gap, Gap | None]:
        """The same two differences, against every attack on the undefended network."""
        most = self.plain[strongest(self.plain, self.plain)]
        there = self.stopped.scores if self.stopped else {}
        return self.against(name, most), self.against(name, there[strongest(there, there)]) if there else None

    def at_equal(self, name: str) -> Gap | None:
        """An attack against the strongest on the undefended network at equal natural accuracy, if that is known."""
        return None if self.rival is None else self.against(name, self.rival)

    @property
    def least(self) -> float:
        """Below which a difference at equal natural accuracy says nothing."""
        return STOPPED if self.stopped and self.stopped.early else 0.0

    def p_real(self) -> float:
        """Of "real"."""
        if self.rival is None or not self.aware:
            return 1.0
        gaps = [self.at_equal(name) for name in self.found]
        return chosen(max(_less(gap, self.least) for gap in gaps), len(self.rivals))

    def p_hiding(self) -> float:
        """Of "hiding"."""
        if not self.ignorant or not self.controlled or set(self.ignorant) & set(self.aware):
            return 1.0
        top = self.revealing
        gains = [_more(self.against(top, self.found[name])) for name in self.ignorant]
        beyond = [_more(self._beyond(top, name)) for name in self.ignorant if name in self.plain]
        ways = [self._hidden(self.plain, 0.0)]
        if self.stopped and self.stopped.early and self.rivals_known:
            ways.append(self._hidden(self.stopped.scores, self.least))
        return max(chosen(max([*gains, *beyond]), len(self.controlled)), chosen(min(ways), len(ways)))

    @property
    def revealing(self) -> str:
        """The strongest attack that could show that something was hidden."""
        return strongest(self.controlled, self.found)

    def _hidden(self, tables: Mapping[str, Scores], least: float) -> float:
        """p that those who do not know find fewer than is in `tables`, and that knowing brings most of that back.

        1 where those who know are shown to find fewer, too.
        """
        most = tables[strongest(tables, tables)]
        if not set(self.ignorant) & set(tables) or _shown(self.against(self.revealing, most), least):
            return 1.0
        fewer = [_less(self.against(name, tables.get(name, most)), least) for name in self.ignorant]
        back = [_more(self._back(self.found[name], most)) for name in self.ignorant]
        return max([*fewer, chosen(max(back), len(self.controlled))])

    def _beyond(self, top: str, name: str) -> Gap:
        """By how much more one attack finds than another of this network than of the undefended one."""
        own, plain = self.found, self.plain
        control = self.network.attacks[top].control
        gap = {key: own[top][key] - own[name][key] for key in self.keys}
        before = {key: plain[control][key] - plain[name][key] for key in self.keys}
        return paired(gap, before, self.alike, rate=False)

    def _back(self, ignorant: Scores, most: Scores) -> Gap:
        """What knowing brings, minus what is then missing to `most`."""
        top = self.found[self.revealing]
        sides = [{key: 2 * top[key] for key in self.keys}, {key: ignorant[key] + most[key] for key in self.keys}]
        return paired(sides[0], sides[1], self.alike, rate=False)

    def p_trade(self) -> float:
        """Of "a trade"."""
        top = strongest(self.found, self.found)
        if self.stopped is None or not self.stopped.early or self.rival is None or not self.rivals_known:
            return 1.0
        if _shown(self.against(top, self.rival), self.least):
            return 1.0
        fewer = chosen(max(_less(self.at_end(name)) for name in self.found), len(self.fair))
        return max(fewer, chosen(_more(self._explained(top)), len(self.found)))

    def _explained(self, top: str) -> Gap:
        """What stopping takes from the undefended network, minus what the defence takes beyond that."""
        assert self.stopped is not None
        end, there = self.plain[self._rival], self.stopped.scores[self._rival]
        sides = [
            {key: end[key] + self.found[top][key] for key in self.keys},
            {key: 2 * there[key] for key in self.keys},
        ]
        return paired(sides[0], sides[1], self.alike, rate=False)


def judge(own: Network, base: Network, metric: str, alike: Alike) -> Judged | None:
    """The tables of the trainings in which every attack on the network was run.

    None if there is no such training, or the undefended network was attacked in no way in all of them as well.
    """
    found = {name: scores_of(one.records, metric) for name, one in own.attacks.items()}
    keys = even(set.intersection(*(set(one) for one in found.values())) & set(base.own))
    plain = {name: scores_of(one.records, metric) for name, one in base.attacks.items()}
    plain = {name: table for name, table in plain.items() if set(keys) <= set(table)}
    if not keys or not fair(own, base, found, plain):
        return None
    found, plain = (
        {name: {key: table[key] for key in keys} for name, table in side.items()} for side in (found, plain)
    )
    return Judged(own, base, metric, tuple(keys), found, plain, _stopped(own, base, plain, keys, metric), alike)


def fair(own: Network, base: Network, found: Iterable[str], plain: Iterable[str]) -> list[str]:
    """The attacks on the undefended network that were run on a defended one as well, or that this does not allow."""
    return [name for name in plain if name in found or not own.allows(base.attacks[name])]


def _stopped(
    own: Network, base: Network, plain: Mapping[str, Scores], keys: Sequence[Key], metric: str
) -> Stopped | None:
    """The undefended network at the defended one's accuracy; None if that is not known, or below all checkpoints."""
    if not set(keys) <= set(own.own):
        return None
    wanted, end = ({key: accuracy_of(side.own[key]) for key in keys} for side in (own, base))
    level = mean_of(wanted)
    worlds = dict.fromkeys(world for world, _ in keys)
    if all(mean_of(of_world(wanted, world)) >= mean_of(of_world(end, world)) for world in worlds):
        return Stopped(plain, level, early=False)
    there = {}
    for name in plain:
        curves = {
            key: _curve([*base.stops.get(name, {}).get(key, ()), base.attacks[name].records[key]], metric)
            for key in keys
        }
        if all(one.accuracy.shape[1] > 1 and one.reach[0] <= float(wanted[key].mean()) for key, one in curves.items()):
            there[name] = {key: added(one, wanted[key][None])[0] for key, one in curves.items()}
    return Stopped(there, level, early=True) if there else None


def _curve(records: Sequence[Record], metric: str) -> Curve:
    """The checkpoints of one training, and its end."""
    known = [(one, table) for one in records if (table := scored([one], metric)) is not None]
    return Curve(torch.stack([accuracy_of(one) for one, _ in known])[None], torch.stack([t[0] for _, t in known])[None])


def strongest(names: Iterable[str], tables: Mapping[str, Scores]) -> str:
    """The attack that finds most."""
    return max(names, key=lambda name: mean_of(tables[name]))


def chosen(p: float, among: int) -> float:
    """The p of a test that was chosen among so many."""
    return min(1.0, p * max(1, among))


def _less(gap: Gap | None, least: float = 0.0) -> float:
    """p of a difference below zero by at least so much; 1 where it is not, or not in every world."""
    return gap.p if gap is not None and gap.agree and gap.value < 0 and gap.value <= -least else 1.0


def _more(gap: Gap) -> float:
    return gap.p if gap.agree and gap.value > 0 else 1.0


def _shown(gap: Gap, least: float = 0.0) -> bool:
    """Whether a difference is shown, uncorrected, to be below zero, if not in every world."""
    return gap.value < 0 and gap.value <= -least and gap.p < SURELY
