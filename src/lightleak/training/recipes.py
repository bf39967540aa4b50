"""How classifiers are trained: recipes as frozen dataclasses, the papers' ones by name."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from lightleak.data.views import View
from lightleak.errors import refuse
from lightleak.optimisers import fused

MOST_RATE = 1e30  # beyond it optimisers overflow before they diverge


@dataclass(frozen=True)
class Recipe:
    """Everything about training that is neither data, network, defence nor seed."""

    epochs: int = 100
    batch: int = 128
    least_steps: int = 0  # few images: an epoch is as many passes over them as make at least so many steps in all
    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    rate: float = 1e-3
    momentum: float = 0.9  # sgd only
    weight_decay: float = 0.0
    milestones: tuple[float, ...] = (0.75, 0.9)  # shares of the epochs after which the rate falls
    gamma: float = 0.1  # what the rate is multiplied by there
    cosine_to: float | None = None  # in place of milestones: the rate falls along a half cosine to this
    keep: Literal["best", "last"] = "best"  # which epoch counts: the best on validation images, or the last one
    view: View = field(
        default_factory=lambda: View(scale=(0.85, 1.0), flip=0.5, brightness=0.2, contrast=0.2, saturation=0.1, hue=0.1)
    )
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 where the device computes it faster

    def __post_init__(self) -> None:
        problems = []
        if self.epochs < 1:
            problems.append(f"epochs must be at least 1, not {self.epochs}")
        if self.batch < 2:
            problems.append(f"batch must be at least 2 (batch norm needs two images), not {self.batch}")
        if not 0 < self.rate <= MOST_RATE:
            problems.append(f"rate must be above 0 and at most {MOST_RATE:g}, not {self.rate}")
        if self.least_steps < 0:
            problems.append(f"least_steps must be at least 0, not {self.least_steps}")
        if not 0 <= self.momentum < 1:
            problems.append(f"momentum must lie in [0, 1), not {self.momentum}")
        if not 0 <= self.weight_decay < math.inf:
            problems.append(f"weight_decay must be at least 0, not {self.weight_decay}")
        if not 0 < self.gamma <= 1:
            problems.append(f"gamma must lie in (0, 1], not {self.gamma}")
        if any(not 0 < share < 1 for share in self.milestones):
            problems.append(f"milestones are shares of the epochs between 0 and 1, not {self.milestones}")
        if self.cosine_to is not None and not 0 <= self.cosine_to <= self.rate:
            problems.append(f"a cosine falls from the rate {self.rate} to 0 at the lowest, not to {self.cosine_to}")
        refuse(problems)

    def passes(self, images: int) -> int:
        """How often an epoch goes through so many images: once, unless they are too few for `least_steps`."""
        return max(1, math.ceil(self.least_steps / (self.epochs * max(1, images // self.batch))))

    def optimising(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimiser of `parameters`."""
        kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[self.optimiser]
        more = {"momentum": self.momentum} if self.optimiser == "sgd" else {}
        return fused(kind, parameters, lr=self.rate, weight_decay=self.weight_decay, **more)

    def rate_at(self, epoch: int) -> float:
        """The learning rate of an epoch (0-based)."""
        if self.cosine_to is not None:
            height = (1 + math.cos(math.pi * epoch / self.epochs)) / 2
            return self.cosine_to + (self.rate - self.cosine_to) * height
        falls = (max(1, round(share * self.epochs)) for share in self.milestones)  # never before the first epoch
        return self.rate * self.gamma ** sum(epoch >= fall for fall in falls)


RECIPES = {
    # Koh et al. (ECCV 2024), Tab. 12: 100 epochs of Adam, batches of 128, crops, colour jitter, mirrors.
    "rolss": Recipe(),
    # The same paper's IR-152 on the 64-pixel crops: SGD with KED-MI's weight decay, no schedule, mirrors only.
    "ir152": Recipe(batch=64, optimiser="sgd", rate=0.01, weight_decay=1e-4, milestones=(), view=View(flip=0.5)),
    # The judge of the same paper, an Inception-v3 at 299 pixels: as its targets, with one fall of the rate.
    "rolss-judge": Recipe(milestones=(0.8,)),
    # The judge of the 64-pixel attacks, an IR-50 at 112 pixels (KED-MI's recipe, also LOMMA's and PLG-MI's).
    "facenet112": Recipe(
        epochs=30, batch=64, optimiser="sgd", rate=0.01, weight_decay=1e-4, milestones=(), view=View(flip=0.5)
    ),
    # The student that learns from reconstructions alone (knowledge extraction score of PPA); its last epoch counts.
    "student": Recipe(
        epochs=75,
        batch=32,
        optimiser="sgd",
        rate=0.1,
        weight_decay=1e-4,
        milestones=(),
        cosine_to=1e-4,
        keep="last",
        view=View(scale=(0.8, 1.0), flip=0.5),
    ),
    # LoFt and CALoR (KDD 2026): as Koh et al.'s targets, in smaller batches.
    "loft": Recipe(batch=96),
    # Trap-MID (NeurIPS 2024), VGG-16 at 64 pixels: the defence brings its own crops, mirrors and turns.
    "trapmid": Recipe(epochs=50, batch=64, optimiser="sgd", rate=0.01, weight_decay=1e-4, milestones=(), view=View()),
    "trapmid-negls": Recipe(view=View()),
    # For small images on a CPU; sized so that a small ResNet reaches its plateau on a few dozen people.
    "small": Recipe(
        epochs=14, batch=32, milestones=(0.7, 0.9), view=View(scale=(0.85, 1.0), brightness=0.2, contrast=0.2)
    ),
    # A judge of the same people has several times as many images.
    "judge": Recipe(
        epochs=8,
        batch=32,
        rate=2e-3,
        milestones=(0.7, 0.9),
        view=View(scale=(0.85, 1.0), brightness=0.2, contrast=0.2),
    ),
}
