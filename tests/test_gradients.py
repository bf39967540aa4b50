"""The two terms of equation 2: exact against closed forms, against autograd, and on networks that were cut."""

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from lightleak.errors import UserError
from lightleak.metrics.gradients import GradientShare, gradient_shares, stage_shares
from lightleak.surgery import remove_skips, scale_skips


class Residual(nn.Module):
    """k z + A z, or k P z + B A z."""

    def __init__(self, size: int, *, project: bool = False, factor: float = 1.0) -> None:
        super().__init__()
        layers = [nn.Linear(size, size, bias=False) for _ in range(1 + project)]
        self.layer = nn.Sequential(*layers)
        self.projection = nn.Linear(size, size, bias=False) if project else nn.Identity()
        self.factor = factor

    def forward(self, z: Tensor) -> Tensor:
        return self.layer(z) + self.factor * self.projection(z)


def linear_net(*blocks: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), *blocks, nn.Linear(12, 3, bias=False)).double()


def images(count: int = 3, size: int = 2) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def logit(logits: Tensor, labels: Tensor) -> Tensor:
    return logits[:, 0].sum() + 0 * labels.sum()


def close(row: GradientShare, arriving: Tensor, shortcut: Tensor, block: Tensor) -> None:
    assert row.arriving == pytest.approx(arriving.norm().item())
    assert row.shortcut == pytest.approx(shortcut.norm().item())
    assert row.block == pytest.approx(block.norm().item())
    assert row.cosine == pytest.approx(torch.cosine_similarity(shortcut, block, dim=0).item())
    assert row.share == pytest.approx((shortcut.norm() / (shortcut.norm() + block.norm())).item())


@pytest.mark.parametrize("factor", [1.0, 0.2])
@pytest.mark.parametrize("project", [False, True])
def test_linear_residual_networks_have_the_closed_form(project: bool, factor: float) -> None:
    torch.manual_seed(0)
    first, second = (Residual(12, project=project, factor=factor) for _ in range(2))
    model = linear_net(first, second)
    one, two = gradient_shares(model, images(), loss=logit)
    gradient = model[3].weight[0].detach()
    for row, block in ((two, second), (one, first)):
        shortcut = factor * (gradient @ block.projection.weight.detach() if project else gradient)
        through = gradient
        for layer in reversed(block.layer):
            through = through @ layer.weight.detach()
        close(row, gradient, shortcut, through)
        gradient = shortcut + through
    assert (one.skip, two.skip) == ("1.add", "2.add")


