"""How evaluations came about: their records, and the versions, commits and machines of all they rest on."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightleak.errors import UserError
from lightleak.study.task import versions


def record(folder: Path) -> dict[str, Any]:
    """What an evaluation's folder says; UserError if it is not whole."""
    try:
        return json.loads((folder / "result.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{folder} holds no finished evaluation ({error}); run the study again") from None


def made_of(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """How these evaluations and everything they rest on came about, each task once, by their specifications."""
    found: dict[str, dict[str, Any]] = {}
    look = [(folder.parent.parent, f"{folder.parent.name}/{folder.name}") for folder in folders]
    while look:
        root, name = look.pop()
        if name not in found:
            try:
                made = found[name] = json.loads((root / name / "made.json").read_text())
                if "needs" not in made:  # of an older version
                    made["needs"] = _needs(json.loads((root / name / "spec.json").read_text()))
                look += [(root, need) for need in made["needs"]]
            except (OSError, ValueError):  # an evaluation that was moved here alone
                continue
    return list(found.values())


def _needs(value: Any) -> list[str]:
    """The tasks that a specification names."""
    if isinstance(value, dict):
        own = value.get("task")
        found = [own] if isinstance(own, str) and set(value) == {"task"} else []
        return found + [need for item in value.values() for need in _needs(item)]
    return [need for item in value for need in _needs(item)] if isinstance(value, list) else []


def listed(made: list[dict[str, Any]], name: str) -> str:
    """What the tasks say, each once, the most frequent first."""
    return "; ".join(value for value, _ in Counter(one[name] for one in made if one.get(name)).most_common())


def versions_of(made: list[dict[str, Any]]) -> dict[str, str]:
    """The versions that the tasks were run with, not those that make the report."""
    names = dict.fromkeys(name for one in made for name in one.get("versions", {}))
    return {name: listed([one["versions"] for one in made if "versions" in one], name) for name in names} or versions()
