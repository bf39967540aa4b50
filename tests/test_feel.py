"""How it feels where people work: progress in logs and in continuous integration, completion in the shell."""

import io
import shutil
import subprocess
from types import SimpleNamespace

import pytest
from rich.console import Console

from lightleak import cli, terminal
from lightleak.study import progress
from lightleak.study.run import Event

TASK = SimpleNamespace(key="k", label="train [x]")


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def console(**options):
    return Console(file=io.StringIO(), width=120, color_system=None, **options)


def test_a_log_gets_a_line_a_minute_and_one_for_each_task_that_ended():
    log, clock = console(), Clock()
    listen = progress.lines(log, clock)
    for second in range(0, 200, 5):
        clock.now = second
        numbers = {"step": second, "steps": 200, "left": 200.0 - second}
        listen(Event("progress", TASK, done=1, total=4, **numbers))  # pyright: ignore[reportArgumentType]
    clock.now = 205
    listen(Event("finished", TASK, done=2, total=4, seconds=205.0))  # pyright: ignore[reportArgumentType]
    assert log.file.getvalue().splitlines() == [
        "… train [x] 30%; 1 of 4 tasks done, 2:20 min left",
        "… train [x] 60%; 1 of 4 tasks done, 1:20 min left",
        "… train [x] 90%; 1 of 4 tasks done, 20 s left",
        "✓ train [x] 3:25 min",
    ]


def test_a_verb_writes_a_line_a_minute_where_no_bar_can_be_drawn():
    log, clock = console(), Clock()
    watch = terminal._by_the_minute("attack", log, clock)
    for second in range(0, 130, 10):
        clock.now = second
        watch(second, 240, confidence=0.5)
    assert log.file.getvalue().splitlines() == [
        "attack 60/240, 3:00 min left  confidence 0.5",
        "attack 120/240, 2:00 min left  confidence 0.5",
    ]


@pytest.mark.parametrize(("term", "ci", "drawn"), [("xterm", "", True), ("dumb", "", False), ("xterm", "true", False)])
def test_bars_are_for_those_who_watch(term, ci, drawn, monkeypatch):
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("CI", ci)
    assert progress.animated(console(force_terminal=True)) == drawn
    assert not progress.animated(console(force_terminal=False))
    assert not progress.animated(console(force_jupyter=True))


TRY = """
source completion.sh
complete -p lightleak >&2
try() { COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}; COMPREPLY=(); _tyro_lightleak
  echo "${COMPREPLY[*]}"; }
try lightleak st; try lightleak study --dr; try lightleak demo --pe
"""


@pytest.mark.slow
def test_the_shell_completes_verbs_and_their_flags(tmp_path, capsys):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    with pytest.raises(SystemExit):
        cli.main(["--tyro-print-completion", "bash"])
    (tmp_path / "completion.sh").write_text(capsys.readouterr().out)
    said = subprocess.run([bash, "-c", TRY], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == ["study", "--dry-run", "--people"]
