"""The dataclasses of settings, built from the source of their modules without importing these.

To import the attacks or the recipes imports torch, which takes seconds. A settings class needs none of that: fields,
defaults and `__post_init__` stand in the source and are evaluated name by name, as they are asked for. What cannot be
had so raises UnknownHere, and is left to the module itself.
"""

import __future__

import ast
import builtins
import contextlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import is_dataclass, make_dataclass
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from lightleak.cli.light import held, light
from lightleak.errors import UserError
from lightleak.plugins import points

SOURCE = Path(__file__).parent.parent.parent
LIGHT = ("lightleak.errors", "lightleak.version", "lightleak.cli.kinds", "lightleak.models.named", "tyro")  # importable
BUILTINS = {name: value for name, value in vars(builtins).items() if name != "__import__"}  # nothing heavy comes in
REFUSED = "_refused"  # the attribute of settings that holds why they are refused
DECORATORS = {"property", "staticmethod", "classmethod", "contextmanager"}


class UnknownHere(LookupError):
    """Raised when the meaning of a name cannot be found without importing its module."""


class Names(dict[str, Any]):
    """The names of a module, each found when it is first looked up."""

    def __init__(self, reader: "Reader", module: str) -> None:
        super().__init__(__name__=module, __file__=str(file_of(module)), __builtins__=BUILTINS)
        self._reader = reader
        self._statements: dict[str, ast.stmt] | None = None
        self.module = module

    def __missing__(self, name: str) -> Any:
        if name in BUILTINS:
            raise KeyError(name)  # Python goes on to the built-in names
        self[name] = self._reader.meaning(self.statement(name), name, self)
        return self[name]

    def statement(self, name: str) -> ast.stmt:
        """The statement that defines a name."""
        if self._statements is None:
            file = file_of(self.module)
            self._statements = dict(_defined(ast.parse(file.read_text(encoding="utf-8")).body)) if file else {}
        if name not in self._statements:
            raise UnknownHere(f"{self.module}.{name}")
        return self._statements[name]


class Module:
    """A module, as the names that it defines."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def __getattr__(self, name: str) -> Any:
        return self._names[name]


class Table(Mapping[str, Any]):
    """A dict that a module writes out, whose values are found when they are looked up; plug-ins' are unknown here."""

    def __init__(self, reader: "Reader", written: ast.expr | None, names: Names, added: Iterable[str] = ()) -> None:
        self._reader, self._names = reader, names
        self._written = _table(written)
        self._all = dict.fromkeys([*self._written, *added])

    def __getitem__(self, name: str) -> Any:
        if name in self._written:
            return self._reader.value(self._written[name], self._names)
        raise UnknownHere(name) if name in self._all else KeyError(name)

    def __contains__(self, name: object) -> bool:
        return name in self._all

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


class Registered(dict[str, type]):
    """The classes of a registry, each with its fields once it is looked up; a plug-in's is known by its name alone."""

    def __init__(self, own: dict[str, str], added: dict[str, str], names: Names, full: set[str]) -> None:
        kinds = added | own
        super().__init__(
            {name: names[kind] if kind in full else make_dataclass(kind, []) for name, kind in kinds.items()}
        )
        self._own, self._names = own, names

    def __getitem__(self, name: str) -> type:
        if name in self and name not in self._own:
            raise UnknownHere(name)
        self[name] = self._names[self._own[name]]
        return super().__getitem__(name)


class Room(dict[str, Any]):
    """The scope of a function's definition: it sees the names of its module without being among them."""

    def __init__(self, names: Names) -> None:
        super().__init__()
        self._names = names

    def __missing__(self, name: str) -> Any:
        return self._names[name]


