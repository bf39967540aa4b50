"""The former name of `lightleak.data.collections`; it goes with the next release."""

from lightleak.renamed import former

NAMES = (
    "Collection",
    "FULL",
    "Picture",
    "RELATIVE",
    "Reading",
    "SUFFIXES",
    "Split",
    "folder",
    "population",
    "present",
    "public_only",
    "strangers",
    "tenth",
)
__getattr__ = former(__name__, {name: f"lightleak.data.collections:{name}" for name in NAMES})
