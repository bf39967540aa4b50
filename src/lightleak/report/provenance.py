"""How evaluations were made: whose pictures, and the versions, commits and machines of all that they depend on."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lightleak.errors import UserError
from lightleak.study.record import Made, PopulationRecord, read_made
from lightleak.study.task import versions


def people(population: PopulationRecord, **settings: Any) -> dict[str, Any]:
    """What every page's recipe says of the people, with `settings` in place of the record's (seeds of worlds)."""
    said = {name: getattr(population, name) for name in ("name", "size", "classes", "images")}
    return {**said, "settings": {**population.settings, **settings}}


def provenance(folders: Sequence[Path]) -> dict[str, Any]:
    """When, where and with what the results in these folders were made, as fields of a page's results."""
    made = made_of(folders)
    return {
        "versions": versions_of(made),
        "date": max((one.finished[:10] for one in made), default=""),
        "machine": listed(one.machine for one in made),
        "device": listed(one.device for one in made),
        "commit": listed(one.commit for one in made),
        "seconds": sum(one.seconds for one in made),
    }


def made_of(folders: Sequence[Path]) -> list[Made]:
    """How these evaluations and all tasks they depend on were made, each task once, by their specifications."""
    found: dict[str, Made] = {}
    look = [(folder.parent.parent, f"{folder.parent.name}/{folder.name}") for folder in folders]
    while look:
        root, name = look.pop()
        if name not in found:
            try:
                made = found[name] = read_made(root / name)
            except UserError:  # an evaluation that was moved here alone
                continue
            look += [(root, need) for need in made.needs or ()]
    return list(found.values())


def listed(values: Iterable[str]) -> str:
    """The distinct values that the tasks give, most frequent first."""
    return "; ".join(value for value, _ in Counter(value for value in values if value).most_common())


def versions_of(made: Sequence[Made]) -> dict[str, str]:
    """The versions that the tasks were run with, not those that make the report."""
    names = dict.fromkeys(name for one in made for name in one.versions)
    return {name: listed(one.versions.get(name, "") for one in made) for name in names} or versions()
