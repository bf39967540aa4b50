"""Reading images: every kind of bad file, the cache, the split, and the data sets by name."""

import os
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lightleak.data import DATASETS, Population, decoded, digits, folders, load
from lightleak.data.images import FRACTIONS, UnreadableImageError, decode, shares, split
from lightleak.errors import UserError
from lightleak.study.comparison import Demo
from lightleak.study.tasks import source


def picture(seed: int, width: int = 24, height: int = 20) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def make_folder(root: Path, classes: int = 4, images: int = 9) -> Path:
    for label in range(classes):
        (root / f"class{label}").mkdir(parents=True)
        for number in range(images):
            picture(1000 * label + number).save(root / f"class{label}" / f"{number}.png")
    return root


@pytest.fixture
def cache(tmp_path) -> Path:
    """Where the tests' LIGHTLEAK_CACHE points."""
    return tmp_path / "cache"


# Decoding


def test_decode_crops_the_centre_and_resizes(tmp_path):
    wide = Image.new("RGB", (60, 20), "red")
    wide.paste(Image.new("RGB", (20, 20), (0, 200, 0)), (20, 0))
    wide.save(tmp_path / "wide.png")
    pixels = decode(tmp_path / "wide.png", 16)
    assert pixels.shape == (16, 16, 3)
    assert (pixels == (0, 200, 0)).all()


def test_exif_rotation_is_applied(tmp_path):
    image = Image.new("RGB", (32, 32), "black")
    image.paste("white", (0, 0, 32, 16))  # the top half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise: white comes to the right
    image.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    pixels = decode(tmp_path / "turned.jpg", 16).astype(int)
    assert pixels[:, 10:].min() > 200
    assert pixels[:, :6].max() < 50


@pytest.mark.parametrize(
    ("name", "image", "expected"),
    [
        ("alpha.png", Image.new("RGBA", (16, 16), (255, 0, 0, 0)), (255, 255, 255)),
        ("half.png", Image.new("RGBA", (16, 16), (255, 0, 0, 128)), (255, 127, 127)),
        ("grey_alpha.png", Image.new("LA", (16, 16), (0, 255)), (0, 0, 0)),
        ("palette.png", Image.new("RGB", (16, 16), (10, 200, 30)).quantize(4), (10, 200, 30)),
        ("palette.gif", Image.new("RGB", (16, 16), (10, 200, 30)).quantize(4), (10, 200, 30)),
        ("bits.png", Image.new("1", (16, 16), 1), (255, 255, 255)),
        ("cmyk.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)), (255, 0, 0)),
        ("grey16.png", Image.fromarray(np.full((16, 16), 257 * 100, np.uint16)), (100, 100, 100)),
        ("grey16.tif", Image.fromarray(np.full((16, 16), 257 * 100, np.uint16)), (100, 100, 100)),
        ("still.webp", Image.new("RGB", (16, 16), (0, 0, 255)), (0, 0, 255)),
    ],
)
def test_every_mode_becomes_rgb(tmp_path, name, image, expected):
    image.save(tmp_path / name)
    mean = decode(tmp_path / name, 16).reshape(-1, 3).mean(0)
    assert np.abs(mean - expected).max() < 6  # JPEG and WebP round


def test_float_images_are_stretched(tmp_path):
    Image.fromarray(np.linspace(-3, 5, 256, dtype=np.float32).reshape(16, 16)).save(tmp_path / "f.tif")
    pixels = decode(tmp_path / "f.tif", 16)
    assert pixels.min() == 0
    assert pixels.max() == 255


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert tuple(decode(tmp_path / "a.gif", 8)[0, 0]) == (255, 0, 0)


def test_reasons_for_unreadable_files(tmp_path):
    picture(0, 200, 200).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:2000])
    picture(0, 200, 200).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.jpg").touch()
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere.png")
    for name, reason in {
        "cut.jpg": "truncated",
        "cut.png": ".",
        "text.png": "not an image",
        "empty.jpg": "not an image",
        "dot.png": "only 1 x 1 pixels",
        "folder.png": "directory",
        "link.png": "No such file",
    }.items():
        with pytest.raises(UnreadableImageError, match=reason) as error:
            decode(tmp_path / name, 16)
        assert "\n" not in str(error.value)


