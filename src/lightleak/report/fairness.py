"""Which targets may be compared: those that differ in their defence alone, and were counted alike."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lightleak.study.record import Record, TargetRecord

SEEDS = ("seed", "prior seed", "knowledge seed")  # repeat an experiment and do not change it
# Of a target, all but its architecture and recipe is its defence's, or says which run it is.
OWN = (
    "target defences", "target seed", "target checkpoints", "target place", "target population",
    # of what becomes of a trained target (retrofitted, altered, copied), which its title says
    "target by", "target epochs", "target way", "target access", "target student", "target lessons",
)  # fmt: skip
LONGEST = 2  # differences that a row's name has room for


@dataclass(frozen=True)
class Entry:
    """One evaluation, and the settings that must be equal for a comparison."""

    record: Record
    folder: Path
    held: Mapping[str, Any]
    seeds: Mapping[str, int] = field(default_factory=dict)  # beside the training's

    @cached_property
    def run(self) -> str:
        """The training that its target is, or is a checkpoint of, without the seed."""
        target = self.record.target
        return json.dumps([training_of(target), target.defences, dict(self.held)], sort_keys=True, default=str)


@dataclass(frozen=True)
class Group:
    """All seeds of one target: one row of a table."""

    name: str
    entries: tuple[Entry, ...]
    different: str = ""  # in what it differs from the first beside its defence, in words
    changed: tuple[tuple[str, Any, Any], ...] = ()  # the same as (setting, its value, the first's)


def entries(records: Sequence[tuple[Record, Path]]) -> list[Entry]:
    """The evaluations with the settings that must be equal; a folder given twice counts once."""
    known = {folder.resolve(): record for record, folder in records}
    sparse = not all(record.settings for record in known.values())  # then all are held by what all of them say
    found = []
    for folder, record in known.items():
        held = dict(_stated(record) if sparse else _settled(record))
        seeds = {name: held.pop(name) for name in SEEDS if name in held}
        found.append(Entry(record, folder, held, seeds))
    return found


def counting(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The evaluations grouped by how they were scored: protocol and judge."""
    judges = list(dict.fromkeys(one.judge.sha256 or one.judge.architecture for one in records))
    found: dict[str, list[Record]] = {}
    for one in records:
        name = one.protocol.label if one.protocol else "no named protocol"
        if len(judges) > 1:
            name += f", judge {one.judge.architecture} {one.judge.sha256[:8]}".rstrip()
        found.setdefault(name, []).append(one)
    return found


def swept_counting(ways: Mapping[str, Sequence[Record]]) -> bool:
    """Whether every target was scored in every way: then the scoring is what was varied, and each way has a row."""
    runs = [{(one.target.title, one.target.seed, one.target.key) for one in way} for way in ways.values()]
    return all(own == runs[0] for own in runs)


def training_of(target: TargetRecord) -> str:
    """The name of the training that a target is, or is a checkpoint of."""
    return target.title if target.moment is None else target.run


def grouped(found: Sequence[Entry]) -> list[Group]:
    """The rows of a table: the seeds of each target, and how some differ from the first apart from their defence.

    Each evaluation is in exactly one row. Where a training was evaluated again (by the same attack with another seed,
    say), the others of its kind have a row of their own.
    """
    base = found[0].held
    kinds: dict[tuple[str, str], dict[str, list[Entry]]] = {}  # target -> what differs -> its evaluations
    for one in found:
        target = one.record.target
        kind = (training_of(target), json.dumps(target.defences, sort_keys=True, default=str))
        kinds.setdefault(kind, {}).setdefault(_words(_differing(base, one.held)), []).append(one)
    groups: list[Group] = []
    for (title, _), variants in kinds.items():
        for own in variants.values():
            first: dict[int, Entry] = {}
            for again, layer in enumerate(_layers(own)):
                changed = _differing(base, layer[0].held)
                if not again:
                    first = {one.record.target.seed: one for one in layer}
                else:
                    changed += _repeated(first[layer[0].record.target.seed], layer[0])
                groups.append(_group(title, layer, changed, groups))
    return groups


