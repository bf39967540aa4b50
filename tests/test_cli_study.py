"""`lightleak study` by the public door: what is wrong is one line, SIGTERM is Ctrl-C, settings are told apart."""

import json

import pytest

from test_cli import call

FILE = """
import os, signal
from lightleak.study.tasks import source

def tasks(stop=False, **world):
    if stop:
        os.kill(os.getpid(), signal.SIGTERM)
    return [source("faces", **{"people": 4, "images": 2, "size": 32, **world})]
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "mine.py").write_text(FILE)
    return tmp_path / "mine.py"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (("nonsense", 1), "has no setting nonsense"),
        (("people", "many"), "people is a whole number"),
        (("seed", 2**70), "a seed is a number below"),
    ],
)
@pytest.mark.parametrize("flags", [("--dry-run",), ()])
def test_settings_that_do_not_exist_are_one_line(file, tmp_path, capsys, settings, told, flags):
    assert call("study", file, "--out", tmp_path / "out", *flags, "--settings", *settings) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1
    assert not list(tmp_path.glob("out/*"))


def test_sigterm_is_ctrl_c(file, tmp_path, capsys):
    assert call("study", file, "--out", tmp_path / "out", "--settings", "stop", True) == 130
    assert "the same command again continues" in capsys.readouterr().err


def test_a_file_whose_name_is_no_text_is_a_file(tmp_path, capsys):
    name = tmp_path / "\udcff.py"
    name.write_text(FILE)
    assert call("study", name, "--out", tmp_path / "out", "--dry-run") == 0
    assert "1 tasks to run" in capsys.readouterr().out


def test_status_says_that_settings_differ(file, tmp_path, capsys):
    out = tmp_path / "out"
    (out / "Evaluate" / "key").mkdir(parents=True)
    about = {"title": "T", "command": "c", "evaluations": ["key"], "settings": {"people": 8}}
    (out / "study.json").write_text(json.dumps(about))
    assert call("study", "status", file, "--out", out, "--settings", "people", 8) == 0
    assert "was run with" not in capsys.readouterr().out
    assert call("study", "status", file, "--out", out, "--settings", "people", 12) == 0
    assert "was run with people 8; this is how it stands with people 12" in capsys.readouterr().out.replace("\n", " ")


def test_who_is_named_twice_is_refused(tmp_path, capsys):
    from lightleak.models import zoo
    from lightleak.models.classifier import save

    save(zoo.build("face:ir18-narrow", 4, 32), tmp_path / "t.safetensors")
    found = ("--target", tmp_path / "t.safetensors", "--out", tmp_path / "f.safetensors")
    assert call("attack", *found, "--classes", 0, 0) == 2
    assert "class 0 is named twice" in capsys.readouterr().err
