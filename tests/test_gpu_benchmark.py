"""The benchmark of graphics cards runs on the processor in miniature, keeps to its time, and says what it left out."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

FILE = Path(__file__).parent.parent / "benchmarks" / "gpu.py"
spec = importlib.util.spec_from_file_location("benchmark_gpu", FILE)
assert spec
assert spec.loader
gpu = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gpu)


@pytest.mark.slow
def test_it_runs_in_miniature_and_writes_its_record(tmp_path, capsys):
    checks = ["same", "paths", "step", "twice", "training", "painting", "attempts", "tests"]
    gpu.main(["--tiny", "--device", "cpu", "--minutes", "5", "--out", str(tmp_path), "--only", *checks])
    record = json.loads((tmp_path / "gpu.json").read_text())
    failed = {name: found["failed"] for name, found in record["checks"].items() if "failed" in found}
    assert list(failed) == ["tests"]  # which need a card
    assert list(record["checks"]) == [name for name in gpu.CHECKS if name in checks]
    assert max(record["checks"]["same"]["relative differences"].values()) < 1e-4
    assert max(record["checks"]["paths"]["largest relative difference of a metric"].values()) == 0  # the same device
    assert record["checks"]["twice"]["same batch, same bytes"] is True
    assert record["checks"]["painting"]["largest difference, of 255"] == 0
    table = (tmp_path / "gpu.md").read_text()
    assert "a toy that only shows that it runs" in table
    assert "| yes |" not in table
    assert "tests" in capsys.readouterr().out


def test_it_keeps_to_its_time(tmp_path):
    bench = gpu.Bench(gpu.Place(), gpu.TINY, tiny=False)
    record = gpu.measure(bench, 0.1, ["step", "training"], tmp_path)
    assert record["checks"] == {}
    assert set(record["left out"]) == {"step", "training"}
    assert "| step | left out | 6 seconds were left, it may take 40 |" in (tmp_path / "gpu.md").read_text()


def test_targets_are_judged_the_right_way_round():
    assert gpu.met("step", "ratio", 8.0)
    assert not gpu.met("step", "ratio", 7.9)
    assert gpu.met("attempts", "ratio", 1.0)
    assert not gpu.met("attempts", "ratio", 1.06)
    assert gpu.met("step", "ours, ms", 1.0) is None
    assert all(check in gpu.CHECKS for check, _ in gpu.TARGETS)


def test_a_device_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(SystemExit, match="there is no device 'cuba'"):
        gpu.main(["--device", "cuba", "--out", str(tmp_path)])


def test_the_learnt_prior_is_kept_in_half_precision_and_read_again(tmp_path):
    from lightleak import priors

    gpu.main(["--prior", "0", "--tiny", "--device", "cpu", "--out", str(tmp_path)])
    prior = priors.load(tmp_path / "faces64")
    latents = prior.sample(2, torch.Generator().manual_seed(0))
    assert prior.decode(latents).dtype == torch.float32
    assert prior.decode(latents).isfinite().all()
