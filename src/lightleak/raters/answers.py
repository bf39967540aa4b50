"""`answers.jsonl`: the answers of raters, one per line, each on disk before the next pair is shown."""

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightleak.errors import UserError
from lightleak.files import parsed

FILE = "answers.jsonl"


@dataclass(frozen=True)
class Answer:
    """The answer of one rater to one pair."""

    rater: str
    pair: str
    chosen: str | None  # the target whose picture was taken; None: no answer within the time
    side: str | None  # left or right, as the rater saw it
    seconds: float  # from when the pair was shown
    at: str = ""


class Answers:
    """The answers to one study, kept in a folder; if a rater answers a pair more than once, the first answer counts."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._lock = threading.Lock()

    def add(self, answer: Answer) -> bool:
        """Write an answer to disk; False if this rater has answered this pair already."""
        with self._lock:
            if (answer.rater, answer.pair) in self.read():
                return False
            line = json.dumps(
                asdict(answer) | {"at": answer.at or datetime.now(UTC).isoformat(timespec="seconds")},
                ensure_ascii=False,
            )
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("ab") as file:
                    torn = file.tell() and not _is_whole(self.path)  # a crash left half a line, which counts as none
                    file.write((("\n" if torn else "") + line + "\n").encode())
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise UserError(f"the answer cannot be written to {self.path}: {error.strerror or error}") from None
            return True

    def read(self) -> Mapping[tuple[str, str], Answer]:
        """The first answer by rater and pair; UserError if a complete line is not an answer."""
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise UserError(f"{self.path} cannot be read ({error.strerror or error})") from None
        found: dict[tuple[str, str], Answer] = {}
        lines = text.split(b"\n")
        for number, line in enumerate(lines, 1):
            answer = _answer(line)
            if answer is not None:
                found.setdefault((answer.rater, answer.pair), answer)
            elif line.strip() and number < len(lines) and not _torn(line):
                raise UserError(f"{self.path}, line {number} is no answer of a rater; take the line out")
        return found


def _answer(line: bytes) -> Answer | None:
    try:
        told: Any = parsed(line.decode())
        answer = Answer(**{name: told[name] for name in Answer.__dataclass_fields__})
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    texts = (answer.rater, answer.pair, answer.at)
    if not all(isinstance(text, str) for text in texts) or not isinstance(answer.chosen, str | None):
        return None
    return answer


def _torn(line: bytes) -> bool:
    """Whether this is the beginning of an answer that a crash cut off."""
    return line.startswith(b'{"rater"') and not line.rstrip().endswith(b"}")


def _is_whole(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
