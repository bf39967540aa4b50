"""Fusing parallel branches: the same function and the same input gradients, in plain convolutions."""

import copy
import json
import pickle

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg, RepVggBlock
from torch import Tensor, nn

from lightleak import compat  # noqa: F401
from lightleak.surgery import SurgeryError, recipe, remove_skips
from lightleak.surgery.fuse import fuse, fuse_again

# Trainable parameters before and after fusing, with 530 classes (RepVGG's published shapes).
REPVGG = {
    "a0": (8_506_898, 7_707_314),
    "a1": (13_490_194, 12_187_794),
    "a2": (27_548_370, 24_837_714),
    "b0": (15_215_890, 13_736_978),
    "b1": (56_451_986, 50_866_450),
    "b1g4": (39_003_026, 35_162_386),
    "b2": (87_818_706, 79_111_442),
    "b2g4": (60_554_706, 54_573_842),
    "b3": (121_881_618, 109_757_202),
    "b3g4": (82_621_458, 74_423_058),
    "d2se": (132_131_166, 119_183_902),
}


def trained(model: nn.Module, seed: int = 0) -> nn.Module:
    """As if it had been trained: batch norms that are no identity, in double precision and eval mode."""
    rng = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.copy_(torch.randn(module.num_features, generator=rng) / 4)
            module.running_var.copy_(0.5 + torch.rand(module.num_features, generator=rng))
            if module.affine:
                module.weight.data.copy_(0.5 + torch.rand(module.num_features, generator=rng))
                module.bias.data.copy_(torch.randn(module.num_features, generator=rng) / 4)
    return model.double().eval()


def outputs_and_input_gradients(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    images = images.clone().requires_grad_()
    outputs = model(images)
    weights = torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype).view(outputs.shape)
    return outputs.detach(), torch.autograd.grad((outputs * weights).sum(), images)[0]


def assert_same_function(one: nn.Module, two: nn.Module, images: Tensor) -> None:
    for a, b in zip(outputs_and_input_gradients(one, images), outputs_and_input_gradients(two, images)):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def images(size: int = 32, channels: int = 3) -> Tensor:
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def byob(*blocks: ByoBlockCfg, **options) -> nn.Module:
    return ByobNet(ByoModelCfg(blocks=blocks, stem_chs=8, **options), num_classes=5)


def narrow(kind: str) -> nn.Module:
    """timm's own RepVGG and MobileOne blocks, as narrow as the test's patience."""
    torch.manual_seed(0)
    groups = lambda channels, index: channels // 4 if index % 2 else 0  # noqa: E731
    squeeze = {"attn_layer": "se", "attn_kwargs": {"rd_ratio": 0.25, "rd_divisor": 1}}
    first = ByoBlockCfg("rep", d=1, c=8)
    one = [
        ByoBlockCfg(type="one", d=1, c=8, gs=1, block_kwargs={"num_conv_branches": 4}),
        ByoBlockCfg(type="one", d=1, c=16, gs=0, block_kwargs={"kernel_size": 1, "num_conv_branches": 4}),
    ]
    return {
        "repvgg": lambda: byob(first, ByoBlockCfg("rep", d=3, c=16), stem_type="rep"),
        "repvgg, groups": lambda: byob(first, ByoBlockCfg("rep", d=3, c=16, gs=groups), stem_type="rep"),
        "repvgg, squeeze-excite": lambda: byob(first, ByoBlockCfg("rep", d=3, c=16), stem_type="rep", **squeeze),
        "mobileone": lambda: byob(*one, stem_type="one"),
        "mobileone, squeeze-excite": lambda: byob(*one, stem_type="one", **squeeze),
    }[kind]()


KINDS = ["repvgg", "repvgg, groups", "repvgg, squeeze-excite", "mobileone", "mobileone, squeeze-excite"]


@pytest.mark.parametrize("kind", KINDS)
def test_it_does_to_timm_models_what_timm_does(kind: str) -> None:
    model = trained(narrow(kind))
    fused = fuse(model)
    reference = timm.models.reparameterize_model(copy.deepcopy(model))
    assert_same_function(model, fused, images())
    assert_same_function(reference, fused, images())
    for name, value in reference.state_dict().items():  # deployed weights are the same, by name too
        torch.testing.assert_close(fused.state_dict()[name], value, rtol=1e-9, atol=1e-10)
    assert len(fused.state_dict()) == len(reference.state_dict())


