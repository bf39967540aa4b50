"""The doctor: what it finds in data and judges, how it says so, and its exit code."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn

from lightleak import cli, doctor
from lightleak.attacks import PPA
from lightleak.data.population import Images, as_bytes
from lightleak.errors import UserError
from lightleak.forecast import forecast
from lightleak.models.classifier import Classifier, save
from lightleak.models.inception import after_transform
from lightleak.models.zoo import build
from lightleak.place import Memory
from lightleak.priors import RenderedPrior
from lightleak.training import RECIPES


def states(lines: list[doctor.Line]) -> dict[str, str]:
    return {line.what: line.state for line in lines}


def said(lines: list[doctor.Line], what: str) -> str:
    return "\n".join(line.said for line in lines if line.what == what)


@pytest.fixture
def photographs(tmp_path) -> Path:
    """Four people of nine images each."""
    for person in range(4):
        for number in range(9):
            values = np.random.default_rng(100 * person + number).integers(0, 256, (24, 24, 3), dtype=np.uint8)
            path = tmp_path / "photographs" / f"person{person}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path)
    return tmp_path / "photographs"


def call(capsys, *arguments: object) -> tuple[int, str]:
    code = 0
    try:
        cli.main(["doctor", *map(str, arguments)])
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, capsys.readouterr().out


def test_what_is_installed_is_said():
    lines = doctor.installed()
    assert said(lines, "torch") == torch.__version__.partition("+")[0] or said(lines, "torch") == torch.__version__
    assert {"Python", "torchvision", "timm", "cores", "memory", "cache", "bfloat16"} <= set(states(lines))
    assert any("extra 'cluster'" in what for what in states(lines))


def test_absent_extras_name_their_install(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "ray" else "1")
    line = next(line for line in doctor.installed() if line.what.startswith("ray"))
    assert (line.state, line.said) == ("note", "absent: pip install 'lightleak[cluster]'")


def test_a_cache_that_cannot_be_written_is_bad(monkeypatch):
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    assert states(doctor.installed())["cache"] == "bad"


def test_whole_data_pass(photographs, capsys):
    code, text = call(capsys, "--data", f"folder:{photographs}", "--settings", "size", 16)
    assert code == 0
    assert "all is well" in text
    assert "2 private people, few" in text
    assert "18 images of 2 people, 9 each" in text  # public
    assert "an epoch of timm:resnet18 at 16 pixels" in text


def test_damage_is_named_and_fails(photographs, capsys):
    whole = (photographs / "person0" / "1.png").read_bytes()
    (photographs / "person0" / "cut.png").write_bytes(whole[:600])
    for number in range(5):
        (photographs / "person2" / f"page{number}.png").write_text("<html>")
    code, text = call(capsys, "--data", f"folder:{photographs}", "--settings", "size", 16)
    assert code == 1
    assert "person0/cut.png" in text
    assert "and 2 more" in text
    assert "2 to mend; --json names every file" in text
    code, text = call(capsys, "--data", f"folder:{photographs}", "--settings", "size", 16, "--json")
    assert code == 1
    lines = json.loads(text)[f"folder:{photographs}"]
    files = {file for line in lines if line["what"] == "unreadable" for file in line["files"]}
    assert files == {"person0/cut.png", *(f"person2/page{number}.png" for number in range(5))}


def test_it_fits_eighty_columns(photographs, capsys, monkeypatch):
    (photographs / "person0" / ("a_long_name_" * 9 + ".png")).write_text("no picture")
    monkeypatch.setattr("lightleak.cli.doctor.console", Console(width=80))
    _, text = call(capsys, "--data", f"folder:{photographs}", "--settings", "size", 16)
    assert max(map(len, text.splitlines())) <= 80
    assert "a_long_name_" in text


def test_published_data_that_are_not_whole_fail(tmp_path, capsys):
    for sex, name in (("actors", "Ann"), ("actors", "Bob"), ("actresses", "Cat")):
        for number in range(12):
            path = tmp_path / sex / "faces" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            values = np.random.default_rng(hash_of(name) + number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(values).save(path)
    code, text = call(capsys, "--data", f"facescrub:{tmp_path}", "--settings", "size", 16)
    assert code == 1
    assert "actors has 2 people, the published set 265" in " ".join(text.split())
    assert "none: give public images for a prior" in text


def hash_of(name: str) -> int:
    return sum(map(ord, name)) * 1000


def test_bad_input_is_exit_code_2(tmp_path, capsys):
    assert call(capsys, "--data", f"celeba:{tmp_path / 'nowhere'}")[0] == 2
    assert call(capsys, "--judge", tmp_path / "judge.safetensors")[0] == 2


def test_images_in_two_parts_are_found(tiny_population):
    assert states(doctor.shared(tiny_population)) == {"overlap": "good"}
    stolen = replace(
        tiny_population,
        judge=tiny_population.train,
        public=Images(
            torch.cat([tiny_population.public.pixels, tiny_population.test.pixels[:2]]),
            torch.cat([tiny_population.public.labels, torch.zeros(2, dtype=torch.long)]),
        ),
    )
    found = doctor.shared(stolen)
    assert [line.state for line in found] == ["note", "bad"]
    assert "2 images are in test and in public" in found[1].said


def test_a_population_larger_than_memory_is_bad(tiny_population, monkeypatch):
    assert states(doctor.expected(tiny_population))["memory to expect"] == "good"
    monkeypatch.setattr("lightleak.place._machine_memory", lambda: Memory(500, 1000))
    assert states(doctor.expected(tiny_population))["memory to expect"] == "bad"


def test_an_epoch_is_timed_by_the_steps_that_training_takes(tiny_population, monkeypatch):
    tried, recipe, count = [], RECIPES["rolss"], len(tiny_population.train)
    monkeypatch.setattr("lightleak.forecast._pace", lambda amount, _: tried.append(amount) or 0.5)
    line = doctor.expected(tiny_population)[1]
    (step,) = tried
    assert (step.kind, step.batch, step.size) == ("train", min(recipe.batch, count), tiny_population.size)
    assert (step.precision, step.view) == (recipe.precision, recipe.view)
    assert f"about {doctor.duration(0.5 * count)} an epoch" in line.said
    monkeypatch.setattr("lightleak.forecast._pace", lambda *_: 1 / 0)
    line = doctor.expected(tiny_population)[1]
    assert (line.state, line.said) == ("bad", "unknown: division by zero")


# Judges


def test_a_good_judge_passes_and_a_fresh_one_fails(tiny_judge, tiny_population, monkeypatch):
    monkeypatch.setattr(doctor, "GOOD_JUDGE", 0.6)
    lines = doctor.good_judge(tiny_judge, tiny_population)
    assert states(lines)["judge's accuracy"] == "good"
    assert "test images" in said(lines, "judge's accuracy")
    torch.manual_seed(0)
    fresh = Classifier(type(tiny_judge.net)(6), size=32, classes=6)
    assert states(doctor.good_judge(fresh, tiny_population))["judge's accuracy"] == "bad"
    assert "wanted: 60%" in said(doctor.good_judge(fresh, tiny_population), "judge's accuracy")


def test_a_judge_of_other_people_is_found(tiny_judge, tiny_population):
    other = Classifier(type(tiny_judge.net)(9), size=32, classes=9)
    assert states(doctor.good_judge(other, tiny_population)) == {"judge": "bad"}
    named = tiny_judge.with_net(tiny_judge.net)
    named.class_names = ("someone", *tiny_population.class_names[1:])
    line = next(line for line in doctor.good_judge(named, tiny_population) if line.what == "judge's classes")
    assert line.state == "bad"
    assert "'someone' in the judge" in line.said
    nobody = replace(tiny_population, test=tiny_population.test.at(torch.zeros(0, dtype=torch.long)))
    with pytest.raises(UserError, match="no test images"):
        doctor.good_judge(tiny_judge, nobody)


class Threshold(nn.Module):
    """Says 1 where the mean of what it sees lies above a bound: it depends on the normalisation."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self.fc = nn.Linear(1, 2)
        with torch.no_grad():
            self.fc.weight.copy_(torch.tensor([[-1.0], [1.0]]))
            self.fc.bias.zero_()

    def forward(self, x):
        return self.fc(x.mean((1, 2, 3))[:, None] - self.bound)


