"""Lightleak: how much of its training images does a vision model give away, and how do we close the leak?"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lightleak import compat
from lightleak.version import __version__ as __version__

if TYPE_CHECKING:
    from lightleak import attacks, data, defences, metrics, models, priors, surgery, training
    from lightleak.attacks import ATTACKS, Oracle, Reconstruction
    from lightleak.data import DATASETS
    from lightleak.defences import DEFENCES
    from lightleak.defences.retrofit import protect
    from lightleak.metrics.evaluate import Evaluation, evaluate
    from lightleak.models.classifier import Classifier, load, save
    from lightleak.priors import PRIORS
    from lightleak.surgery import Skip, find_skips, fuse, remove_skips, scale_skips

# Where each public name lives. They are imported on first use: a worker that needs the study engine alone should not
# wait for the model zoos.
_HOMES = {
    "attacks": ("ATTACKS", "Oracle", "Reconstruction"),
    "data": ("DATASETS",),
    "defences": ("DEFENCES",),
    "defences.retrofit": ("protect",),
    "metrics": (),
    "metrics.evaluate": ("Evaluation", "evaluate"),
    "models": (),
    "models.classifier": ("Classifier", "load", "save"),
    "priors": ("PRIORS",),
    "surgery": ("Skip", "find_skips", "fuse", "remove_skips", "scale_skips"),
    "training": (),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

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
    "protect",
    "remove_skips",
    "save",
    "scale_skips",
    "surgery",
    "training",
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(f"lightleak.{_HOME_OF[name]}"), name)
    if name in _HOMES:
        return import_module(f"lightleak.{name}")
    raise AttributeError(f"lightleak has no {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
