"""What verbs make of their arguments."""

import ast
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.markup import escape

from lightleak import data
from lightleak.errors import UserError
from lightleak.terminal import bar, console

if TYPE_CHECKING:
    from lightleak.models.classifier import Classifier

Settings = Annotated[dict[str, str], tyro.conf.arg(metavar="NAME VALUE ...")]


@dataclass(frozen=True)
class Own:
    """A network of the user's own, where a checkpoint of Lightleak's does not say how it is made."""

    net: str | None = None
    """FILE.py:NAME, a function or class that returns your own network; that file is executed."""
    weights: Path | None = None
    """Its weights: what torch.save wrote, or safetensors; nothing in them is executed."""
    entry: str | None = None
    """Which of several networks in the weights, such as state_dict_ema."""
    mean: tuple[float, ...] = ()
    """Mean of each channel of images in [0, 1], as it was trained (default: what the network says of itself)."""
    std: tuple[float, ...] = ()
    """Standard deviation of each channel."""


NOTHING = Own()
OwnNet = Annotated[Own, tyro.conf.OmitArgPrefixes]


def classifier_of(checkpoint: Path | None, own: Own, what: str, size: int | None = None) -> "Classifier":
    """The classifier of a checkpoint, or of a network of the user's own; `what` is the flag of the checkpoint."""
    from lightleak.models.own import opened

    if checkpoint is not None and own.weights is not None:
        raise UserError(f"give {what} or --weights, not both")
    if own.net is None and (own != NOTHING or checkpoint is None):
        raise UserError(f"expected {what}, or a network of your own with --net FILE.py:NAME and --weights FILE")
    file = checkpoint or own.weights
    return opened(own.net, file, size=size, mean=own.mean or None, std=own.std or None, entry=own.entry)


def values(settings: dict[str, str]) -> dict[str, Any]:
    """Settings as Python values where they read as such, else as text."""
    read: dict[str, Any] = {}
    for name, text in settings.items():
        try:
            read[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            read[name] = text
    return read


def population_of(source: str, settings: dict[str, str], aloud: bool = True) -> data.Population:
    with bar(f"read {source}") as watch:
        population = data.load(source, **values(settings), watch=watch)
    for note in population.notes if aloud else ():
        console.print(f"[yellow]![/] {escape(note)}", highlight=False)
    return population


def command() -> str:
    """What was typed, so that it can be typed again."""
    return "lightleak " + " ".join(shlex.quote(argument) for argument in sys.argv[1:])
