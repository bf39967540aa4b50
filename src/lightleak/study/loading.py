"""Study files: Python files with a function `tasks()`, loaded as modules, and what they declare."""

import ast
import inspect
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from lightleak.errors import UserError
from lightleak.shipped import study_file
from lightleak.study.pool import STUDY_MODULE, load_module
from lightleak.study.task import Task

FOLDERS: set[Path] = set()  # of the studies that were loaded here


def check_settings(path: Path | str, settings: Mapping[str, Any]) -> None:
    """UserError, from its source alone, for a study that is not there, that does not parse, or that takes no such
    settings; `load` sees what only its Python can tell.
    """
    path = study_file(path)
    with _one_line(path):
        body = ast.parse(path.read_bytes()).body
    written = [node for node in body if isinstance(node, ast.FunctionDef) and node.name == "tasks"]
    if not written or written[-1].decorator_list:
        return
    takes = written[-1].args
    known = [one.arg for one in (*takes.posonlyargs, *takes.args, *takes.kwonlyargs)]
    if unknown := sorted(set(settings) - set(known)) if takes.kwarg is None else []:
        told = f"it takes {', '.join(known)}" if known else "it takes none"
        raise UserError(f"tasks() of {path} has no setting {', '.join(unknown)}; {told}")


def load(path: Path | str, **settings: Any) -> list[Task]:
    """The tasks of a study: a Python file with a function `tasks()` that returns or yields them.

    `settings` are its arguments, such as the scale of a study of the paper. Modules beside the file can be imported.
    UserError that names the line if the file or its `tasks()` raises, and if `tasks()` does not take the settings.
    """
    path = study_file(path).absolute()
    name = f"{STUDY_MODULE}{path.stem}_{sha256(os.fsencode(path)).hexdigest()[:8]}"
    FOLDERS.add(path.parent)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # a study may import what lies beside it
    with _one_line(path):
        module = load_module(name, path)
    if not callable(getattr(module, "tasks", None)):
        raise UserError(f"{path} has no function tasks(); a study defines one that yields its tasks")
    try:
        inspect.signature(module.tasks).bind(**settings)
    except TypeError as error:
        raise UserError(f"tasks{inspect.signature(module.tasks)} of {path}: {error}") from None
    with _one_line(path):
        made = module.tasks(**settings)
        if not isinstance(made, Iterable):
            raise UserError(f"tasks() of {path} gave a {type(made).__name__}; expected tasks")
        found = list(made)
        strangers = [thing for thing in found if not isinstance(thing, Task)]
        if strangers:
            raise UserError(f"tasks() of {path} gave a {type(strangers[0]).__name__}; expected tasks only")
        if not found:
            raise UserError(f"tasks() of {path} gave no tasks, so there is nothing to run")
        _ = [task.key for task in found]  # what cannot be part of a key is said before anything runs
    return found


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Whatever a study's file raises, as one line with the place in it."""
    try:
        yield
    except UserError:
        raise
    except SyntaxError as error:
        raise UserError(f"{path}, line {error.lineno}: {error.msg}") from None
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        place = f"{path}, line {lines[-1]}" if lines else str(path)
        raise UserError(f"{place}: {one_line(error)}") from None


def published(path: Path | str) -> dict[str, Any]:
    """The paper's numbers that a loaded study holds, by architecture: whose they are, and the rows of its table.

    PUBLISHED has them by network, title and metric; STANDS_FOR says which of those networks a smaller one stands for.
    """
    module = _module(path)
    numbers, stands_for = getattr(module, "PUBLISHED", {}), getattr(module, "STANDS_FOR", {})
    found = {network: {"of": f"{network} on photographs", "rows": rows} for network, rows in numbers.items()}
    return found | {small: found[network] for small, network in stands_for.items()}


def declared(path: Path | str) -> tuple[str, ...]:
    """The measures that a loaded study declares in PRIMARY, before it runs, as those that decide its question."""
    names = tuple(getattr(_module(path), "PRIMARY", ()))
    # Loads the zoos, which a study is read without.
    from lightleak.metrics.evaluation import METRICS

    if unknown := [name for name in names if name not in METRICS]:
        raise UserError(f"{path} declares {', '.join(map(str, unknown))}; there are {', '.join(METRICS)}")
    return names


def titled(path: Path | str) -> str:
    """A loaded study's title: the first line of its docstring, or its file's name."""
    module = _module(path)
    lines = ((module and module.__doc__) or "").strip().splitlines()
    return lines[0].removesuffix(".") if lines else Path(path).stem


def _module(path: Path | str) -> Any:
    """The module of a loaded study; None if it was not loaded."""
    file = Path(path).absolute()
    return next((sys.modules[name] for name, known in study_files().items() if known == file), None)


def study_files() -> dict[str, Path]:
    """The study files loaded here and the modules beside them, by name: workers load them before they unpickle."""
    studies, beside = {}, {}
    for name, module in list(sys.modules.items()):
        if module is None or "." in name or name == "__main__":
            continue
        file = Path(str(vars(module).get("__file__")))
        if name.startswith(STUDY_MODULE) and file.is_file():
            studies[name] = file
        elif file.parent in FOLDERS and file.is_file():
            beside[name] = file
    return beside | studies


def one_line(error: BaseException) -> str:
    """An error without line breaks, named unless it speaks for itself."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}".removesuffix(": ")