def _layers(own: Sequence[Entry]) -> Iterator[list[Entry]]:
    """Evaluations in layers in which every training seed stands once; those attacked with the training's seed first."""
    by_seed: dict[int, list[Entry]] = {}
    for one in own:
        by_seed.setdefault(one.record.target.seed, []).append(one)
    for seed, those in by_seed.items():
        those.sort(key=lambda one, seed=seed: (one.seeds.get("seed", seed) != seed, one.seeds.get("seed", seed)))
    for place in range(max(map(len, by_seed.values()))):
        yield [those[place] for those in by_seed.values() if len(those) > place]


def _group(title: str, layer: list[Entry], changed: tuple[tuple[str, Any, Any], ...], before: list[Group]) -> Group:
    """The row of a layer, under a name that no other has."""
    different = _words(changed)
    if before:
        seeds, others = ({one.record.target.seed for one in some} for some in (layer, before[0].entries))
        if others != seeds:
            listed = ["seeds " + ", ".join(map(str, sorted(some))) for some in (seeds, others)]
            different = "; ".join(filter(None, (different, " instead of ".join(listed))))
    name = title if not changed else f"{title} ({_brief(changed)})"
    while name in {group.name for group in before}:
        name += "'"
    return Group(name, tuple(layer), different, changed)


def _settled(record: Record) -> Iterator[tuple[str, Any]]:
    """All settings but the target's own, by short names: "recipe epochs", "attack steps", "prior strength"."""
    for name, value in record.settings.items():
        short = name.removeprefix("found ").replace("target run_of", "target", 1)
        if short in ("found", "target", "judge") or short.startswith((*OWN, "nulls")):
            continue  # nulls have rows of their own
        short = short.removeprefix("target ")
        if " target" not in f" {short}":  # of a prior or of knowledge: made for this target
            yield short, value


def _stated(record: Record) -> Iterator[tuple[str, Any]]:
    """What a record says even where the specifications of its tasks are lost (version 1)."""
    told = {
        "architecture": record.target.architecture,
        "recipe": record.target.recipe,
        "attack": {"name": record.attack.name, **record.attack.settings},
        "classes": record.attack.classes,
        "knowledge": record.attack.knowledge,
        "prior": record.prior.name,
        "prior settings": record.prior.settings,
        "judge": record.judge.architecture,
        "protocol": record.protocol and vars(record.protocol),
        "seed": record.attack.seed,
    }
    for name, value in told.items():
        yield from _spread(name, value)


def _spread(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for inner, item in value.items():
            yield from _spread(f"{name} {inner}", item)
    elif value is not None:
        yield name, value


def _differing(base: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[tuple[str, Any, Any], ...]:
    """What is not as in `base`: the setting, its value, the value there."""
    names = [name for name in dict.fromkeys((*base, *other)) if base.get(name) != other.get(name)]
    return tuple((name, other.get(name), base.get(name)) for name in names)


def _repeated(first: Entry, again: Entry) -> tuple[tuple[str, Any, Any], ...]:
    """In what two evaluations of one training differ that is not held equal: seeds, nulls, anything."""
    seeds = _differing(first.seeds, again.seeds)
    if seeds:
        return tuple((f"attack {name}" if name == "seed" else name, *values) for name, *values in seeds)
    found = _differing(first.record.settings, again.record.settings)
    return found or (("evaluation", again.folder.name[:8], first.folder.name[:8]),)


def _words(changed: Sequence[tuple[str, Any, Any]]) -> str:
    return "; ".join(f"{name} {_as_text(value)} instead of {_as_text(base)}" for name, value, base in changed)


def _brief(changed: Sequence[tuple[str, Any, Any]]) -> str:
    """The differences as a row's name has room for them; another network's is enough."""
    values = {name: _as_text(value) for name, value, _ in changed}
    if "architecture" in values:
        return values["architecture"]
    told = [f"{name} {value}" for name, value in list(values.items())[:LONGEST]]
    return ", ".join(told) + (f" and {len(values) - LONGEST} more" if len(values) > LONGEST else "")


def _as_text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_as_text, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)
