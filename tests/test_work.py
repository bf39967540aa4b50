"""What a study will cost is estimated from its networks, its pictures and its searches."""

from pathlib import Path

import pytest

from lightleak.attacks import PPA
from lightleak.study import Store, load, schedule
from lightleak.study.comparison import Setting
from lightleak.study.tasks import source
from lightleak.study.tasks.work import SMALL, multiply_adds, times_small

STUDY = Path(__file__).parent.parent / "studies" / "paper_scale_faces.py"


def test_multiply_adds_are_those_of_the_literature():
    """ResNet-18 at 224 pixels: 1.8 thousand million; a quarter of the side, a sixteenth of the work, near enough."""
    whole = multiply_adds("timm:resnet18", 224)
    assert whole == pytest.approx(1.82e9, rel=0.02)
    assert multiply_adds("timm:resnet50", 224) == pytest.approx(4.1e9, rel=0.02)
    assert multiply_adds(*SMALL) == pytest.approx(whole * (64 / 224) ** 2, rel=0.05)
    assert times_small("timm:no_such_network", 64) == 1.0


def test_the_small_world_costs_what_it_always_did():
    target = Setting(source("faces", people=56, images=12)).target((), 0)
    assert target.cost == pytest.approx(3.0 * target.recipe.epochs)
    attack = PPA(attempts=3, keep=2, steps=50)
    setting = Setting(source("faces", people=56), attack=attack)
    assert setting.inverted(setting.target((), 0)).cost == pytest.approx(20.0)


def test_the_study_at_the_papers_scale_says_how_long_it_takes(tmp_path):
    tasks = load(STUDY)
    assert len(tasks) == 4
    kinds = [task.name for task in schedule(tasks, Store(tmp_path)).todo]
    assert kinds.count("TrainTarget") == 5  # four targets, and the null's
    assert kinds.count("Invert") == 9
    assert kinds.count("TrainJudge") == 1
    hours = schedule(tasks, Store(tmp_path)).total(1) / 3600
    assert 5 < hours < 200  # of a processor
    small = load(STUDY, architecture="timm:resnet10t", size=32, people=10, attacked=5)
    assert schedule(small, Store(tmp_path)).total(1) < 3600
