"""What other packages add: registries that look at installed entry points the first time somebody looks at them.

A package names what it adds in its pyproject.toml:

    [project.entry-points."lightleak.attacks"]
    mine = "my_attack:Mine"
"""

import logging
import sys
from collections.abc import Callable, Iterator, MutableMapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

Thing = TypeVar("Thing")
log = logging.getLogger("lightleak")


def points(group: str) -> list[EntryPoint]:
    """The installed entry points of a group, by name; of all groups of Lightleak for ""."""
    return [point for point in _installed(tuple(sys.path)) if group in ("", point.group)]


@cache
def _installed(path: tuple[str, ...]) -> tuple[EntryPoint, ...]:  # noqa: ARG001
    """Lightleak's entry points, found once: that takes reading about every package."""
    found = entry_points()
    ours = [point for group in found.groups if group.startswith("lightleak.") for point in found.select(group=group)]
    return tuple(sorted(ours, key=lambda point: point.name))


class Registry(MutableMapping[str, Thing], Generic[Thing]):
    """Things by name, in order: Lightleak's own, then those of installed packages.

    A plug-in whose name is taken, that cannot be imported or that is no such thing is left out, with one line in the
    log "lightleak", which Python prints to stderr unless it is told otherwise.
    """

    def __init__(self, group: str, own: dict[str, Thing], fits: Callable[[Any], bool], what: str) -> None:
        """`group`: the entry points' ("lightleak.attacks"); `fits`: whether something is `what` it should be."""
        self.group = group
        self._things = dict(own)
        self._fits = fits
        self._what = what
        self._looked = False

    def __getitem__(self, name: str) -> Thing:
        if name not in self._things:
            self._look()
        return self._things[name]

    def __setitem__(self, name: str, thing: Thing) -> None:
        self._things[name] = thing

    def __delitem__(self, name: str) -> None:
        self._look()
        del self._things[name]

    def __iter__(self) -> Iterator[str]:
        self._look()
        return iter(self._things)

    def __len__(self) -> int:
        self._look()
        return len(self._things)

    def __repr__(self) -> str:
        return f"{self.group}: {', '.join(self)}"

    def _look(self) -> None:
        """Add what is installed, once in a process."""
        if self._looked:
            return
        self._looked = True  # before anything is imported: a plug-in may look into the registry that it enters
        for point in points(self.group):
            if (why := self._add(point)) is not None:
                package = f" of the package {point.dist.name}" if point.dist else ""
                log.warning("lightleak: the plug-in %r in %s%s is left out: %s", point.name, self.group, package, why)

    def _add(self, point: EntryPoint) -> str | None:
        """Enter one plug-in; else say why not."""
        if point.name in self._things:
            return "the name is taken"
        try:
            thing = point.load()
        except Exception as error:
            line = " ".join(str(error).split())[:200]
            return f"{point.value} cannot be imported ({type(error).__name__}: {line})"
        if not self._fits(thing):
            return f"{point.value} is no {self._what}"
        self._things[point.name] = thing
        return None
