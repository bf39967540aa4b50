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
