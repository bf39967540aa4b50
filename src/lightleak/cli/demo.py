"""`lightleak demo`: the main job on a small scale."""

import time
from pathlib import Path

from lightleak.cli.arguments import check_data, command
from lightleak.cli.kinds import Count, Device, Seed, Source
from lightleak.cli.running import run_tasks, show
from lightleak.files import check_folder
from lightleak.report.study import recorded
from lightleak.study.comparison import Demo
from lightleak.terminal import console


def main(
    data: Source = "faces",
    out: Path = Path("runs/demo"),
    people: Count = 16,
    seed: Seed = 0,
    workers: Count | None = None,
    device: Device = "auto",
    show_private: bool = False,
) -> None:
    """The main job: train three targets, invert each, judge what leaked, write a page.

    Example: lightleak demo --data folder:photos

    Args:
        data: faces (rendered), digits (handwritten), or folder:PATH with one folder of images per person.
        out: where results are kept; the same command again reuses them.
        people: private people of the rendered world, a multiple of 4.
        seed: decides everything random.
        workers: processes at a time; by default one for each GPU, 2 where there is none.
        device: auto (a GPU where there is one), cpu, cuda, cuda:N or mps.
        show_private: do not blur private images on the page.
    """
    began = time.monotonic()
    tasks = Demo(data, people, seed).tasks()
    settings = {"data": data, "people": people, "seed": seed}
    with recorded(tasks, out, f"Lightleak demo: {data}", command(), settings=settings) as place:
        run_tasks(tasks, out, workers, device)
    console.print(f"[dim]{time.monotonic() - began:.0f} seconds; the same command again reuses what is done[/]")
    show(place, show_private)


def check_arguments(data: str, out: Path, people: int, seed: int) -> None:
    """UserError, before anything is read, for arguments that do not go together."""
    check_data(data, {"people": str(people), "lookalikes": "4", "seed": str(seed)} if data == "faces" else {})
    check_folder(out, "the results")
