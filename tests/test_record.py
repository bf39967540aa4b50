"""The record of an evaluation: typed, versioned, whole; old ones are read, bad ones are one line."""

import json
import math
from dataclasses import replace

import pytest

from lightleak.attacks import PPA, Guess
from lightleak.defences import SSF
from lightleak.errors import UserError
from lightleak.files import parsed
from lightleak.metrics.evaluation import Evaluation
from lightleak.metrics.evidence import Measure
from lightleak.report.fairness import entries, grouped
from lightleak.study.record import (
    AttackRecord,
    JudgeRecord,
    PopulationRecord,
    PriorRecord,
    Record,
    TargetRecord,
    read,
    read_made,
    specs_of,
)
from lightleak.study.tasks import Checkpoint, Evaluate, Invert, Rendered, TrainJudge, TrainTarget, source
from lightleak.study.whole import MADE
from lightleak.training import CheckpointCriterion as At

MEASURED = Evaluation(
    (0, 1),
    4,
    {"hits@1": Measure(0.5, 0.1, 0.9), "fid": None},
    {"hits@1": (0.0, 1.0)},
    {"hits@1": 0.5},
    {},
    Measure(1.0),
)
RECORD = Record(
    target=TargetRecord("SSF", "k", 3, "timm:resnet18", {"epochs": 2}, 0.75, (0.5, 1.0), 8, defences={"SSF": {}}),
    population=PopulationRecord("p", "faces", 48, 2, ("Ann", "Bob"), {"train": 4}, {"people": 2}, ("a note",)),
    attack=AttackRecord("PPA", settings={"steps": 70}, seed=3, classes=(0, 1), knowledge={"seed": 0}),
    prior=PriorRecord("Rendered", {"strength": 0.2}),
    judge=JudgeRecord("timm:resnet14t", 0.99, "a" * 64),
    evaluation=MEASURED,
    confidence=(0.9, 0.8, 0.7, 0.6),
    absent={"other people": "nobody is public"},
)
# As Lightleak 0.2 wrote it.
VERSION_1 = {
    "target": {
        "title": "SSF",
        "key": "k",
        "seed": 3,
        "architecture": "timm:resnet18",
        "recipe": {"epochs": 2},
        "moment": None,
        "run": "SSF",
        "defences": {"SSF": {"factor": 0.0001}},
        "accuracy": 0.75,
        "accuracy_of": [0.5, 1.0],
        "train_accuracy": 1.0,
        "test_images": 8,
        "parameters": 1000,
        "surgery": [{"kind": "scale"}],
        "best_epoch": 1,
        "epoch": 1,
        "validation_accuracy": 0.75,
        "privacy": None,
        "measured": {"epoch": [0, 1]},
    },
    "population": {
        "key": "p",
        "name": "faces",
        "class_names": ["Ann", "Bob"],
        "notes": [],
        "classes": 2,
        "size": 48,
        "images": {"train": 4},
        "settings": {"people": 2},
    },
    "attack": {"name": "PPA", "title": "", "steps": 70},
    "prior": "Rendered",
    "judge": {"architecture": "timm:resnet14t", "sha256": "a" * 64, "accuracy": 0.99, "loss": 0.1, "test_images": 8},
    "protocol": {"name": "rendered", "version": 1, "metrics": ["hits@1"]},
    "confidence": [0.9, 0.8],
    "evaluation": json.loads(json.dumps(MEASURED.to_json())),
}
PEOPLE = source("faces", people=6)
TARGET = TrainTarget(PEOPLE, checkpoints=(At(epoch=1),))
JUDGE = TrainJudge(PEOPLE)


def kept(folder, data, name="Evaluate/x"):
    place = folder / name
    place.mkdir(parents=True)
    (place / "result.json").write_text(data if isinstance(data, str) else json.dumps(data))
    return place


def test_a_record_is_read_as_it_was_written(tmp_path):
    assert read(kept(tmp_path, RECORD.to_json())) == RECORD


def test_a_record_of_version_1_is_read_as_far_as_it_goes(tmp_path):
    found = read(kept(tmp_path, VERSION_1))
    assert found.attack == AttackRecord("PPA", "", {"steps": 70})
    assert (found.prior, found.judge.sha256) == (PriorRecord("Rendered"), "a" * 64)
    assert found.target.accuracy_of == (0.5, 1.0)
    assert found.protocol is not None
    assert found.protocol.label == "rendered v1"
    assert found.settings == {}
    assert read(kept(tmp_path, found.to_json(), "Evaluate/again")) == found


def test_what_version_1_left_out_comes_from_its_store(tmp_path):
    task = Evaluate(Invert(TARGET, Rendered(PEOPLE, 0.2), Guess(), seed=7), JUDGE)
    for name, spec in specs_of(task).items():
        (tmp_path / name).mkdir(parents=True)
        # Until 0.2 a class stood as {"Guess": {its fields}}.
        text = json.dumps(spec, sort_keys=True)
        (tmp_path / name / "spec.json").write_text(
            text.replace('{"class": "Guess", "fields": {"keep": 3}, "version": 1}', '{"Guess": {"keep": 3}}')
        )
    folder = tmp_path / "Evaluate" / task.key
    (folder / "result.json").write_text(json.dumps(VERSION_1))
    found = read(folder)
    assert found.settings["found prior strength"] == 0.2
    assert found.settings["found seed"] == 7
    assert (found.settings["found attack"], found.settings["found attack keep"]) == ("Guess", 3)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "null"])
