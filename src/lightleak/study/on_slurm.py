"""Tasks as Slurm jobs, submitted by submitit; results travel through the folder of the store."""

import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from lightleak.errors import UserError
from lightleak.study.payload import Cluster, perform
from lightleak.study.pool import WorkerDied
from lightleak.study.task import Task

POLL = 1.0  # seconds between looks for results of jobs
ASK = 15.0  # seconds between questions to Slurm which jobs it still has
JOBS = 200  # jobs at a time, unless said otherwise


class OnSlurm(Cluster):
    """Submits each call as one job with the cores and graphics processors that its task asks for.

    folder: on a disk that all nodes see; submitit keeps its files there, those of jobs that ended well are deleted.
    partition: None for Slurm's default. minutes: the time limit of a job; a training that it cuts off goes on from its
    last checkpoint, an attack from its last finished batch. options: further options of sbatch by their long
    names. kind: "local" runs the jobs as processes of this machine, for trying things out.
    """

    def __init__(
        self,
        folder: Path,
        partition: str | None = None,
        files: Mapping[str, Path] | None = None,
        *,
        minutes: int = 24 * 60,
        jobs: int = JOBS,
        options: Mapping[str, Any] | None = None,
        kind: Literal["slurm", "local"] = "slurm",
    ) -> None:
        try:
            import submitit
        except ImportError:
            raise UserError("Slurm needs the extra: pip install 'lightleak[slurm]'") from None
        self.submitit, self.files, self.kind, self.jobs = submitit, dict(files or {}), kind, jobs
        self.folder, self.minutes = Path(folder), minutes
        self.options = {"partition": partition} if partition else {}
        self.extra = dict(options or {})
        try:
            self.executor = submitit.AutoExecutor(self.folder, cluster=kind)
        except RuntimeError as error:
            raise UserError(f"there is no Slurm here ({error})") from None
        self.calls: dict[Future, Any] = {}
        self.gone: dict[str, float] = {}  # job: when Slurm was first seen without it
        self.closed = threading.Event()
        self.watcher = threading.Thread(target=self._watch, daemon=True)
        self.watcher.start()

    def slots(self) -> int:
        """Jobs that are submitted at a time; Slurm decides how many of them run."""
        return self.jobs

    def submit(self, function: Callable, task: Task, *arguments: Any) -> Future:  # pyright: ignore
        """The future of the job; WorkerDied in it if the job ends without a result."""
        future: Future = Future()
        settings: dict[str, Any] = {"cpus_per_task": max(1, round(task.cpus)), "timeout_min": self.minutes}
        if self.kind == "slurm":
            name = f"lightleak-{task.name}-{task.key[:6]}"
            settings |= {"name": name, **{f"slurm_{option}": value for option, value in self.options.items()}}
            settings["slurm_additional_parameters"] = self.extra
            if not {"gres", "gpus"} & self.extra.keys():  # None: what the last job asked for stays otherwise
                gpus = round(task.gpus) if task.gpus and self._has_gpus() else None
                settings["slurm_gpus_per_node"] = gpus
        try:
            self.executor.update_parameters(**settings)
            self.calls[future] = self.executor.submit(perform, self.payload(function, task, *arguments))
        except (self.submitit.core.utils.FailedJobError, RuntimeError, subprocess.CalledProcessError) as error:
            future.set_exception(UserError(f"Slurm refused {task.label}: {' '.join(str(error).split())[:300]}"))
        return future

    def _has_gpus(self) -> bool:
        """Whether any node of the partition has a graphics processor."""
        command = ["sinfo", "--noheader", "--format=%G", *[f"--partition={p}" for p in self.options.values()]]
        with suppress(OSError, subprocess.SubprocessError):
            return "gpu" in subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        return False

    def _watch(self) -> None:
        asked = time.monotonic()
        while not self.closed.wait(POLL):
            ask = self.kind == "slurm" and time.monotonic() - asked > ASK
            present = self._present() if ask else None
            asked = time.monotonic() if ask else asked
            for future, job in list(self.calls.items()):
                if job.paths.result_pickle.exists() or (self.kind == "local" and job.done()):
                    self._settle(future, job)
                elif present is not None and job.job_id not in present and self._long_gone(job.job_id):
                    self._dead(future, job, "Slurm has no such job any more, and it left no result")

    def _long_gone(self, job: str) -> bool:
        """Whether it was missing some time ago already: results may be slow to appear in this machine's view."""
        return time.monotonic() - self.gone.setdefault(job, time.monotonic()) > ASK

    def _present(self) -> set[str] | None:
        """The jobs that Slurm still has, by squeue (accounting may be off); None if it does not answer."""
        with suppress(OSError, subprocess.SubprocessError):
            command = ["squeue", "--noheader", "--me", "--format=%i"]
            answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
            return set(answer.stdout.split())
        return None

    def _settle(self, future: Future, job: Any) -> None:
        if not job.paths.result_pickle.exists():
            time.sleep(POLL)
            if not job.paths.result_pickle.exists():
                return self._dead(future, job, "it left no result")
        self.calls.pop(future, None)
        if not future.set_running_or_notify_cancel():
            return None
        try:
            outcome = job.result()
        except Exception as error:
            lines = [line for line in str(error).splitlines() if line.strip() and set(line.strip()) != {"-"}]
            told = next((line for line in reversed(lines) if "Error" in line and "full logs" not in line), lines[-1])
            future.set_exception(RuntimeError(told.strip()))
            return None
        for file in self.folder.glob(f"{job.job_id}_*"):  # the submission, its logs and its outcome
            file.unlink(missing_ok=True)
        future.set_result(outcome)
        return None

    def _dead(self, future: Future, job: Any, why: str) -> None:
        self.calls.pop(future, None)
        if future.set_running_or_notify_cancel():
            future.set_exception(WorkerDied(f"its job {job.job_id} died ({why}; its log is {job.paths.stderr})"))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """Cancel the jobs that still wait or run."""
        self.closed.set()
        self.watcher.join()
        for job in list(self.calls.values()):
            with suppress(Exception):
                job.cancel(check=False)
        self.calls.clear()
        for link in self.folder.glob(".submission_file_*"):  # links to scripts of jobs that ended well
            if not link.exists():
                link.unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()  # where nothing is left to look at
