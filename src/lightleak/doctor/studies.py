"""Whether a study can run to its page: its data, weights, priors and judges, and what room and time it will take.

What a study lacks altogether its own settings say while it is loaded (`study.photographs.Lacking`). Here its files are
held against the networks that they are meant for, before anything is computed.
"""

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from lightleak.doctor import Line, duration, in_bytes
from lightleak.errors import UserError
from lightleak.forecast import Pace, expected
from lightleak.models import zoo
from lightleak.models.starting import taken
from lightleak.place import Place, here
from lightleak.study import Store, schedule
from lightleak.study.task import Task

TIGHT = 0.9  # of what is free, to be filled at most


def whole(tasks: Sequence[Task], out: Path) -> list[Line]:
    """Whether every file fits what it is meant for, and the disk holds the results; what is done needs nothing more."""
    todo = schedule(tasks, Store(out)).todo
    lines = [*_data(todo), *_weights(todo), *_loaded(todo)]
    return [*lines, _disk(todo, out)]


def refuse(tasks: Sequence[Task], out: Path) -> None:
    """UserError that names all that keeps a study from its end, before it begins."""
    wrong = [line for line in whole(tasks, out) if line.state == "bad"]
    if wrong:
        raise UserError("this study would not come to its end: " + "; ".join(f"{o.what}: {o.said}" for o in wrong))


def _data(todo: Iterable[Task]) -> list[Line]:
    lines = []
    for task in todo:
        if (seen := task.reads()) is None:
            continue
        parts = ", ".join(f"{count:,} {name}" for name, count in seen.images.items() if count)
        lines.append(Line(task.label, f"{seen.people} people at {seen.size} pixels: {parts} images"))
        lines += [Line(one.kind, one.text, "note", one.files) for one in seen.findings]
    return lines


def _weights(todo: Iterable[Task]) -> list[Line]:
    """The files that networks begin with, each held against its network once."""
    wanted = {(architecture, weights): size for task in todo for architecture, weights, size in task.begins()}
    lines = []
    for (architecture, weights), size in wanted.items():
        try:
            with torch.device("meta"):  # nothing is allocated
                network = zoo.build(architecture, 10, zoo.only_size(architecture) or size)
            taken(network, weights)
            lines.append(Line(architecture, f"begins with {weights.title}"))
        except UserError as error:
            lines.append(Line(architecture, str(error), "bad"))
    return lines


def _loaded(todo: Iterable[Task]) -> list[Line]:
    """Priors, judges and feature networks that are read where they lie."""
    lines = []
    for task in todo:
        for what, read in task.brings().items():
            try:
                lines.append(Line(what, read()))
            except UserError as error:
                lines.append(Line(what, str(error), "bad"))
    return lines


def _disk(todo: Iterable[Task], out: Path) -> Line:
    rooms = [task.room for task in todo]
    needed = sum(rooms) + 4 * max(rooms, default=0)  # a training keeps its state beside its best network
    place = next(parent for parent in (out.absolute(), *out.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    text = f"about {in_bytes(needed)} in {out}, {in_bytes(free)} free"
    return Line("disk", text, "bad" if needed > TIGHT * free else "good")


def outlook(
    tasks: Sequence[Task], out: Path, workers: int, watch: Callable[..., None] = lambda *_, **__: None
) -> list[Line]:
    """Memory for the pictures, and hours by kind of task, from a few steps of each on this device."""
    todo = schedule(tasks, Store(out)).todo
    pictures = sum(sorted((task.reads().bytes for task in todo if task.reads()), reverse=True)[:2])  # pyright: ignore
    machine = Place().memory()
    text = f"about {in_bytes(2 * pictures)} for pictures"
    tight = machine is not None and 2 * pictures > TIGHT * machine.total
    lines = [Line("memory", text + (f" of {in_bytes(machine.total)}" if machine else ""), "bad" if tight else "good")]
    pace = Pace()
    seconds = expected(todo, pace, watch, workers)
    lines += [
        Line(f"{kind.kind} {kind.architecture}", f"could not be tried on {here().device}: {why}", "bad")
        for kind, why in pace.failed.items()
    ]
    kinds: dict[str, list[Task]] = {}
    for task in todo:
        kinds.setdefault(task.name, []).append(task)
    total = 0.0
    for name, own in kinds.items():
        known = [seconds[task.key] for task in own if task.key in seconds]
        if sum(known) >= 60:
            more = f", {len(own) - len(known)} of them not measured" if len(known) < len(own) else ""
            lines.append(Line(f"{name} x {len(own)}", duration(sum(known)) + more))
        total += sum(known)
    together = f"about {duration(total)} on {here().device}" if total else "nothing that could be measured"
    return [*lines, Line("hours", f"{together}, {duration(total / workers)} on {workers} at a time")]
