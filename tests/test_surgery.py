"""Skip surgery: what it finds, what it cuts, what stays as it was, and what it refuses."""

import copy
import json
import pickle

import pytest
import timm
import torch
from torch import nn
from torchvision.models import densenet121, get_model, resnet18
from torchvision.models.feature_extraction import create_feature_extractor

from lightleak import compat  # noqa: F401
from lightleak.surgery import (
    SurgeryError,
    find_joins,
    find_skips,
    recipe,
    remove_skips,
    replay,
    scale_skips,
    without_inplace,
)
from surgery_oracle import rescaled
from test_surgery_random import Dense, Net, conv
from test_surgery_random import Residual as RandomResidual

EXAMPLE = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
SMALL = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return resnet18(num_classes=5).eval()


@pytest.fixture(scope="module")
def densenet():
    torch.manual_seed(0)
    return densenet121(num_classes=5).eval()


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=32, drop_path_rate=0.2).eval()


def count(model):
    return sum(p.numel() for p in model.parameters())


def ghosts(model, example=EXAMPLE):
    """The parameters that a training step leaves without a gradient."""
    model.zero_grad()
    model.train()(example).logsumexp(1).sum().backward()
    return [name for name, p in model.named_parameters() if p.grad is None]


# finding


def test_skips_of_resnet18(resnet):
    skips = find_skips(resnet, EXAMPLE)
    assert [(s.name, s.kind, s.stage, s.channels, s.resolution) for s in skips[::2]] == [
        ("layer1.0.add", "add", 1, 64, (16, 16)),
        ("layer2.0.add", "add", 2, 128, (8, 8)),
        ("layer3.0.add", "add", 3, 256, (4, 4)),
        ("layer4.0.add", "add", 4, 512, (2, 2)),
    ]
    assert [bool(s.projection) for s in skips] == [False, False, True, False, True, False, True, False]
    assert skips[2].projection == ("layer2.0.downsample.0", "layer2.0.downsample.1")
    assert all(s.shortcut == (1,) and s.owner == s.name[:-4] for s in skips)


def test_skips_of_densenet121_are_all_older_maps(densenet):
    skips = find_skips(densenet, EXAMPLE)
    assert [sum(s.stage == stage for s in skips) for stage in (1, 2, 3, 4)] == [6, 12, 24, 16]
    assert {s.kind for s in skips} == {"cat"}
    assert all(s.shortcut == tuple(range(s.operands - 1)) for s in skips)
    assert skips[-1].channels == 1024


def test_an_isotropic_network_is_cut_into_quarters(vit):
    skips = find_skips(vit, SMALL)
    assert [sum(s.stage == stage for s in skips) for stage in (1, 2, 3, 4)] == [6, 6, 6, 6]
    assert [s.name for s in skips[:3]] == ["blocks.0.add", "blocks.0.add_2", "blocks.1.add"]
    assert skips[0].around == ("blocks.0.norm1", "blocks.0.attn")


def test_reparameterisation_and_arithmetic_are_told_apart():
    joins = find_joins(timm.create_model("repvgg_a0", num_classes=5), EXAMPLE)
    assert {join.reason for join in joins} == {"", "parallel branches, both 1 layer deep"}
    assert [sum(j.stage == stage for j in joins) for stage in (1, 2, 3, 4)] == [1, 3, 13, 0]
    grn = [j for j in find_joins(timm.create_model("convnextv2_atto", num_classes=5), EXAMPLE) if not j.is_skip]
    assert len(grn) == 12
    assert {j.reason for j in grn} == {"arithmetic within a module, around no layer"}


