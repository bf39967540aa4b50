"""Run tasks in the order of their dependencies, here or on any executor; finished tasks are not run again."""

import heapq
import json
import os
import queue
import shutil
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

from lightleak.errors import StaleState, UserError
from lightleak.place import Place, cards, choose
from lightleak.study.loading import one_line, study_files
from lightleak.study.pool import Inline, Pool, WorkerDied, share_of_cores
from lightleak.study.task import ABSENT, Absent, Progress, Store, Task, plain

REMEMBERED = 20  # earlier results of a class that an estimate looks at
LOOK = 1.0  # seconds between looks at what tasks say of themselves through the store


@dataclass(frozen=True)
class Schedule:
    """What a run would do."""

    todo: tuple[Task, ...]  # needs come first
    done: tuple[Task, ...]  # found finished
    seconds: Mapping[str, float | None]  # expected, by key; None where nothing is known
    sizes: Mapping[str, float | None] = field(default_factory=dict)  # expected bytes on disk, likewise
    damaged: Mapping[str, str] = field(default_factory=dict)  # by key, what is wrong with results to be made anew

    def bytes(self) -> float | None:
        """Expected bytes of what is not done, None if nothing is known about any task."""
        known = [self.sizes[task.key] for task in self.todo if self.sizes.get(task.key) is not None]
        return None if self.todo and not known else float(sum(size for size in known if size))

    def total(self, workers: int = 1) -> float | None:
        """Expected seconds on so many workers, None if nothing is known about any task."""
        known = [seconds for seconds in self.seconds.values() if seconds is not None]
        if self.todo and not known:
            return None
        ahead = _seconds_ahead(self.todo, self.seconds)
        return max([sum(self.seconds[task.key] or 0 for task in self.todo) / max(workers, 1), *ahead.values()])


@dataclass(frozen=True)
class Event:
    """What a run reports to its listener."""

    kind: Literal["reused", "started", "progress", "finished", "failed", "blocked", "damaged"]
    task: Task
    done: int  # tasks of this run that are finished, reused ones included
    total: int  # tasks of this run
    left: float | None = None  # expected seconds until the run ends
    step: int = 0
    steps: int | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)  # what the task reports of itself
    seconds: float | None = None  # a finished task's
    error: str = ""  # one line, of a failed or damaged task


@dataclass(frozen=True)
class Failure:
    """A task that failed, why, and what could not run because of it."""

    task: Task
    error: str  # one line
    file: Path  # with the traceback
    blocked: tuple[Task, ...] = ()


Listener = Callable[[Event], None]


def run(
    tasks: Iterable[Task],
    store: Store,
    *,
    workers: int = 1,
    executor: Executor | None = None,
    listen: Listener | None = None,
    retries: int = 1,
    split: bool = True,
    device: str = "auto",
) -> dict[str, Failure]:
    """Finish `tasks` and all they need; returns the failures by key.

    workers: processes on this machine; 1 (or 0) runs everything in this process. executor: any executor that
    can reach the store; it gets `execute(task, store)` as soon as a task's needs are there, and is not shut down;
    if it has a method `slots()`, it gets no more tasks at a time than that. listen: called in this thread with
    every Event. retries: how often a task may start again after its process died. split: where fewer tasks can be
    cut into parts than there are workers, cut them; results and keys stay the same. device: where tasks compute, such
    as "cuda"; several cards are shared out among the workers, and on a cluster each worker uses what it was given. A
    task that raises stops only those that need it. Ctrl-C stops all at once; nothing half-done is published.
    """
    store.open()
    slots: Callable[[], int] | None = getattr(executor, "slots", None)
    workers = max(slots() if slots else workers, 1)
    todo = schedule(tasks, store, workers if split else 1)
    inbox: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    state = _State(todo, store, workers, listen or _ignore)
    here = threading.get_ident()

    def report(task: Task, step: int, steps: int | None, numbers: Mapping[str, float]) -> None:
        if threading.get_ident() == here:
            state.progress(task, step, steps, numbers)
        else:
            inbox.put(("progress", (task, step, steps, numbers)))

    inside: Executor | None = None
    shared: list[str] = []
    if executor is None:
        threads = share_of_cores(workers)
        shared = cards(device)
        if not shared:
            choose(device)  # one line now, not one for each task
        inside = Inline(report) if workers <= 1 else Pool(workers, report, threads, study_files(), shared)
    at_once = len(todo.todo) if executor is not None and slots is None else workers
    looked = time.monotonic()
    running: dict[Future, Task] = {}
    try:
        while state.ready or running:
            while state.ready and len(running) < at_once:
                task = state.start()
                where = _device_of(task, device, shared, executor is not None)
                future = (executor or inside).submit(partial(execute, device=where), task, store)  # pyright: ignore
                running[future] = task
                future.add_done_callback(lambda future: inbox.put(("ended", future)))
            if executor is not None and time.monotonic() - looked > LOOK:  # what runs elsewhere tells the store
                looked = time.monotonic()
                state.look()
                at_once = max(slots(), 1) if slots else at_once  # a cluster grows and shrinks
            try:
                kind, content = inbox.get(timeout=None if executor is None else LOOK)
            except queue.Empty:
                continue
            if kind == "progress":
                state.progress(*content)
                continue
            task = running.pop(content)
            try:
                outcome = content.result()
            except WorkerDied as death:
                if state.again(task, retries):
                    continue
                outcome = Outcome(0.0, f"{death}, {retries + 1} times; with fewer workers each has more memory")
                store.fail(task, outcome.error)
            except Exception as error:
                outcome = Outcome(0.0, one_line(error))
                store.fail(task, traceback.format_exc())
            state.end(task, outcome)
    finally:
        if inside is not None:
            inside.shutdown()
        elif running:
            for future in running:
                future.cancel()
        store.sweep()
    return state.failures


