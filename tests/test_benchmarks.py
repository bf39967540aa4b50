"""The benchmark of PPA runs, its two sides compute the same, and it refuses to time what differs."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

FILE = Path(__file__).parent.parent / "benchmarks" / "ppa.py"
spec = importlib.util.spec_from_file_location("benchmark_ppa", FILE)
assert spec
assert spec.loader
ppa = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ppa)


@pytest.fixture(autouse=True)
def threads():
    """The benchmark sets its own number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world():
    return ppa.World(ppa.QUICK)


def test_both_sides_compute_the_same(world):
    apart, rounding = ppa.differences(world)
    assert set(apart) == {"images", "gradients", "scores", "logits", "features"}
    assert max(apart.values()) < 1e-4
    assert max(rounding.values()) < 1e-3


def test_the_work_is_counted_by_hand(world):
    """The target's share: a ResNet-18's convolutions at 32 pixels, layer by layer."""
    layers = [(3, 64, 7, 16)]
    inputs, side = 64, 8
    for stage, width in enumerate((64, 128, 256, 512)):
        side = side // 2 if stage else side
        layers += [(inputs, width, 3, side), *[(width, width, 3, side)] * 3]
        layers += [(inputs, width, 1, side)] if stage else []
        inputs = width
    expected = sum(i * o * k * k * side * side for i, o, k, side in layers)
    found = ppa.work(world)
    assert found["target"] == expected
    assert found["step"] == 2 * (expected + found["generator"])


@pytest.mark.slow
def test_it_compares_and_writes_its_record(tmp_path, capsys):
    ppa.main(["--quick", "--threads", "1", "--rounds", "1", "--jobs", "step", "--precision", "float32", "--out",
              str(tmp_path)])  # fmt: skip
    assert "step:" in capsys.readouterr().out
    record = json.loads((tmp_path / "ppa-speed.json").read_text())
    assert record["sides"]["float32"]["step"]["ratio"] > 0


def test_what_differs_is_not_timed(monkeypatch):
    monkeypatch.setattr(ppa, "GAIN", 1.0)
    with pytest.raises(SystemExit, match="do not compute the same"):
        ppa.main(["--quick", "--threads", "1", "--jobs", "step"])


def test_a_slice_projects_the_whole_run(monkeypatch, capsys):
    monkeypatch.setattr(ppa, "PAPER", ppa.QUICK)
    hours = ppa.main(["--slice", "1", "--threads", "1", "--precision", "float32"])
    assert hours["whole"] == pytest.approx(hours["descent"] + hours["candidates"] + hours["judging"])
    assert hours["descent"] > 0
    assert "whole" in capsys.readouterr().out
