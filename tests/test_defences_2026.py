"""The study of defences of today: complete as planned, strengths by the written rule, and in miniature."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lightleak.attacks import PPA
from lightleak.attacks.adaptive import ADAPTIVE
from lightleak.attacks.surrogate import Lessons
from lightleak.defences import DEFENCES, LoFt, RoLSS
from lightleak.errors import UserError
from lightleak.metrics.registry import METRICS
from lightleak.report.collect import collect
from lightleak.study import Store, run
from lightleak.study.comparison import Setting
from lightleak.study.pool import load_module
from lightleak.study.tasks import TrainTarget, source
from lightleak.training import RECIPES, CheckpointCriterion

FILE = Path(__file__).parent.parent / "studies" / "defences_2026.py"
POPULATION = source(
    "faces", people=4, images=6, size=32, lookalikes=2, public_people=4, public_images=10, judge_images=6
)
ATTACK = PPA(candidates=8, attempts=1, keep=1, steps=2, milestones=(), views=2)
NETWORK = "timm:test_resnet"
TINY = Setting(
    POPULATION,
    architecture=NETWORK,
    recipe=replace(RECIPES["small"], epochs=2, batch=8),
    judge="timm:test_resnet",
    judge_recipe=replace(RECIPES["judge"], epochs=1, batch=8),
    attack=ATTACK,
    seeds=(0,),
    checkpoints=tuple(CheckpointCriterion(accuracy=share) for share in (0.3, 0.6)),
)


@pytest.fixture
def study(tmp_path, monkeypatch):
    found = load_module("defences_2026_rehearsed", FILE)
    monkeypatch.setattr(found, "STRENGTHS", tmp_path / "strengths.json")
    monkeypatch.setattr(found, "RATES", {NETWORK: TINY.recipe.rate})
    monkeypatch.setattr(found, "WORLDS", (TINY,))
    monkeypatch.setattr(found, "LESSONS", Lessons(epochs=1, batch=8, pretrained=False))
    return found


@pytest.mark.parametrize("file", sorted(FILE.parent.glob("*.py")), ids=lambda file: file.stem)
def test_what_a_study_declares_is_measured(file):
    """A study that declares a measure which does not exist is refused before it runs."""
    assert set(getattr(load_module(f"{file.stem}_declared", file), "PRIMARY", ())) <= set(METRICS)


def test_strengths_are_the_strongest_that_lose_five_points_at_most(study):
    told = {"none": [0.9], "A": [0.9, 0.86, 0.84], "B": [0.8, 0.7], "C": [0.7, 0.85]}
    assert study.FACES.chosen_of(told) == {"A": 1, "B": 0, "C": 1}
    assert {type(task) for task in study.tasks(NETWORK)} == {TrainTarget}  # nobody is attacked before that


def test_everything_that_was_promised_is_planned(study):
    study.STRENGTHS.write_text(json.dumps({NETWORK: {"chosen": {name: 0 for name in study.SWEEP if name != "none"}}}))
    planned = study.tasks(NETWORK)
    assert len({(task.name, task.key) for task in planned}) == len(planned)
    evaluated = [task for task in planned if task.name == "Evaluate"]
    titles = {task.found.target.title for task in evaluated}
    rows = {title.partition(" (")[0] for title in titles}
    promised = {kind.title for name, kind in DEFENCES.items() if name != "dp"}
    assert promised | {"no defence"} <= rows
    over = {"BiDO", "MID", "NegLS", "TL-DMI", "AT-AT", "MIDRE", "LoFt", "CALoR", "Trap-MID"}
    assert {f"RoLSS + {name}" for name in over} <= rows
    assert {f"{name}, retrofitted" for name in ("RoLSS", "RoLSS+", "SSF")} <= titles
    plain = {"no defence", "RoLSS"}
    losses = {task.found.attack.loss for task in evaluated if task.found.target.title in plain}
    assert losses == {"poincare", "max-margin"}
    for name, kind in DEFENCES.items():
        for known in ADAPTIVE[name]:
            own = [task for task in evaluated if task.found.target.title.startswith(kind.title)]
            attack = known.attack(ATTACK)
            assert any(task.found.attack == attack for task in own), (name, known.name)


def test_a_part_of_it_is_asked_for_by_settings(study, monkeypatch):
    monkeypatch.setattr(study, "WORLDS", (TINY, replace(TINY, seeds=(1,))))
    study.STRENGTHS.write_text(json.dumps({NETWORK: {"chosen": {name: 0 for name in study.SWEEP if name != "none"}}}))

    def parts(tasks):
        found = [task.found.target for task in tasks if task.name == "Evaluate"]
        return {target.seed for target in found}, any(target.title.startswith("RoLSS + ") for target in found)

    assert parts(study.tasks(NETWORK)) == ({0, 1}, True)
    assert parts(study.tasks(NETWORK, worlds="1", combined="no")) == ({0}, False)
    over = study.tasks(NETWORK, worlds="1", combined="only", part="plain")
    titles = {task.found.target.title.partition(" (")[0] for task in over if task.name == "Evaluate"}
    assert {"no defence", "RoLSS", "RoLSS + BiDO"} <= titles
    assert not titles & {"BiDO", "RoLSS, retrofitted"}
    assert {task.name for task in study.tasks(NETWORK, part="costs")} == {"Costs", "Utility"}
    with pytest.raises(UserError, match="combined is one of yes, no, only"):
        study.tasks(NETWORK, combined="none")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_study_in_miniature(study, monkeypatch):
    monkeypatch.setattr(study, "SWEEP", {"none": ((),), "LoFt": ((LoFt(16),), (LoFt(4),))})
    monkeypatch.setattr(study, "LOSSES", ("poincare",))
    monkeypatch.setattr(study, "SURGERY", ((RoLSS(),),))
    store = Store(study.STRENGTHS.parent / "store").open()
    assert not run(study.tasks(NETWORK), store, workers=1)
    study.STRENGTHS.write_text(json.dumps({NETWORK: study.FACES.choose(store, study.sweep(NETWORK))}))
    planned = study.tasks(NETWORK)
    failures = run(planned, store, workers=1)
    assert not failures, [str(failure.error) for failure in failures.values()]
    done = [task for task in planned if task.name == "Evaluate" and not store.absent(task)]
    folders = [store.folder(task) for task in done if task.found.attack == TINY.attack]
    costs = [store.folder(task) for task in planned if task.name in ("Costs", "Utility")]
    rows = {row.name: row for row in collect(folders, "", costs=costs).targets()}
    assert {"no defence", "RoLSS", "RoLSS, retrofitted"} <= set(rows)
    assert {"robust", "calibration", "memory", "training"} <= set(rows["RoLSS"].measures)
    lessened = {task.found.target.title for task in done}
    assert {"RoLSS, a copy by its gradients", "LoFt (rank 16), a copy by its labels"} <= lessened or len(lessened) > 8
