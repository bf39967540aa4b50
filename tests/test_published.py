"""Published data sets from miniature trees in their exact layouts, whole and hostile."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from lightleak.data import celeba, collections, dogs, facescrub, load, pictures
from lightleak.data.collections import tenth
from lightleak.data.images import Frame, decode
from lightleak.data.people import remarks
from lightleak.data.population import Population
from lightleak.errors import UserError


def noise(path: Path, seed: int, width: int = 32, height: int = 32) -> Path:
    """A picture that no other seed gives, at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(values).save(path, quality=95)
    return path


def said(population: Population, kind: str) -> str:
    return "\n".join(str(finding) for finding in population.findings if finding.kind == kind)


def parts(population: Population) -> dict[str, set[bytes]]:
    names = ("train", "validation", "test", "judge", "public")
    return {name: {p.numpy().tobytes() for p in getattr(population, name).pixels} for name in names}


def disjoint(population: Population) -> bool:
    found = list(parts(population).values())
    return len(set().union(*found)) == sum(len(part) for part in found)


# FaceScrub


@pytest.fixture
def faces(tmp_path) -> Path:
    """Two actors and two actresses of ten images each."""
    root = tmp_path / "facescrub"
    people = {"actors": ("Zack_Z", "Aaron_Eckhart"), "actresses": ("Adrianne_Leon", "Zoe_S")}
    for index, (sex, name) in enumerate((sex, name) for sex, names in people.items() for name in names):
        for number in range(10):
            noise(root / sex / "faces" / name / f"{name}_{number:03d}.jpg", 100 * index + number, 40, 30)
    return root


def test_facescrubs_classes_are_ppas(faces):
    population = load(f"facescrub:{faces}", size=16)
    assert population.class_names == ("Aaron_Eckhart", "Zack_Z", "Adrianne_Leon", "Zoe_S")
    assert (population.classes, population.size, len(population.public)) == (4, 16, 0)
    assert len(population.test) == 4  # a tenth of 40
    assert len(population.train) + len(population.judge) + len(population.validation) == 36
    assert disjoint(population)
    assert len(population.train) > len(population.judge) > len(population.validation)
    assert "actors has 2 people, the published set 265" in said(population, "missing")


def test_ppas_tenth_is_numpys_old_shuffle(faces):
    np.random.seed(42)
    order = list(range(40))
    np.random.shuffle(order)
    expected = set(order[36:])
    assert [index for index, test in enumerate(tenth(40)) if test] == sorted(expected)
    population = facescrub.population(faces, 16, split="published")
    listed = facescrub.collection(faces).pictures
    wanted = {decode(faces / listed[i].file, 16, collections.FULL).transpose(2, 0, 1).tobytes() for i in expected}
    assert parts(population)["test"] == wanted


def test_the_published_split_shares_images_and_says_so(faces):
    population = facescrub.population(faces, 16, split="published")
    found = parts(population)
    assert found["judge"] == found["train"]
    assert found["validation"] == found["test"]
    assert (len(population.train), len(population.test)) == (36, 4)
    assert "target and judge share training images" in said(population, "departure")
    with pytest.raises(UserError, match="split is disjoint or published, not 'ppa'"):
        load(f"facescrub:{faces}", split="ppa")


def test_people_who_are_not_private_are_public(faces):
    population = facescrub.population(faces, 16, private=["Zoe_S", "Aaron_Eckhart"])
    assert population.class_names == ("Aaron_Eckhart", "Zoe_S")
    assert len(population.public) == 20
    assert population.public.labels.unique().tolist() == [0, 1]
    assert disjoint(population)
    again = facescrub.population(faces, 16, private=2, seed=1)
    assert again.classes == 2
    assert facescrub.population(faces, 16, private=2, seed=1).class_names == again.class_names


