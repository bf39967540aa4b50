"""The state of a study, read from its store, whether it is running or not."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightleak.study.run import Schedule, schedule
from lightleak.study.task import Store, Task, with_needs


@dataclass(frozen=True)
class Failed:
    """A task whose last try failed."""

    task: Task
    error: str  # one line
    file: Path  # with the traceback


@dataclass(frozen=True)
class AtWork:
    """A task that a process is working on, by its last report."""

    label: str
    machine: str
    seconds: float  # since it began
    silent: float  # seconds since it was heard of
    share: float | None = None  # done, where it says so


@dataclass(frozen=True)
class Status:
    """Which tasks are done, running, failed and still to do."""

    plan: Schedule
    done: tuple[Task, ...]  # all that is finished, also what finished tasks needed
    at_work: tuple[AtWork, ...]
    failed: tuple[Failed, ...]

    def kinds(self) -> dict[str, dict[str, int]]:
        """By class of task, how many are done, failed and to do (failed ones not counted)."""
        failed = {one.task.key for one in self.failed}
        todo = [task for task in self.plan.todo if task.key not in failed]
        counts: dict[str, dict[str, int]] = {}
        for name, tasks in (("done", self.done), ("failed", [one.task for one in self.failed]), ("to do", todo)):
            for task in tasks:
                kind = counts.setdefault(task.name, {"done": 0, "failed": 0, "to do": 0})
                kind[name] += 1
        return counts


def status(tasks: Iterable[Task], store: Store) -> Status:
    """The state of a study; changes nothing."""
    tasks = list(tasks)
    todo = schedule(tasks, store)
    seen = with_needs(tasks)
    failed = [
        Failed(t, _last_line(store.failure(t)), store.failure(t)) for t in todo.todo if store.failure(t).is_file()
    ]
    return Status(
        todo,
        tuple(t for t in seen if store.folder(t).is_dir() and not store.damaged(t, thorough=False)),
        tuple(_at_work(note) for note in store.at_work().values()),
        tuple(failed),
    )


def _at_work(note: Mapping[str, Any]) -> AtWork:
    now, steps = time.time(), note.get("total")
    share = min(note["step"] / steps, 1.0) if steps else None
    return AtWork(note["label"], note["machine"], max(now - note["since"], 0), max(now - note["seen"], 0), share)


def _last_line(file: Path) -> str:
    try:
        lines = [line for line in file.read_text().splitlines() if line.strip()]
    except OSError:
        return ""
    return lines[-1].strip() if lines else ""
