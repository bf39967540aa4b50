"""User studies: a study's pairs of pictures, a local page that asks which shows a person better, and the preference."""

from lightleak.raters.answers import Answer, Answers
from lightleak.raters.preference import Preference, in_words, preference
from lightleak.raters.questions import Questions
from lightleak.raters.serving import Serving
from lightleak.raters.where import PairsToRate, pairs_to_rate
from lightleak.renamed import former

__all__ = [
    "Answer",
    "Answers",
    "PairsToRate",
    "Preference",
    "Questions",
    "Serving",
    "in_words",
    "pairs_to_rate",
    "preference",
]
__getattr__ = former(
    __name__,
    {"Asked": "lightleak.raters.where:PairsToRate", "asked_of": "lightleak.raters.where:pairs_to_rate"},
)