def test_a_dense_block_has_the_closed_form() -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 2, 1, bias=False), nn.Conv2d(5, 4, 1, bias=False)
            self.head = nn.Linear(9, 2, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            maps = [x]
            for layer in (self.first, self.second):
                maps.append(layer(torch.cat(maps, 1)))
            return self.head(torch.cat(maps, 1).flatten(1))

    torch.manual_seed(0)
    model = Dense().double()
    one, two = gradient_shares(model, images(2, 1), loss=logit)
    whole = model.head.weight[0].detach()
    second = model.second.weight.detach()[:, :, 0, 0]
    close(two, whole, whole[:5], whole[5:] @ second)
    # Of the first join, only what the second layer read: the head reads the maps anew.
    inner = whole[5:] @ second
    close(one, inner, inner[:3], inner[3:] @ model.first.weight.detach()[:, :, 0, 0])


@pytest.mark.parametrize(
    "make",
    [
        lambda: torchvision.models.resnet18(num_classes=4),
        lambda: timm.create_model("test_vit", num_classes=4, img_size=32),
        lambda: torchvision.models.mobilenet_v2(num_classes=4, width_mult=0.25),
    ],
    ids=["resnet18", "vit", "mobilenet"],
)
def test_both_terms_add_up_to_the_whole_gradient(make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum of the terms at a block's input is autograd's own gradient there."""
    from lightleak.metrics import gradients

    torch.manual_seed(0)
    model = make().double().eval()
    picture = images(2, 32)
    sums: list[Tensor] = []
    real = gradients._terms

    def noting(skip, join, arriving):
        terms = real(skip, join, arriving)
        (fork,) = terms[0]
        sums.append(terms[0][fork] + terms[1][fork])
        return terms

    monkeypatch.setattr(gradients, "_terms", noting)
    rows = gradient_shares(model, picture, labels=torch.tensor([0, 3]))
    expected = whole_gradients_at_block_inputs(model, picture, torch.tensor([0, 3]), [row.skip for row in rows])
    assert len(sums) == len(expected) > 3
    for one, two in zip(sums, expected):
        torch.testing.assert_close(one.reshape(two.shape), two)


def whole_gradients_at_block_inputs(model: nn.Module, images: Tensor, labels: Tensor, skips: list[str]) -> list[Tensor]:
    """By hooks: the input of the module that owns the join; a transformer block's second join starts at its first."""
    inputs: dict[str, Tensor] = {}
    hooks = []
    for skip in skips:
        owner = skip.rsplit(".", 1)[0]
        block = model.get_submodule(owner)
        at = block.norm2 if skip.endswith("add_2") else block

        def keep(_module: nn.Module, args: tuple, skip: str = skip) -> None:
            inputs[skip] = args[0]

        hooks.append(at.register_forward_pre_hook(keep))
    loss = nn.functional.cross_entropy(model(images.clone().requires_grad_()), labels, reduction="sum")
    gradients = torch.autograd.grad(loss, [inputs[skip] for skip in skips])
    for hook in hooks:
        hook.remove()
    return list(gradients)


def test_before_and_after_surgery() -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=4).eval()
    picture = images(2, 32).float()
    full = gradient_shares(model, picture)
    weak = gradient_shares(scale_skips(model, 0.1, "last", picture), picture)
    cut = gradient_shares(remove_skips(model, "last", picture), picture)
    assert [row.stage for row in full] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert set(stage_shares(full)) == {1, 2, 3, 4}
    assert stage_shares(cut, like=full)[4] == 0
    assert 0 < stage_shares(weak, like=full)[4] < stage_shares(full)[4] < 1
    assert {row.skip for row in cut} == {row.skip for row in full if row.stage < 4}
    # A shortcut of a tenth is a tenth of the gradient that arrives, where nothing projects it.
    last = weak[-1]
    assert last.shortcut == pytest.approx(0.1 * last.arriving, rel=1e-5)


def test_it_leaves_the_model_alone_and_does_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=4).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state, picture = torch.get_rng_state(), images(4, 32).float()
    labels = torch.tensor([0, 1, 2, 3])
    together = gradient_shares(model, picture, labels)
    halves = [gradient_shares(model, picture[i : i + 2], labels[i : i + 2]) for i in (0, 2)]
    for whole, one, two in zip(together, *halves):
        assert whole.share == pytest.approx((one.share + two.share) / 2, rel=1e-4)
        assert whole.arriving == pytest.approx((one.arriving + two.arriving) / 2, rel=1e-4)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_networks_without_skips_have_no_rows_and_bad_input_gets_one_line() -> None:
    plain = linear_net(nn.Linear(12, 12))
    assert gradient_shares(plain, images()) == ()
    assert stage_shares(()) == {}
    with pytest.raises(UserError, match="one label for each of the 3 images"):
        gradient_shares(plain, images(), labels=torch.tensor([1, 2]))
    with pytest.raises(UserError, match="logits N x classes"):
        gradient_shares(nn.Conv2d(3, 3, 1).double(), images())


def test_densenet_has_a_row_for_each_concatenation() -> None:
    torch.manual_seed(0)
    model = torchvision.models.DenseNet(8, (2, 3), 16, num_classes=4)
    rows = gradient_shares(model, images(2, 32).float())
    assert len(rows) == 5
    assert all(0 < row.share < 1 for row in rows)
