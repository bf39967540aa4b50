"""A call that is sent to a process which has not loaded the study's file, and its execution there."""

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

from lightleak.study.pool import limit_threads, load_modules
from lightleak.study.task import Store, Task

SWEPT: set[Path] = set()  # stores in which this process looked for what dead processes of its machine left


@dataclass(frozen=True)
class Payload:
    """A function and its arguments, with the text of the study files whose classes they are made of."""

    files: Mapping[str, tuple[str, str]]  # module name: path, text
    content: bytes
    threads: int


def pack(files: Mapping[str, Path], threads: int, function: Callable, *arguments: Any) -> Payload:
    """The payload of `function(*arguments)`; the files are read now, so that all machines run the same text."""
    texts = {name: (str(path), path.read_text()) for name, path in files.items()}
    return Payload(texts, bytes(ForkingPickler.dumps((function, *arguments))), threads)


def perform(payload: Payload) -> Any:
    """Make the call in this process."""
    limit_threads(payload.threads)
    load_modules({name: (Path(path), text) for name, (path, text) in payload.files.items()})
    function, *arguments = ForkingPickler.loads(payload.content)  # pyright: ignore[reportAttributeAccessIssue]
    for store in arguments:
        if isinstance(store, Store) and store.root not in SWEPT:
            SWEPT.add(store.root)
            store.sweep()
    return function(*arguments)


class Cluster(Executor):
    """An executor whose processes run elsewhere and share only the store's folder."""

    files: Mapping[str, Path]

    def slots(self) -> int:
        """How many tasks it can run at a time, as far as is known."""
        raise NotImplementedError

    def payload(self, function: Callable, task: Task, *arguments: Any) -> Payload:
        """The call, ready to be sent."""
        return pack(self.files, max(1, int(task.cpus)), function, task, *arguments)