def test_finding_leaves_the_model_alone(resnet):
    before = {key: value.clone() for key, value in resnet.state_dict().items()}
    state, mode = torch.get_rng_state(), resnet.layer3.training
    names = [sorted(vars(module)) for module in resnet.modules()]
    remove_skips(resnet, "all", EXAMPLE)
    assert all(torch.equal(value, before[key]) for key, value in resnet.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert resnet.layer3.training is mode
    assert [sorted(vars(module)) for module in resnet.modules()] == names
    assert all(p.requires_grad and p.grad is None for p in resnet.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in resnet.modules())


def test_the_example_comes_from_the_declared_size(resnet):
    assert [s.name for s in find_skips(resnet)] == [s.name for s in find_skips(resnet, EXAMPLE[:1])]


# cutting sums


@pytest.mark.parametrize("factor", [0.0, 0.2, 1.0])
def test_a_cut_resnet_equals_the_rescaled_one(resnet, factor):
    joins = find_joins(resnet, EXAMPLE)
    cut = scale_skips(resnet, factor, "last", EXAMPLE).eval()
    expected, counted = rescaled(resnet, EXAMPLE, joins[-2:], factor)
    assert counted == len(joins)
    torch.testing.assert_close(cut(EXAMPLE), expected, rtol=1e-5, atol=1e-6)
    assert ghosts(cut) == []


def test_removing_drops_the_projection_and_its_parameters(resnet):
    """The counts of RoLSS without the dead projection, for 530 classes."""
    cut = remove_skips(resnet, "last", EXAMPLE)
    assert count(resnet) - count(cut) == 132_096
    assert not any("layer4.0.downsample" in key for key in cut.state_dict())
    kept = remove_skips(resnet, "last", EXAMPLE, keep_keys=True)
    kept.load_state_dict(resnet.state_dict())
    torch.testing.assert_close(kept.eval()(EXAMPLE), cut.eval()(EXAMPLE))
    assert all("layer4.0.downsample" in name for name in ghosts(kept))


def test_a_complete_cut_silences_the_image(resnet):
    """With the last layer of a block zeroed, only a shortcut could still carry the image."""
    for where, silent in ((None, False), ("layer4.1.add", True)):
        model = copy.deepcopy(resnet) if where is None else remove_skips(resnet, where, EXAMPLE).eval()
        nn.init.zeros_(model.layer4[1].bn2.weight)
        spread = (model(EXAMPLE) - model(EXAMPLE.flip(2))).abs().max()
        assert bool(spread == 0) is silent


def test_scaling_is_linear_in_the_shortcut(resnet):
    """d(out)/d(k) just before the classifier's last block is the shortcut itself."""
    block = resnet.layer4[1]
    inside = torch.rand(2, 512, 2, 2)
    cut = scale_skips(resnet, 0.25, "layer4.1.add", EXAMPLE).eval().layer4[1]
    branch = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(inside)))))
    torch.testing.assert_close(cut(inside), torch.relu(branch + 0.25 * inside))


def test_stochastic_depth_of_a_cut_branch_is_gone(vit):
    cut = remove_skips(vit, "blocks.11.add_2", SMALL)
    tokens = torch.rand(64, 5, 192)
    for model, steady in ((cut, True), (vit, False)):
        block = copy.deepcopy(model.blocks[11]).train()
        block.drop_path1.drop_prob = 0.0
        assert torch.equal(block(tokens), block(tokens)) is steady


# cutting concatenations

COUNTS = {  # parameters for 530 classes: whole, without the skips of stage 1, 2, 3, 4, and stage 4 at 0.01
    "densenet121": (7_497_106, 6_851_442, 5_674_066, 3_857_874, 5_534_162, 5_546_572),
    "densenet161": (27_642_770, 25_898_330, 22_281_362, 11_907_506, 19_425_842, 19_480_776),
    "densenet169": (13_366_930, 12_590_450, 10_983_250, 6_651_858, 7_985_106, 8_012_478),
    "densenet201": (19_111_058, 18_189_426, 16_105_298, 7_312_338, 12_561_362, 12_602_420),
}


