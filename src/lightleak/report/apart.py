"""What tells several things apart: the settings in which they are not all alike."""

from collections.abc import Mapping, Sequence
from typing import Any


def apart(settings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each, by name, the settings in which not all are alike; those that it lacks are left out.

    Settings of a part, such as an attack's alignment, are told apart among those that have the part.
    """
    flat = [_flat(one) for one in settings]
    names = dict.fromkeys(name for one in flat for name in one)

    def alike(name: tuple[str, ...]) -> bool:
        having = [one for one in flat if one.get(name[:-1]) is not None] if len(name) > 1 else flat
        return len({str(one.get(name)) for one in having}) < 2

    differ = [name for name in names if not alike(name)]
    return [{" ".join(name): one[name] for name in differ if one.get(name) is not None} for one in flat]


def labelled(named: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """The name of each and, where several have one name, in brackets the settings that tell them apart."""
    found = [name for name, _ in named]
    for name in dict.fromkeys(found):
        places = [place for place, (own, _) in enumerate(named) if own == name]
        for place, told in zip(places, apart([named[place][1] for place in places])):
            more = ", ".join(f"{setting} {value}" for setting, value in told.items())
            found[place] = f"{name} ({more})" if more else name
    return found


def _flat(settings: Mapping[str, Any], within: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Settings and those of their parts by path; a part itself is its kind."""
    found: dict[tuple[str, ...], Any] = {}
    for name, value in settings.items():
        found[*within, name] = value.get("kind", "set") if isinstance(value, dict) else value
        if isinstance(value, dict):
            rest = {key: each for key, each in value.items() if key != "kind"}
            found |= _flat(rest, (*within, name))
    return found
