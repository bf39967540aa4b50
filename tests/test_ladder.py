"""The ladder of access: what one page says of labels, scores and gradients, and who hides gradients."""

from pathlib import Path

import pytest
import torch

from lightleak.metrics.evaluation import Evaluation
from lightleak.metrics.evidence import Measure
from lightleak.report import page
from lightleak.report.ladder import access_of, collect_ladder, is_ladder
from lightleak.report.results import Results
from lightleak.study.record import AttackRecord, JudgeRecord, PopulationRecord, PriorRecord, Record, TargetRecord

PEOPLE = 32
RATES = {  # of none and of the defence: labels, scores, gradients
    "hides": {"LOKT": (0.6, 0.6), "RLB-MI": (0.6, 0.4), "PPA": (0.9, 0.1)},
    "defends": {"LOKT": (0.6, 0.1), "RLB-MI": (0.6, 0.1), "PPA": (0.9, 0.1)},
    "was always weaker with gradients": {"LOKT": (0.9, 0.9), "RLB-MI": (0.5, 0.4), "PPA": (0.3, 0.3)},
}
NAMES = {"LOKT": "LOKT", "RLB-MI": "RLBMI", "PPA": "PPA"}


def record(target, seed, attack, share, missing=()):
    """An attack that finds a share of the people, others in each training."""
    rng = torch.Generator().manual_seed(hash_of(target, attack) + seed)
    found = (torch.rand(PEOPLE, generator=rng) < share).double().tolist()
    classes = tuple(person for person in range(PEOPLE) if person not in missing)
    own = tuple(found[person] for person in classes)
    evaluation = Evaluation(
        classes, len(classes), {"hits@1": Measure(sum(own) / len(own))}, {"hits@1": own}, {}, {}, Measure(1.0),
        queries=64 * PEOPLE,
    )  # fmt: skip
    return Record(
        target=TargetRecord(target, f"{target}{seed}", seed, "timm:resnet18", {}, 0.9, (0.9,) * PEOPLE, 0),
        population=PopulationRecord("p", "faces", 48, PEOPLE, (), settings={"people": PEOPLE}),
        attack=AttackRecord(NAMES[attack], title=attack),
        prior=PriorRecord("Rendered"),
        judge=JudgeRecord("timm:resnet14t", 1.0),
        evaluation=evaluation,
        confidence=(0.5,) * len(classes),
        beforehand=1000 * PEOPLE if attack == "LOKT" else 0,
        search=((0.0, 0.1), (50.0, 0.4), (100.0, 0.7)) if attack == "RLB-MI" else (),
    )


def hash_of(target, attack):
    return 1000 * sum(map(ord, target + attack))


def ladder(rates, seeds=3, **more):
    records = [
        record(target, seed, attack, rates[attack][place], **more)
        for attack in ("PPA", "RLB-MI", "LOKT")
        for place, target in enumerate(("none", "NegLS"))
        for seed in range(seeds)
    ]
    return {Path(f"{number}"): one for number, one in enumerate(records)}


@pytest.mark.parametrize("name", RATES)
def test_a_defence_hides_gradients_where_labels_alone_still_find_people(name):
    results = collect_ladder(ladder(RATES[name]), "T")
    marked = [text for text in results.warnings if "hides gradients" in text]
    assert bool(marked) == (name == "hides")
    if marked:
        assert marked[0].startswith("NegLS hides gradients: LOKT, which sees labels alone, finds +")
        assert "[+" in marked[0]  # an interval that leaves out zero
        assert "beside PPA" in marked[0]


def test_one_training_of_each_is_never_enough():
    assert not collect_ladder(ladder(RATES["hides"], seeds=1), "T").warnings


def test_a_row_each_target_a_column_each_attack_from_labels_up():
    results = collect_ladder(ladder(RATES["hides"]), "T", "a command")
    assert [row.name for row in results.rows] == ["none", "NegLS"]
    names = [column.name for column in results.columns]
    assert names == ["accuracy", "hits@1 LOKT", "hits@1 RLB-MI", "hits@1 PPA"]
    assert "(labels)" in results.columns[1].label
    leak = results.rows[0].measures["hits@1 PPA"]
    assert leak is not None
    assert leak.value == pytest.approx(0.9, abs=0.08)
    assert any("LOKT 1,064, RLB-MI 64, PPA 64" in note for note in results.notes)  # what was learnt before counts
    assert results.searches["none"]["RLB-MI"][-1] == (100.0, pytest.approx(0.7))
    assert results.searches["none"]["PPA"] == ((64.0, 0.5),)
    assert "LOKT" not in results.searches["none"]  # it sees no confidence
    text = page(results)
    assert "How far queries go" in text
    assert "hides gradients" in text
    again = Results.from_json(results.to_json())
    assert "How far queries go" in page(again)


def test_of_whom_an_attack_finds_nothing_nothing_leaks():
    whole = collect_ladder(ladder(dict.fromkeys(NAMES, (1.0, 1.0))), "T")
    some = collect_ladder(ladder(dict.fromkeys(NAMES, (1.0, 1.0)), missing=range(8)), "T")
    sides = [one.rows[0].measures["hits@1 LOKT"] for one in (whole, some)]
    assert [side.value for side in sides if side] == [1.0, 0.75]


def test_a_ladder_has_two_rungs_and_two_targets():
    records = list(ladder(RATES["hides"], seeds=1).values())
    assert is_ladder(records)
    assert not is_ladder([one for one in records if one.target.title == "none"])
    assert not is_ladder([one for one in records if access_of(one) == "scores"])
    assert access_of(record("none", 0, "LOKT", 0.5)) == "labels"