@pytest.mark.parametrize("name", ["densenet121", *(pytest.param(n, marks=pytest.mark.slow) for n in list(COUNTS)[1:])])
def test_densenet_parameter_counts(name):
    model = get_model(name, weights=None, num_classes=530)
    cut = [remove_skips(model, stage, SMALL) for stage in (1, 2, 3, 4)]
    cut.append(scale_skips(model, 0.01, "last", SMALL))
    assert (count(model), *map(count, cut)) == COUNTS[name]


def test_ssf_parameter_counts_of_densenet121():
    model = densenet121(num_classes=530)
    assert count(scale_skips(model, 0.2, 4, SMALL)) == 5_917_106
    assert count(scale_skips(model, 0.5, 4, SMALL)) == 6_515_634


@pytest.mark.parametrize(
    ("name", "whole", "cut"),
    [
        ("resnet18", 11_448_402, 11_316_306),
        ("resnet34", 21_556_562, 21_424_466),
        ("resnet50", 24_594_002, 22_492_754),
        pytest.param("resnet101", 43_586_130, 41_484_882, marks=pytest.mark.slow),
        pytest.param("resnet152", 59_229_778, 57_128_530, marks=pytest.mark.slow),
        ("mobilenet_v2", 2_902_802, 2_902_802),
        ("efficientnet_b0", 4_686_478, 4_686_478),
    ],
)
def test_parameter_counts_of_additive_networks(name, whole, cut):
    model = get_model(name, weights=None, num_classes=530)
    assert (count(model), count(remove_skips(model, "last", SMALL))) == (whole, cut)


@pytest.mark.parametrize("factor", [0.0, 0.3])
def test_a_trained_densenet_keeps_the_right_columns(densenet, factor):
    joins = find_joins(densenet, EXAMPLE)
    last = [join for join in joins if join.stage == 4]
    cut = scale_skips(densenet, factor, "last", EXAMPLE).eval()
    expected, _ = rescaled(densenet, EXAMPLE, last, factor)
    torch.testing.assert_close(cut(EXAMPLE), expected, rtol=1e-4, atol=1e-5)
    assert ghosts(cut) == []
    for module in cut.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.shape[:2] == (module.out_channels, module.in_channels // module.groups)
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean.shape == (module.num_features,)


def test_a_cut_densenet_follows_the_published_block():
    """Koh et al.: after each layer, the map before the newest is cut to its first round(k * C) channels."""
    torch.manual_seed(0)
    model = densenet121(num_classes=5).eval()
    cut = scale_skips(model, 0.3, 4, SMALL).eval()
    x = torch.rand(2, 512, 2, 2)
    maps = [x]
    with torch.no_grad():
        for layer in cut.features.denseblock4.values():
            joined = torch.cat(maps, 1)
            new = layer.conv2(layer.relu2(layer.norm2(layer.conv1(layer.relu1(layer.norm1(joined))))))
            maps[-1] = maps[-1][:, : round(0.3 * maps[-1].shape[1])]
            maps.append(new)
        torch.testing.assert_close(cut.features.denseblock4(x), torch.cat(maps, 1))


# choosing


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("last", ["layer4.0.add", "layer4.1.add"]),
        (2, ["layer2.0.add", "layer2.1.add"]),
        ([1, "last"], ["layer1.0.add", "layer1.1.add", "layer4.0.add", "layer4.1.add"]),
        ("3[0.9:]", ["layer3.1.add"]),
        (["3[0.5:]", 4], ["layer3.1.add", "layer4.0.add", "layer4.1.add"]),
        ("layer?.0.*", [f"layer{i}.0.add" for i in (1, 2, 3, 4)]),
    ],
)
def test_where(resnet, where, names):
    assert [skip[0] for skip in recipe(remove_skips(resnet, where, EXAMPLE))[0]["skips"]] == names


def test_patterns_meet_what_a_skip_goes_around(vit):
    for pattern, end in (("*.attn", "add"), ("*attention*", "add"), ("*mlp*", "add_2")):
        names = [skip[0] for skip in recipe(scale_skips(vit, 0.5, pattern, SMALL))[0]["skips"]]
        assert names == [f"blocks.{i}.{end}" for i in range(12)]