def test_numbers_that_are_none_are_missing(tmp_path, word):
    text = json.dumps(RECORD.to_json())
    for old in ('"accuracy_of": [0.5,', '"confidence": [0.9,', '"hits@1": {"value": 0.5,'):
        assert old in text
        text = text.replace(old, old[: old.index("0.")] + f"{word},")
    found = read(kept(tmp_path, text))
    assert not math.isfinite(found.confidence[0])
    assert found.evaluation.measures["hits@1"] is None
    assert found.evaluation.per_class == MEASURED.per_class
    assert not math.isfinite(found.target.accuracy_of[0])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no finished evaluation"),
        ("{", "no finished evaluation"),
        ("[]", "record"),
        ("{}", "evaluation"),
        ("[" * 100000, "no finished evaluation"),
        (json.dumps({**RECORD.to_json(), "version": 99}), "newer"),
        (json.dumps({**RECORD.to_json(), "version": "2"}), "version"),
        (json.dumps({**RECORD.to_json(), "target": {"title": 3}}), r"\$.target"),
        (json.dumps({**RECORD.to_json(), "confidence": "high"}), r"\$.confidence"),
        (json.dumps({**RECORD.to_json(), "protocol": 3}), "protocol"),
        (json.dumps({**RECORD.to_json(), "protocol": {"name": "mine", "version": 0}}), "protocol"),
        (json.dumps({**RECORD.to_json(), "evaluation": {"measures": 3}}), "evaluation"),
        (json.dumps({**RECORD.to_json(), "evaluation": {**MEASURED.to_json(), "measures": {"x": "y"}}}), "evaluation"),
    ],
)
def test_what_is_no_record_is_one_line_that_names_the_file(tmp_path, text, told):
    folder = kept(tmp_path, text)
    with pytest.raises(UserError, match=told) as caught:
        read(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def wholly(task):
    """A record that holds a task's settings and nothing else of interest."""
    target = task.found.target
    about = replace(RECORD.target, title=target.title, run=target.title, seed=target.seed, defences={}, moment=None)
    return replace(RECORD, target=about, task=f"Evaluate/{task.key}", specs=specs_of(task))


FOUND = Invert(TARGET, Rendered(PEOPLE), PPA())
VARIANTS = [
    Evaluate(FOUND, JUDGE),
    Evaluate(replace(FOUND, prior=Rendered(PEOPLE, 0.2)), JUDGE),
    Evaluate(replace(FOUND, prior=Rendered(source("faces", people=7))), JUDGE),
    Evaluate(replace(FOUND, seed=7), JUDGE),
    Evaluate(replace(FOUND, classes=(0, 1)), JUDGE),
    Evaluate(replace(FOUND, attack=PPA(steps=3)), JUDGE),
    Evaluate(replace(FOUND, attack=Guess()), JUDGE),
    Evaluate(FOUND, replace(JUDGE, seed=1)),
    Evaluate(FOUND, replace(JUDGE, recipe=replace(JUDGE.recipe, epochs=1))),
    Evaluate(FOUND, JUDGE, published=True),
    Evaluate(FOUND, JUDGE, nulls={"never optimised": replace(FOUND, attack=Guess())}),
    Evaluate(replace(FOUND, target=replace(TARGET, recipe=replace(TARGET.recipe, rate=0.5))), JUDGE),
    Evaluate(replace(FOUND, target=replace(TARGET, architecture="timm:vgg11")), JUDGE),
    Evaluate(replace(FOUND, target=replace(TARGET, people="public")), JUDGE),
    Evaluate(replace(FOUND, target=replace(TARGET, checkpoints=())), JUDGE),
]


def test_evaluations_with_keys_of_their_own_have_rows_of_their_own(tmp_path):
    assert len({task.key for task in VARIANTS}) == len(VARIANTS)
    groups = grouped(entries([(wholly(task), tmp_path / task.key) for task in VARIANTS]))
    assert [len(group.entries) for group in groups] == [1] * len(VARIANTS)
    assert len({group.name for group in groups}) == len(VARIANTS)
    assert [group.name for group in groups if not group.different] == [groups[0].name]


def test_defence_seed_and_checkpoint_are_held_equal(tmp_path):
    defended = Evaluate(replace(FOUND, target=replace(TARGET, defences=(SSF(),), seed=0)), JUDGE)
    stopped = Evaluate(replace(FOUND, target=Checkpoint(TARGET, 0)), JUDGE)
    second = Evaluate(replace(FOUND, target=replace(TARGET, seed=1), seed=1), JUDGE)
    found = entries([(wholly(task), tmp_path / task.key) for task in (VARIANTS[0], defended, stopped, second)])
    assert all(one.held == found[0].held for one in found)
    assert {"recipe epochs", "attack steps", "prior strength", "architecture"} <= set(found[0].held)


def test_half_a_character_is_damage(tmp_path):
    """No page and no file can hold it, so it is said where it is read."""
    for text in ('{"title": "\\ud800"}', '["a", {"\\uDFFF": 1}]'):
        with pytest.raises(ValueError, match="surrogates not allowed"):
            parsed(text)
    assert parsed('{"a": "\\ud83d\\ude00 \\\\ud800"}') == {"a": "\U0001f600 \\ud800"}  # a whole one, and five signs
    file = tmp_path / "evaluation.json"
    file.write_text('{"classes": ["\\ud800"]}')
    with pytest.raises(UserError, match="is no evaluation"):
        Evaluation.load(file)
    (tmp_path / MADE).write_text('{"seconds": 1.0, "version": "\\ud800"}')
    with pytest.raises(UserError, match="surrogates not allowed"):
        read_made(tmp_path)
