"""Help, version and wrong command lines are answered without anything heavy, and as the verbs would answer."""

import contextlib
import importlib
import importlib.util
import io
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import tyro

from lightleak import cli
from lightleak.attacks import OURS
from lightleak.cli.outline import checked, described
from lightleak.cli.sources import REFUSED, Reader
from lightleak.errors import UserError
from lightleak.priors.fit import TRAININGS
from lightleak.version import __version__

RIGHT = [
    "demo --data folder:x --people 8",
    "skips timm:resnet18 --size 64 --json",
    "train --out x --recipe.epochs 2 --recipe.view.scale 0.5 1.0 --settings people 4 size 32 --judge",
    "train --out=x --recipe.batch=3 --device cuda:1",
    "protect --target x --out y --defence ssf --keep-accuracy 0.98 --data folder:z --epochs 2",
    "train --net m.py:Net --from w.pt --out x",
    "fit --out x training:kedmi --training.steps 5",
    "convert f.pth --out x --crop 5 --students a b --architecture timm:resnet18 --noise none",
    "attack --target x --out y --classes 0 3 attack:ppa --attack.steps 2",
    "attack --target x --out y --distillation.students a b --seed 3",
    "evaluate --found a --judge b --out c --no-published",
    "study a.py --here 2 --slurm-options a b --dry-run",
    "study a.py --slurm_options a b --mixed_protocols",
    "report x --show-private",
    "raters x --seconds 20 --results",
    "doctor --preset rolss --json",
    "attack --out y attack:gmi --attack.rate 0.1 attack.alignment:alignment --attack.alignment.copies 3",
    "attack --out y attack:miface --attack.process none",
    "fit --out x training:wgan-published --training.betas 0.5 1",
    "train --out x --recipe.milestones 0.5 --recipe.view.flip 0.5 --data digits --defence RoLSS,bido",
]
WRONG = [
    "demo --bogus", "skips", "train", "train --bogus --out x", "train --out x --size many", "fit --datta x --out y",
    "convert x --out y --noise some", "attack --target x --out y --presett z", "evaluate --found a", "study",
    "study a.py --here many", "report", "doctor --archi x", "train --out x --recipe.epochs 2 --bogus 3",
    # within settings
    "train --out x --recipe.epocs 2", "train --out x --recipe.epochs two", "train --out x --recipe.epochs 0",
    "train --out x --recipe.view.scale 0.5", "train --out x --recipe.milestones 3", "train --out x --settings people",
    "attack --out x attack:nope", "attack --out x attack:ppa --attack.step 3",
    "attack --out x attack:gmi --attack.rate a", "attack --out x attack:ppa --attack.steps -2",
    "attack --out x attack:kedmi --attack.loss l",
    "fit --out x training:nope", "fit --out x training:kedmi --training.steps some",
    "attack --out x --distillation.student a", "convert x --out y --class-order up",
    # what is not there, and what is out of range
    "train --out x --data nope", "train --out x --data folder:nowhere", "train --out x --defence rolss,nope",
    "train --out x --device gpu", "train --out x --architecture resnet18", "train --out x --size 0",
    "attack --out x --target nope", "attack --out x --prior nope", "skips nope",
    "evaluate --found nope --out x", "study nope.py", "report nope", "convert nope --out x", "demo --people 0",
]  # fmt: skip


def accepts(line):
    verb, *rest = line.split()
    stand_in, readable = checked(verb, rest)
    try:
        tyro.cli(stand_in, args=readable, console_outputs=False).check()
    except (SystemExit, UserError):
        return False
    return True


@pytest.fixture(autouse=True)
def _files(tmp_path, monkeypatch):
    """What the right command lines name is there."""
    monkeypatch.chdir(tmp_path)
    for name in ("x", "z", "a", "b", "f.pth", "a.py"):
        (tmp_path / name).touch()


@pytest.mark.parametrize("line", RIGHT)
def test_the_stand_in_takes_what_is_right(line):
    assert accepts(line)


@pytest.mark.parametrize("line", WRONG)
def test_the_stand_in_refuses_what_is_wrong(line):
    assert not accepts(line)


def told(function, words):
    """The flags and choices in a verb's help."""
    with pytest.raises(SystemExit), contextlib.redirect_stdout(io.StringIO()) as out:
        tyro.cli(function, args=[*words, "--help"])
    text = out.getvalue()
    return set(re.findall(r"--[a-z0-9.-]*[a-z0-9]", text)) | set(re.findall(r"(?:attack|training):[\w-]+", text))


@pytest.mark.parametrize("words", [*cli.VERBS, "attack attack:gmi", "fit training:kedmi"])
def test_the_stand_in_has_every_flag_of_its_verb(words):
    """Nothing of our own is hidden from it: otherwise a mistake there would cost the import of torch."""
    verb, *words = words.split()
    real = importlib.import_module(f"lightleak.cli.{verb}").main
    stand_in, readable = checked(verb, words)
    assert readable == words
    assert told(stand_in, words) == told(real, words)
    assert described(verb).__doc__.splitlines()[0] == real.__doc__.splitlines()[0]


@pytest.mark.parametrize("real", [*OURS.values(), *dict.fromkeys(type(each) for each in TRAININGS.values())])
def test_settings_are_read_from_their_source(real):
    """Without the module, a class has the same fields and defaults, and refuses what it refuses."""
    read = Reader().names(real.__module__)[real.__name__]
    assert [one.name for one in fields(read)] == [one.name for one in fields(real)]
    assert repr(read()) == repr(real())
    assert REFUSED not in vars(read())
    assert REFUSED in vars(read(batch=0))


def test_nothing_heavy_is_imported_for_an_answer_that_needs_none():
    """All of them in one process: neither of them may import torch."""
    lines = [["--help"], ["--version"], ["nonsense"], [], *(line.split() for line in WRONG)]
    code = f"""
import sys
from lightleak import cli
for line in {lines!r}:
    try:
        cli.main(line)
        told = 0
    except SystemExit as end:
        told = end.code or 0
    print('ANSWER', told, sorted({{'torch', 'timm', 'torchvision', 'sklearn', 'numpy'}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER")]
    assert answers == ["ANSWER 0 []"] * 2 + ["ANSWER 2 []"] * (len(lines) - 2)
    assert f"lightleak {__version__}" in done.stdout
    for verb in cli.VERBS:
        assert verb in done.stdout
    assert "Traceback" not in done.stderr


def test_the_benchmark_prints_both(capsys):
    file = Path(__file__).parent.parent / "benchmarks" / "startup.py"
    spec = importlib.util.spec_from_file_location("benchmark_startup", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.main(["--rounds", "1", "--quick"])
    assert found["lightleak --version"] < 2
    assert "lightleak --version" in capsys.readouterr().out
