"""Which targets may be compared: those that differ in their defence alone, and were counted alike."""

from typing import Any


def counting(records: list[dict[str, Any]]) -> dict[str, list[str]]:
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


def run_of(target: dict[str, Any]) -> str:
    """The name of the training that a target is, or is a checkpoint of."""
    return target["title"] if target.get("moment") is None else target["run"]


def grouped(records: list[dict[str, Any]]) -> tuple[dict[str, list[int]], dict[str, str]]:
    """The seeds of each target by the name of its row, and in what some differ from the first beside their defence."""
    base = held_equal(records[0])
    kinds: dict[str, dict[str, list[int]]] = {}  # title -> what differs -> its seeds
    for index, one in enumerate(records):
        kinds.setdefault(run_of(one["target"]), {}).setdefault(_differing(base, held_equal(one)), []).append(index)
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


def held_equal(record: dict[str, Any]) -> dict[str, Any]:
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
