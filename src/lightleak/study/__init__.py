"""Studies: tasks that are keyed by what they say, run once, and survive anything."""

from lightleak.study.pool import Inline, Pool, WorkerDied
from lightleak.study.progress import live
from lightleak.study.run import Event, Failure, Outcome, Plan, execute, load, plan, run
from lightleak.study.task import Store, Task, Watch, plain, versions

__all__ = [
    "Event",
    "Failure",
    "Inline",
    "Outcome",
    "Plan",
    "Pool",
    "Store",
    "Task",
    "Watch",
    "WorkerDied",
    "execute",
    "live",
    "load",
    "plain",
    "plan",
    "run",
    "versions",
]
