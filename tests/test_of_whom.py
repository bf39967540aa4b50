"""Each number of a page is of the people whom its sentence names: nobody is filled in, left out or counted twice."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightleak.metrics import evidence
from lightleak.metrics.evidence import Measure
from lightleak.report import page, read, write
from lightleak.report.answer import answer, subject
from lightleak.report.collect import collect
from lightleak.report.page import _unmeasured
from lightleak.report.trainings import measures, pooled, unshown
from lightleak.report.units import accuracy_of, natural_accuracy
from lightleak.report.whose import OfWhom
from lightleak.study.record import Record
from test_collect import PEOPLE, POINCARE, evaluated
from test_worlds import JUDGES, drawn


def changed(folder: Path, **settings: Any) -> Path:
    """An evaluation's folder after some of its evaluation or its target's record was replaced."""
    told = json.loads((folder / "result.json").read_text())
    for name, value in settings.items():
        part = told["target"] if name in told["target"] else told["evaluation"]
        part[name] = value
    (folder / "result.json").write_text(json.dumps(told))
    return folder


def told_by(folder: Path) -> Record:
    return Record.from_json(json.loads((folder / "result.json").read_text()))


# Natural accuracy -----------------------------------------------------------------------------------------------------


def photographed(accuracy: list[float], classes: tuple[int, ...] | None = None) -> Record:
    """An evaluation of so many people, by their natural accuracy; NaN: without test images."""
    one, count = drawn(0, "none", JUDGES[0]), len(accuracy)
    people = tuple(range(count)) if classes is None else classes
    return replace(
        one,
        target=replace(one.target, accuracy_of=tuple(accuracy)),
        population=replace(one.population, name="folder:photographs", classes=count, settings={}),
        attack=replace(one.attack, classes=classes),
        evaluation=replace(one.evaluation, classes=people, per_class={"hits@1": (0.5,) * len(people)}, nulls={}),
    )


@pytest.mark.parametrize(("people", "each"), [(20, 8), (50, 5)])
def test_natural_accuracy_s_interval_holds_the_truth_where_some_have_no_test_images(people: int, each: int) -> None:
    """A quarter to a half of the people of few photographs have none for testing. Filled in by the mean of the others,
    they make an interval that holds the truth in 76 to 83 of 100 studies.
    """
    rng, truth, held, times = np.random.default_rng(0), 0.85, 0, 200
    for _ in range(times):
        right, images = rng.beta(4 * truth, 4 * (1 - truth), people), rng.binomial(each, 0.15, people)
        one = photographed([rng.binomial(n, p) / n if n else math.nan for n, p in zip(images, right)])
        found = measures([one])["accuracy"]
        assert found is not None
        assert found == natural_accuracy({("world", 0): one})
        assert found.low is not None
        assert found.high is not None
        held += found.low <= truth <= found.high
    assert held / times >= 0.91


def test_who_has_no_test_images_is_in_no_number_and_in_a_note(tmp_path):
    """Mean, difference and Delta are those of a study of the others alone."""
    known = (0, 2, 3, 5, 6, 7, 8, 9, 10, 11)
    attack = replace(POINCARE, classes=known)
    for name, accuracy, leak in (("no defence", 0.9, 0.8), ("RoLSS", 0.4, 0.4)):
        for seed in range(3):
            whole = evaluated(tmp_path / "whole", name, accuracy, leak, seed)
            own = told_by(whole)
            few = evaluated(tmp_path / "few", name, accuracy, leak, seed, attack=attack)
            holes = [value if i in known else None for i, value in enumerate(own.target.accuracy_of)]
            for folder in (whole, few):
                changed(folder, accuracy_of=holes)
    whole, few = (collect(sorted((tmp_path / name).glob("Evaluate/*")), "T") for name in ("whole", "few"))
    for name in ("no defence", "RoLSS"):
        one, other = ({row.name: row.measures for row in results.rows}[name] for results in (whole, few))
        assert one["accuracy"] == other["accuracy"]
        assert one.get("delta") == other.get("delta")
        assert one["hits@1"] != other["hits@1"]  # a leak is of all who were attacked
    assert whole.rows[1].measures["delta"] is not None
    assert whole.footnotes == few.footnotes
    assert "natural accuracy is of 10 of 12 people: 2 have no test images" in whole.notes
    told = "Delta and all that is read at equal natural accuracy are of the 10 people who were attacked"
    assert f"{told} and have test images" in whole.notes
    write(whole, tmp_path / "out")
    again = read(tmp_path / "out" / "record.json")
    assert again.whose == whole.whose == dict.fromkeys(("no defence", "RoLSS"), OfWhom(12, 12, 12, 10, 10))
    assert again.tables["RoLSS"]["accuracy"][0][1] is None


def test_curves_and_levels_are_of_those_who_have_both_numbers(tmp_path):
    """Whoever lacks one of them has no place on a line from one to the other."""
    known = (0, 3, 4, 7)
    folders = {"whole": [], "few": []}
    for kind, attack in (("whole", POINCARE), ("few", replace(POINCARE, classes=known))):
        for name, leak in (("no defence", 0.8), ("RoLSS", 0.5)):
            for seed in range(2):
                for moment, share in ((None, 1.0), (0.5, 0.6)):
                    root = tmp_path / kind
                    folder = evaluated(root, name, 0.9 * share, leak * share, seed, moment, attack=attack)
                    own = told_by(folder).target.accuracy_of
                    changed(folder, accuracy_of=[v if i in known else None for i, v in enumerate(own)])
                    folders[kind].append(folder)
    whole, few = (collect(own, "T") for own in folders.values())
    assert len(whole.curves["RoLSS"]) == 2
    assert whole.curves == few.curves
    assert whole.levels == few.levels


def test_an_older_record_that_does_not_say_whose_accuracies_they_are_has_a_mean_alone(tmp_path):
    folder = changed(evaluated(tmp_path, "no defence", 0.9, 0.4), accuracy_of=[0.5, 1.0], accuracy=0.7)
    results = collect([folder], "T")
    assert results.rows[0].measures["accuracy"] == Measure(0.7)
    assert any("this older record does not say whose they are" in text for text in results.notes)


def test_what_a_person_adds_to_natural_accuracy_varies_as_over_those_who_were_tested():
    """Beside what leaks of everybody, so that nobody's leak is lost: the mean and its variance are of the tested."""
    own = [0.2, math.nan, 1.0, 0.6, math.nan, 0.9]
    found, known = accuracy_of(photographed(own)), torch.tensor([v for v in own if v == v], dtype=torch.float64)
    assert len(found) == 6
    assert float(found.mean()) == pytest.approx(float(known.mean()))
    variance = float(found.var(correction=0)) / 6
    assert variance == pytest.approx(float(known.var(correction=0)) / 4)
    assert accuracy_of(photographed([0.2, 1.0, 0.6])).tolist() == pytest.approx([0.2, 1.0, 0.6])


