"""What results look like to people: pictures by class, a table, HTML for notebooks, reprs that fit a screen."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import TinyNet, tiny_classifier
from lightleak.attacks import KEDMI, Reconstruction
from lightleak.data.people import People
from lightleak.errors import UserError
from lightleak.metrics.evaluation import METRICS, Evaluation
from lightleak.metrics.evidence import Measure
from lightleak.surgery import find_joins, find_skips

NAMES = ("anna", "../b o/b", "2", "<i>")


@pytest.fixture
def found():
    """Class 0 has two images, 3 has one, 2 has two; every image is of one grey, its confidence as bright."""
    levels = torch.tensor([10, 20, 30, 40, 50], dtype=torch.uint8)
    classes = torch.tensor([0, 3, 0, 2, 2])
    images = levels.view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()
    return Reconstruction(images, classes, torch.zeros(5, 2), levels / 255).named(People(NAMES))


def greys(image, side=4):
    """The grey in the middle of every tile, row by row."""
    return np.asarray(image)[side // 2 :: side, side // 2 :: side, 0].tolist()


def test_a_grid_holds_those_of_highest_confidence(found):
    assert greys(found.grid()) == [[30, 50, 20]]
    assert greys(found.grid(2, columns=4)) == [[30, 10, 50, 40], [20, 255, 255, 255]]  # what is missing is white
    assert greys(found.grid(columns=2)) == [[30, 50], [20, 255]]
    with pytest.raises(UserError, match="at least one image"):
        found.grid(0)


def test_images_are_saved_by_class(found, tmp_path):
    files = found.save_images(tmp_path / "all")
    assert [str(file.relative_to(tmp_path / "all")) for file in files] == [
        "000-anna/000.png",
        "003-i/000.png",
        "000-anna/001.png",
        "002/000.png",
        "002/001.png",
    ]
    for file, level in zip(files, (10, 20, 30, 40, 50)):
        assert (np.asarray(Image.open(file)) == level).all()
    odd = replace(found, images=found.pixels[:1], classes=torch.tensor([1]), latents=found.latents[:1],
                  confidence=found.confidence[:1])  # fmt: skip
    (file,) = odd.save_images(tmp_path / "odd")
    assert file.parent == tmp_path / "odd" / "001-b-o-b"  # a name cannot lead elsewhere


@pytest.fixture
def evaluation():
    measures: dict[str, Measure | None] = dict.fromkeys(METRICS)
    measures |= {"hits@1": Measure(0.5, 0.25, 0.75), "delta_eval": Measure(12.0)}
    one = Evaluation(
        classes=(0, 1),
        images=4,
        measures=measures,
        per_class={"hits@1": (0.0, 1.0)},
        chance={"hits@1": 0.1},
        missing={"fid": "no feature network"},
        judge_accuracy=Measure(0.99),
        warnings=("<b>few</b> people",),
    )
    return replace(one, nulls={"prior": replace(one, measures=measures | {"hits@1": Measure(0.125)})})


def test_an_evaluation_is_a_table(evaluation):
    table = evaluation.table()
    assert list(table.index) == list(METRICS)
    row = table.loc["hits@1"]
    assert (row["label"], row["value"], row["low"], row["high"], row["chance"], row["null: prior"]) == (
        "AttAcc@1", 0.5, 0.25, 0.75, 0.1, 0.125,
    )  # fmt: skip
    assert np.isnan(table.loc["delta_eval", "low"])
    assert np.isnan(table.loc["fid", "value"])
    assert table.loc["fid", "missing"] == "no feature network"
    assert table["value"].dtype == np.float64


def test_notebooks_show_tables_and_pictures(found, evaluation):
    shown = evaluation._repr_html_()
    assert "AttAcc@1" in shown
    assert "0.125" in shown
    assert "FID" not in shown  # not measured
    assert "<b>few" not in shown
    assert "data:image/png;base64," in found._repr_html_()
    told = tiny_classifier(classes=6)._repr_html_()
    assert "TinyNet" in told
    assert "32 x 32 pixels" in told
    skips = find_skips(TinyNet().eval(), torch.rand(1, 3, 32, 32))
    html = skips._repr_html_()
    assert "2 skips" in html
    assert html.count("<tr>") == 3


def test_reprs_fit_a_screen(found, evaluation, tiny_population):
    joins = find_joins(TinyNet().eval(), torch.rand(1, 3, 32, 32))
    for thing in (found, evaluation, tiny_population, tiny_population.train, joins):
        assert max(map(len, repr(thing).splitlines())) < 120, repr(thing)
    assert repr(tiny_population.train) == "Images(72 of 6 classes, 32 x 32 pixels)"
    assert repr(evaluation) == "Evaluation(2 people, 4 images, AttAcc@1 50.0%)"


def test_an_attack_is_called_as_its_authors_write_it():
    assert KEDMI().title == "KED-MI"
