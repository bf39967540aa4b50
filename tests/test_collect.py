"""From evaluations to results: only what differs in its defence alone is compared, checkpoints make curves."""

import json
import math
from dataclasses import replace
from zlib import crc32

import pytest
import torch
from safetensors.torch import save_file

from lightleak.errors import UserError
from lightleak.metrics.evaluation import METRICS, UNANSWERED, Evaluation
from lightleak.metrics.evidence import Measure
from lightleak.report import figures, page, read, tables, to_csv, write
from lightleak.report.collect import collect
from lightleak.study.record import AttackRecord, JudgeRecord, PopulationRecord, PriorRecord, Record, TargetRecord

PEOPLE = 12
POINCARE, RENDERED = AttackRecord("PPA", settings={"loss": "poincare"}), PriorRecord("Rendered")
JUDGE = JudgeRecord("timm:resnet14t", 0.99, "a" * 64)
PRIVACY = {"epsilon": 7.9, "delta": 1e-5}


def evaluated(
    root,
    title,
    accuracy,
    leak,
    seed=0,
    moment=None,
    attack=POINCARE,
    prior=RENDERED,
    judge=JUDGE,
    protocol=None,
    **target,
):
    """The folder of an evaluation that scored these means, person by person."""
    rng = torch.Generator().manual_seed(crc32(f"{title} {seed} {moment}".encode()))

    def spread(mean):
        return (mean + 0.1 * torch.randn(PEOPLE, generator=rng)).clamp(0, 1).tolist()

    classes = attack.classes or tuple(range(PEOPLE))
    per_class = {"hits@1": spread(leak), "true@1": spread(leak / 2)}
    per_class = {name: [values[person] for person in classes] for name, values in per_class.items()}
    measures: dict[str, Measure | None] = dict.fromkeys(METRICS)
    measures |= {name: Measure(sum(v) / len(v), 0.0, 1.0) for name, v in per_class.items()}
    evaluation = Evaluation(
        classes=tuple(classes),
        images=len(classes),
        measures=measures,
        per_class={name: tuple(v) for name, v in per_class.items()},
        chance={"hits@1": 1 / PEOPLE},
        missing={},
        judge_accuracy=Measure(0.99),
    )
    recipe = target.pop("recipe", {"epochs": 20, "view": {"flip": 0.5}})
    epoch = target.pop("epoch", 1 if moment else 5)
    architecture = target.pop("architecture", "timm:resnet18")
    told = Record(
        target=TargetRecord(
            title=f"{title} at {moment}" if moment else title,
            key=f"{title} {seed}",
            run=title,
            moment={"epoch": None, "accuracy": moment} if moment else None,
            epoch=epoch,
            seed=seed,
            architecture=architecture,
            recipe=recipe,
            accuracy=accuracy,
            accuracy_of=tuple(spread(accuracy)),
            test_images=240,
            **target,
        ),
        population=PopulationRecord("p", "faces", 48, PEOPLE, tuple(str(i) for i in range(PEOPLE))),
        attack=attack,
        prior=prior,
        judge=judge,
        protocol=protocol,
        evaluation=evaluation,
        confidence=(0.9,) * PEOPLE,
    )
    folder = root / "Evaluate" / f"{len(list(root.glob('Evaluate/*'))):04d}"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(told.to_json()))
    picture = torch.zeros(PEOPLE, 3, 8, 8, dtype=torch.uint8)
    save_file(
        {"classes": torch.arange(PEOPLE), "private": picture, "reconstructed": picture + 1},
        folder / "gallery.safetensors",
    )
    return folder


def priced(root, title, **costs):
    folder = root / "Costs" / title
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"title": title, **costs}))
    return folder


@pytest.fixture
def study(tmp_path):
    """Two defences on three seeds with checkpoints; the undefended network learns and leaks along a line."""
    folders = []
    for seed in range(3):
        folders.append(evaluated(tmp_path, "no defence", 0.9, 0.9, seed))
        folders.append(evaluated(tmp_path, "RoLSS", 0.85, 0.5, seed))
        folders.append(evaluated(tmp_path, "DP-SGD", 0.6, 0.45, seed, privacy=PRIVACY))
    for seed in range(3):
        for moment, accuracy, leak in ((0.5, 0.5, 0.3), (0.7, 0.7, 0.6)):
            folders.append(evaluated(tmp_path, "no defence", accuracy, leak, seed, moment))
        folders.append(evaluated(tmp_path, "RoLSS", 0.6, 0.3, seed, 0.6))
        folders.append(evaluated(tmp_path, "DP-SGD", 0.3, 0.1, seed, 0.3, privacy=PRIVACY))
    return folders


