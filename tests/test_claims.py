"""Every finding in results/README.md is computed from its record, and falls with it."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[1] / "results"


@pytest.fixture(scope="module")
def claims():
    spec = importlib.util.spec_from_file_location("claims", RESULTS / "claims.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["claims"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["claims"]


@pytest.fixture
def copied(tmp_path, claims):
    for place in RESULTS.rglob("record.json"):
        target = tmp_path / place.relative_to(RESULTS)
        target.parent.mkdir(parents=True)
        shutil.copy(place, target)
    return claims.Records(tmp_path), tmp_path


def changed(place: Path, row: str, column: str, **values: float) -> None:
    data = json.loads(place.read_text())
    for one in data["differences"]:
        if (one["row"], one["column"]) == (row, column):
            one.update(values)
    place.write_text(json.dumps(data))


def test_every_finding_stands(claims) -> None:
    assert claims.check((RESULTS / "README.md").read_text(encoding="utf-8"), claims.Records()) == []


def test_a_record_that_no_longer_supports_it_is_told(claims, copied) -> None:
    records, folder = copied
    changed(folder / "defences-faces/poincare/record.json", "MID", "hits@1", value=-0.3, low=-0.4, high=-0.2)
    found = claims.check((RESULTS / "README.md").read_text(encoding="utf-8"), records)
    assert any(text.startswith("mid: the records no longer support this") for text in found)
    assert any("in the README, but not computed from a record: - **MID" in text for text in found)


def test_a_sentence_that_no_record_says_is_told(claims) -> None:
    text = (RESULTS / "README.md").read_text(encoding="utf-8")
    invented = text.replace(claims.END, f"- **It is safe.**\n{claims.END}")
    assert any("It is safe" in one for one in claims.check(invented, claims.Records()))
    assert any("marks" in one for one in claims.check(text.replace(claims.START, ""), claims.Records()))
