"""The benchmark of searches by queries: its transcriptions of the published loops find what we find."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch

FILE = Path(__file__).parent.parent / "benchmarks" / "blackbox.py"
spec = importlib.util.spec_from_file_location("benchmark_blackbox", FILE)
assert spec
assert spec.loader
blackbox = importlib.util.module_from_spec(spec)
spec.loader.exec_module(blackbox)

BRIEF = {
    "brep": {"queries": 33 * 3, "samples": 16},
    "mirror": {"queries": 19 * 2, "population": 20, "samples": 24},
    "evolution": {"queries": 16 * 2, "samples": 16},
    "rlb": {"queries": 40, "sample": 16, "rate": 0.02},  # high, so that it matters what an update does
}


@pytest.fixture(scope="module")
def world():
    return blackbox.World.of(2, 32, 24)


@pytest.mark.parametrize("name", list(blackbox.JOBS))
def test_both_sides_end_at_the_same_place(world, name):
    attack = replace(blackbox.JOBS[name][2], **BRIEF[name])
    table = world.table(blackbox.JOBS[name][1], 1.5 if name == "brep" else None)
    assert blackbox.agreement(world, world.prior.generator, world.target, name, attack, table) == 2


def test_what_rlb_learns_decides_where_it_ends(world):
    """So a transcription that learnt otherwise would be told from ours."""
    attack = replace(blackbox.JOBS["rlb"][2], **BRIEF["rlb"])
    table = world.table("scores", None)
    learnt, drawn = (blackbox.ours(world, one, table, "scores")[0] for one in (attack, replace(attack, updates=0)))
    assert not torch.allclose(learnt, drawn, atol=1e-2)
