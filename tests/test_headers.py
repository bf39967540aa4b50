"""Headers and recipes of our own files are checked field by field, and sizes before anything is allocated."""

import json
import math
import random
from hashlib import sha256

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightleak import priors
from lightleak.errors import UserError
from lightleak.models import zoo
from lightleak.models.classifier import load, read_recipe, save
from lightleak.priors.gan64 import Critic, GanPrior, Generator


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    first = zoo.build("timm:test_resnet", 3, 32).eval()
    first.class_names = ("a", "b", "c")
    return save(first, tmp_path_factory.mktemp("headers") / "model.safetensors")


def changed(path, out, text):
    save_file(load_file(path), out, {"lightleak": text})
    return out


DEEP = "[" * 5000 + "]" * 5000
VALUES = (
    *("null", "true", "-1", "0", "1e308", "1" * 400, "1" * 5000, "NaN", "Infinity", '"x"', '"²"', "[]", "[[]]", "{}"),
    '[{"kind": "none"}]',
    '[{"kind": "bottleneck", "head": "fc", "width": []}]',
    '[{"kind": "draws", "draws": "²"}]',
    '[{"kind": "group_norm", "groups": {"bn1": "x"}}]',
    '[{"factor": "x", "skips": 3}]',
    *("[NaN, 1, 1]", "[1, 2, 3]", '{"names": 3}', DEEP),
    '{"channels": 1, "item": null, "scale": "logits", "notes": []}',
)
FIELDS = ("architecture", "size", "classes", "mean", "std", "class_names", "surgery", "changes", "record", "sides",
          "reading", "origin", "format")  # fmt: skip


@pytest.mark.parametrize("each", [6, pytest.param(len(VALUES), marks=pytest.mark.slow)])
@pytest.mark.parametrize("field", FIELDS)
def test_any_value_in_any_field_loads_or_is_one_line(field, each, checkpoint, tmp_path):
    recipe, refused = read_recipe(checkpoint), 0
    for value in random.Random(field).sample(VALUES, each):
        text = json.dumps({**recipe, field: "HERE"}).replace('"HERE"', value)
        try:
            load(changed(checkpoint, tmp_path / "changed.safetensors", text))
        except UserError as error:
            assert len(str(error)) < 600  # noqa: PT017
            refused += "\n" not in str(error)
    assert refused >= each // 3


@pytest.mark.parametrize("text", ["", "{", "[]", "null", DEEP, "1" * 5000, '{"format": 1}', "\x00"])
def test_no_recipe_is_one_line(text, checkpoint, tmp_path):
    with pytest.raises(UserError) as caught:
        load(changed(checkpoint, tmp_path / "changed.safetensors", text))
    assert "\n" not in str(caught.value)


def test_a_small_file_allocates_nothing_large(checkpoint, tmp_path, monkeypatch):
    built = []
    whole = zoo.build

    def build(*arguments, **options):
        built.append(torch.get_default_device().type)
        return whole(*arguments, **options)

    monkeypatch.setattr(zoo, "build", build)
    for change in ({"architecture": "timm:vit_giant_patch14_224", "size": 224}, {"classes": 10**6}):
        path = changed(checkpoint, tmp_path / "x.safetensors",
                       json.dumps({**read_recipe(checkpoint), "class_names": [], **change}))  # fmt: skip
        with pytest.raises(UserError, match=r"does not fit its architecture: .* values, the file"):
            load(path)
    assert built == ["meta", "meta"]


def test_a_record_of_any_numbers_is_kept(checkpoint, tmp_path):
    """A loss that was infinite ended in a traceback after all the training."""
    found = load(checkpoint)
    found.record = {"loss": math.inf, "history": [{"v": -math.inf}, {"v": math.nan}], "t": (1, 2)}
    again = load(save(found, tmp_path / "m.safetensors"))
    assert again.record == {"loss": "inf", "history": [{"v": "-inf"}, {"v": "nan"}], "t": [1, 2]}
    found.record = {"net": found}
    with pytest.raises(UserError, match="no plain data"):
        save(found, tmp_path / "m.safetensors")
    assert load(tmp_path / "m.safetensors").record == again.record  # the file of before is untouched


def test_checkpoints_of_before_are_read(checkpoint, tmp_path):
    recipe = {name: value for name, value in read_recipe(checkpoint).items() if name != "reading"}
    old = load(changed(checkpoint, tmp_path / "old.safetensors", json.dumps(recipe)))
    assert old.class_names == ("a", "b", "c")
    assert old.notes == ()


# Priors


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prior")
    priors.save(GanPrior(Generator(32, 4, 6), Critic(32, 4)), folder)
    return folder


@pytest.mark.parametrize(
    "settings",
    [{"width": 10**5}, {"width": 10**9}, {"latents": 10**9}, {"size": 2**40}, {"size": "²"}, {"width": [4]},
     {"width": -4}, {"critic_width": None}, {"size": 0}, {"latents": 2.5}, {"size": 10**400}],
)  # fmt: skip
def test_sizes_of_a_prior_are_checked_before_memory_is_taken(settings, prior, tmp_path, monkeypatch):
    recipe = json.loads((prior / "prior.json").read_text())
    recipe["settings"] |= settings
    (tmp_path / "prior.json").write_text(json.dumps(recipe))
    (tmp_path / "prior.safetensors").write_bytes((prior / "prior.safetensors").read_bytes())
    taken = []
    monkeypatch.setattr(torch.nn.Parameter, "__new__", counted(torch.nn.Parameter.__new__, taken))
    with pytest.raises(UserError) as caught:
        priors.load(tmp_path)
    assert "\n" not in str(caught.value)
    assert sum(taken) < 10**6


def counted(make, taken):
    def new(cls, data=None, requires_grad=True):
        if data is not None and not data.is_meta:
            taken.append(data.numel())
        return make(cls, data, requires_grad)

    return new


def test_a_whole_prior_still_loads(prior):
    found = priors.load(prior)
    assert found.decode(found.sample(2, torch.Generator())).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("text", [DEEP, '{"kind": [], "settings": {}, "weights": "SEAL"}',
                                  '{"kind": "gan64", "settings": [], "weights": "SEAL"}'])  # fmt: skip
def test_no_recipe_of_a_prior(text, prior, tmp_path):
    (tmp_path / "prior.safetensors").write_bytes((prior / "prior.safetensors").read_bytes())
    seal = sha256((prior / "prior.safetensors").read_bytes()).hexdigest()
    (tmp_path / "prior.json").write_text(text.replace("SEAL", seal))
    with pytest.raises(UserError) as caught:
        priors.load(tmp_path)
    assert "\n" not in str(caught.value)
