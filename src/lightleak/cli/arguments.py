"""Turn the arguments of verbs into objects."""

import ast
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console
from rich.markup import escape

from lightleak import data
from lightleak.data.listed import folder_of, overlapping, read_list, redivided, unmatched
from lightleak.data.people import divided_alike
from lightleak.errors import UserError
from lightleak.models import named
from lightleak.place import choose, first_line
from lightleak.terminal import bar, console

if TYPE_CHECKING:
    from lightleak.models.classifier import Classifier

OVERLAP = "overlap"  # in a classifier's record: why held-out pictures may be ones that it was trained on
Settings = Annotated[dict[str, str], tyro.conf.arg(metavar="NAME VALUE ...")]


@dataclass(frozen=True)
class Own:
    """A network of the user's own, for which no checkpoint of Lightleak's says how it is built."""

    net: str | None = None
    """FILE.py:NAME, a function or class that returns your own network; that file is executed."""
    weights: Path | None = None
    """Its weights: what torch.save wrote, or safetensors; nothing in them is executed."""
    entry: str | None = None
    """Which of several networks in the weights, such as state_dict_ema."""
    mean: tuple[float, ...] = ()
    """Mean of each channel of images in [0, 1], as it was trained; by default what the network says of itself."""
    std: tuple[float, ...] = ()
    """Standard deviation of each channel."""
    output: str | None = None
    """Which of several outputs holds the logits, by index or name; by default the one that fits."""


NOTHING = Own()
OwnNet = Annotated[Own, tyro.conf.OmitArgPrefixes]


def check_network(checkpoint: Path | None, own: Own, what: str) -> None:
    """UserError, before anything is read, unless exactly one network is given: as a checkpoint or as `own`."""
    if checkpoint is not None and own.weights is not None:
        raise UserError(f"give {what} or --weights, not both")
    if own.net is None and (own != NOTHING or checkpoint is None):
        raise UserError(f"expected {what}, or a network of your own with --net FILE.py:NAME and --weights FILE")
    check_own(own)


def check_own(own: Own) -> None:
    """UserError if files of an own network do not exist."""
    if own.net is not None:
        named.file_and_name(own.net)
    check_weights(own.weights)


def check_weights(file: Path | None) -> None:
    """UserError if a file of weights is named that does not exist."""
    if file is not None and not file.expanduser().exists():
        raise UserError(f"there are no weights {file}")


def check_data(source: str | None, settings: dict[str, str], train_list: Path | None = None) -> None:
    """UserError, before anything is read, for an unknown data set, or settings or a list that it does not take."""
    if source is not None:
        data.check(source, **values(settings))
        if train_list is not None:
            folder_of(source)
            read_list(train_list)


def classifier_of(checkpoint: Path | None, own: Own, size: int | None = None) -> "Classifier":
    """The classifier of a checkpoint, or of a network of the user's own, of which `check_network` approved."""
    from lightleak.models.own import opened

    file = checkpoint or own.weights
    return opened(
        own.net, file, size=size, mean=own.mean or None, std=own.std or None, entry=own.entry, output=own.output
    )


def computing(verb: Callable[..., None]) -> Callable[..., None]:
    """Make a verb compute on the device that its argument `device` names; its first line says so if that is a GPU."""

    @wraps(verb)
    def placed(*arguments: Any, **named: Any) -> None:
        bound = signature(verb).bind(*arguments, **named)
        bound.apply_defaults()
        device = bound.arguments["device"]
        place = choose(device)
        if line := first_line(place, device):
            Console(stderr=True).print(f"[dim]{escape(line)}[/]", highlight=False)  # --json has the output to itself
        with place.entered():
            verb(*arguments, **named)

    return placed


def values(settings: dict[str, str]) -> dict[str, Any]:
    """The settings as Python values where they can be parsed as such, else as text."""
    read: dict[str, Any] = {}
    for name, text in settings.items():
        try:
            read[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            read[name] = text
    return read


def population_of(
    source: str, settings: dict[str, str], aloud: bool = True, train_list: Path | None = None
) -> data.Population:
    """The population, divided by a list of the pictures that a model was trained on where there is one."""
    with bar(f"read {source}") as watch:
        population = data.load(source, **values(settings), watch=watch)
    if train_list is not None:
        population = redivided(population, source, read_list(train_list))
        if not len(population.validation) or not len(population.test):
            raise UserError(
                f"of the pictures that are not on {train_list}, none is left to choose or none to test by; add "
                "pictures that the model was not trained on"
            )
    for note in population.notes if aloud else ():
        warn(note)
    return population


def overlap(model: "Classifier", source: str, train_list: Path | None, population: data.Population) -> str:
    """The warning that a model may have been trained on pictures that are held out here; empty if it was not.

    What Lightleak trained has a recipe and the division of its people, and OVERLAP in its record if it began with
    weights of which this is unknown.
    """
    from lightleak.models import whose

    divided = divided_alike(whose.people_of(model), population.people)
    if train_list is None and "recipe" in model.record and OVERLAP not in model.record and divided:
        return ""
    missed = None if train_list is None else len(unmatched(source, read_list(train_list), population.size))
    return overlapping(missed, "choose and test", "natural accuracy")


def warn(text: str) -> None:
    """Print a remark."""
    console.print(f"[yellow]![/] {escape(text)}", highlight=False)


def command() -> str:
    """The command line as it was typed, so that it can be typed again."""
    return "lightleak " + " ".join(shlex.quote(argument) for argument in sys.argv[1:])
