"""Choose skips: those of one stage or several, the tail of a stage, a pattern of names, or the skips themselves."""

import re
from collections import Counter
from collections.abc import Collection
from fnmatch import fnmatchcase

from lightleak.surgery.stages import Skip
from lightleak.surgery.through import SurgeryError

Where = str | int | Skip | Collection[str | int | Skip]

PART = re.compile(r"(\d+)(?:\[(-?[\d.]*):(-?[\d.]*)\])?")


def choose(skips: list[Skip], where: Where, model: str, stuck: Collection[Skip] = ()) -> list[Skip]:
    """The chosen skips, in the order of computation; SurgeryError if there are none.

    `stuck`: what lets a signal around layers and cannot be cut. A wish for whole stages in which such a one lies is
    refused, since the cut would not be whole; skips that are named are cut.

    `where`: "last" (the last stage that has skips), "all", a stage, "3[0.9:]" (of stage 3 the skips from int(0.9 * n)
    on: RoLSS+), "3[-2:]" (its last two), a glob of skip names, of the modules they go around ("blocks.0.*", "*attn*")
    or of those modules' classes ("*attention*"), a Skip, or a list of these.
    """
    if stuck:
        _refuse_halves(skips, where, model, list(stuck))
    if not skips:
        raise SurgeryError(f"{model} has no skip connections to cut: no signal goes around a layer and joins again")
    wishes = list(where) if isinstance(where, (list, tuple, set, frozenset)) else [where]
    if not wishes:
        raise SurgeryError(f"no skips were named; {_offer(skips, model)}")
    meant = {skip.depth for wish in wishes for skip in _meant(skips, wish, model)}
    return [skip for skip in skips if skip.depth in meant]


def _refuse_halves(skips: list[Skip], where: Where, model: str, stuck: list[Skip]) -> None:
    wishes = list(where) if isinstance(where, (list, tuple, set, frozenset)) else [where]
    last = max(join.stage for join in (*skips, *stuck))
    stages: set[int] = set()
    for wish in wishes:
        if wish in ("all", "last"):
            stages |= {last} if wish == "last" else {join.stage for join in stuck}
        elif isinstance(wish, (str, int)) and not isinstance(wish, bool) and (match := PART.fullmatch(str(wish))):
            stages.add(int(match[1]))
    left = [join for join in stuck if join.stage in stages]
    if left or not skips:
        first = (left or stuck)[0]
        more = f" (and {len(left) - 1} more)" if left[1:] else ""
        way = "name the skips that are to be cut, which leaves this one" if skips else "write it as a sum"
        raise SurgeryError(f"{model}: '{first.name}' {first.reason}{more}; {way}")


def _meant(skips: list[Skip], wish: object, model: str) -> list[Skip]:
    if isinstance(wish, Skip):
        found = [skip for skip in skips if skip.name == wish.name]
    elif wish == "all":
        found = skips
    elif wish == "last":
        found = _stage(skips, max(skip.stage for skip in skips))
    elif isinstance(wish, bool) or not isinstance(wish, (str, int)):
        raise SurgeryError(f"where must be a stage, a pattern, a Skip or a list of these, not {wish!r}")
    elif match := PART.fullmatch(str(wish)):
        found = _stage(skips, int(match[1]))
        if found and match[2] is not None:
            found = found[_position(match[2], len(found), 0) : _position(match[3], len(found), len(found))]
    else:
        pattern = str(wish).lower()
        found = [s for s in skips if fnmatchcase(s.name.lower(), pattern)]
        found = found or [s for s in skips if any(fnmatchcase(a.lower(), pattern) for a in (*s.around, *s.classes))]
    if not found:
        named = wish.name if isinstance(wish, Skip) else wish
        raise SurgeryError(f"{model} has no skip '{named}'; {_offer(skips, model)}")
    return found


def _stage(skips: list[Skip], stage: int) -> list[Skip]:
    return [skip for skip in skips if skip.stage == stage]


def _position(text: str, count: int, default: int) -> int:
    """A place among `count` skips: "0.9" is int(0.9 * count), "3" and "-1" count."""
    if not text:
        return default
    return int(float(text) * count) if "." in text else int(text)


def _offer(skips: list[Skip], model: str) -> str:
    stages = Counter(skip.stage for skip in skips)
    listed = ", ".join(f"{stage} ({count})" for stage, count in sorted(stages.items()))
    return f"{model} has skips in stages {listed}, named from '{skips[0].name}' to '{skips[-1].name}'"
