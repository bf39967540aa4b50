"""Recognition and realism against closed forms, plain loops and other people's implementations."""

import math

import numpy
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightleak import compat  # noqa: F401  # before torchmetrics, which imports torchvision
from lightleak.errors import UserError
from lightleak.metrics import realism, recognition


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- recognition


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), classes=st.integers(2, 12), k=st.integers(1, 5))
def test_hits_agree_with_topk_where_nothing_ties(seed: int, classes: int, k: int) -> None:
    if k >= classes:
        return
    logits = torch.randn(20, classes, generator=rng(seed))
    labels = torch.randint(classes, (20,), generator=rng(seed + 1))
    expected = (logits.topk(k).indices == labels[:, None]).any(1)
    assert torch.equal(recognition.hits(logits, labels, k), expected)


def test_a_judge_that_cannot_tell_recognises_nobody() -> None:
    labels = torch.arange(6)
    assert not recognition.hits(torch.zeros(6, 6), labels, 5).any()
    broken = torch.eye(6)
    broken[2, 0] = math.nan
    broken[3, 3] = math.inf
    assert recognition.hits(broken, labels).tolist() == [True, True, False, False, True, True]


def test_accuracy_that_cannot_fail_is_an_error() -> None:
    with pytest.raises(UserError, match="@5 says nothing among 5 classes"):
        recognition.hits(torch.randn(3, 5), torch.arange(3), 5)
    with pytest.raises(UserError, match="from 0 to 4"):
        recognition.hits(torch.randn(3, 5), torch.tensor([0, 1, 5]))
    with pytest.raises(UserError, match="N x C"):
        recognition.hits(torch.randn(3, 5), torch.arange(4))


def test_class_means_weigh_people_not_images() -> None:
    values = torch.tensor([1.0, 0, 0, 0, 1])
    classes = torch.tensor([7, 2, 2, 2, 2])
    assert recognition.per_class(values, classes, torch.tensor([2, 7])).tolist() == [0.25, 1.0]
    assert recognition.per_class(values, classes, torch.tensor([3])).isnan().all()
    # One class's NaN stays its own.
    values[0] = math.nan
    assert recognition.per_class(values, classes, torch.tensor([2, 7]))[0] == 0.25


def test_nearest_agrees_with_a_double_loop() -> None:
    features, private = torch.randn(15, 8, generator=rng(1)), torch.randn(30, 8, generator=rng(2))
    classes, labels = torch.arange(15) % 4, torch.arange(30) % 3
    for squared in (True, False):
        got = recognition.nearest(features, classes, private, labels, squared)
        for value, feature, label in zip(got, features, classes):
            distances = [float((feature - p).double().norm()) for p, own in zip(private, labels) if own == label]
            if not distances:
                assert value.isnan()
                continue
            assert float(value) == pytest.approx(min(distances) ** (2 if squared else 1), rel=1e-5)


def test_a_stolen_image_lies_at_distance_zero() -> None:
    private = 1000 + torch.randn(5, 512, generator=rng())
    distance = recognition.nearest(private, torch.arange(5), private, torch.arange(5))
    assert (distance == 0).all()


# --- realism


def clouds(seed: int, real: int = 60, fake: int = 50, width: int = 6) -> tuple[Tensor, Tensor]:
    return torch.randn(real, width, generator=rng(seed)), 0.3 + 1.2 * torch.randn(fake, width, generator=rng(seed + 1))


@pytest.mark.parametrize(("real", "fake", "width"), [(60, 50, 6), (20, 200, 40), (30, 25, 64)])
def test_fid_agrees_with_scipy(real: int, fake: int, width: int) -> None:
    a, b = (x.double() for x in clouds(3, real, fake, width))
    first, second = numpy.cov(a.numpy().T), numpy.cov(b.numpy().T)
    # A ridge keeps sqrtm defined where there are fewer images than features.
    ridge = 1e-10 * numpy.eye(width)
    root = scipy.linalg.sqrtm((first + ridge) @ (second + ridge))
    expected = (a.mean(0) - b.mean(0)).square().sum().item() + numpy.trace(first + second - 2 * root).real
    assert realism.fid(a, b) == pytest.approx(expected, rel=2e-3 if min(real, fake) <= width else 1e-8)


def test_fid_agrees_with_torchmetrics() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Flat(nn.Module):
        num_features = 12

        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)

    a, b = torch.rand(80, 3, 2, 2, generator=rng(1)), torch.rand(70, 3, 2, 2, generator=rng(2)) ** 2
    metric = FrechetInceptionDistance(feature=Flat(), normalize=True, input_img_size=(3, 2, 2))
    metric.set_dtype(torch.float64).update(a.double(), real=True)
    metric.update(b.double(), real=False)
    assert realism.fid(a.flatten(1), b.flatten(1)) == pytest.approx(metric.compute().item(), rel=1e-5)


