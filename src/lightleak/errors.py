"""The one kind of error a user's input may cause: a single line that says what to do."""

import difflib
from collections.abc import Iterable, Sequence


class UserError(ValueError):
    """Bad input, said in one line: what was expected, what came, what to do; the command line exits with 2."""


class StaleState(UserError):
    """What a stopped run left cannot be gone on from: it is damaged, or something else made it."""


def refuse(problems: Sequence[str]) -> None:
    """UserError that names all problems, if there are any."""
    if problems:
        raise UserError("; ".join(problems))


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: which known ones look like it, if any."""
    near = difflib.get_close_matches(name, list(known), 2, 0.7)
    return f"; did you mean {' or '.join(near)}?" if near else ""
