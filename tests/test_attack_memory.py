"""What an attack holds in memory depends on its batch, not on how many attempts there are."""

import gc

import pytest
import torch

from conftest import tiny_classifier
from lightleak.attacks import PPA, Oracle, Reconstruction, reconstruction
from lightleak.attacks.reconstruction import PIECE, write
from lightleak.priors import GanPrior
from lightleak.priors.gan64 import Critic, Generator


def held() -> int:
    """Bytes of all tensors that are alive, memory that several share counted once."""
    sizes = {}
    for thing in gc.get_objects():
        if type(thing) is torch.Tensor:
            storage = thing.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


class Weighed(GanPrior):
    """A prior that weighs what is in memory now and then as it draws: to look at all objects takes a while."""

    def decode(self, latents, classes=None):
        images = super().decode(latents, classes)
        DRAWN.append(len(images))
        if len(DRAWN) % EVERY[0] == 0:
            PEAK.append(held())
        return images


EVERY = [4]  # so many draws
DRAWN: list[int] = []
PEAK: list[int] = []


def peak_of(attempts: int, folder) -> int:
    EVERY[0] = 4 if attempts <= 100 else 12
    DRAWN.clear()
    PEAK.clear()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        prior = Weighed(Generator(32, 2, 7), Critic(32, 2))
    attack = PPA(candidates=1000, attempts=attempts, keep=4, steps=1, views=1, batch=50)
    found = attack.run(
        Oracle(tiny_classifier()), prior, torch.tensor([0, 3]), torch.Generator().manual_seed(0), folder=folder
    )
    assert len(found) == 8
    return max(PEAK)


@pytest.mark.parametrize("on_disk", [False, True])
def test_1000_attempts_hold_no_more_than_100(on_disk, tmp_path):
    few, many = (peak_of(attempts, tmp_path / str(attempts) if on_disk else None) for attempts in (100, 1000))
    assert many < 1.05 * few


def test_a_reconstruction_is_written_and_read_in_pieces(tmp_path, monkeypatch):
    count = 3 * PIECE + 5
    pixels = torch.randint(256, (count, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rows = torch.arange(count)
    whole = Reconstruction(
        pixels, rows % 7, rows.float()[:, None], rows / count, queries=3, attempts=rows, asked=rows[:7]
    )
    path = write(tmp_path / "found.safetensors", [whole.at(rows[:300]), whole.at(rows[300:])])
    again = Reconstruction.load(path)
    assert again.pixels.dtype == torch.uint8
    for name in ("pixels", "classes", "latents", "confidence", "attempts"):
        assert torch.equal(getattr(again, name), getattr(whole, name)), name
    assert again.queries == 6
    # Floats are made of the asked rows alone, and bytes stay bytes.
    monkeypatch.setattr(reconstruction._Images, "__get__", lambda *_: pytest.fail("all images as floats"))
    assert torch.equal(again.floats(rows[5:9]), pixels[5:9].float() / 255)
    assert again.best(1).pixels.dtype == torch.uint8
    assert again.best(1).classes.tolist() == list(range(7))