def test_fid_closed_forms() -> None:
    a = torch.randn(100, 5, generator=rng())
    assert realism.fid(a, a) == pytest.approx(0, abs=1e-9)
    assert realism.fid(a, a + 2) == pytest.approx(5 * 4, rel=1e-6)
    scaled = (a - a.mean(0)) * 3 + a.mean(0)  # N(m, S) against N(m, 9 S): tr(S + 9 S - 6 S)
    assert realism.fid(a, scaled) == pytest.approx(4 * float(a.double().var(0).sum()), rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_fid_is_symmetric_and_blind_to_rotations_and_order(seed: int) -> None:
    a, b = (x.double() for x in clouds(seed))
    value = realism.fid(a, b)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=rng(seed), dtype=torch.float64)).Q
    assert realism.fid(b, a) == pytest.approx(value, abs=1e-8)
    assert realism.fid(a @ turn, b @ turn) == pytest.approx(value, abs=1e-8)
    assert realism.fid(a.flip(0), b) == pytest.approx(value, abs=1e-8)


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_manifold_agrees_with_prdc(seed: int, k: int, capsys: pytest.CaptureFixture[str]) -> None:
    from prdc import compute_prdc

    a, b = clouds(seed)
    expected = compute_prdc(a.double().numpy(), b.double().numpy(), nearest_k=k)
    capsys.readouterr()
    got = realism.manifold(a, b, k)
    for name in ("precision", "recall", "density", "coverage"):
        assert getattr(got, name) == pytest.approx(expected[name], abs=1e-12), name


def test_published_manifold_agrees_with_a_double_loop() -> None:
    a, b = (x.double() for x in clouds(5))
    k = 3
    real_radius = [sorted(float((x - y).norm()) for y in a)[k] for x in a]
    fake_radius = [sorted(float((x - y).norm()) for y in b)[k] for x in b]
    table = [[float((x - y).norm()) for y in b] for x in a]
    precision = recall = inside = covered = 0
    for j in range(len(b)):
        i = min(range(len(a)), key=lambda i: table[i][j])
        precision += table[i][j] <= real_radius[i]
    for i in range(len(a)):
        j = min(range(len(b)), key=lambda j: table[i][j])
        recall += table[i][j] <= fake_radius[j]
        balls = sum(table[i][j] <= real_radius[i] for j in range(len(b)))
        inside += balls
        covered += balls > 0
    got = realism.manifold(a, b, k, published=True)
    assert got.precision == pytest.approx(precision / len(b))
    assert got.recall == pytest.approx(recall / len(a))
    assert got.density == pytest.approx(inside / k / len(a))
    assert got.coverage == pytest.approx(covered / len(a))


@pytest.mark.parametrize("published", [False, True])
def test_pieces_and_matrix_products_change_nothing(monkeypatch: pytest.MonkeyPatch, published: bool) -> None:
    """Ties, copies, points of a grid and numbers near the limits of float32 count as by differences, too."""
    a, b = clouds(11)
    copies = torch.cat([a[:5], b, a[:5]])
    sets = [(a, b), (a, copies), (1e3 + a, 1e3 + copies), (1e25 * a, 1e25 * b), (a.round(), b.round())]
    whole = [realism.manifold(*pair, published=published) for pair in sets]
    monkeypatch.setattr(realism, "PIECE", 7)
    assert [realism.manifold(*pair, published=published) for pair in sets] == whole
    monkeypatch.setattr(realism, "FEW_DIFFERENCES", 0)
    assert [realism.manifold(*pair, published=published) for pair in sets] == whole


def test_identical_and_far_sets() -> None:
    a, _ = clouds(0)
    same, far = realism.manifold(a, a), realism.manifold(a, a + 1e3)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    assert (far.precision, far.recall, far.density, far.coverage) == (0, 0, 0, 0)


@pytest.mark.parametrize("measure", [realism.fid, realism.manifold])
def test_realism_refuses_what_it_cannot_measure(measure) -> None:
    good = torch.randn(10, 4, generator=rng())
    with pytest.raises(UserError, match="give more images"):
        measure(good, good[:1])
    with pytest.raises(UserError, match="feature width"):
        measure(good, good[:, :3])
    with pytest.raises(UserError, match="not all finite"):
        measure(good, torch.where(good > 1, math.nan, good))


def test_fid_over_people_spreads_as_people_differ() -> None:
    """Of alike people the interval is narrow; where each has a place of its own it is wide. The value is the FID's."""
    rng = torch.Generator().manual_seed(0)
    labels, classes = torch.arange(12).repeat_interleave(20), torch.arange(12).repeat_interleave(4)
    widths = []
    for apart in (0.0, 3.0):
        places = apart * torch.randn(12, 5, generator=rng)
        real = places[labels] + torch.randn(240, 5, generator=rng)
        fake = places[classes] + torch.randn(48, 5, generator=rng)
        got = realism.fid_over_people(real, labels, fake, classes)
        assert got.value == realism.fid(real, fake)
        assert got.low is not None
        assert got.high is not None
        assert 0 <= got.low <= got.value <= got.high
        widths.append(got.high - got.low)
    assert widths[1] > 1.5 * widths[0]
    one = realism.fid_over_people(real, torch.zeros(240), fake, torch.zeros(48))
    assert (one.low, one.high) == (None, None)


def test_each_image_s_share_of_the_manifold_averages_to_it() -> None:
    rng = torch.Generator().manual_seed(1)
    real, fake = torch.randn(30, 4, generator=rng), torch.randn(18, 4, generator=rng)
    for published in (False, True):
        each = realism.by_image(real, fake, published=published)
        sizes = {"precision": 18, "recall": 30, "density": 30 if published else 18, "coverage": 30}
        assert {name: len(values) for name, values in each.items()} == sizes
        whole = realism.manifold(real, fake, published=published)
        for name, values in each.items():
            assert getattr(whole, name) == pytest.approx(float(values.mean()))
