"""Shared settings and the smallest world in which everything happens."""

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from torch import nn

from lightleak.data import faces
from lightleak.data.views import View
from lightleak.models.classifier import Classifier
from lightleak.training import Recipe, train

torch.set_num_threads(1)
# Where the suite runs in the background Ctrl-C is ignored, and so it would be in the processes that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Files that take long begin first, or one process would still be at work on them when the other has nothing left.
LONG = ("test_contract", "test_cli", "test_startup", "test_lowres_attacks", "test_audit", "test_surgery_zoo",
        "test_cluster", "test_rehearsal")  # fmt: skip


def pytest_collection_modifyitems(items):
    """Long files first; tests that need a card are skipped, with the reason, where there is none."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="torch sees no CUDA card here"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test reads or writes the cache of the person who runs it."""
    monkeypatch.setenv("LIGHTLEAK_CACHE", str(tmp_path / "cache"))


class TinyNet(nn.Module):
    """Three convolutions, one residual block: enough to tell six painted people apart."""

    def __init__(self, classes: int = 6, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 2, 1)
        self.first = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.BatchNorm2d(2 * width), nn.ReLU())
        self.third = nn.Sequential(nn.Conv2d(2 * width, 2 * width, 3, 1, 1), nn.BatchNorm2d(2 * width), nn.ReLU())
        self.head = nn.Linear(2 * width * 16, classes)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = x + self.first(x)
        x = self.second(x)
        x = x + self.third(x)
        return self.head(nn.functional.adaptive_avg_pool2d(x, 4).flatten(1))


TINY = Recipe(epochs=24, batch=16, rate=3e-3, milestones=(0.8,), view=View(scale=(0.9, 1.0)), precision="float32")


@pytest.fixture(scope="session")
def tiny_population():
    """Six people of 32 x 32 pixels who look quite different."""
    return faces.population(
        people=6,
        images=12,
        size=32,
        strength=0.5,
        noise=0.02,
        public_people=8,
        public_images=4,
        judge_images=12,
        validation_images=3,
        test_images=6,
    )


def tiny_classifier(classes: int = 6, seed: int = 0) -> Classifier:
    """An untrained TinyNet as a Classifier."""
    torch.manual_seed(seed)
    return Classifier(TinyNet(classes), size=32, classes=classes)


@pytest.fixture(scope="session")
def tiny_target(tiny_population):
    """A trained classifier of the six people."""
    return train(tiny_classifier(), tiny_population.train, tiny_population.validation, TINY)


@pytest.fixture(scope="session")
def tiny_judge(tiny_population):
    """Another one, from other images and another start."""
    return train(tiny_classifier(seed=7), tiny_population.judge, tiny_population.validation, TINY, seed=7)
