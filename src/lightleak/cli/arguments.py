"""What verbs make of their arguments."""

import ast
import shlex
import sys
from typing import Annotated, Any

import tyro
from rich.markup import escape

from lightleak import data
from lightleak.terminal import bar, console

Settings = Annotated[dict[str, str], tyro.conf.arg(metavar="NAME VALUE ...")]


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
