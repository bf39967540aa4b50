"""Reconstructions as pictures: a sheet of the best of each class, and PNG files by class."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from lightleak.files import publish

if TYPE_CHECKING:
    from lightleak.attacks.reconstruction import Reconstruction


def sheet(found: "Reconstruction", each: int, columns: int) -> Image.Image:
    """The `each` images of highest confidence in each class, next to each other, classes ascending, `columns` in a row.

    A class that has fewer leaves gaps, so that a class's images always start at a multiple of `each`.
    """
    best = found.best(each)
    labels, counts = best.classes.unique_consecutive(return_counts=True)
    place = torch.cat([torch.arange(int(n)) + row * each for row, n in enumerate(counts)]) if len(labels) else counts
    columns = max(1, min(columns, len(labels) * each))
    rows = max(1, -(-len(labels) * each // columns))
    pixels = torch.full((rows * columns, 3, found.size, found.size), 255, dtype=torch.uint8)
    pixels[place] = best.bytes()
    return picture(pixels.unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2))


def save(found: "Reconstruction", folder: Path) -> list[Path]:
    """Every image as folder/CLASS/NUMBER.png in the order they are in; what is there of these names is replaced."""
    written, count = [], dict.fromkeys(found.classes.tolist(), 0)
    digits = max(3, len(str(max(count, default=0))))
    for row, label in enumerate(found.classes.tolist()):
        image = picture(found.bytes(slice(row, row + 1))[0])
        path = folder / folder_of(label, digits, found.people.names) / f"{count[label]:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        written.append(publish(path, lambda part, image=image: image.save(part, format="PNG"), "the image"))
        count[label] += 1
    return written


def folder_of(label: int, digits: int, names: tuple[str, ...]) -> str:
    """What a class's folder is called: its number, and its name as far as files may be called so."""
    name = re.sub(r"[^\w-]+", "-", names[label]).strip("-")[:60] if 0 <= label < len(names) else ""
    return f"{label:0{digits}d}" + (f"-{name}" if name and name != str(label) else "")


def picture(pixels: Tensor) -> Image.Image:
    """3 x H x W bytes as a picture."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
