"""Published classifiers become ours: files in each layout, against forward passes written down here."""

import re
import warnings
from collections import OrderedDict

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torchvision.models.densenet import _DenseLayer

from lightleak import cli
from lightleak.attacks import Knowledge
from lightleak.convert import FORMATS, Cuts, Hints, classifier, convert, described, remarks
from lightleak.convert.formats import (
    CONVNEXTS,
    DENSENETS,
    EFFICIENT,
    RESNESTS,
    RESNETS,
    SWINS,
    TIMM_VITS,
    VGGS,
    VITS,
    closest,
)
from lightleak.convert.layouts import recognise
from lightleak.errors import UserError
from lightleak.models.classifier import load, save
from lightleak.models.face import FACE_MODELS, Unit
from lightleak.models.torchfile import Checkpoint
from lightleak.models.zoo import build
from lightleak.surgery import find_skips


def randomise(net, seed=0):
    """Weights and statistics that no part of a network can go without."""
    rng = torch.Generator().manual_seed(seed)
    for name, value in net.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=rng) + 0.5)
        elif name.endswith("running_mean") or (value.dim() == 1 and value.is_floating_point()):
            value.copy_(
                torch.randn(value.shape, generator=rng) * 0.2 + (0.0 if "bias" in name or "mean" in name else 1.0)
            )
    return net.eval()


def images(count=2, size=64):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(5))


def converted(state, hints=None, name="file.tar"):
    return classifier(Checkpoint(dict(state), "", {}), name, hints or Hints())


def written(content, path, new=False):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(content, path, _use_new_zipfile_serialization=new)
    return path


def parallel(state):
    return OrderedDict((f"module.{name}", value) for name, value in state.items())


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


# --- a second implementation of the 64-pixel networks: functions of published names