def test_hostile_faces_are_left_out_by_name(faces):
    folder = faces / "actors" / "faces"
    whole = noise(folder / "Zack_Z" / "big.jpg", 999, 300, 300)
    (folder / "Zack_Z" / "cut.jpg").write_bytes(whole.read_bytes()[:3000])
    (folder / "Zack_Z" / "page.jpg").write_text("<html>404</html>")
    (folder / "Zack_Z" / "Thumbs.db").write_text("no image")
    (folder / "Nobody").mkdir()
    noise(folder / "Once" / "1.jpg", 5000)
    copied = (folder / "Aaron_Eckhart" / "Aaron_Eckhart_000.jpg").read_bytes()
    (folder / "Aaron_Eckhart" / "copy.jpg").write_bytes(copied)
    (faces / "actresses" / "faces" / "Zoe_S" / "stolen.jpg").write_bytes(copied)
    population = load(f"facescrub:{faces}", size=16)
    assert population.class_names[:4] == ("Aaron_Eckhart", "Nobody", "Once", "Zack_Z")  # numbers stay as published
    unreadable = [finding for finding in population.findings if finding.kind == "unreadable"]
    assert {file for finding in unreadable for file in finding.files} == {
        "actors/faces/Zack_Z/cut.jpg",
        "actors/faces/Zack_Z/page.jpg",
    }
    contested = [finding for finding in population.findings if "several people" in finding.text]
    assert set(contested[0].files) == {
        "actors/faces/Aaron_Eckhart/Aaron_Eckhart_000.jpg",
        "actors/faces/Aaron_Eckhart/copy.jpg",
        "actresses/faces/Zoe_S/stolen.jpg",
    }
    assert "actors/faces/Nobody holds no image" in said(population, "few")
    assert "fewer than 2 training images" in said(population, "few")
    assert disjoint(population)
    everything = (population.train, population.validation, population.test, population.judge)
    assert sum(len(part.of(2)) for part in everything) == 1  # the one picture of Once is not lost


def test_a_copy_among_the_test_images_leaves_training(faces):
    listed = facescrub.collection(faces).pictures
    victim = next(p for p in listed if p.test)
    twin = next(p for p in listed if not p.test and p.label == victim.label)
    (faces / twin.file).write_bytes((faces / victim.file).read_bytes())
    population = load(f"facescrub:{faces}", size=16)
    assert disjoint(population)
    assert len(population.test) == 4
    kept = load(f"facescrub:{faces}", size=16, split="published")
    assert "1 training images of facescrub are test images too" in said(kept, "overlap")


def test_missing_folders_are_one_line(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        load(f"facescrub:{tmp_path / 'nowhere'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds none of the folders actors/faces; FaceScrub is published as"):
        load(f"facescrub:{tmp_path / 'empty'}")


# Public pictures


def test_ffhq_is_public_and_what_is_private_leaves_it(tmp_path, faces):
    for number in range(12):
        noise(tmp_path / "ffhq" / "thumbnails128x128" / "00000" / f"{number:05d}.png", 7000 + number, 128, 128)
    stolen = faces / "actors" / "faces" / "Zack_Z" / "Zack_Z_003.jpg"
    Image.new("RGB", (128, 128), (3, 99, 200)).save(stolen)
    Image.open(stolen).save(tmp_path / "ffhq" / "thumbnails128x128" / "00000" / "00012.png")  # looks the same
    noise(tmp_path / "ffhq" / "thumbnails128x128" / "00000" / "00013.png", 7999, 128, 128)
    copied = faces / "actors" / "faces" / "Zack_Z" / "Zack_Z_004.jpg"  # the same file, cropped differently
    copied.write_bytes((tmp_path / "ffhq" / "thumbnails128x128" / "00000" / "00013.png").read_bytes())
    population = load(f"facescrub:{faces}", size=16, public=f"ffhq:{tmp_path / 'ffhq'}")
    assert len(population.public) == 12
    assert population.public.labels.unique().numel() == 12
    overlap = next(finding for finding in population.findings if finding.kind == "overlap")
    assert overlap.files == ("00000/00012.png", "00000/00013.png")
    assert "69,986 of 70,000 images are not there" in said(population, "missing")
    assert disjoint(population)
    drawn = load(f"facescrub:{faces}", size=16, public=f"ffhq:{tmp_path / 'ffhq'}", public_count=5)
    taken = [finding for finding in drawn.findings if "they are private ones" in finding.text]
    assert len(drawn.public) + sum(len(finding.files) for finding in taken) == 5
    with pytest.raises(UserError, match="public images are one of ffhq:PATH, metfaces:PATH, afhq:PATH"):
        load(f"facescrub:{faces}", public="imagenet:/data")


def test_low_resolution_takes_the_thumbnails_centre(tmp_path):
    path = noise(tmp_path / "thumbnails128x128" / "00000" / "00000.png", 1, 128, 128)
    population = load(f"ffhq:{tmp_path}", size=64)
    expected = Image.open(path).crop((20, 20, 108, 108)).resize((64, 64), Image.Resampling.BILINEAR)
    assert np.array_equal(population.public.pixels[0].permute(1, 2, 0).numpy(), np.asarray(expected))
    assert (population.classes, len(population.train)) == (0, 0)


def test_high_resolution_takes_the_centre_that_ppa_attacks(tmp_path):
    noise(tmp_path / "images" / "1-00.png", 1, 256, 256)
    population = load(f"metfaces:{tmp_path}", size=160)
    expected = Image.open(tmp_path / "images" / "1-00.png").crop((28, 28, 228, 228)).resize((160, 160), 2)
    assert np.array_equal(population.public.pixels[0].permute(1, 2, 0).numpy(), np.asarray(expected))
    assert "MetFaces has 1,336 images, here are 1" in said(population, "missing")


def test_afhq_gives_one_kind_of_animal(tmp_path):
    for number, kind in enumerate(("dog", "dog", "cat")):
        noise(tmp_path / "train" / kind / f"flickr_{kind}_{number:06d}.jpg", number, 64, 64)
    assert len(load(f"afhq:{tmp_path}", size=32).public) == 2
    assert len(load(f"afhq:{tmp_path}", size=32, animal="cat").public) == 1
    with pytest.raises(UserError, match="dog, cat and wild, not 'horse'"):
        pictures.afhq(tmp_path, animal="horse")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="holds none of the folders train/wild"):
        load(f"afhq:{tmp_path}", animal="wild")


