"""Pictures divided by a list of those that a model was trained on."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightleak.data import load
from lightleak.data.listed import redivided, unmatched
from lightleak.errors import UserError

NAMES = ("anna", "ben", "zoë", "émile")


@pytest.fixture
def folder(tmp_path) -> Path:
    """Four people with eight pictures each, accents composed as Linux writes them."""
    draws = np.random.default_rng(0)
    for name in NAMES:
        (tmp_path / "people" / unicodedata.normalize("NFC", name)).mkdir(parents=True)
        for number in range(8):
            picture = Image.fromarray(draws.integers(0, 255, (16, 16, 3), dtype=np.uint8))
            picture.save(tmp_path / "people" / unicodedata.normalize("NFC", name) / f"{number}.png")
    return tmp_path / "people"


def listed(form: str = "NFC", suffix: str = "png", count: int = 4) -> list[str]:
    return [unicodedata.normalize(form, f"{name}/{number}.{suffix}") for name in NAMES for number in range(count)]


def divided(folder: Path, lines: list[str]):
    population = load(f"folder:{folder}", size=16, private="all")
    return redivided(population, f"folder:{folder}", tuple(lines))


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("before", ["", "people/", "/elsewhere/copy/of/people/", "{folder}/"])
def test_names_are_compared_however_accents_are_written(folder, form, before):
    lines = [before.format(folder=folder) + line for line in listed(form)]
    population = divided(folder, lines)
    assert len(population.train) == 16
    assert not any("listed training pictures" in note for note in population.notes)
    assert unmatched(f"folder:{folder}", tuple(lines), 16) == ()


def test_folders_written_as_macos_does_are_found_too(folder):
    for name in ("zoë", "émile"):
        (folder / unicodedata.normalize("NFC", name)).rename(folder / unicodedata.normalize("NFD", name))
    assert len(divided(folder, listed("NFC")).train) == 16


def test_listed_pictures_that_match_nothing_are_counted_and_named(folder):
    lines = [*listed(count=3), "anna/3.jpg", "nobody/1.png"]
    population = divided(folder, lines)
    (note,) = (note for note in population.notes if "listed training pictures" in note)
    assert f"2 of 14 listed training pictures are not among the readable ones below {folder}" in note
    assert "such as anna/3.jpg" in note
    assert unmatched(f"folder:{folder}", tuple(lines), 16) == ("anna/3.jpg", "nobody/1.png")
    (finding,) = (finding for finding in population.findings if finding.kind == "missing")
    assert finding.files == ("anna/3.jpg", "nobody/1.png")


def test_a_picture_that_cannot_be_read_matches_nothing(folder):
    (folder / "anna" / "0.png").write_bytes(b"nothing")
    assert unmatched(f"folder:{folder}", tuple(listed()), 16) == ("anna/0.png",)


def test_a_list_of_which_most_match_nothing_is_refused(folder):
    half = [*listed(count=2), *listed(suffix="jpg", count=2)]
    assert len(divided(folder, half).train) == 8
    with pytest.raises(UserError, match=r"9 of 17 listed training pictures are not among .*such as anna/0\.jpg; name"):
        divided(folder, [*half, "nobody/1.png"])


def test_what_the_old_division_lacked_is_said_no_more(folder):
    plain = load(f"folder:{folder}", size=16, private="all")
    lacking = [note for note in plain.notes if "no test image" in note]
    assert lacking  # else this shows nothing
    population = divided(folder, listed(count=1))
    assert not set(lacking) & set(population.notes)
    assert not set(lacking) & set(map(str, population.findings))
    untested = len(NAMES) - len(population.test.labels.unique())
    said = [note for note in population.notes if "held-out test picture" in note]
    assert said == ([f"{untested} of 4 people have no held-out test picture"] if untested else [])