def norm(x, state, name):
    mean, var, weight, bias = (
        state[f"{name}.{part}"].view(1, -1, *[1] * (x.dim() - 2))
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def vgg_features(x, state, place):
    """`place(i)` is the published name of layer i of VGG-16 with batch norm."""
    index = 0
    for width in (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"):
        if width == "M":
            x, index = F.max_pool2d(x, 2), index + 1
            continue
        x = F.conv2d(x, state[f"{place(index)}.weight"], state[f"{place(index)}.bias"], padding=1)
        x, index = norm(x, state, place(index + 1)).relu(), index + 3
    return x.flatten(1)


def linear(x, state, name):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def part_of(index):
    """BiDO's five parts of VGG-16."""
    start, part = max((start, part) for part, start in enumerate((0, 7, 14, 24, 34), 1) if start <= index)
    return f"layer{part}.{index - start}"


def vgg_state(classes=7, norm=True):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return randomise(FACE_MODELS["vgg16" if norm else "vgg16-plain"](classes)).state_dict()


def in_parts(state):
    def rename(name):
        found = re.match(r"feature\.(\d+)\.(.*)", name)
        return f"{part_of(int(found[1]))}.{found[2]}" if found else name

    return {rename(name): value for name, value in state.items()}


def test_a_published_vgg_file(tmp_path, capsys):
    """VGG16_88.26.tar: {'state_dict': 'module.*'} in the container of its time."""
    state = vgg_state()
    file, out = written({"state_dict": parallel(state)}, tmp_path / "VGG16_88.26.tar"), tmp_path / "vgg.safetensors"
    cli.main(["convert", str(file), "--out", str(out)])
    told = " ".join(capsys.readouterr().out.split())
    assert (
        "VGG-16 at 64 pixels (GMI, KED-MI, LOMMA, PLG-MI): face:vgg16, 7 classes, images of 64 pixels (not normalised)"
        in told
    )
    target = load(out)
    features = norm(vgg_features(images(), state, lambda i: f"feature.{i}"), state, "bn")
    close(target(images()), linear(features, state, "fc_layer"))
    close(target.features(images()), features)
    assert target.record["converted"]["file"] == "VGG16_88.26.tar"
    assert (target.classes, target.size, target.mean, target.std) == (7, 64, (0.0,) * 3, (1.0,) * 3)


def test_bido_names_its_layers_in_five_parts():
    state = in_parts(vgg_state())
    assert {name.split(".")[0] for name in state} == {"bn", "fc_layer", *(f"layer{i}" for i in range(1, 6))}
    features = norm(vgg_features(images(), state, part_of), state, "bn")
    close(converted(state)(images()), linear(features, state, "fc_layer"))


@pytest.mark.parametrize("parts", [False, True])
def test_mid_has_a_bottleneck_and_no_norm(parts, tmp_path):
    rng = torch.Generator().manual_seed(1)
    state = {name: value for name, value in vgg_state(norm=False).items() if not name.startswith("fc_layer")}
    state |= {
        "st_layer.weight": torch.randn(2048, 2048, generator=rng) * 0.01,
        "st_layer.bias": torch.randn(2048, generator=rng) + 4,
        "fc_layer.weight": torch.randn(7, 1024, generator=rng) * 0.1,
        "fc_layer.bias": torch.randn(7, generator=rng),
    }
    state = in_parts(state) if parts else state
    target = load(save(converted(state), tmp_path / "mid.safetensors"))
    features = vgg_features(images(), state, part_of if parts else lambda i: f"feature.{i}")
    statistics = linear(features, state, "st_layer")
    torch.manual_seed(3)
    noise = torch.randn(2, 1024)
    expected = statistics[:, :1024] + F.softplus(statistics[:, 1024:] - 5) * noise
    torch.manual_seed(3)
    close(target(images()), linear(expected, state, "fc_layer"))
    assert [change["kind"] for change in target.changes] == ["bottleneck"]


def backbone(x, state, units, prefix):
    def prelu(x, name):
        return torch.where(x > 0, x, x * state[f"{name}.weight"].view(1, -1, 1, 1))

    x = F.conv2d(x, state[f"{prefix}input_layer.0.weight"], padding=1)
    x = prelu(norm(x, state, f"{prefix}input_layer.1"), f"{prefix}input_layer.2")
    unit = 0
    for count in units:
        for first in [True] + [False] * (count - 1):
            name, stride = f"{prefix}body.{unit}", 2 if first else 1
            y = F.conv2d(norm(x, state, f"{name}.res_layer.0"), state[f"{name}.res_layer.1.weight"], padding=1)
            y = prelu(y, f"{name}.res_layer.2")
            y = F.conv2d(y, state[f"{name}.res_layer.3.weight"], stride=stride, padding=1)
            shortcut = x[:, :, ::stride, ::stride]
            if f"{name}.shortcut_layer.0.weight" in state:
                weight = state[f"{name}.shortcut_layer.0.weight"]
                shortcut = norm(F.conv2d(shortcut, weight), state, f"{name}.shortcut_layer.1")
            x, unit = norm(y, state, f"{name}.res_layer.4") + shortcut, unit + 1
    return x


def face_logits(x, state, units, size, last="fc_layer"):
    x = backbone(x, state, units, "feature.")
    head = "feature.output_layer" if size == 112 else "output_layer"
    x = linear(norm(x, state, f"{head}.0").flatten(1), state, f"{head}.3")
    return linear(norm(x, state, f"{head}.4"), state, last)


@pytest.mark.parametrize(
    ("name", "units", "size"),
    [
        ("facenet64", (3, 4, 14, 3), 64),
        pytest.param("ir152", (3, 8, 36, 3), 64, marks=pytest.mark.slow),
        pytest.param("facenet112", (3, 4, 14, 3), 112, marks=pytest.mark.slow),
    ],
)
def test_residual_face_networks(name, units, size, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = randomise(FACE_MODELS[name](5)).state_dict()
    file = written({"state_dict": parallel(state)}, tmp_path / "face.tar")
    target = convert(file)
    assert (target.architecture, target.size, target.classes) == (f"face:{name}", size, 5)
    close(target(images(size=size)), face_logits(images(size=size), state, units, size))
    early = {name.replace("fc_layer.", "fc_layer.0."): value for name, value in state.items()}
    if name != "ir152":  # a head with its softmax
        close(converted(early)(images(size=size)), target(images(size=size)))


def test_an_ir152_without_the_last_stages_skips(monkeypatch):
    """The layout of RoLSS's IR-152 is that of the whole one; here with fewer units."""
    monkeypatch.setattr("lightleak.models.face.UNITS", {50: (3, 4, 14, 3), 152: (1, 1, 1, 2)})
    state = randomise(FACE_MODELS["ir152"](5)).state_dict()
    state["feature.body.49.res_layer.4.weight"] = torch.ones(512)  # what tells it from IR-50
    with pytest.raises(UserError, match=r"body\.49\.res_layer\.4\.weight is not in the network"):
        converted(state)
    del state["feature.body.49.res_layer.4.weight"]
    target = converted(state, Hints("face:ir152", normalise="none", cuts=Cuts((1, 1, 1, 0))))
    for unit in (3, 4):
        gone = f"feature.body.{unit}.shortcut_layer"
        assert not any(name.startswith(gone) for name in target.net.state_dict())
    calls = []

    def forward(self, x):
        calls.append(self)
        return self.res_layer(x) if len(calls) in (4, 5) else self.res_layer(x) + self.shortcut_layer(x)

    whole = FACE_MODELS["ir152"](5).eval()
    whole.load_state_dict(state)
    found = target(images())
    monkeypatch.setattr(Unit, "forward", forward)
    close(found, whole(images()))


# --- PPA and RoLSS


def rolss(state, **beside):
    """Their training state: the network's names begin with model., an optimiser lies beside it."""
    named = OrderedDict((f"model.{name}", value) for name, value in state.items())
    return {"epoch": 99, "model_state_dict": named, "optimizer_state_dict": {"state": {}, "param_groups": []}, **beside}


def resnet(classes=7, name="resnet18"):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return randomise(getattr(torchvision.models, name)(num_classes=classes))


def cut_resnet(net, factors, split=1.0):
    """The published forward: identity counts `factors[stage]`, in stage 3 only in the first blocks."""

    def forward(block, factor, x):
        y = block.relu(block.bn1(block.conv1(x)))
        y = block.bn2(block.conv2(y))
        if hasattr(block, "conv3"):
            y = block.bn3(block.conv3(block.relu(y)))
        identity = x if block.downsample is None else block.downsample(x)
        if factor:
            y = y + factor * identity
        return block.relu(y)

    def run(x):
        x = (x - 0.5) / 0.5
        x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        for stage, factor in enumerate(factors, 1):
            blocks = getattr(net, f"layer{stage}")
            for index, block in enumerate(blocks):
                x = forward(block, 0 if stage == 3 and index >= int(split * len(blocks)) else factor, x)
        return net.fc(net.avgpool(x).flatten(1))

    return run


@pytest.mark.parametrize(
    ("factors", "split", "cut"),
    [((), 1.0, 0), ((1, 1, 1, 0), 1.0, 2), ((1, 1, 1, 0.2), 1.0, 2), ((1, 0.5, 1, 0), 0.8, 5), ((0, 1, 1, 1), 1.0, 2)],
)
def test_resnets_with_their_training_options(factors, split, cut, tmp_path):
    net = resnet()
    file = written(rolss(net.state_dict()), tmp_path / "Classifier_0.9379_Epoch_99.pth", new=True)
    target = convert(file, Hints(size=64, cuts=Cuts(factors, split=split)))
    expected = cut_resnet(net, factors or (1, 1, 1, 1), split)(images())
    close(target(images()), expected)
    again = load(save(target, tmp_path / "target.safetensors"))
    assert torch.equal(again(images()), target(images()))
    assert sum(len(step["skips"]) for step in again.recipe["surgery"]) == cut
    assert again.record["converted"]["beside"] == {"epoch": 99}
    assert described(again).endswith(f", {cut} skips cut or scaled" if cut else "the file does not say)")
    assert (again.architecture, again.mean, again.std) == ("torchvision:resnet18", (0.5,) * 3, (0.5,) * 3)


class Dense(nn.Module):
    """RoLSS's DenseNet-121, built from its specification: a cut list of maps in each block."""

    def __init__(self, factors, classes, layers=(6, 12, 24, 16), growth=32, width=64):
        super().__init__()
        self.factors = factors
        f = self.features = nn.Sequential()
        f.add_module("conv0", nn.Conv2d(3, width, 7, 2, 3, bias=False))
        f.add_module("norm0", nn.BatchNorm2d(width))
        for block, (count, k) in enumerate(zip(layers, factors), 1):
            inner = nn.Module()
            kept, step = round(k * width), round(k * growth)
            for j in range(count):
                inputs = width if j == 0 else kept + (j - 1) * step + growth
                inner.add_module(f"denselayer{j + 1}", _DenseLayer(inputs, growth, 4, 0.0))
            f.add_module(f"denseblock{block}", inner)
            width = kept + (count - 1) * step + growth
            if block < 4:
                between = nn.Module()
                between.norm, between.conv = nn.BatchNorm2d(width), nn.Conv2d(width, width // 2, 1, bias=False)
                f.add_module(f"transition{block}", between)
                width //= 2
        f.add_module("norm5", nn.BatchNorm2d(width))
        self.classifier = nn.Linear(width, classes)

    def forward(self, x):
        f = self.features
        x = F.max_pool2d(f.norm0(f.conv0((x - 0.5) / 0.5)).relu(), 3, 2, 1)
        for block, k in enumerate(self.factors, 1):
            maps = [x]
            for layer in getattr(f, f"denseblock{block}").children():
                new = layer(torch.cat(maps, 1))
                maps[-1] = maps[-1][:, : round(k * maps[-1].shape[1])]
                maps.append(new)
            x = torch.cat(maps, 1)
            if block < 4:
                between = getattr(f, f"transition{block}")
                x = F.avg_pool2d(between.conv(between.norm(x).relu()), 2)
        return self.classifier(f.norm5(x).relu().mean((2, 3)))


@pytest.mark.parametrize(
    "factors",
    [
        (1, 1, 1, 0),
        pytest.param((1, 1, 1, 1), marks=pytest.mark.slow),
        pytest.param((1, 1, 1, 0.01), marks=pytest.mark.slow),
        pytest.param((1, 0, 1, 1), marks=pytest.mark.slow),
        pytest.param((1, 0.5, 1, 0.2), marks=pytest.mark.slow),
    ],
)
def test_a_densenets_shapes_tell_what_was_cut(factors, tmp_path):
    net = randomise(Dense(factors, 7))
    target = converted(rolss(net.state_dict())["model_state_dict"], Hints(size=64))
    close(target(images()), net(images()))
    again = load(save(target, tmp_path / "target.safetensors"))
    assert torch.equal(again(images()), target(images()))
    assert sorted({step["factor"] for step in again.recipe["surgery"]}) == sorted({f for f in factors if f != 1})
    if 0 in factors:
        with pytest.raises(UserError, match="as its shapes tell, not"):
            converted(net.state_dict(), Hints(size=64, cuts=Cuts((1, 1, 1, 1))))


# --- what does not fit


def test_differing_names_are_counted():
    state = vgg_state()
    for name in [name for name in state if name.startswith(("feature.40.", "feature.41."))]:
        del state[name]
    state |= {"feature.3.weight": torch.ones(64, 64, 1, 1), "more": torch.ones(2), "feature.99.bias": torch.ones(1)}
    with pytest.raises(UserError) as caught:
        converted(state)
    told = str(caught.value)
    assert "file.tar does not fit its architecture: feature.40.weight is missing; feature.40.bias is missing" in told
    assert told.endswith("and 4 more (6 missing, 2 not in the network, 1 of another shape)")


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (
            lambda s: s.pop("fc_layer.weight"),
            "closest is VGG-16 at 64 pixels (GMI, KED-MI, LOMMA, PLG-MI), but fc",
        ),
        (lambda s: s.update({"fc_layer.weight": torch.ones(7, 5)}), "but fc_layer.weight is (7, 5)"),
        (lambda s: s.update({"bn.bias": torch.full((2048,), torch.nan)}), "not finite, in bn.bias"),
        (lambda s: [s.pop(name) for name in list(s)[3:]], "is none of the"),
    ],
)
def test_files_of_no_format(edit, told):
    state = vgg_state()
    edit(state)
    with pytest.raises(UserError) as caught:
        converted(state)
    assert told in str(caught.value)


def test_an_option_for_another_network():
    state = resnet().state_dict()
    for cuts, told in (
        (Cuts((1, 1, 0)), "skip has 4 factors"),
        (Cuts((1, 1, 1, 0), cfg=((1, 1, 1),) * 4), "options of MaxViT"),
    ):
        with pytest.raises(UserError, match=told):
            converted(state, Hints(size=64, cuts=cuts))
    with pytest.raises(UserError, match="factors of skips lie between 0 and 1"):
        Cuts((2,))
    with pytest.raises(UserError, match="no skip options for torchvision:googlenet"):
        converted(build("torchvision:googlenet", 3).net.state_dict(), Hints("torchvision:googlenet", cuts=Cuts((1, 0))))


def test_a_named_architecture(tmp_path):
    net = build("timm:resnet10t", 4, 64)
    file = written(net.net.state_dict(), tmp_path / "mine.pth", new=True)
    target = convert(file, Hints("timm:resnet10t", 64, "imagenet"))
    net = net.eval().net
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    close(target(images()), net((images() - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)))
    with pytest.raises(UserError, match="does not fit its architecture"):
        convert(file, Hints("timm:resnet18", 64))


def test_backbones_grey_networks_and_features_are_explained():
    for state, told in (
        ({"input_layer.0.weight": torch.ones(64, 3, 3, 3), "body.0.res_layer.0.weight": torch.ones(64)}, "face.evoLVe"),
        ({"layer1.0.weight": torch.ones(64, 1, 7, 7), "fc_layer.weight": torch.ones(5, 256)}, "MNIST"),
    ):
        with pytest.raises(UserError, match=told):
            converted(state)


def test_format_names_differ():
    assert len({format_.name for format_ in FORMATS}) == len(FORMATS)


def test_skips_are_found_in_what_was_converted():
    target = converted(resnet().state_dict(), Hints(size=64, cuts=Cuts((1, 1, 1, 0))))
    assert [skip.stage for skip in find_skips(target.net, target.example)] == [1, 1, 2, 2, 3, 3]


FAMILIES = (RESNETS, DENSENETS, VGGS, EFFICIENT, CONVNEXTS, SWINS, VITS, TIMM_VITS, RESNESTS)


@pytest.mark.parametrize("name", [*sum(FAMILIES, ()), "torchvision:maxvit_t", "torchvision:inception_v3"])
def test_every_network_is_told_from_the_others(name):
    """By shapes alone: no weights are made."""
    with torch.device("meta"):
        state = build(name, 5).net.state_dict()
    found = recognise(state, FORMATS, "file")
    short = "resnest" if "resnest" in name else name.partition(":")[2][:3]
    expected = {"eff": "MobileNetV2 or Eff", "mob": "MobileNetV2", "wid": "ResNet", "dei": "ViT or DeiT of timm"}
    assert found.name.lower().startswith(expected.get(short, short).lower())
    for family in FAMILIES:
        if name in family:
            assert closest(family, state)[0] == name


# --- the other families, against torchvision with the published forward put in


def stack(name, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return randomise(getattr(torchvision.models, name)(num_classes=5, **options))


def half(x):
    return (x - 0.5) / 0.5


def test_a_student_of_lomma():
    net = stack("efficientnet_b0")
    names = {"features.": "module.feature.0.", "classifier.1.": "module.fc_layer."}
    state = {
        published + name.removeprefix(ours): value
        for name, value in net.state_dict().items()
        for ours, published in names.items()
        if name.startswith(ours)
    }
    target = converted(state)
    assert (target.architecture, target.size) == ("torchvision:efficientnet_b0", 64)
    close(target(images()), net(images()))  # in [0, 1], as it is


@pytest.mark.parametrize(("skip", "cut"), [((1, 1, 1, 1, 1, 0, 1), (15, 16)), ((1, 1, 1, 1, 1, 1, 0), ())])
def test_mobilenets_groups(skip, cut, monkeypatch):
    """Group 7 has no skip: the published "skip removed" MobileNetV2 is the whole one."""
    net = stack("mobilenet_v2")
    target = converted(net.state_dict(), Hints(size=64, cuts=Cuts(skip)))
    assert target.architecture == "torchvision:mobilenet_v2"
    found = target(images())
    for block in cut:
        monkeypatch.setattr(net.features[block], "use_res_connect", False)
    close(found, net(half(images())))
    whole = len(find_skips(net, target.example)) if not cut else 10
    assert len(find_skips(target.net, target.example)) == whole - len(cut)


def test_convnext_asks_only_whether(monkeypatch):
    net = stack("convnext_tiny")
    for name, value in net.named_parameters():
        if name.endswith("layer_scale"):
            value.data.fill_(0.3)
    target = converted(net.state_dict(), Hints(size=64, cuts=Cuts((0, 0, 0.5, 1))))
    found = target(images())
    block = type(net.features[1][0])
    cut = {id(each) for stage in (1, 3) for each in net.features[stage]}

    def forward(self, x):
        result = self.layer_scale * self.block(x)
        return result if id(self) in cut else result + x

    monkeypatch.setattr(block, "forward", forward)
    close(found, net(half(images())))


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "flat"), [("mlp", False), ("attention", True), ("all", False)])
def test_vits_blocks(mode, flat, monkeypatch):
    net = stack("vit_b_16")
    state = {name.replace("heads.head.", "heads.") if flat else name: v for name, v in net.state_dict().items()}
    target = converted(state, Hints(cuts=Cuts((0, 0.5, *[1] * 10), mode)))
    found = target(images(1, 224))
    factors = {id(net.encoder.layers[0]): 0, id(net.encoder.layers[1]): 0.5}

    def forward(self, x):
        k = factors.get(id(self), 1)
        y = self.ln_1(x)
        y = self.self_attention(y, y, y, need_weights=False)[0] + (1 if mode == "mlp" else k) * x
        return self.mlp(self.ln_2(y)) + (1 if mode == "attention" else k) * y

    monkeypatch.setattr(type(net.encoder.layers[0]), "forward", forward)
    close(found, net(half(images(1, 224))))


@pytest.mark.slow
def test_maxvit_with_a_bias_and_its_layers(monkeypatch, tmp_path):
    net = stack("maxvit_t", input_size=(224, 224))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net.classifier[5] = nn.Linear(512, 5)
    cuts = Cuts((0, 0, 1, 1), cfg=((1, 1, 0), (1, 1, 0), (1, 1, 1), (1, 1, 1)), itr=(2, 1, 5, 2))
    target = load(save(converted(net.state_dict(), Hints(cuts=cuts)), tmp_path / "maxvit.safetensors"))
    found = target(images(1, 224))
    layers = [net.blocks[0].layers[0], net.blocks[0].layers[1], net.blocks[1].layers[0]]
    cut = {id(layer.layers.grid_attention) for layer in layers}

    def forward(self, x):
        rows, columns = self.grid_size[0] // self.p, self.grid_size[1] // self.p
        x = self.partition_swap(self.partition_op(x, self.p))
        k = 0 if id(self) in cut else 1
        x = k * x + self.attn_layer(x)
        x = k * x + self.mlp_layer(x)
        return self.departition_op(self.departition_swap(x), self.p, rows, columns)

    monkeypatch.setattr(type(layers[0].layers.grid_attention), "forward", forward)
    close(found, net(half(images(1, 224))))
    with pytest.raises(UserError, match="scales the other branch by mistake"):
        converted(net.state_dict(), Hints(cuts=Cuts((0, 1, 1, 1), cfg=((0, 1, 1),) * 4)))
    with pytest.raises(UserError, match="without cfg"):
        converted(net.state_dict(), Hints(cuts=Cuts((0, 1, 1, 1))))


@pytest.mark.slow
@pytest.mark.parametrize("twice", [True, False])
def test_inception_judges_as_it_was_trained(twice):
    net = stack("inception_v3", init_weights=False, transform_input=twice)
    assert any(name.startswith("AuxLogits.") for name in net.state_dict())
    judge = converted(rolss(net.state_dict())["model_state_dict"], Hints(transform_input=twice))
    assert judge.size == 299
    close(judge(images(2, 299)), net(half(images(2, 299))))


def test_what_lomma_learnt(tmp_path, capsys):
    """A p_reg file and its students become Knowledge that `lightleak attack --knowledge` loads."""
    p_reg = written({"fea_mean": torch.arange(4.0), "fea_logvar": torch.full((4,), 0.5)}, tmp_path / "p_reg.pt")
    student = written({"state_dict": parallel(torchvision.models.efficientnet_b0(num_classes=3).state_dict())},
                      tmp_path / "b0.tar")  # fmt: skip
    cli.main(["convert", str(p_reg), "--students", str(student), "--out", str(tmp_path / "knowledge")])
    assert "4 features, 1 students" in " ".join(capsys.readouterr().out.split())
    known = Knowledge.load(tmp_path / "knowledge")
    assert torch.equal(known.mean, torch.arange(4.0))
    assert torch.equal(known.spread, torch.full((4,), 0.5))
    assert [one.architecture for one in known.students] == ["torchvision:efficientnet_b0"]
    assert known.students[0].classes == 3
    assert Knowledge.load(tmp_path / "knowledge").agreement == ()  # the files do not say

    uneven = written({"fea_mean": torch.ones(4), "fea_logvar": torch.ones(5)}, tmp_path / "uneven.pt")
    with pytest.raises(UserError, match="expected one mean and one standard deviation for each feature"):
        convert(uneven)
    with pytest.raises(UserError, match="takes no option but --students"):
        convert(p_reg, Hints(size=64))
    with pytest.raises(UserError, match="is no p_reg file of LOMMA, so --students has no meaning"):
        convert(student, students=[student])


def test_an_assumed_normalisation_is_said(tmp_path):
    file = written(resnet().state_dict(), tmp_path / "mine.pth", new=True)
    (remark,) = [text for text in remarks(convert(file, Hints(size=64))) if "[-1, 1]" in text]
    assert "--normalise imagenet" in remark
    assert not any("[-1, 1]" in text for text in remarks(convert(file, Hints(size=64, normalise="half"))))