def test_decompression_bombs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3_000_000)
    for side in (2000, 4000):  # Pillow warns above its limit, and raises above twice the limit
        Image.new("1", (side, side)).save(tmp_path / "bomb.png")
        with pytest.raises(UnreadableImageError, match="more than 3 million pixels"):
            decode(tmp_path / "bomb.png", 16)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "tif", "webp", "bmp"])
def test_damaged_bytes_never_raise_anything_else(tmp_path, suffix):
    rng = np.random.default_rng(0)
    picture(1, 40, 40).save(tmp_path / f"good.{suffix}")
    good = np.frombuffer((tmp_path / f"good.{suffix}").read_bytes(), np.uint8)
    for _ in range(40):
        bad = good.copy()
        bad[rng.integers(0, len(bad), 6)] = rng.integers(0, 256, 6)
        (tmp_path / f"bad.{suffix}").write_bytes(bad[: rng.integers(1, len(bad) + 1)].tobytes())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with suppress(UnreadableImageError):
                assert decode(tmp_path / f"bad.{suffix}", 16).shape == (16, 16, 3)


# The split


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=120),
    st.integers(0, 1000),
    st.lists(st.floats(0.05, 1), min_size=1, max_size=5),
)
def test_split_is_disjoint_complete_stratified_and_deterministic(labels, seed, fractions):
    labels = torch.tensor(labels * len(fractions))  # enough of every class
    parts = split(labels, seed, tuple(fractions))
    assert torch.cat(parts).sort().values.tolist() == list(range(len(labels)))
    again = split(labels, seed, tuple(fractions))
    assert all(torch.equal(one, two) for one, two in zip(parts, again))
    for label in labels.unique().tolist():
        counts = [int((labels[part] == label).sum()) for part in parts]
        assert counts == shares(int((labels == label).sum()), tuple(fractions))
        assert min(counts) >= 1


@given(st.integers(0, 300), st.lists(st.floats(0.05, 1), min_size=1, max_size=5))
def test_shares_are_near_the_fractions(count, fractions):
    if count < len(fractions):
        with pytest.raises(UserError, match="at least"):
            shares(count, tuple(fractions))
        return
    given_out = shares(count, tuple(fractions))
    assert sum(given_out) == count
    ideal = [count * fraction / sum(fractions) for fraction in fractions]
    if min(ideal) >= 1:
        assert max(abs(a - b) for a, b in zip(given_out, ideal)) < 1 + 1e-9


def test_split_of_a_class_does_not_depend_on_the_others():
    small, large = torch.tensor([0] * 9), torch.tensor([0] * 9 + [1] * 20)
    for one, two in zip(split(small, 3), split(large, 3)):
        assert torch.equal(one, two[two < 9])
    assert any(not torch.equal(one, two) for one, two in zip(split(small, 3), split(small, 4)))


# Digits


def test_digits():
    population = load("digits")
    assert isinstance(population, Population)
    assert population.size == 32
    assert population.class_names == ("0", "1", "2", "3", "4")
    parts = [population.train, population.validation, population.test, population.judge]
    assert len(population.public) + sum(map(len, parts)) == 1797
    everything = torch.cat([part.pixels for part in (*parts, population.public)]).flatten(1)
    assert len(everything.unique(dim=0)) == 1797  # nothing is in two parts
    assert population.public.labels.unique().tolist() == [0, 1, 2, 3, 4]
    for part, fraction in zip(parts, FRACTIONS):
        counts = part.labels.bincount()
        assert (counts - 180 * fraction).abs().max() <= 4
    again, other = digits.population(), digits.population(seed=1)
    assert torch.equal(population.train.pixels, again.train.pixels)
    assert not torch.equal(population.train.pixels, other.train.pixels)
    assert digits.population(size=16).size == 16
    with pytest.raises(UserError, match="8 to 512"):
        digits.population(size=4)


