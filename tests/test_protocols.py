"""Protocols: what an evaluation must be to be counted under a name."""

from dataclasses import replace

import pytest
import torch

from lightleak.attacks import Guess, Reconstruction
from lightleak.errors import UserError
from lightleak.metrics.evaluate import reference
from lightleak.metrics.evaluation import METRICS
from lightleak.models import zoo
from lightleak.study import Store, plain
from lightleak.study.protocols import PROTOCOLS, Protocol, protocol
from lightleak.study.tasks import Evaluate, Invert, MeasurePrivate, Rendered, TrainJudge, TrainTarget, source

CELEBA = PROTOCOLS["celeba-300x5"]


def five_each(people: int = 300) -> torch.Tensor:
    return torch.arange(people).repeat_interleave(5)


def test_names_and_metrics_are_known():
    for name, one in PROTOCOLS.items():
        assert one.name == name
        assert set(one.metrics) <= set(METRICS)
        if one.judge is not None:
            assert zoo.names(one.judge.partition(":")[0])  # a library that exists
    assert protocol("celeba-300x5") is CELEBA
    with pytest.raises(UserError, match="known are celeba-300x5, paper-ppa"):
        protocol("celeba")


def test_the_published_counts():
    assert CELEBA.classes(1000) == tuple(range(300))
    CELEBA.check(five_each(), 1000, "face:facenet112", 112, 5)
    with pytest.raises(UserError, match="attacks 300 people, the target knows 40"):
        CELEBA.classes(40)
    paper = protocol("paper-ppa")
    paper.check(torch.arange(530).repeat_interleave(8), 530, "torchvision:inception_v3", 299, 16)
    assert Protocol("mine").classes(7) == tuple(range(7))


@pytest.mark.parametrize(
    ("found", "judge", "size", "attempts", "said"),
    [
        (five_each(299), "face:facenet112", 112, 5, "attacks the first 300 classes, not 299"),
        (five_each() + 1, "face:facenet112", 112, 5, "attacks the first 300 classes"),
        (torch.arange(300), "face:facenet112", 112, 5, "scores 5 images of each person, not 1"),
        (five_each(), "face:ir50", 64, 5, "its judge is face:facenet112, not face:ir50; its judge sees 112 x 112"),
        (five_each(), "face:facenet112", 112, 20, "makes 5 attempts at each person, not 20"),
    ],
)
def test_every_departure_is_named(found, judge, size, attempts, said):
    with pytest.raises(UserError, match=said):
        CELEBA.check(found, 1000, judge, size, attempts)


def test_impossible_protocols():
    with pytest.raises(UserError, match="keep must be at least 1, not 0"):
        Protocol("none", keep=0)
    with pytest.raises(UserError, match="of 3 attempts no 5 images"):
        Protocol("more", attempts=3, keep=5)


def test_a_version_is_part_of_an_evaluations_key():
    population = source("faces", people=4)
    found = Invert(TrainTarget(population), Rendered(population), Guess())
    one, other = (Evaluate(found, TrainJudge(population), protocol=replace(CELEBA, version=v)) for v in (1, 2))
    assert one.key != other.key != Evaluate(found, TrainJudge(population)).key
    assert plain(CELEBA)["name"] == "celeba-300x5"
    assert CELEBA.label == "celeba-300x5 v2"


def test_an_evaluation_that_departs_is_refused(tmp_path, tiny_population, tiny_judge, monkeypatch):
    population = source("faces", people=6)
    task = Evaluate(
        Invert(TrainTarget(population), Rendered(population), Guess(keep=2)),
        TrainJudge(population),
        protocol=Protocol("six", identities=6, keep=2, fid="judge"),
    )
    images, classes = tiny_population.train.floats()[:12], torch.arange(6).repeat_interleave(2)
    found = Reconstruction(images, classes, torch.zeros(12, 3), torch.rand(12))
    monkeypatch.setattr(Invert, "load", lambda *_: found)
    monkeypatch.setattr(TrainJudge, "load", lambda *_: tiny_judge)
    monkeypatch.setattr(type(population), "load", lambda *_: tiny_population)
    monkeypatch.setattr(Rendered, "load", lambda *_: None)
    monkeypatch.setattr(MeasurePrivate, "load", lambda *_: reference(tiny_judge, tiny_population))
    results = {
        "Invert": {},
        "Draw": {"name": "faces", "size": 48, "classes": 6, "class_names": []},
        "TrainTarget": {"accuracy": 1.0, "accuracy_of": [1.0] * 6, "test_images": 6},
        "TrainJudge": {"accuracy": 1.0},
    }
    monkeypatch.setattr(Store, "result", lambda _, task: results[task.name])
    told = task.run(Store(tmp_path), tmp_path, lambda *_, **__: None)
    assert told["protocol"]["name"] == "six"
    assert told["evaluation"]["measures"]["judge_fid"]["value"] > 0
    with pytest.raises(UserError, match="does not follow four v1: it scores 4 images"):
        replace(task, protocol=Protocol("four", keep=4)).run(Store(tmp_path), tmp_path, lambda *_, **__: None)