# CelebA, 64 pixels


PRIVATE, PUBLIC = (14, 15, 21), (3, 99)


@pytest.fixture
def aligned(tmp_path, monkeypatch) -> Path:
    """Three people with six pictures, two with four; six count as many here."""
    monkeypatch.setattr(celeba, "OFTEN", 6)
    root, lines, number = tmp_path / "celeba", [], 0
    for turn in range(6):
        for identity in (*PRIVATE, *PUBLIC):
            if identity in PUBLIC and turn >= 4:
                continue
            number += 1
            noise(root / "img_align_celeba" / f"{number:06d}.png", number, 178, 218)
            lines.append(f"{number:06d}.jpg {identity}")
    (root / "identity_CelebA.txt").write_text("\n".join(lines) + "\n")
    return root


def with_lists(root: Path) -> Path:
    """The three lists: the last picture of each person is for testing."""
    rows = [line.split() for line in (root / "identity_CelebA.txt").read_text().splitlines()]
    train, test = [], []
    for label, identity in enumerate(PRIVATE):
        own = [name for name, number in rows if int(number) == identity]
        train += [f"{name} {label}" for name in own[:-1]]
        test.append(f"{own[-1]} {label}")
    (root / "trainset.txt").write_text("\n".join(train) + "\n")
    (root / "testset.txt").write_text("\n".join(test))
    (root / "ganset.txt").write_text("\n".join(name for name, number in rows if int(number) in PUBLIC))
    return root


def test_the_low_resolution_crop_is_the_published_one(aligned):
    picture = celeba.first_thousand(aligned, None, ("no", "no", "no"), "disjoint", 0)[0].pictures[0]
    whole = np.asarray(Image.open(aligned / picture.file))
    crop = Image.fromarray(whole[55:163, 35:143])
    for size in (64, 112):
        got = decode(aligned / picture.file, size, picture.frame)
        assert np.array_equal(got, np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR)))


def test_celeba_by_lists(aligned):
    population = load(f"celeba:{with_lists(aligned)}")
    assert population.size == 64
    assert population.class_names == ("identity 14", "identity 15", "identity 21")
    assert [len(population.test.of(label)) for label in range(3)] == [1, 1, 1]
    assert len(population.train) + len(population.judge) + len(population.validation) == 15
    assert len(population.public) == 8
    assert disjoint(population)
    assert not population.notes
    same = load(f"celeba:{aligned}", split="published")
    assert (len(same.train), len(same.judge), len(same.test)) == (15, 15, 3)
    larger = load(f"celeba:{aligned}", size=112)
    assert larger.size == 112
    assert torch.equal(larger.train.labels, population.train.labels)


