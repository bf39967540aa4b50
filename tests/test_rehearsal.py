"""Every study of the paper at its own scale, executed: on miniatures in the published layouts, through to its page.

Data, lists, priors and weights lie in files as they are published; the networks are of their own classes and toy width.
What a study plans is what it runs: epochs, steps and sizes alone are trimmed, by settings that users have too.
"""

import json
from pathlib import Path

import pytest

import rehearsal
from lightleak import cli
from lightleak.models import zoo
from lightleak.raters import Answers, Questions, pairs_to_rate
from lightleak.study import load, spelling
from lightleak.study.loading import published
from lightleak.study.tasks import Evaluate

STUDIES = Path(__file__).parent.parent / "studies" / "paper"
TOY = {"epochs": 2, "judge_epochs": 1, "batch": 16, "candidates": 12, "attempts": 2, "keep": 1, "steps": 2, "views": 1}
STARTS = [
    *(f"torchvision:resnet{depth}" for depth in (34, 50, 101, 152)),
    *(f"torchvision:efficientnet_b{number}" for number in range(3)),
    *(f"torchvision:{name}" for name in ("vgg16_bn", "vgg19_bn", "vit_b_16", "maxvit_t", "inception_v3")),
    *(f"timm:repvgg_{size}" for size in ("a0", "a1", "a2", "b0", "b1", "b3", "d2se")),
    "face:ir152",
    "face:facenet112",
]


@pytest.fixture(scope="module")
def toy_zoo():
    """The paper's networks by name, at toy width."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zoo, "BUILDERS", rehearsal.TOY_ZOO)
        _forget()
        yield
    _forget()


def _forget():
    spelling._looked_at.cache_clear()
    spelling._shortest.cache_clear()


@pytest.fixture(scope="module")
def things(tmp_path_factory, toy_zoo):  # noqa: ARG001
    """Settings for FaceScrub, a converted StyleGAN2, a judge, and weights to begin with, in miniature."""
    root = tmp_path_factory.mktemp("things")
    return {
        "data": f"facescrub:{rehearsal.facescrub(root / 'facescrub')}",
        "prior": rehearsal.prior(root),
        "judge": rehearsal.judge(root / "judge.safetensors"),
        "weights": rehearsal.weights(root / "weights", *STARTS),
        "size": 32,
        **TOY,
    }


@pytest.fixture(autouse=True)
def one_cache(monkeypatch, things):
    monkeypatch.setenv("LIGHTLEAK_CACHE", str(Path(things["prior"]).parent / "cache"))


def rehearse(name, out, **values):
    """Run a study through the command line; its pages' records."""
    cli.main(["study", str(STUDIES / f"{name}.py"), "--out", str(out), "--here", "1",
              *rehearsal.settings(scale="paper", **values)])  # fmt: skip
    pages = [out, *sorted(out.glob("page-*"), key=lambda page: int(page.name.split("-")[1]))]
    assert all((page / "report.html").stat().st_size > 10_000 for page in pages)
    return [json.loads((page / "record.json").read_text()) for page in pages]


def names(record, *kinds):
    return [row["name"] for row in record["rows"] if row["kind"] in kinds]


def test_figure_2_runs_to_its_page(things, tmp_path):
    (record,) = rehearse("fig2_likelihood", tmp_path, **things)
    assert names(record, "target") == ["no defence", "RoLSS"]
    assert names(record, "null")[0] == "null: never optimised"
    assert set(record["confidences"]) == {"no defence", "RoLSS"}
    assert record["protocol"] == "paper-ppa trimmed v1"
    assert "published split" in " ".join(record["notes"])
    assert record["recipe"]["population"]["settings"]["split"] == "published"
    (whole, _) = [row["measures"] for row in record["rows"] if row["kind"] == "target"]
    assert whole["published hits@1"]["value"] == 0.83
    assert {"delta_eval", "accuracy", "hits@5"} <= set(whole)


