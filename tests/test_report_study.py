"""What makes up a study's pages, and how pages of one study are told apart."""

import json
from pathlib import Path

import pytest

from lightleak.errors import UserError
from lightleak.metrics.evaluation import Evaluation
from lightleak.metrics.evidence import Measure
from lightleak.report.study import NOTE, pages, place_of, recorded, settings_of, studied
from lightleak.study import Task, load
from lightleak.study.loading import titled
from lightleak.study.record import AttackRecord, JudgeRecord, PopulationRecord, PriorRecord, Record, TargetRecord

NOTHING = Evaluation((), 0, {}, {}, {}, {}, Measure(1.0))


def evaluated(folder: Path, task: str, **changes) -> None:
    """An evaluation's folder with just what decides on which page it stands."""
    key = changes.pop("population", "p")
    title, network = changes.pop("title", "none"), changes.pop("architecture", "timm:resnet18")
    evaluation = changes.pop("evaluation", NOTHING)
    settings = {"jitter": 0.1 if key == "p" else 0.4, "seed": 0}
    record = Record(
        target=TargetRecord(title, "t", 0, network, {}, 1.0, (1.0,) * len(evaluation.classes), 0),
        population=PopulationRecord(key, "faces", 48, 8, (), settings=settings),
        attack=AttackRecord(changes.pop("name", "PPA"), settings={"loss": "poincare", **changes}),
        prior=PriorRecord("Rendered"),
        judge=JudgeRecord("timm:resnet14t", 1.0),
        evaluation=evaluation,
        confidence=(),
    )
    place = folder / "Evaluate" / task
    place.mkdir(parents=True)
    (place / "result.json").write_text(json.dumps(record.to_json()))


@pytest.fixture
def drawn(monkeypatch):
    """Pages as (title, evaluations), without their numbers."""
    monkeypatch.setattr(
        "lightleak.report.study.collect", lambda group, title, *_: (title, [place.name for place in group])
    )

    def found(folder: Path, keys: list[str]) -> list:
        about = {"title": "T", "command": "c", "evaluations": keys}
        (folder / NOTE).write_text(json.dumps(about))
        return list(pages(studied(folder)))

    return found


def test_one_page_needs_no_more_than_the_studys_title(tmp_path, drawn):
    evaluated(tmp_path, "a")
    evaluated(tmp_path, "b", title="RoLSS")
    assert drawn(tmp_path, ["a", "b"]) == [("T", ["a", "b"])]