def test_the_transform_that_a_judge_was_trained_with_is_found(tiny_population):
    grey = torch.linspace(0.05, 0.95, 40).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    mean, std = after_transform()
    bound = float(((0.5 - torch.tensor(mean)) / torch.tensor(std)).mean())  # what 0.5 becomes under the transform
    images = Images(as_bytes(grey), (grey[:, 0, 0, 0] > 0.5).long())
    population = replace(
        tiny_population, class_names=("dark", "light"), train=images, test=images, judge=images, validation=images
    )

    def judge(**how):
        return Classifier(Threshold(bound), size=8, classes=2, architecture="torchvision:inception_v3", **how)

    stored_wrong = doctor.good_judge(judge(), population)
    assert states(stored_wrong)["input transform"] == "bad"
    assert "right with torchvision's input transform: set mean" in said(stored_wrong, "input transform")
    stored_right = doctor.good_judge(judge(mean=mean, std=std), population)
    assert states(stored_right)["input transform"] == "good"
    assert states(stored_right)["judge's accuracy"] == "good"


def test_the_verb_tries_a_judge(tmp_path, capsys, photographs):
    torch.manual_seed(0)
    from lightleak.models import zoo

    save(zoo.build("timm:resnet10t", 2, 16), tmp_path / "judge.safetensors")
    data = ("--data", f"folder:{photographs}", "--settings", "size", 16)
    code, text = call(capsys, "--judge", tmp_path / "judge.safetensors", *data)
    assert code in (0, 1)
    assert "judge's accuracy" in text
    assert "timm:resnet10t at 16 pixels" in text