def test_the_doctor_says_all_of_a_study(things, tmp_path, capsys, monkeypatch):
    """What is missing, at once; what does not fit, which the study refuses as well; else room and hours."""
    monkeypatch.chdir(tmp_path)
    file = str(STUDIES / "fig2_likelihood.py")
    with pytest.raises(SystemExit):
        cli.main(["doctor", "--study", file, "--settings", "scale", "paper"])
    told = " ".join(capsys.readouterr().out.split())
    for missing in ("data facescrub:PATH", "prior FOLDER", "resnet101-63fe2227.pth", "judge FILE"):
        assert missing in told
    cli.main(["doctor", "--study", file, *rehearsal.settings(scale="paper", **things)])
    told = " ".join(capsys.readouterr().out.split())
    assert "8 people at 32 pixels" in told
    assert "begins with resnet101.pth (sha256" in told
    assert "face:facenet112" not in told
    for line in ("prior", "judge", "disk", "memory", "hours"):
        assert f" {line} " in told
    assert "all is well" in told
    wrong = tmp_path / "weights"
    wrong.mkdir()
    (wrong / "resnet101.pth").symlink_to(Path(things["weights"]) / "resnet34.pth")
    other = {**things, "weights": wrong}
    with pytest.raises(SystemExit):
        cli.main(["doctor", "--study", file, *rehearsal.settings(scale="paper", **other)])
    assert "does not fit its architecture" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit):
        cli.main(["study", file, "--out", "out", *rehearsal.settings(scale="paper", **other)])
    assert "would not come to its end: torchvision:resnet101: " in " ".join(capsys.readouterr().err.split())
    assert not Path("out").exists()


FACTORS = ["SSF (factor 0.8)", "SSF (factor 0.6)", "SSF (factor 0.4)", "SSF"]
RESNET = ["no defence", "MID", "DP-SGD (epsilon None, noise 0.01)", "BiDO", "RoLSS", "RoLSS+", "SSF", "TTS"]
STAGES = ["no defence", *(f"RoLSS (where {stage})" for stage in (1, 2, 3)), "RoLSS"]
CUT = "RoLSS (where blocks.0.*attention.{})"
PAGES = {  # the targets on each page of each study
    "fig12_repetitions": [["no defence", "RoLSS"]] * 2,
    "fig2_likelihood": [["no defence", "RoLSS"]],
    "fig3_families": [["no defence", "RoLSS"]] * 9,
    "fig4_other_attacks": [["no defence", "RoLSS"]] * 3,
    "fig5_other_data": [["no defence", "RoLSS"]] * 4,
    "fig7_transformers": [
        ["no defence", "RoLSS (where encoder.layers.encoder_layer_0.add_2)"],
        ["no defence", CUT.format("add_2"), CUT.format("add")],
    ],
    "fig9_ssf": [["no defence", *FACTORS, "RoLSS"], ["no defence", *FACTORS[:3], "SSF (factor 0.2)", "RoLSS"]],
    "tab10_user_study": [["no defence", CUT.format("add_2")]],
    "tab11_vgg": [["no defence", "RoLSS"]],
    "tab2_stages": [STAGES] * 8,
    "tab4_repvgg": [["no defence", "no defence, fused"]] * 7,
    "tab5_defences": [RESNET] * 4 + [["no defence", "RoLSS", "SSF"]] * 4,
    "tab8_bido_rolss": [["no defence", "BiDO", "BiDO + RoLSS"]],
}


def test_published_numbers_name_rows_that_are_planned(things):
    """At the paper's scale, for every study: no row twice, and each of the paper's numbers beside one of them."""
    root = Path(things["prior"]).parent
    for study in PAGES:
        values = {name: str(value) if isinstance(value, Path) else value for name, value in things.items()}
        if study == "fig5_other_data":
            values["data"] = f"dogs:{rehearsal.dogs(root / 'dogs')}"
        if study == "fig4_other_attacks":
            values = {
                "data": f"celeba:{rehearsal.celeba(root / 'celeba')}",
                "weights": values["weights"],
                "split": "disjoint",
            }
        tasks = load(STUDIES / f"{study}.py", scale="paper", **values)
        targets = [task.found.target for task in tasks if isinstance(task, Evaluate)]
        assert len({task.key for task in tasks}) == len(tasks)
        for network, lines in published(STUDIES / f"{study}.py").items():
            for title in lines["rows"] if network in {one.architecture for one in targets} else ():
                assert (network, title) in {(one.architecture, one.title) for one in targets}


def test_any_network_takes_the_place_of_the_papers(things):
    """At the paper's scale: planned for every study, with the weights that it begins with."""
    root = Path(things["prior"]).parent
    values = {name: str(value) if isinstance(value, Path) else value for name, value in things.items()}
    values |= {"architecture": "torchvision:resnet50", "weights": str(things["weights"])}
    for study in sorted(set(PAGES) - {"tab4_repvgg"}):
        own = values
        if study == "fig5_other_data":
            own = values | {"data": f"dogs:{rehearsal.dogs(root / 'dogs')}"}
        if study == "fig4_other_attacks":
            named = ("architecture", "weights")
            own = {name: values[name] for name in named} | {"data": f"celeba:{rehearsal.celeba(root / 'celeba')}"}
        tasks = [task for task in load(STUDIES / f"{study}.py", scale="paper", **own) if isinstance(task, Evaluate)]
        assert {task.found.target.architecture for task in tasks} == {"torchvision:resnet50"}, study
        assert all("resnet50" in task.label for task in tasks)


