"""Pictures divided by a list of those that a model was trained on."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightleak import cli
from lightleak.data import load
from lightleak.data.listed import redivided, unmatched
from lightleak.errors import UserError
from lightleak.models.classifier import load as load_checkpoint
from lightleak.models.classifier import save
from lightleak.models.zoo import build

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


def test_what_a_brought_model_was_trained_on_neither_chooses_nor_tests(folder, tmp_path, capsys, monkeypatch):
    """protect and train --from: by a list all others are held out; without one a warning is said and saved."""
    monkeypatch.chdir(tmp_path)
    save(build("timm:test_resnet", 4, 32), "converted.safetensors")
    (tmp_path / "list.txt").write_text("\n".join(listed(count=4)))
    (tmp_path / "part.txt").write_text("\n".join([*listed(count=4), "nobody/1.png"]))
    data = ["--data", f"folder:{folder}", "--settings", "private", "all", "size", "16"]
    short = ["--recipe.epochs", "1", "--recipe.batch", "8"]
    protecting = ["protect", "--target", "converted.safetensors", "--epochs", "1", "--defence", "rolss", *data]
    training = ["train", "--from", "converted.safetensors", *short, *data]
    for verb in (protecting, training):
        cli.main([*verb, "--out", "without.safetensors"])
        assert "training list was not given (--train-list)" in " ".join(capsys.readouterr().out.split())
        without = load_checkpoint("without.safetensors")
        assert "pictures that choose and test here may have been trained on" in without.record["overlap"]
        cli.main([*verb, "--out", "with.safetensors", "--train-list", "list.txt"])
        told = " ".join(capsys.readouterr().out.split())
        held = divided(folder, listed(count=4))
        assert "may have been trained on" not in told
        assert f"on {len(held.test)} test images" in told
        found = load_checkpoint("with.safetensors")
        assert "overlap" not in found.record
        assert found.record["people"]["division"].endswith("by list")
        cli.main([*verb, "--out", "part.safetensors", "--train-list", "part.txt"])
        assert "1 picture was not found" in load_checkpoint("part.safetensors").record["overlap"]
        capsys.readouterr()


def test_what_was_trained_here_is_doubted_only_by_another_division(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = ["--data", f"folder:{folder}", "--settings", "private", "all", "size", "16"]
    cli.main(["train", "--architecture", "timm:test_resnet", "--size", "32", "--recipe.epochs", "1", "--out",
              "ours.safetensors", *data])  # fmt: skip
    protecting = ["protect", "--target", "ours.safetensors", "--epochs", "1", "--out", "safe.safetensors", *data]
    for seed, doubted in (("0", False), ("1", True)):
        cli.main([*protecting, "seed", seed])
        assert ("overlap" in load_checkpoint("safe.safetensors").record) == doubted
    capsys.readouterr()
    with pytest.raises(SystemExit):  # which would rename whom the model knows
        cli.main([*protecting, "classes", repr(sorted((one.name for one in folder.iterdir()), reverse=True))])
    assert "number the same people differently" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (
            ["protect", "--target", "x.safetensors", "--data", "digits"],
            "to a folder of pictures, not to digits",
        ),
        (["train", "--data", "folder:people"], "weights that training goes on from; name them with --from"),
    ],
)
def test_a_list_that_belongs_to_nothing_is_refused_at_once(folder, arguments, why, capsys, monkeypatch):
    monkeypatch.chdir(folder.parent)
    Path("list.txt").write_text("anna/0.png")
    Path("x.safetensors").write_text("")
    with pytest.raises(SystemExit):
        cli.main([*arguments, "--train-list", "list.txt", "--out", "y.safetensors"])
    assert why in " ".join(capsys.readouterr().err.split())


def test_where_all_are_trained_on_nothing_is_measured(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(build("timm:test_resnet", 4, 32), "converted.safetensors")
    (tmp_path / "list.txt").write_text("\n".join(listed(count=8)))
    with pytest.raises(SystemExit):
        cli.main(["protect", "--target", "converted.safetensors", "--train-list", "list.txt", "--out", "y.safetensors",
                  "--data", f"folder:{folder}", "--settings", "private", "all", "size", "16"])  # fmt: skip
    assert "none is left to choose or none to test by" in " ".join(capsys.readouterr().err.split())
