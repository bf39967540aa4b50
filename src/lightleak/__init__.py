"""Lightleak: how much of its training images does a vision model give away, and how do we close the leak?"""

from lightleak import compat  # first: torchvision imports beside a CPU-only torch only after it
from lightleak import attacks, data, defences, metrics, models, priors, surgery, training  # isort: skip
from lightleak.attacks import ATTACKS, Oracle, Reconstruction
from lightleak.data import DATASETS
from lightleak.defences import DEFENCES
from lightleak.metrics.evaluate import Evaluation, evaluate
from lightleak.models.classifier import Classifier, load, save
from lightleak.priors import PRIORS
from lightleak.surgery import Skip, find_skips, fuse, remove_skips, scale_skips

__version__ = "0.1.0"
__all__ = [
    "ATTACKS",
    "DATASETS",
    "DEFENCES",
    "PRIORS",
    "Classifier",
    "Evaluation",
    "Oracle",
    "Reconstruction",
    "Skip",
    "attacks",
    "compat",
    "data",
    "defences",
    "evaluate",
    "find_skips",
    "fuse",
    "load",
    "metrics",
    "models",
    "priors",
    "remove_skips",
    "save",
    "scale_skips",
    "surgery",
    "training",
]
