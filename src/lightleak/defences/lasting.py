"""What is left of a network's defences after more training by plain steps, as of a recovery or of `train --from`.

    what a defence is                   after plain steps
    a change of the network             is as it was: RoLSS, RoLSS+, SSF, TTS, LoFt
    frozen layers                       last where they stay frozen, which the record has to name: TL-DMI
    a view of each training image       lasts where those steps see it, too, with the recorded settings: MIDRE
    a bound on what steps may do        is void: DP-SGD
    a loss, a term, a companion, more   is undone: BiDO, NegLS, AT-AT, Trap-MID, the term of MID, the tuning of CALoR

A defence's plan says which it is. What stays in the network of one that is undone (MID's noise, CALoR's head) stays.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lightleak.errors import UserError
from lightleak.training.plan import UNDEFENDED, Plan
from lightleak.training.recipes import RECIPES

if TYPE_CHECKING:
    from lightleak.defences import Defence

LONG = replace(RECIPES["small"], epochs=100)  # in which every defence finds its epochs


@dataclass(frozen=True)
class Lasting:
    """Which of a network's recorded defences plain steps leave in it, and what they have to do for that."""

    names: tuple[str, ...] = ()  # whatever the steps are
    # if their images are seen through these
    by_views: Mapping[str, tuple[Callable[[Tensor], Tensor], ...]] = field(default_factory=dict)
    by_freezing: tuple[str, ...] = ()  # if the recorded parameters stay `frozen`
    frozen: tuple[str, ...] = ()
    void: tuple[str, ...] = ()  # bounds of what steps may do
    undone: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)  # as recorded, by name

    def joined(self, plan: Plan) -> Plan:
        """The plan of more training, which also names what lasts whatever its steps are."""
        names = [name for name in self.names if name not in plan.names]
        known = [(name, self.settings[name]) for name in names if name in self.settings]
        return replace(plan, names=(*names, *plan.names), settings=(*known, *plan.settings))


def lasting(record: Mapping[str, Any]) -> Lasting:
    """What plain steps leave of the defences in a classifier's record."""
    told, settings, frozen = (record.get(name) for name in ("defences", "defence_settings", "frozen"))
    settings = settings if isinstance(settings, dict) else {}
    frozen = tuple(map(str, frozen)) if isinstance(frozen, list) else ()
    names: list[str] = []
    views: dict[str, tuple[Callable[[Tensor], Tensor], ...]] = {}
    freezing: list[str] = []
    void: list[str] = ["dp"] if record.get("privacy") else []
    undone: list[str] = []
    for name in told if isinstance(told, list) else []:
        defence = remade(name, settings.get(name))
        plan = UNDEFENDED if defence is None else replace(defence.plan(LONG), changes=(), after=(), head=False)
        if defence is None:
            undone.append(name)
        elif plan.mechanism is not None:
            (void if record.get("privacy") else undone).append(name)
        elif getattr(defence, "freezes", False):
            (freezing if frozen else undone).append(name)
        elif plan == UNDEFENDED:
            names.append(name)
        elif replace(plan, views=()) == UNDEFENDED and name in settings:
            views[name] = plan.views
        else:
            undone.append(name)
    return Lasting(tuple(names), views, tuple(freezing), frozen, tuple(dict.fromkeys(void)), tuple(undone), settings)


def remade(name: str, settings: Any) -> "Defence | None":
    """The defence of that name, with recorded settings where there are any; None if this version has no such."""
    from lightleak import defences

    if name not in defences.DEFENCES:
        return None
    given = settings if isinstance(settings, dict) else {}
    try:
        return defences.DEFENCES[name](**{n: tuple(v) if isinstance(v, list) else v for n, v in given.items()})
    except (TypeError, UserError):  # a later version's settings
        return None
