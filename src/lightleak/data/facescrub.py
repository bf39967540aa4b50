"""FaceScrub: 530 actors and actresses, the target data of PPA and RoLSS (Ng & Winkler, ICIP 2014)."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from lightleak.data.collections import SUFFIXES, Collection, Picture, Reading, Split, folder, tenth
from lightleak.data.collections import population as population_of
from lightleak.data.naming import Private
from lightleak.data.pictures import public as public_pictures
from lightleak.data.population import Finding, Population

PEOPLE = 265  # of either sex, when whole
LAYOUT = "FaceScrub is published as actors/faces/NAME/FILE.jpg and actresses/faces/NAME/FILE.jpg"


def population(
    path: str | Path,
    size: int = 224,
    seed: int = 0,
    split: Split = "disjoint",
    private: Private = None,
    public: str | None = None,
    public_count: int | None = None,
    cache: str | Path | None = None,
    watch: Callable[..., None] | None = None,
) -> Population:
    """FaceScrub's cropped faces; `public` is ffhq:PATH or metfaces:PATH.

    Classes are PPA's: actors 0 to 264 and actresses 265 to 529, each sorted by name. Test images are PPA's tenth,
    which depends on which files have survived. See `data.collections` for `split` and `private`.
    """
    how = Reading(size, seed, split, private, public_count, cache, watch)
    return population_of(collection(path), public_pictures(public, size), how)


def collection(path: str | Path) -> Collection:
    """The faces below `path`, in PPA's order."""
    root = Path(path).expanduser()
    pictures, names, findings = [], [], []
    for sex in ("actors", "actresses"):
        place = folder(root, f"{sex}/faces", what=LAYOUT)
        people = sorted(entry.name for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        if len(people) != PEOPLE:
            findings.append(Finding("missing", f"{sex} has {len(people)} people, the published set {PEOPLE}"))
        for name in people:
            files = [f for f in sorted((place / name).rglob("*")) if f.suffix.lower() in SUFFIXES and f.is_file()]
            if not files:
                findings.append(Finding("few", f"{sex}/faces/{name} holds no image"))
            pictures += [Picture(file.relative_to(root).as_posix(), len(names)) for file in files]
            names.append(name)
    for name in sorted(name for name, count in Counter(names).items() if count > 1):
        findings.append(Finding("overlap", f"{name} is among the actors and among the actresses"))
    drawn = tenth(len(pictures))
    tested = tuple(Picture(p.file, p.label, test, p.frame) for p, test in zip(pictures, drawn))
    return Collection("facescrub", root, tested, tuple(names), tuple(findings))