# Realism --------------------------------------------------------------------------------------------------------------

UNKNOWN = "nobody knows the true factors of 'photographs'"


def with_realism(root: Path, seed: int, **measured: Measure | None) -> Path:
    folder = evaluated(root, "no defence", 0.9, 0.8, seed)
    old = json.loads((folder / "result.json").read_text())["evaluation"]
    found = {**old["measures"], **{name: one and vars(one) for name, one in measured.items()}, "true@1": None}
    del old["per_class"]["true@1"]
    return changed(folder, measures=found, per_class=old["per_class"], missing={"true@1": UNKNOWN})


@pytest.mark.parametrize("trainings", [1, 2, 3])
def test_what_is_measured_of_a_set_is_a_mean_over_trainings(tmp_path, trainings):
    fid = [Measure(30.0, 20.0, 40.0), Measure(34.0, 24.0, 44.0), Measure(38.0, 28.0, 48.0)][:trainings]
    folders = [with_realism(tmp_path, seed, fid=one, precision=Measure(0.4)) for seed, one in enumerate(fid)]
    results = collect(folders, "T")
    precision, told = (results.rows[0].measures[name] for name in ("precision", "fid"))
    assert precision is not None
    assert told is not None
    assert precision.value == pytest.approx(0.4)
    assert precision.low is None  # no training has an interval over people
    assert told.value == pytest.approx(sum(one.value for one in fid) / trainings)
    if trainings == 1:
        assert told == fid[0]
    elif trainings == 2:
        assert (told.low, told.high) == (None, None)
    else:
        half = math.hypot(10.0, 4.302653 * 4 / 3**0.5)  # over people, and Student's t over trainings
        assert (told.low, told.high) == pytest.approx((34 - half, 34 + half), rel=1e-5)


@pytest.mark.parametrize("trainings", [1, 3])
def test_what_nobody_has_is_named_below_the_table_with_its_reason(tmp_path, trainings):
    results = collect([with_realism(tmp_path, seed) for seed in range(trainings)], "T")
    assert [(column.name, why) for column, why in _unmeasured(results)] == [("true@1", UNKNOWN)]
    assert f"true match @1 ({UNKNOWN.replace(chr(39), '&#39;')})" in page(results)
    assert results.leaks == ("hits@1",)


