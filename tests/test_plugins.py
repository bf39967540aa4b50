"""Packages that add something to Lightleak are found in help, studies and reports; clashes harm nobody."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightleak import attacks, defences
from lightleak.attacks import ATTACKS, Guess, Oracle
from lightleak.metrics import registry
from lightleak.plugins import Registry
from lightleak.priors import RenderedPrior

EXAMPLE = Path(__file__).parents[1] / "examples" / "my_attack"

TOY = '''
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from lightleak.attacks import Attack, Found
from lightleak.metrics.metric import Metric
from lightleak.training.plan import Plan


@dataclass(frozen=True)
class ToyAttack(Attack):
    """Draws once."""

    attempts: int = 1
    keep: int = 1
    steps: int = 1
    batch: int = 8
    access: ClassVar[str] = "scores"
    title: ClassVar[str] = "Toy-MI"

    def search(self, oracle, prior, part, tell):
        tell(1)
        return Found(part.latents(prior))


@dataclass(frozen=True)
class ToyDefence:
    """Puts a module into the network that does nothing."""

    title: ClassVar[str] = "Toy Shield"

    def plan(self, recipe):
        return Plan(changes=((0, lambda it: it.with_net(grown(it.net, CHANGE), change=CHANGE)),))


CHANGE = {"kind": "toy"}


def grown(net, change):
    """What a checkpoint's recipe does again."""
    net = deepcopy(net)
    net.toy = nn.BatchNorm2d(3)
    return net


