"""The questions to each rater: pairs in a random order and on random sides, the same after a stop."""

import hashlib
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lightleak.errors import UserError
from lightleak.raters.answers import Answer, Answers
from lightleak.study.pairs import Pair

Side = Literal["left", "right"]
SECONDS = 60.0  # that a pair is shown (Koh et al., ECCV 2024, supplement 11)
GRACE = 3.0  # seconds that an answer may take to arrive
LONGEST = 40  # letters of a rater's name


@dataclass(frozen=True)
class Question:
    """A pair as one rater sees it."""

    pair: Pair
    place: int  # in this rater's order
    swapped: bool  # whether the second target's picture stands left

    def picture(self, what: str) -> Path | None:
        """The file of the picture `person`, `left` or `right`; None for any other name."""
        if what == "person":
            return self.pair.person
        sides = self.pair.pictures[::-1] if self.swapped else self.pair.pictures
        return {"left": sides[0], "right": sides[1]}.get(what)

    def chosen(self, side: Side) -> str:
        """The target whose picture is on that side."""
        return self.pair.targets[(side == "right") != self.swapped]


class Questions:
    """The pairs of a study, put to any number of raters."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        answers: Answers,
        seconds: float = SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not seconds > 0:
            raise UserError(f"a pair is shown for some seconds, not {seconds:g}")
        self.pairs, self.answers, self.seconds, self._clock = tuple(pairs), answers, seconds, clock
        self._shown: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def order(self, rater: str) -> list[Question]:
        """All questions of a rater, in that rater's order."""
        seed = hashlib.sha256("\0".join([rater, *(pair.name for pair in self.pairs)]).encode()).digest()
        rng = random.Random(seed)
        places = rng.sample(range(len(self.pairs)), len(self.pairs))
        return [Question(self.pairs[one], place, rng.random() < 0.5) for place, one in enumerate(places)]

    def next(self, rater: str) -> tuple[Question | None, float, int]:
        """The first pair that a rater has not answered, the seconds left for it, and how many are done.

        Its time begins when it is first asked for, and a reloaded page begins no new time.
        """
        done = self._done(rater)
        for question in self.order(rater):
            if question.pair.name not in done:
                return question, max(0.0, self.seconds - self._elapsed(rater, question)), len(done)
        return None, 0.0, len(done)

    def answer(self, rater: str, place: int, side: Side | None) -> bool:
        """Save an answer; False if that pair is answered already. A late one, or `side` None, counts as not in time."""
        order = self.order(rater)
        if not 0 <= place < len(order):
            raise UserError(f"there is no pair {place} of {len(order)}")
        question = order[place]
        elapsed = self._elapsed(rater, question)
        late = side is None or elapsed > self.seconds + GRACE
        return self.answers.add(
            Answer(
                rater,
                question.pair.name,
                None if late or side is None else question.chosen(side),
                None if late else side,
                round(min(elapsed, self.seconds), 2),
            )
        )

    def _done(self, rater: str) -> set[str]:
        names = {pair.name for pair in self.pairs}
        return {pair for who, pair in self.answers.read() if who == rater and pair in names}

    def _elapsed(self, rater: str, question: Question) -> float:
        with self._lock:
            return self._clock() - self._shown.setdefault((rater, question.pair.name), self._clock())


def named(text: str) -> str:
    """A rater's name or code as it is stored; UserError unless it is one line of letters."""
    name = " ".join(text.split())
    if not name or len(name) > LONGEST or not name.isprintable():
        raise UserError(f"expected a name or code of 1 to {LONGEST} letters, got {name[:LONGEST]!r}")
    return name
