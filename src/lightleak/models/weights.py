"""Read weights from any container, and find the entry and the prefix with which names agree; all verbs use this reader.

A file may hold several networks (raw weights beside their running average), and a network's tensors may stand under a
prefix (`module.`, `_orig_mod.`, `net.`, `backbone.`, any other) beside tensors of something else (a loss, a metric, a
second network). What fits the network that is wanted is taken; what does not is left, and named. If several fit, raw
weights are preferred to their average, which is said; between others nobody can choose but the user. An average may
be a list without names: it is read with the names of the network beside it.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lightleak.errors import UserError
from lightleak.models.torchfile import Content, Entry, contents, names_of

State = dict[str, Tensor]
INDEX = ".index.json"  # what the list of shards ends with
MOST_INDEX, MOST_SHARDS = 2**26, 1000
# What libraries wrap around modules, anywhere within a network.
WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_module"})
# Tensors that serve training or counting alone, by the first or by the last part of their names.
BESIDE = re.compile(
    r"(\w+_)?(criterion|criteria|loss|losses|loss_fn|loss_func|loss_function|metrics?|acc|accuracy|auroc|f1|"
    r"ema|ema_model|model_ema|teacher|n_averaged)(_\w+)?"
)
COUNTERS = frozenset({"total_ops", "total_params", "num_batches_tracked"})
# Tables that a network makes itself from its shape; older versions of libraries stored them.
DERIVED = frozenset({"relative_position_index", "relative_coords_table", "attn_mask", "position_ids"})
STATISTICS = frozenset({"running_mean", "running_var"})  # buffers that normalisation keeps
AVERAGE = re.compile(r"(?<![a-zA-Z])(ema|averaged?|swa|shadow|polyak)(?![a-z])|EMA")


@dataclass(frozen=True)
class Found:
    """The tensors that fit, their place in the file, and what else the file holds."""

    tensors: State
    place: str = ""  # the entry and the prefix, such as "state_dict_ema" or "state_dict.student"
    others: tuple[str, ...] = ()  # further places in the file that would have fitted
    unread: tuple[str, ...] = ()  # names of tensors beside them
    fits: bool = True
    beside: dict[str, int | float | str] = field(default_factory=dict)  # numbers and texts
    class_names: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()  # averages of these weights in the file that cannot be taken, and why
    assumed: str = ""  # how tensors without names got theirs

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about the choice, one sentence each."""
        told = [self.assumed] if self.assumed else []
        if self.others:
            more = f" and {len(self.others) - 4} more" if len(self.others) > 4 else ""
            there = ", ".join(self.others[:4]) + more
            told.append(f"the file also holds {there}; {self.place or 'the outermost'} was taken (--entry chooses)")
        told += [f"the file also holds {what}; {self.place or 'the outermost'} was taken" for what in self.closed]
        if self.unread:
            more = f" and {len(self.unread) - 3} more" if len(self.unread) > 3 else ""
            told.append(f"not read: {', '.join(name[:80] for name in self.unread[:3])}{more}")
        return tuple(told)


def read(path: str | Path) -> Content:
    """All networks in a file of weights, on the CPU; nothing in the file is executed.

    Takes what torch.save wrote, safetensors, the index of sharded safetensors, and a folder with one of these as
    Hugging Face and timm publish it. Raises UserError for anything else.
    """
    path = file_of(path)
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    if path.name.endswith(INDEX):
        return Content((Entry("", _shards(path)),), {})
    if start[8:9] == b"{" and start[:2] not in (b"PK", b"\x80\x02"):
        return Content((Entry("", _safetensors(path)),), {})
    return contents(path)


def finite(state: State, source: str) -> None:
    """UserError that names the tensors with values that are not finite, if there are any."""
    broken = [name for name, value in state.items() if value.is_floating_point() and not value.float().isfinite().all()]
    if broken:
        raise UserError(f"{source} has values that are not finite, in {', '.join(broken[:3])}")


def file_of(path: str | Path) -> Path:
    """The file of weights at a path: the path itself, or the one in a published folder."""
    path = Path(path).expanduser()
    if not path.is_dir():
        return path
    for name in ("model.safetensors", f"model.safetensors{INDEX}", "pytorch_model.bin", "open_clip_model.safetensors"):
        if (path / name).is_file():
            return path / name
    raise UserError(f"cannot read {path}: it is a directory without model.safetensors or pytorch_model.bin")