class Reader:
    """Reads what modules define. Of a registry's classes only those in `wanted` (lower case) get their fields."""

    def __init__(self, wanted: frozenset[str] = frozenset()) -> None:
        self._wanted = wanted
        self._modules: dict[str, Names] = {}

    def names(self, module: str) -> Names:
        """The names of a module."""
        return self._modules.setdefault(module, Names(self, module))

    def value(self, node: ast.expr, names: Names) -> Any:
        """The value of an expression, given these names."""
        try:
            return eval(compile(ast.Expression(node), "", "eval"), names)
        except Exception as error:
            raise UnknownHere(ast.unparse(node)) from error

    def meaning(self, node: ast.stmt, name: str, names: Names) -> Any:
        """The value that a statement gives a name."""
        if isinstance(node, ast.ImportFrom):
            module, name = str(node.module), next(a.name for a in node.names if (a.asname or a.name) == name)
            if module in LIGHT or module.split(".")[0] in sys.stdlib_module_names:
                return getattr(import_module(module), name)
            return self._imported(module, name, names)
        if isinstance(node, ast.Import) and (name in LIGHT or name in sys.stdlib_module_names):
            return import_module(name)
        if isinstance(node, ast.ClassDef):
            return self._settings(node, names)
        if isinstance(node, ast.FunctionDef):
            return self._function(node, names)
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.expr):
            if isinstance(node.value, ast.Call) and _group(node.value):
                return self._registered(node.value, names)
            if isinstance(node.value, ast.Dict) and all(isinstance(key, ast.Constant) for key in node.value.keys):
                return Table(self, node.value, names)
            return self.value(node.value, names)
        raise UnknownHere(name)

    def listed(self, module: str, name: str) -> list[str]:
        """The names in a registry or table, with those that plug-ins add."""
        names = self.names(module)
        node = _value(names.statement(name))
        if not isinstance(node, ast.Dict | ast.Call):
            return list(names[name])
        group = _group(node)
        added = [point.name for point in points(group)] if group else []
        own = _table(_value(names.statement(node.args[1].id)) if group else node)  # type: ignore[union-attr]
        return list(dict.fromkeys([*own, *added]))

    def _imported(self, module: str, name: str, names: Names) -> Any:
        """What a module means by a name, or the module of that name in a package."""
        with contextlib.suppress(UnknownHere):
            if module != names.module:  # a package may import its own modules
                return self.names(module)[name]
        if file_of(f"{module}.{name}") is None:
            raise UnknownHere(f"{module}.{name}")
        return Module(self.names(f"{module}.{name}"))

    def _registered(self, call: ast.Call, names: Names) -> Mapping[str, Any]:
        """The things of a registry; classes that nobody wants and nobody looked at have no fields."""
        if not isinstance(call.args[1], ast.Name):
            raise UnknownHere(ast.unparse(call))
        written = _value(names.statement(call.args[1].id))
        added = {point.name: point.attr for point in points(str(_group(call)))}
        kinds = {name: ast.unparse(value) for name, value in _table(written).items()}
        if not all(kind.isidentifier() for kind in kinds.values()):
            return Table(self, written, names, added)
        asked = {kind for name, kind in kinds.items() if {kind.lower(), name.replace("-", "")} & self._wanted}
        full = asked | {kind for kind in kinds.values() if self._is_made(kind, names)}
        return Registered(kinds, added, names, full)

    def _is_made(self, kind: str, names: Names) -> bool:
        """Whether somebody looked at a class before: there must not be two of it."""
        node = names.statement(kind)
        return kind in (self._modules.get(str(node.module), ()) if isinstance(node, ast.ImportFrom) else names)

    def _settings(self, node: ast.ClassDef, names: Names) -> type:
        """A dataclass as its module makes it, whose `__post_init__` refuses what it can judge from here."""
        mark = next((each for each in node.decorator_list if "dataclass" in ast.unparse(each)), None)
        if mark is None:
            raise UnknownHere(node.name)
        options = {word.arg: self.value(word.value, names) for word in getattr(mark, "keywords", ()) if word.arg}
        found = [self._or_none(name, names) for name in node.bases]
        bases = [base for base in found if isinstance(base, type) and is_dataclass(base)]
        inside: dict[str, Any] = {"__doc__": ast.get_docstring(node)}
        fields: list[tuple[str, Any, Any] | tuple[str, Any]] = []
        for part in node.body:
            if isinstance(part, ast.FunctionDef):
                inside[part.name] = self._function(part, names)
            elif isinstance(part, ast.AnnAssign) and not ast.unparse(part.annotation).startswith("ClassVar"):
                kind = light(self.value(part.annotation, names))
                given = () if part.value is None else (held(kind, self.value(part.value, names)),)
                fields.append((ast.unparse(part.target), kind, *given))
            elif isinstance(part, ast.Assign | ast.AnnAssign) and part.value is not None:
                target = part.targets[0] if isinstance(part, ast.Assign) else part.target
                inside[ast.unparse(target)] = self._or_none(part.value, names)
        inside["__post_init__"] = _lenient(inside.get("__post_init__"), {field[0]: field[1] for field in fields})
        made = make_dataclass(node.name, fields, bases=tuple(bases), namespace=inside, **options)
        made.__module__ = UserError.__module__  # a short file to look for its source in, which tyro does
        return made

    def _or_none(self, node: ast.expr, names: Names) -> Any:
        with contextlib.suppress(UnknownHere):
            return self.value(node, names)

    def _function(self, node: ast.FunctionDef, names: Names) -> Any:
        """A function; the names that it uses are looked up when it is called."""
        node.decorator_list = [each for each in node.decorator_list if ast.unparse(each) in DECORATORS]
        room, flags = Room(names), __future__.annotations.compiler_flag
        exec(compile(ast.Module([node], []), "", "exec", flags=flags, dont_inherit=True), names, room)
        return room[node.name]


