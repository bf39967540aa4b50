"""Classifiers and the zoo: preprocessing, features, checkpoints that refuse what does not fit."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook

from conftest import TinyNet, tiny_classifier
from lightleak.defences import DPSGD, MID, SSF, RoLSS
from lightleak.defences.mid import averaged
from lightleak.errors import UserError
from lightleak.models.changes import CHANGES
from lightleak.models.classifier import Classifier, load, read_recipe, save
from lightleak.models.zoo import build, names


def test_preprocessing_is_its_own_business():
    classifier = tiny_classifier().eval()
    images = torch.rand(2, 3, 32, 32)
    assert torch.allclose(classifier(images), classifier.net(images * 2 - 1), atol=1e-5)
    large = torch.rand(2, 3, 80, 80)
    small = F.interpolate(large, (32, 32), mode="bilinear", antialias=True)
    assert torch.allclose(classifier(large), classifier(small), atol=1e-5)
    with pytest.raises(UserError, match="N x 3 x H x W"):
        classifier(torch.rand(3, 32, 32))


def test_features_feed_the_head():
    classifier = tiny_classifier().eval()
    features, logits = classifier.features_and_logits(torch.rand(3, 3, 32, 32))
    assert torch.allclose(classifier.head(features), logits)
    assert features.shape == (3, 512)
    with pytest.raises(UserError, match="7 outputs"):
        _ = Classifier(TinyNet(6), size=32, classes=7).head


@pytest.mark.parametrize(
    ("architecture", "size"),
    [
        ("timm:resnet10t", 32),
        ("timm:vit_tiny_patch16_224", 64),
        ("timm:mobilenetv3_small_100", 64),
        ("torchvision:resnet18", 32),
        ("torchvision:squeezenet1_1", 64),
    ],
)
def test_the_zoo_builds_for_small_images(architecture, size):
    classifier = build(architecture, 7, size).eval()
    features, logits = classifier.features_and_logits(torch.rand(2, 3, size, size))
    assert logits.shape == (2, 7)
    assert features.shape[0] == 2


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("resnet18", "timm:NAME"),
        ("keras:resnet18", "timm:NAME"),
        ("timm:resnet19", "did you mean resnet1"),
        ("torchvision:resnet19", "did you mean"),
        ("timm:", "for example"),
    ],
)
def test_unknown_architectures(architecture, message):
    with pytest.raises(UserError, match=message):
        build(architecture, 3)


def test_a_size_that_cannot_be():
    with pytest.raises(UserError, match="cannot be built"):
        build("torchvision:vit_b_16", 3, 50)


@pytest.mark.parametrize(
    ("architecture", "size", "native"),
    [
        ("timm:efficientformer_l1", 64, 224),
        ("timm:crossvit_tiny_240", 64, 240),
        ("timm:mvitv2_tiny", 48, 224),
        ("timm:hrnet_w18_small", 50, 224),
        ("torchvision:inception_v3", 64, 299),
    ],
)
def test_a_size_at_which_a_network_does_not_run(architecture, size, native):
    for _ in range(2):  # also when a pass has shown it before
        with pytest.raises(UserError, match=f"{size} x {size} pixels; it is made for .*size {native}$") as error:
            build(architecture, 3, size)
    assert "\n" not in str(error.value)


def test_a_size_is_tried_once_and_without_a_trace(monkeypatch):
    monkeypatch.setattr("lightleak.models.zoo._TAKEN", {})
    passes = []
    hook = register_module_forward_hook(lambda module, *_: passes.append(type(module).__name__))
    try:
        found = []
        for _ in range(2):
            torch.manual_seed(0)
            net = build("timm:resnet10t", 3, 40)
            found.append((net.state_dict(), torch.get_rng_state(), net.training))
        assert passes.count("ResNet") == 1
        passes.clear()
        build("timm:resnet10t", 3, 176)  # its own
        with torch.device("meta"):
            build("timm:resnet10t", 3, 48)
        assert not passes
    finally:
        hook.remove()
    (first, state, training), (second, again, mode) = found
    assert all(torch.equal(first[name], value) for name, value in second.items())
    assert torch.equal(state, again)
    assert training is mode is True


def test_names_are_those_of_the_libraries():
    assert "resnet18" in names("timm")
    assert "resnet18" in names("torchvision")


def test_checkpoint_round_trip(tmp_path):
    first = build("timm:resnet10t", 5, 32).eval()
    first.class_names = ("a", "b", "c", "d", "<e>")
    first.record = {"note": "ünïcode"}
    second = load(save(first, tmp_path / "new" / "model.safetensors"))
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(first(images), second(images))
    assert second.recipe == first.recipe
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("defence", [RoLSS(), SSF(), SSF(factor=0.0)])
def test_surgery_survives_the_disk(defence, tmp_path):
    first = defence.apply(build("timm:resnet10t", 5, 32)).eval()
    second = load(save(first, tmp_path / "model.safetensors"))
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(first(images), second(images))
    assert second.recipe["surgery"] == first.recipe["surgery"] != []


class Wrapped(torch.nn.Module):
    """Puts something around a network, as a defence might after training."""

    def __init__(self, inner, gain):
        super().__init__()
        self.inner, self.gain = inner, gain

    def forward(self, x):
        return self.inner(x) * self.gain


def wrapped(net, change):
    return Wrapped(net, change["gain"]).train(net.training)


def around(classifier, gain=2.0):
    change = {"kind": "wrapped", "gain": gain}
    return classifier.with_net(wrapped(classifier.net, change), change=change)


@pytest.mark.parametrize(
    ("steps", "kinds"),
    [
        ((RoLSS().apply, around), ["surgery", "wrapped"]),
        ((around, RoLSS().apply), ["wrapped", "surgery"]),
        ((RoLSS().apply, around, SSF(where=3).apply), ["surgery", "wrapped", "surgery"]),
        ((SSF(where=3).apply, SSF(where=3).apply), ["surgery", "surgery"]),
        ((MID().apply, RoLSS().apply, lambda c: averaged(c, 0)), ["bottleneck", "surgery", "draws"]),
        ((DPSGD().apply, RoLSS().apply), ["group_norm", "surgery"]),
        ((RoLSS().apply, DPSGD().apply, SSF(where=3).apply, around), ["surgery", "group_norm", "surgery", "wrapped"]),
    ],
)
def test_changes_are_made_again_in_their_order(steps, kinds, tmp_path, monkeypatch):
    """A network that is wrapped between or after surgeries comes back the same, whatever the order."""
    monkeypatch.setitem(CHANGES, "wrapped", wrapped)
    torch.manual_seed(0)
    first = build("timm:resnet10t", 5, 64)
    for step in steps:
        first = step(first)
    first = first.eval()
    assert [change["kind"] for change in first.changes] == kinds
    second = load(save(first, tmp_path / "model.safetensors"))
    assert second.changes == first.changes
    images = torch.rand(2, 3, 64, 64)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        expected = first(images)
        torch.manual_seed(1)
        assert torch.equal(second(images), expected)


def test_older_checkpoints_had_their_surgeries_apart(tmp_path):
    """Until the list was one, surgery came first and was named beside the other changes."""
    first = DPSGD().apply(RoLSS().apply(build("timm:resnet10t", 5, 32))).eval()
    path = save(first, tmp_path / "new.safetensors")
    about = read_recipe(path)
    about["changes"] = [change for change in about["changes"] if change["kind"] != "surgery"]
    assert about["surgery"]
    old = changed(path, recipe=about)
    images = torch.rand(2, 3, 32, 32)
    again = load(old)
    assert torch.equal(again(images), first(images))
    assert [change["kind"] for change in again.changes] == ["surgery", "group_norm"]


def test_a_network_of_ones_own_needs_the_network(tmp_path):
    first = RoLSS().apply(tiny_classifier()).eval()
    path = save(first, tmp_path / "own.safetensors")
    with pytest.raises(UserError, match="net="):
        load(path)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(load(path, TinyNet())(images), first(images))


def changed(path, tensors=None, recipe=None):
    stored = load_file(path)
    about = read_recipe(path)
    save_file(
        (tensors or dict)(stored) if tensors else stored, path, {"lightleak": json.dumps({**about, **(recipe or {})})}
    )
    return path


def drop(stored):
    return {name: value for name, value in stored.items() if name != "fc.bias"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": {"architecture": "timm:resnet14t"}}, "another network|does not fit"),
        ({"recipe": {"classes": 6}}, "fc.weight"),
        ({"recipe": {"surgery": [], "changes": []}}, "does not fit"),
        ({"tensors": drop}, "fc.bias is missing"),
        ({"tensors": lambda s: {**s, "extra": torch.zeros(1)}}, "extra is not in the network"),
        ({"recipe": {"size": None}}, "damaged"),
        ({"recipe": {"format": 99}}, "format"),
        ({"recipe": {"architecture": "timm:nothing"}}, "no model"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(change, message, tmp_path):
    path = save(RoLSS().apply(build("timm:resnet10t", 5, 32)), tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=message):
        load(changed(path, **change))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip", b"\x80\x04cos\nsystem\n(S'true'\ntR.", b"\xff" * 4096])
def test_foreign_files_execute_nothing(content, tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match="safetensors"):
        load(path)
    with pytest.raises(UserError, match="there is no checkpoint"):
        load(tmp_path / "nothing")


def test_an_unwritable_place_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        save(tiny_classifier(), tmp_path / "file" / "model.safetensors")
