"""What a study will cost is estimated from its networks, its pictures and its searches."""

from dataclasses import replace
from pathlib import Path

import pytest

from lightleak.attacks import PRESETS, RLBMI, VMI, MIFace
from lightleak.study import Store, load, schedule
from lightleak.study.amounts import SMALL, multiply_adds
from lightleak.study.comparison import Demo
from lightleak.study.tasks import Invert

STUDIES = Path(__file__).parent.parent / "studies"
STUDY = STUDIES / "paper_scale_faces.py"


def test_multiply_adds_are_those_of_the_literature():
    """ResNet-18 at 224 pixels: 1.8 thousand million; a quarter of the side, a sixteenth of the work, near enough."""
    whole = multiply_adds("timm:resnet18", 224)
    assert whole == pytest.approx(1.82e9, rel=0.02)
    assert multiply_adds("timm:resnet50", 224) == pytest.approx(4.1e9, rel=0.02)
    assert multiply_adds(*SMALL) == pytest.approx(whole * (64 / 224) ** 2, rel=0.05)
    assert multiply_adds("timm:no_such_network", 64) is None


# Seconds of one core, whose other core was as busy, of tasks of `rolss_by_truth` and of the whole demo.
RECORDED = {
    "Draw": 6.0,
    "TrainTarget": 91.0,
    "TrainJudge": 120.0,  # a ResNet-14t
    "Score": 3.0,
    "PPA": 45.0,
    "Guess": 1.5,
    "MeasurePrivate": 2.7,
    "Evaluate": 4.6,
}
DEMO = 243.0


def kind_of(task):
    return type(task.attack).__name__ if isinstance(task, Invert) else task.name


def test_tasks_are_thought_to_take_what_they_took(tmp_path):
    """Within a factor of two, before anything was ever run."""
    tasks = schedule(load(STUDIES / "rolss_by_truth.py", worlds=1), Store(tmp_path)).todo
    told = {}
    for task in tasks:
        if not (task.name in ("TrainJudge", "MeasurePrivate") and "densenet" in repr(task)):
            told.setdefault(kind_of(task), task.cost)
    assert told.keys() == {*RECORDED, "Rendered"}
    for kind, seconds in RECORDED.items():
        assert seconds / 2 < told[kind] < 2 * seconds, kind


def test_the_demo_is_thought_to_take_what_it_took(tmp_path):
    told = schedule(Demo().tasks(), Store(tmp_path)).total(1)
    assert DEMO / 2 < told < 2 * DEMO


def test_what_a_task_repeats_is_counted_by_hand():
    """The demo's targets, attacks and judgements; 16 people, 16 images each, 22 of each public person."""
    setting = Demo().setting()
    mine, others = (setting.target((), 0, people) for people in ("private", "public"))
    assert [part.images for part in mine.amounts()[:2]] == [10 * 8 * 32, 10 * 16 * 4 + 16 * 16 + 16 * 10]
    assert others.amounts()[0].images == 10 * 7 * 32  # seven tenths of 352 are 246: seven batches of 32
    attack = setting.inverted(mine)
    assert [part.images for part in attack.amounts()[:2]] == [16 * 3 * 24, 16 * 3 * 10]
    assert attack.scored.amounts()[0].images == 2 * 300  # and mirrored
    (evaluation, *_) = Demo().tasks()
    assert [part.images for part in evaluation.amounts()[:2]] == [4 * 32, 5 * (16 + 32)]
    (drawn,) = setting.population.amounts()
    assert (drawn.images, drawn.size) == (16 * (16 + 4 + 10 + 40) + 16 * 22, 48)
    halves = replace(attack, parts=2).shards
    assert sum(half.amounts()[0].images for half in halves) == 16 * 3 * 24
    assert replace(attack, parts=2).amounts() == ()


def test_searches_by_queries_and_of_many_views_count_what_they_show():
    setting = Demo().setting()
    target = setting.target((), 0)
    for attack, images in (
        (RLBMI(queries=640), 16 * 640),
        (VMI(attempts=5, steps=30, draws=32), 16 * 30 * 32),
        (MIFace(attempts=2, steps=7, start="noise"), 16 * 2 * 7),
        (replace(PRESETS["ppa"]["taa"], steps=3), 16 * 100 * 50 * 3),
    ):
        assert Invert(target, setting.prior_for(target), attack).amounts()[0].images == images


def test_each_token_counts():
    """ViT-B/16 at 224 pixels: 197 tokens through four projections and two wider ones in each of twelve blocks."""
    blocks = 12 * 197 * (4 * 768 * 768 + 2 * 768 * 3072)
    assert multiply_adds("timm:vit_base_patch16_224", 224) == pytest.approx(blocks + 196 * 768 * 768, rel=0.001)


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
