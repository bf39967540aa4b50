"""Seeds made of keys: what is on disk depends on these numbers, so they stay what they are."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from lightleak import randomness
from lightleak.attacks.draws import Rows
from lightleak.randomness import hashed, hashes, keyed, named, normals, own, spread, uniforms
from lightleak.training.loop import epoch_seed
from second_device import card


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ((0,), 8147104208329303767),
        ((0, 1, 2), 3384391416029321617),
        ((7, 3, -1), 1002217939535168233),
        ((2**62, 5), 6038964430192933198),
    ],
)
def test_hashes_of_integers(key, value):
    assert hashed(*key) == keyed(*key).initial_seed() == value


def test_the_hash_is_splitmix64():
    """Its first output from state 0, as Vigna's reference gives it, without the lowest bit."""
    assert hashed(0) == 0xE220A8397B1DCDAF >> 1


def test_arrays_are_hashed_entry_by_entry():
    table = np.array([[0, 1, 5], [2, 2, 9]], dtype=np.uint64)
    found = hashed(hashed(3, 4), *table)
    assert found.tolist() == [4932061573462275564, 325662571616193901, 407262483463488452]
    assert found.tolist() == [hashed(hashed(3, 4), *column) for column in table.T.tolist()]


def test_rows_keep_their_seeds():
    rows = Rows(5, torch.tensor([0, 4]), torch.tensor([1, 2]), step=3).repeated(2)
    assert rows.seeds() == [4914097564826198275, 8348129545751280452, 5373832414764155936, 6622511513042570103]


def test_perturbed_copies_keep_their_seeds():
    rows, number = Rows(5, torch.tensor([0, 4]), torch.tensor([1, 2]), step=3), torch.tensor([7, 0])
    expected = [hashed(5, 0, 1, 3, 7), hashed(5, 4, 2, 3, 0)]
    assert rows.keys(number).tolist() == expected
    again = rows.repeated(2).at(torch.tensor([1, 2]))
    assert again.keys(number, 1).tolist() == [hashed(6, 0, 1, 3, 7, 1), hashed(6, 4, 2, 3, 0, 0)]


def test_people_epochs_and_classes_keep_their_seeds():
    assert named("0", "private", 3).initial_seed() == named(0, "private", 3).initial_seed() == 54907024303250448
    assert named(1, "a", "cluster", 2).initial_seed() == 30824323824512105
    assert [epoch_seed(*key) for key in ((0, 0), (5, 7), (2**62, 3))] == [12345, 5067793, 4611686018427424006]
    assert spread(2, 7) == 2_000_013


def test_draws_inside_leave_the_users_generator_alone():
    before = torch.get_rng_state()
    with own(3):
        inside = torch.rand(2)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(inside, torch.rand(2, generator=torch.Generator().manual_seed(3)))


# Numbers as large as images

KEYS = hashes(5, torch.arange(64))
NEAR = torch.arange(64)  # keys that differ by one, or in one bit
SAMPLE = 9_999


def test_words_are_splitmix64s():
    """Uniform numbers are the highest 24 bits of each output from the key on, its sign turned, then the lowest 24."""
    steps = np.arange(40, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for key, drawn in zip(KEYS[:3].tolist(), uniforms(KEYS[:3], 8, 10)):
        words, values = hashed(np.uint64(key) + steps), (2**24 * drawn.flatten()).long()  # words lack their lowest bit
        assert (values[:40] ^ 2**23).tolist() == (words >> np.uint64(39)).tolist()
        assert (values[40:] >> 1).tolist() == (words & np.uint64(2**23 - 1)).tolist()


@pytest.mark.parametrize("keys", [KEYS, NEAR], ids=["hashed", "near"])
def test_normal_numbers_have_their_moments(keys):
    drawn = normals(keys, SAMPLE).double()
    count = drawn.numel()
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(float(drawn.pow(power).mean()) - moment) < 4 * (variance / count) ** 0.5
    assert kstest(drawn.flatten()[::16].numpy(), "norm").pvalue > 1e-3
    assert float(drawn.abs().max()) == pytest.approx(5, abs=0.7)


@pytest.mark.parametrize("keys", [KEYS, NEAR], ids=["hashed", "near"])
def test_uniform_numbers_are_even(keys):
    drawn = uniforms(keys, SAMPLE)
    assert float(drawn.min()) >= 0
    assert float(drawn.max()) < 1
    assert kstest(drawn.flatten()[::16].numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("keys", [KEYS, NEAR], ids=["hashed", "near"])
@pytest.mark.parametrize("power", [1, 2])
def test_neighbours_and_keys_have_nothing_in_common(keys, power):
    drawn = normals(keys, SAMPLE + 1).double().pow(power)
    drawn = (drawn - drawn.mean()) / drawn.std()
    half = drawn.shape[1] // 2
    pairs = {f"{lag} apart": (drawn[:, lag:], drawn[:, :-lag]) for lag in (1, 2, 3, 64, 224)}
    pairs |= {f"{lag} keys apart": (drawn[lag:], drawn[:-lag]) for lag in (1, 2, 16, 32)}
    pairs |= {"of one word": (drawn[:, :half], drawn[:, half:]), "of keys, shifted": (drawn[1:, 1:], drawn[:-1, :-1])}
    for name, (one, other) in pairs.items():
        assert abs(float((one * other).mean())) < 4 / one.numel() ** 0.5, name


def test_numbers_do_not_depend_on_the_batch(monkeypatch):
    """Nor on how many are drawn at a time; there may be an odd number of them, or none."""
    whole, even = normals(KEYS, 3, 5, 7), uniforms(KEYS, 3, 5, 7)
    assert whole.shape == even.shape == (64, 3, 5, 7)
    order = torch.randperm(64, generator=keyed(1))
    assert torch.equal(uniforms(KEYS[order], 3, 5, 7), even[order])
    assert torch.allclose(normals(KEYS[order], 3, 5, 7), whole[order], atol=1e-6)
    assert torch.allclose(normals(KEYS[9:10], 3, 5, 7)[0], whole[9], atol=1e-6)
    monkeypatch.setattr(randomness, "PIECE", (160, 160))
    assert torch.equal(uniforms(KEYS, 3, 5, 7), even)
    assert torch.allclose(normals(KEYS, 3, 5, 7), whole, atol=1e-6)
    assert normals(KEYS[:0], 3, 5).shape == (0, 3, 5)
    assert normals(KEYS, 0).shape == (64, 0)


def test_the_least_uniform_number_has_a_logarithm(monkeypatch):
    monkeypatch.setattr(randomness, "MIXERS", ())
    drawn = normals(torch.tensor([2**64 - randomness.STEP]), 2)  # a word of zeros
    assert drawn[0].tolist() == pytest.approx([(48 * np.log(2)) ** 0.5, 0])


def test_a_card_draws_the_same_numbers():
    expected, even = normals(KEYS, 3, 9, 9), uniforms(KEYS, 3, 9, 9)
    with card() as device:
        keys = KEYS.to(device)
        drawn, found = normals(keys, 3, 9, 9), uniforms(keys, 3, 9, 9)
        assert drawn.device == found.device == device
        assert torch.allclose(drawn.cpu(), expected, atol=1e-6)
        assert torch.equal(found.cpu(), even)