def test_targets_that_differ_in_their_defence_are_compared(study, tmp_path):
    costs = [priced(tmp_path, "RoLSS", training=0.9, answering=0.95, parameters=0.97)]
    results = collect(study, "all", costs=costs)
    assert [row.name for row in results.targets()] == ["no defence", "RoLSS", "DP-SGD"]
    assert {one.row for one in results.differences} == {"RoLSS", "DP-SGD"}
    assert results.unequal == ()
    private = results.rows[2]
    assert private.detail == "epsilon 7.9 at delta 1e-05, 3 training seeds"
    assert private.measures["epsilon"] == Measure(7.9)
    assert results.rows[1].measures["training"] == Measure(0.9)
    assert results.rows[0].measures.get("training") is None


def test_every_row_stands_beside_the_papers_numbers_of_its_own_network(study, tmp_path):
    """Also one that differs from the others in its network alone; not one with another recipe of the same."""
    others = [
        evaluated(tmp_path, "no defence", 0.9, 0.4, 0, architecture="torchvision:vgg16_bn"),
        evaluated(tmp_path, "RoLSS", 0.9, 0.4, 0, recipe={"epochs": 30}),
    ]
    numbers = {
        "timm:resnet18": {"of": "ResNet-101", "rows": {"no defence": {"hits@1": 0.83}, "RoLSS": {"hits@1": 0.59}}},
        "torchvision:vgg16_bn": {"of": "VGG-16", "rows": {"no defence": {"hits@1": 0.49}}},
        "timm:resnet50": {"of": "ResNet-50", "rows": {"no defence": {"hits@1": 0.8}}},
    }
    results = collect([*study, *others], "all", published=numbers)
    theirs = {row.name: one.value for row in results.rows if (one := row.measures.get("published hits@1"))}
    assert theirs == {"no defence": 0.83, "RoLSS": 0.59, "no defence (torchvision:vgg16_bn)": 0.49}
    assert "The published numbers are of ResNet-101; of VGG-16." in results.notes
    assert not any("published" in one for one in collect(study, "all").notes)


def test_what_differs_in_more_is_a_reference(study, tmp_path):
    recipe = {"epochs": 30, "view": {"flip": 0.0}}
    study += [
        evaluated(tmp_path, "no defence", 0.9, 0.4, seed, architecture="torchvision:vgg16_bn") for seed in range(3)
    ]
    study += [evaluated(tmp_path, "SSF", 0.9, 0.4, seed, recipe=recipe) for seed in range(3)]
    study += [evaluated(tmp_path, "TTS", 0.9, 0.4, 0)]
    results = collect(study, "all")
    references = {row.name for row in results.rows if row.kind == "reference"}
    assert references == {"no defence (torchvision:vgg16_bn)", "SSF (recipe epochs 30, recipe view flip 0)", "TTS"}
    assert results.unequal == (
        "no defence (torchvision:vgg16_bn): architecture torchvision:vgg16_bn instead of timm:resnet18",
        "SSF (recipe epochs 30, recipe view flip 0): recipe epochs 30 instead of 20; recipe view flip 0 instead of 0.5",
        "TTS: seeds 0 instead of seeds 0, 1, 2",
    )
    assert not references & {one.row for one in (*results.differences, *results.levels)}
    assert not any(name in warning for name in references for warning in results.warnings)
    shown = page(results)
    assert "Not compared" in shown
    assert "architecture torchvision:vgg16_bn instead of timm:resnet18" in shown
    order = [line.kind for line in tables(results)[0].lines]
    assert order == sorted(order, key=("target", "reference", "null", "chance").index)


def test_another_attack_is_another_table(study, tmp_path):
    other = evaluated(tmp_path, "SSF", 0.9, 0.4, 0, attack=AttackRecord("PPA", settings={"loss": "max-margin"}))
    results = collect([*study, other], "all")
    assert results.unequal == (
        "SSF (attack loss max-margin): attack loss max-margin instead of poincare; seeds 0 instead of seeds 0, 1, 2",
    )