def test_celeba_without_lists_has_the_same_people(aligned):
    population = load(f"celeba:{aligned}")
    assert population.class_names == ("identity 14", "identity 15", "identity 21")
    assert [len(population.test.of(label)) for label in range(3)] == [1, 1, 1]
    assert len(population.public) == 8
    assert "another tenth for testing" in said(population, "departure")
    with pytest.raises(UserError, match="cannot be computed, only copied"):
        load(f"celeba:{aligned}", split="published")


def test_a_list_that_is_named_and_not_there_is_refused(aligned):
    with_lists(aligned)
    for name in ("train_list", "test_list", "public_list"):
        with pytest.raises(UserError, match=r"there is no list .*mine\.txt"):
            load(f"celeba:{aligned}", **{name: "mine.txt"})
    with pytest.raises(UserError, match="ppa has no lists"):
        load(f"celeba:{aligned}", protocol="ppa", train_list="trainset.txt")
    (aligned / "ganset.txt").rename(aligned / "others.txt")
    assert len(load(f"celeba:{aligned}", public_list="others.txt").public) == 8
    assert "no list of public pictures: 8 drawn" in said(load(f"celeba:{aligned}"), "departure")


def test_other_test_pictures_are_another_division(aligned):
    drawn = load(f"celeba:{aligned}").people
    listed = load(f"celeba:{with_lists(aligned)}").people
    assert drawn.pictures == listed.pictures
    assert any("divide pictures otherwise" in one for one in remarks(drawn, listed, "one", "the other"))
    assert not remarks(listed, load(f"celeba:{aligned}", size=112).people, "one", "the other")
    older = replace(listed, division=listed.division.partition(", tests ")[0])
    assert not remarks(older, listed, "one", "the other")
    assert remarks(older, load(f"celeba:{aligned}", seed=1).people, "one", "the other")
    fewer = replace(listed, pictures="others", division=drawn.division)
    assert any("the folder has changed" in one for one in remarks(fewer, listed, "one", "the other"))


