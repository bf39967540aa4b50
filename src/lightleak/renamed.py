"""Names of the version before, which answer for one more release, with a DeprecationWarning that says the new name."""

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def former(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """A `__getattr__` for `module`: each old name stands for "package.module:NAME"."""

    def __getattr__(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, new = names[name].partition(":")
        message = f"{module}.{name} is now {home}.{new}; the old name goes with the next release"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return getattr(import_module(home), new)

    return __getattr__
