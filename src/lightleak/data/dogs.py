"""Stanford Dogs: 120 breeds in 20,580 pictures (Khosla et al., 2011), data of PPA and RoLSS without people."""

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from scipy.io import loadmat

from lightleak.data.collections import Collection, Picture, Reading, Split, folder, present, tenth
from lightleak.data.collections import population as population_of
from lightleak.data.images import Frame
from lightleak.data.naming import Private
from lightleak.data.pictures import public as public_pictures
from lightleak.data.population import Finding, Population
from lightleak.errors import UserError

LISTS = ("train_list.mat", "test_list.mat")
LAYOUT = "Stanford Dogs is published as Images, Annotation, train_list.mat and test_list.mat"


def population(
    path: str | Path,
    size: int = 224,
    cropped: bool = False,
    seed: int = 0,
    split: Split = "disjoint",
    private: Private = None,
    public: str | None = None,
    public_count: int | None = None,
    cache: str | Path | None = None,
    watch: Callable[..., None] | None = None,
) -> Population:
    """Stanford Dogs; `cropped` to the first annotated dog (PPA's judge), else whole (its targets); `public` afhq:PATH.

    Both are squeezed into a square, as in PPA. Test images are PPA's tenth of both lists together; the official
    division into 12,000 and 8,580 pictures is not used there.
    """
    how = Reading(size, seed, split, private, public_count, cache, watch)
    return population_of(collection(path, cropped), public_pictures(public, size), how)


def collection(path: str | Path, cropped: bool = False) -> Collection:
    """The pictures of both lists, in PPA's order."""
    root = Path(path).expanduser()
    folder(root, "Images", what=LAYOUT)
    files: list[str] = []
    labels: list[int] = []
    for name in LISTS:
        listed, numbers = _list(root / name)
        files += listed
        labels += numbers
    breeds = max(labels, default=0)
    names = [f"breed {number:03d}" for number in range(breeds)]
    for file, label in zip(files, labels):
        names[label - 1] = file.split("/")[0]
    there, findings = present(root / "Images", files)
    drawn = tenth(len(files))
    pictures, boxless = [], []
    for file, label, test in zip(files, labels, drawn):
        if file not in there:
            continue
        frame = Frame(stretch=True, bilinear=True)
        if cropped:
            box = _box(root / "Annotation" / Path(file).with_suffix(""))
            if box is None:
                boxless.append(file)
                continue
            frame = Frame(box=box, stretch=True, bilinear=True)
        pictures.append(Picture(f"Images/{file}", label - 1, test, frame))
    if boxless:
        findings = (*findings, Finding("missing", f"{len(boxless)} images have no readable annotation", tuple(boxless)))
    return Collection("dogs cropped" if cropped else "dogs", root, tuple(pictures), tuple(names), findings)


def _list(path: Path) -> tuple[list[str], list[int]]:
    """File names and labels from 1 of a MATLAB list."""
    if not path.is_file():
        raise UserError(f"there is no {path}; {LAYOUT}")
    try:
        data = loadmat(path, variable_names=["file_list", "labels"])
        files = [str(np.asarray(cell).item()) for cell in np.ravel(data["file_list"])]
        labels = [int(value) for value in np.ravel(data["labels"])]
    except Exception as error:  # a damaged MATLAB file makes its reader raise nearly anything
        raise UserError(f"{path} is no list of Stanford Dogs ({error}); {LAYOUT}") from None
    if len(files) != len(labels) or min(labels, default=1) < 1:
        raise UserError(f"{path} lists {len(files)} files and {len(labels)} labels; expected one label from 1 per file")
    bad = [file for file in files if file.startswith("/") or ".." in Path(file).parts]
    if bad:
        raise UserError(f"{path} names {bad[0]}, which is not below Images")
    return files, labels


def _box(path: Path) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of the first annotated dog."""
    try:
        box = ElementTree.parse(path).find("object/bndbox")
        if box is None:
            return None
        left, top, right, bottom = (int(box.findtext(name, "")) for name in ("xmin", "ymin", "xmax", "ymax"))
        return left, top, right, bottom
    except (OSError, ElementTree.ParseError, ValueError):
        return None
