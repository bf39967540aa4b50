"""How much of the gradient that an attacker reads runs through the skips of a target (Koh et al., ECCV 2024, Eq. 2)."""

from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, ClassVar

import torch

from lightleak.metrics.gradients import gradient_shares
from lightleak.models.zoo import build
from lightleak.study.task import Progress, Store, Task
from lightleak.study.tasks import Target, run_of
from lightleak.study.tasks.work import named
from lightleak.surgery import find_skips


@dataclass(frozen=True)
class GradientShares(Task):
    """For each stage of a trained target, the share of the gradient that came through shortcuts, on test images."""

    known_as: ClassVar[str] = "Shares"  # in keys
    gpus = 1.0
    target: Target
    images: int = 64

    def needs(self) -> tuple[Task, ...]:
        """The target, the run that it lies in, and its population."""
        return (*super().needs(), run_of(self.target), self.target.population)

    @property
    def label(self) -> str:
        return f"gradient shares of {named(self.target)}"

    @property
    def cost(self) -> float:
        return 5.0

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:  # noqa: ARG002
        classifier = self.target.load(store).eval()
        population = self.target.population.load(store)
        spread = torch.linspace(0, len(population.test) - 1, min(self.images, len(population.test))).long()
        images, labels = population.test.floats(spread, classifier.device), population.test.labels[spread]
        shares = {row.skip: row.share for row in gradient_shares(classifier.net, classifier.prepared(images), labels)}
        # A cut network is seen with the stages of the whole one; a skip that is gone carries nothing.
        whole = build(self.target.architecture, classifier.classes, classifier.size)
        stages: dict[int, list[float]] = {}
        for skip in find_skips(whole.net, whole.example):
            stages.setdefault(skip.stage, []).append(shares.get(skip.name, 0.0))
        return {
            "title": self.target.title,
            "architecture": self.target.architecture,
            "population": self.target.population.key,
            "seed": self.target.seed,
            "stages": {str(stage): mean(each) for stage, each in sorted(stages.items())},
            "skips": shares,
        }
