"""The studies that come with Lightleak, by name: beside the sources in a checkout, within the package in a wheel."""

from pathlib import Path

from lightleak.errors import UserError, nearest

OURS = Path(__file__).parent / "studies"  # of an installed wheel
CHECKOUT = Path(__file__).parents[2] / "studies"  # of a checkout of the sources


def study_file(name: Path | str) -> Path:
    """The file of a study: a path, or the name of one that comes with Lightleak, such as "paper/tab2_stages".

    UserError that lists what there is.
    """
    path = Path(name).expanduser()
    own = next((folder for folder in (OURS, CHECKOUT) if folder.is_dir()), None)
    named = [] if own is None or path.is_absolute() else [own / path, own / path.with_suffix(".py")]
    named += [own / path.relative_to("studies")] if own is not None and path.parts[:1] == ("studies",) else []
    found = next((file for file in (path, *named) if file.is_file()), None)
    if found is None:
        there = sorted(str(file.relative_to(own).with_suffix("")) for file in own.rglob("*.py")) if own else []
        told = f" or the name of one of ours: {', '.join(there)}{nearest(str(name), there)}" if there else ""
        raise UserError(f"there is no study {name}; expected a Python file with a function tasks(){told}")
    return found
