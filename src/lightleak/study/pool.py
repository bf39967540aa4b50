"""Worker processes behind an Executor: each call reports progress, each death is blamed on one call."""

import importlib.util
import linecache
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

from lightleak.errors import UserError

STUDY_MODULE = "lightleak_study_"  # begins the module name of a loaded study file
BETWEEN_REPORTS = 0.1  # seconds: a task may call watch at every step, the driver hears of some

Report = Callable[..., None]  # report(task, step, total, numbers)


class WorkerDied(RuntimeError):
    """The process died while it ran this call: killed, out of memory, or crashed in native code."""


class Inline(Executor):
    """Runs each call at once in this process: for debugging, and for studies of one worker."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def submit(self, function: Callable, task: Any, *args: Any) -> Future:  # pyright: ignore
        """The finished future of `function(task, *args, watch=...)`."""
        future: Future = Future()
        watch = _watch(lambda *progress: self.report(task, *progress))
        try:
            future.set_result(function(task, *args, watch=watch))
        except Exception as error:
            future.set_exception(error)
        return future


class Pool(Executor):
    """Up to `workers` spawned processes with `threads` each; a call is `function(task, *args, watch=...)`.

    The standard library's pool cannot tell which call killed a worker and declares all of them broken; here
    the others go on, and leaving the pool kills what still runs. Of several `cards` ("cuda:0", ...) each worker sees
    one alone.
    """

    def __init__(
        self,
        workers: int,
        report: Report,
        threads: int = 1,
        files: Mapping[str, Path] | None = None,
        cards: Sequence[str] = (),
    ) -> None:
        self.report = report
        self.setup = (threads, dict(files or {}))
        self.cards = tuple(cards)
        self.slots = threading.Semaphore(workers)
        self.lock = threading.Lock()
        self.closed = False
        self.idle: list[Worker] = []
        self.workers: set[Worker] = set()

    def submit(self, function: Callable, task: Any, *args: Any) -> Future:  # pyright: ignore
        """The future of the call; it fails with WorkerDied if the process dies."""
        future: Future = Future()
        threading.Thread(target=self._serve, args=(future, function, task, *args), daemon=True).start()
        return future

    def _serve(self, future: Future, function: Callable, task: Any, *args: Any) -> None:
        with self.slots:
            worker = None
            try:
                worker = self._worker()
                future.set_result(worker.call(self.report, function, task, *args))
            except BaseException as error:
                future.set_exception(error)
            with self.lock:
                if worker is not None and worker.process.is_alive():
                    self.idle.append(worker)
                else:
                    self.workers -= {worker}

    def _worker(self) -> "Worker":
        with self.lock:
            if self.closed:
                raise WorkerDied("the pool is closed")
            if self.idle:
                return self.idle.pop()
            taken = [worker.card for worker in self.workers]
            card = min(self.cards, key=taken.count) if len(self.cards) > 1 else None
            worker = Worker(*self.setup, card)
            self.workers.add(worker)
            return worker

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """Kill all workers, busy ones too: what they have not published is lost."""
        with self.lock:
            self.closed = True
            workers = set(self.workers)
        for worker in workers:
            worker.process.kill()
        if wait:
            for worker in workers:
                worker.process.join()


class Worker:
    """One process and the pipe to it."""

    def __init__(self, threads: int, files: Mapping[str, Path], card: str | None = None) -> None:
        self.card = card
        context = multiprocessing.get_context("spawn")
        self.pipe, far_end = context.Pipe()
        self.process = context.Process(target=serve, args=(far_end, threads, dict(files), card))
        # Ctrl-C reaches the whole process group; children inherit the blocked signal: the driver answers.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        far_end.close()

    def call(self, report: Report, function: Callable, task: Any, *args: Any) -> Any:
        """Send one call, pass its progress on, return its value or raise its error."""
        try:
            self.pipe.send((function, task, *args))
            while True:
                kind, content = self.pipe.recv()
                if kind == "value":
                    return content
                if kind == "error":
                    raise content
                report(task, *content)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self.process.join()
            raise WorkerDied(f"its process died (exit code {self.process.exitcode})") from None


def serve(pipe: Connection, threads: int, files: Mapping[str, Path], card: str | None = None) -> None:
    """The loop of a worker process, until its driver is gone."""
    if card is not None:
        see_only(card)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    limit_threads(threads)
    load_modules({name: (path, None) for name, path in files.items()})
    while True:
        try:
            function, *args = pipe.recv()
        except EOFError:
            return
        except Exception as error:  # a task that cannot be unpickled here
            pipe.send(("error", RuntimeError(f"{type(error).__name__}: {error}")))
            continue
        watch = _watch(lambda *progress: pipe.send(("progress", progress)))
        try:
            answer = ("value", function(*args, watch=watch))
        except BaseException as error:
            answer = ("error", RuntimeError(f"{type(error).__name__}: {error}"))
        pipe.send(answer)


def _watch(send: Callable[[int, int | None, dict[str, float]], None]) -> Callable[..., None]:
    last = 0.0

    def watch(step: int, total: int | None = None, **numbers: Any) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= BETWEEN_REPORTS or step == total:
            last = now
            send(int(step), total, {name: float(value) for name, value in numbers.items()})

    return watch


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # nothing is lost: only a rename publishes


def see_only(card: str) -> None:
    """Let this process see one card, "cuda:N" of those that its driver sees, as its only one; before CUDA starts."""
    index = int(card.partition(":")[2])
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        seen = [one for one in os.environ.get(name, "").split(",") if one]
        if seen or name.startswith("CUDA"):
            os.environ[name] = seen[index] if index < len(seen) else str(index)


def share_of_cores(workers: int) -> int:
    """Threads of each of so many processes on this machine."""
    return max(1, (os.cpu_count() or 1) // workers)


def limit_threads(threads: int) -> None:
    """Give this process its share of the cores, whether torch is imported already or will be."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)


def load_modules(files: Mapping[str, tuple[Path, str | None]]) -> None:
    """Import several files (or texts), whichever of them need others first; what is imported already stays."""
    waiting = {name: file for name, file in files.items() if name not in sys.modules}
    while waiting:
        failures: dict[str, ImportError] = {}
        for name, (path, text) in waiting.items():
            try:
                if name not in sys.modules:
                    load_module(name, path, text)
            except ImportError as error:
                failures[name] = error
        if len(failures) == len(waiting):
            raise next(iter(failures.values()))
        waiting = {name: waiting[name] for name in failures}


def load_module(name: str, path: Path, text: str | None = None) -> ModuleType:
    """Import a Python file (or `text` in its place) under a name of ours, so that workers can find its classes."""
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise UserError(f"expected a Python file, got {path}")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    try:
        if text is None:
            specification.loader.exec_module(module)
        else:  # another machine may not have the file
            linecache.cache[str(path)] = (len(text), None, text.splitlines(True), str(path))  # keys know sources
            exec(compile(text, str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module
