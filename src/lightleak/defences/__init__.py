"""Defences: frozen settings with a `plan` that says what they do to plain training; one file each."""

import ast
import json
from dataclasses import fields, is_dataclass, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

from lightleak.defences.atat import ATAT
from lightleak.defences.bido import BiDO
from lightleak.defences.calor import CALoR
from lightleak.defences.dp import DPSGD
from lightleak.defences.loft import LoFt
from lightleak.defences.mid import MID
from lightleak.defences.midre import MIDRE
from lightleak.defences.rolss import SSF, RoLSS, RoLSSPlus
from lightleak.defences.smoothing import NegLS
from lightleak.defences.transfer import TLDMI, pretrain
from lightleak.defences.trapmid import TrapMID
from lightleak.defences.two_stage import TTS
from lightleak.errors import UserError, nearest
from lightleak.fingerprint import told
from lightleak.models.classifier import Classifier
from lightleak.plugins import Registry
from lightleak.training.plan import Plan, combine
from lightleak.training.recipes import Recipe


class Defence(Protocol):
    """Settings are the fields of a frozen dataclass, defaults are the paper's; what it does is its plan."""

    title: ClassVar[str]

    def plan(self, recipe: Recipe) -> Plan: ...


@runtime_checkable
class Respelled(Protocol):
    """A defence that can be spelled in several ways: different settings may give the same network."""

    title: ClassVar[str]

    def plan(self, recipe: Recipe) -> Plan: ...

    @property
    def ambiguous(self) -> bool:
        """Whether there may be a shorter spelling, so that a network is worth looking at."""
        ...

    def respelled(self, classifier: Classifier) -> Defence:
        """The defence in its shortest spelling that changes this network, before training, in the same way."""
        ...


OURS: dict[str, type[Defence]] = {
    "rolss": RoLSS,
    "rolss+": RoLSSPlus,
    "ssf": SSF,
    "tts": TTS,
    "bido": BiDO,
    "mid": MID,
    "negls": NegLS,
    "tldmi": TLDMI,
    "dp": DPSGD,
    "atat": ATAT,
    "midre": MIDRE,
    "loft": LoFt,
    "calor": CALoR,
    "trapmid": TrapMID,
}
# Other settings that the papers use, by name.
PRESETS: dict[str, Defence] = {
    "bido-coco": BiDO(measure="coco"),
    "midre-0.8": MIDRE(most=0.8),
    "loft-35": LoFt(rank=35),
    "calor-4": CALoR(gamma=4.0),
    "trapmid-negls": TrapMID(alpha=-0.05),
    "atat-published": ATAT(training_mode=True),
}
DEFENCES: Registry[type[Defence]] = Registry(
    "lightleak.defences",
    OURS,
    lambda thing: (
        isinstance(thing, type) and is_dataclass(thing) and hasattr(thing, "plan") and hasattr(thing, "title")
    ),
    "frozen dataclass with a title and a method plan(recipe)",
)


def parse(text: str) -> tuple[Defence, ...]:
    """Defences by name, "rolss,bido", by the name of a preset, "midre-0.8", and with settings, "ssf(factor=0.5)".

    "none" or nothing is the empty tuple. UserError for unknown names and settings.
    """
    return tuple(_one(part) for part in _parts(text) if part.lower() != "none")


def _parts(text: str) -> list[str]:
    """What stands between commas that are in no brackets."""
    parts, depth = [""], 0
    for sign in text:
        depth += (sign in "([") - (sign in ")]")
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts if part.strip()]


def _one(text: str) -> Defence:
    name, bracket, rest = text.partition("(")
    name = name.strip().lower()
    if name not in DEFENCES and name not in PRESETS:
        known = [*DEFENCES, *PRESETS]
        hint = nearest(name, known)
        raise UserError(f"there is no defence {name!r}; choose from none, {', '.join(known)}{hint}")
    plain = PRESETS[name] if name in PRESETS else DEFENCES[name]()
    if not bracket:
        return plain
    has = [field.name for field in fields(plain)]  # pyright: ignore[reportArgumentType]
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(one.arg not in has for one in call.keywords):
            raise ValueError
        settings = {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
    except (SyntaxError, ValueError):
        raise UserError(
            f"expected {name}(NAME=VALUE, ...) with settings of {', '.join(has)}, got {text!r:.80}"
        ) from None
    try:
        return replace(plain, **settings)  # pyright: ignore[reportArgumentType]
    except TypeError as error:
        raise UserError(f"{text[:80]}: {error}") from None


def title(defence: Defence) -> str:
    """What a table calls a defence: its name, and the settings that are not the paper's, "RoLSS (where 2)"."""
    changed = [
        f"{field.name.replace('_', ' ')} {_short(getattr(defence, field.name))}"
        for field in fields(defence)  # pyright: ignore[reportArgumentType]
        if field.compare and getattr(defence, field.name) != field.default
    ]
    return defence.title + (f" ({', '.join(changed)})" if changed else "")


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Recipe):
        return f"for {value.epochs} epochs"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def plan(defences: tuple[Defence, ...], recipe: Recipe) -> Plan:
    """The plan of several defences together; UserError if two cannot be combined."""
    for defence in defences:
        missing = [name for name in ("title", "plan") if not hasattr(defence, name)]
        if missing:
            raise UserError(f"the defence {type(defence).__name__} lacks {' and '.join(missing)}: see docs/plugins.md")
    titles = [defence.title for defence in defences]
    twice = [title for title in dict.fromkeys(titles) if titles.count(title) > 1]
    if twice:
        raise UserError(f"{twice[0]} is asked for twice; give it once, with the settings it should have")
    plans = {}
    for defence in defences:
        name = name_of(defence)
        plans[defence.title] = replace(defence.plan(recipe), names=(name,), settings=((name, settings_of(defence)),))
    return combine(plans)


def settings_of(defence: Defence) -> dict[str, Any]:
    """A defence's settings as JSON data, for the record of a network."""
    return json.loads(json.dumps(told(defence), default=str)) if is_dataclass(defence) else {}


def name_of(defence: Defence) -> str:
    """What a defence is called in DEFENCES; its title, if it is in no registry."""
    return next((name for name, kind in DEFENCES.items() if kind is type(defence)), defence.title)


def pretraining(defences: tuple[Defence, ...], recipe: Recipe) -> Recipe | None:
    """How the network learns from public images before the private ones, if a defence wants that (`pretrain`)."""
    wanted = [defence.pretraining(recipe) for defence in defences if isinstance(defence, TLDMI)]
    return wanted[0] if wanted else None


__all__ = [
    "ATAT",
    "DEFENCES",
    "DPSGD",
    "MID",
    "MIDRE",
    "PRESETS",
    "SSF",
    "TLDMI",
    "TTS",
    "BiDO",
    "CALoR",
    "Defence",
    "LoFt",
    "NegLS",
    "Respelled",
    "RoLSS",
    "RoLSSPlus",
    "TrapMID",
    "parse",
    "plan",
    "pretrain",
    "pretraining",
    "title",
]