# Folders


def test_folder_population(tmp_path):
    root = make_folder(tmp_path / "mine", classes=5)
    population = load(f"folder:{root}", size=16)
    assert 2 <= population.classes <= 3  # about half
    assert population.size == 16
    parts = [population.train, population.validation, population.test, population.judge]
    assert sum(map(len, parts)) == 9 * population.classes
    assert all(len(part) for part in parts)
    assert population.train.labels.unique().tolist() == population.judge.labels.unique().tolist()
    assert len(population.public) == 9 * (5 - population.classes)
    assert population.public.labels.unique().tolist() == list(range(5 - population.classes))
    # Labels follow the names: every private image is found among the files of its class.
    for part in parts:
        for pixels, label in zip(part.pixels, part.labels.tolist()):
            files = (root / population.class_names[label]).iterdir()
            assert any(np.array_equal(pixels.permute(1, 2, 0), decode(file, 16)) for file in files)
    seeds = {folders.population(root, size=16, seed=seed).class_names for seed in range(8)}
    assert len(seeds) > 1
    assert folders.population(root, size=16, private=4).classes == 4
    named = folders.population(root, size=16, private=["class4", "class0"])
    assert named.class_names == ("class0", "class4")


def test_folder_report(tmp_path):
    root = make_folder(tmp_path / "mine", classes=5)
    picture(1, 90, 90).save(root / "class0" / "cut.jpg")
    whole = (root / "class0" / "cut.jpg").read_bytes()
    (root / "class0" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "class1" / "text.png").write_text("hello")
    Image.new("RGB", (1, 1)).save(root / "class1" / "dot.png")
    (root / "class2" / "copy.png").write_bytes((root / "class2" / "0.png").read_bytes())
    Image.open(root / "class2" / "1.png").save(root / "class2" / "same.bmp")  # other bytes, same picture
    (root / "class3" / "stolen.png").write_bytes((root / "class4" / "3.png").read_bytes())
    (root / "empty").mkdir()
    (root / "few").mkdir()
    picture(7777).save(root / "few" / "one.png")
    (root / "readme.txt").write_text("about")
    (root / "class0" / "labels.csv").write_text("0")
    (root / ".hidden").mkdir()
    (root / "class0" / ".DS_Store").write_text("")
    population = folders.population(root, size=16)
    notes = "\n".join(population.notes)
    for expected in (
        "2 files left out (no image by its name or in no class folder): such as readme.txt",
        "1 image left out (not an image): class1/text.png",
        "1 image left out (only 1 x 1 pixels): class1/dot.png",
        "2 images left out (duplicate within its class): such as class2/copy.png",
        "2 images left out (the same picture in several classes): such as class3/stolen.png",
        "class 'empty' left out: no usable image",
        "class 'few' left out: 1 usable images, fewer than 8",
        "class0/cut.jpg",
    ):
        assert expected in notes
    assert sum("no test image" not in note for note in population.notes) == 8
    assert not any("hidden" in note or "DS_Store" in note for note in population.notes)
    kept = sum(len(part) for part in (population.train, population.validation, population.test, population.judge))
    assert kept + len(population.public) == 5 * 9 - 1
    assert folders.population(root, size=16).notes == population.notes  # also from the cache


@pytest.mark.parametrize("classes", [1, 3])
def test_too_few_classes(tmp_path, classes):
    root = make_folder(tmp_path / "mine", classes=classes)
    with pytest.raises(UserError, match=f"needs at least 4 classes .* it has {classes}"):
        folders.population(root, size=16)


def test_wrong_folders(tmp_path):
    (tmp_path / "none").mkdir()
    (tmp_path / "flat").mkdir()
    picture(0).save(tmp_path / "flat" / "a.png")
    (tmp_path / "bare" / "class").mkdir(parents=True)
    for name, message in {
        "absent": "there is no folder",
        "flat/a.png": "is a file",
        "none": "holds 0 files but no folders",
        "flat": "holds 1 files but no folders",
        "bare": "holds no images in its 1 folders",
    }.items():
        with pytest.raises(UserError, match=message) as error:
            load(f"folder:{tmp_path / name}")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("private", [1, 4, 9, ["class0"], ["class0", "nobody"], [f"class{i}" for i in range(4)]])
