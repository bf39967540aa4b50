"""A study over several worlds: one page, one paired difference a world, Student's t over them."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.stats import t as student
from scipy.stats import ttest_rel

from lightleak.cli.running import show
from lightleak.errors import UserError
from lightleak.metrics.evaluation import Evaluation
from lightleak.metrics.evidence import Measure, compare, seeds_interval
from lightleak.report.page import page
from lightleak.report.results import Results
from lightleak.report.study import NOTE, pages, studied
from lightleak.report.verdicts import verdict
from lightleak.study.loading import declared, load
from lightleak.study.record import AttackRecord, JudgeRecord, PopulationRecord, PriorRecord, Record, TargetRecord

PEOPLE, WORLDS = 8, 6
JUDGES = ("timm:resnet14t", "torchvision:densenet121")
TARGETS = ("none", "RoLSS", "TTS")
CHANCE = {"hits@1": 1 / 8, "true@1": 1 / 8, "member@1": 0.25}


def share(rng: np.random.Generator, level: float) -> tuple[float, ...]:
    return tuple((rng.binomial(2, level, PEOPLE) / 2).tolist())


PIXELS = {
    "classes": torch.arange(PEOPLE),
    "private": torch.zeros(PEOPLE, 3, 4, 4, dtype=torch.uint8),
    "reconstructed": torch.ones(PEOPLE, 3, 4, 4, dtype=torch.uint8),
}


def drawn(world: int, title: str, judge: str) -> Record:
    """An evaluation: by the truth the same whoever judges; RoLSS leaks a good deal less, TTS as much."""
    level = 0.2 if title == "RoLSS" else 0.8
    true = np.random.default_rng([world, TARGETS.index(title)])
    judged = np.random.default_rng([world, TARGETS.index(title), JUDGES.index(judge)])
    per_class = {"true@1": share(true, level), "member@1": share(true, level), "hits@1": share(judged, level)}
    null = {name: share(true, CHANCE[name]) for name in per_class}
    common = {"measures": {}, "chance": CHANCE, "missing": {}, "judge_accuracy": Measure(0.9)}
    people = tuple(range(PEOPLE))
    nulls = {"never optimised": Evaluation(people, 16, per_class=null, **common)}
    evaluation = Evaluation(people, 16, per_class=per_class, nulls=nulls, family_match_rate=0.1, **common)
    settings = {"people": PEOPLE, "lookalikes": 4, "seed": 100 + world}
    names = tuple(f"person {i}" for i in range(PEOPLE))
    accuracy = tuple(np.random.default_rng([world, 7]).binomial(10, 0.9, PEOPLE) / 10)
    return Record(
        target=TargetRecord(title, f"{title}{world}", 0, "timm:resnet18", {}, 0.9, accuracy, 80),
        population=PopulationRecord(f"p{world}", "faces", 48, PEOPLE, names, settings=settings),
        attack=AttackRecord("PPA", settings={"loss": "poincare"}),
        prior=PriorRecord("Rendered"),
        judge=JudgeRecord(judge, 0.9, sha256=judge + str(world)),
        evaluation=evaluation,
        confidence=(0.5,) * 16,
    )


def written(
    folder: Path, left_out: tuple[int, str] | None = None, changes: Sequence[Mapping[str, Any]] = ({},)
) -> Path:
    """A study's folder; each of `changes` is a copy of every evaluation with other fields of its record."""
    keys = []
    for world in range(WORLDS):
        for title in TARGETS:
            for judge in JUDGES:
                if (world, title) == left_out:
                    continue
                for number, change in enumerate(changes):
                    keys.append(f"{world}{title}{judge[:4]}{number}")
                    place = folder / "Evaluate" / keys[-1]
                    place.mkdir(parents=True)
                    record = replace(drawn(world, title, judge), **change)
                    (place / "result.json").write_text(json.dumps(record.to_json()))
                    save_file(PIXELS, place / "gallery.safetensors")
    about = {"title": "T", "command": "c", "evaluations": keys, "primary": ["true@1", "member@1"]}
    (folder / NOTE).write_text(json.dumps(about))
    return folder


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Results:
    (found,) = pages(studied(written(tmp_path_factory.mktemp("worlds"))))
    return found


def means(title: str, metric: str, judges=JUDGES) -> list[float]:
    return [
        float(np.mean([drawn(world, title, judge).evaluation.per_class[metric] for judge in judges]))
        for world in range(WORLDS)
    ]


