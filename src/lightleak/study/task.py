"""Tasks keyed by their settings, and a store in which a result exists completely or not at all."""

import dataclasses
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lightleak.errors import UserError
from lightleak.place import here
from lightleak.renamed import former
from lightleak.study.keys import Keyed, called, canonical_fields, fields_of, identity, keyed_in, plain
from lightleak.study.whole import MADE, RESULT, check_file, damage, seal
from lightleak.version import __version__

if TYPE_CHECKING:
    from lightleak.data.outlook import Outlook
    from lightleak.models.weight_files import Weights
    from lightleak.study.amounts import Amount

KEY_LENGTH = 20  # hexadecimal digits of a sha256: 80 bits, enough for any number of tasks that fits on a disk
VERSIONS_OF = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
)  # what a record of a finished task names, besides ourselves

Progress = Callable[..., None]  # watch(step, total=None, **numbers): progress of a running task
ABSENT = "absent"  # the one name in the result of a task whose data do not allow it: why


class Absent(Exception):
    """Raised, with the reason, by a task that is impossible with these data: what needs it is absent too."""


@dataclass(frozen=True)
class Task(Keyed):
    """One step of a study; its fields say everything that decides its result.

    A subclass is a frozen dataclass as well. Fields may be strings, numbers, booleans, None, tuples, dicts
    with string keys, frozen dataclasses and other tasks. A field declared with `field(compare=False)` cannot
    change the result (a batch size, a device) and stays out of the key.
    """

    version: ClassVar[int] = 1  # raise it when `run` changes its meaning: older results no longer count
    cpus = 1.0  # cores of a cluster that it takes; without annotation, so that a subclass may make it a field
    gpus = 0.0  # graphics processors that it takes, on a cluster that has any

    def run(self, store: "Store", folder: Path, watch: Progress) -> Mapping[str, Any]:
        """Do the work, write files into `folder`, return the numbers; what it needs is in `store` already."""
        raise NotImplementedError(f"{type(self).__name__} has no run(store, folder, watch)")

    def needs(self) -> tuple["Task", ...]:
        """The tasks that must be finished before this one: by default those found in its fields."""
        values = tuple(getattr(self, field.name) for field in dataclasses.fields(self))
        return tuple({task.key: task for task in keyed_in(values) if isinstance(task, Task)}.values())

    def keyed(self) -> Mapping[str, Any]:
        """What the key is made of, by name: by default the fields; fewer or others where a field says too much."""
        return fields_of(self)

    def spare(self) -> tuple["Task", ...]:
        """The dependencies that it can do without if the data do not allow them, see `Absent`."""
        return ()

    def split(self, parts: int) -> "Task":  # noqa: ARG002
        """The same task under the same key, whose work is shared out to `parts` tasks that it then needs, if it can."""
        return self

    def parts_done(self) -> tuple["Task", ...]:
        """Tasks whose results are part of this one's and serve nothing else: publishing it deletes them."""
        return ()

    @property
    def label(self) -> str:
        """What a progress bar calls this task."""
        return f"{self.name} {self.key[:6]}"

    @property
    def cost(self) -> float | None:
        """Expected seconds, if known; once tasks of this class have been timed, only ratios matter."""
        return None

    def amounts(self) -> "tuple[Amount, ...]":
        """The repeated step that takes most of its time, to be measured briefly; () where `cost` must serve."""
        return ()

    def reads(self) -> "Outlook | None":
        """The pictures that it reads from files, as far as their names tell; None if it reads none."""
        return None

    def begins(self) -> "tuple[tuple[str, Weights, int | None], ...]":
        """Networks, the files of weights that they begin with, and the size of what they see."""
        return ()

    def brings(self) -> Mapping[str, Callable[[], str]]:
        """What it reads where the user has it: what that is, and a function that reads it whole and says so in a line;
        UserError from there if it cannot be used.
        """
        return {}

    @property
    def room(self) -> int:
        """About how many bytes its results take on disk; 0 if negligible."""
        return 0

    @property
    def name(self) -> str:
        """The class's name (of a renamed one the older), which is also the folder of its results."""
        return called(type(self))

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The fields as JSON data, nested tasks by name and key."""
        cls = type(self)
        if "__dataclass_fields__" not in cls.__dict__:
            raise TypeError(f"{cls.__name__} is a task but no dataclass; put @dataclass(frozen=True) above it")
        return {"task": self.name, **identity(cls), "fields": canonical_fields(cls.__name__, self.keyed())}

    @cached_property
    def key(self) -> str:
        """The first 20 hexadecimal digits of the sha256 of `spec`."""
        text = json.dumps(self.spec, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


@dataclass(frozen=True)
class Store:
    """Results on disk: `<root>/<task name>/<key>/` has spec.json, result.json, made.json and its files.

    A folder appears under its final name by one rename, after everything in it is on the disk. So a process
    may be killed at any moment, and two processes may finish the same task: the first one counts.
    """

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root).absolute())

    def folder(self, task: Task) -> Path:
        """Where a finished task's files are."""
        return self.root / task.name / task.key

    def done(self, task: Task) -> bool:
        """Whether the task is finished, published and undamaged; the contents of a file are read once in a process."""
        folder = self.folder(task)
        return folder.is_dir() and damage(folder) is None

    def damaged(self, task: Task, thorough: bool = True) -> str | None:
        """What is wrong with a task's files, in one line; None if they are whole or were never there.

        Unless `thorough`, files that nobody changed after they were published are taken to be as they were.
        """
        return damage(self.folder(task), thorough)

    def absent(self, task: Task) -> str | None:
        """Why the data do not allow a task, None if they do or it is not finished."""
        try:
            return self.result(task).get(ABSENT)
        except UserError:
            return None

    def result(self, task: Task) -> dict[str, Any]:
        """What the task's `run` returned; UserError if it is not finished."""
        return self._read(task, RESULT)

    def made(self, task: Task) -> dict[str, Any]:
        """How the result came about: seconds, date, versions, machine."""
        return self._read(task, MADE)

    def _read(self, task: Task, name: str) -> dict[str, Any]:
        file = self.folder(task) / name
        try:
            check_file(file)
            return json.loads(file.read_text())
        except FileNotFoundError:
            raise UserError(f"{task.label} is not finished: {file} does not exist; run its study first") from None
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise UserError(f"{file} is damaged ({error}); run the study again, which makes it anew") from None

    def keys(self, name: str) -> set[str]:
        """The keys of all finished tasks of one class."""
        try:
            with os.scandir(self.root / name) as entries:
                return {entry.name for entry in entries if not entry.name.startswith(".")}
        except FileNotFoundError:
            return set()

    def scratch(self, task: Task) -> Path:
        """A folder for checkpoints that outlives a killed process; publishing the task deletes it."""
        folder = self.root / "scratch" / task.name / task.key
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def forget(self, task: Task) -> None:
        """Delete what a task left in its scratch folder."""
        shutil.rmtree(self.root / "scratch" / task.name / task.key, ignore_errors=True)

    def failure(self, task: Task) -> Path:
        """The file that keeps the traceback if the task failed."""
        return self.root / "failed" / f"{task.name}-{task.key}.txt"

    def fail(self, task: Task, report: str) -> None:
        """Keep the traceback of a failed task, if there is room on the disk."""
        file = self.failure(task)
        temporary = file.with_name(f".{file.name}.{_mark()}")
        with suppress(OSError):  # a full disk must not stop the tasks that write nothing
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(f"{task.label}\n{json.dumps(task.spec, indent=1)}\n\n{report}")
            os.replace(temporary, file)

    def working(self, task: Task) -> Path:
        """A file in which this process reports its progress on a task; for `at_work`."""
        return self.root / "working" / f".{task.name}-{task.key}.{_mark()}"

    def at_work(self) -> dict[str, dict[str, Any]]:
        """By key, what processes on any machine report of their current tasks: step, total, numbers, machine, since."""
        found = {}
        for file in self.root.glob("working/.*"):
            with suppress(OSError, ValueError, RecursionError):
                if not _abandoned(file.name):
                    note = json.loads(file.read_text())
                    found[note["key"]] = note
        return found

    def drop(self, task: Task) -> None:
        """Delete a finished task's folder, at once for all who look."""
        gone = self.folder(task).with_name(f".{task.key}.{_mark()}")
        with suppress(OSError):
            os.rename(self.folder(task), gone)
        shutil.rmtree(gone, ignore_errors=True)

    def open(self) -> "Store":
        """Make sure that the store can be written to (else UserError), and drop what dead processes left."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".probe.{_mark()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(f"cannot write to {self.root} ({error.strerror}); choose another folder") from None
        self.sweep()
        return self

    def sweep(self) -> None:
        """Delete what ended processes of this machine began and never published."""
        for left in [*self.root.glob("*/.*"), *self.root.glob(".probe.*")]:
            if _abandoned(left.name):
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)

    def begin(self, task: Task) -> Path:
        """A new folder, next to the final one, for a task that starts now."""
        folder = self.root / task.name / f".{task.key}.{_mark()}"
        folder.mkdir(parents=True)
        return folder

    def publish(self, task: Task, folder: Path, result: Mapping[str, Any], seconds: float) -> None:
        """Give the folder of a finished task its final name; harmless if another process was faster."""
        parts = [part for part in task.parts_done() if self.done(part)]
        made = {
            "seconds": seconds + sum(self.made(part)["seconds"] for part in parts),  # of computing, wherever
            "expected": task.cost,  # once called "cost", when its unit was another
            "bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
            "needs": [f"{need.name}/{need.key}" for need in task.needs()],
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": socket.gethostname(),
            "device": device(),
            "commit": commit(),
            "versions": versions(),
        }
        for name, data in (("spec.json", task.spec), (RESULT, result)):
            _write(folder / name, data)
        _write(folder / MADE, made | {"files": seal(folder)})
        _flush(folder)
        final = self.folder(task)
        try:
            os.rename(folder, final)
        except OSError:
            if not final.exists():
                raise
            if not self.done(task):  # a folder somebody damaged is in the way
                os.rename(final, folder.with_name(f"{folder.name}.damaged"))
                os.rename(folder, final)
                shutil.rmtree(folder.with_name(f"{folder.name}.damaged"))
        _flush_one(final.parent)
        for part in parts:
            self.drop(part)
        self.failure(task).unlink(missing_ok=True)
        self.forget(task)


def with_needs(tasks: Iterable[Task]) -> list[Task]:
    """The tasks and all that they need, each once."""
    found: dict[str, Task] = {}
    look = list(tasks)
    while look:
        task = look.pop()
        if task.key not in found:
            found[task.key] = task
            look += task.needs()
    return list(found.values())


@cache
def versions() -> dict[str, str]:
    """The versions of the packages that results depend on, as installed."""
    found = {"lightleak": __version__}
    for package in VERSIONS_OF:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def commit() -> str:
    """The commit of our source, if it runs from a checkout, with "+changes" if files differ from it; else nothing."""
    here = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # an environment may lie in somebody else's repository
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def device() -> str:
    """What this process computes on: the card that it was given or began to use, else the processor."""
    torch = sys.modules.get("torch")
    if not here().is_card and torch is not None and torch.cuda.is_initialized():  # the task's own doing
        return torch.cuda.get_device_name()
    return here().name


def _write(file: Path, data: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(plain(data), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _mark() -> str:
    """Ends the name of a temporary folder: who is writing, so that only what the dead left is deleted."""
    return f"{uuid.uuid4().hex[:8]}.{os.getpid()}@{socket.gethostname()}"


def _abandoned(name: str) -> bool:
    mark, _, host = name.removesuffix(".damaged").partition("@")
    process = mark.rpartition(".")[2]
    if host != socket.gethostname() or not process.isdigit():
        return False  # of another machine, or not ours at all
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _flush(folder: Path) -> None:
    for parent, _, files in os.walk(folder):
        for name in files:
            _flush_one(Path(parent, name))
        _flush_one(Path(parent))


def _flush_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


__getattr__ = former(__name__, {"Watch": "lightleak.study.task:Progress"})
