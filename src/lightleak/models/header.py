"""The recipe in a checkpoint's header: one schema, checked before anything is built from it."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from safetensors import SafetensorError, safe_open

from lightleak.errors import UserError
from lightleak.models.trial import Reading, Scale
from lightleak.models.wrap import FORMAT

MOST_CLASSES, MOST_SIDE, MOST_BYTES = 10**6, 2**13, 2**27
Check = Callable[[Any], bool]


@dataclass(frozen=True)
class Header:
    """What a checkpoint holds besides its weights; every field has been checked."""

    architecture: str | None
    size: int
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    surgery: list[dict[str, Any]]
    changes: tuple[dict[str, Any], ...]
    record: dict[str, Any]
    sides: tuple[int, int] | None
    reading: Reading | None
    origin: str | None


def _numbers(value: Any) -> bool:
    return type(value) is list and len(value) in (1, 3) and all(_number(each) for each in value)


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and abs(value) < 1e6


def _whole(most: int) -> Check:
    return lambda value: type(value) is int and 1 <= value <= most


def _text(value: Any) -> bool:
    return type(value) is str and len(value) <= 1000


def _texts(value: Any) -> bool:
    return type(value) is list and all(map(_text, value))


def _tables(value: Any) -> bool:
    return type(value) is list and all(type(each) is dict for each in value)


def _changes(value: Any) -> bool:
    return _tables(value) and all(_text(each.get("kind")) for each in value)


def _sides(value: Any) -> bool:
    return value is None or (type(value) is list and len(value) == 2 and all(map(_whole(MOST_SIDE), value)))


def _reading(value: Any) -> bool:
    return value is None or (
        type(value) is dict
        and value.keys() == {"channels", "item", "scale", "notes"}
        and value["channels"] in (1, 3)
        and (value["item"] is None or _text(value["item"]))
        and value["scale"] in get_args(Scale)
        and _texts(value["notes"])
    )


# Each field: what it is to be, in words; how that is checked; what files from before it have (...: it must be there).
FIELDS: dict[str, tuple[str, Check, Any]] = {
    "architecture": ("a name or null", lambda value: value is None or _text(value), ...),
    "size": ("a side in pixels", _whole(MOST_SIDE), ...),
    "classes": ("a number of classes", _whole(MOST_CLASSES), ...),
    "mean": ("one or three numbers", _numbers, ...),
    "std": ("one or three numbers above 0", lambda value: _numbers(value) and min(value) > 0, ...),
    "class_names": ("a list of names", _texts, ...),
    "surgery": ("a list of steps", _tables, ...),
    "changes": ("a list of changes with their kinds", _changes, ...),
    "record": ("a table", lambda value: type(value) is dict, ...),
    "sides": ("height and width in pixels", _sides, None),
    "reading": ("how its outputs are read", _reading, None),
    "origin": ("FILE.py:NAME", lambda value: value is None or _text(value), None),
}


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The unchecked recipe in a checkpoint's header; UserError if the file is not a checkpoint of Lightleak's."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("lightleak")
        if text and len(text) > MOST_BYTES:
            raise ValueError("its recipe is larger than a recipe")
        recipe = json.loads(text) if text else None
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        line = " ".join(str(error).split())[:120]
        raise UserError(
            f"{path} is not a whole safetensors file ({line}); foreign checkpoints go through 'lightleak convert'"
        ) from error
    if not isinstance(recipe, dict) or recipe.get("format") != FORMAT:
        raise UserError(
            f"{path} has no Lightleak recipe of format {FORMAT}; use 'lightleak convert' on foreign checkpoints"
        )
    return recipe


def read_header(path: str | Path) -> Header:
    """The recipe in a checkpoint's header, checked field by field; UserError that names what is wrong."""
    recipe = read_recipe(path)
    values: dict[str, Any] = {}
    for name, (wanted, check, default) in FIELDS.items():
        value = values[name] = recipe.get(name, default)
        if value is ... or not check(value):
            came = "nothing" if value is ... else repr(value)[:60]
            raise UserError(f"the recipe in {path} is damaged: {name} is {came}, expected {wanted}")
    named, classes = len(values["class_names"]), values["classes"]
    if named not in (0, classes) or len(values["mean"]) != len(values["std"]):
        raise UserError(f"the recipe in {path} is damaged: {named} class names for {classes} classes")
    reading = values["reading"]
    return Header(
        **{
            **values,
            **{name: tuple(values[name]) for name in ("mean", "std", "class_names", "changes")},
            "sides": values["sides"] and tuple(values["sides"]),
            "reading": reading and Reading(**{**reading, "notes": tuple(reading["notes"])}),
        }
    )


def text_of(recipe: dict[str, Any]) -> str:
    """A recipe as JSON; numbers that are not finite (such as an infinite loss) become "inf" or "nan"."""
    try:
        return json.dumps(plain(recipe), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"the record of the classifier is no plain data: {error}") from None


def plain(value: Any) -> Any:
    """The data with numbers that JSON lacks replaced by their names."""
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case dict():
            return {key: plain(each) for key, each in value.items()}
        case list() | tuple():
            return [plain(each) for each in value]
    return value
