"""Studies: tasks that are keyed by their settings, run once, and survive interruption."""

from lightleak.renamed import former
from lightleak.study.loading import load, study_files
from lightleak.study.on_ray import OnRay
from lightleak.study.on_slurm import OnSlurm
from lightleak.study.pool import Inline, Pool, WorkerDied
from lightleak.study.progress import live
from lightleak.study.run import Event, Failure, Outcome, Schedule, execute, run, schedule
from lightleak.study.status import AtWork, Failed, Status, status
from lightleak.study.task import Progress, Store, Task, plain, versions

__all__ = [
    "AtWork",
    "Event",
    "Failed",
    "Failure",
    "Inline",
    "OnRay",
    "OnSlurm",
    "Outcome",
    "Pool",
    "Progress",
    "Schedule",
    "Status",
    "Store",
    "Task",
    "WorkerDied",
    "execute",
    "live",
    "load",
    "plain",
    "run",
    "schedule",
    "status",
    "study_files",
    "versions",
]

__getattr__ = former(
    __name__,
    {"Plan": "lightleak.study:Schedule", "plan": "lightleak.study:schedule", "Watch": "lightleak.study:Progress"},
)