def test_checkpoints_make_curves_and_levels(study, tmp_path):
    results = collect(study, "all")
    assert [len(results.curves[name]) for name in ("no defence", "RoLSS", "DP-SGD")] == [3, 2, 2]
    accuracies = [point.accuracy.value for point in results.curves["no defence"]]
    assert accuracies == sorted(accuracies)
    levels = {(one.row, one.column): one for one in results.levels}
    cut, private = levels["RoLSS", "hits@1"], levels["DP-SGD", "hits@1"]
    assert cut.accuracy == pytest.approx(0.85, abs=0.06)
    assert cut.target.value == pytest.approx(0.5, abs=0.08)
    assert cut.baseline.value == pytest.approx(0.83, abs=0.1)  # less than at its end, for it is stopped earlier
    assert cut.difference.high is not None
    assert cut.difference.high < 0
    assert private.difference.low is not None
    assert private.difference.high is not None
    assert private.difference.low < 0.02 < private.difference.high + 0.1  # it only knows less
    table = tables(results)[-1]
    assert table.name == "equal-accuracy"
    assert [line.name for line in table.lines] == ["RoLSS", "DP-SGD"]
    assert "hits@1 difference" in to_csv(table).splitlines()[0]
    drawn = {figure.name: figure for figure in figures(results)}
    assert {"frontier-hits-1", "frontier-true-1"} <= set(drawn)
    assert "RoLSS: " in drawn["frontier-hits-1"].alt
    write(results, tmp_path / "out")
    again = read(tmp_path / "out" / "record.json")
    assert again.curves == results.curves
    assert again.levels == results.levels
    assert [figure.svg for figure in figures(again)] == [figure.svg for figure in figures(results)]


def test_those_who_never_meet_are_named(study, tmp_path):
    for seed in range(3):
        study.append(evaluated(tmp_path, "weak", 0.3, 0.1, seed))
        study.append(evaluated(tmp_path, "weak", 0.2, 0.1, seed, 0.2))
    results = collect(study, "all")
    assert "weak" not in {one.row for one in results.levels}
    assert any(warning.startswith("weak: no natural accuracy") for warning in results.warnings)


def test_a_study_of_checkpoints_alone_takes_the_last_as_the_end(tmp_path):
    folders = [
        evaluated(tmp_path, name, accuracy, leak, 0, moment, epoch=epoch)
        for name in ("no defence", "RoLSS")
        for moment, accuracy, leak, epoch in ((0.5, 0.5, 0.3, 2), (0.9, 0.9, 0.8, 9), (0.7, 0.7, 0.6, 5))
    ]
    results = collect(folders, "checkpoints")
    assert [row.name for row in results.targets()] == ["no defence", "RoLSS"]
    accuracy = results.rows[0].measures["accuracy"]
    assert accuracy is not None
    assert accuracy.value == pytest.approx(0.9, abs=0.01)
    assert len(results.curves["RoLSS"]) == 3


