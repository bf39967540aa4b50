"""Which evaluations make up a study, and the pages that show them: one for each population, attack and network."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightleak.errors import UserError
from lightleak.files import publish
from lightleak.report.collect import collect, record
from lightleak.report.results import Results

NOTE = "study.json"  # in the study's folder
KINDS = {"evaluations": "Evaluate", "costs": "Costs", "shares": "Shares"}  # tasks whose results stand on pages


@dataclass(frozen=True)
class Studied:
    """What a study's folder holds of it so far."""

    title: str
    command: str
    published: Mapping[str, Any]  # the paper's numbers, by network, row and column
    evaluations: tuple[Path, ...]
    costs: tuple[Path, ...]
    shares: tuple[Path, ...]
    missing: int  # evaluations that are not finished


@contextmanager
def noted(
    tasks: Sequence[Any], folder: Path, title: str, command: str, published: Mapping[str, Any] | None = None
) -> Iterator[None]:
    """Note which results make up the study, before it runs; the note goes again if no evaluation is ever made."""
    keys = {name: [task.key for task in tasks if task.name == kind] for name, kind in KINDS.items()}
    about = {"title": title, "command": command, **keys, "published": published or {}}
    publish(folder / NOTE, lambda part: part.write_text(json.dumps(about, indent=1)), "the study's record")
    try:
        yield
    finally:
        keys = keys["evaluations"]
        if keys and not any((folder / KINDS["evaluations"] / key).is_dir() for key in keys):
            (folder / NOTE).unlink(missing_ok=True)


def studied(folder: Path) -> Studied:
    """The study that ran in this folder last; UserError if there is none, or none of its evaluations is finished."""
    try:
        about = json.loads((folder / NOTE).read_text())
        keys, title, command = about["evaluations"], about["title"], about["command"]
        found = {
            name: tuple(place for key in about.get(name, []) if (place := folder / kind / key).is_dir())
            for name, kind in KINDS.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{folder} holds no finished study; run 'lightleak demo' or 'lightleak study' with --out {folder}"
        ) from None
    missing = len(keys) - len(found["evaluations"])
    if keys and not found["evaluations"]:
        raise UserError(f"of the study in {folder} no evaluation is finished; run it again to continue")
    return Studied(title, command, about.get("published") or {}, missing=missing, **found)


def pages(study: Studied, mixed_protocols: bool = False) -> Iterator[Results]:
    """A page's results for each population, attack and network; a network with one target stands beside the first."""
    records = {place: record(place) for place in (*study.evaluations, *study.costs, *study.shares)}
    titles: dict[str, set[str]] = {}
    for place in study.evaluations:
        target = records[place]["target"]
        titles.setdefault(target["architecture"], set()).add(target["title"])
    compared = [network for network, found in titles.items() if len(found) > 1]
    groups: dict[tuple[str, str, str], list[Path]] = {}  # by population, attack and network
    for place in study.evaluations:
        one = records[place]
        network = one["target"]["architecture"]
        if network not in compared:
            network = compared[0] if compared else ""
        groups.setdefault((one["population"]["key"], json.dumps(one["attack"]), network), []).append(place)
    told = _told_apart(groups, records)
    for (key, group), what in zip(groups.items(), told):
        costs, shares = (
            [place for place in beside if records[place]["population"] == key[0]]
            for beside in (study.costs, study.shares)
        )
        title = f"{study.title} ({what})" if what else study.title
        yield collect(group, title, study.command, costs, mixed_protocols, shares, study.published)


def _told_apart(groups: Mapping[tuple[str, str, str], list[Path]], records: Mapping[Path, Any]) -> list[str]:
    """For each page of a study, what the others do not share with it: network, people, settings of the attack."""
    attacks = [json.loads(attack) for _, attack, _ in groups]
    people = [records[group[0]]["population"] for group in groups.values()]
    worlds = [{"": f"{one['classes']} people, {one['name']}", **one.get("settings", {})} for one in people]
    names = [{"": one["name"], "title": one.get("title")} for one in attacks]
    other = _differing(names)  # other attacks have other settings, too
    networks = [{"": network} for _, _, network in groups]
    columns = [_differing(networks), _differing(worlds), other if any(other) else _differing(attacks)]
    return [", ".join(filter(None, told)) for told in zip(*columns)]


def _differing(settings: list[dict[str, Any]]) -> list[str]:
    """In words, the settings of each in which they are not all alike."""
    names = dict.fromkeys(name for one in settings for name in one)
    names = [name for name in names if len({str(one.get(name)) for one in settings}) > 1]
    return [", ".join(f"{name} {one[name]}".strip() for name in names if one.get(name)) for one in settings]