@dataclass(frozen=True)
class Outcome:
    """How one task ended, in a form that travels between any two processes."""

    seconds: float
    error: str = ""


def _device_of(task: Task, device: str, shared: list[str], elsewhere: bool) -> str:
    """The device that a worker is told: of several cards it sees its own alone, on a cluster the one it was given.

    A cluster may show a worker cards that it was not given: whoever asked for none computes on the processor.
    """
    kind = device.partition(":")[0]
    if elsewhere:
        return kind if task.gpus else "cpu"
    return "cuda" if len(shared) > 1 else device


def execute(task: Task, store: Store, watch: Progress | None = None, device: str = "auto") -> Outcome:
    """Run one task on a device, in a folder of its own, and publish it; the store keeps the traceback if it raises."""
    if store.done(task):
        return Outcome(0.0)
    folder, result, place = None, None, Place()
    started = time.perf_counter()
    note = _Note(store, task, watch or _ignore)
    try:
        folder = store.begin(task)
        place = choose(device)
        with place.entered():
            result = _result(task, store, folder, note.watch)
            seconds = time.perf_counter() - started
            store.publish(task, folder, result, seconds)
        return Outcome(seconds)
    except Exception as error:
        if store.done(task):  # another process finished it, and took the scratch folder with it
            return Outcome(0.0)
        store.fail(task, traceback.format_exc())
        return Outcome(time.perf_counter() - started, one_line(error))
    finally:
        note.file.unlink(missing_ok=True)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        result = None  # it may hold tensors of the card
        place.tidy()


def _result(task: Task, store: Store, folder: Path, watch: Progress) -> Mapping[str, Any]:
    """What the task returns; that it is absent, and why, where the data do not allow it or what it needs."""
    spared = {need.key for need in task.spare()}
    missing = (store.absent(need) for need in task.needs() if need.key not in spared)
    if why := next(filter(None, missing), None):
        return {ABSENT: why}
    try:
        try:
            return task.run(store, folder, watch)
        except StaleState:  # a study's scratch folder is nobody's work but its own: what is of no use goes
            store.forget(task)
            for left in folder.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            return task.run(store, folder, watch)
    except Absent as reason:
        return {ABSENT: str(reason)}


class _Note:
    """Passes a task's progress on, and leaves it in the store for those who look from elsewhere."""

    def __init__(self, store: Store, task: Task, watch: Progress) -> None:
        self.file, self.onward = store.working(task), watch
        self.about = {"key": task.key, "label": task.label, "machine": socket.gethostname(), "since": time.time()}
        self.written = 0.0
        self.write({})

    def watch(self, step: int, total: int | None = None, **numbers: Any) -> None:
        if time.monotonic() - self.written >= LOOK:
            self.write({"step": int(step), "total": total, "numbers": plain(numbers)})
        self.onward(step, total, **numbers)

    def write(self, progress: Mapping[str, Any]) -> None:
        self.written = time.monotonic()
        part = self.file.with_name(f".part{self.file.name}")
        with suppress(OSError):  # it is for show only
            self.file.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps({**self.about, **progress, "seen": time.time()}))
            os.replace(part, self.file)