# what stays as it was


@pytest.mark.filterwarnings("ignore:NOTE:UserWarning")  # of the feature extractor, on any model with dropout
def test_class_methods_and_names_stay(vit):
    cut = scale_skips(vit, 0.5, "all", SMALL)
    assert type(cut) is type(vit)
    assert all(isinstance(mine, type(its)) for mine, its in zip(cut.blocks, vit.blocks))
    assert list(cut.state_dict()) == list(vit.state_dict())
    assert cut.forward_features(SMALL).shape == vit.forward_features(SMALL).shape
    assert not torch.allclose(cut.eval().forward_features(SMALL), vit.eval().forward_features(SMALL))
    cut.reset_classifier(7)
    assert cut(SMALL).shape == (2, 7)
    assert not [n for n in create_feature_extractor(cut, ["blocks.3"])(SMALL) if n != "blocks.3"]


def test_a_cut_densenet_can_get_another_head():
    cut = remove_skips(timm.create_model("densenet121", num_classes=5), "last", SMALL)
    cut.reset_classifier(3)
    assert cut(SMALL).shape == (2, 3)


def test_both_modes_and_other_batches(vit):
    same = scale_skips(vit, 1.0, "all", SMALL)
    for training in (True, False):
        torch.manual_seed(0)
        expected = vit.train(training)(SMALL.repeat(3, 1, 1, 1))
        torch.manual_seed(0)
        assert torch.equal(same.train(training)(SMALL.repeat(3, 1, 1, 1)), expected)
    vit.eval()
    assert not torch.equal(same.train()(SMALL), same.train()(SMALL))


def test_copies_and_files(resnet, tmp_path):
    from safetensors.torch import load_model, save_model

    cut = scale_skips(resnet, 0.5, "last", EXAMPLE).eval()
    for twin in (copy.deepcopy(cut), pickle.loads(pickle.dumps(cut))):
        assert torch.equal(twin(EXAMPLE), cut(EXAMPLE))
        assert recipe(twin) == recipe(cut)
    save_model(cut, str(tmp_path / "cut.safetensors"))
    torch.manual_seed(1)
    other = scale_skips(resnet18(num_classes=5), 0.5, "last", EXAMPLE).eval()
    load_model(other, str(tmp_path / "cut.safetensors"))
    assert torch.equal(other(EXAMPLE), cut(EXAMPLE))


def test_hooks_autocast_channels_last_and_doubles(resnet):
    cut = remove_skips(resnet, "all", EXAMPLE).eval()
    expected, seen = cut(EXAMPLE), []
    handle = cut.layer4[1].register_forward_hook(lambda *each: seen.append(each[-1].shape))
    last = cut.to(memory_format=torch.channels_last)(EXAMPLE.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, expected, rtol=1e-4, atol=1e-5)
    handle.remove()
    assert seen == [(2, 512, 2, 2)]
    with torch.autocast("cpu", torch.bfloat16):
        assert cut(EXAMPLE).dtype == torch.bfloat16
    assert cut.double()(EXAMPLE.double()).dtype == torch.float64


def test_a_cut_model_compiles_without_a_break():
    model = Net([conv(3, 4), RandomResidual(Dense(4, 2, 2), nn.Conv2d(4, 8, 1), "in place")], 8).eval()
    cut = scale_skips(model, 0.5, "all", SMALL).eval()
    compiled = torch.compile(cut, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(SMALL), cut(SMALL))


