"""Several recognisers: which of them decides, what each of them says, and whether they say the same."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from lightleak.audit.answer import Answer, Found
from lightleak.metrics import verification

RULE = (
    "The answer rests on the first recogniser, in the order in which they were named, that is fit: it knows at least "
    f"{verification.FIT:.0%} of held-out photographs. If none is fit, it rests on the first that could be calibrated. "
    "What they see of the attack's images plays no part in that."
)


@dataclass(frozen=True)
class Opinion:
    """What one recogniser says of an audit."""

    title: str
    sha256: str
    told: Mapping[str, Any]  # of all pictures, see `measure.Embed`
    found: Sequence[Found] = ()  # of every member
    answer: Answer | None = None  # None: it could not be calibrated

    @property
    def fit(self) -> bool:
        """Whether it knows enough of held-out photographs."""
        return _fit(self.told)


def _fit(told: Mapping[str, Any]) -> bool:
    return (told.get("ceiling") or 0.0) >= verification.FIT


def deciding(told: Sequence[Mapping[str, Any]]) -> int:
    """The place of the recogniser that decides, by what each says of photographs alone; see RULE."""
    able = [place for place, one in enumerate(told) if "calibration" in one]
    fit = [place for place in able if _fit(told[place])]
    return (fit or able or [0])[0]


def section(opinions: Sequence[Opinion], first: int) -> dict[str, Any]:
    """The record's section on recognisers; `first` is the place of the one that decides."""
    tables = [_images(one) for one in opinions]
    rows = []
    for place, one in enumerate(opinions):
        row: dict[str, Any] = {"title": one.title, "sha256": one.sha256, "decides": place == first, "fit": one.fit}
        if one.answer is None:
            rows.append({**row, "missing": one.told["missing"]})
            continue
        answer = asdict(one.answer)
        kept = ("verdict", "shown", "share", "at_most", "null", "null_shown", "p", "ceiling", "above_ceiling",
                "named", "memorisation_gap")  # fmt: skip
        row |= {"calibration": one.told["calibration"], "gallery": one.told["gallery"], "curve": one.told["curve"]}
        same = None if place == first else verification.agreement([tables[first], tables[place]])
        rows.append({**row, **{name: answer[name] for name in kept}, "agrees_with_the_deciding": same})
    agreed = verification.agreement([table for table in tables if len(table)])
    return {"rule": RULE, "agreement": agreed, "each": rows}


def warnings(opinions: Sequence[Opinion], first: int) -> list[str]:
    """That the one named first does not decide, and that others come to another verdict; a line each."""
    if not opinions:
        return []
    told, chief = [], opinions[first]
    if first > 0:
        why = (
            opinions[0].told.get("missing")
            or f"it knows {_percent(opinions[0].told['ceiling'])} of held-out photographs"
        )
        told.append(
            f"The recogniser named first, {opinions[0].title}, is unfit for these pictures ({why}); the "
            f"{_rests(chief)}."
        )
    if chief.answer is None:
        return told
    others = [one for one in opinions if one.answer is not None and one.answer.verdict != "cannot tell"]
    differ = [one for one in others if one.answer is not None and one.answer.verdict != chief.answer.verdict]
    if differ and chief.answer.verdict != "cannot tell":
        each = "; ".join(_verdict(one) for one in (chief, *differ))
        told.append(f"The recognisers disagree: {each}. The {_rests(chief)}.")
    return told


def _rests(chief: Opinion) -> str:
    why = "the first named that is fit" if chief.fit else "the first named that could be calibrated; none is fit"
    return f"answer rests on {chief.title}, {why}"


def _verdict(one: Opinion) -> str:
    assert one.answer is not None
    fit = "" if one.fit else ", though it is unfit"
    return f"{one.title} says {one.answer.verdict} ({one.answer.shown} of {one.answer.people}){fit}"


def _images(one: Opinion) -> torch.Tensor:
    """Whether it knows the person in each image of each attack; none where it could not be calibrated."""
    attacks = [each for each in one.found if not each.null and not each.control and each.verified is not None]
    return torch.tensor([value for each in attacks for value in each.verified or ()], dtype=torch.bool)


def _percent(value: float | None) -> str:
    return "an unknown share" if value is None else f"{value:.0%}"
