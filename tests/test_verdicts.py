"""A difference is named only where interval, corrected p and the number of trainings all say so."""

import csv
import io
import json

import pytest

from lightleak.report.page import page
from lightleak.report.results import Column, Difference, Level, Measure, Results, Row
from lightleak.report.table import difference_table, level_table, to_csv
from lightleak.report.verdicts import corrected, rounded, standing, verdict

LEAK = Column("true@1", "true match @1", leak=1, rate=True)
CLEAR = Difference("RoLSS", "true@1", -0.2, -0.3, -0.1, 0.001, 0.004, trainings=3)


def changed(**settings) -> Difference:
    return Difference(**{**vars(CLEAR), **settings})


def test_what_is_clear_in_every_way_is_named() -> None:
    assert verdict(CLEAR, LEAK) == "less leak"
    assert verdict(changed(value=0.2, low=0.1, high=0.3), LEAK) == "more leak"
    assert verdict(CLEAR, Column("error", "error", leak=-1)) == "more leak"
    assert verdict(CLEAR, Column("fid", "FID")) == "lower"
    assert verdict(changed(trainings=1, worlds=16), LEAK) == "less leak"  # worlds are trainings, and more


@pytest.mark.parametrize(
    "settings",
    [
        {"low": -0.41, "high": 0.01},  # the interval holds zero
        {"p": 0.02, "corrected": 0.08},  # one of several that were tried
        {"corrected": None},  # an older record, which did not correct
        {"corrected": float("nan")},
        {"trainings": 1},  # these trained networks
        {"trainings": 0},  # nobody knows how many
        {"low": None, "high": None},
    ],
    ids=str,
)
def test_what_lacks_any_of_it_is_not(settings) -> None:
    assert verdict(changed(**settings), LEAK) == ""


def test_p_is_corrected_over_the_targets_of_a_column() -> None:
    rows = [Difference(str(i), "a", 0.1, 0.0, 0.2, p) for i, p in enumerate((0.01, 0.04, 0.03))]
    alone, untested = Difference("0", "b", 0.1, 0.0, 0.2, 0.04), Difference("1", "b", 0.1)
    got = corrected([*rows, alone, untested])
    assert [one.corrected for one in got[:4]] == pytest.approx([0.03, 0.06, 0.06, 0.04])
    assert got[4].corrected is None


def test_what_stands_beside_it() -> None:
    assert standing(changed(p=4e-5, corrected=2e-4), 4) == "p < 0.001 (<0.001 of 4), 3 trainings"
    assert standing(CLEAR, 4) == "p = 0.001 (0.004 of 4), 3 trainings"
    assert standing(changed(trainings=1)) == "p = 0.001, one training"
    assert standing(changed(trainings=1, worlds=16)) == "p = 0.001, 16 worlds"
    assert standing(changed(trainings=0)) == "p = 0.001, trainings unknown"
    assert standing(changed(p=None)) == ""
    assert rounded(1e-9) == "<0.001"


def results(**settings) -> Results:
    level = Level("RoLSS", "true@1", 0.8, Measure(0.5), Measure(0.7), Measure(-0.2, -0.3, -0.1), 0.001, 3)
    rows = tuple(Row(name, {"true@1": Measure(0.5, 0.4, 0.6), "accuracy": Measure(0.9)}) for name in ("none", "RoLSS"))
    columns = (Column("accuracy", "natural accuracy", rate=True), LEAK)
    made = {"differences": (CLEAR,), "levels": (level,), "baseline": "none", "primary": ("true@1",), **settings}
    return Results("t", columns, rows, **made)


def test_page_csv_and_record_carry_p_and_trainings() -> None:
    text = page(results())
    assert text.count("less leak") >= 2  # among the differences, and at equal accuracy
    assert "3 trainings" in text
    assert "Declared before it ran: true match @1" in text
    silent = page(results(differences=(changed(trainings=1),), levels=()))
    assert '<span class="verdict">less leak' not in silent
    assert "not of the defences; no verdict" in silent
    table = difference_table(results())
    assert table is not None
    (row,) = csv.DictReader(io.StringIO(to_csv(table)))
    assert (row["true@1 p"], row["true@1 corrected"], row["true@1 trainings"]) == ("0.001", "0.004", "3.0")
    assert level_table(results()) is not None
    again = Results.from_json(json.loads(json.dumps(results().to_json())))
    assert again == results()


def test_records_from_before_are_read_and_give_no_verdict() -> None:
    old = results().to_json()
    for one in old["differences"]:
        for name in ("corrected", "trainings", "worlds"):
            del one[name]
    for one in old["levels"]:
        del one["p"], one["trainings"]
    for name in ("primary", "tables", "families"):
        del old[name]
    got = Results.from_json(old)
    assert "less leak" not in [verdict(one, LEAK) for one in got.differences]
    assert "trainings unknown" in page(got)
