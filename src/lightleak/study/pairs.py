"""Pairs of reconstructions for a user study (Koh et al., ECCV 2024, Tab. 10): images, a form, and a key."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lightleak.study.task import Store, Task, Watch
from lightleak.study.tasks import Invert, run_of


@dataclass(frozen=True)
class Pairs(Task):
    """For each person a private image and, in random order, what two targets gave away of them.

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

    def run(self, store: Store, folder: Path, watch: Watch) -> dict[str, Any]:
        population = self.first.target.population.load(store)
        found = [attack.load(store).best(1) for attack in (self.first, self.second)]
        titles = [attack.target.title for attack in (self.first, self.second)]
        rng = torch.Generator().manual_seed(self.seed)
        form, key = [], []
        for place, label in enumerate(found[0].classes.tolist()):
            name = f"{place:04d}"
            private = population.train.pixels[int((population.train.labels == label).nonzero()[0])]
            swapped = bool(torch.randint(2, (), generator=rng))
            sides = [1, 0] if swapped else [0, 1]
            _write(private, folder / f"{name}-person.png")
            for side, which in zip(("left", "right"), sides):
                _write(found[which].bytes(found[which].classes == label)[0], folder / f"{name}-{side}.png")
            form.append([name, f"{name}-person.png", f"{name}-left.png", f"{name}-right.png"])
            key.append([name, label, titles[sides[0]], titles[sides[1]]])
            watch(place + 1, len(found[0].classes))
        _table(folder / "form.csv", ["pair", "person", "left", "right"], form)
        _table(folder / "key.csv", ["pair", "class", "left", "right"], key)
        return {"pairs": len(form), "targets": titles, "swapped": sum(row[2] == titles[1] for row in key)}


def _write(pixels: Tensor, path: Path) -> None:
    Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(path)


def _table(path: Path, heads: list[str], rows: list[list[Any]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([heads, *rows])
