"""Seeds made of keys: what is on disk depends on these numbers, so they stay what they are."""

import numpy as np
import pytest
import torch

from lightleak.attacks.draws import Rows
from lightleak.randomness import hashed, keyed, named, own, spread
from lightleak.training.loop import epoch_seed


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
    assert [own.initial_seed() for own in rows.generators(number)] == expected
    again = rows.repeated(2).at(torch.tensor([1, 2]))
    assert [own.initial_seed() for own in again.generators(number, 1)] == [
        hashed(6, 0, 1, 3, 7, 1),
        hashed(6, 4, 2, 3, 0, 0),
    ]


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
