"""Saving and loading classifiers: one safetensors file holds the weights and, in its header, the recipe."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lightleak.errors import UserError
from lightleak.files import publish
from lightleak.models import zoo
from lightleak.models.changes import CHANGES, ordered, replay
from lightleak.models.header import Header, read_header, read_recipe, text_of
from lightleak.models.weights import check_keys
from lightleak.models.wrap import FORMAT, Classifier, Penultimate

SPARE = 2**26  # values that a network may have beyond four times those of its file: layers that surgery has dropped


def save(classifier: Classifier, path: str | Path) -> Path:
    """Write weights and recipe into one safetensors file, whole or not at all."""
    # Some networks tie weights; safetensors wants every tensor to own its memory.
    state = classifier.net.state_dict()
    tensors = {name: value.detach().contiguous().clone().cpu() for name, value in state.items()}
    metadata = {"lightleak": text_of(classifier.recipe)}
    return publish(path, lambda part: save_file(tensors, part, metadata=metadata), "the checkpoint")


def load(path: str | Path, net: nn.Module | None = None) -> Classifier:
    """Rebuild a classifier from its checkpoint: same architecture, same surgery, exactly the stored weights.

    `net` is needed only for a network that was not built by name; it must be as it was before any surgery.
    Raises UserError that lists the differing keys if the file and the rebuilt network disagree. Nothing in the file
    is executed.
    """
    header = read_header(path)
    try:
        stored = _stored(path)
        result = _rebuilt(header, path, net, sum(value.numel() for value in stored.values()))
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError, RecursionError) as error:
        line = " ".join(str(error).split())[:160]
        raise UserError(f"the recipe in {path} is damaged: {type(error).__name__}: {line}") from error
    check_keys(result.net.state_dict(), stored, str(path))
    result.net.load_state_dict(stored)
    return result.eval()


def _stored(path: str | Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged: {' '.join(str(error).split())[:120]}") from None


def _rebuilt(header: Header, path: str | Path, net: nn.Module | None, values: int) -> Classifier:
    """The classifier as it was saved, with any weights."""
    if net is None:
        if header.architecture is None:
            made = f", made by {header.origin}: give that with --net, or pass" if header.origin else "; pass"
            raise UserError(f"{path} holds a network of your own{made} it as load(path, net=...)")
        net = _by_name(header, path, values)
    whole = Classifier(
        net,
        size=header.sides or header.size,
        classes=header.classes,
        architecture=header.architecture,
        mean=header.mean,
        std=header.std,
        class_names=header.class_names,
        record=header.record,
        changes=ordered(header.surgery, header.changes),
        reading=header.reading,
        origin=header.origin,
    )
    return whole.with_net(replay(whole.net, whole.changes, whole.example, str(path)))


def _by_name(header: Header, path: str | Path, values: int) -> nn.Module:
    """The zoo's network; nothing is allocated for one that is far larger than the file."""
    name = str(header.architecture)
    with torch.device("meta"):
        claimed = sum(value.numel() for value in zoo.build(name, header.classes, header.size).net.state_dict().values())
    if claimed > 4 * values + SPARE:
        raise UserError(
            f"{path} does not fit its architecture: {name} with {header.classes} classes has {claimed:,} values, "
            f"the file {values:,}"
        )
    return zoo.build(name, header.classes, header.size).net


__all__ = ["CHANGES", "FORMAT", "Classifier", "Penultimate", "check_keys", "load", "read_recipe", "save"]
