"""The pictures of a page: private people, and each target's reconstructions of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from lightleak.errors import UserError
from lightleak.report.fairness import Group
from lightleak.report.results import Frame, Portrait
from lightleak.study.whole import check_file

GALLERY = 12  # people shown


def note(people: int) -> str:
    """How these people and images were chosen."""
    who = f"The first {GALLERY} of {people} people" if people > GALLERY else "All people"
    return f"{who}; of each target the reconstruction of which it is most confident, of its first training seed."


def gallery(groups: Sequence[Group]) -> tuple[Portrait, ...]:
    """The first people, each with the reconstruction of which each target is most confident."""
    stored = {group.name: _pictures(group.entries[0].folder) for group in groups}
    confidences = {group.name: group.entries[0].record.confidence for group in groups}
    names = groups[0].entries[0].record.population.class_names
    portraits = []
    one = stored[groups[0].name]
    for place, label in enumerate(one["classes"].tolist()[:GALLERY]):
        frames = {}
        for name, tensors in stored.items():
            where = (tensors["classes"] == label).nonzero().flatten()
            if len(where):
                each = len(confidences[name]) // len(
                    tensors["classes"]
                )  # best first within each class, classes ascending
                frames[name] = Frame(
                    _array(tensors["reconstructed"][where[0]]), confidences[name][int(where[0]) * each]
                )
        portraits.append(Portrait(names[label], _array(one["private"][place]), frames))
    return tuple(portraits)


def _pictures(folder: Path) -> dict[str, torch.Tensor]:
    """What an evaluation left for the gallery; UserError if it is not whole."""
    file = folder / "gallery.safetensors"
    check_file(file)
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} is damaged ({error}); run the study again") from None


def _array(pixels: torch.Tensor) -> Any:
    """3 x S x S bytes as S x S x 3, enlarged without smoothing if it is tiny."""
    times = max(1, 96 // pixels.shape[-1])
    return pixels.repeat_interleave(times, 1).repeat_interleave(times, 2).permute(1, 2, 0).numpy()
