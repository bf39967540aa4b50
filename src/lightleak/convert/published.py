"""The former name of `lightleak.convert.formats`; it goes with the next release."""

from lightleak.renamed import former

NAMES = (
    "BACKBONE_112",
    "BACKBONE_64",
    "CONVNEXTS",
    "DENSENETS",
    "EFFICIENT",
    "FORMATS",
    "Format",
    "Hints",
    "NORMALISATIONS",
    "Normalisation",
    "Order",
    "PARTS",
    "PLAIN",
    "RESNESTS",
    "RESNETS",
    "STUDENTS",
    "SWINS",
    "TIMM_VITS",
    "VGGS",
    "VITS",
    "chosen_from",
    "classifier",
    "closest",
    "filled",
    "from_face",
    "from_zoo",
    "inception",
    "normalised",
)
__getattr__ = former(__name__, {name: f"lightleak.convert.formats:{name}" for name in NAMES})
