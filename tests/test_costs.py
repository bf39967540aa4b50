"""What a defence costs: memory by hand, every defence timed, and robust accuracy and calibration in the report."""

import dataclasses

import pytest
import torch

from lightleak.defences import DEFENCES, TrapMID
from lightleak.report.collect import _priced_by_title
from lightleak.study import Store, run
from lightleak.study.costs import Costs, Utility, kept, shown
from lightleak.study.record import CostsRecord, read_costs
from lightleak.study.tasks import TrainTarget, source
from lightleak.training import RECIPES


def test_what_a_step_keeps_is_counted_once_and_only_while_it_lives():
    weight = torch.rand(4, 8, requires_grad=True)
    images = torch.rand(16, 4)

    def once():
        ((images @ weight).sin().square().sum()).backward()

    def twice():
        once()
        once()

    shared = 4 * 16 * 8
    one = kept(once, {id(weight)})
    assert one == 4 * 16 * 4 + 2 * shared  # the images, and the inputs of sine and square
    assert kept(twice, {id(weight)}) == one


POPULATION = source("faces", people=4, images=4, size=32, public_people=2, public_images=5, judge_images=1)
RECIPE = dataclasses.replace(RECIPES["small"], epochs=4, batch=8, precision="float32")


def test_ratios_are_near_what_the_papers_boxes_say(tmp_path):
    store = Store(tmp_path).open()
    ways = {
        TrapMID(augment=False): (2, 12),
        DEFENCES["calor"](): (1.8, 4),  # four epochs and five more
    }
    tasks = {way: Costs(POPULATION, "timm:test_resnet", RECIPE, (way,), rounds=1, steps=1) for way in ways}
    target = TrainTarget(POPULATION, "timm:test_resnet", dataclasses.replace(RECIPE, epochs=1))
    assert not run([*tasks.values(), Utility(target)], store, workers=1)
    for way, (low, high) in ways.items():
        told = store.result(tasks[way])
        assert low < told["training"] < high, way.title
        assert 0.9 < told["memory"] < 4, way.title
    told = store.result(Utility(target))
    assert told["robust"] <= told["accuracy"] == store.result(target)["accuracy"]
    assert 0 <= told["calibration"] <= 1
    assert read_costs(store.folder(Utility(target))).robust == told["robust"]


def test_utilities_stand_beside_costs_and_are_means_of_trainings():
    told = [
        CostsRecord("A", training=2.0, memory=1.5),
        CostsRecord("A", robust=0.2, calibration=0.1),
        CostsRecord("A", robust=0.4, calibration=0.3),
        CostsRecord("B", robust=0.5),
    ]
    found = _priced_by_title(told)
    assert found["A"] == {"training": 2.0, "memory": 1.5, "robust": pytest.approx(0.3), "calibration": 0.2}
    assert found["B"] == {"robust": 0.5}


def test_a_utility_names_its_target():
    target = TrainTarget(POPULATION, "timm:test_resnet", RECIPE, (DEFENCES["midre"](),), 3)
    assert Utility(target).label == "utility of test_resnet (MIDRE), seed 3"
    assert target in Utility(target).needs()


def test_passes_over_few_images_count_where_public_training_comes_first():
    """50 public and 100 private images are both shown so often that a training takes 400 steps of 10 images."""
    recipe = dataclasses.replace(RECIPE, epochs=4, batch=10, least_steps=400)
    assert shown(recipe, 50) == shown(recipe, 100) == 4000
    assert shown(dataclasses.replace(recipe, epochs=8), 100) == 4000
    assert shown(dataclasses.replace(recipe, least_steps=0), 100) == 400
