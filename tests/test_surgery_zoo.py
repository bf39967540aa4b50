"""A representative of every family: the checks of the sweep over the whole zoo, and how many skips each stage has."""

import importlib.util
from pathlib import Path

import pytest

from zoo_models import MODELS, QUICK

SWEEP = Path(__file__).parents[1] / "benchmarks" / "surgery_zoo.py"


@pytest.fixture(scope="module")
def sweep():
    """The benchmark as a module."""
    spec = importlib.util.spec_from_file_location("surgery_zoo", SWEEP)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
@pytest.mark.filterwarnings("ignore")  # of the models' own code
def test_model(sweep, name):
    model, example = sweep.prepared(name)
    record = sweep.examine(model, example)
    assert record["stages"] == MODELS[name]
    assert sweep.verdict({"model": name, **record}) == ("cut" if MODELS[name] else "no skips")
    if MODELS[name]:
        assert record["same_class"]
        assert min(record[f]["changed"] for f in ("factor 0.0", "factor 0.5")) > 1e-4
