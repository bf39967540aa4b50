"""Which networks a study attacked, and whether whoever attacked knew the defence: told by what each attack is.

What undoes a defence stands in `attacks.adaptive`. An attack knows a defence if it is one of its countermeasures, by
its settings, by what was done to the network, or by what copied it: the same max-margin loss knows NegLS, not RoLSS.
Of several defences each must be known by somebody. Who attacks a copy that learnt nothing finds nobody, whatever the
defence is worth: what an attacker makes of a network must be worth `LEARNT` of its natural accuracy.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightleak.attacks import ATTACKS, GUARDS
from lightleak.attacks.adaptive import ADAPTIVE, Knowing, knowing
from lightleak.attacks.frame import grants
from lightleak.attacks.oracle import Access
from lightleak.attacks.votes import by_vote
from lightleak.defences import DEFENCES
from lightleak.report.apart import labelled
from lightleak.report.fairness import training_of
from lightleak.report.units import Key
from lightleak.report.worlds import world_of
from lightleak.study.record import Record

LEARNT = 0.5  # of a network's natural accuracy, below which what an attacker made of it is worth too little to count


@dataclass
class Attacked:
    """One attack on a network, in every world and training."""

    label: str
    known: Knowing | None  # the countermeasure that it is
    control: str  # what the same is on a network of which there is nothing to undo
    records: dict[Key, Record] = field(default_factory=dict)
    again: int = 0  # evaluations of the same training by the same attack, which do not count

    @property
    def first(self) -> Record:
        """One of its evaluations."""
        return next(iter(self.records.values()))

    @property
    def made(self) -> bool:
        """Whether the attacker made a network of the network, and attacked that."""
        return _made(self.first)

    @property
    def accuracy(self) -> float:
        """Natural accuracy of what was attacked."""
        return _accuracy(self.records.values())


@dataclass
class Network:
    """A network with or without defences, and everything that was run on it."""

    name: str
    defences: tuple[str, ...]  # names in ADAPTIVE
    attacks: dict[str, Attacked] = field(default_factory=dict)  # by what they are but for their target
    stops: dict[str, dict[Key, list[Record]]] = field(default_factory=dict)  # the same on its checkpoints
    own: dict[Key, Record] = field(default_factory=dict)  # an attack on the network itself, which says its accuracy

    @property
    def known(self) -> bool:
        """Whether those who know its defences attacked it, as far as there is something to know of them."""
        named = bool(self.defences) and all(name in ADAPTIVE for name in self.defences)
        return bool(self.attacks) and named and not self.unknown

    @property
    def unknown(self) -> list[str]:
        """The defences that nobody who attacked it knew, of those of which there is something to know."""
        ran = {one.known for name, one in self.attacks.items() if self.aware(name)}
        return [name for name in self.defences if (ways := ADAPTIVE.get(name)) and not ran & set(ways)]

    def aware(self, name: str) -> bool:
        """Whether an attack knows the defence, and is of use."""
        return self.attacks[name].known is not None and self.useful(name)

    def useful(self, name: str) -> bool:
        """Whether what the attacker made of the network has `LEARNT` of its natural accuracy, if that is known."""
        attack = self.attacks[name]
        both = [key for key in attack.records if key in self.own]
        if not attack.made or not both:
            return True
        made, own = (_accuracy(side[key] for key in both) for side in (attack.records, self.own))
        return made >= LEARNT * own

    def allows(self, attack: Attacked) -> bool:
        """Whether an attack can be run on it: a guard gives no gradients, and some give labels alone."""
        guards = [GUARDS[name] for name in self.defences if name in GUARDS]
        granted = "labels" if any(each.labels for each in guards) else "scores" if guards else "gradients"
        return grants(granted, _access(attack.first))

    @property
    def untried(self) -> list[str]:
        """The countermeasures that nobody ran."""
        ran = {one.known for one in self.attacks.values()}
        return [each.name for each in knowing(self.defences) if each not in ran]

    def labels(self, names: Iterable[str]) -> str:
        """Attacks as the page names them."""
        return ", ".join(self.attacks[name].label for name in names)


def groups_of(places: Mapping[Path, Record]) -> list[dict[Path, Record]]:
    """The evaluations of each page: of one architecture, recipe and kind of people, by one kind of judge.

    Only where there is an undefended network, and one that was attacked by somebody who knows its defence.
    """
    nulls = {kind.__name__ for kind in ATTACKS.values() if kind.null}
    found: dict[str, dict[Path, Record]] = {}
    for place, one in places.items():
        if one.attack.name not in nulls:
            target = one.target.architecture, one.target.recipe
            counted = one.protocol.label if one.protocol else ""
            held = [world_of(one), *target, one.judge.architecture, one.attack.classes, counted]
            found.setdefault(json.dumps(held, sort_keys=True, default=str), {})[place] = one
    return [group for group in found.values() if _told(networks(group.values()))]


def networks(records: Iterable[Record]) -> dict[str, Network]:
    """Every network by name, the undefended one first, with all attacks on it."""
    found: dict[str, Network] = {}
    for one in records:
        network = found.setdefault(_network(one), Network(_network(one), _defences(one)))
        key, what = (one.population.key, one.target.seed), _identity(one)
        if one.target.moment is not None:
            network.stops.setdefault(what, {}).setdefault(key, []).append(one)
            continue
        if not _made(one):
            network.own.setdefault(key, one)
        if what not in network.attacks:
            network.attacks[what] = Attacked("", _known(one, network.defences), _control(one))
        attacked = network.attacks[what]
        attacked.again += key in attacked.records
        attacked.records.setdefault(key, one)
    _name([attacked for network in found.values() for attacked in network.attacks.values()])
    return dict(sorted(found.items(), key=lambda pair: bool(pair[1].defences) or not pair[1].own))


def _form(record: Record) -> tuple[Any, ...]:
    """What an attacker made of the network before attacking: a change of it, a copy; nothing."""
    told = record.settings
    for kind, copy, lessons in (
        ("Copied", "found target", "lessons"),
        ("Taught", "found knowledge", "settings lessons"),
    ):
        if told.get(copy) == kind:
            return ("copy", told.get(f"{copy} access"), told.get(f"{copy} {lessons} votes", 1))
    return ("undo", told.get("found target way")) if told.get("found target") == "Altered" else ()


def _made(record: Record) -> bool:
    """Whether the evaluated target is what an attacker made of the network."""
    return record.settings.get("found target") in ("Copied", "Altered")


def _network(record: Record) -> str:
    """The name of the network that was attacked in the end."""
    return record.target.run if _made(record) else training_of(record.target)


def _defences(record: Record) -> tuple[str, ...]:
    """The names in ADAPTIVE of a network's defences and of the guard before it; others by their class."""
    names = {kind.__name__: name for known in (DEFENCES, GUARDS) for name, kind in known.items()}
    guard = record.settings.get("found target behind") or record.settings.get("found target run_of behind")
    return tuple(names.get(kind, kind) for kind in (*record.target.defences, *([guard] if guard else [])))