def test_an_attack_is_tried_in_its_precision(monkeypatch, capsys):
    target, kinds = build("timm:resnet10t", 2, 32).eval(), []
    next(one for one in target.modules() if isinstance(one, nn.Conv2d)).register_forward_hook(
        lambda *a: kinds.append(a[2].dtype)
    )
    attack = PPA(candidates=1, attempts=1, keep=1, steps=1, views=1)
    forecast(attack, RenderedPrior(size=32), target, 1, "bfloat16")
    assert kinds[-1] == torch.bfloat16
    asked = []
    monkeypatch.setattr(doctor, "forecast", lambda *given: asked.append(given[-1]) or forecast(*given))
    assert call(capsys, "--preset", "smoke", "--architecture", "timm:resnet10t", "--precision", "bfloat16")[0] == 0
    assert asked == ["bfloat16"]


def test_what_an_attack_needs_is_told_from_one_step_of_it(monkeypatch, capsys):
    """Memory grows with the batch alone, time with people and steps; a batch that does not fit is to mend."""
    prior, target = RenderedPrior(size=32), build("timm:resnet10t", 4, 32).eval()
    attack = PPA(candidates=10, attempts=2, keep=1, steps=3, views=2, batch=8)
    found = forecast(attack, prior, target, 4)
    weights = sum(t.numel() * t.element_size() for t in (*target.parameters(), *target.buffers()))
    assert found.networks == pytest.approx(weights, rel=0.01)
    assert found.memory == found.networks + 8 * found.image
    # Two images keep twice what one keeps: counted a second time, with hooks on the layers of the target alone.
    kept = []
    hooks = [m.register_forward_hook(lambda *a: kept.append(a[2].numel() * 4)) for m in target.modules()
             if isinstance(m, nn.Conv2d | nn.Linear)]  # fmt: skip
    target(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    assert found.image > sum(kept)
    assert found.seconds > 0
    small = replace(found, free=int((found.networks + 4.5 * found.image) / 0.9))
    assert small.fits == 4
    assert replace(found, free=None).fits is None
    assert replace(found, free=10).fits == 0
    monkeypatch.setattr(doctor, "forecast", lambda *_: small)
    line = doctor.attack_expected("rolss", attack, prior, target, 4)[0]
    assert line.state == "bad"
    assert "--attack.batch 4 fits" in line.said
    monkeypatch.undo()
    code, text = call(capsys, "--preset", "smoke", "--architecture", "timm:resnet10t", "--people", 4)
    assert code == 0
    assert "for 4 people" in " ".join(text.split())
    assert call(capsys, "--preset", "smokes")[0] == 2
