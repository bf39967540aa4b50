"""Which evaluations make up a study, and the pages that show them: one for each population, attack and network."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightleak.errors import UserError
from lightleak.files import parsed, publish
from lightleak.report.apart import apart
from lightleak.report.attackers import groups_of
from lightleak.report.collect import collect
from lightleak.report.fairness import entries, training_of
from lightleak.report.knowing import collect_knowing
from lightleak.report.ladder import collect_ladder, is_ladder
from lightleak.report.results import Results
from lightleak.report.worlds import collect_worlds, divided_anew, held_in_worlds, world_of
from lightleak.study.keys import plain
from lightleak.study.record import Record, read, read_costs, read_shares, why_absent

NOTE = "study.json"  # in the folder of the study's pages
LONGEST = 60  # letters of a folder's name
KINDS = {  # tasks whose results stand on pages, or are put to raters
    "evaluations": "Evaluate", "costs": "Costs", "utilities": "Utility", "shares": "Shares", "pairs": "Pairs",
}  # fmt: skip


@dataclass(frozen=True)
class Studied:
    """The results of a study that its folder holds so far."""

    title: str
    command: str
    published: Mapping[str, Any]  # the paper's numbers, by network, row and column
    evaluations: tuple[Path, ...]
    costs: tuple[Path, ...]
    utilities: tuple[Path, ...]
    shares: tuple[Path, ...]
    missing: int  # evaluations that are not finished
    primary: tuple[str, ...] = ()  # measures that the study declared before it ran
    pairs: tuple[Path, ...] = ()  # pictures for a user study


@contextmanager
def recorded(
    tasks: Sequence[Any],
    folder: Path,
    title: str,
    command: str,
    published: Mapping[str, Any] | None = None,
    primary: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    study: str = "",
) -> Iterator[Path]:
    """Record which results make up the study, before it runs; returns the folder of its pages.

    That is the store itself or, where it holds the pages of another `study` or of other settings, a folder in it. The
    note goes again if no evaluation is ever made; it stands again at the end, if another run took its place meanwhile.
    """
    place = place_of(folder, settings or {}, study)
    keys = {name: [task.key for task in tasks if task.name == kind] for name, kind in KINDS.items()}
    about = {
        "title": title,
        "command": command,
        **keys,
        "published": published or {},
        "primary": list(primary),
        "settings": plain(settings or {}),
        "study": study,
    }
    about["store"] = "." if place == folder else ".."
    text = json.dumps(about, indent=1)

    def note() -> None:
        publish(place / NOTE, lambda part: part.write_text(text), "the study's record")

    note()
    try:
        yield place
    finally:
        if not keys["evaluations"] or _finished(folder, keys["evaluations"]):
            note()
        elif (place / NOTE).is_file() and (place / NOTE).read_text() == text:
            (place / NOTE).unlink(missing_ok=True)


def place_of(folder: Path, settings: Mapping[str, Any], study: str = "") -> Path:
    """Where the pages of a study with these settings are, or will be: one place for all runs with the same settings."""
    before = _noted(folder, study)
    if before is None or before == (study, plain(settings)):
        return folder
    told = _slug(settings) if settings or before[0] == study else ""
    return folder / "-".join(filter(None, (study if before[0] != study else "", told)))


def settings_of(folder: Path, study: str = "") -> dict[str, Any] | None:
    """The settings with which the study in a folder was run; None if nothing of it is finished, or it is another."""
    before = _noted(folder, study)
    return before[1] if before is not None and before[0] == study else None


def _noted(folder: Path, study: str) -> tuple[str, dict[str, Any]] | None:
    """The study of a folder's note (taken for this one, where an older note does not say) and its settings.

    None if nothing is finished or nothing was recorded.
    """
    try:
        about = parsed((folder / NOTE).read_text())
        known = (about.get("study", study), about["settings"])
        return known if _finished(folder, about["evaluations"]) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _finished(folder: Path, keys: Sequence[str]) -> bool:
    """Whether any of these evaluations is in the store."""
    return any((folder / KINDS["evaluations"] / key).is_dir() for key in keys)


def _slug(settings: Mapping[str, Any]) -> str:
    """Settings as the name of a folder."""
    told = "-".join(f"{name} {value}" for name, value in sorted(settings.items())) or "defaults"
    text = re.sub(r"[^A-Za-z0-9.]+", "-", told).strip("-.")
    if text == told.replace(" ", "-") and len(text) <= LONGEST:
        return text
    mark = hashlib.sha256(json.dumps(plain(settings), sort_keys=True).encode()).hexdigest()[:8]
    return f"{text[:LONGEST]}-{mark}"


def studied(folder: Path) -> Studied:
    """The study that ran in this folder last; UserError if there is none, or none of its evaluations is finished."""
    try:
        about = parsed((folder / NOTE).read_text())
        keys, title, command = about["evaluations"], about["title"], about["command"]
        root = folder.parent if about.get("store") == ".." else folder
        found = {
            name: tuple(place for key in about.get(name, []) if (place := root / kind / key).is_dir())
            for name, kind in KINDS.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(
            f"{folder} holds no finished study; run 'lightleak demo' or 'lightleak study' with --out {folder}"
        ) from None
    missing = len(keys) - len(found["evaluations"])
    if keys and not found["evaluations"]:
        raise UserError(f"of the study in {folder} no evaluation is finished; run it again to continue")
    primary = tuple(about.get("primary", ()))
    return Studied(title, command, about.get("published") or {}, missing=missing, primary=primary, **found)


def pairs_of(folder: Path) -> tuple[Path, ...]:
    """The folders of pairs for a user study, as recorded with the study; without a record, all in the store."""
    with suppress(UserError):
        if found := studied(folder).pairs:
            return found
    return tuple(sorted(place for place in folder.glob(f"{KINDS['pairs']}/[!.]*") if place.is_dir()))


def pages(study: Studied, mixed_protocols: bool = False) -> Iterator[Results]:
    """The results of a page for each population, attack and network; networks with one target join the first page.

    What the data do not allow (an attacker cannot undo every change) is a note of the first page.
    """
    absent = {place: why for place in study.evaluations if (why := why_absent(place)) is not None}
    records = {place.resolve(): read(place) for place in study.evaluations if place not in absent}  # as `entries` knows
    reasons = list(absent.values())
    notes = divided_anew(records.values())
    notes += [f"{reasons.count(why)} evaluations that these data do not allow: {why}" for why in dict.fromkeys(reasons)]
    for number, results in enumerate(_pages(study, records, mixed_protocols)):
        yield replace(results, notes=(*results.notes, *notes)) if notes and not number else results


def _pages(study: Studied, records: Mapping[Path, Record], mixed_protocols: bool) -> Iterator[Results]:
    costs = {place: read_costs(place) for place in (*study.costs, *study.utilities)}
    shares = {place: read_shares(place) for place in study.shares}
    worlds, alone = _worlds(records)
    named = _told_apart(list(worlds.values()), records)
    for group, what in zip(worlds.values(), named):
        title = f"{study.title} ({what})" if what else study.title
        yield collect_worlds({place: records[place] for place in group}, title, study.command, study.primary)
    groups = _paged(alone, records)
    told = _told_apart(list(groups.values()), records)
    for (key, group), what in zip(groups.items(), told):
        own = [[place for place, one in beside.items() if one.population == key[0]] for beside in (costs, shares)]
        title = f"{study.title} ({what})" if what else study.title
        yield collect(group, title, study.command, own[0], mixed_protocols, own[1], study.published, study.primary)
    if is_ladder(list(records.values())):
        yield collect_ladder(records, f"{study.title} (by access)", study.command)
    known = groups_of(records)
    told = _told_apart([list(group) for group in known], records)
    for group, what in zip(known, told):
        title = f"{study.title} ({', '.join(filter(None, (what, 'by attackers who know')))})"
        yield collect_knowing(group, title, study.command, study.primary)


def _worlds(records: Mapping[Path, Record]) -> tuple[dict[str, list[Path]], list[Path]]:
    """Evaluations of populations that differ by their seed alone, by all that must be held equal; and all others.

    A world in which networks were attacked at their checkpoints has a page of its own, too, with their ends.
    """
    seeds: dict[str, set[Any]] = {}
    for one in records.values():
        seeds.setdefault(world_of(one), set()).add(one.population.settings.get("seed"))
    found: dict[str, list[Path]] = {}
    alone = []
    stopped = {_page_of(one) for one in records.values() if one.target.moment is not None}
    for entry in entries([(one, place) for place, one in records.items()]):
        one, place = entry.record, entry.folder
        if len(seeds[world_of(one)]) < 2 or one.target.moment is not None:
            alone.append(place)
            continue
        if _page_of(one) in stopped:
            alone.append(place)
        what = [world_of(one), held_in_worlds(entry)]
        found.setdefault(json.dumps(what, sort_keys=True, default=str), []).append(place)
    return found, alone


def _page_of(one: Record) -> str:
    """What the evaluations share that stand on one page of one world."""
    held = [one.population.key, one.attack.name, one.attack.settings, one.target.architecture, one.judge.architecture]
    return json.dumps(held, sort_keys=True, default=str)


def _paged(places: Sequence[Path], records: Mapping[Path, Record]) -> dict[tuple[str, str, str], list[Path]]:
    """Evaluations by population, attack and network: what stands on one page.

    A network or a setting of an attack on which nothing is compared has no page of its own: networks of one target
    stand beside the first, and settings of which none has two targets are a sweep, which is one table.
    """
    titles: dict[str, set[str]] = {}
    tried: dict[tuple[str, str, str, str], set[str]] = {}  # by population, attack, its settings and network
    for one in records.values():
        titles.setdefault(one.target.architecture, set()).add(one.target.title)
        settings = json.dumps(one.attack.settings, sort_keys=True)
        place = (one.population.key, one.attack.name, settings, one.target.architecture)
        tried.setdefault(place, set()).add(training_of(one.target))
    compared = [network for network, found in titles.items() if len(found) > 1]
    groups: dict[tuple[str, str, str], list[Path]] = {}
    for place in places:
        one = records[place]
        network = one.target.architecture
        if network not in compared:
            network = compared[0] if compared else ""
        people, attack = one.population.key, one.attack.name
        if any(len(targets) > 1 for key, targets in tried.items() if key[:2] == (people, attack)):
            attack = json.dumps([attack, one.attack.settings], sort_keys=True)
        groups.setdefault((people, attack, network), []).append(place)
    return groups


def _told_apart(groups: Sequence[Sequence[Path]], records: Mapping[Path, Record]) -> list[str]:
    """For each page of a study, what the others do not share with it: network, people, attack, prior, protocol."""
    firsts = [records[group[0]] for group in groups]
    worlds = [{"": f"{o.population.classes} people, {o.population.name}", **o.population.settings} for o in firsts]
    other = _differing([{"": one.attack.title or one.attack.name} for one in firsts])  # has other settings, too
    networks = _differing([{"": one.target.architecture} for one in firsts])
    attacks = other if any(other) else _differing([{**one.attack.settings} for one in firsts])
    told = [", ".join(filter(None, one)) for one in zip(networks, _differing(worlds), attacks)]
    if len(set(told)) == len(told):
        return told
    priors = _differing([{"": f"prior {one.prior.name}", **(one.prior.settings or {})} for one in firsts])
    protocols = _differing([{"": one.protocol.label if one.protocol else "no named protocol"} for one in firsts])
    recipes = _differing([{f"recipe {name}": value for name, value in one.target.recipe.items()} for one in firsts])
    return [", ".join(filter(None, one)) for one in zip(told, priors, protocols, recipes)]


def _differing(settings: list[dict[str, Any]]) -> list[str]:
    """In words, the settings of each in which they are not all alike; what is off or empty is not said."""
    return [", ".join(f"{name} {value}".strip() for name, value in one.items() if value) for one in apart(settings)]