def test_what_some_trainings_lack_has_no_number_and_says_of_how_many(tmp_path):
    folders = [with_realism(tmp_path, seed, fid=Measure(30.0)) for seed in range(2)]
    changed(folders[1], measures={"fid": None}, missing={"fid": "too few images"})
    (row, *_) = collect(folders, "T").rows
    assert row.measures.get("fid") is None
    assert row.missing["fid"] == "in 1 of 2 trainings: too few images"


def test_the_interval_of_a_set_holds_the_truth_over_trainings_and_people():
    rng, held, times = np.random.default_rng(0), 0, 400
    for _ in range(times):
        of_people = rng.normal(0, 1.0)  # the same people stand behind all trainings
        own = 40 + of_people + rng.normal(0, 1.5, 3)
        found = pooled([Measure(value, value - 1.96, value + 1.96) for value in own])
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 40 <= found.high
    assert held / times >= 0.93


# Sentences ------------------------------------------------------------------------------------------------------------


def test_the_first_sentence_tells_what_came_back_from_who_was_attacked(tmp_path):
    """Of half of the people nothing came back; of the others eight of ten images are recognised."""
    folder, half = evaluated(tmp_path, "none", 0.9, 0.8), PEOPLE // 2
    own = {"classes": list(range(half)), "per_class": {"hits@1": [1.0] * (half - 1) + [0.0]}, "images": half}
    assert answer(collect([changed(folder, **own)], "T")) == (
        "The judge recognises the right person in 83 % of what was reconstructed from “none”, 42 % of all 12 people "
        "attacked (a guess: 8.3 %)."
    )
    assert "people attacked" not in answer(collect([evaluated(tmp_path / "whole", "none", 0.9, 0.8)], "T"))


def test_who_was_attacked_is_said_and_natural_accuracy_is_of_all(tmp_path):
    attack = replace(POINCARE, classes=(0, 1, 2))
    folder = changed(evaluated(tmp_path, "none", 0.9, 0.8, attack=attack), accuracy_of=[1.0] * 3 + [0.5] * 9)
    results = collect([folder], "T")
    accuracy = results.rows[0].measures["accuracy"]
    assert accuracy is not None
    assert accuracy.value == pytest.approx((3 + 4.5) / 12)
    assert "that know 12 people, 3 of them inverted by PPA" in results.summary
    assert subject(results).endswith("trained on 12 rendered people, none of them real, 3 of them attacked by PPA")
    assert "leaks are of the 3 people who were attacked, of the 12 whom a target knows" in results.notes
    whole = collect([evaluated(tmp_path / "whole", "none", 0.9, 0.8)], "T")
    assert "that know 12 people, inverted by PPA" in whole.summary
    assert not whole.notes


def test_a_training_s_dot_is_a_mean_over_people_as_its_row_is(tmp_path):
    own = [[1.0] * 3 + [0.5] * 9, [1.0] * 12, [1.0] * 12]  # by their test images, of which some have many, 0.9 of all
    folders = [
        changed(evaluated(tmp_path, "none", 0.9, 0.8, seed=seed), accuracy_of=each) for seed, each in enumerate(own)
    ]
    assert collect(folders, "T").runs["none"]["accuracy"] == pytest.approx((7.5 / 12, 1.0, 1.0))


def test_an_image_counts_once_whoever_judges_it_and_people_of_two_worlds_are_not_the_same():
    shares = {world: [0.0, 0.5, 0.0, 0.0, 0.5, 0.0, 0.0, float(world)] for world in (0, 1)}
    families = tuple(i // 4 for i in range(8))
    records = []
    for world, own in shares.items():
        for judge in JUDGES:
            one = drawn(world, "none", judge)
            told = replace(one.evaluation, per_class={"hits@1": tuple(own)}, families=families, nulls={})
            records.append(replace(one, evaluation=told))
    (found,) = unshown(records)
    assert (found.hits, found.trials) == (6, 32)  # two images each of eight people in two worlds
    together, alike = torch.tensor(shares[0] + shares[1]), torch.tensor([*families, *(2 + f for f in families)])
    assert found.p == pytest.approx(evidence.shares_above_chance(together, 32, 1 / 8, alike))
    again = replace(records[0], attack=replace(records[0].attack, seed=7))  # other images of the same people
    assert unshown([*records, again])[0].trials == 48
