"""A signal that goes around layers is found however the code is written, or refused by name: never silently none.

The check is the network itself: with the layers of the branch silenced, what still moves with the image went around
them. After the cut nothing may.
"""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lightleak.surgery import SurgeryError, find_joins, find_skips, recipe, remove_skips, scale_skips

EXAMPLE = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A branch of two layers, met by its input in whatever way `join` says."""

    def __init__(self, join):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.f = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 8, 3, padding=1))
        self.gain = nn.Parameter(torch.ones(1, 8, 1, 1))
        self.fc = nn.LazyLinear(5)
        self.join = join

    def forward(self, x):
        x = self.stem(x)
        y = self.join(self, x)
        return self.fc(y.flatten(2).mean(2) if y.dim() > 3 else y.mean(1))


def made(join):
    torch.manual_seed(0)
    net = Net(join).double().eval()
    net(EXAMPLE.double())
    return net


def moves(net):
    """Whether anything of the image gets around the branch."""
    net = copy.deepcopy(net)
    for layer in net.f:
        for p in layer.parameters():
            nn.init.zeros_(p)
    out = net(torch.cat([EXAMPLE, EXAMPLE.flip(2)]).double())
    return bool((out[:2] - out[2:]).abs().max() > 1e-9)


def _in_place(s, x):
    y = s.f(x)
    y -= x
    return y


def _indices(s, x, name):
    index = torch.arange(8)
    if name == "scatter_add":
        index = index[None, :, None, None].expand(x.shape)
    return getattr(x, name)(1, index, s.f(x))


def _tokens(s, x):
    """x + f(x) in one call: tokens and a weight matrix."""
    y = s.f(x).flatten(2).transpose(1, 2).flatten(0, 1)
    x = x.flatten(2).transpose(1, 2).flatten(0, 1)
    return torch.addmm(x, y, torch.eye(8).to(x)).view(-1, 64, 8)


SUMS = {
    "x + f": lambda s, x: x + s.f(x),
    "f + x": lambda s, x: s.f(x) + x,
    "x - f": lambda s, x: x - s.f(x),
    "f - x": lambda s, x: s.f(x) - x,
    "-f + x": lambda s, x: -s.f(x) + x,
    "sum": lambda s, x: sum([x, s.f(x)]),
    "half each": lambda s, x: 0.5 * x + 0.5 * s.f(x),
    "x.sub": lambda s, x: x.sub(s.f(x)),
    "sub with alpha": lambda s, x: torch.sub(s.f(x), x, alpha=3),
    "subtract": lambda s, x: torch.subtract(x, s.f(x)),
    "rsub": lambda s, x: torch.rsub(s.f(x), x),
    "add with alpha": lambda s, x: torch.add(s.f(x), x, alpha=0.3),
    "add with alpha of the branch": lambda s, x: torch.add(x, s.f(x), alpha=0.3),
    "add by names": lambda s, x: torch.add(input=x, other=s.f(x)),
    "add_": lambda s, x: s.f(x).add_(x),
    "sub_": lambda s, x: s.f(x).sub_(x),
    "-=": _in_place,
    "stack and sum": lambda s, x: torch.stack([x, s.f(x)]).sum(0),
    "stack and mean": lambda s, x: torch.stack((s.f(x), x), 1).mean(1),
    "stack of three": lambda s, x: torch.stack([x, s.f(x), s.f(x).tanh()], dim=2).sum(2),
    "stack by names": lambda s, x: torch.stack(tensors=[x, s.f(x)], dim=-1).sum(-1),
    "stack and einsum": lambda s, x: torch.einsum("snchw,s->nchw", torch.stack([x, s.f(x)]), x.new_tensor([0.3, 0.7])),
    "cat of unsqueezed": lambda s, x: torch.cat([x[None], s.f(x)[None]]).sum(0),
    "cat of batches": lambda s, x: sum(torch.cat([x, s.f(x)]).chunk(2)),
    "lerp": lambda s, x: torch.lerp(x, s.f(x), 0.3),
    "lerp, method": lambda s, x: s.f(x).lerp(x, 0.3),
    "addcmul": lambda s, x: torch.addcmul(x, s.f(x), s.gain),
    "addcmul of the shortcut": lambda s, x: torch.addcmul(s.f(x), x, s.gain),
    "addcdiv": lambda s, x: torch.addcdiv(s.f(x), x, s.gain, value=0.5),
    "addmm": _tokens,
    "index_add": lambda s, x: _indices(s, x, "index_add"),
    "scatter_add": lambda s, x: _indices(s, x, "scatter_add"),
}
CONCATENATIONS = {
    "cat and split": lambda s, x: sum(torch.cat([x, s.f(x)], 1).split(8, 1)),
    "cat and a sum over the halves": lambda s, x: torch.cat([x, s.f(x)], 1).unflatten(1, (2, 8)).sum(1),
    "hstack": lambda s, x: sum(torch.hstack([s.f(x), x]).chunk(2, 1)),
}


def _written(s, x):
    y = s.f(x)
    y[:, :4] = x[:, :4]
    return y


STUCK = {
    "maximum": lambda s, x: torch.maximum(x, s.f(x)),
    "where": lambda s, x: torch.where(x > 0, x, s.f(x)),
    "logaddexp": lambda s, x: torch.logaddexp(x, s.f(x)),
    "hypot": lambda s, x: torch.hypot(x, s.f(x)),
    "aten": lambda s, x: torch.ops.aten.add(x, s.f(x)),
    "dstack": lambda s, x: torch.dstack([x, s.f(x)]),
    "written into": _written,
    "cat along the rows": lambda s, x: sum(torch.cat([x, s.f(x)], 2).chunk(2, 2)),
}


@pytest.mark.parametrize("name", [*SUMS, *CONCATENATIONS])
def test_every_spelling_of_a_skip_is_cut(name):
    net = made((SUMS | CONCATENATIONS)[name])
    (skip,) = find_skips(net, EXAMPLE)
    assert skip.kind == ("add" if name in SUMS else "cat")
    assert moves(net)
    cut = remove_skips(net, "all", EXAMPLE).eval()
    assert not moves(cut)
    assert torch.equal(scale_skips(net, 1.0, "all", EXAMPLE).eval()(EXAMPLE.double()), net(EXAMPLE.double()))
    cut(EXAMPLE.double()).logsumexp(1).sum().backward()
    assert cut.f[0].weight.grad.abs().max() > 0


@pytest.mark.parametrize("name", SUMS)
def test_a_scaled_shortcut_counts_that_much(name):
    """Every one of these is linear in the shortcut: half of it lies half way between all and nothing."""
    net = made(SUMS[name])
    images = EXAMPLE.double()
    whole, half, none = (scale_skips(net, factor, "all", EXAMPLE).eval()(images) for factor in (1.0, 0.5, 0.0))
    torch.testing.assert_close(half, (whole + none) / 2)
    assert not torch.allclose(whole, none)


@pytest.mark.parametrize("name", STUCK)
def test_what_cannot_be_cut_is_named(name):
    net = made(STUCK[name])
    assert moves(net)
    (join,) = [join for join in find_joins(net, EXAMPLE) if join.is_stuck]
    assert join.kind == "other"
    assert not join.is_skip
    with pytest.raises(SurgeryError, match=r"lets a signal around layers .* cannot cut; write it as a sum"):
        remove_skips(net, "all", EXAMPLE)


def test_named_skips_beside_one_that_cannot_be_cut():
    net = nn.Sequential(Part(lambda f, x: x + f(x)), Part(lambda f, x: torch.maximum(x, f(x))), nn.Flatten())
    for where in ("all", "last"):
        with pytest.raises(
            SurgeryError, match=r"'1.maximum' lets a signal around .*; name the skips that are to be cut"
        ):
            remove_skips(net, where, EXAMPLE)
    assert [name for name, *_ in recipe(remove_skips(net, "0.add", EXAMPLE))[0]["skips"]] == ["0.add"]


class Part(nn.Module):
    def __init__(self, join):
        super().__init__()
        self.f = nn.Conv2d(3, 3, 3, padding=1)
        self.join = join

    def forward(self, x):
        return self.join(self.f, x)


def test_a_product_is_listed_and_left():
    """Gates weigh a signal, as squeeze-excite does; they are no sums and are not cut."""
    for join in (lambda s, x: x * torch.sigmoid(s.f(x)), lambda s, x: x * (1 + s.f(x))):
        net = made(join)
        (listed,) = find_joins(net, EXAMPLE)
        assert listed.kind == "product"
        assert "one signal weighs the other" in listed.reason
        with pytest.raises(SurgeryError, match="no skip connections"):
            remove_skips(net, "all", EXAMPLE)


def test_a_difference_around_pooling_is_arithmetic():
    """PoolFormer's mixer takes its input away from the pooled one: that is no skip, the sum around it is one."""
    net = nn.Sequential(Part(lambda f, x: x + f(x)), nn.Flatten())
    net[0].f = Part(lambda pool, x: pool(x) - x)
    net[0].f.f = nn.AvgPool2d(3, 1, 1)
    assert [(join.name, join.is_skip) for join in find_joins(net, EXAMPLE)] == [("0.f.sub", False), ("0.add", True)]