def may_be(group: str, name: str) -> bool:
    """Whether a plug-in may have a settings class of this name, as far as its source says."""
    return any(_plain(point.attr) == _plain(name) or not _is_class(point) for point in points(group))


def _plain(name: str) -> str:
    return name.replace("-", "").replace("_", "").lower()


def _is_class(point: EntryPoint) -> bool:
    """Whether the source of an entry point's module, read and not imported, has the class that it names."""
    top, *below = point.module.split(".")
    found = PathFinder.find_spec(top)
    places = [Path(place, *below) for place in (found and found.submodule_search_locations) or ()]
    files = [file for place in places for file in (place / "__init__.py", place.with_suffix(".py"))]
    files += [Path(found.origin)] if found and found.origin and not below else []
    text = next((file.read_text(encoding="utf-8") for file in files if file.is_file()), "")
    return re.search(rf"^class {point.attr}\b", text, re.MULTILINE) is not None


def file_of(module: str) -> Path | None:
    """The file of a module of Lightleak."""
    place = SOURCE.joinpath(*module.split("."))
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    return file if file.is_file() else None


def _defined(body: list[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """The names that statements define; of a branch for type checkers, what the others get."""
    for node in body:
        if isinstance(node, ast.If):
            yield from _defined(node.orelse or node.body)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    yield target.id, node
                elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    for name, value in zip(target.elts, node.value.elts):
                        yield ast.unparse(name), ast.Assign([name], value)


def _value(node: ast.stmt) -> ast.expr | None:
    return node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None


def _group(node: ast.expr | None) -> str | None:
    """The group of a registry's plug-ins, where an expression makes one."""
    if not isinstance(node, ast.Call) or ast.unparse(node.func).split("[")[0] != "Registry":
        return None
    return str(ast.literal_eval(node.args[0]))


def _table(written: ast.expr | None) -> dict[str, ast.expr]:
    """The keys and values of a dict that an expression writes out."""
    if not isinstance(written, ast.Dict):
        raise UnknownHere("no dict")
    return {ast.literal_eval(key): value for key, value in zip(written.keys, written.values) if key}


def _lenient(check: Callable[[Any], None] | None, kinds: dict[str, Any]) -> Callable[[Any], None]:
    """A `__post_init__` that passes over what it cannot find out; the module's own says it then."""

    def __post_init__(self: Any) -> None:
        for name, kind in kinds.items():
            object.__setattr__(self, name, held(kind, getattr(self, name)))
        _checking.append(self)
        try:
            if check is not None:
                check(self)
        except UserError as error:
            if len(_checking) > 1:  # made by another's check, which then refuses as well
                raise
            object.__setattr__(self, REFUSED, error)  # to be said in a line of its own
        except Exception:
            pass  # names of torch, and all that follows from them
        finally:
            _checking.pop()

    return __post_init__


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Let refused settings raise their error at once."""
    _checking.append(None)
    try:
        yield
    finally:
        _checking.pop()


_checking: list[Any] = []  # the settings whose checks are running, each made by the one before it
