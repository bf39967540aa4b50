"""The ladder of access: what one page says of labels, scores and gradients, and who hides gradients."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lightleak.attacks import BREPMI, LOKT, PPA, RLBMI, MIFace, Transfer
from lightleak.attacks.surrogate import Lessons
from lightleak.cli.running import show
from lightleak.defences import RoLSS
from lightleak.errors import UserError
from lightleak.metrics.attribute_regressor import Fit
from lightleak.metrics.evaluation import Evaluation
from lightleak.metrics.evidence import Measure
from lightleak.priors.fit import Lokt
from lightleak.report import page
from lightleak.report.ladder import access_of, collect_ladder, is_ladder
from lightleak.report.results import Results
from lightleak.report.study import pages, recorded, studied
from lightleak.study import Store, run
from lightleak.study.comparison import Setting
from lightleak.study.pool import load_module
from lightleak.study.record import AttackRecord, JudgeRecord, PopulationRecord, PriorRecord, Record, TargetRecord
from lightleak.study.tasks import Evaluate, TrainTarget, source
from lightleak.training import RECIPES

STUDY = load_module("access_ladder", Path(__file__).parent.parent / "studies" / "access_ladder.py")
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
        population=PopulationRecord(
            "p", "faces", 48, PEOPLE, (), settings={"people": PEOPLE, "lookalikes": 4, "seed": 0}
        ),
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


def test_an_attack_that_was_repeated_makes_no_second_training():
    once = list(ladder(RATES["hides"], seeds=1).values())
    again = [
        replace(one, attack=replace(one.attack, seed=1), evaluation=record(one.target.title, 5, name, 0.5).evaluation)
        for one in once
        for name in NAMES
        if NAMES[name] == one.attack.name
    ]
    results = collect_ladder({Path(str(place)): one for place, one in enumerate(once + again)}, "T")
    assert not results.warnings
    assert {row.detail for row in results.rows} == {"one training"}
    assert {one.trainings for one in results.differences} == {1}


def test_trainings_are_paired_by_their_seeds():
    places = ladder(RATES["hides"])
    kept = {place: one for place, one in places.items() if (one.target.title, one.target.seed) != ("NegLS", 0)}
    (gap,) = [one for one in collect_ladder(kept, "T").differences if one.column == "hits@1 LOKT"]

    def mean(title):
        own = [
            one.evaluation.per_class["hits@1"]
            for one in places.values()
            if (one.target.title, one.attack.name) == (title, "LOKT") and one.target.seed > 0
        ]
        return torch.tensor(own).mean().item()

    assert gap.trainings == 2
    assert gap.value == pytest.approx(mean("NegLS") - mean("none"), abs=1e-6)


def test_an_attack_of_two_settings_has_two_columns():
    places = ladder(RATES["hides"])
    more = {
        Path(f"more {place}"): replace(one, attack=replace(one.attack, settings={"loss": "max-margin"}))
        for place, one in places.items()
        if one.attack.name == "PPA"
    }
    plain = {
        place: replace(one, attack=replace(one.attack, settings={"loss": "poincare"}))
        if one.attack.name == "PPA"
        else one
        for place, one in places.items()
    }
    names = {column.name for column in collect_ladder(plain | more, "T").columns}
    assert {"hits@1 PPA (loss poincare)", "hits@1 PPA (loss max-margin)", "hits@1 LOKT"} <= names


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
    text = page(Results.from_json(results.to_json()))
    assert "How far queries go" in text
    assert "hides gradients" in text


def test_of_whom_an_attack_finds_nothing_nothing_leaks():
    whole = collect_ladder(ladder(dict.fromkeys(NAMES, (1.0, 1.0))), "T")
    some = collect_ladder(ladder(dict.fromkeys(NAMES, (1.0, 1.0)), missing=range(8)), "T")
    sides = [one.rows[0].measures["hits@1 LOKT"] for one in (whole, some)]
    assert [side.value for side in sides if side] == [1.0, 0.75]
    accuracy = some.rows[0].measures["accuracy"]
    assert accuracy is not None
    assert accuracy.value == pytest.approx(0.9)


def test_an_attack_that_some_networks_were_spared_is_missing_there_alone():
    known = ladder(RATES["hides"])
    more = [record("MID", seed, "PPA", 0.5) for seed in range(3)] + [
        record("TTS", seed, "LOKT", 0.5) for seed in (0, 1)
    ]
    both = known | {Path(f"more {place}"): one for place, one in enumerate(more)}
    results = collect_ladder(both, "T")
    assert [column.name for column in results.columns] == ["accuracy", "hits@1 LOKT", "hits@1 RLB-MI", "hits@1 PPA"]
    cells = {row.name: set(row.measures) for row in results.rows}
    assert cells["MID"] == {"accuracy", "hits@1 PPA"}
    assert cells["TTS"] == {"accuracy", "hits@1 LOKT"}
    plain = collect_ladder(known, "T")
    assert [one for one in results.warnings if "NegLS" in one]
    assert {(one.row, one.column) for one in results.differences} == {
        *((one.row, one.column) for one in plain.differences), ("MID", "hits@1 PPA"), ("TTS", "hits@1 LOKT"),
    }  # fmt: skip
    page(results)


def test_a_ladder_has_two_rungs_and_two_targets():
    records = list(ladder(RATES["hides"], seeds=1).values())
    assert is_ladder(records)
    assert not is_ladder([one for one in records if one.target.title == "none"])
    assert not is_ladder([one for one in records if access_of(one) == "scores"])
    assert access_of(record("none", 0, "LOKT", 0.5)) == "labels"


# ---------------------------------------------------------------------------------------------------------------------
# The study


def test_the_study_has_every_rung_and_every_network(monkeypatch, tmp_path):
    monkeypatch.setattr(STUDY, "STRENGTHS", tmp_path / "strengths.json")
    before = [task for task in STUDY.tasks() if isinstance(task, Evaluate)]
    assert len(before) == 12 * 5 * 3  # strengths are not chosen yet
    (tmp_path / "strengths.json").write_text('{"chosen": {"BiDO": 0, "MID": 1, "NegLS": 2}}')
    tasks = STUDY.tasks()
    evaluations = [task for task in tasks if isinstance(task, Evaluate)]
    assert len({task.key for task in evaluations}) == len(evaluations) == 12 * 8 * 3
    assert {task.key for task in before} < {task.key for task in evaluations}
    assert sum(isinstance(task, TrainTarget) for task in tasks) == 12
    rungs = {one.found.attack.title or type(one.found.attack).__name__: one.found.attack.access for one in evaluations}
    assert {"BREP-MI", "LOKT"} == {name for name, access in rungs.items() if access == "labels"}
    assert {"RLB-MI", "MIRROR, black-box", "surrogate + CMA-ES"} == {n for n, a in rungs.items() if a == "scores"}
    assert sum(access == "gradients" for access in rungs.values()) == 7
    for one in evaluations:
        assert ("adversarial" in one.nulls) != isinstance(one.found.attack, MIFace)


def test_the_study_runs_some_attacks_alone():
    asked = [type(rung.attack).__name__ for rung in STUDY.asked("PPA,BREPMI")]
    assert asked == ["BREPMI", "PPA"]
    assert len(STUDY.asked("")) == 12
    shown = {
        (type(task.found.attack).__name__, task.found.target.defences)
        for task in STUDY.tasks("LOKT=2,PPA")
        if isinstance(task, Evaluate)
    }
    assert [sum(attack == name for attack, _ in shown) for name in ("LOKT", "PPA")] == [2, len(STUDY.defences())]
    with pytest.raises(UserError, match="LOKT=3"):
        STUDY.tasks("LOKT=0")
    with pytest.raises(UserError, match=r"are BREPMI, LOKT, .*, not PPO"):
        STUDY.tasks("PPO")


def test_it_shares_its_networks_with_the_study_of_defences():
    other = load_module("defences_2026_beside", Path(__file__).parent.parent / "studies" / "defences_2026.py")
    first = other.worlds_of(STUDY.SETTING.architecture)[0]
    assert STUDY.SETTING.target((RoLSS(),), 1).key == first.target((RoLSS(),), 1).key
    sweep = {task.key for row in other.sweep(STUDY.SETTING.architecture).values() for task in row}
    assert {task.key for row in STUDY.sweep().values() for task in row} < sweep


def test_the_budgets_are_equal():
    """Queries of a person, beside the samples that all share, within a tenth of what the study says."""
    for rung in STUDY.rungs():
        attack = rung.attack
        if attack.budget is not None:
            spent = attack.budget
        elif isinstance(attack, LOKT):
            beforehand = rung.prior.queries / STUDY.PEOPLE + 5 * 10  # and every public image once
            spent = beforehand + STUDY.QUERIES // 5 + attack.attempts
        elif isinstance(attack, PPA):
            spent = attack.attempts * (attack.steps + attack.views)
        else:
            each = {"PLGMI": 2, "VMI": 32}.get(type(attack).__name__, 1)
            spent = attack.searches * attack.steps * each
        assert spent == pytest.approx(STUDY.QUERIES, rel=0.2), attack


@pytest.mark.slow
def test_the_study_in_miniature(tmp_path):
    """A network with and without its last skips, attacked with labels, scores and gradients, to the page."""
    population = source("faces", people=4, images=6, size=32, lookalikes=2, strength=0.5, noise=0.02, public_people=8,
                        public_images=4, judge_images=6, validation_images=3, test_images=3)  # fmt: skip
    recipe = replace(RECIPES["small"], epochs=1, batch=16)
    lessons = Lessons(epochs=1, batch=8, pretrained=False)
    setting = Setting(
        population, "timm:resnet10t", recipe, "timm:test_efficientnet", recipe, seeds=(0,),
        transfer=Transfer(("timm:test_efficientnet",), lessons=lessons),
    )  # fmt: skip
    prior = Lokt(width=2, discriminator_width=2, latents=8, plain=1, steps=3, critic_steps=1, batch=8)
    attacks = (
        STUDY.Rung(BREPMI(queries=10, samples=20, points=4, radius=0.5)),
        STUDY.Rung(LOKT(attempts=1, steps=2), prior),
        STUDY.Rung(RLBMI(queries=10, actions=5, sample=5)),
        STUDY.Rung(MIFace(attempts=2, steps=5, start="noise")),
        STUDY.Rung(PPA(candidates=8, attempts=2, keep=1, steps=4, milestones=(2,), views=2)),
    )
    tasks = STUDY.ladder(setting, attacks, ((), (RoLSS(),)), queries=10, regressor=Fit(steps=2))
    with recorded(tasks, tmp_path, "T", "a command"):
        assert not run(tasks, Store(tmp_path))
    *_, last = pages(studied(tmp_path))
    assert last.title == "T (by access)"
    assert [row.name for row in last.rows] == ["no defence", "RoLSS"]
    names = {column.name for column in last.columns}
    assert {f"hits@1 {name}" for name in ("BREP-MI", "LOKT", "RLB-MI", "MI-Face", "PPA")} < names
    assert len(last.searches["no defence"]["RLB-MI"]) == 3
    assert "How far queries go" in page(last)
    show(tmp_path, show_private=False)
    assert (tmp_path / f"page-{len(list(pages(studied(tmp_path))))}" / "report.html").is_file()
