"""Training of one classifier on one device."""

from lightleak.training.loop import (
    Batch,
    Mechanism,
    Moment,
    Plan,
    Term,
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
    "Mechanism",
    "Moment",
    "Plan",
    "Recipe",
    "Term",
    "accuracy_and_loss",
    "combine",
    "cross_entropy",
    "predict",
    "train",
]