# where autograd looks away


def _dark(context):
    def join(s, x):
        with context():
            y = s.f(x)
        return x + y

    return join


DARK = {
    "no_grad": _dark(torch.no_grad),
    "detach": lambda s, x: x + s.f(x.detach()).detach(),
    "data": lambda s, x: x.data + s.f(x),
}


@pytest.mark.parametrize("name", DARK)
def test_skips_are_seen_where_autograd_looks_away(name):
    net = made(DARK[name])
    assert len(find_skips(net, EXAMPLE)) == 1
    assert moves(net)
    cut = remove_skips(net, "all", EXAMPLE).eval()
    assert not moves(cut)
    same = scale_skips(net, 1.0, "all", EXAMPLE).eval()
    assert torch.equal(same(EXAMPLE.double()), net(EXAMPLE.double()))


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):  # noqa: ARG004
        return x.round()

    @staticmethod
    def backward(ctx, gradient):  # noqa: ARG004
        return gradient


@pytest.mark.parametrize(
    ("join", "said"),
    [
        (lambda s, x: x + checkpoint(s.f, x, use_reentrant=True), "'Net' that joins calls torch.utils.checkpoint"),
        (lambda s, x: checkpoint(lambda x: x + s.f(x), x, use_reentrant=True), "turn activation checkpointing off"),
        (lambda s, x: x + checkpoint(s.f, x, use_reentrant=False), "torch.utils.checkpoint, which no graph can hold"),
        (lambda s, x: x + Straight.apply(s.f(x)), "'Net' that joins calls Straight, which no graph can hold"),
    ],
)
def test_functions_of_ones_own_in_the_very_code_that_joins_are_named(join, said):
    net = made(join)
    assert len(find_skips(net, EXAMPLE)) == 1
    with pytest.raises(SurgeryError, match=said):
        remove_skips(net, "all", EXAMPLE)


