"""Images of people (or digits, or anything with classes), some private, some public, and where to get
them.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightleak.data import celeba, digits, dogs, faces, facescrub, folders, pictures
from lightleak.data.population import Images, Population
from lightleak.errors import UserError

DATASETS: dict[str, Callable[..., Population]] = {
    "faces": faces.population,
    "digits": digits.population,
    "folder": folders.population,
    "facescrub": facescrub.population,
    "celeba": celeba.population,
    "dogs": dogs.population,
    "ffhq": pictures.ffhq,  # these three hold public images only
    "metfaces": pictures.metfaces,
    "afhq": pictures.afhq,
}

__all__ = ["DATASETS", "Images", "Population", "load"]


def load(data: str, **settings: Any) -> Population:
    """The population that `data` names: "faces", "digits", "folder:PATH", "celeba:PATH" ..., with settings of its
    function in DATASETS.

    Raises UserError for an unknown name or setting, a path where none is taken, or a missing one.
    """
    name, colon, path = data.partition(":")
    if name not in DATASETS:
        hint = f"; for your own images write folder:{data}" if Path(data).is_dir() else ""
        raise UserError(f"there is no data set {name!r}; choose one of {', '.join(DATASETS)}{hint}")
    function = DATASETS[name]
    known = inspect.signature(function).parameters
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise UserError(f"data set {name!r} has no setting {', '.join(unknown)}; it has {', '.join(known)}")
    takes_path = "path" in known
    if takes_path and not path:
        raise UserError(f"data set {name!r} needs a path: write {name}:PATH")
    if colon and not takes_path:
        raise UserError(f"data set {name!r} takes no path; write {name}, not {data}")
    return function(path, **settings) if takes_path else function(**settings)
