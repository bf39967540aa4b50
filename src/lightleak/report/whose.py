"""Of whom a number speaks: how many people a target knows, were attacked, were answered for and have test images.

Every sentence with a share of people is made here of a part, its whole and whose it is, so that none is said of others.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """So many of so many, and what they are."""

    part: float
    whole: float
    whose: str  # "people attacked"

    @property
    def value(self) -> float:
        """The share itself."""
        return self.part / self.whole

    def __str__(self) -> str:
        return f"{percent(self.value)} of {self.whose}"


@dataclass(frozen=True)
class OfWhom:
    """The people of a row; of several trainings means, of several worlds all of them together."""

    known: int  # by the target: it was trained on their images
    attacked: int
    answered: float  # of whom any image came back
    tested: int  # who have a natural accuracy in every training
    paired: int  # who were attacked and have one

    def of_attacked(self, share: float) -> Share:
        """What is `share` of the people attacked, where those of whom nothing came back count as not found."""
        return Share(share * self.attacked, self.attacked, f"all {self.attacked} people attacked")

    def of_answered(self, share: float) -> Share:
        """The same as a share of what came back."""
        return Share(share * self.attacked, self.answered, "what was reconstructed")

    @property
    def unanswered(self) -> str:
        """Of how many people nothing came back, in words; empty if that is nobody."""
        missing = self.attacked - self.answered
        told = f"of {missing:.3g} of {self.attacked} people nothing came back; shares count them as not found"
        return told if missing else ""

    @property
    def some_attacked(self) -> str:
        """That not all were attacked, in words; empty if all were."""
        told = f"leaks are of the {self.attacked} people who were attacked, of the {self.known} whom a target knows"
        return told if self.attacked < self.known else ""

    @property
    def some_tested(self) -> str:
        """That natural accuracy is not of all whom a target knows, in words; empty if it is."""
        if not self.tested:
            return "natural accuracy is of all test images: this older record does not say whose they are"
        without = self.known - self.tested
        told = f"natural accuracy is of {self.tested} of {self.known} people: {without} have no test images"
        return told if self.tested < self.known else ""

    @property
    def some_paired(self) -> str:
        """That not all have both numbers, in words; empty if all have."""
        told = (
            f"Delta and all that is read at equal natural accuracy are of the {self.paired} people who were "
            "attacked and have test images"
        )
        return told if self.tested and self.paired < max(self.attacked, self.tested) else ""


def percent(value: float) -> str:
    """A share as sentences write it."""
    return f"{100 * value:.0f} %" if value >= 0.095 else f"{100 * value:.1f} %"