@pytest.mark.parametrize("name", ["repvgg_a0", pytest.param("mobileone_s0", marks=pytest.mark.slow)])
def test_whole_models_stay_themselves(name: str) -> None:
    model = trained(timm.create_model(name, num_classes=10))
    before = copy.deepcopy(model.state_dict())
    fused = fuse(model)
    assert_same_function(model, fused, images())
    assert type(fused) is type(model)
    assert torch.equal(fused.forward_head(fused.forward_features(images())), fused(images()))
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())


QUICK = ("a0", "b1g4", "d2se")


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in REPVGG])
def test_parameter_counts_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(f"repvgg_{name}", num_classes=530)
    assert (parameters(model), parameters(fuse(model))) == REPVGG[name]


class Parallel(nn.Module):
    """A block of the test's own: branches over one signal, added up, then a squeeze and an activation."""

    def __init__(self, branches: list[nn.Module], *, in_place: bool = False) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Sigmoid())
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        total = 0
        for branch in self.branches:
            if self.in_place:
                total += branch(x)
            else:
                total = branch(x) + total
        return torch.relu(total * self.gate(total))


def branch(channels: int, kernel: tuple[int, int], stride: int, dilation: int, groups: int, bias: bool) -> nn.Module:
    padding = tuple(dilation * (k - 1) // 2 for k in kernel)
    steps = nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups, bias)
    return nn.Sequential(steps, nn.BatchNorm2d(channels))


@st.composite
def blocks(draw: st.DrawFn) -> nn.Module:
    stride, dilation = draw(st.sampled_from([1, 2])), draw(st.sampled_from([1, 2]))
    size = st.sampled_from([1, 3, 5])
    branches = [
        branch(8, (draw(size), draw(size)), stride, dilation, draw(st.sampled_from([1, 2, 4, 8])), draw(st.booleans()))
        for _ in range(draw(st.integers(1, 4)))
    ]
    if stride == 1:
        still = [nn.BatchNorm2d(8), nn.BatchNorm2d(8, affine=False), nn.Identity(), nn.Dropout2d(0.2)]
        branches += draw(st.lists(st.sampled_from(still), max_size=3, unique_by=id))
    order = draw(st.permutations(range(len(branches))))
    return Parallel([branches[i] for i in order], in_place=draw(st.booleans()))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(blocks(), st.integers(0, 9))
def test_any_sum_of_parallel_branches_becomes_one_convolution(block: nn.Module, seed: int) -> None:
    model = trained(nn.Sequential(block, nn.Conv2d(8, 2, 1)), seed)
    try:
        fused = fuse(model)
    except SurgeryError:
        pytest.fail("found no sum")
    assert_same_function(model, fused, images(13, 8))
    assert [type(m) for m in fused.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)] == [nn.Conv2d] * 2


def test_a_batch_norm_after_the_sum_goes_in_too_and_one_before_it_stays() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.after, self.still = (nn.BatchNorm2d(4) for _ in range(3))
            self.wide, self.slim = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.before(x)
            return self.after(self.wide(x) + self.slim(x) + self.still(x)).relu()

    model = trained(Flat())
    fused = fuse(model)
    assert_same_function(model, fused, images(9, 4))
    assert {name for name, _ in fused.named_children()} == {"before", "reparam_conv"}


