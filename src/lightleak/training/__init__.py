"""Training of one classifier on one device."""

from lightleak.training.loop import (
    Batch,
    Companion,
    Mechanism,
    Moment,
    Plan,
    Term,
    Tuning,
    accuracy_and_loss,
    combine,
    cross_entropy,
    predict,
    train,
)
from lightleak.training.recipes import RECIPES, Recipe

__all__ = [
    "RECIPES",
    "Batch",
    "Companion",
    "Mechanism",
    "Moment",
    "Plan",
    "Recipe",
    "Term",
    "Tuning",
    "accuracy_and_loss",
    "combine",
    "cross_entropy",
    "predict",
    "train",
]
