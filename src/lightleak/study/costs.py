"""What a defence costs beside accuracy: times to train and to answer, and parameters, over the undefended network's."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from lightleak import defences, randomness
from lightleak.data.population import Images
from lightleak.defences import Defence
from lightleak.models.classifier import Classifier
from lightleak.models.zoo import build
from lightleak.study.task import Store, Task, Watch
from lightleak.study.tasks import Draw
from lightleak.training import RECIPES, Plan, Recipe, predict
from lightleak.training.loop import mechanism_of, one_epoch, optimiser_of, phases


@dataclass(frozen=True)
class Costs(Task):
    """The times of one defended network over those of the undefended one, measured in turn in one process.

    Training is timed by epochs of a few steps, for each part of the run (TTS has two) by its share of the epochs;
    public training that a defence begins with counts by its images. Only ratios of medians are kept.
    """

    population: Draw
    architecture: str = "timm:resnet18"
    recipe: Recipe = RECIPES["small"]
    defences: tuple[Defence, ...] = ()
    rounds: int = 7
    steps: int = 2  # of training in a round

    @property
    def label(self) -> str:
        return f"time {self.title}"

    @property
    def title(self) -> str:
        """The defences as a table names them."""
        return " + ".join(defences.title(defence) for defence in self.defences) or "no defence"

    @property
    def cost(self) -> float:
        return 10.0

    def run(self, store: Store, folder: Path, watch: Watch) -> dict[str, Any]:  # noqa: ARG002
        population = self.population.load(store)
        images = population.train.at(torch.arange(min(self.steps * self.recipe.batch, len(population.train))))
        with randomness.own(0):
            plain = build(self.architecture, population.classes, population.size)
        plan = defences.plan(self.defences, self.recipe)
        parts = phases(plain, plan, self.recipe)
        undefended = self.trainer(phases(plain, Plan(), self.recipe)[0][1], Plan(), images)
        defended = [self.trainer(network, plan, images) for _, network in parts]
        base, *times = in_turn([undefended, *defended], self.rounds, watch)
        training = sum(epochs * seconds for (epochs, _), seconds in zip(parts, times)) / self.recipe.epochs / base
        public = defences.pretraining(self.defences, self.recipe)
        if public:
            seen = public.epochs * 0.8 * len(population.public)  # a fifth of them chooses the epoch
            training += seen / (self.recipe.epochs * len(population.train))
        last = parts[-1][1]
        asked = [partial(predict, network, images) for network in (plain, last)]
        answers = in_turn(asked, self.rounds, watch)
        count = [sum(p.numel() for p in network.net.parameters()) for network in (plain, last)]
        return {
            "title": self.title,
            "population": self.population.key,
            "architecture": self.architecture,
            "training": training,
            "answering": answers[1] / answers[0],
            "parameters": count[1] / count[0],
        }

    def trainer(self, network: Classifier, plan: Plan, images: Images) -> Callable[[], object]:
        """One short epoch of training, to be timed."""
        optimiser = optimiser_of(network, self.recipe)
        mechanism = mechanism_of(plan, self.recipe, len(images))
        return lambda: one_epoch(network, optimiser, images, self.recipe, plan, mechanism, self.recipe.epochs - 1)


def in_turn(
    works: Sequence[Callable[[], object]],
    rounds: int,
    watch: Watch = lambda *_, **__: None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Median seconds of each of some works that take turns, after one round that does not count."""
    taken: list[list[float]] = [[] for _ in works]
    for turn in range(rounds + 1):
        for work, times in zip(works, taken):
            began = clock()
            work()
            times.append(clock() - began)
        watch(turn + 1, rounds + 1)
    return [median(times[1:]) for times in taken]