def test_one_paired_difference_a_world_and_student_s_t_over_them(results: Results) -> None:
    assert [row.name for row in results.targets()] == list(TARGETS)
    for metric, judges in (("true@1", JUDGES), ("hits@1", JUDGES), ("hits@1 timm:resnet14t", JUDGES[:1])):
        name = metric.partition(" ")[0]
        for title in ("RoLSS", "TTS"):
            (gap,) = [one for one in results.differences if (one.row, one.column) == (title, metric)]
            expected = ttest_rel(means(title, name, judges), means("none", name, judges))
            assert gap.value == pytest.approx(
                np.subtract(means(title, name, judges), means("none", name, judges)).mean()
            )
            # Far out, where t is large, shares near an edge widen the interval a little.
            assert gap.p is not None
            assert gap.p == pytest.approx(expected[1], rel=1e-6) if expected[1] > 0.01 else gap.p < 0.001
            assert (gap.trainings, gap.worlds) == (1, WORLDS)


def test_p_is_corrected_over_the_defences_and_names_the_real_one_alone(results: Results) -> None:
    column = results.column("true@1")
    assert column is not None
    own = {one.row: one for one in results.differences if one.column == "true@1"}
    small, large = sorted((own["RoLSS"], own["TTS"]), key=lambda one: one.p or 0)
    assert small.corrected == pytest.approx(2 * (small.p or 0))
    assert large.corrected == pytest.approx(max(large.p or 0, small.corrected or 0))
    assert verdict(own["RoLSS"], column) == "less leak"
    assert verdict(own["TTS"], column) == ""


def test_page_says_how_it_was_tested_and_what_was_declared(results: Results) -> None:
    text = page(results)
    for part in ("Student's t over 6 worlds", "Declared before it ran", "6 worlds", "by densenet121", "Holm"):
        assert part.replace("'", "&#39;") in text or part in text, part
    assert results.primary == ("true@1", "member@1")
    assert Results.from_json(json.loads(json.dumps(results.to_json()))).tables == results.tables


def test_a_study_over_worlds_prints_its_table_and_writes_its_page(tmp_path, capsys) -> None:
    show(written(tmp_path), show_private=False)
    text = (tmp_path / "report.html").read_text()
    assert "trained on 8 rendered people, none of them real, in each of 6 worlds, attacked by PPA" in text
    said = " ".join(capsys.readouterr().out.split())
    assert "The truth finds the right person in" in said  # the measure that was declared, not the judge's
    assert "less leaks from RoLSS" in said


def test_every_value_behind_the_page_is_in_its_record(results: Results) -> None:
    stored = results.tables["RoLSS"]["true@1"]
    assert [len(world) for world in stored] == [1] * WORLDS
    assert np.mean(stored, axis=(1, 2)).tolist() == pytest.approx(means("RoLSS", "true@1"))
    assert results.families == (0,) * 4 + (1,) * 4


def test_nulls_and_chance_stand_below(results: Results) -> None:
    kinds = {row.name: row.kind for row in results.rows}
    assert kinds["null: never optimised"] == "null"
    chance = next(row for row in results.rows if row.kind == "chance")
    assert chance.measures["member@1"] == Measure(0.25)


def test_a_world_that_is_not_finished_is_left_out_of_that_difference_alone(tmp_path) -> None:
    (found,) = pages(studied(written(tmp_path, (2, "TTS"))))
    worlds = {one.row: one.worlds for one in found.differences if one.column == "true@1"}
    assert worlds == {"RoLSS": WORLDS, "TTS": WORLDS - 1}
    assert any("TTS: 1 of 6 worlds" in text for text in found.warnings)


def test_the_first_world_is_shown(results: Results) -> None:
    assert [set(one.frames) for one in results.gallery] == [set(TARGETS)] * PEOPLE
    assert "first world" in results.gallery_note


def test_evaluations_that_differ_in_more_than_the_defence_never_share_a_row(tmp_path) -> None:
    priors = [{"prior": PriorRecord("Rendered", {"strength": strength})} for strength in (0.5, 1.0)]
    found = list(pages(studied(written(tmp_path, changes=priors))))
    assert [one.title for one in found] == ["T (strength 0.5)", "T (strength 1.0)"]
    assert all([len(world) for world in one.tables["none"]["true@1"]] == [1] * WORLDS for one in found)