class Tricky(nn.Module):
    """Sums that look like parallel branches and are not."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.one, self.two = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.norm, self.relu = nn.BatchNorm2d(4), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        match self.kind:
            case "activation inside":
                return self.one(x) + self.two(self.relu(self.norm(x)))
            case "one after the other":
                return self.one(x) + self.two(self.one(x) + 1)
            case "weighted":
                return torch.add(self.one(x), self.two(x), alpha=2)
            case "a value overwritten that others read":
                y = self.one(x)
                z = y
                z += self.two(x)
                return y * self.relu(self.norm(x))
            case "an input overwritten in between":
                return self.one(x) + self.two(x) * self.relu(x)
            case "sizes that broadcast":
                return self.one(x)[:1] + self.two(x)
            case _:
                return self.norm(x)


TRICKY = [
    "activation inside",
    "one after the other",
    "weighted",
    "a value overwritten that others read",
    "an input overwritten in between",
    "sizes that broadcast",
    "no sum at all",
]


@pytest.mark.parametrize("kind", TRICKY)
def test_it_says_so_where_there_is_nothing_to_fuse(kind: str) -> None:
    with pytest.raises(SurgeryError, match="Tricky has no parallel convolution and batch norm branches"):
        fuse(trained(Tricky(kind)))


class Shifted(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).roll(1, -1)


class Activated(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).relu()


@pytest.mark.parametrize(
    "odd",
    [
        Shifted(4, 4, 3, padding=1),
        Activated(4),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.GELU(),
    ],
    ids=["shifted", "activated", "batch statistics", "reflecting", "activation"],
)
def test_layers_that_are_no_plain_convolution_are_left_alone(odd: nn.Module) -> None:
    with pytest.raises(SurgeryError):
        fuse(trained(Parallel([nn.Conv2d(4, 4, 3, padding=1), odd])))


def test_layers_that_somebody_watches_are_left_alone() -> None:
    seen = []
    model = trained(Parallel([nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)]))
    model.branches[0].register_forward_hook(lambda *_: seen.append(1))
    with pytest.raises(SurgeryError):
        fuse(model)


def test_a_shared_block_stays_shared_and_its_hooks_stay() -> None:
    block = Parallel([nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)])
    seen = []
    block.register_forward_hook(lambda *_: seen.append(1))
    model = trained(nn.Sequential(block, nn.Conv2d(4, 4, 1), block))
    fused = fuse(model)
    assert_same_function(model, fused, images(9, 4))
    assert fused[0] is fused[2]
    assert len(seen) == 4


def test_what_was_frozen_in_half_precision_or_in_train_mode_stays_so() -> None:
    model = trained(narrow("repvgg")).to(torch.bfloat16).train().requires_grad_(False)
    state = torch.get_rng_state()
    fused = fuse(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert fused.training
    assert model.training
    assert all(m.training for m in fused.modules())
    assert {p.dtype for p in fused.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in fused.parameters())


def test_drop_path_is_nothing_in_eval_mode() -> None:
    model = trained(timm.create_model("repvgg_a0", num_classes=3, drop_path_rate=0.3))
    assert_same_function(model, fuse(model), images(32))


def test_other_reparameterisations_are_found_without_knowing_them() -> None:
    model = trained(timm.create_model("repvit_m0_9", num_classes=3))
    fused = fuse(model)
    assert_same_function(model, fused, images(64))
    assert parameters(fused) < parameters(model)


def test_the_recipe_says_what_was_fused_and_fits_only_its_own_kind() -> None:
    model = trained(narrow("repvgg"))
    fused = fuse(model)
    (step,) = recipe(fused)
    assert step["surgery"] == "fuse"
    assert step["blocks"] == ["stem", "stages.0.0", "stages.1.0", "stages.1.1", "stages.1.2"]
    assert recipe(model) == []
    assert recipe(fuse_again(model, json.loads(json.dumps(step)))) == [step]
    with pytest.raises(SurgeryError, match="belongs to another network"):
        fuse_again(trained(narrow("mobileone")), step)
    with pytest.raises(SurgeryError, match="a fused model has none left"):
        fuse(fused)


def test_a_fused_model_can_be_copied_pickled_loaded_and_trained_on() -> None:
    model = trained(narrow("repvgg"))
    fused = fuse(model)
    for again in (copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))):
        assert torch.equal(again(images()), fused(images()))
    assert {type(m).__bases__[0] for m in fused.modules() if "reparam_conv" in dict(m.named_children())} == {
        RepVggBlock
    }
    fused.train()(images()).sum().backward()
    assert all(p.grad is not None for p in fused.parameters())


def test_surgery_before_fusing_is_kept() -> None:
    model = trained(narrow("repvgg"))
    cut = remove_skips(model, "last", images())  # the identity branches of the last stage that has them
    fused = fuse(cut)
    assert_same_function(cut, fused, images())
    assert [step["surgery"] for step in recipe(fused)] == ["remove", "fuse"]
