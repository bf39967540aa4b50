"""An untrained network must be able to learn without its skips."""

import pytest
import timm
import torch
from torch import nn

from lightleak.surgery import remove_skips


def reach(model, size=64):
    """The gradient that reaches the pixels, and how much the output depends on them."""
    model = model.train()
    images = torch.rand(4, 3, size, size, requires_grad=True)
    out = model(images)
    (gradient,) = torch.autograd.grad(out.square().sum(), images)
    return float(gradient.abs().sum()), float(out.detach().std(0).max())


@pytest.mark.parametrize("name", ["resnet10t", "resnet18", "convnext_atto", "cait_xxs24_224"])
def test_a_cut_network_wakes_up(name):
    torch.manual_seed(0)
    options = {"img_size": 64} if name.startswith("cait") else {}
    model = timm.create_model(name, num_classes=5, **options)
    asleep = remove_skips(model, "last", torch.rand(2, 3, 64, 64), wake=False)
    awake = remove_skips(model, "last", torch.rand(2, 3, 64, 64))
    before, after = reach(asleep), reach(awake)
    assert after[0] > 1e-3
    assert after[0] > 100 * before[0]
    changed = [
        n for (n, a), b in zip(asleep.named_parameters(), awake.parameters(), strict=True) if not torch.equal(a, b)
    ]
    assert changed
    assert not [n for n in changed if n.endswith("bias")]


def small_rdnet():
    return timm.models.rdnet.RDNet(
        num_classes=4,
        num_init_features=16,
        growth_rates=(8, 8, 8),
        num_blocks_list=(2, 2, 2),
        block_type=("Block", "Block", "BlockESE"),
        is_downsample_block=(None, True, True),
    )


def losses(model, images, labels, steps=25, rate=2e-3):
    adam = torch.optim.Adam(model.train().parameters(), rate)
    found = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(images), labels)
        adam.zero_grad()
        loss.backward()
        adam.step()
        found.append(float(loss.detach()))
    return found


def test_what_is_appended_almost_silently_wakes_up():
    """RDNet scales each map that it appends by 1e-6: without the older maps nothing is left to hear."""
    torch.manual_seed(0)
    images, labels = torch.rand(24, 3, 32, 32), torch.arange(24) % 4
    images += labels[:, None, None, None] * 0.3
    model = small_rdnet()
    for where in ("last", "all"):
        asleep = remove_skips(model, where, images[:2], wake=False)
        awake = remove_skips(model, where, images[:2])
        slept, woke = losses(asleep, images, labels), losses(awake, images, labels)
        assert woke[-1] < 0.6 * woke[0]
        assert woke[-1] < 0.7 * slept[-1]


class Fixed(nn.Module):
    """Fixup and the like start a block's last convolution, or linear layer, at zero."""

    def __init__(self, last):
        super().__init__()
        self.first, self.last = nn.Conv2d(8, 8, 3, padding=1), last
        nn.init.zeros_(last.weight)

    def forward(self, x):
        return x + self.last(torch.relu(self.first(x)))


def test_whole_weights_that_start_at_zero_wake_up():
    torch.manual_seed(0)
    images, labels = torch.rand(24, 3, 16, 16), torch.arange(24) % 4
    images += labels[:, None, None, None] * 0.3
    blocks = [Fixed(nn.Conv2d(8, 8, 3, padding=1)), Fixed(nn.Conv2d(8, 8, 1))]
    model = nn.Sequential(nn.Conv2d(3, 8, 2, 2), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    state = torch.get_rng_state()
    awake = remove_skips(model, "all", images[:2])
    assert torch.equal(torch.get_rng_state(), state)
    assert awake[1].last.weight.std() > 0.05  # not all alike
    assert reach(remove_skips(model, "all", images[:2], wake=False), 16)[0] == 0
    assert reach(awake, 16)[0] > 1e-3
    found = losses(awake, images, labels, steps=60, rate=5e-3)
    assert found[-1] < 0.6 * found[0]


def test_the_given_model_and_trained_gains_are_left_alone():
    model = timm.create_model("resnet18", num_classes=5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    remove_skips(model, "last", torch.rand(2, 3, 64, 64))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, -1e-3, 1e-3)  # small, but not as they started
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    cut = remove_skips(model, "last", torch.rand(2, 3, 64, 64))
    assert all(torch.equal(kept[name], value) for name, value in cut.state_dict().items())


def test_a_removed_last_stage_learns():
    """What went wrong without it: the loss stays where guessing leaves it."""
    torch.manual_seed(0)
    images, labels = torch.rand(24, 3, 32, 32), torch.arange(24) % 4
    images += labels[:, None, None, None] * 0.3
    model = remove_skips(timm.create_model("resnet10t", num_classes=4), "last", images[:2]).train()
    adam = torch.optim.Adam(model.parameters(), 2e-3)
    losses = []
    for _ in range(25):
        loss = nn.functional.cross_entropy(model(images), labels)
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]
