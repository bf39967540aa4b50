"""Finished batches of an attack, in memory or on the disk: what is kept of each, and all of them put together."""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightleak.attacks.reconstruction import Reconstruction, join, write
from lightleak.errors import StaleState, UserError
from lightleak.files import publish
from lightleak.fingerprint import deciding, fingerprint, versioned

MARK = "attack.json"  # in the folder: what its batches belong to


class Keeper:
    """What the finished batches of one run found; with a folder, a later run of the same finds them there.

    Batches are known by the searches in them (row = number of the class * searches + attempt), so a later run may
    have another batch size: what is done stays done, and only the rest is searched.
    """

    def __init__(self, folder: Path | None, of: tuple[Any, ...], keep: int, best_first: bool) -> None:
        self.folder = folder and Path(folder)
        self.keep, self.best_first = keep, best_first
        self.batches: dict[tuple[int, int], Reconstruction | Path] = {}
        self.resumed = False
        if self.folder is not None:
            self._open(self.folder, made_by(*of), said_of(*of))

    def _open(self, folder: Path, mark: str, said: dict[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        about = {"attack": mark, "said": said}
        try:
            before = json.loads((folder / MARK).read_text())
        except FileNotFoundError:
            before = about
        except ValueError:
            before = None
        if not isinstance(before, dict) or before.get("attack") != mark:
            raise StaleState(
                f"{folder} holds what another attack left{_differing(before, said)}; delete it, or take another place "
                "for this one"
            )
        publish(folder / MARK, lambda part: part.write_text(json.dumps(about)), "the attack's mark")
        for file in folder.glob("rows-*-*.safetensors"):
            first, last = file.stem.split("-")[1:]
            self.batches[int(first), int(last)] = file
        self.resumed = bool(self.batches)

    def missing(self, rows: slice) -> Iterator[slice]:
        """Those of the searches that are not finished, in pieces."""
        at = rows.start
        for first, last in [*sorted(self.batches), (rows.stop, rows.stop)]:
            if at < min(first, rows.stop):
                yield slice(at, min(first, rows.stop))
            at = max(at, last)

    def add(self, rows: slice, found: Reconstruction) -> None:
        """A finished batch."""
        if self.folder is None:
            self.batches[rows.start, rows.stop] = found
        else:
            path = self.folder / f"rows-{rows.start:08}-{rows.stop:08}.safetensors"
            self.batches[rows.start, rows.stop] = found.save(path)

    def together(self, classes: Tensor) -> Reconstruction:
        """Everything, classes in the order of `classes`; from a folder written piece by piece, read lazily."""
        if self.folder is None:
            return join(list(self._whole())).with_fields(asked=classes)
        path = self.folder / "found.safetensors"
        write(path, list(self._whole()))
        return Reconstruction.load(path).with_fields(asked=classes)

    def _whole(self) -> Iterator[Reconstruction]:
        """Batches with whole identities: those that share one are joined, and the best of it kept."""
        waiting: list[Reconstruction] = []
        for place in sorted(self.batches):
            batch = self.batches[place]
            found = _opened(batch) if isinstance(batch, Path) else batch
            if waiting and not _share(waiting, found):
                yield self._one(waiting)
                waiting = []
            waiting.append(found)
        if waiting:
            yield self._one(waiting)

    def _one(self, parts: list[Reconstruction]) -> Reconstruction:
        return (
            parts[0] if len(parts) == 1 else join(parts).without_repetition().kept_of_each(self.keep, self.best_first)
        )


def _opened(batch: Path) -> Reconstruction:
    try:
        return Reconstruction.load(batch)
    except UserError as error:
        raise StaleState(f"{error}; delete {batch} to have its searches done again") from error


def _share(parts: list[Reconstruction], other: Reconstruction) -> bool:
    """Whether a class of `other` is one of the parts' last."""
    last = parts[-1].asked
    return last is not None and other.asked is not None and bool(torch.isin(other.asked, last).any())


def said_of(attack: Any, seed: int, classes: Tensor, oracle: Any, prior: Any, knowledge: Any = None) -> dict[str, str]:
    """What of a run's arguments can be told in words, each in a few."""
    about = {"attack": versioned(attack), **deciding(attack), "seed": seed, "prior": type(prior).__name__}
    about |= {name: oracle.settings()[name] for name in ("access", "guard", "precision")}
    about |= {"classes": classes.tolist(), "knowledge": None if knowledge is None else type(knowledge).__name__}
    return {name: text if len(text := str(value)) <= 60 else f"{text[:57]}..." for name, value in about.items()}


def _differing(before: Any, now: dict[str, str]) -> str:
    """Which of the arguments are others, in brackets; the target or the prior, where none that can be told is."""
    said = before.get("said") if isinstance(before, dict) else None
    if not isinstance(said, dict):
        return ""
    others = [
        "another seed" if name == "seed" else f"{name} {said[name]}, now {value}"  # a seed is drawn from the user's
        for name, value in now.items()
        if said.get(name, value) != value
    ]
    return f" ({'; '.join(others[:3]) or 'of another target, prior, knowledge or classes'})"


def made_by(attack: Any, seed: int, classes: Tensor, oracle: Any, prior: Any, knowledge: Any = None) -> str:
    """A hash of all that decides what a run finds."""
    about = [versioned(attack), deciding(attack), seed, classes.tolist(), oracle.settings()]
    about += [type(prior).__name__, prior.settings()]
    # What was fitted or learnt beforehand, by its values: a guard's repr need not tell two fits apart.
    if oracle.guard is not None:
        about.append(fingerprint(vars(oracle.guard)))
    if knowledge is not None:
        students = [(one.mean, one.std, one.net.state_dict()) for one in knowledge.students]
        about.append(fingerprint(students, knowledge.mean, knowledge.spread, knowledge.named))
    digest = sha256(json.dumps(about, sort_keys=True, default=repr).encode())
    for weights in (oracle.state(), prior.state()):
        for name, value in sorted(weights.items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
