"""The surgeries of a network as plain data, which can be stored beside its weights and repeated."""

from typing import Any

from torch import nn

from lightleak.surgery.stages import Skip
from lightleak.surgery.through import SurgeryError
from lightleak.surgery.where import Where
from lightleak.version import __version__

ATTRIBUTE = "surgery_recipe"


def recipe(model: nn.Module) -> list[dict[str, Any]]:
    """Every surgery a model has had, in order, as JSON data; [] for an uncut one."""
    return [dict(step) for step in vars(model).get(ATTRIBUTE, [])]


def note(model: nn.Module, step: dict[str, Any]) -> None:
    """Add a step to the model's own record; copies of the model carry it along."""
    object.__setattr__(model, ATTRIBUTE, [*recipe(model), {**step, "lightleak": __version__}])


def step_of(factor: float, chosen: list[Skip], where: Where, keep_keys: bool, masked: bool) -> dict[str, Any]:
    """One cut as data: each skip with its name, kind, stage and channels, so that another network is refused."""
    return {
        "surgery": "scale" if factor else "remove",
        "factor": factor,
        "where": where if isinstance(where, (str, int)) else "list",
        "keep_keys": keep_keys,
        "masked": masked,  # what was cut from concatenations is zero, since a reader needs the full width
        "skips": [[skip.name, skip.kind, skip.stage, skip.channels] for skip in chosen],
    }


def check(step: dict[str, Any], skips: list[Skip], model: str) -> list[Skip]:
    """The skips that a step names; SurgeryError if this network's are others."""
    if step["surgery"] not in ("remove", "scale"):
        raise SurgeryError(f"the recipe asks for a surgery '{step['surgery']}' that this version does not know")
    present = {skip.name: skip for skip in skips}
    wrong = [
        f"'{name}' ({kind}, stage {stage}, {channels} channels)"
        for name, kind, stage, channels in step["skips"]  # the stage is told, not asked: how stages count has changed
        if name not in present or [present[name].kind, present[name].channels] != [kind, channels]
    ]
    if wrong:
        raise SurgeryError(
            f"the recipe belongs to another network: {model} has no skip {wrong[0]}"
            + (f" and {len(wrong) - 1} more that it names" if wrong[1:] else "")
        )
    return [present[name] for name, *_ in step["skips"]]
