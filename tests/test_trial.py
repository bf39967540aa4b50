"""A network of the user's own is tried when it is wrapped: what it gives is read as it is, or refused in a line."""

# ruff: noqa: ARG005

import copy
import logging
import math
from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from conftest import TinyNet
from lightleak.attacks import Guess, Oracle
from lightleak.data.population import Images
from lightleak.errors import UserError
from lightleak.models import normalisation
from lightleak.models.classifier import Classifier, load, save
from lightleak.models.zoo import build
from lightleak.surgery import find_skips
from toy_targets import Plain

Outputs = namedtuple("Outputs", "logits features")


@dataclass
class Result:
    loss: object
    logits: torch.Tensor


class Net(nn.Module):
    """Features and logits, given as `out` says."""

    def __init__(self, out=lambda features, logits: logits, classes=5, channels=3, sides=None):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Conv2d(channels, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.fc = nn.Linear(8, classes)
            self.fc.weight.data.mul_(20)
        self.out, self.sides = out, sides

    def forward(self, x):
        assert self.sides is None or x.shape[-2:] == self.sides, "other sides"
        features = self.body(x)
        return self.out(features, self.fc(features))


def half(net, **options):
    return Classifier(net, **{"size": 32, "classes": 5, "mean": (0.5,) * 3, "std": (0.5,) * 3, **options}).eval()


def images(count=3, side=32):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


PLAIN = half(Net())(images())
READ = {
    "a tuple of features and logits": lambda f, y: (f, y),
    "a tuple of logits and features": lambda f, y: [y, f],
    "a named tuple": lambda f, y: Outputs(y, f),
    "a named tuple whose features are as wide": lambda f, y: Outputs(y, y + 1),
    "a dictionary": lambda f, y: {"features": f, "out": y},
    "a dictionary with two": lambda f, y: {"other": y + 1, "logits": y},
    "an object with fields": lambda f, y: Result(None, y),
    "a tuple in a tuple": lambda f, y: (f, (y, f)),
    "a map of one pixel": lambda f, y: y[:, :, None, None],
    "float64": lambda f, y: y.double(),
}


@pytest.mark.parametrize("kind", READ)
def test_the_plain_reading_is_done_and_kept(kind, tmp_path):
    found = half(Net(READ[kind]))
    assert torch.equal(found(images()), PLAIN)
    features, logits = found.features_and_logits(images())
    assert torch.equal(logits, PLAIN)
    assert features.shape == (3, 8)
    again = load(save(found, tmp_path / "own.safetensors"), Net(READ[kind]))
    assert torch.equal(again(images()), PLAIN)
    assert again.notes == found.notes
    if kind not in ("a map of one pixel", "float64"):
        assert "is read as logits" in found.notes[0]


@pytest.mark.parametrize(
    ("out", "told"),
    [
        (lambda f, y: y.softmax(1), "softmax"),
        (lambda f, y: (f, F.softmax(y, dim=-1)), "softmax"),
        (lambda f, y: y.log_softmax(1), "log-softmax"),
        (lambda f, y: y.sigmoid(), "sigmoid"),
    ],
)
def test_probabilities_are_not_logits(out, told):
    found = half(Net(out))
    assert any(told in note for note in found.notes)
    expected = PLAIN if told == "sigmoid" else PLAIN.log_softmax(1)
    torch.testing.assert_close(found(images()), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found(images()).softmax(1), PLAIN.softmax(1), rtol=1e-4, atol=1e-5)
    shown = images().requires_grad_()
    found(shown).softmax(1)[:, 0].sum().backward()
    assert shown.grad.isfinite().all()


def test_confidences_of_a_softmax_reach_one():
    """Taken for logits they could not exceed 0.405 among five."""
    sure = half(Net(lambda f, y: (1000 * y).softmax(1)))
    assert sure(images()).softmax(1).max() > 0.99
    assert torch.ones(5).softmax(0).max() < torch.eye(5)[0].softmax(0).max() < 0.406


@pytest.mark.parametrize(
    ("out", "told"),
    [
        (lambda features, logits: F.normalize(logits, dim=1), "returns vectors of length 1"),
        (lambda features, logits: logits.tanh(), "ends in a tanh"),
    ],
)
def test_logits_that_stay_small_are_said_with_the_confidence_that_they_reach(out, told):
    (note,) = half(Net(out)).notes
    assert told in note
    assert "no confidence above 0.65" in note  # e / (e + 4 / e) of five classes
    assert half(Net(lambda features, logits: 9 * F.normalize(logits, dim=1))).notes == ()


def test_bytes_are_no_images():
    with pytest.raises(UserError, match="got uint8; divide bytes by 255"):
        half(Net())(images().mul(255).byte())


class Bright(Plain):
    """Images of 0 to 255."""

    def decode(self, latents, classes=None):
        return super().decode(latents, classes).clamp(0, 1) * 255


def test_values_of_0_to_255_are_refused():
    bright, net = images().mul(255), half(Net())
    told = r"values in \[0, 1\], came 0\.\d+ to 25\d: divide by 255"
    for ask in (net, net.features, Oracle(net, "scores").scores):
        with pytest.raises(UserError, match=told):
            ask(bright)
    labels = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(UserError, match=r"convert with images\.round\(\)\.byte\(\)"):
        Images(bright, labels)
    with pytest.raises(UserError, match=r"convert with \(images \* 255\)\.round\(\)\.byte\(\)"):
        Images(images(), labels)
    with pytest.raises(UserError, match="expected a prior that draws images with values in"):
        Guess(keep=1).run(Oracle(net, "scores"), Bright(), labels[:1], torch.Generator().manual_seed(0))


def test_unclamped_dark_and_no_images_are_images():
    net = half(Net())
    for fine in (images() * 40 - 20, torch.zeros(2, 3, 32, 32), torch.empty(0, 3, 32, 32)):
        assert len(net(fine)) == len(fine)
    together = torch.func.vmap(lambda image: net(image[None])[0])(images())  # nobody can look into these
    assert torch.allclose(together, PLAIN, atol=1e-5)


def test_what_is_sparse_is_made_dense():
    assert torch.equal(half(Net(lambda features, logits: logits.to_sparse()))(images()), PLAIN)


def test_single_images_keep_their_row():
    squeezing = half(Net(lambda features, logits: logits.squeeze(0)))
    assert squeezing(images(3)).shape == (3, 5)
    with pytest.raises(UserError, match="Net returns 5 for 1 images, expected 1 x 5; does it squeeze"):
        squeezing(images(1))


def test_small_logits_are_not_probabilities():
    for net in (Net(lambda f, y: 0.01 * y.abs()), Net(lambda f, y: 0.5 + 0.001 * y), Net(lambda f, y: 0 * y)):
        assert half(net).notes == ()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions(dtype):
    found = half(Net().to(dtype))
    assert found(images()).dtype == torch.float32
    torch.testing.assert_close(found(images()), PLAIN, rtol=0.1, atol=0.1)
    assert f"computes in {str(dtype).removeprefix('torch.')}" in found.notes[0]
    assert found.example.dtype == dtype
    assert find_skips(found.net, found.example) == []


def test_grey_and_oblong_images(tmp_path):
    grey = half(Net(channels=1, classes=5), mean=None, std=None)
    assert any("grey" in note for note in grey.notes)
    shown = images()
    luminance = (shown * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(grey(shown), grey.net((luminance - 0.5) / 0.5))
    assert grey.example.shape == (2, 1, 32, 32)
    assert torch.equal(load(save(grey, tmp_path / "g.safetensors"), Net(channels=1))(shown), grey(shown))
    assert half(Net(channels=1), mean=(0.1,), std=(0.3,)).mean == (0.1,)

    oblong = half(Net(sides=(48, 32)), size=(48, 32))
    assert oblong.size == 48
    taken = F.interpolate(shown, (48, 32), mode="bilinear", antialias=True)
    torch.testing.assert_close(oblong(shown), oblong.net((taken - 0.5) / 0.5))
    assert oblong.example.shape == (2, 3, 48, 32)
    assert torch.equal(load(save(oblong, tmp_path / "o.safetensors"), Net(sides=(48, 32)))(shown), oblong(shown))


@pytest.mark.parametrize(
    ("net", "options", "told"),
    [
        (Net(classes=7), {}, "returns N x 7, expected N x 5: 5 outputs, one for each class; say classes=7"),
        (Net(classes=1), {"classes": 2}, "returns one number an image; expected 2"),
        (Net(lambda f, y: f[:, :, None, None].expand(-1, -1, 4, 4)), {}, "returns N x 8 x 4 x 4"),
        (Net(lambda f, y: (y, y + 1)), {}, "say which holds the logits: --output 0"),
        (Net(lambda f, y: (f, f)), {}, "no tensor of N x 5"),
        (Net(lambda f, y: "text"), {}, "none at all"),
        (Net(lambda f, y: None), {}, "none at all"),
        (Net(lambda f, y: y * math.nan), {}, "no numbers"),
        (Net(sides=(16, 16)), {}, "cannot take images of 2 x 3 x 32 x 32.*other sides"),
        (Net(channels=4), {"mean": None, "std": None}, "cannot take images of 2 x 3 x 32 x 32 or 2 x 1 x 32 x 32"),
        (Net(channels=1), {}, "cannot take images of 2 x 3"),
        (Net(), {"output": 1}, "returns one tensor"),
        (Net(lambda f, y: (f, y)), {"output": 7}, "no output '7'"),
        (Net(), {"mean": (0.5,) * 3, "std": None}, "belong together"),
        (Net(), {"mean": (0.5,) * 3, "std": (0.0,) * 3}, "std above 0"),
        (Net(), {"mean": (math.nan,) * 3, "std": (1.0,) * 3}, "one or three numbers"),
        (Net(), {"size": 0}, "at least one class and one pixel"),
    ],
)
def test_what_cannot_be_read_is_one_line(net, options, told):
    with pytest.raises(UserError, match=told) as caught:
        half(net, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_which_output_can_be_said():
    found = half(Net(lambda f, y: (y, y + 1)), output=1)
    assert torch.equal(found(images()), PLAIN + 1)


def test_a_trial_changes_nothing():
    net = Net()
    net.norm, net.drop = nn.BatchNorm1d(5), nn.Dropout(0.5)
    net.out = lambda f, y: net.drop(net.norm(y))
    before, modes = copy.deepcopy(net.state_dict()), [module.training for module in net.modules()]
    state = torch.get_rng_state()
    half_way = Classifier(net, size=32, classes=5, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [module.training for module in net.modules()] == modes
    assert half_way.training


# Normalisation: stated, read, or said to be assumed


def test_nothing_is_assumed_in_silence(caplog):
    class Unstated(TinyNet):
        pass

    with caplog.at_level(logging.WARNING, "lightleak"):
        found = Classifier(Unstated(), size=32, classes=6)
    assert (found.mean, found.std) == ((0.5,) * 3, (0.5,) * 3)
    assert "Unstated" in caplog.text
    assert "mean = std = 0.5" in caplog.text
    assert "state mean and std" in found.notes[-1]
    caplog.clear()
    Classifier(Unstated(), size=32, classes=6)
    assert caplog.text == ""  # once
    assert half(TinyNet(6), classes=6).notes == ()


def noting(**values):
    net = Net()
    for name, value in values.items():
        setattr(net, name, value)
    return net


BIG = normalisation.IMAGENET


@pytest.mark.parametrize(
    ("net", "mean"),
    [
        (timm.create_model("test_resnet", num_classes=5), (0.5,) * 3),
        (timm.create_model("resnet10t", num_classes=5), BIG[0]),
        (noting(config={"image_mean": list(BIG[0]), "image_std": list(BIG[1])}), BIG[0]),
        (noting(image_mean=BIG[0], image_std=BIG[1]), BIG[0]),
        (noting(mean=BIG[0], std=BIG[1]), BIG[0]),
        (nn.Sequential(torchvision.transforms.Normalize(*BIG), Net()), (0.0,) * 3),
        (noting(mean=torch.tensor(BIG[0]).view(1, 3, 1, 1), std=torch.tensor(BIG[1]).view(1, 3, 1, 1)), (0.0,) * 3),
        (noting(mean="average", std=3), (0.5,) * 3),
        (noting(mean=(0.1, 0.2), std=(1, 1)), (0.5,) * 3),
    ],
)
def test_what_a_network_says_of_itself(net, mean):
    found = normalisation.of(net)
    assert found.mean == mean
    assert len(found.notes) == 1


def test_the_zoo_states_its_own():
    assert build("timm:test_resnet", 3, 32).notes == ()
    assert "reading" not in build("timm:test_resnet", 3, 32).recipe


class Moving(Net):
    """Keeps something whenever it answers, as `way` says."""

    def __init__(self, way):
        super().__init__()
        self.way, self.calls = way, 0
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        logits = super().forward(x)
        if self.way == "in place":
            self.seen.lerp_(x.mean(), 0.01)
        if self.way == "anew":
            self.seen = self.seen + 1
        if self.way == "parameter":
            self.fc.bias.data.add_(0.1)
        if self.way == "attribute":
            self.calls += 1
        if self.way == "idle":
            self.get_buffer("seen").add_(1)
            return logits
        if self.way == "random":
            return logits + torch.rand(()) + np.random.rand()
        return logits + self.seen + self.calls


@pytest.mark.parametrize("way", ["in place", "anew", "parameter", "attribute"])
def test_a_network_that_moves_as_it_answers_is_said(way):
    net = Moving(way)
    (note,) = half(net).notes
    assert note.startswith("Moving answers the same image otherwise the second time")
    assert ("(seen moved)" in note) == (way in ("in place", "anew"))
    assert (float(net.seen), net.calls) == (0, 0)  # the trial left it as it was


@pytest.mark.parametrize("way", ["idle", "random", "none"])
def test_what_answers_alike_says_nothing(way):
    net = Moving(way)
    assert half(net).notes == ()
    assert float(net.seen) == 0


class Auxiliary(Net):
    """Gives a second head's answer as well while it is trained, as Inception and GoogLeNet do."""

    def forward(self, x):
        logits = super().forward(x)
        return (logits, -logits) if self.training else logits


def test_an_auxiliary_head_is_told_from_the_logits():
    told = half(Auxiliary(), output="0")
    assert torch.equal(told(images()), PLAIN)
    assert torch.allclose(told.train()(images()), PLAIN, atol=1e-5)
    with pytest.raises(UserError, match="returns one tensor, so output='7' has no meaning"):
        half(Auxiliary(), output="7")
    with pytest.raises(UserError, match="say which holds the logits: --output 0"):
        half(Auxiliary()).train()(images())