def test_as_many_public_pictures_as_are_asked_for_are_drawn_of_all(aligned):
    everything = load(f"celeba:{with_lists(aligned)}", private=2)
    some = load(f"celeba:{aligned}", private=2, public_count=5)
    assert len(everything.public) == 8 + 6
    assert len(some.public) == 5
    every = {picture.numpy().tobytes() for picture in everything.public.pixels}
    assert {picture.numpy().tobytes() for picture in some.public.pixels} < every
    with pytest.raises(UserError, match="public_count is of public pictures"):
        load(f"celeba:{aligned}", protocol="ppa", size=32, public_count=5)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("000001.jpg", r"trainset.txt, line 16: expected 'NAME.jpg LABEL', got '000001.jpg'"),
        ("000001.jpg 0 7", "line 16"),
        ("000001.jpg zero", "line 16"),
        ("../../secret.jpg 0", "line 16"),
        ("/etc/passwd 0", "line 16"),
        ("000001.jpg 2", r"000001.jpg has the labels 0 and 2"),
    ],
)
def test_bad_lines_in_lists(aligned, line, complaint):
    with_lists(aligned)
    with (aligned / "trainset.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=complaint):
        load(f"celeba:{aligned}")


def test_absent_and_damaged_lists(aligned):
    with_lists(aligned)
    (aligned / "testset.txt").unlink()
    with pytest.raises(UserError, match=r"there is no .*testset.txt; the lists of training and test"):
        load(f"celeba:{aligned}")
    (aligned / "testset.txt").write_text("")
    with pytest.raises(UserError, match=r"testset.txt is empty"):
        load(f"celeba:{aligned}")
    (aligned / "testset.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        load(f"celeba:{aligned}")


def test_no_identities_and_no_lists(aligned):
    (aligned / "identity_CelebA.txt").unlink()
    with pytest.raises(UserError, match=r"no identity_CelebA\.txt"):
        load(f"celeba:{aligned}")


def test_lists_alone_are_enough(aligned):
    with_lists(aligned)
    (aligned / "identity_CelebA.txt").unlink()
    population = load(f"celeba:{aligned}")
    assert population.class_names == ("label 0000", "label 0001", "label 0002")
    assert len(population.public) == 8


def test_overlaps_and_gaps_are_named(aligned):
    with_lists(aligned)
    train = (aligned / "trainset.txt").read_text().splitlines()
    test = (aligned / "testset.txt").read_text().split()[0]
    (aligned / "img_align_celeba" / train[3].split()[0].replace("jpg", "png")).unlink()
    lines = [*train, train[0], "000900.jpg 1", f"{test} 0"]
    (aligned / "trainset.txt").write_text("\n".join(lines))
    unlisted = "000001.jpg 0"  # a private person's picture that is public, once by file and once by identity
    noise(aligned / "img_align_celeba" / "000800.png", 800, 178, 218)
    with (aligned / "identity_CelebA.txt").open("a") as file:
        file.write("000800.jpg 14\n")
    with (aligned / "ganset.txt").open("a") as file:
        file.write(f"\n{unlisted}\n000800.jpg\n")
    population = load(f"celeba:{aligned}")
    assert "2 listed images are not there" in said(population, "missing")
    files = {file for finding in population.findings if finding.kind == "missing" for file in finding.files}
    assert "img_align_celeba/000900.jpg" in files
    overlap = said(population, "overlap")
    assert "1 public images left out (they are private images): 000001.jpg" in overlap
    assert "1 public images left out (they show private people): 000800.jpg" in overlap
    assert "1 images are in trainset.txt and in testset.txt; they count as test images" in overlap
    assert "1 images are listed twice" in said(population, "duplicate")
    assert len(population.public) == 8
    assert disjoint(population)


def test_a_label_that_mixes_identities_is_found(aligned):
    with_lists(aligned)
    lines = (aligned / "trainset.txt").read_text().splitlines()
    lines[-1] = lines[-1][:-1] + "0"
    (aligned / "trainset.txt").write_text("\n".join(lines))
    assert "1 images belong to another identity than their label's" in said(load(f"celeba:{aligned}"), "overlap")


# CelebA, PPA


def test_ppas_people_are_those_with_most_pictures(aligned, monkeypatch):
    monkeypatch.setattr(celeba, "PEOPLE", 4)
    hd = aligned / "aligned" / "align_size(224,224)_move(0.250,0.000)_face_factor(0.650)_jpg" / "data"
    for file in (aligned / "img_align_celeba").iterdir():
        noise(hd / f"{file.stem}.jpg", int(file.stem), 48, 48)
    population = load(f"celeba:{aligned}", protocol="ppa", size=32)
    assert population.class_names == ("identity 14", "identity 15", "identity 21", "identity 3")
    drawn = tenth(22)
    rows = [line.split() for line in (aligned / "identity_CelebA.txt").read_text().splitlines()]
    kept = [(name, identity) for name, identity in rows if identity != "99"]
    expected = [identity for (_, identity), test in zip(kept, drawn) if test]
    got = [population.class_names[label].split()[1] for label in population.test.labels]
    assert sorted(got) == sorted(expected)
    assert not said(population, "departure")
    plain = load(f"celeba:{aligned}", protocol="ppa", size=32, images="img_align_celeba")
    assert plain.class_names == population.class_names
    with pytest.raises(UserError, match="lowres or ppa, not 'hd'"):
        load(f"celeba:{aligned}", protocol="hd")


def test_plain_aligned_pictures_are_no_hd_crops(aligned):
    assert "PPA uses HD crops" in said(load(f"celeba:{aligned}", protocol="ppa", size=32), "departure")


# Stanford Dogs


def write_list(path: Path, files: list[str], labels: list[int]) -> None:
    cells = np.empty((len(files), 1), dtype=object)
    for index, file in enumerate(files):
        cells[index, 0] = file
    savemat(path, {"file_list": cells, "annotation_list": cells, "labels": np.array(labels, float)[:, None]})


@pytest.fixture
def kennel(tmp_path) -> Path:
    """Two breeds of eight pictures."""
    root = tmp_path / "dogs"
    breeds = ("n02085620-Chihuahua", "n02116738-African_hunting_dog")
    lists: dict[str, tuple[list[str], list[int]]] = {"train_list.mat": ([], []), "test_list.mat": ([], [])}
    for label, breed in enumerate(breeds):
        for number in range(8):
            name = f"{breed}/{breed.split('-')[0]}_{number}"
            noise(root / "Images" / f"{name}.jpg", 100 * label + number, 50, 40)
            box = f"<xmin>10</xmin><ymin>5</ymin><xmax>{40 + number}</xmax><ymax>25</ymax>"
            note = root / "Annotation" / name
            note.parent.mkdir(parents=True, exist_ok=True)
            second = "<object><bndbox><xmin>0</xmin><ymin>0</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
            note.write_text(f"<annotation><object><bndbox>{box}</bndbox></object>{second}</annotation>")
            files, labels = lists["train_list.mat" if number < 5 else "test_list.mat"]
            files.append(f"{name}.jpg")
            labels.append(label + 1)
    for name, (files, labels) in lists.items():
        write_list(root / name, files, labels)
    return root


def test_dogs_of_both_lists_together(kennel):
    population = load(f"dogs:{kennel}", size=24)
    assert population.class_names == ("n02085620-Chihuahua", "n02116738-African_hunting_dog")
    assert len(population.test) == 2  # 16 pictures, int(14.4) for training
    assert disjoint(population)
    listed = dogs.collection(kennel).pictures
    assert [p.file.split("_")[-1] for p in listed[:6]] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg", "0.jpg"]
    assert [p.test for p in listed] == tenth(16)
    squeezed = Image.open(kennel / listed[0].file).convert("RGB").resize((24, 24), Image.Resampling.BILINEAR)
    got = decode(kennel / listed[0].file, 24, listed[0].frame).astype(int)
    assert np.abs(got - np.asarray(squeezed, int)).mean() < 8  # JPEG may skip detail


def test_cropped_dogs_are_their_first_box(kennel):
    listed = dogs.collection(kennel, cropped=True).pictures
    assert listed[3].frame.box == (10, 5, 43, 25)
    crop = Image.open(kennel / listed[3].file).convert("RGB").crop((10, 5, 43, 25)).resize((24, 24), 2)
    assert np.array_equal(decode(kennel / listed[3].file, 24, listed[3].frame), np.asarray(crop))
    (kennel / "Annotation" / Path(listed[0].file).relative_to("Images").with_suffix("")).write_text("<annot")
    population = load(f"dogs:{kennel}", size=24, cropped=True)
    assert "1 images have no readable annotation" in said(population, "missing")


def test_damaged_lists_of_dogs(kennel):
    (kennel / "test_list.mat").write_bytes(b"MATLAB 5.0 MAT-file" + b"\0" * 200)
    with pytest.raises(UserError, match="is no list of Stanford Dogs") as error:
        load(f"dogs:{kennel}")
    assert "\n" not in str(error.value)
    write_list(kennel / "test_list.mat", ["../../secret.jpg"], [1])
    with pytest.raises(UserError, match="not below Images"):
        load(f"dogs:{kennel}")
    savemat(kennel / "test_list.mat", {"file_list": np.array([["a.jpg"]], dtype=object), "labels": [[1], [2]]})
    with pytest.raises(UserError, match="1 files and 2 labels"):
        load(f"dogs:{kennel}")
    (kennel / "test_list.mat").unlink()
    with pytest.raises(UserError, match=r"there is no .*test_list.mat"):
        load(f"dogs:{kennel}")


def test_a_listed_dog_that_is_missing(kennel):
    victim = dogs.collection(kennel).pictures[0].file
    (kennel / victim).unlink()
    population = load(f"dogs:{kennel}", size=24)
    assert "1 listed images are not there" in said(population, "missing")
    assert len(population.train) + len(population.judge) + len(population.validation) + len(population.test) == 15


# Frames and the cache


def test_frames(tmp_path):
    path = noise(tmp_path / "a.png", 0, 60, 40)
    whole = Image.open(path)
    centre = decode(path, 20, Frame(share=0.5))
    assert np.array_equal(centre, np.asarray(whole.crop((20, 10, 40, 30)).resize((20, 20), Image.Resampling.LANCZOS)))
    clipped = decode(path, 10, Frame(box=(50, 30, 90, 90), stretch=True))
    assert np.array_equal(clipped, np.asarray(whole.crop((50, 30, 60, 40)).resize((10, 10), 1)))
    with pytest.raises(UserError, match="box lies outside"):
        decode(path, 10, Frame(box=(70, 0, 90, 20)))


def test_collections_of_one_root_do_not_evict_each_other(aligned, tmp_path, monkeypatch):
    with_lists(aligned)
    load(f"celeba:{aligned}")
    kept = sorted(path.name for path in (tmp_path / "cache").iterdir())
    assert len(kept) == 2
    monkeypatch.setattr("lightleak.data.decoded.look", lambda *_: pytest.fail("decoded again"))
    load(f"celeba:{aligned}")
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == kept
