"""Training of one classifier on one device."""

from lightleak.renamed import former
from lightleak.training.loop import (
    Batch,
    CheckpointCriterion,
    Companion,
    Mechanism,
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
    "CheckpointCriterion",
    "Companion",
    "Mechanism",
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

__getattr__ = former(__name__, {"Moment": "lightleak.training:CheckpointCriterion"})