def beside(path: str | Path) -> dict[str, Any]:
    """The contents of the config.json beside a published file of weights; {} if none can be read."""
    try:
        text = (file_of(path).parent / "config.json").read_bytes()
        found = json.loads(text) if len(text) < 2**22 else None
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def names_beside(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of classes in a published configuration, in the order of the outputs."""
    return names_of(config.get("label_names")) or names_of(config.get("id2label"))


def agree(content: Content, wanted: Mapping[str, Tensor], source: str, choice: str | None = None) -> Found:
    """The tensors in a file that match a network's exactly, by its names.

    `choice`: which place in the file, if several fit. Raises UserError that lists the differing names and shapes of
    what comes closest, or the places among which to choose.
    """
    needed = _without_counters(wanted)
    found = choose(content, needed, partial(_all_in, needed), source, choice)
    if not found.fits and (outer := _shared(needed)):  # the network is wrapped, the file's was not
        inner = {name.removeprefix(outer): value for name, value in wanted.items()}
        bare = choose(content, _without_counters(inner), partial(_all_in, _without_counters(inner)), source, choice)
        if bare.fits:
            renamed = {f"{outer}{name}": value for name, value in bare.tensors.items()}
            found = replace(bare, tensors=renamed)
    tensors, dropped = relevant(found.tensors, wanted)
    tensors = completed(wanted, tensors)
    check_keys(dict(wanted), tensors, source)
    more = (*found.unread, *dropped)
    return replace(found, tensors=tensors, unread=more, fits=True)


def choose(
    content: Content,
    anchors: Collection[str],
    fits: Callable[[State], bool],
    source: str,
    choice: str | None = None,
) -> Found:
    """The place in a file whose tensors fit; if none does, the one with most of the names in `anchors` (fits=False).

    Raises UserError if several places fit between which nobody can choose, or if `choice` is no place.
    """
    readable = [entry for entry in content.entries if not entry.refused]
    places = [place for entry in readable for place in _places(entry, anchors, fits)]
    lists, unmatched = _of_lists(content, places, anchors)
    places = _named_apart([*places, *lists])
    refused = {entry.place: entry.refused for entry in content.entries if entry.refused}
    refused = {place: why for place, why in refused.items() if place not in (one.name for one in lists)}
    if not readable or choice in refused:
        reason = refused[choice] if choice in refused else content.entries[0].refused
        raise UserError(f"{source} is refused: {reason}")
    if choice in unmatched:
        raise UserError(f"{choice} in {source} cannot be chosen: it holds {unmatched[choice]}")
    if choice is not None:
        places = _called(choice, places, source)
    fitting = _different([place for place in places if place.fits])
    if not fitting:
        near = max(places, key=lambda place: sum(name in place.tensors for name in anchors))
        return Found(near.tensors, near.name, (), near.unread, False, content.beside, content.class_names)
    raw = [place for place in fitting if not place.is_average] or [place for place in fitting if not place.assumed]
    if len(fitting) > 1 and len(raw) != 1:
        raise UserError(
            f"{source} holds {len(fitting)} networks that fit: {_names(fitting, 8)}; choose one with --entry"
        )
    taken = (raw or fitting)[0]
    others = tuple(place.name for place in fitting if place is not taken)
    closed = [f"{place}, {what}" for place, what in unmatched.items()]
    closed += [f"{place}, which is refused ({why})" for place, why in refused.items() if AVERAGE.search(place)]
    return Found(
        taken.tensors,
        taken.name,
        others,
        taken.unread,
        True,
        content.beside,
        content.class_names,
        tuple(closed) if choice is None else (),
        taken.assumed,
    )


@dataclass(frozen=True, eq=False)
class _Place:
    """Tensors in a file that may be a network's: under a prefix in an entry, or a list with the names of another."""

    entry: str
    prefix: str
    tensors: State
    unread: tuple[str, ...]  # names beside them
    fits: bool
    name: str  # what --entry calls it
    assumed: str = ""  # by which they got their names

    @property
    def is_average(self) -> bool:
        """Whether these are running averages of weights, as far as anybody can tell."""
        return bool(self.assumed or AVERAGE.search(self.name))


def _called(choice: str, places: list[_Place], source: str) -> list[_Place]:
    """The places that a user's choice names; UserError that says which there are."""
    name = choice.strip(".")
    exact = [place for place in places if place.name == name]
    chosen = exact or [place for place in places if place.name.startswith(f"{name}.")]
    if not chosen:
        raise UserError(f"{source} holds no entry {choice[:80]!r}; it holds {_names(places, 8)}")
    return chosen


def _names(places: list[_Place], most: int) -> str:
    """The names of places as --entry takes them."""
    names = list(dict.fromkeys(repr(place.name or ".") for place in places))
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _named_apart(places: list[_Place]) -> list[_Place]:
    """The places, where several that fit would share a name each with its whole prefix and, if need be, a number."""
    for longer in (lambda place, _: f"{place.entry}.{place.prefix}".strip("."), lambda place, n: f"{place.name}:{n}"):
        counted = Counter(place.name for place in _different([place for place in places if place.fits]))
        numbers: Counter[str] = Counter()
        renamed = []
        for place in places:
            shared = place.fits and counted[place.name] > 1
            numbers[place.name] += shared
            renamed.append(replace(place, name=longer(place, numbers[place.name])) if shared else place)
        places = renamed
    return places


def _of_lists(content: Content, places: list[_Place], anchors: Collection[str]) -> tuple[list[_Place], dict[str, str]]:
    """The lists without names as the parameters of the network beside them, whose names and buffers they get.

    Their order is that of its parameters, so they must have the shapes of these one by one. Also, by their places, what
    is in lists of the network's shapes that are not so, or that could belong to several networks.
    """
    fitting = [place for place in places if place.fits]
    bases = _different([place for place in fitting if not place.is_average]) or _different(fitting)
    found: list[_Place] = []
    unmatched: dict[str, str] = {}
    for one in content.unnamed:
        shapes = [tuple(value.shape) for value in one.tensors]
        near = [base for base in bases if Counter(shapes) <= Counter(tuple(v.shape) for v in base.tensors.values())]
        named = [(base, names) for base in near if (names := _parameters(base.tensors, anchors, shapes))]
        what = f"{len(shapes)} tensors of the same shapes without names, probably a running average"
        if len(named) == 1:
            base, names = named[0]
            more = " and its buffers" if len(names) < len(base.tensors) else ""
            assumed = (
                f"{one.place} holds tensors without names, read with those of {base.name or 'the outermost'}{more}"
            )
            tensors = base.tensors | dict(zip(names, one.tensors))
            found.append(_Place(one.place, "", tensors, base.unread, True, one.place, assumed))
        elif near:
            why = f"fits {_names(near, 8)}" if named else "does not have one for each parameter in turn"
            unmatched[one.place] = (
                f"{what}, which {why} (copy them into the network where it was trained and save its state dict to "
                "have them)"
            )
    return found, unmatched


def _parameters(state: State, anchors: Collection[str], shapes: list[tuple[int, ...]]) -> list[str]:
    """The names of a network's parameters if they have these shapes one by one, else []."""
    every = [name for name, value in state.items() if value.is_floating_point() and not _is_buffer(name)]
    orders = (every, [name for name in every if name in anchors])
    return next((names for names in orders if [tuple(state[name].shape) for name in names] == shapes), [])


def _is_buffer(name: str) -> bool:
    return name.rpartition(".")[2] in COUNTERS | DERIVED | STATISTICS


def _places(entry: Entry, anchors: Collection[str], fits: Callable[[State], bool]) -> Iterator[_Place]:
    """The prefixes of an entry under which tensors fit; if none does, the one with most of the wanted names."""
    bare = _unwrapped(entry.tensors, WRAPPERS)
    states = [bare]
    if any(".module." in name or name.startswith("module.") for name in bare):
        states.append(_unwrapped(bare, WRAPPERS | {"module"}))
    nearest: _Place | None = None
    for state in states:
        fitting = []
        for prefix, _ in _prefixes(state, anchors).most_common(50):
            inside = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
            unread = tuple(name for name in state if not name.startswith(prefix))
            label = f"{entry.place}.{prefix}".strip(".") if _is_choice(prefix) else entry.place
            place = _Place(entry.place, prefix, inside, unread, fits(inside), label)
            nearest = nearest or place
            if place.fits:
                fitting.append(place)
        if fitting:
            yield from (_alone(place, fitting, anchors, fits) for place in fitting)
            return
    yield nearest or _Place(entry.place, "", states[-1], (), False, entry.place)


def _alone(place: _Place, fitting: list[_Place], anchors: Collection[str], fits: Callable[[State], bool]) -> _Place:
    """A place without the tensors of other networks that stand under longer prefixes within it."""
    inner = {other.prefix.removeprefix(place.prefix) for other in fitting if other.prefix.startswith(place.prefix)}
    beside = {name for name in place.tensors if name not in anchors and name.startswith(tuple(inner - {""}))}
    rest = {name: value for name, value in place.tensors.items() if name not in beside}
    return replace(place, tensors=rest, unread=(*place.unread, *sorted(beside))) if beside and fits(rest) else place


def _is_choice(prefix: str) -> bool:
    """Whether a prefix says more of a network than that something is wrapped around it."""
    return any(part not in ("module", "model", "net", "network", "backbone") for part in prefix.split(".")[:-1])


def _prefixes(state: State, anchors: Collection[str]) -> Counter[str]:
    """How many of the wanted names stand under each prefix."""
    counted: Counter[str] = Counter()
    for name in state:
        rest, prefix = name, ""
        while rest:
            if rest in anchors:
                counted[prefix] += 1
            head, dot, rest = rest.partition(".")
            prefix += head + dot
    return counted


def _different(places: list[_Place]) -> list[_Place]:
    """Places without those whose tensors are those of an earlier one."""
    kept: list[_Place] = []
    for place in places:
        if not any(_same(place.tensors, other.tensors) for other in kept):
            kept.append(place)
    return kept


def _same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def _all_in(needed: Mapping[str, Tensor], state: State) -> bool:
    return all(name in state and state[name].shape == value.shape for name, value in needed.items())


def _without_counters(wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in wanted.items() if name.rpartition(".")[2] not in COUNTERS}


def _unwrapped(state: State, parts: Collection[str]) -> State:
    """The tensors without such parts of their names, unless two would then share one."""
    renamed = {".".join(part for part in name.split(".") if part not in parts): value for name, value in state.items()}
    return renamed if len(renamed) == len(state) else state


def _shared(names: Collection[str]) -> str:
    """What all names begin with, up to a point: "net." of a network that is only wrapped."""
    heads = {name.partition(".")[0] for name in names}
    return f"{next(iter(heads))}." if len(heads) == 1 and all("." in name for name in names) else ""


def stripped(state: State) -> State:
    """The tensors without the prefixes that torch's wrappers and PPA's and RoLSS's own class add to their names."""
    while any(all(name.startswith(prefix) for name in state) for prefix in ("module.", "model.", "_orig_mod.")):
        state = {name.partition(".")[2]: value for name, value in state.items()}
    return state


def relevant(state: State, wanted: Collection[str]) -> tuple[State, tuple[str, ...]]:
    """The tensors without those that only training needs, and the names of those."""
    roots = {name.partition(".")[0] for name in wanted}

    def idle(name: str) -> bool:
        first, last = name.partition(".")[0], name.rpartition(".")[2]
        return name not in wanted and (
            last in COUNTERS | DERIVED or (first not in roots and BESIDE.fullmatch(first) is not None)
        )

    dropped = tuple(name for name in state if idle(name))
    return {name: value for name, value in state.items() if name not in dropped}, dropped


def completed(wanted: Mapping[str, Tensor], state: State) -> State:
    """The tensors, with zeros for the batch counts that early files lack; nothing depends on them."""
    absent = [name for name in wanted if name.endswith("num_batches_tracked") and name not in state]
    return {**dict.fromkeys(absent, torch.zeros((), dtype=torch.long)), **state}


def check_keys(wanted: dict[str, Tensor], stored: dict[str, Tensor], source: str) -> None:
    """UserError that names up to five differing tensors and counts all, unless names, shapes and kinds agree."""
    missing = [f"{name} is missing" for name in wanted if name not in stored]
    unexpected = [f"{name[:80]} is not in the network" for name in stored if name not in wanted]
    reshaped = [
        f"{name} is {tuple(stored[name].shape)}, not {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in stored and stored[name].shape != value.shape
    ]
    rounded = [
        f"{name} holds whole numbers ({str(stored[name].dtype).removeprefix('torch.')}), as quantised files do"
        for name, value in wanted.items()
        if name in stored and value.is_floating_point() and not stored[name].is_floating_point()
    ]
    differing = [*missing, *unexpected, *reshaped, *rounded]
    if differing:
        more = f" and {len(differing) - 5} more" if len(differing) > 5 else ""
        counts = f" ({len(missing)} missing, {len(unexpected)} not in the network, {len(reshaped)} of another shape)"
        raise UserError(
            f"{source} does not fit its architecture: {'; '.join(differing[:5])}{more}{counts if more else ''}"
        )


# --- safetensors


def _safetensors(path: Path) -> State:
    try:
        with safe_open(path, "pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        line = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path} is no whole safetensors file ({line})") from None
    if not found:
        raise UserError(f"{path} is refused: it holds no tensors")
    return found


def _shards(path: Path) -> State:
    """The tensors of all files that an index names, which lie beside it."""
    try:
        text = path.read_bytes()
        table = json.loads(text)["weight_map"] if len(text) <= MOST_INDEX else None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        table = None
    shards = set(table.values()) if isinstance(table, dict) and all(type(v) is str for v in table.values()) else set()
    if not table or not 1 <= len(shards) <= MOST_SHARDS:
        raise UserError(f"{path} is no index of safetensors files: expected a table weight_map of names and files")
    if strange := [name for name in shards if Path(name).name != name or not name.endswith(".safetensors")]:
        raise UserError(f"{path} names {strange[0][:80]!r}, which is no safetensors file beside it")
    found: State = {}
    for shard in sorted(shards):
        found |= _safetensors(path.parent / shard)
    if missing := [name for name in table if name not in found]:
        raise UserError(f"{path} names {str(missing[0])[:80]}, which is in none of its {len(shards)} files")
    return found
