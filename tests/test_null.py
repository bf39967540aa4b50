"""A null that the data do not allow is left out, and said: where all people are private, there are no others."""

import pytest
import torch
from PIL import Image

from lightleak import priors
from lightleak.attacks import PPA
from lightleak.data.population import Images
from lightleak.data.views import View
from lightleak.defences import RoLSS
from lightleak.priors import RenderedPrior
from lightleak.report import page
from lightleak.report.study import pages, recorded, studied
from lightleak.study import Store, run
from lightleak.study.comparison import Setting, compare
from lightleak.study.task import Absent
from lightleak.study.tasks import people, ready, source
from lightleak.training import Recipe

RECIPE = Recipe(epochs=1, batch=16, rate=1e-3, milestones=(), view=View(), precision="float32")
ATTACK = PPA(candidates=12, attempts=1, keep=1, steps=2, rate=0.05, views=1)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """FaceScrub and FFHQ as they are published, tiny; and a prior in a folder."""
    root = tmp_path_factory.mktemp("published")
    for person in range(4):
        place = root / "facescrub" / ("actors", "actresses")[person % 2] / "faces" / f"person {person}"
        place.mkdir(parents=True)
        for number in range(14):
            Image.new("RGB", (40, 40), (60 * person, 15 * number, 90)).save(place / f"{number}.jpg")
    (root / "ffhq" / "00000").mkdir(parents=True)
    for number in range(12):
        Image.new("RGB", (40, 40), (20 * number, 80, 0)).save(root / "ffhq" / "00000" / f"{number:05d}.png")
    priors.save(RenderedPrior(size=32), root / "prior")
    return root


@pytest.mark.parametrize("public", ["ffhq"])  # without: tests/test_rehearsal.py
def test_a_comparison_without_other_people_runs_to_its_page(published, tmp_path, monkeypatch, public):
    monkeypatch.setenv("LIGHTLEAK_CACHE", str(tmp_path / "cache"))
    settings = {"public": f"ffhq:{published / 'ffhq'}"} if public else {}
    setting = Setting(
        source(f"facescrub:{published / 'facescrub'}", size=32, **settings),
        architecture="face:ir18-narrow",
        recipe=RECIPE,
        judge="face:ir18-narrow",
        judge_recipe=RECIPE,
        attack=ATTACK,
        prior=ready(published / "prior"),
    )
    tasks = compare(setting, ((), (RoLSS(),)))
    with recorded(tasks, tmp_path / "out", "miniature", "lightleak study x.py"):
        failures = run(tasks, Store(tmp_path / "out"))
    assert not failures, [failure.error for failure in failures.values()]
    (results,) = pages(studied(tmp_path / "out"))
    kinds = ("target", "reference", "null")
    assert [row.name for row in results.rows if row.kind in kinds and "ceiling" not in row.name] == [
        "no defence", "RoLSS", "null: never optimised",
    ]  # fmt: skip
    (note,) = [note for note in results.notes if "other people" in note]
    assert note.startswith("there is no null 'other people' here: it is a network of other people, and of the public")
    assert ("(4 with at most 1 picture each)" if public else "(nobody)") in note
    assert "there is no null" in page(results)


def of_others(counts):
    """A population whose public people have so many pictures each."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)) if counts else torch.zeros(0).long()
    empty = Images(torch.zeros(0, 3, 4, 4, dtype=torch.uint8), torch.zeros(0).long())
    return type("P", (), {"public": Images(torch.zeros(len(labels), 3, 4, 4, dtype=torch.uint8), labels), "classes": 5,
                          "train": empty})  # fmt: skip


@pytest.mark.parametrize("counts", [[], [1, 1, 1], [2, 2], [14], [4, 4]])
def test_too_few_pictures_of_others_are_no_null(counts):
    with pytest.raises(Absent, match="it takes two"):
        people(of_others(counts), "public")


def test_others_are_divided_person_by_person():
    parts = people(of_others([10, 20]), "public")
    assert [part.labels.bincount().tolist() for part in parts] == [[7, 14], [1, 2], [2, 4]]
