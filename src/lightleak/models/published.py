"""The former name of `lightleak.models.weight_files`; it goes with the next release."""

from lightleak.renamed import former

NAMES = ("Weights", "read_tensors")
__getattr__ = former(__name__, {name: f"lightleak.models.weight_files:{name}" for name in NAMES})
