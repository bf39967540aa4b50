"""Surgery on networks that nobody designed: nested skips, projections, shared modules, in-place sums, cat and add."""

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from lightleak.surgery import find_joins, recipe, scale_skips
from surgery_oracle import rescaled


def conv(inside: int, outside: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, outside, 3, stride, 1), nn.BatchNorm2d(outside), nn.ReLU(inplace=True))


class Residual(nn.Module):
    def __init__(self, body: nn.Module, projection: nn.Module | None, style: str) -> None:
        super().__init__()
        self.body, self.projection, self.style = body, projection, style

    def forward(self, x):
        shortcut = x if self.projection is None else self.projection(x)
        y = self.body(x)
        if self.style == "in place":
            y += shortcut
            return torch.relu_(y)
        if self.style == "method":
            return torch.relu(y.add_(shortcut))
        return shortcut + y if self.style == "first" else torch.add(y, shortcut)


class Dense(nn.Module):
    def __init__(self, inside: int, growth: int, layers: int) -> None:
        super().__init__()
        widths = [inside + i * growth for i in range(layers)]
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.convs = nn.ModuleList(nn.Conv2d(width, growth, 3, padding=1) for width in widths)

    def forward(self, x):
        maps = [x]
        for norm, layer in zip(self.norms, self.convs):
            maps.append(layer(torch.relu(norm(torch.cat(maps, 1)))))
        return torch.cat(maps, dim=1)


class Net(nn.Module):
    def __init__(self, blocks: list[nn.Module], width: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.blocks(x).mean((2, 3)))


@st.composite
def bodies(draw, inside: int, depth: int):
    """A stretch of network, the channels it returns, its stride, and its additive and concatenative skips."""
    kind = draw(st.sampled_from(["plain", "dense", "residual", "chain"] if depth else ["plain", "dense"]))
    if kind == "plain":
        outside, stride = draw(st.sampled_from([inside, 4, 6])), draw(st.sampled_from([1, 2]))
        return conv(inside, outside, stride), outside, stride, (0, 0)
    if kind == "dense":
        growth, layers = draw(st.integers(1, 4)), draw(st.integers(1, 3))
        return Dense(inside, growth, layers), inside + growth * layers, 1, (0, layers)
    if kind == "chain":
        a, middle, s, (adds, cats) = draw(bodies(inside, depth - 1))
        b, outside, t, (more_adds, more_cats) = draw(bodies(middle, depth - 1))
        return nn.Sequential(a, b), outside, s * t, (adds + more_adds, cats + more_cats)
    body, outside, stride, (adds, cats) = draw(bodies(inside, depth - 1))
    body = nn.Sequential(body, conv(outside, outside)[:2])
    projection = None
    if stride > 1 or outside != inside or draw(st.booleans()):
        projection = nn.Conv2d(inside, outside, 1, stride)
        body.append(conv(outside, outside)[:2])  # the longer way, by two layers
    block = Residual(body, projection, draw(st.sampled_from(["first", "last", "in place", "method"])))
    if projection is None and draw(st.booleans()):  # the same module twice: its joins are found once
        return nn.Sequential(block, block), outside, stride, (adds + 1, cats)
    return block, outside, stride, (adds + 1, cats)


@st.composite
def networks(draw):
    width, adds, cats = 4, 0, 0
    blocks: list[nn.Module] = [conv(3, width)]
    for _ in range(draw(st.integers(1, 3))):
        block, width, _, (more_adds, more_cats) = draw(bodies(width, 2))
        blocks.append(block)
        adds, cats = adds + more_adds, cats + more_cats
    torch.manual_seed(draw(st.integers(0, 99)))
    net = Net([*blocks, conv(width, width)], width).double()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.5)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return net.eval(), adds, cats


EXAMPLE = torch.rand(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks(), st.sampled_from([0.0, 0.3, 0.5]), st.data())
def test_cut_networks_equal_rescaled_ones(made, factor, data):
    net, adds, cats = made
    joins = find_joins(net, EXAMPLE)
    skips = [join for join in joins if join.is_skip]
    assert [sum(skip.kind == kind for skip in skips) for kind in ("add", "cat")] == [adds, cats]
    if not skips:
        return
    some = data.draw(st.lists(st.sampled_from(skips), min_size=1, unique=True))
    cut = scale_skips(net, factor, some, EXAMPLE)
    expected, _ = rescaled(net, EXAMPLE, some, factor, recipe(cut)[0]["masked"])
    output = cut.eval()(EXAMPLE)
    torch.testing.assert_close(output, expected, rtol=1e-7, atol=1e-9)
    output.logsumexp(1).sum().backward()
    assert [name for name, p in cut.named_parameters() if p.grad is None] == []


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks())
def test_factor_one_is_the_same_function_in_both_modes(made):
    net, adds, cats = made
    if not adds + cats:
        return
    same = scale_skips(net, 1.0, "all", EXAMPLE)
    assert list(same.state_dict()) == list(net.state_dict())
    for training in (True, False):
        assert torch.equal(net.train(training)(EXAMPLE), same.train(training)(EXAMPLE))
    for mine, its in zip(net.state_dict().values(), same.state_dict().values()):
        assert torch.equal(mine, its)
