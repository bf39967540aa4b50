"""What must survive an interrupted training: weights, optimiser, best weights, history, and what they were made by."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lightleak.errors import StaleState
from lightleak.files import check_folder, publish
from lightleak.fingerprint import check_made
from lightleak.models.classifier import Classifier
from lightleak.ranking import beats

PARTS = ("net", "best", "optimiser", "companion", "beside")
WORST = (float("nan"), float("nan"))  # which every number beats


class State:
    """One training in progress; with a folder it is saved there after every epoch, and found again.

    `made` says what decides the result, by name. A folder that other things made is refused.
    """

    def __init__(self, folder: Path | None, made: dict[str, str]) -> None:
        self.folder, self.made = folder, made
        self.epoch = 0
        self.best: dict[str, Tensor] = {}
        self.companion: dict[str, Tensor] = {}  # what was trained beside the network
        self.beside: dict[str, Tensor] = {}  # that of the best epoch
        self.best_score: tuple[float, float] = WORST  # validation accuracy, minus validation loss
        self.best_epoch = 0
        self.history: list[dict[str, float]] = []
        self.before = 0.0  # seconds of earlier runs
        self.began = time.monotonic()
        if folder is not None:
            check_folder(folder, "the training state")
            summary = self._summary()
            self.epoch = int(summary["epoch"]) if summary else 0

    @property
    def seconds(self) -> float:
        """What the training took until now, all runs together."""
        return self.before + time.monotonic() - self.began

    def consider(
        self,
        epoch: int,
        score: tuple[float, float],
        classifier: Classifier,
        last: bool,
        companion: dict[str, Tensor] | None = None,
    ) -> None:
        """Keep the network of an epoch if its score is the best, or if the last one counts and the score is one."""
        if beats(score, WORST if last else self.best_score):
            self.best_score, self.best_epoch = score, epoch
            self.best = {name: value.detach().clone() for name, value in classifier.net.state_dict().items()}
            self.beside = {name: value.detach().clone() for name, value in (companion or {}).items()}

    def forget(self) -> None:
        """Forget the best epoch: only later ones may be chosen."""
        self.best, self.best_score = {}, WORST

    def store(
        self, classifier: Classifier, optimiser: torch.optim.Optimizer, companion: dict[str, Tensor] | None = None
    ) -> None:
        """Keep everything in the folder, whole or not at all; without a folder, nothing."""
        if self.folder is None:
            return
        tensors = {f"net.{name}": value for name, value in classifier.net.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        tensors |= {f"companion.{name}": value for name, value in (companion or {}).items()}
        tensors |= {f"beside.{name}": value for name, value in self.beside.items()}
        for index, values in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": torch.as_tensor(value) for name, value in values.items()}
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        weights = f"epoch-{self.epoch}.safetensors"
        summary: dict[str, Any] = {
            "made": self.made,
            "epoch": self.epoch,
            "best_score": self.best_score if self.best else None,
            "best_epoch": self.best_epoch,
            "history": self.history,
            "seconds": self.seconds,
            "weights": weights,
        }
        # The weights of this epoch lie whole on the disk before the one file that names them is exchanged.
        publish(self.folder / weights, lambda part: save_file(tensors, part), "the training state")
        publish(self.folder / "epoch.json", lambda part: part.write_text(json.dumps(summary)), "the training state")
        for stale in self.folder.glob("epoch-*.safetensors"):
            if stale.name != weights:
                stale.unlink(missing_ok=True)

    def restore(self, classifier: Classifier, optimiser: torch.optim.Optimizer) -> None:
        """Continue where the training in the folder stopped, with a network and an optimiser built as they were."""
        summary = self._summary()
        if self.folder is None or summary is None:
            return
        try:
            tensors = load_file(self.folder / summary["weights"])
            part: dict[str, dict[str, Tensor]] = {kind: {} for kind in PARTS}
            for name, value in tensors.items():
                kind, _, rest = name.partition(".")
                part[kind][rest] = value
            classifier.net.load_state_dict(part["net"])
            states: dict[int, dict[str, Tensor]] = {}
            for name, value in part["optimiser"].items():
                index, _, key = name.partition(".")
                states.setdefault(int(index), {})[key] = value
            optimiser.load_state_dict({"state": states, "param_groups": optimiser.state_dict()["param_groups"]})
            self.companion, self.beside = part["companion"], part["beside"]
            self.best, self.best_epoch = part["best"], int(summary["best_epoch"])
            self.best_score = tuple(summary["best_score"]) if self.best else WORST
            self.history, self.before = summary["history"], float(summary["seconds"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise self._damaged(error) from error

    def _summary(self) -> dict[str, Any] | None:
        """What the folder says of the training in it, checked to be of this one; None where there is none."""
        file = None if self.folder is None else self.folder / "epoch.json"
        if file is None or not file.is_file():
            return None
        try:
            summary = json.loads(file.read_text())
            if not isinstance(summary, dict) or not isinstance(summary["epoch"], int) or "weights" not in summary:
                raise ValueError("epoch.json does not say which epoch")
        except (OSError, ValueError, KeyError, RecursionError) as error:
            raise self._damaged(error) from error
        check_made(summary.get("made"), self.made, file.parent)
        return summary

    def _damaged(self, error: Exception) -> StaleState:
        line = " ".join(str(error).split())[:160]
        return StaleState(f"the stored training state in {self.folder} is damaged ({line}); delete that folder")
