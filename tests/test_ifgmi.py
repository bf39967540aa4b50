"""IF-GMI: golden projections, and a toy generator of two blocks whose right answer is known."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from lightleak import priors
from lightleak.attacks import IFGMI, PPA, Oracle
from lightleak.attacks.ifgmi import in_ball
from lightleak.attacks.reconstruction import Reconstruction, merge
from lightleak.data.views import View
from lightleak.errors import UserError
from lightleak.models.classifier import Classifier
from lightleak.priors import RenderedPrior, StyleGAN2Prior
from lightleak.priors.prior import Prior, State
from lightleak.priors.stylegan2 import Generator
from lightleak.study.tasks import Invert, Rendered, TrainTarget, ready, source


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("moves", "radius", "projected"),
    [
        ((3, -1, 0.5, -2, 0.1), 3, (2, 0, 0, -1, 0)),
        ((0.5, 0.4, -0.3), 1, (0.433333, 0.333333, -0.233333)),
        ((0.5, 0.4, -0.3), 1.2, (0.5, 0.4, -0.3)),
    ],
)
def test_projection_golden(moves, radius, projected):
    far = torch.tensor([[100.0] + [0.0] * (len(moves) - 1)])
    got = in_ball(torch.cat([torch.tensor([moves]).float(), far]), radius)
    assert torch.allclose(got[0], torch.tensor(projected).float(), atol=1e-6)
    assert got[1, 0].item() == pytest.approx(radius, abs=1e-4)  # each row has a threshold of its own


def test_projection_agrees_with_sorting():
    """Duchi et al. (ICML 2008), figure 1, on maps."""
    moves = torch.randn(6, 2, 5, 7, generator=rng()) * torch.logspace(-2, 2, 6)[:, None, None, None]
    for radius in (0.5, 10.0, 1e4):
        got = in_ball(moves, radius)
        for one, ours in zip(moves.double(), got, strict=True):
            size = one.abs().flatten().sort(descending=True).values
            count = torch.arange(1, len(size) + 1)
            cut = (size.cumsum(0) - radius) / count
            threshold = max(0.0, float(cut[(size > cut).nonzero().amax()]) if size.sum() > radius else 0.0)
            theirs = one.sign() * (one.abs() - threshold).clamp(min=0)
            assert torch.allclose(ours.double(), theirs, atol=1e-5 * float(size[0]))


@dataclass(frozen=True)
class TwoBlocks(Prior):
    """One pixel: the first block passes the latent on as features and adds a colour, the second adds both to grey."""

    size: int = 1
    latents: int = 3
    blocks: int = 2
    colour: float = 0.05
    drawn: ClassVar[tuple[float, ...]] = (0.1, -0.1, 0.0)

    def sample(self, count, rng):  # noqa: ARG002
        return torch.tensor(self.drawn).expand(count, -1).clone()

    def decode(self, latents, classes=None):  # noqa: ARG002
        return self.finish(self.begin(latents, 0), latents, 0)

    def begin(self, latents, block):
        state = State(latents.new_zeros(len(latents), 1, 1, 1), None)
        return self.through(state, latents, 0) if block else state

    def through(self, state, latents, block):  # noqa: ARG002
        return State(latents[:, :, None, None], torch.full((len(latents), 3, 1, 1), self.colour))

    def finish(self, state, latents, block):
        features, image = state if block else self.through(state, latents, 0)
        return 0.5 + features + image + 0 * latents[:, :, None, None]


@pytest.mark.parametrize(("stages", "moved"), [((6,), 0.1), ((6, 0), 0.1), ((6, 4), 0.1 + 0.02)])
def test_a_straight_slope_ends_at_the_ball_in_closed_form(stages, moved):
    """Of a linear logit Adam moves all coordinates alike: each ends at a third of the radius, in both stages.

    In the second the features alone are in the image, with the colour of the first: both are kept.
    """
    head = nn.Linear(3, 2)
    target = Classifier(nn.Sequential(nn.Flatten(), head), size=1, classes=2, mean=(0.0,) * 3, std=(1.0,) * 3)
    attack = IFGMI(1, 1, stages, (0.3, 0.06)[: len(stages)], rate=0.05, loss="logit", view=View())
    found = attack.run(Oracle(target), TwoBlocks(), torch.tensor([1]), rng())
    with torch.no_grad():
        pixel = 0.5 + torch.tensor(TwoBlocks.drawn) + 0.05 + moved * head.weight[1].sign()
        confidence = head(pixel).softmax(0)[1]
    assert found.confidence.item() == pytest.approx(confidence.item(), abs=1e-5)
    assert torch.allclose(found.images.flatten(), pixel, atol=0.5 / 255 + 1e-5)
    assert not found.redrawn


@pytest.fixture(scope="module")
def stylegan() -> StyleGAN2Prior:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return StyleGAN2Prior(Generator(32, latents=6, styles=5, depth=2, base=128, widest=8), crop=20)


def test_blocks_one_after_the_other_are_the_whole(stylegan):
    latents = stylegan.sample(2, rng())
    state = stylegan.begin(latents, 0)
    for block in range(stylegan.blocks - 1):
        state = stylegan.through(state, latents, block)
        assert torch.equal(state.features, stylegan.begin(latents, block + 1).features)
        assert torch.equal(stylegan.finish(state, latents, block + 1), stylegan.decode(latents))


def test_stages_of_no_steps_change_no_image(stylegan, tiny_target):
    plain, staged = (
        IFGMI(10, 2, (2, *[0] * more), (1e3,) * (1 + more)).run(Oracle(tiny_target), stylegan, torch.tensor([1]), rng())
        for more in (0, 3)
    )
    assert torch.equal(plain.images, staged.images)
    assert torch.equal(plain.latents, staged.latents)


def test_one_clear_line(tiny_target, stylegan):
    with pytest.raises(UserError, match="each stage has steps and a radius"):
        IFGMI(stages=(5, 5), radii=(1.0,))
    with pytest.raises(UserError, match="radii and rate must be above 0"):
        IFGMI(stages=(5,), radii=(float("nan"),))
    with pytest.raises(UserError, match="1 <= attempts <= candidates"):
        IFGMI(candidates=10)
    oracle = Oracle(tiny_target)
    for prior, stages, message in ((RenderedPrior(32), 2, "RenderedPrior has none"), (stylegan, 5, "this prior has 4")):
        with pytest.raises(UserError, match=message):
            IFGMI(10, 1, (1,) * stages, (1.0,) * stages).run(oracle, prior, torch.tensor([0]), rng())
    assert oracle.queries == 0


def test_a_judge_sees_its_images_as_large_as_other_attacks(stylegan, tmp_path):
    """Nobody can draw them again, so they are kept as the prior drew them; stages of no steps change no image."""
    target = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2)), size=8, classes=2)
    attack = IFGMI(10, 2, (1, 0), (1e3, 1e3))
    found = attack.run(Oracle(target), stylegan, torch.tensor([1, 0]), rng(), folder=tmp_path / "parts")
    assert found.size == 8
    found.save(tmp_path / "found.safetensors")
    for one in (found, Reconstruction.load(tmp_path / "found.safetensors"), merge([found])):
        assert not one.redrawn
        first = one.best(1)
        seen = first.drawn_by(stylegan).floats(torch.arange(2))
        assert torch.allclose(seen, stylegan.decode(first.latents), atol=0.5 / 255 + 1e-5)
        assert one.drawn_by(None).floats(torch.arange(4)).shape[-1] == 8  # as the others, where there is no prior


def test_a_study_counts_the_images_that_no_latents_make_again(tmp_path):
    """Of 40 pixels a side where the target sees 32: nothing for a prior that draws no more than that."""
    stylegan = StyleGAN2Prior(Generator(64, latents=6, styles=5, depth=2, base=128, widest=8), crop=40)
    priors.save(stylegan, tmp_path)
    population = source("faces", people=3, images=4, size=32, public_people=2, public_images=2, judge_images=2)
    target = TrainTarget(population, "timm:resnet10t")
    brought, attack = ready(tmp_path), IFGMI(10, 2, (1, 0), (1e3, 1e3))
    plain = Invert(target, brought, PPA(attempts=2, keep=2), None).room
    found = attack.run(
        Oracle(Classifier(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3)), size=32, classes=3)),
        stylegan,
        torch.arange(3),
        rng(),
    )
    assert Invert(target, brought, attack, None).room - plain == found.large.numel()
    assert Invert(target, Rendered(population), attack, None).room == plain
