"""The 64-pixel classifiers: shapes, names and numbers of the published checkpoints, and their skips."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightleak.errors import UserError
from lightleak.models import zoo
from lightleak.models.face import CHANNELS, FACE_MODELS, SIZED, UNITS, Backbone
from lightleak.surgery import find_skips, remove_skips


def build(name: str, classes: int = 1000) -> nn.Module:
    with torch.device("meta"):  # names and shapes only
        return FACE_MODELS[name](classes)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def ir_parameters(depth: int, size: int, classes: int) -> int:
    """Counted by hand, layer by layer."""
    total, inputs = 3 * 64 * 9 + 2 * 64 + 64, 64
    for outputs, units in zip(CHANNELS, UNITS[depth]):
        for unit in range(units):
            before = inputs if unit == 0 else outputs
            total += 2 * before + 9 * before * outputs + outputs + 9 * outputs**2 + 2 * outputs
            if before != outputs:
                total += before * outputs + 2 * outputs
        inputs = outputs
    pixels = (size // 16) ** 2
    return total + 2 * 512 + 512 * pixels * 512 + 512 + 2 * 512 + 512 * classes + classes


@pytest.mark.parametrize(
    ("name", "tensors", "millions", "depth", "size"),
    [("facenet64", 351, 35.4, 50, 64), ("ir152", 689, 62.6, 152, 64), ("facenet112", 351, 44.1, 50, 112)],
)
def test_residual_networks_have_the_published_tensors(
    name: str, tensors: int, millions: float, depth: int, size: int
) -> None:
    model = build(name)
    assert len(model.state_dict()) == tensors
    assert round(parameters(model) / 1e6, 1) == millions
    assert parameters(model) == ir_parameters(depth, size, 1000)
    assert model.input_size == (3, size, size)


# Names and shapes by which the published files are told apart.
SIGNATURES = {
    "vgg16": {"feature.0.weight": (64, 3, 3, 3), "bn.weight": (2048,), "fc_layer.weight": (1000, 2048)},
    "facenet64": {
        "feature.input_layer.0.weight": (64, 3, 3, 3),
        "feature.body.0.res_layer.2.weight": (64,),
        "feature.body.3.shortcut_layer.1.running_var": (128,),
        "feature.body.23.res_layer.4.bias": (512,),
        "output_layer.3.weight": (512, 8192),
        "output_layer.4.running_mean": (512,),
        "fc_layer.weight": (1000, 512),
    },
    "ir152": {"feature.body.49.res_layer.3.weight": (512, 512, 3, 3), "output_layer.3.weight": (512, 8192)},
    "facenet112": {"feature.output_layer.3.weight": (512, 25088), "fc_layer.bias": (1000,)},
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_names_are_those_of_the_published_checkpoints(name: str) -> None:
    state = build(name).state_dict()
    for key, shape in SIGNATURES[name].items():
        assert tuple(state[key].shape) == shape
    if name == "facenet64":
        assert "feature.body.24.res_layer.0.weight" not in state
        assert set(state) == set(build("ir50").state_dict())


@pytest.mark.parametrize(("narrow", "wide", "width"), [("ir18-narrow", "ir50", 128), ("vgg16-narrow", "vgg16", 512)])
def test_narrow_networks_have_the_same_layers_with_fewer_channels(narrow: str, wide: str, width: int) -> None:
    small, large = build(narrow).state_dict(), build(wide).state_dict()
    for name, value in small.items():
        if "body" not in name:  # units are numbered by depth
            assert value.shape == large[name].shape or value.numel() < large[name].numel()
    assert small["fc_layer.weight"].shape == (1000, width)
    if narrow == "vgg16-narrow":
        assert set(small) == set(large)


@pytest.mark.parametrize("size", [32, 48, 80])
@pytest.mark.parametrize(
    ("name", "width", "skips"), [("ir18-narrow", 128, 8), ("vgg16-narrow", 128, 0), ("densenet-narrow", 186, 4 * 4)]
)
def test_narrow_networks_take_other_sizes(name: str, width: int, skips: int, size: int) -> None:
    classifier = zoo.build(f"face:{name}", 5, size).eval()
    images = torch.rand(2, 3, size, size)
    features, logits = classifier.features_and_logits(images)
    assert logits.shape == (2, 5)
    assert features.shape == (2, width * ((size // 32) ** 2 if name.startswith("vgg") else 1))
    assert len(find_skips(classifier.net, images)) == skips


@pytest.mark.parametrize("size", [16, 40])
@pytest.mark.parametrize("name", SIZED)
def test_narrow_networks_refuse_what_their_stages_cannot_halve(name: str, size: int) -> None:
    with pytest.raises(UserError, match=f"takes images of a multiple of 16 pixels from 32 on, not {size} x {size}"):
        zoo.build(f"face:{name}", 5, size)


def test_the_narrow_densenet_is_torchvisions_and_its_stages_can_be_cut() -> None:
    """Channels by hand: 48; each stage adds 4 x 24, and each transition halves. A stage without skips is 24 wide."""
    model = FACE_MODELS["densenet-narrow"](1000).eval()
    state = model.state_dict()
    for number, shape in ((1, (72, 144)), (2, (84, 168)), (3, (90, 180))):
        assert state[f"feature.transition{number}.conv.weight"].shape[:2] == shape
    assert state["fc_layer.weight"].shape == (1000, 90 + 4 * 24)
    example = torch.rand(2, 3, 48, 48)
    assert remove_skips(model, "last", example).fc_layer.weight.shape == (1000, 24)
    assert remove_skips(model, 1, example).feature.transition1.conv.weight.shape[:2] == (12, 24)  # halves, too


def test_the_backbone_alone_is_a_face_evolve_file() -> None:
    with torch.device("meta"):
        state = Backbone(50, 112).state_dict()
    assert {key.split(".")[0] for key in state} == {"input_layer", "body", "output_layer"}
    assert "body.0.shortcut_layer.0.weight" not in state  # equal channels: pooled, not projected


def test_vgg16_has_its_published_size_and_a_frozen_bias() -> None:
    model = build("vgg16")
    assert len(model.state_dict()) == 98
    assert round(parameters(model) / 1e6, 2) == 16.78
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["bn.bias"]


@pytest.mark.parametrize("name", FACE_MODELS)
def test_images_in_logits_out(name: str) -> None:
    torch.manual_seed(0)
    model = FACE_MODELS[name](7).eval()
    images = torch.rand(2, *model.input_size)
    with torch.no_grad():
        logits, features = model(images), model.features(images)
    assert logits.shape == (2, 7)
    assert features.shape == (2, model.fc_layer.in_features)
    assert torch.equal(logits, model.fc_layer(features))
    assert torch.isfinite(logits).all()


def test_a_residual_unit_is_what_its_formula_says() -> None:
    model = FACE_MODELS["ir50"](3).double().eval()
    unit, x = model.feature.body[3], torch.randn(2, 64, 8, 8, dtype=torch.float64)
    first, wide, slope, narrow, last = unit.res_layer

    def norm(x: torch.Tensor, layer: nn.BatchNorm2d) -> torch.Tensor:
        shape = (1, -1, 1, 1)
        centred = (x - layer.running_mean.view(shape)) / (layer.running_var.view(shape) + layer.eps).sqrt()
        return centred * layer.weight.view(shape) + layer.bias.view(shape)

    y = F.conv2d(norm(x, first), wide.weight, padding=1)
    y = torch.where(y > 0, y, y * slope.weight.view(1, -1, 1, 1))
    y = norm(F.conv2d(y, narrow.weight, stride=2, padding=1), last)
    shortcut = norm(F.conv2d(x, unit.shortcut_layer[0].weight, stride=2), unit.shortcut_layer[1])
    torch.testing.assert_close(unit(x), y + shortcut)


@pytest.mark.parametrize(
    ("name", "counts"), [("ir50", [3, 4, 14, 3]), ("ir152", [3, 8, 36, 3]), ("ir18-narrow", [2, 2, 2, 2])]
)
def test_surgery_finds_one_skip_per_unit_and_cuts_the_last_stage(name: str, counts: list[int]) -> None:
    model = FACE_MODELS[name](4).eval()
    example = torch.rand(2, 3, 64, 64)
    skips = find_skips(model, example)
    assert [sum(skip.stage == stage for skip in skips) for stage in (1, 2, 3, 4)] == counts
    cut = remove_skips(model, "last", example)
    widest = model.fc_layer.in_features
    projection = widest * widest // 2 + 2 * widest
    assert parameters(model) - parameters(cut) == projection
    nn.init.zeros_(cut.feature.body[-1].res_layer[4].weight)
    with torch.no_grad():  # nothing goes around the last unit any more
        assert torch.equal(cut(example)[0], cut(example.flip(0))[0])
