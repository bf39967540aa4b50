"""What a defence costs: time, memory, parameters; accuracy, also under attack; calibration."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightleak import defences, randomness
from lightleak.data.population import Images
from lightleak.defences import Defence
from lightleak.metrics.calibration import calibration
from lightleak.metrics.robustness import robust_accuracy
from lightleak.models.classifier import Classifier
from lightleak.models.zoo import build
from lightleak.ranking import answers
from lightleak.study.task import Progress, Store, Task
from lightleak.study.tasks import Draw, Target, people, run_of
from lightleak.study.tasks.work import named, short
from lightleak.training import RECIPES, Plan, Recipe, predict
from lightleak.training.loop import mechanism_of, one_epoch, optimiser_of, phases


@dataclass(frozen=True)
class Costs(Task):
    """The times of one defended network over those of the undefended one, measured in turn in one process.

    Training is timed by epochs of a few steps, for each part of the run (TTS has two) by its share of the epochs;
    public training that a defence begins with counts by its images. Only ratios of medians are kept.
    """

    gpus = 1.0
    population: Draw
    architecture: str = "timm:resnet18"
    recipe: Recipe = RECIPES["small"]
    defences: tuple[Defence, ...] = ()
    rounds: int = 7
    steps: int = 2  # of training in a round

    @property
    def label(self) -> str:
        return f"time {short(self.architecture)} ({self.title})"

    @property
    def title(self) -> str:
        """The defences as a table names them."""
        return " + ".join(defences.title(defence) for defence in self.defences) or "no defence"

    @property
    def cost(self) -> float:
        return 10.0

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:  # noqa: ARG002
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
        private = len(population.train)
        if public:  # a fifth of the public images chooses the epoch
            training += shown(public, round(0.8 * len(population.public))) / shown(self.recipe, private)
        # Tuning goes on by plain steps.
        training += sum(shown(tuning.recipe, private) for tuning in plan.tuning) / shown(self.recipe, private)
        last = parts[-1][1]
        asked = [partial(predict, network, images) for network in (plain, last)]
        answered = in_turn(asked, self.rounds, watch)
        plainly = phases(plain, Plan(), self.recipe)[0][1]
        base_memory = self.memory(plainly, Plan(), images)
        memory = max(self.memory(network, plan, images) for _, network in parts) / base_memory
        count = [sum(p.numel() for p in network.net.parameters()) for network in (plain, last)]
        return {
            "title": self.title,
            "population": self.population.key,
            "architecture": self.architecture,
            "training": training,
            "answering": answered[1] / answered[0],
            "parameters": count[1] / count[0],
            "memory": memory,
        }

    def trainer(self, network: Classifier, plan: Plan, images: Images) -> Callable[[], object]:
        """One short epoch of training, to be timed."""
        optimiser = optimiser_of(network, self.recipe)
        mechanism = mechanism_of(plan, self.recipe, len(images))
        with randomness.own(0, network.device):
            companion = plan.companion(network) if plan.companion else None
        last = self.recipe.epochs - 1
        return lambda: one_epoch(network, optimiser, images, self.recipe, plan, mechanism, last, companion=companion)

    def memory(self, network: Classifier, plan: Plan, images: Images) -> int:
        """Bytes that training needs at most: weights, their gradients, and what a step keeps for them."""
        weights = sum(p.nbytes for p in network.parameters())
        return 2 * weights + kept(self.trainer(network, plan, images), {id(p) for p in network.parameters()})


@dataclass(frozen=True)
class Utility(Task):
    """What a trained target is worth to its users: accuracy, robust accuracy, calibration."""

    gpus = 1.0
    version: ClassVar[int] = 2  # 1 began robust accuracy's descent elsewhere
    target: Target

    @property
    def label(self) -> str:
        return f"utility of {named(self.target)}"

    @property
    def cost(self) -> float:
        return 3.0

    def needs(self) -> tuple[Task, ...]:
        """Its target, the run that this comes from, and the people."""
        return (*super().needs(), run_of(self.target), self.target.population)

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:  # noqa: ARG002
        target = self.target.load(store)
        _, _, test = people(self.target.population.load(store), self.target.people)
        logits, labels = predict(target, test), test.labels.cpu()
        error, over = calibration(logits, labels)
        return {
            "title": self.target.title,
            "population": self.target.population.key,
            "architecture": self.target.architecture,
            "accuracy": float((answers(logits) == labels).double().mean()),
            "robust": robust_accuracy(target, test),
            "calibration": error,
            "overconfidence": over,
        }


def shown(recipe: Recipe, images: int) -> int:
    """How many images a training on so many shows its network, all epochs together."""
    return recipe.epochs * recipe.passes(images) * images


def kept(work: Callable[[], object], apart: set[int]) -> int:
    """Bytes of the tensors that a function keeps for its gradients at one time, except those with these ids."""
    now, most = 0, 0
    seen: dict[int, int] = {}  # how often each memory is held

    class Held:
        def __init__(self, tensor: Tensor) -> None:
            nonlocal now, most
            self.tensor, self.place = tensor, tensor.untyped_storage().data_ptr()
            self.size = 0 if id(tensor) in apart else tensor.untyped_storage().nbytes()
            if not seen.get(self.place):
                now += self.size
                most = max(most, now)
            seen[self.place] = seen.get(self.place, 0) + 1

        def __del__(self) -> None:
            nonlocal now
            seen[self.place] -= 1
            if not seen[self.place]:
                now -= self.size

    with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
        work()
    return most


def in_turn(
    works: Sequence[Callable[[], object]],
    rounds: int,
    watch: Progress = lambda *_, **__: None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Median seconds of each of several functions that take turns, after one round that is not counted."""
    taken: list[list[float]] = [[] for _ in works]
    for turn in range(rounds + 1):
        for work, times in zip(works, taken):
            began = clock()
            work()
            times.append(clock() - began)
        watch(turn + 1, rounds + 1)
    return [median(times[1:]) for times in taken]
