"""Guards that decide what is reported, each held by a test of its own; `benchmarks/mutants.py` removes them in turn."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import nn

from lightleak.errors import UserError
from lightleak.metrics.evaluate import Evaluation
from lightleak.report.results import read
from lightleak.surgery import find_joins

RECORD = Path(__file__).parents[1] / "results" / "lowres-faces" / "gmi" / "record.json"


class Branches(nn.Module):
    """Two branches of so many convolutions that meet in a sum."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 2)
        self.first, self.second = (
            nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(depth))) for depth in (first, second)
        )

    def forward(self, x):
        x = self.stem(x)
        return self.head((self.first(x) + self.second(x)).mean((2, 3)))


@pytest.mark.parametrize(
    ("first", "second", "skip"),
    [(1, 4, True), (1, 2, True), (2, 4, True), (2, 5, True), (2, 3, False), (3, 5, False), (3, 6, True), (2, 2, False)],
)
def test_a_branch_of_more_than_half_the_depth_is_no_skip(first, second, skip):
    for depths in ((first, second), (second, first)):
        joins = find_joins(Branches(*depths), torch.zeros(2, 3, 8, 8))
        assert [join.is_skip for join in joins] == [skip]
        if not skip and first != second:
            assert joins[0].reason == f"parallel branches, {first} and {second} layers deep"


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, '{"a":', "[]", '"x"', "3", "null", b"\xff\xfe"])
@pytest.mark.parametrize("reader", [read, Evaluation.load])
def test_damaged_records_are_one_line(tmp_path, text, reader):
    path = tmp_path / "record.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as error:
        reader(path)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["rows", "columns", "differences", "confidences", "curves", "runs", "levels", "leaks"])
@pytest.mark.parametrize("value", ["x", 3, ["x"], {"a": 1}, [[1]]])
def test_a_record_with_one_wrong_value_is_one_line_or_read(tmp_path, name, value):
    told = json.loads(RECORD.read_text())
    (tmp_path / "record.json").write_text(json.dumps({**told, name: value}))
    with suppress(UserError):  # anything else would fail
        read(tmp_path / "record.json")
