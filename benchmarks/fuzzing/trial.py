"""A fair trial: what a call does to a process of its own, with its memory, time, files and other programs watched."""

import contextlib
import io
import json
import os
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOM = 2 << 30  # bytes of address space that a call may add
GROWTH = 700 << 20  # bytes of memory that a call on tiny files may use beside what its libraries take
PROCESSOR = 60  # seconds
# Wrong arguments are shown in a box, or in lines under one of these titles where it would not fit.
ARGUMENTS = ("\u256d", "Unrecognized options", "Required options", "Value error", "Parsing error", "helptext")
PROGRAMS = (
    "os.system",
    "subprocess.Popen",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "socket.connect",
    "webbrowser.open",
)


@dataclass
class Verdict:
    """How a call ended."""

    fault: str = ""  # "": as it should
    code: int | None = None  # exit code; None: it did not end by itself
    said: str = ""
    seconds: float = 0.0
    did: list[str] = field(default_factory=list)  # programs started, files written elsewhere


def tried(call: Callable[[], object], home: Path, quiet: bool = False, endless: bool = False) -> Verdict:
    """The verdict on `call` in a copy of this process; `quiet`: a library call, which raises UserError instead.

    `endless`: running until its processor time is spent is no fault.
    """
    report, began = home / ".report", time.monotonic()
    report.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            report.write_text(json.dumps(_inside(call, home, quiet)))
        os._exit(0)
    _, status, used = os.wait4(child, 0)
    verdict = Verdict(seconds=time.monotonic() - began)
    try:
        verdict.code, verdict.said, verdict.did = json.loads(report.read_text())
    except (OSError, ValueError):
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        if number == 24 and endless:  # its time is up
            return verdict
        verdict.fault = f"died of signal {number}" if os.WIFSIGNALED(status) else f"died with status {number}"
        return verdict
    grown = used.ru_maxrss * 1024 - _resident()
    verdict.fault = _judged(verdict, grown)
    return verdict


def _judged(verdict: Verdict, grown: int) -> str:
    text = verdict.said.strip()
    if verdict.did:
        return f"did {verdict.did[0]}"
    if "Traceback" in text:
        return "traceback: " + text.splitlines()[-1][:160]
    if grown > GROWTH:
        return f"took {grown >> 20} MiB"
    if verdict.code not in (0, 1, 2):
        return f"exit code {verdict.code}"
    if verdict.code == 2 and not text:
        return "exit code 2 without a word"
    arguments = any(title in text for title in ARGUMENTS)
    if verdict.code == 2 and len(text.splitlines()) > 1 and not arguments:
        return f"{len(text.splitlines())} lines: {text.splitlines()[0][:100]}"
    return ""


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _inside(call: Callable[[], object], home: Path, quiet: bool) -> tuple[int, str, list[str]]:
    """Runs in the child: exit code, what was said on the error stream, and what it should not have done."""
    from lightleak.errors import UserError

    did: list[str] = []
    places = (str(home), tempfile.gettempdir(), "/dev/", "/proc/self", os.environ["LIGHTLEAK_CACHE"])

    def watch(event: str, arguments: tuple) -> None:
        if event in PROGRAMS:
            did.append(f"{event} {arguments!r:.100}")
            return
        named = event == "open" and isinstance(arguments[0], str) and isinstance(arguments[1], str)
        if named and set(arguments[1]) & set("wax+") and not os.path.abspath(arguments[0]).startswith(places):
            did.append(f"wrote {arguments[0]!r:.100}")

    os.chdir(home)
    sys.addaudithook(watch)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, size + ROOM))
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR, PROCESSOR + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
    code, out, said = 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
        try:
            call()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
            if isinstance(end.code, str):
                print(end.code, file=said)
        except UserError as error:
            if not quiet:
                traceback.print_exc()
            code = 2
            print(error, file=said)
        except BaseException:
            code = 70
            traceback.print_exc()
    return code, said.getvalue() + (out.getvalue() if code == 2 and not said.getvalue() else ""), did
