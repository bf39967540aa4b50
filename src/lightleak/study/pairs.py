"""Pairs of reconstructions for a user study (Koh et al., ECCV 2024, Tab. 10): images, a form, and a key.

Written and read here alone. `lightleak raters` puts them to people.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lightleak.data.people import differ
from lightleak.errors import UserError
from lightleak.files import parsed
from lightleak.study.task import Progress, Store, Task
from lightleak.study.tasks import Invert, run_of
from lightleak.study.whole import RESULT

FORM, KEY = "form.csv", "key.csv"
FORM_HEADS, KEY_HEADS = ["pair", "person", "left", "right"], ["pair", "class", "left", "right"]


@dataclass(frozen=True)
class Pair:
    """A person's picture, and reconstructions of that person from two targets."""

    name: str
    person: Path
    targets: tuple[str, str]  # in the same order for all pairs of a study
    pictures: tuple[Path, Path]  # of these targets


@dataclass(frozen=True)
class Pairs(Task):
    """For each person a private image and, in random order, what two targets gave away of them.

    Both targets know the same people under the same labels, else UserError; of whom one of them gave nothing away there
    is no pair, and the result counts them as `left_out`.

    `form.csv` names the three images of each pair; `key.csv` says which side is of which target. The private images lie
    in the folder in plain sight: whoever runs the study decides who may see them.
    """

    first: Invert
    second: Invert
    seed: int = 0  # decides which stands left

    def needs(self) -> tuple[Task, ...]:
        """Both attacks, their targets, and the population."""
        targets = (self.first.target, self.second.target)
        return (*super().needs(), *targets, *map(run_of, targets), targets[0].population)

    @property
    def label(self) -> str:
        return f"pair {self.first.target.title} with {self.second.target.title}"

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:
        population = self.first.target.population.load(store)
        found = [attack.load(store).best(1) for attack in (self.first, self.second)]
        titles = [attack.target.title for attack in (self.first, self.second)]
        for one, title in zip(found, titles):
            if different := differ(one.people, population.people, f"what {title!r} gave away", "the data"):
                raise UserError(f"pairs are of the same people: {different}")
        theirs = [one.classes.tolist() for one in found]
        shared = [label for label in theirs[0] if label in theirs[1]]
        rng = torch.Generator().manual_seed(self.seed)
        form, key = [], []
        for place, label in enumerate(shared):
            name = f"{place:04d}"
            private = population.train.pixels[int((population.train.labels == label).nonzero()[0])]
            swapped = bool(torch.randint(2, (), generator=rng))
            sides = [1, 0] if swapped else [0, 1]
            _write(private, folder / f"{name}-person.png")
            for side, which in zip(("left", "right"), sides):
                _write(found[which].bytes(found[which].classes == label)[0], folder / f"{name}-{side}.png")
            form.append([name, f"{name}-person.png", f"{name}-left.png", f"{name}-right.png"])
            key.append([name, label, titles[sides[0]], titles[sides[1]]])
            watch(place + 1, len(shared))
        _table(folder / FORM, FORM_HEADS, form)
        _table(folder / KEY, KEY_HEADS, key)
        swapped, left_out = sum(row[2] == titles[1] for row in key), len({*theirs[0], *theirs[1]}) - len(shared)
        return {"pairs": len(form), "targets": titles, "swapped": swapped, "left_out": left_out}


def _write(pixels: Tensor, path: Path) -> None:
    Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(path)


def _table(path: Path, heads: list[str], rows: list[list[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([heads, *rows])


def read_pairs(folder: Path) -> tuple[Pair, ...]:
    """The pairs that lie in a folder; UserError if a table or a picture is missing, or the two targets are one."""
    form, key = _rows(folder / FORM, FORM_HEADS), _rows(folder / KEY, KEY_HEADS)
    sides = {row["pair"]: (row["left"], row["right"]) for row in key}
    if set(sides) != {row["pair"] for row in form} or not form:
        raise UserError(f"{folder}: {FORM} and {KEY} name different pairs, or none; run the study again")
    targets = sides[form[0]["pair"]]
    first, second = _titles(folder) or sorted(targets)
    found = []
    for row in form:
        files = {side: folder / Path(row[side]).name for side in ("person", "left", "right")}
        lacking = [str(file) for file in files.values() if not file.is_file()]
        if lacking:
            raise UserError(f"the picture {lacking[0]} is missing; run the study again")
        titles = sides[row["pair"]]
        if first == second or set(titles) != {first, second}:
            raise UserError(
                f"pair {row['pair']} in {folder} is of {' and '.join(map(repr, titles))}; raters choose between two "
                "targets of different names"
            )
        left, right = files["left"], files["right"]
        pictures = (left, right) if titles[0] == first else (right, left)
        found.append(Pair(row["pair"], files["person"], (first, second), pictures))
    return tuple(found)


def _titles(folder: Path) -> tuple[str, str] | None:
    """The targets in the study's order, as the task's result says; None where the folder was copied without it."""
    try:
        first, second = parsed((folder / RESULT).read_text(encoding="utf-8"))["targets"]
        return str(first), str(second)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _rows(path: Path, heads: list[str]) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}); run the study again") from None
    if any(row.get(head) is None for row in rows for head in heads):
        raise UserError(f"{path} lacks one of the columns {', '.join(heads)}; run the study again")
    return rows
