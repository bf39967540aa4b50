"""The command line: a module for each verb, imported when it is called; its flags are the arguments of its `main`.

`lightleak --help` and the like read what the verbs say of themselves from their source, so that nothing heavy is
imported for an answer that needs none of it.
"""

import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from lightleak.errors import UserError
from lightleak.version import __version__

ALIASES = {"attack:mi-face": "attack:miface"}  # earlier spellings, still understood
FORMER_FLAGS = {"evaluate": {"--appraiser": "--attribute-regressor"}}  # they go with the next release
VERBS = (
    "demo", "skips", "train", "protect", "fit", "convert", "attack", "evaluate", "audit", "study", "raters", "report",
    "doctor",
)  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Run a verb; bad input gives one line and exit code 2, Ctrl-C and SIGTERM give 130."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be text
    try:
        with _terminated():
            _call(arguments)
    except UserError as error:
        _say(f"[red]lightleak:[/] {_escape(str(error))}", soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        _say("stopped; the same command again continues where it was")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


@contextmanager
def _terminated() -> Iterator[None]:
    """SIGTERM as KeyboardInterrupt, where this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _call(arguments: list[str]) -> None:
    if arguments[:1] == ["--version"]:
        print(f"lightleak {__version__}")
        return
    if arguments[:1] == ["study"] and arguments[1:2] in (["status"], ["plan"]) and not Path(arguments[1]).exists():
        arguments = ["study", f"--{arguments[1]}", *arguments[2:]]
    arguments = [ALIASES.get(argument, argument) for argument in arguments]
    arguments = _in_new_flags(arguments)
    called = next((verb for verb in VERBS if arguments[:1] == [verb]), None)
    if called is None:  # a call for help, for the shell's completion, or a mistake
        completed = any(one.startswith(("--tyro-print-completion", "--tyro-write-completion")) for one in arguments)
        _parsed(arguments, {verb: _main_of(verb) for verb in VERBS} if completed else {})
        return
    from lightleak.cli.outline import checked, checking

    asked_for_help = {"-h", "--help"} & set(arguments)
    if "torch" not in sys.modules and not asked_for_help:  # to be quick is all that this is for
        stand_in, readable = checked(called, arguments[1:])
        if stand_in:
            _parsed([called, *readable], {called: stand_in}).check()
    _parsed(arguments, {called: checking(_main_of(called))})


def _in_new_flags(arguments: list[str]) -> list[str]:
    """The arguments with each former flag of their verb replaced, which is said."""
    former, renamed = FORMER_FLAGS.get(arguments[0] if arguments else "", {}), []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if flag in former:
            _say(f"[yellow]{flag} is now {former[flag]}; the old flag goes with the next release[/]", soft_wrap=True)
            argument = f"{former[flag]}{equals}{value}"
        renamed.append(argument)
    return renamed


def _main_of(verb: str) -> Callable[..., Any]:
    return import_module(f"lightleak.cli.{verb}").main


def _parsed(arguments: list[str], functions: Mapping[str, Callable[..., Any]]) -> Any:
    """Call the function with what the command line says; a mistake is told, and ends with exit code 2.

    `functions` are those of the verbs that matter; of all others only the descriptions are read, where nothing else is.
    """
    import tyro

    from lightleak.cli.outline import described

    app = tyro.extras.SubcommandApp()
    for verb in VERBS:
        stands: Any = functions[verb] if verb in functions else described(verb, whole=not functions)
        app.command(stands, name=verb)
    return app.cli(prog="lightleak", description="How much does a vision model leak?", args=arguments)


def _say(text: str, soft_wrap: bool = False) -> None:
    from rich.console import Console

    Console(stderr=True).print(text, highlight=False, soft_wrap=soft_wrap)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