brightness = Metric("toy brightness", "mean of all pixels", 0, of=lambda it: it.reconstruction.floats().mean((1, 2, 3)))
'''
POINTS = {
    "lightleak.attacks": {"toy": "toy_leak:ToyAttack", "guess": "toy_leak:ToyAttack"},
    "lightleak.defences": {"toy": "toy_leak:ToyDefence", "gone": "toy_leak:Nowhere", "absent": "no_such_module:It"},
    "lightleak.changes": {"toy": "toy_leak:grown"},
    "lightleak.metrics": {"toy": "toy_leak:brightness", "wrong": "toy_leak:CHANGE"},
}
STUDY = """
from toy_leak import ToyAttack, ToyDefence

from lightleak.study.comparison import Setting
from lightleak.study.tasks import source
from lightleak.training import Recipe

WORLD = dict(people=4, images=4, size=32, public_people=4, public_images=2, judge_images=4, validation_images=2)
RECIPE = Recipe(epochs=1, batch=8, precision="float32")

def tasks():
    population = source("faces", **WORLD, test_images=2)
    setting = Setting(
        population, "timm:resnet10t", RECIPE, judge="timm:resnet10t", judge_recipe=RECIPE, attack=ToyAttack()
    )
    return [setting.evaluated(setting.target((ToyDefence(),), 0), {})]
"""


def package(folder, name="toy_leak", text=TOY, points=POINTS):
    """Install a package of one module into a folder, as pip leaves it."""
    (folder / f"{name}.py").write_text(text)
    about = folder / f"{name}-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 0.1\n")
    lines = [f"[{group}]\n" + "".join(f"{key} = {at}\n" for key, at in own.items()) for group, own in points.items()]
    (about / "entry_points.txt").write_text("\n".join(lines))
    return folder


def fresh(registry: Registry, own) -> Registry:
    """The same registry before anybody looked."""
    return Registry(registry.group, dict(own), registry._fits, registry._what)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(package(tmp_path))
    yield tmp_path
    sys.modules.pop("toy_leak", None)


@pytest.mark.usefixtures("installed")
def test_what_is_installed_comes_in_by_name_and_clashes_are_one_line(caplog):
    with caplog.at_level(logging.WARNING, "lightleak"):
        known = fresh(ATTACKS, attacks.OURS)
        assert known["ppa"] is ATTACKS["ppa"]
        assert "toy_leak" not in sys.modules  # our own names cost nothing
        assert [*known] == [*attacks.OURS, "toy"]
        assert known["toy"].__name__ == "ToyAttack"
        assert known["guess"] is Guess
    (told,) = caplog.messages
    assert told == (
        "lightleak: the plug-in 'guess' in lightleak.attacks of the package toy-leak is left out: the name is taken"
    )


@pytest.mark.usefixtures("installed")
def test_what_cannot_be_imported_or_is_something_else_is_left_out(caplog):
    with caplog.at_level(logging.WARNING, "lightleak"):
        assert [*fresh(defences.DEFENCES, defences.OURS)] == [*defences.OURS, "toy"]
        assert "wrong" not in fresh(registry.METRICS, registry.OURS)
    absent, gone, wrong = caplog.messages
    assert "'absent'" in absent
    assert "No module named 'no_such_module'" in absent
    assert "'gone'" in gone
    assert "AttributeError" in gone
    assert wrong.endswith("toy_leak:CHANGE is no lightleak.metrics.metric.Metric")
    assert not any("\n" in line for line in caplog.messages)


RUN = """
import sys
from lightleak import cli

def call(*arguments):
    try:
        cli.main([str(one) for one in arguments])
    except SystemExit as error:
        return error.code or 0
    return 0

print(call("attack", "--help"), "ATTACK")
print(call("train", "--help"), "TRAIN")
print(call("evaluate", "--help"), "EVALUATE")
if __name__ == "__main__" and len(sys.argv) > 1:
    print(call("study", sys.argv[1], "--out", sys.argv[2], "--here", 1), "STUDY")
    from pathlib import Path
    from lightleak import load
    (file,) = Path(sys.argv[2]).glob("TrainTarget/*/target.safetensors")
    print("LOADED", hasattr(load(file).net, "toy"))
"""


def ran(folder, *arguments):
    """What one process says that has the folder's packages."""
    source = str(Path(__file__).parents[1] / "src")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), source]), "COLUMNS": "250"}
    (folder / "script.py").write_text(RUN)
    command = [sys.executable, folder / "script.py", *arguments]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_toy_of_each_kind_is_in_the_help_in_a_study_and_in_its_report(tmp_path):
    package(tmp_path)
    (tmp_path / "mine.py").write_text(STUDY)
    said = ran(tmp_path, "mine.py", tmp_path / "out")
    attack, rest = said.split("0 ATTACK")
    train, rest = rest.split("0 TRAIN")
    measure, rest = rest.split("0 EVALUATE")
    assert "attack:toy-attack" in attack
    assert "dp, toy" in " ".join(train.split())
    assert "toy" in measure.split("Example")[0]
    assert "0 STUDY" in rest
    assert "LOADED True" in rest  # by the change that the package registered
    page = (tmp_path / "out" / "report.html").read_text()
    for told in ("Toy-MI", "Toy Shield", "toy brightness"):
        assert told in page


@pytest.mark.slow
def test_the_template_of_an_attack_installs_and_is_found(tmp_path):
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    copy = tmp_path / "source"
    copy.mkdir()
    for file in EXAMPLE.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    subprocess.run([*command, "--target", tmp_path / "there", copy], check=True, timeout=300)
    assert "attack:best-of" in ran(tmp_path / "there")


def test_the_templates_attack_draws_by_class_and_seed_alone(monkeypatch, tiny_target):
    monkeypatch.syspath_prepend(EXAMPLE)
    from my_attack import BestOf  # pyright: ignore[reportMissingImports]

    def found(classes, **settings):
        attack = BestOf(**{"steps": 3, **settings})
        rng = torch.Generator().manual_seed(0)
        return attack.run(Oracle(tiny_target, "scores"), RenderedPrior(size=32), torch.tensor(classes), rng)

    both, alone, one = found([0, 3]), found([3], batch=1), found([0, 3], steps=1)
    torch.testing.assert_close(both.latents[both.classes == 3], alone.latents)
    assert (both.confidence >= one.confidence - 1e-4).all()
    assert both.queries == one.queries + 2 * 2 * 2
