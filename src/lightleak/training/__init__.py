"""Training of one classifier on one device."""

from lightleak.training.loop import Batch, Plan, accuracy_and_loss, combine, cross_entropy, predict, train
from lightleak.training.recipes import RECIPES, Recipe

__all__ = [
    "RECIPES",
    "Batch",
    "Plan",
    "Recipe",
    "accuracy_and_loss",
    "combine",
    "cross_entropy",
    "predict",
    "train",
]