def test_several_populations_are_refused(study):
    told = json.loads((study[0] / "result.json").read_text())
    told["population"]["key"] = "q"
    (study[0] / "result.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match="of several"):
        collect(study, "all")
    with pytest.raises(UserError, match="no finished evaluation"):
        collect([], "all")


def rows(results):
    return {row.name: (row.kind, row.measures["hits@1"].value) for row in results.rows if row.kind != "chance"}


def test_no_evaluation_is_dropped_whatever_it_differs_in(tmp_path):
    strong, weak = (PriorRecord("Rendered", {"strength": value}) for value in (1.0, 0.2))
    seeds = [replace(POINCARE, seed=seed) for seed in (0, 7)]
    ways = [
        (strong, seeds[0]),
        (weak, seeds[0]),
        (strong, seeds[1]),
        (strong, replace(seeds[0], classes=(0, 1))),
        (strong, replace(seeds[0], knowledge={"settings": {"epochs": 3}, "seed": 0})),
    ]
    folders = [
        evaluated(tmp_path, "no defence", 0.9, 0.1 + place / 10, attack=attack, prior=prior)
        for place, (prior, attack) in enumerate(ways)
    ]
    results = collect(folders, "all")
    told = [Record.from_json(json.loads((f / "result.json").read_text())).evaluation for f in folders]
    assert {value for _, value in rows(results).values()} == {one.measures["hits@1"].value for one in told}
    assert list(rows(results)) == [
        "no defence",
        "no defence (attack seed 7)",
        "no defence (prior settings strength 0.2)",
        "no defence (classes 0, 1)",
        "no defence (knowledge settings epochs 3)",
    ]
    assert len(results.unequal) == 4
    again = collect([*folders, folders[0]], "a folder that is given twice counts once")
    assert again.rows == results.rows


def test_a_training_that_was_attacked_again_is_another_row_for_all_its_seeds(tmp_path):
    folders = [
        evaluated(tmp_path, "no defence", 0.9, 0.4, seed, attack=replace(POINCARE, seed=attack))
        for seed, attack in ((0, 0), (0, 9), (1, 1), (1, 9))
    ]
    results = collect(folders, "all")
    assert [(row.name, row.detail) for row in results.rows if row.kind != "chance"] == [
        ("no defence", "2 training seeds"),
        ("no defence (attack seed 9)", "2 training seeds"),
    ]


def test_defences_of_one_name_are_rows_of_their_own(tmp_path):
    evaluated(tmp_path, "mine", 0.9, 0.4, defences={"Mine": {"weight": 1}})
    evaluated(tmp_path, "mine", 0.9, 0.5, defences={"Mine": {"weight": 2}})
    results = collect(sorted(tmp_path.glob("Evaluate/*")), "all")
    assert list(rows(results)) == ["mine", "mine'"]


def test_checkpoints_on_no_curve_are_said(study, tmp_path):
    study.append(evaluated(tmp_path, "RoLSS", 0.5, 0.2, 0, 0.5))  # of one seed alone
    warnings = collect(study, "all").warnings
    assert any(w.startswith("RoLSS: 1 evaluation at checkpoints stands on no curve") for w in warnings)
    assert not any("stands on no curve" in w or "stand on no curve" in w for w in collect(study[:-1], "all").warnings)


def test_delta_and_deviations_are_columns_also_of_the_csv(tmp_path):
    """Where the loss of accuracy is clear of zero; its reservation stands in the heading's explanation."""
    for seed in range(3):
        evaluated(tmp_path, "no defence", 0.9, 0.8, seed)
        evaluated(tmp_path, "RoLSS", 0.5, 0.4, seed)
        evaluated(tmp_path, "SSF", 0.9, 0.5, seed)
    results = collect(sorted(tmp_path.glob("Evaluate/*")), "all")
    found = {row.name: row for row in results.rows}
    delta = found["RoLSS"].measures["delta"]
    assert 0.8 < delta.low < delta.value < delta.high < 1.6
    assert found["SSF"].measures["delta"] is None  # it costs nothing
    assert "delta" not in found["no defence"].measures
    runs = results.runs["RoLSS"]
    for name in ("accuracy", "hits@1"):
        deviation = torch.tensor(runs[name], dtype=torch.float64).std()
        assert found["RoLSS"].measures[f"{name} deviation"].value == pytest.approx(float(deviation), abs=0.02)
    assert "never read it alone" in results.column("delta").meaning
    csv = to_csv(tables(results)[0]).splitlines()
    assert {"delta", "delta low", "hits@1 deviation"} <= set(csv[0].split(","))


def test_factors_of_skips_are_one_sweep_however_they_are_spelled(tmp_path):
    skips = [["layer4.0.add", "add", 4, 0]]
    for title, kind, factor in (("RoLSS", "RoLSS", 0.0), ("SSF", "SSF", 0.2), ("SSF (factor 0.6)", "SSF", 0.6)):
        told = {kind: {"factor": None if title == "SSF" else factor, "where": "last"}}
        evaluated(tmp_path, title, 0.9, 0.4, defences=told, surgery=({"factor": factor, "skips": skips},))
    evaluated(tmp_path, "TTS", 0.9, 0.4, defences={"TTS": {}}, surgery=({"factor": 0.0, "skips": skips},))
    first = evaluated(tmp_path, "no defence", 0.9, 0.8)
    results = collect([first, *sorted(tmp_path.glob("Evaluate/*"))[:-1]], "all")
    assert results.swept == "SSF factor"
    assert results.sweep == {"no defence": 1.0, "RoLSS": 0.0, "SSF": 0.2, "SSF (factor 0.6)": 0.6}


def test_a_person_without_test_pictures_shifts_nobody(tmp_path):
    """Of published data the test pictures are drawn without regard to whose they are."""
    folder = evaluated(tmp_path, "no defence", 0.9, 0.4)
    told = json.loads((folder / "result.json").read_text())
    before = list(told["target"]["accuracy_of"])
    told["target"]["accuracy_of"][1] = None
    (folder / "result.json").write_text(json.dumps(told))
    (row,) = collect([folder], "all").tables.values()
    (now,) = row["accuracy"]
    assert now[:1] + now[2:] == pytest.approx(before[:1] + before[2:], abs=1e-6)
    assert math.isnan(now[1])


def test_a_swept_judge_or_protocol_is_one_table_and_two_judges_of_different_targets_are_none(tmp_path):
    other = JudgeRecord("timm:vgg11", 0.98, "b" * 64)
    swept = [evaluated(tmp_path, "no defence", 0.9, 0.4, judge=judge) for judge in (JUDGE, other)]
    results = collect(swept, "all")
    assert list(rows(results)) == ["no defence", "no defence (judge timm:vgg11)"]
    assert not any("counted differently" in warning for warning in results.warnings)
    mixed = [swept[0], evaluated(tmp_path, "RoLSS", 0.9, 0.4, judge=other)]
    with pytest.raises(UserError, match="counted differently"):
        collect(mixed, "all")


def test_a_number_that_was_swept_makes_a_figure(tmp_path):
    for steps in (10, 20, 40):
        evaluated(tmp_path, "no defence", 0.9, steps / 100, attack=AttackRecord("PPA", settings={"steps": steps}))
    results = collect(sorted(tmp_path.glob("Evaluate/*")), "all")
    assert (results.swept, list(results.sweep.values())) == ("attack steps", [10.0, 20.0, 40.0])
    assert "setting" in {figure.name for figure in figures(results)}


def test_of_whom_nothing_came_back_nothing_leaked(tmp_path):
    """An attack that comes back with three of twelve people did not find all of them."""
    folders = [evaluated(tmp_path, name, 0.9, 1.0, seed) for name in ("none", "NegLS") for seed in range(3)]
    for folder in folders[3:]:
        told = json.loads((folder / "result.json").read_text())
        own = told["evaluation"]
        own["classes"] = own["classes"][:3]
        own["warnings"] = [f"{UNANSWERED} 9 of 12 people, whom these numbers leave out; of all: AttAcc@1 25.0%"]
        own["per_class"] = {name: values[:3] for name, values in own["per_class"].items()}
        (folder / "result.json").write_text(json.dumps(told))
    results = collect(folders, "T")
    leaks = {row.name: row.measures["hits@1"] for row in results.targets()}
    assert leaks["none"].value > 0.9
    assert leaks["NegLS"].value < 0.25
    (gap,) = [one for one in results.differences if one.column == "hits@1"]
    assert gap.value == pytest.approx(leaks["NegLS"].value - leaks["none"].value)
    assert [text for text in results.warnings if "nothing came back" in text] == [
        "NegLS: of 9 of 12 people nothing came back; shares count them as not found"
    ]


def test_differences_at_equal_accuracy_are_corrected_like_all_others(tmp_path):
    folders = []
    for name in ("no defence", *(f"D{place}" for place in range(6))):
        leak = 0.45 if name == "D0" else 0.6
        for seed in range(3):
            folders.append(evaluated(tmp_path, name, 0.9, leak, seed))
            folders.append(evaluated(tmp_path, name, 0.5, leak / 2, seed, 0.5))
    table = {table.name: table for table in tables(collect(folders, "T"))}["equal-accuracy"]
    place = next(place for place, column in enumerate(table.columns) if column.name == "hits@1 difference")
    gaps = {line.name: line.cells[place] for line in table.lines}
    assert len(gaps) == 6
    assert gaps["D0"].corrected > gaps["D0"].p
    small = [gap for gap in gaps.values() if abs(gap.value) < 0.05]  # being stopped alone may do that
    assert small
    assert all(gap.corrected is None for gap in small)