def schedule(tasks: Iterable[Task], store: Store, workers: int = 1) -> Schedule:
    """What is done, what is not, and how long it should take; a finished task's needs are not looked at.

    Where fewer tasks can be split than there are workers, each is cut into enough parts for all of them.
    """
    tasks = tuple(tasks)
    found = _schedule(tasks, store, 1)
    if workers > 1 and (can := sum(task.split(workers) is not task for task in found.todo)) and workers > can:
        return _schedule(tasks, store, -(-workers // can))
    return found


def _schedule(tasks: Iterable[Task], store: Store, parts: int) -> Schedule:
    todo: dict[str, Task] = {}
    done: dict[str, Task] = {}
    damaged: dict[str, str] = {}
    path: set[str] = set()
    seen: set[str] = set()  # below finished tasks

    def visit(task: Task) -> None:
        if task.key in todo or task.key in done:
            return
        if task.key in path:
            raise UserError(f"{task.label} needs itself; look at its needs()")
        if store.done(task):
            done[task.key] = task
            below.append(task)
            return
        if wrong := store.damaged(task):
            damaged[task.key] = wrong
        task = task.split(parts)
        path.add(task.key)
        for need in task.needs():
            visit(need)
        path.remove(task.key)
        todo[task.key] = task

    below: list[Task] = []
    for task in tasks:
        visit(task)
    while below:  # what finished tasks rest on may be gone, but where it is, it is whole
        for need in below.pop().needs():
            if need.key not in seen:
                seen.add(need.key)
                if store.damaged(need, thorough=False):
                    visit(need)
                elif store.folder(need).is_dir():
                    below.append(need)
    history = {name: _history(store, name) for name in {task.name for task in todo.values()}}
    seconds, sizes = _expected(todo.values(), history), _sizes(todo.values(), history)
    return Schedule(tuple(todo.values()), tuple(done.values()), seconds, sizes, damaged)


def _ignore(*_: Any, **__: Any) -> None:
    """Nobody listens."""


def _expected(tasks: Iterable[Task], history: Mapping[str, list[Mapping[str, Any]]]) -> dict[str, float | None]:
    """Seconds by key: the task's own cost, corrected by what earlier tasks of its class really took."""
    expected: dict[str, float | None] = {}
    for task in tasks:
        made = history[task.name]
        if task.cost is None:
            seconds = [one["seconds"] for one in made]
            expected[task.key] = median(seconds) if seconds else None
        else:
            ratios = [one["seconds"] / one["expected"] for one in made if one.get("expected")]
            expected[task.key] = task.cost * (median(ratios) if ratios else 1.0)
    return expected


def _sizes(tasks: Iterable[Task], history: Mapping[str, list[Mapping[str, Any]]]) -> dict[str, float | None]:
    """Bytes by key, as earlier tasks of the class took."""
    sizes = {name: [one["bytes"] for one in made if "bytes" in one] for name, made in history.items()}
    return {task.key: median(sizes[task.name]) if sizes[task.name] else None for task in tasks}


def _history(store: Store, name: str) -> list[Mapping[str, Any]]:
    found = []
    for key in sorted(store.keys(name))[:REMEMBERED]:
        try:
            found.append(json.loads((store.root / name / key / "made.json").read_text()))
        except (OSError, ValueError, RecursionError):
            continue
    return found


def _seconds_ahead(tasks: Iterable[Task], seconds: Mapping[str, float | None]) -> dict[str, float]:
    """By key, the expected seconds of the longest chain that begins with a task: the longest starts first."""
    tasks = list(tasks)
    ahead = {task.key: seconds[task.key] or 0.0 for task in tasks}
    for task in reversed(tasks):
        for need in task.needs():
            if need.key in ahead:
                ahead[need.key] = max(ahead[need.key], (seconds[need.key] or 0.0) + ahead[task.key])
    return ahead


class _State:
    """Which tasks wait, are ready, run, or ended; the only thing that a run has to remember."""

    def __init__(self, todo: Schedule, store: Store, workers: int, listen: Listener) -> None:
        self.plan, self.store, self.workers, self.listen = todo, store, workers, listen
        self.tasks = {task.key: task for task in todo.todo}
        self.ahead = _seconds_ahead(todo.todo, todo.seconds)
        self.missing = {task.key: {need.key for need in task.needs()} & self.tasks.keys() for task in todo.todo}
        self.wanted_by: dict[str, list[str]] = {key: [] for key in self.tasks}
        for key, needs in self.missing.items():
            for need in needs:
                self.wanted_by[need].append(key)
        self.order = {key: number for number, key in enumerate(self.tasks)}
        self.ready: list[tuple[float, int, str]] = []
        self.running: dict[str, tuple[float, float]] = {}  # key: (when it started, share that is done)
        self.deaths: dict[str, int] = {}
        self.seconds = dict(todo.seconds)
        self.unknown = {key for key, seconds in self.seconds.items() if seconds is None}  # waiting ones only
        self.waiting = sum(seconds or 0.0 for seconds in self.seconds.values())  # expected, of what has not begun
        self.took = self.thought = 0.0  # seconds that this run's finished tasks took, and were thought to take
        self.ended: set[str] = set()
        self.finished = len(todo.done)
        self.failures: dict[str, Failure] = {}
        for task in todo.done:
            self.tell("reused", task)
        for key, wrong in todo.damaged.items():
            self.tell("damaged", self.tasks[key], error=wrong)
        for key, needs in self.missing.items():
            if not needs:
                self.push(key)

    def push(self, key: str) -> None:
        heapq.heappush(self.ready, (-self.ahead[key], self.order[key], key))

    def tell(self, kind: Any, task: Task, **more: Any) -> None:
        total = len(self.tasks) + len(self.plan.done)
        self.listen(Event(kind, task, self.finished, total, self.left(), **more))

    def start(self) -> Task:
        key = heapq.heappop(self.ready)[2]
        self.running[key] = (time.perf_counter(), 0.0)
        self.wait(key, -1)
        self.tell("started", self.tasks[key])
        return self.tasks[key]

    def wait(self, key: str, sign: int) -> None:
        """Count a task among the waiting ones, or (-1) no longer."""
        seconds = self.seconds[key]
        self.waiting = max(0.0, self.waiting + sign * (seconds or 0.0))
        if seconds is None:
            (self.unknown.add if sign > 0 else self.unknown.discard)(key)

    def progress(self, task: Task, step: int, steps: int | None, numbers: Mapping[str, float]) -> None:
        if task.key in self.running:
            self.running[task.key] = (self.running[task.key][0], min(step / steps, 1.0) if steps else 0.0)
            self.tell("progress", task, step=step, steps=steps, numbers=numbers)

    def look(self) -> None:
        """Read the progress that tasks running elsewhere left in the store."""
        for key, note in self.store.at_work().items():
            if key in self.running and "step" in note:
                self.progress(self.tasks[key], note["step"], note["total"], note["numbers"])

    def again(self, task: Task, retries: int) -> bool:
        """Whether a task whose process died gets another chance; it waits among the ready ones then."""
        self.deaths[task.key] = self.deaths.get(task.key, 0) + 1
        if self.deaths[task.key] > retries:
            return False
        del self.running[task.key]
        self.wait(task.key, 1)
        self.push(task.key)
        return True

    def end(self, task: Task, outcome: Outcome) -> None:
        self.running.pop(task.key, None)
        self.ended.add(task.key)
        if not outcome.error:
            self.finished += 1
            self.learn(task, outcome.seconds)
            self.tell("finished", task, seconds=outcome.seconds)
            for key in self.wanted_by[task.key]:
                self.missing[key].discard(task.key)
                if not self.missing[key] and key not in self.ended:
                    self.push(key)
            return
        blocked, look = [], list(self.wanted_by[task.key])
        while look:
            key = look.pop()
            if key not in self.ended:
                self.ended.add(key)
                self.wait(key, -1)
                blocked.append(self.tasks[key])
                look += self.wanted_by[key]
        self.failures[task.key] = Failure(task, outcome.error, self.store.failure(task), tuple(blocked))
        self.tell("failed", task, error=outcome.error, seconds=outcome.seconds)
        for other in blocked:
            self.tell("blocked", other, error=f"needs {task.label}, which failed")

    def left(self) -> float | None:
        """Expected seconds to the end: the work over the workers, but no less than the longest chain."""
        if self.unknown:
            return None
        now, pace = time.perf_counter(), self.took / self.thought if self.thought else 1.0
        work, longest = self.waiting * pace, -self.ready[0][0] * pace if self.ready else 0.0
        for key, (started, share) in self.running.items():
            expected = (self.seconds[key] or 0.0) * pace
            rest = (now - started) * (1 - share) / share if share > 0.02 else max(expected - (now - started), 0.0)
            work += rest
            longest = max(longest, rest + self.ahead[key] * pace - expected)
        return max(work / self.workers, longest)

    def learn(self, task: Task, seconds: float) -> None:
        """Use a finished task's time to correct the estimates of the others."""
        expected = self.seconds[task.key]
        if expected is not None:
            self.took += seconds
            self.thought += expected
            return
        for key in [key for key in self.unknown if self.tasks[key].name == task.name]:
            self.unknown.remove(key)
            self.seconds[key] = seconds
            self.waiting += seconds
