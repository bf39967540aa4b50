"""Templates of pages: values are escaped, and a missing value is an error."""

from collections.abc import Callable, Iterable, Sized
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from lightleak.report.results import clean


def template(package: str, name: str, finalize: Callable[[Any], Any] | None = None, **filters: Callable) -> Template:
    """The template `name` beside a package's code, with `clean` and these filters; `finalize` sees every value."""
    environment = Environment(
        loader=PackageLoader(package, "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"clean": clean, "others": others, **filters}
    return environment.get_template(name)


def others(tables: Iterable[Sized]) -> str:
    """What the line over folded tables, given by their columns, says that they hold: so many measures."""
    count = sum(map(len, tables))
    return "The other measure" if count == 1 else f"The other {count} measures"
