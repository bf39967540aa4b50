"""People asked which of two pictures shows somebody better: pairs of a study, a local page, and what they prefer."""

from lightleak.raters.answers import Answer, Answers
from lightleak.raters.preference import Preference, in_words, preference
from lightleak.raters.questions import Questions
from lightleak.raters.serving import Serving
from lightleak.raters.where import Asked, asked_of

__all__ = ["Answer", "Answers", "Asked", "Preference", "Questions", "Serving", "asked_of", "in_words", "preference"]