def test_a_training_attacked_again_is_averaged_and_said(tmp_path) -> None:
    attack = drawn(0, "none", JUDGES[0]).attack
    (found,) = pages(studied(written(tmp_path, changes=[{"attack": replace(attack, seed=seed)} for seed in (0, 1)])))
    assert any("TTS: 12 evaluations repeat a training" in text for text in found.warnings)
    gap = next(one for one in found.differences if (one.row, one.column) == ("RoLSS", "true@1"))
    assert gap.worlds == WORLDS


def trained_again(folder: Path, worlds=2, seeds=3) -> Path:
    """A study of so many trainings in each of so many worlds."""
    keys = []
    for title in TARGETS:
        for world in range(worlds):
            for seed in range(seeds):
                record = drawn(world, title, JUDGES[0])
                other = drawn(world + worlds * seed, title, JUDGES[0]).evaluation  # found by another training
                target = replace(record.target, key=f"{title}{world}{seed}", seed=seed)
                keys.append(target.key)
                place = folder / "Evaluate" / keys[-1]
                place.mkdir(parents=True)
                record = replace(record, target=target, evaluation=other)
                (place / "result.json").write_text(json.dumps(record.to_json()))
                save_file(PIXELS, place / "gallery.safetensors")
    (folder / NOTE).write_text(json.dumps({"title": "T", "command": "c", "evaluations": keys}))
    return folder


def without(folder: Path, left_out: Callable[[str], bool]) -> Path:
    """The study's folder, some evaluations not finished."""
    note = json.loads((folder / NOTE).read_text())
    note["evaluations"] = [key for key in note["evaluations"] if not left_out(key)]
    (folder / NOTE).write_text(json.dumps(note))
    return folder


def test_with_several_trainings_in_each_world_people_and_trainings_are_the_unit(tmp_path) -> None:
    (found,) = pages(studied(trained_again(tmp_path)))

    def side_by_side(title: str) -> torch.Tensor:
        each = [
            [drawn(world + 2 * seed, title, JUDGES[0]).evaluation.per_class["true@1"] for world in range(2)]
            for seed in range(3)
        ]
        return torch.tensor(each, dtype=torch.float64).flatten(1)

    (gap,) = [one for one in found.differences if (one.row, one.column) == ("RoLSS", "true@1")]
    families = torch.arange(4).repeat_interleave(4)  # two of four look-alikes in each world
    expected = compare(side_by_side("RoLSS"), side_by_side("none"), rate=True, clusters=families)
    assert (gap.value, gap.low, gap.high, gap.p) == pytest.approx(
        (expected.value, expected.low, expected.high, expected.p)
    )
    assert (gap.trainings, gap.worlds) == (3, 2)
    assert gap.high is not None
    assert gap.high < 0  # two worlds alone, one difference each, would say nothing at all
    own = next(row.measures["true@1"] for row in found.rows if row.name == "RoLSS")
    assert own == seeds_interval(side_by_side("RoLSS"), rate=True, clusters=families)
    assert "3 trainings in each of 2 worlds" in page(found)


def test_trainings_that_are_not_finished_are_left_out_of_that_difference_alone(tmp_path) -> None:
    (found,) = pages(studied(without(trained_again(tmp_path), lambda key: key == "TTS12")))
    units = {one.row: (one.trainings, one.worlds) for one in found.differences if one.column == "true@1"}
    assert units == {"RoLSS": (3, 2), "TTS": (2, 2)}


def test_judges_that_did_not_judge_both_do_not_count(tmp_path) -> None:
    """Of RoLSS the second judge has seen one world alone; what it says of the baseline elsewhere is left out."""
    (found,) = pages(studied(without(written(tmp_path), lambda key: key[1:].startswith("RoLSStorc") and key[0] != "0")))
    (gap,) = [one for one in found.differences if (one.row, one.column) == ("RoLSS", "hits@1")]

    def mean(title: str, world: int) -> float:
        own = [drawn(world, title, judge) for judge in (JUDGES if world == 0 else JUDGES[:1])]
        return float(np.mean([one.evaluation.per_class["hits@1"] for one in own]))

    assert gap.value == pytest.approx(np.mean([mean("RoLSS", w) - mean("none", w) for w in range(WORLDS)]))
    assert "RoLSS: 5 of 6 trainings were not judged by torchvision:densenet121" in found.warnings


