"""Settings files with any value in any place: ours, or one clear line."""

import copy
import random

import pytest
import yaml

from lightleak.convert.settings import as_python, settings
from lightleak.errors import UserError
from test_convert_settings import ATTACK, TRAINING

# As YAML writes them: no numbers, numbers of the wrong kind, lists and tables where numbers are due.
VALUES = ("²", "9" * 400, "9" * 5000, "-1", "0", "1.5", ".nan", ".inf", "true", "null", "[]", "[1]", "[[1]]", "{a: 1}",
          "[a, b, c, d]", "1e999", "''", "[.nan, 1]")  # fmt: skip


def places(table, path=()):
    for key, value in table.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from places(value, (*path, key))


@pytest.mark.parametrize("text", [TRAINING, ATTACK], ids=["training", "attack"])
@pytest.mark.parametrize("each", [3, pytest.param(len(VALUES), marks=pytest.mark.slow)])
def test_any_value_anywhere_is_ours_or_one_line(text, each, tmp_path):
    whole, file, draw = yaml.safe_load(text), tmp_path / "config.yaml", random.Random(0)
    refused = ours = tried = 0
    for path in places(whole):
        for value in draw.sample(VALUES, each):
            table = copy.deepcopy(whole)
            inner = table
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = "HERE"
            file.write_text(yaml.safe_dump(table).replace("HERE", value))
            tried += 1
            try:
                compile(as_python(settings(file), "config.yaml"), "made", "exec")
                ours += 1
            except UserError as error:
                refused += "\n" not in str(error) and len(str(error)) < 600
            except Exception as error:
                raise AssertionError(f"{path} = {value}: {error!r}") from error
    assert refused + ours == tried
    assert refused > 40


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("gamma: 0.1", "gamma: [0.1]", "gamma is [0.1], expected a number"),
        ("brightness: 0.2", "brightness: [0.8, 1.2]", "brightness is [0.8, 1.2], expected a number"),
        ("p: 0.5", "p: ²", "p is '²', expected a number"),
        ("scale: [0.85, 1.0]", "scale: [.nan, 1.0]", "expected a number"),
        ("size: [224, 224]", "size: []", "expected a side"),
        ("save_path", "label_smoothing: .nan\n  save_path", "label_smoothing is nan, expected a number"),
    ],
)
def test_what_is_no_number_is_named(old, new, told, tmp_path):
    assert old in TRAINING
    (tmp_path / "config.yaml").write_text(TRAINING.replace(old, new))
    with pytest.raises(UserError) as caught:
        settings(tmp_path / "config.yaml")
    assert told in str(caught.value)
