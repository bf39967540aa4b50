"""VMI: golden values, densities by a second way, and a toy whose best distribution is known."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from conftest import tiny_classifier
from lightleak.attacks import VMI, Oracle, Reconstruction
from lightleak.attacks.distributions import Couplings, Normal, distribution_of, standard_log_density, tensors
from lightleak.errors import UserError
from lightleak.models.classifier import Classifier
from lightleak.priors import RenderedPrior
from lightleak.priors.prior import Prior


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_divergence_golden():
    q = Normal(torch.tensor([[0.5, -1.0]]), torch.tensor([[[0.8, 9.0], [0.3, 1.2]]]))  # above the diagonal: ignored
    factor = q.factor[0].tril()
    assert (factor @ factor.T).logdet().item() == pytest.approx(-0.081644, abs=1e-6)
    assert (factor @ factor.T).trace().item() == pytest.approx(2.17, abs=1e-6)
    divergence = q.divergence(torch.empty(0)).item()
    assert divergence == pytest.approx(0.750822, abs=1e-6)
    z, log_density = q.push(torch.randn(1, 20000, 2, generator=rng()))
    published = -(factor @ factor.T).logdet() / 2 + z.square().sum(2).mean() / 2
    assert published.item() == pytest.approx(1.750822, abs=0.05)  # half a dimension more for each
    assert (log_density - standard_log_density(z)).mean().item() == pytest.approx(divergence, abs=0.05)
    theirs = torch.distributions.MultivariateNormal(q.mean[0], scale_tril=factor)
    assert torch.allclose(log_density[0, :9], theirs.log_prob(z[0, :9]), atol=1e-4)


@pytest.mark.parametrize("family", ["flow", "normal"])
def test_draws_that_no_batch_holds_come_one_after_the_other(family):
    """To the same distribution, whose divergence counts once."""
    attack = VMI(family=family, attempts=2, steps=8, draws=5, couplings=2, width=8, rate=0.03, divergence=0.1)
    whole, *parts = (
        replace(attack, batch=batch).run(Oracle(tiny_classifier()), RenderedPrior(size=32), torch.arange(2), rng())
        for batch in (64, 3, 1)
    )
    for found in parts:
        for name, value in whole.per_class.items():
            assert torch.allclose(found.per_class[name], value, atol=1e-5), name
        assert found.queries == whole.queries


@pytest.fixture(scope="module")
def flow() -> Couplings:
    begun = tensors(Couplings.standard(2, 5, 3, 7))
    moved = {
        name: value + 0.3 * torch.randn(value.shape, generator=rng(place)) if value.is_floating_point() else value
        for place, (name, value) in enumerate(begun.items())
    }
    return Couplings(**moved)


def test_a_flow_knows_its_density(flow):
    """By the determinant of its Jacobian; all dimensions move."""
    noise = torch.randn(2, 1, 5, generator=rng(9))
    for row in range(2):
        alone = Couplings(**{name: value[[row]] for name, value in tensors(flow).items()})
        jacobian = torch.autograd.functional.jacobian(lambda x, q=alone: q.push(x[None, None])[0][0, 0], noise[row, 0])
        expected = standard_log_density(noise[row, 0]) - jacobian.det().abs().log()
        assert flow.push(noise)[1][row, 0].item() == pytest.approx(expected.item(), abs=1e-4)
    assert ((flow.push(noise)[0] - noise).abs() > 1e-3).all()


def test_where_it_starts_it_is_standard_normal():
    noise = torch.randn(3, 4000, 4, generator=rng())
    for q in (Normal.standard(3, 4), Couplings.standard(3, 4, 2, 8)):
        z, log_density = q.push(noise)
        assert torch.allclose(z.sort(2).values, noise.sort(2).values)
        assert torch.allclose(log_density, standard_log_density(z), atol=1e-5)
        assert torch.allclose(q.divergence(noise), torch.zeros(3), atol=1e-5)


@dataclass(frozen=True)
class Three(Prior):
    """The noise itself is one pixel's colours."""

    size: int = 1
    latents: int = 3

    def sample(self, count, rng):
        return torch.randn(count, 3, generator=rng)

    def decode(self, latents, classes=None):  # noqa: ARG002
        return latents[:, :, None, None]


class Bowl(nn.Module):
    """Logits a x - c / 2 |x|^2, for two tilts a."""

    tilts = torch.tensor([[1.0, -2.0, 0.0], [0.0, 2.0, 3.0]])

    def forward(self, x):
        x = x.flatten(1)
        return x @ self.tilts.T - 1.5 * x.square().sum(1, keepdim=True)


@pytest.mark.parametrize("family", ["normal", "flow"])
def test_the_best_distribution_in_closed_form(family, tmp_path):
    """Of -a x + c / 2 |x|^2 + w KL it is normal: mean a / (c + w), variance w / (c + w); here a / 4 and 1 / 4."""
    target = Classifier(Bowl(), size=1, classes=2, mean=(0.0,) * 3, std=(1.0,) * 3)
    attack = VMI(400, 300, 64, 0.02, 0.8, divergence=1.0, family=family, couplings=2, width=4, loss="logit", batch=800)
    found = attack.run(Oracle(target), Three(), torch.tensor([1, 0]), rng())
    found.save(tmp_path / "found.safetensors")
    q = distribution_of(Reconstruction.load(tmp_path / "found.safetensors").per_class)
    with torch.no_grad():
        z, _ = q.push(torch.randn(2, 4000, 3, generator=rng(1)))
    assert torch.allclose(z.mean(1), Bowl.tilts[[1, 0]] / 4, atol=0.06)
    assert torch.allclose(z.std(1), torch.full((2, 3), 0.5), atol=0.06)
    # What is returned was drawn of it.
    drawn = found.latents.unflatten(0, (2, -1))
    assert torch.allclose(drawn.mean(1), z.mean(1), atol=0.12)
    assert torch.allclose(drawn.std(1), z.std(1), atol=0.1)
    assert found.queries == 2 * (300 * 64 + 400)


def test_one_clear_line():
    for settings, message in (
        ({"family": "mixture"}, "no family 'mixture'; choose from flow, normal"),
        ({"draws": 0}, "draws, couplings, width and batch must be at least 1"),
        ({"rate": float("nan")}, "rate must be above 0"),
        ({"loss": "no"}, "no loss 'no'"),
    ):
        with pytest.raises(UserError, match=message):
            VMI(**settings)
    with pytest.raises(UserError, match="no distributions of VMI among curve"):
        distribution_of({"curve": torch.empty(1)})