def test_a_world_left_alone_is_no_unit_of_worlds(tmp_path) -> None:
    (found,) = pages(studied(without(trained_again(tmp_path), lambda key: key.startswith("RoLSS1"))))
    (gap,) = [one for one in found.differences if (one.row, one.column) == ("RoLSS", "true@1")]
    assert (gap.trainings, gap.worlds, gap.units) == (3, 0, 3)


def test_checkpoints_of_a_world_stand_beside_their_ends(tmp_path) -> None:
    """Not as if the stopped networks were the networks."""
    folder = trained_again(tmp_path)
    note = json.loads((folder / NOTE).read_text())
    for key in list(note["evaluations"]):
        place = folder / "Evaluate" / key
        told = json.loads((place / "result.json").read_text())
        target = told["target"]
        target |= {"run": target["title"], "title": f"{target['title']}, stopped", "moment": {"accuracy": 0.6}}
        target |= {"key": f"{key}stop", "epoch": 3, "accuracy": 0.6}
        told["evaluation"]["per_class"] = {name: [0.0] * PEOPLE for name in told["evaluation"]["per_class"]}
        other = folder / "Evaluate" / f"{key}stop"
        other.mkdir()
        (other / "result.json").write_text(json.dumps(told))
        save_file(PIXELS, other / "gallery.safetensors")
        note["evaluations"].append(other.name)
    (folder / NOTE).write_text(json.dumps(note))
    for found in pages(studied(folder)):
        (baseline,) = [row for row in found.rows if row.name == "none"]
        leak = baseline.measures["true@1"]
        assert leak is not None
        assert leak.value > 0.5, found.title


def test_a_study_may_only_declare_measures_that_there_are(tmp_path) -> None:
    file = tmp_path / "s.py"
    some = "from lightleak.study.tasks import source\ndef tasks():\n    return [source('faces')]\n"
    file.write_text(f"PRIMARY = ('true@1',)\n{some}")
    load(file)
    assert declared(file) == ("true@1",)
    other = tmp_path / "t.py"
    other.write_text(f"PRIMARY = ('truth',)\n{some}")
    load(other)
    with pytest.raises(UserError, match="declares truth"):
        declared(other)


@pytest.mark.parametrize("name", ["folder", "celeba", "digits"])
def test_the_same_people_divided_anew_are_no_worlds(tmp_path, name) -> None:
    """The seed of photographs decides which picture is for what: whoever is counted again is not somebody else."""
    folder = written(tmp_path)
    for place in folder.glob("Evaluate/*/result.json"):
        about = json.loads(place.read_text())
        about["population"] |= {
            "name": name,
            "settings": {"private": "all", "seed": about["population"]["settings"]["seed"]},
        }
        place.write_text(json.dumps(about))
    found = list(pages(studied(folder)))
    assert len(found) == WORLDS
    assert all(gap.worlds == 0 and gap.units < 2 for one in found for gap in one.differences)
    said = [note for one in found for note in one.notes if "the same people" in note]
    assert len(said) == 1
    assert said[0].startswith("the seeds 100, 101, 102, 103, 104, 105 divide the pictures of the same people anew")


def test_what_is_measured_of_all_images_at_once_has_its_column_and_a_reason_its_line(tmp_path) -> None:
    """Worlds are the unit of a Fréchet distance; what no world has is named below the table, with its reason."""
    folder = written(tmp_path)
    for place in folder.glob("Evaluate/*/result.json"):
        about = json.loads(place.read_text())
        world = about["population"]["settings"]["seed"] - 100
        about["evaluation"]["measures"]["fid"] = {"value": 30.0 + world}
        about["evaluation"]["missing"] = {"delta_face": "no face network was given"}
        place.write_text(json.dumps(about))
    (found,) = pages(studied(folder))
    fid = found.rows[0].measures["fid"]
    values = 30.0 + np.arange(WORLDS)
    half = student.ppf(0.975, WORLDS - 1) * values.std(ddof=1) / np.sqrt(WORLDS)
    assert (fid.value, fid.low, fid.high) == pytest.approx((values.mean(), values.mean() - half, values.mean() + half))
    assert "no face network was given" in page(found)
    assert found.whose["none"].attacked == found.whose["none"].tested == PEOPLE * WORLDS
