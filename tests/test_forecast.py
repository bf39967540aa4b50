"""What a study will take, from a few steps of each kind: the arithmetic by counted clocks, the whole by a small run."""

import itertools
import math
import os
import time
from dataclasses import replace

import pytest
import torch

from lightleak import forecast
from lightleak.attacks import PPA
from lightleak.data.factors import CIRCUMSTANCES
from lightleak.defences import RoLSS
from lightleak.forecast import Pace, crowding, expected
from lightleak.priors.fit import KED_QUICK, QUICK
from lightleak.study import Store, run, schedule
from lightleak.study.amounts import Amount
from lightleak.study.comparison import Demo, Setting, compare
from lightleak.study.tasks import source
from lightleak.training import RECIPES


class Clock:
    """A clock that only the work moves."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def work(self, *durations):
        left = iter(durations)

        def job(*_):
            self.now += next(left)

        return job


def test_the_first_step_is_not_counted_and_long_ones_are_few():
    for durations, seconds in (((0.9, 0.01, 0.03, 0.02), 0.02), ((9.0, 5.0), 5.0), ((0.2, 0.6, 0.4), 0.5)):
        clock = Clock()
        assert forecast.timed(clock.work(*durations), clock) == pytest.approx(seconds)
        assert clock.now == pytest.approx(sum(durations))  # nothing more was done


def test_a_fit_is_its_start_its_warm_up_and_its_steps(monkeypatch):
    clock, done = Clock(), []

    def fit(_, settings, **__):
        done.append((settings.warmup, settings.steps))
        clock.now += 2 + 0.5 * settings.warmup + 0.25 * settings.steps

    monkeypatch.setattr(forecast, "fit", fit)
    whole = forecast._fit_pace(Amount("fit", 1, size=32, fit=QUICK), clock)
    assert whole == pytest.approx(2 + 0.5 * 1000 + 0.25 * 250, rel=0.01)
    assert max(done) == (3, 1)  # and not the thousand steps of its warm-up
    asked = Amount("fit", 1, "timm:resnet10t", 32, 4, fit=KED_QUICK)
    assert forecast._fit_pace(asked, clock) == pytest.approx(2 + 0.5 * 1000 + 0.25 * 250, rel=0.01)


def test_a_painted_face_takes_the_drawing_of_its_grain(monkeypatch):
    """On the processor, whatever paints: on a card, most of the time."""
    clock, draw = Clock(), torch.randn

    def randn(*size, **how):
        clock.now += math.prod(size)
        return draw(*size, **how)

    monkeypatch.setattr(torch, "randn", randn)
    assert Pace(clock=clock).seconds(Amount("paint", 1, size=32)) == 3 * 32 * 32 + len(CIRCUMSTANCES)


def test_a_plan_is_seconds_an_image_times_images(monkeypatch):
    """Every kind of step is tried once, as one of the processes of the run would try it."""
    paces = {"train": 0.008, "look": 0.002, "search": 0.012, "paint": 0.003, "rest": 1.0}
    tried, threads = [], []

    def pace(amount, _):
        tried.append(amount)
        threads.append(torch.get_num_threads())
        return paces[amount.kind]

    monkeypatch.setattr(forecast, "_pace", pace)
    monkeypatch.setattr(forecast, "crowding", lambda *_: 1.5)
    before, tasks = torch.get_num_threads(), schedule(Demo().tasks(), Store("nowhere")).todo
    found = expected(tasks, workers=2)
    assert len(tried) == len(set(tried)) <= 9
    assert set(threads) == {max(1, (os.cpu_count() or 1) // 2)}
    assert torch.get_num_threads() == before
    for task in tasks:
        if task.name == "Rendered":
            continue
        assert found[task.key] == pytest.approx(1.5 * sum(paces[part.kind] * part.images for part in task.amounts()))
    assert len(found) == len(tasks) - 1


def test_a_kind_that_cannot_be_tried_stops_nobody():
    pace = Pace()
    unknown = Amount("look", 10, "timm:no_such_network", 32)
    assert pace.seconds(unknown) is None
    assert pace.seconds(Amount("rest", 2.5)) == 2.5
    ((kind, why),) = pace.failed.items()
    assert kind.architecture == "timm:no_such_network"
    assert why


def test_a_crowd_is_from_one_to_as_slow_as_in_turn():
    assert crowding(1) == 1.0
    assert crowding(3, lambda: 0.0) == 1.0  # a clock too coarse to tell
    ticks = itertools.count()
    assert 1.0 <= crowding(3, lambda: next(ticks)) <= 3.0


@pytest.mark.slow
def test_a_plan_is_within_a_factor_of_two_of_what_the_run_takes(tmp_path):
    """Both in processor time, of one thread, so that it does not matter what else the machine does."""
    population = source(
        "faces", people=8, images=16, size=48, lookalikes=4, public_people=8, public_images=22, judge_images=30
    )
    setting = Setting(
        population,
        "timm:resnet10t",
        replace(RECIPES["small"], epochs=4),
        judge_recipe=replace(RECIPES["judge"], epochs=2),
        attack=PPA(candidates=200, attempts=3, keep=2, steps=12, rate=0.05, views=10, batch=48),
    )
    tasks = compare(setting, ((), (RoLSS(),)))
    store, began, took = Store(tmp_path), {}, {}

    def listen(event):
        if event.kind == "started":
            began[event.task.key] = time.process_time()
        elif event.kind == "finished":
            took[event.task.key] = time.process_time() - began[event.task.key]

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        started = time.process_time()
        plan = expected(schedule(tasks, store).todo, Pace(clock=time.process_time))
        assert time.process_time() - started < 30
        assert run(tasks, store, listen=listen) == {}
    finally:
        torch.set_num_threads(before)
    assert sum(took.values()) / 2 < sum(plan.values()) < 2 * sum(took.values())