def test_impossible_private_classes(tmp_path, private):
    root = make_folder(tmp_path / "mine", images=8)
    with pytest.raises(UserError):
        folders.population(root, size=16, private=private)


def test_cache_is_hit_and_follows_the_files(tmp_path, cache, monkeypatch):
    root = make_folder(tmp_path / "mine")
    calls = []
    honest = decoded.look
    monkeypatch.setattr(decoded, "look", lambda path, *how: calls.append(path) or honest(path, *how))
    first = folders.population(root, size=16)
    assert len(calls) == 36
    second = folders.population(root, size=16)
    assert len(calls) == 36
    assert torch.equal(first.train.pixels, second.train.pixels)
    folders.population(root, size=8)  # another size is another file
    assert len(calls) == 72
    assert len(list(cache.iterdir())) == 2
    picture(4242).save(root / "class0" / "new.png")
    folders.population(root, size=16)
    assert len(calls) == 72 + 37
    assert len(list(cache.iterdir())) == 2  # the stale file is gone


def test_a_damaged_cache_is_written_anew(tmp_path, cache):
    root = make_folder(tmp_path / "mine")
    first = folders.population(root, size=16)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    flipped = whole[:-7] + bytes([whole[-7] ^ 1]) + whole[-6:]  # a bit of a pixel
    for bad in (whole[: len(whole) // 2], b"", b"\xff" * 100, flipped):
        file.write_bytes(bad)
        again = folders.population(root, size=16)
        assert torch.equal(first.train.pixels, again.train.pixels)
        assert file.read_bytes() == whole


def test_an_interrupted_write_leaves_nothing(tmp_path, cache, monkeypatch):
    root = make_folder(tmp_path / "mine")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        folders.population(root, size=16)
    assert list(cache.iterdir()) == []


def test_an_unwritable_cache_is_a_note(tmp_path):
    root = make_folder(tmp_path / "mine")
    blocked = tmp_path / "file"
    blocked.touch()
    population = folders.population(root, size=16, cache=blocked / "cache")
    assert "could not be kept" in population.notes[-1]


def test_progress_is_told(tmp_path):
    root = make_folder(tmp_path / "mine")
    heard = []
    folders.population(root, size=16, watch=lambda done, total: heard.append((done, total)))
    assert heard[-1] == (36, 36)


# By name


def test_load_refuses_what_it_does_not_know(tmp_path):
    assert {"digits", "faces", "folder", "facescrub", "celeba", "dogs", "ffhq", "metfaces", "afhq"} == set(DATASETS)
    for data, settings, message in (
        ("places", {}, "there is no data set 'places'; choose one of faces, digits, folder"),
        ("folder:.", {"size": 0}, "size must be at least 1 pixel, not 0"),
        (str(tmp_path), {}, "write folder:"),
        ("folder", {}, "needs a path"),
        ("folder:", {}, "needs a path"),
        ("digits:/tmp", {}, "takes no path"),
        ("digits", {"people": 3}, "has no setting people; it has size, seed"),
    ):
        with pytest.raises(UserError, match=message):
            load(data, **settings)


def test_load_passes_settings_on():
    assert load("faces", people=2, images=1, size=32, public_people=2, judge_images=1).classes == 2


def test_settings_that_cannot_be_are_refused_before_anything_is_drawn():
    """A study says so while it is read, not after its first task."""
    with pytest.raises(UserError, match="lookalikes must divide the 6 people into clusters, not 4; 8 people would do"):
        source("faces", people=6, lookalikes=4)
    with pytest.raises(UserError, match=r"images must be at least 1, not 0; size must be 32 to \d+ pixels, not 4"):
        source("faces", images=0, size=4)
    with pytest.raises(UserError, match="8 people would do"):
        Demo(people=6).tasks()