def _known(record: Record, defences: Sequence[str]) -> Knowing | None:
    """Which countermeasure an attack is: the most particular that fits."""
    ways = knowing(name for name in defences if name in ADAPTIVE)
    fitting = [each for each in ways if _fits(record, each)]
    return max(fitting, key=lambda each: (each.margin, each.alignment is not None), default=None)


def _fits(record: Record, each: Knowing) -> bool:
    wanted, told = each.alignment, record.settings
    form = ("undo", each.undo) if each.undo else ("copy", each.copy, each.votes) if each.copy else ()
    seen = told.get("found attack alignment"), told.get("found attack alignment kind")
    aligned = wanted is None or seen == (type(wanted).__name__, wanted.kind)
    return form == _form(record) and aligned and (not each.margin or told.get("found attack loss") == "max-margin")


def _identity(record: Record) -> str:
    """All that an attack is, but for its target."""
    return _spelled(record, record.attack.settings, _form(record))


def _control(record: Record) -> str:
    """The attack as it is on a network of which there is nothing to undo, and whose answers are not random."""
    settings, form = record.attack.settings, _form(record)
    alignment = settings.get("alignment")
    if alignment and alignment.get("kind") == "noise" and not alignment.get("noise"):
        settings = {**settings, "alignment": None}
    return _spelled(record, settings, () if form[:1] == ("undo",) else form)


def _spelled(record: Record, settings: Mapping[str, Any], form: tuple[Any, ...]) -> str:
    held = [record.attack.name, settings, form, record.prior.name, record.prior.settings, _learnt(record)]
    return json.dumps(held, sort_keys=True, default=str)


def _learnt(record: Record) -> dict[str, Any]:
    """How what an attack is on, or goes by, learnt: a copy's network and lessons, students and surrogates."""
    begin = ("found target lessons", "found target student", "found knowledge settings")
    told = record.settings.items()
    return {name.removeprefix("found "): value for name, value in told if name.startswith(begin)}


def _access(record: Record) -> Access:
    """What an attack asks of the network, itself or for a copy of it."""
    form = _form(record)
    known: dict[str, Access] = {kind.__name__: kind.access for kind in ATTACKS.values()}
    return form[1] if form[:1] == ("copy",) else known.get(record.attack.name, "gradients")


def _accuracy(records: Iterable[Record]) -> float:
    told = [one.target.accuracy for one in records]
    return sum(told) / len(told)


def _name(attacks: Sequence[Attacked]) -> None:
    """Label all attacks, so that two that differ have two labels."""
    named = [(_label(one.first, one.known), _settings(one.first)) for one in attacks]
    for one, label in zip(attacks, labelled(named)):
        one.label = label


def _label(record: Record, known: Knowing | None) -> str:
    name, (kind, *how) = record.attack.title or record.attack.name, _form(record) or ("",)
    if kind == "copy" and not _made(record):  # by the attack itself
        return f"{name}{by_vote(how[1])}"
    if kind == "copy":
        return f"{name} on {known.name if known else f'a copy by {how[0]}{by_vote(how[1])}'}"
    what = known.name if known else how[0] if kind else ""
    return f"{name}, {what}" if what else name


def _settings(record: Record) -> dict[str, Any]:
    begin = "found attack "
    told = {name.removeprefix(begin): value for name, value in record.settings.items() if name.startswith(begin)}
    prior = {f"prior {name}": value for name, value in (record.prior.settings or {}).items()}
    return {**_parts(told or record.attack.settings), "prior": record.prior.name, **prior, **_learnt(record)}


def _parts(told: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with those of a part, such as an alignment, within it: they tell apart what has the part."""
    found: dict[str, Any] = {}
    for name in sorted(told):  # a part stands before its settings
        part = next((other for other in found if name.startswith(f"{other} ")), None)
        if part is None:
            found[name] = told[name]
            continue
        if not isinstance(found[part], dict):
            found[part] = {"kind": found[part]}
        rest = name.removeprefix(f"{part} ")
        found[part]["way" if rest == "kind" else rest] = told[name]
    return found


def _told(found: Mapping[str, Network]) -> bool:
    """Whether there is an undefended network, and an attack that knows a defence of another."""
    first, *others = found.values()
    known = any(attack.known for network in others for attack in network.attacks.values())
    return known and not first.defences and bool(first.attacks) and bool(first.own)