def test_a_folder_may_be_named_from_where_one_stands(tmp_path, drawn, monkeypatch):
    evaluated(tmp_path / "runs", "a")
    (tmp_path / "linked").symlink_to(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    assert drawn(Path("runs"), ["a"]) == drawn(tmp_path / "linked", ["a"]) == [("T", ["a"])]


def test_pages_are_told_apart_by_what_differs(tmp_path, drawn):
    for place, changes in (("a", {}), ("b", {"loss": "max-margin"})):
        evaluated(tmp_path, f"{place}1", **changes)
        evaluated(tmp_path, f"{place}2", title="RoLSS", **changes)
    keys = ["a1", "a2", "b1", "b2"]
    assert drawn(tmp_path, keys) == [("T (loss poincare)", keys[:2]), ("T (loss max-margin)", keys[2:])]


def test_a_part_of_an_attack_is_named_by_its_kind_and_by_what_differs_within_it(tmp_path, drawn):
    views = {"scale": [0.8, 1.0], "flip": 0.5}
    parts = {
        "a": None,
        "b": {"kind": "noise", "copies": 8, "view": views},
        "c": {"kind": "transforms", "copies": 8, "view": views},
        "d": {"kind": "transforms", "copies": 8, "view": views, "coarse": 2},
    }
    for place, alignment in parts.items():
        evaluated(tmp_path, f"{place}1", alignment=alignment)
        evaluated(tmp_path, f"{place}2", title="RoLSS", alignment=alignment)
    titles = [title for title, _ in drawn(tmp_path, [f"{place}{number}" for place in parts for number in (1, 2)])]
    assert titles == [
        "T",
        "T (alignment noise)",
        "T (alignment transforms)",
        "T (alignment transforms, alignment coarse 2)",
    ]


def test_a_swept_setting_is_one_table(tmp_path, drawn):
    for place, loss in (("a", "poincare"), ("b", "max-margin"), ("c", "ce")):
        evaluated(tmp_path, place, loss=loss)
    assert drawn(tmp_path, ["a", "b", "c"]) == [("T", ["a", "b", "c"])]


def test_another_attack_is_named_without_its_settings(tmp_path, drawn):
    evaluated(tmp_path, "a")
    evaluated(tmp_path, "b", name="GMI", loss="ce")
    assert [title for title, _ in drawn(tmp_path, ["a", "b"])] == ["T (PPA)", "T (GMI)"]


def test_networks_and_people_have_pages_of_their_own(tmp_path, drawn):
    for network in ("timm:resnet18", "timm:vgg16"):
        evaluated(tmp_path, f"{network[-5:]}1", architecture=network)
        evaluated(tmp_path, f"{network[-5:]}2", architecture=network, title="RoLSS")
    assert [title for title, _ in drawn(tmp_path, ["net181", "net182", "vgg161", "vgg162"])] == [
        "T (timm:resnet18)",
        "T (timm:vgg16)",
    ]
    evaluated(tmp_path, "q", population="q")
    assert drawn(tmp_path, ["net181", "q"]) == [
        ("T (jitter 0.1)", ["net181"]),
        ("T (jitter 0.4)", ["q"]),
    ]


def test_a_network_with_one_target_stands_beside_the_first(tmp_path, drawn):
    evaluated(tmp_path, "a")
    evaluated(tmp_path, "b", title="RoLSS")
    evaluated(tmp_path, "c", architecture="timm:vgg16")
    assert drawn(tmp_path, ["a", "b", "c"]) == [("T", ["a", "b", "c"])]


def test_what_is_missing_is_counted_and_nothing_is_refused(tmp_path, drawn):
    evaluated(tmp_path, "a")
    drawn(tmp_path, ["a", "later"])
    assert studied(tmp_path).missing == 1
    with pytest.raises(UserError, match="no evaluation is finished"):
        drawn(tmp_path, ["later"])
    with pytest.raises(UserError, match="holds no finished study"):
        studied(tmp_path / "elsewhere")
    (tmp_path / NOTE).write_text("[" * 100_000)
    with pytest.raises(UserError, match="holds no finished study"):
        studied(tmp_path)


class Evaluate(Task):
    """Stands for one that fails."""

    @property
    def key(self) -> str:
        return "never"


def test_the_note_goes_if_nothing_is_ever_made(tmp_path):
    with recorded([Evaluate()], tmp_path, "T", "c"):
        assert json.loads((tmp_path / NOTE).read_text())["evaluations"] == ["never"]
    assert not (tmp_path / NOTE).exists()


def test_a_study_is_called_by_its_first_line(tmp_path):
    file = tmp_path / "mine.py"
    text = "from lightleak.study.tasks import source\ndef tasks():\n    return [source('faces', people=8)]\n"
    file.write_text('"""What is asked.\n\nMore."""\n' + text)
    load(file)
    assert titled(file) == "What is asked"
    (tmp_path / "other.py").write_text(text)
    load(tmp_path / "other.py")
    assert titled(tmp_path / "other.py") == "other"


def test_other_settings_do_not_overwrite_a_page(tmp_path):
    store = tmp_path / "out"
    evaluated(store, "never")
    with recorded([Evaluate()], store, "T", "c", settings={"people": 8}) as first:
        assert first == store
    with recorded([Evaluate()], store, "T", "c", settings={"people": 12, "data": "folder:/my photos"}) as second:
        assert second.parent == store
        assert "people-12" in second.name
    with recorded([Evaluate()], store, "T", "c", settings={"people": 8}) as again:
        assert again == first
    with recorded([Evaluate()], store, "T", "c", settings={}) as third:
        assert third == store / "defaults"
    assert settings_of(store) == {"people": 8}
    assert place_of(store, {"people": 12, "data": "folder:/my photos"}) == second
    for place in (first, second, third):
        assert studied(place).evaluations == (store / "Evaluate" / "never",)


def test_another_study_does_not_overwrite_a_page(tmp_path):
    """Studies that share a store have a page each, whoever comes again."""
    store = tmp_path / "out"
    evaluated(store, "never")
    places = {}
    for study, settings in (("tab8", {}), ("fig5", {}), ("fig5", {"seeds": 1}), ("tab8", {"seeds": 1})):
        with recorded([Evaluate()], store, study, "c", settings=settings, study=study) as places[study, *settings]:
            pass
    assert list(places.values()) == [store, store / "fig5", store / "fig5-seeds-1", store / "seeds-1"]
    assert [studied(place).title for place in places.values()] == ["tab8", "fig5", "fig5", "tab8"]
    assert place_of(store, {}, "fig5") == store / "fig5"
    assert (settings_of(store, "tab8"), settings_of(store, "fig5")) == ({}, None)


def test_a_page_is_of_its_own_study_whatever_ran_beside_it(tmp_path):
    """Another run of the same place may write its note while a study computes."""
    evaluated(tmp_path, "never")
    with recorded([Evaluate()], tmp_path, "mine", "c") as place:
        with recorded([Evaluate()], tmp_path, "theirs", "c") as other:
            assert other == place
        assert studied(place).title == "theirs"
    assert studied(place).title == "mine"


def test_settings_of_what_never_finished_are_no_page(tmp_path):
    with recorded([Evaluate()], tmp_path, "T", "c", settings={"people": 8}):
        assert place_of(tmp_path, {"people": 9}) == tmp_path
    about = {"title": "T", "command": "c", "evaluations": ["never"]}  # of an older version: nobody noted its settings
    evaluated(tmp_path, "never")
    (tmp_path / NOTE).write_text(json.dumps(about))
    assert place_of(tmp_path, {"people": 9}) == tmp_path
