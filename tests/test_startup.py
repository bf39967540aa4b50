"""Help, version and wrong command lines are answered without anything heavy, and as the verbs would answer."""

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

from lightleak import cli
from lightleak.cli.outline import checked, described
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
]
WRONG = [
    "demo --bogus", "skips", "train", "train --bogus --out x", "train --out x --size many", "fit --datta x --out y",
    "convert x --out y --noise some", "attack --target x --out y --presett z", "evaluate --found a", "study",
    "study a.py --here many", "report", "doctor --archi x", "train --out x --recipe.epochs 2 --bogus 3",
]  # fmt: skip


def accepts(line):
    verb, *rest = line.split()
    stand_in, readable = checked(verb, rest)
    try:
        tyro.cli(stand_in, args=readable, console_outputs=False)
    except SystemExit:
        return False
    return True


@pytest.mark.parametrize("line", RIGHT)
def test_the_stand_in_takes_what_is_right(line):
    assert accepts(line)


@pytest.mark.parametrize("line", WRONG)
def test_the_stand_in_refuses_what_is_wrong(line):
    assert not accepts(line)


@pytest.mark.filterwarnings("ignore:get_parser")  # deprecated; nothing else lists a parser's flags
@pytest.mark.parametrize("verb", cli.VERBS)
def test_the_stand_in_refuses_no_flag_of_its_verb(verb):
    def flags(function):
        return {flag for action in tyro.extras.get_parser(function)._actions for flag in action.option_strings}

    real = importlib.import_module(f"lightleak.cli.{verb}").main
    stand_in, _ = checked(verb, [])
    for flag in flags(real) - flags(stand_in):
        assert checked(verb, [flag, "1"])[1] == [], flag
    assert flags(stand_in) <= flags(real)
    assert described(verb).__doc__.splitlines()[0] == real.__doc__.splitlines()[0]


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