def test_distributed_training_finds_every_parameter_used(resnet, tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        shared = nn.parallel.DistributedDataParallel(remove_skips(resnet, "all", SMALL))
        for _ in range(2):  # the second step complains of parameters that the first left unused
            shared(SMALL).sum().backward()
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("name", ["resnet18", pytest.param("densenet121", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore")  # of opacus
def test_private_training(name):
    opacus = pytest.importorskip("opacus")
    plain = get_model(name, weights=None, num_classes=4, norm_layer=nn.Identity) if name == "resnet18" else None
    model = plain or opacus.validators.ModuleValidator.fix(get_model(name, weights=None, num_classes=4))
    for net in (without_inplace(model, SMALL), without_inplace(remove_skips(model, "last", SMALL), SMALL)):
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        data = torch.utils.data.TensorDataset(SMALL, torch.tensor([0, 1]))
        loader = torch.utils.data.DataLoader(data, batch_size=2)
        private, optimizer, loader = opacus.PrivacyEngine().make_private(
            module=net.train(),
            optimizer=optimizer,
            data_loader=loader,
            noise_multiplier=1.0,
            max_grad_norm=1.0,
            poisson_sampling=False,
        )
        nn.functional.cross_entropy(private(SMALL), torch.tensor([0, 1])).backward()
        assert all(p.grad_sample is not None for p in private.parameters())
        optimizer.step()


def test_without_inplace_is_the_same_function(densenet):
    plain = without_inplace(densenet, SMALL)
    assert torch.equal(plain.eval()(SMALL), densenet.eval()(SMALL))
    assert not any(getattr(module, "inplace", False) for module in plain.modules())
    assert find_skips(plain, SMALL) == find_skips(densenet, SMALL)


# recipes


def test_a_recipe_is_json_and_rebuilds(densenet):
    cut = scale_skips(remove_skips(densenet, 3, SMALL), 0.5, "last", SMALL)
    steps = json.loads(json.dumps(recipe(cut)))
    assert [(step["surgery"], step["factor"]) for step in steps] == [("remove", 0.0), ("scale", 0.5)]
    again = replay(densenet, steps, SMALL)
    assert recipe(again) == recipe(cut)
    assert torch.equal(again.eval()(SMALL), cut.eval()(SMALL))
    assert recipe(densenet) == []
    assert replay(densenet, [], SMALL) is densenet


def test_a_recipe_of_another_network_is_refused(resnet):
    steps = recipe(remove_skips(resnet, "last", EXAMPLE))
    with pytest.raises(SurgeryError, match=r"belongs to another network: ResNet has no skip 'layer4.0.add'"):
        replay(get_model("resnet50", weights=None), steps, EXAMPLE)
    with pytest.raises(SurgeryError, match=r"surgery 'solder' that this version does not know"):
        replay(resnet, [{"surgery": "solder"}], EXAMPLE)
    with pytest.raises(SurgeryError, match="damaged"):
        replay(resnet, [{"surgery": "remove"}], EXAMPLE)


# refusals


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (5, "ResNet has no skip '5'; ResNet has skips in stages 1 (2), 2 (2), 3 (2), 4 (2)"),
        ("layer5.*", "named from 'layer1.0.add' to 'layer4.1.add'"),
        ("3[1.0:]", "no skip '3[1.0:]'"),
        ([], "no skips were named"),
        (None, "where must be"),
        (True, "where must be"),
        (2.5, "where must be"),
    ],
)
def test_bad_places(resnet, where, said):
    with pytest.raises(SurgeryError) as caught:
        remove_skips(resnet, where, EXAMPLE)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("factor", [-0.1, 1.1, float("nan")])
def test_bad_factors(resnet, factor):
    with pytest.raises(SurgeryError, match="between 0"):
        scale_skips(resnet, factor, "last", EXAMPLE)


def test_a_network_without_skips_says_so():
    with pytest.raises(SurgeryError, match="VGG has no skip connections"):
        remove_skips(get_model("vgg11", weights=None, num_classes=3), "last", SMALL)


@pytest.mark.parametrize("example", [torch.rand(3, 32, 32), torch.zeros(2, 3, 32, 32, dtype=torch.uint8)])
def test_bad_examples(resnet, example):
    with pytest.raises(SurgeryError, match="float images, N x 3 x H x W"):
        find_skips(resnet, example)


def test_an_example_of_a_wrong_size_is_named(vit):
    with pytest.raises(SurgeryError, match=r"VisionTransformer cannot run on images of 2 x 3 x 48 x 48"):
        find_skips(vit, torch.rand(2, 3, 48, 48))


def test_an_unknown_model_asks_for_an_example():
    with pytest.raises(SurgeryError, match="pass example="):
        find_skips(nn.Sequential(nn.Conv2d(3, 3, 1)))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return x + self.layer(x)


def test_scripted_and_compiled_models_are_named():
    with pytest.raises(SurgeryError, match="'0' is a scripted module"):
        remove_skips(nn.Sequential(torch.jit.script(Residual())), "all", SMALL)
    with pytest.raises(SurgeryError, match="cut the model first"):
        remove_skips(nn.Sequential(torch.compile(Residual())), "all", SMALL)


class Deciding(Residual):
    def forward(self, x):
        if x.mean() > 0:
            return x + self.layer(x)
        return self.layer(x)


def test_control_flow_on_values_is_refused_where_it_is_cut():
    model = nn.Sequential(Deciding(), Residual())
    with pytest.raises(SurgeryError, match="'0' decides on the values of a signal"):
        remove_skips(model, "all", SMALL)
    remove_skips(model, "1.add", SMALL)


class Sized(Residual):
    def forward(self, x, double: bool = False):
        b, c, h, w = x.shape
        y = self.layer(x).view(b, c, h * w).view(b, c, h, w)
        if h % 2:
            y = y * 2
        return x + (y * 2 if double else y)


def test_control_flow_on_sizes_goes_the_examples_way():
    model = nn.Sequential(Sized(), nn.ReLU())
    cut = scale_skips(model, 0.5, "all", SMALL)
    more = torch.rand(5, 3, 16, 20)
    torch.testing.assert_close(cut(more), torch.relu(0.5 * more + model[0].layer(more)))
    with pytest.raises(SurgeryError, match="argument 'double' was False"):
        cut[0](SMALL, double=True)


class Collecting(nn.Sequential):
    """Appends each of its maps to a list of its caller's, as VoVNet's blocks do."""

    def forward(self, x, maps):
        for layer in self:
            x = layer(x)
            maps.append(x)
        return torch.cat(maps, 1)


class Collected(nn.Module):
    def __init__(self, read: int):
        super().__init__()
        self.read = read
        self.collect = Collecting(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
        self.merge = nn.Conv2d(9, 3, 1)

    def forward(self, x):
        maps = [x]
        y = self.merge(self.collect(x, maps))
        return y + maps[self.read]


def test_a_list_that_a_module_appends_to():
    model = nn.Sequential(Collected(0), nn.ReLU())
    names = [skip.name for skip in find_skips(model, SMALL)]
    assert names == ["0.collect.cat", "0.add"]
    cut = scale_skips(model, 0.5, "0.add", SMALL)
    block = model[0]
    expected = torch.relu(block.merge(block.collect(SMALL, [SMALL])) + 0.5 * SMALL)
    torch.testing.assert_close(cut(SMALL), expected)
    for _ in range(2):  # the graph's own list does not grow
        assert cut(SMALL).shape == SMALL.shape
    with pytest.raises(SurgeryError, match="'0' reads what 'collect' appends to a list"):
        scale_skips(nn.Sequential(Collected(1), nn.ReLU()), 0.5, "0.add", SMALL)


def test_cutting_twice(resnet):
    once = remove_skips(resnet, "last", EXAMPLE)
    twice = remove_skips(once, "last", EXAMPLE)
    assert [s.name for s in find_skips(twice, EXAMPLE)] == [f"layer{i}.{j}.add" for i in (1, 2) for j in (0, 1)]
    assert len(recipe(twice)) == 2
    assert len(recipe(once)) == 1


def test_a_name_is_no_network():
    with pytest.raises(SurgeryError, match="expected a network"):
        find_skips("resnet18")  # pyright: ignore[reportArgumentType]