class Stage(nn.Module):
    """Blocks behind a checkpoint, one with a projection."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.Sequential(Block(4, 4), Block(4, 8))
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(checkpoint(self.blocks, self.stem(x), use_reentrant=True).mean((2, 3)))


class Block(nn.Module):
    def __init__(self, inside, outside):
        super().__init__()
        self.f = nn.Sequential(nn.Conv2d(inside, outside, 3, padding=1), nn.ReLU(), nn.Conv2d(outside, outside, 1))
        self.project = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x):
        return self.project(x) + self.f(x)


def test_a_projection_behind_a_checkpoint_goes_with_its_skip():
    net = Stage()
    assert [skip.name for skip in find_skips(net, EXAMPLE)] == ["blocks.0.add", "blocks.1.add"]
    cut = remove_skips(net, "all", EXAMPLE)
    assert not [name for name, _ in cut.named_parameters() if "project" in name]
    cut(EXAMPLE.clone().requires_grad_()).sum().backward()
    assert all(p.grad is not None for p in cut.parameters())


def test_inference_mode_is_refused_by_name():
    net = nn.Sequential(Part(lambda f, x: x + torch.inference_mode()(f)(x)), nn.Flatten())
    with pytest.raises(SurgeryError, match=r"'0.f' runs in torch.inference_mode"):
        find_skips(net, EXAMPLE)


def test_a_signal_that_leaves_torch_is_refused_by_name():
    net = nn.Sequential(Part(lambda f, x: x + torch.from_numpy(f(x).detach().numpy() * 2)), nn.Flatten())
    with pytest.raises(SurgeryError, match=r"'0' takes a signal to NumPy"):
        find_skips(net, EXAMPLE)


def test_a_network_compiled_in_place_is_seen_as_it_was_written():
    net = made(SUMS["x + f"])
    net.compile(backend="eager")
    before = net(EXAMPLE.double())
    cut = remove_skips(net, "all", EXAMPLE).eval()
    assert not moves(cut)
    assert net._compiled_call_impl is not None
    torch.testing.assert_close(net(EXAMPLE.double()), before)


class Silent(nn.Module):
    """Two heads, of which only one answers, as in transformers' SiglipForImageClassification."""

    def __init__(self):
        super().__init__()
        self.body, self.head, self.fc = Part(lambda f, x: x + f(x)), Part(lambda f, x: x + f(x)), nn.LazyLinear(2)

    def forward(self, x):
        x = self.body(x)
        self.pooled = self.head(x)
        return self.fc(x.mean((2, 3)))


def test_a_skip_that_the_answer_does_not_depend_on_is_none():
    net = Silent().eval()
    net(EXAMPLE)
    assert [(join.name, join.is_skip) for join in find_joins(net, EXAMPLE)] == [("body.add", True), ("head.add", False)]
    cut = remove_skips(net, "last", EXAMPLE)
    assert not torch.allclose(cut(EXAMPLE), net(EXAMPLE))
    with pytest.raises(SurgeryError, match=r"no skip 'head.\*'"):
        remove_skips(net, "head.*", EXAMPLE)


def test_weights_that_are_turned_or_made_are_layers():
    """`x @ w.T` and standardised weights are layers as much as a module's own call."""

    class Turned(nn.Module):
        def __init__(self, way):
            super().__init__()
            self.w, self.way = nn.Parameter(torch.randn(8, 8)), way

        def forward(self, x):
            return x + self.way(x, self.w)

    for way in (
        lambda x, w: x @ w,
        lambda x, w: x @ w.T,
        lambda x, w: x @ w.t(),
        lambda x, w: torch.nn.functional.linear(x, w / w.norm()),
    ):
        net = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), Turned(way), nn.Linear(8, 2))
        assert [skip.name for skip in find_skips(net, EXAMPLE)] == ["2.add"]