def rated(out):
    """People take the picture of the first target, of all pairs but one, on the page that the study ends in."""
    asked = pairs_to_rate(out)
    assert [pair.targets for pair in asked.pairs] == [tuple(PAGES["tab10_user_study"][0])] * len(asked.pairs)
    questions = Questions(asked.pairs, Answers(asked.folder))
    for rater in ("Ada", "Bo"):
        while (question := questions.next(rater)[0]) is not None:
            wanted = question.pair.targets[question.pair is asked.pairs[0]]
            side = "left" if question.chosen("left") == wanted else "right"
            assert questions.answer(rater, question.place, side)
    cli.main(["raters", str(out), "--results"])
    said = " ".join(json.loads((out / "record.json").read_text())["raters"])
    assert f"2 people gave {2 * len(asked.pairs)} answers to {len(asked.pairs)} pairs" in said
    assert f"was preferred to that from {CUT.format('add_2')!r} in {100 - 100 / len(asked.pairs):.1f} %" in said
    assert "Krippendorff's alpha: 1.00" in said
    assert "What people preferred" in (out / "report.html").read_text()


CURVED = ("fig3_families", "fig5_other_data", "fig7_transformers", "fig9_ssf")


def test_every_study_is_rehearsed():
    assert sorted(PAGES) == sorted(path.stem for path in STUDIES.glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("study", PAGES)
def test_a_study_runs_to_its_pages(study, things, tmp_path):
    values = {**things, **({"accuracies": 0.2} if study in CURVED else {})}
    root = Path(things["prior"]).parent
    if study == "fig5_other_data":  # with a judge that the study trains, on cropped dogs, and public pictures
        dogs, public = rehearsal.dogs(root / "dogs"), rehearsal.ffhq(root / "ffhq")
        values |= {"data": f"dogs:{dogs}", "judge_size": 48, "public": f"ffhq:{public}"}
        del values["judge"]
    if study == "fig4_other_attacks":
        data = f"celeba:{rehearsal.celeba(root / 'celeba')}"
        values = {"data": data, "weights": things["weights"], "identities": 4, "prior_steps": 2, **TOY}
    if study == "tab4_repvgg":
        values |= {"face": rehearsal.facenet(root / "facenet.pt"), "inception": rehearsal.inception(root / "fid.pth")}
    if study == "fig12_repetitions":
        values |= {"seeds": 3}
    records = rehearse(study, tmp_path, **values)
    assert [names(record, "target") for record in records] == PAGES[study]
    for record in records:
        assert names(record, "null"), record["title"]
        if study in CURVED:
            assert set(record["curves"]) == set(names(record, "target"))
    first = next(row["measures"] for row in records[0]["rows"] if row["kind"] == "target")
    if study == "tab4_repvgg":
        assert {"delta_face", "fid"} <= set(first)  # one image of each: too few for the others
    if study == "tab10_user_study":
        rated(tmp_path)
    if study == "fig12_repetitions":
        assert {"accuracy deviation", "hits@1 deviation"} <= set(first)
    if study == "fig9_ssf":
        assert (
            sorted(records[0]["sweep"].values()) == sorted(records[1]["sweep"].values()) == [0, 0.2, 0.4, 0.6, 0.8, 1]
        )
    if study == "tab11_vgg":
        assert names(records[0], "reference")


@pytest.mark.slow
def test_table_7_has_all_its_measures(things, tmp_path):
    """The distances and the realism of Table 7, which take ten images of each person or more."""
    root = Path(things["prior"]).parent
    files = {"face": rehearsal.facenet(root / "facenet.pt"), "inception": rehearsal.inception(root / "fid.pth")}
    enough = {"only": "repvgg_a0", "attempts": 12, "keep": 12}
    (record,) = rehearse("tab4_repvgg", tmp_path, **{**things, **files, **enough})
    columns = {"delta_eval", "delta_face", "fid", "precision", "recall", "density", "coverage"}
    for row in record["rows"]:
        if row["kind"] == "target":
            assert columns <= set(row["measures"])
