"""Convert YAML settings of PPA and RoLSS to a Python file that runs, or to JSON.

Every key is known: it becomes a setting, or it is left out for a reason that is told, or it is an error. YAML is read
as plain data, without aliases.
"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from lightleak.attacks import PPA
from lightleak.convert.formats import Hints
from lightleak.convert.skips import Cuts
from lightleak.data.views import View
from lightleak.defences import SSF, Defence, NegLS, RoLSS
from lightleak.errors import UserError
from lightleak.training import Recipe

MOST_BYTES, MOST_LEVELS, MOST_SIDE = 2**20, 12, 8192
Table = dict[str, Any]

ARCHITECTURES = {
    **{f"resnet{depth}": f"torchvision:resnet{depth}" for depth in (18, 34, 50, 101, 152)},
    **{f"densenet{depth}": f"torchvision:densenet{depth}" for depth in (121, 161, 169, 201)},
    **{f"vgg{depth}": f"torchvision:vgg{depth}" for depth in (11, 13, 16, 19)},
    **{f"vgg{depth}bn": f"torchvision:vgg{depth}_bn" for depth in (11, 13, 16, 19)},
    **{f"convnext{size}": f"torchvision:convnext_{size}" for size in ("tiny", "small", "base", "large")},
    "resnext50": "torchvision:resnext50_32x4d",
    "resnext101": "torchvision:resnext101_32x8d",
    "resnest50": "timm:resnest50d",
    "resnest101": "timm:resnest101e",
    "resnest200": "timm:resnest200e",
    "resnest269": "timm:resnest269e",
    "maxvit": "torchvision:maxvit_t",
    "swinvit": "torchvision:swin_b",
    "mobilenetv2": "torchvision:mobilenet_v2",
    "vit": "torchvision:vit_b_16",
    "deit": "timm:deit_base_patch16_224",
    "inceptionv3": "torchvision:inception_v3",
    "vitb16": "timm:vit_base_patch16_224",
    "vitb32": "timm:vit_base_patch32_224",
    "vitl16": "timm:vit_large_patch16_224",
    "vitl32": "timm:vit_large_patch32_224",
    "vith14": "timm:vit_huge_patch14_224",
}
# Their data sets as ours: name and folder, and settings beside the size.
DATA: dict[str, tuple[str, tuple[tuple[str, Any], ...]]] = {
    "facescrub": ("facescrub:data/facescrub", ()),
    "celeba_identities": ("celeba:data/celeba", (("protocol", "ppa"),)),
    "stanford_dogs_cropped": ("dogs:data/stanford_dogs", (("cropped", True),)),
    "stanford_dogs_uncropped": ("dogs:data/stanford_dogs", ()),
}
# Of an additive network, the names of a stage's blocks; {} is a set of digits.
BLOCKS: dict[str, tuple[str, Callable[[int], str]]] = {
    "resnet": ("layer[{}].*", str),
    "densenet": ("features.denseblock[{}]*", str),
    "convnext": ("features.[{}].*", lambda stage: str(2 * stage - 1)),
}

RUNTIME = "decides speed, not the result"
SILENT = "Lightleak shows and stores progress itself"
SPLIT = "images are divided by seed within each class here, so that no test image chooses the best epoch"
TRAINING_IGNORED = {
    "rtpt": SILENT,
    "wandb": SILENT,
    "model.num_classes": "the data set says how many classes there are",
    "model.pretrained": "targets are trained from scratch; where this is true, the published ones were not",
    "dataset.training_set_size": SPLIT,
    "dataset.validation_set_size": SPLIT,
    "dataset.validation_split_ratio": SPLIT,
    "training.dataloader_num_workers": RUNTIME,
    "training.save_path": SILENT,
}
ATTACK_IGNORED = {
    "rtpt": SILENT,
    "wandb": SILENT,
    "wandb_target_run": "weights are read from files; set TARGET",
    "wandb_evaluation_run": "weights are read from files; set JUDGE",
    "dataset": "distances to private images are measured by 'lightleak evaluate --data'",
    "target_model.num_classes": "the file says how many classes there are",
    "evaluation_model.num_classes": "the file says how many classes there are",
    "candidates.candidate_search.batch_size": RUNTIME,
    "candidates.candidate_search.horizontal_flip": "candidates are scored with their mirror images, as there",
    "candidates.candidate_search.clip": "images are scored within [0, 1]",
    "attack.log_progress": SILENT,
}


@dataclass(frozen=True)
class Converted:
    """What a YAML file asks for."""

    kind: str  # "training" or "attack"
    architecture: str
    size: int
    seed: int
    data: str = ""  # of a training: our name of the data set, where the published code keeps it
    reading: tuple[tuple[str, Any], ...] = ()  # and how it is read
    recipe: Recipe | None = None
    defences: tuple[Defence, ...] = ()
    attack: PPA | None = None
    prior: tuple[tuple[str, Any], ...] = ()  # of an attack: how the generator's file is used
    classes: tuple[int, ...] = ()  # of an attack; (): all
    hints: Hints = Hints()  # of an attack: what the target's file does not say
    files: tuple[str, str, str] = ("", "", "")  # of an attack: generator, target, judge
    ignored: tuple[tuple[str, str], ...] = ()  # keys and why

    def to_json(self) -> str:
        """All of it as JSON."""
        named = {type(defence).__name__: asdict(defence) for defence in self.defences}  # pyright: ignore[reportArgumentType]
        values = {**asdict(self), "defences": named, "ignored": dict(self.ignored), "prior": dict(self.prior)}
        values["reading"] = dict(self.reading)
        return json.dumps(values, indent=1)


def settings(path: str | Path) -> Converted:
    """What a training or attack YAML of PPA or RoLSS asks for; UserError that names keys it does not know."""
    given = _Keys(_read(Path(path)), str(path))
    if "attack" in given.table:
        return _attack(given)
    if "training" in given.table:
        return _training(given)
    raise UserError(f"{path} has neither 'training' nor 'attack', so it is no settings file of PPA or RoLSS")


def as_python(asked: Converted, source: str) -> str:
    """The source of a Python file that does what the YAML asks for: a study for a training, a program for an attack."""
    told = "\n".join(f"    {key}: {why}" for key, why in asked.ignored)
    ignored = f"\n\nLeft out:\n\n{told}" if told else ""
    return (_study if asked.kind == "training" else _program)(asked, source, ignored)


# --- reading


class _Loader(yaml.SafeLoader):
    """Plain data only; an alias could unfold a small file into a large one, and a key given twice hides one."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("it uses aliases (*name)")
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        if twice := [key for key in keys if isinstance(key, str) and keys.count(key) > 1]:
            raise yaml.YAMLError(f"it has the key {twice[0]!r} twice")
        return super().construct_mapping(node, deep)


def _read(path: Path) -> Table:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    if len(data) > MOST_BYTES:
        raise UserError(f"{path} is larger than a settings file")
    try:
        found = yaml.load(data.decode(), _Loader)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, OverflowError) as error:
        raise UserError(f"{path} is no plain YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no settings, expected keys such as 'model' and 'training'")
    return found


class _Keys:
    """The keys of a file; those that were asked for or are ignored are ticked off, the others are an error."""

    def __init__(self, table: Table, source: str) -> None:
        self.table, self.source = table, source
        self.known: set[str] = set()

    def take(self, key: str, kind: type | tuple[type, ...], default: Any = ...) -> Any:
        """A value by dotted key; UserError if it is missing without a default, or of another kind."""
        self.known.add(key)
        here: Any = self.table
        for part in key.split("."):
            here = here.get(part) if isinstance(here, dict) else None
        if here is None:
            if default is ...:
                raise UserError(f"{self.source} does not say {key}")
            return default
        if not isinstance(here, kind) or (isinstance(here, bool) and kind not in (bool, (bool,))):
            names = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
            raise UserError(f"{self.source}: {key} is {_shortened(here)}, expected {names}")
        return here

    def only(self, key: str, default: Any = ...) -> tuple[str, Table]:
        """A table with one entry, a class's name and its arguments."""
        table = self.take(key, dict, default)
        if table is default:
            return "", {}
        if len(table) != 1:
            raise UserError(f"{self.source}: {key} names {len(table)} classes, expected one")
        ((name, arguments),) = table.items()
        return str(name), _table(arguments, f"{self.source}: {key}.{name}")

    def finish(self, ignored: dict[str, str]) -> tuple[tuple[str, str], ...]:
        """The keys that were left out, with the reasons; UserError that names all that are unknown."""
        reasons: dict[str, str] = {}
        unknown: list[str] = []
        inner = (*self.known, *ignored)
        parents = {key[:place] for key in inner for place, letter in enumerate(key) if letter == "."}

        def walk(table: Table, prefix: str, level: int) -> None:
            for name, value in table.items():
                key = f"{prefix}{name}"
                if key in ignored:
                    reasons[key] = ignored[key]
                elif isinstance(value, dict) and key in parents and key not in self.known and level < MOST_LEVELS:
                    walk(value, f"{key}.", level + 1)
                elif key not in self.known:
                    unknown.append(" ".join(key.split())[:60])

        walk(self.table, "", 0)
        if unknown:
            more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
            raise UserError(f"{self.source} has unknown keys: {', '.join(unknown[:8])}{more}")
        return tuple(reasons.items())


def _table(value: Any, place: str) -> Table:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UserError(f"{place} is {_shortened(value)}, expected a table of arguments")
    return value


def _arguments(found: Table, known: Table, place: str) -> Table:
    """Arguments over their defaults; UserError for unknown ones, and for those that can have one value alone.

    A default in a one-element tuple is the only value that is meant.
    """
    for name, value in found.items():
        if name not in known:
            raise UserError(f"{place} has an unknown argument {str(name)[:40]!r}; known are {', '.join(known)}")
        only = known[name]
        if isinstance(only, tuple) and len(only) == 1 and value != only[0] and _listed(value) != _listed(only[0]):
            raise UserError(f"{place}: {name} is {_shortened(value)[:40]}; Lightleak has only {only[0]!r}")
    return {name: found.get(name, known[name]) for name in known}


def _number(value: Any, place: str) -> float:
    """A finite number; YAML reads 1e-3 as text, so text that says one is one."""
    try:
        found = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise UserError(f"{place} is {_shortened(value)}, expected a number")
    return found


def _shortened(value: Any) -> str:
    """A value in few letters; Python refuses to write whole numbers of thousands of digits."""
    try:
        return repr(value)[:60]
    except ValueError:
        return "a number of thousands of digits"


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def _architecture(given: _Keys, key: str) -> tuple[str, bool]:
    """Our name of an architecture, and whether it is one whose skips are cut."""
    named = given.take(key, str)
    name = named.lower().replace("-", "").replace("_", "").strip()
    found = ARCHITECTURES.get(name.removesuffix("skip"))
    if found is None:
        raise UserError(f"{given.source}: {key} {named[:60]!r} is unknown; known are {', '.join(ARCHITECTURES)}")
    return found, name.endswith("skip")


def _side(given: _Keys, key: str, default: Any = ..., most: int = 1024) -> int:
    value = given.take(key, (int, list), default)
    sides = value if isinstance(value, list) else [value]
    if not all(type(side) is int for side in sides) or len(set(sides)) != 1 or not 8 <= sides[0] <= most:
        raise UserError(f"{given.source}: {key} is {_shortened(value)}, expected one side of 8 to {most} pixels")
    return sides[0]


def _given_number(given: _Keys, key: str, default: float) -> float:
    return _number(given.take(key, (int, float), default), f"{given.source}: {key}")


# --- training


def _training(given: _Keys) -> Converted:
    architecture, skips = _architecture(given, "model.architecture")
    epochs = given.take("training.num_epochs", int)
    recipe = Recipe(
        epochs=epochs,
        batch=given.take("training.batch_size", int),
        milestones=(),
        view=View(),
        **_optimiser(given),
    )
    milestones, gamma = _milestones(given, "lr_scheduler")
    if epochs:
        recipe = replace(recipe, milestones=tuple(m / epochs for m in milestones if m < epochs), gamma=gamma)
    size = _side(given, "dataset.image_size")
    view, seen = _views(given, "transformations")
    defences = _defences(given, architecture, skips)
    smoothing = _given_number(given, "training.label_smoothing", 0.0)
    if smoothing > 0:
        raise UserError(f"{given.source}: label_smoothing {smoothing} makes a model leak more; NegLS wants it below 0")
    if smoothing < 0:
        defences = (*defences, NegLS(float(smoothing)))
    data = given.take("dataset.type", str)
    if data not in DATA:
        raise UserError(f"{given.source}: dataset.type {data[:40]!r} is unknown; known are {', '.join(DATA)}")
    group = given.take("dataset.facescrub_group", str, "all")
    if group != "all":
        raise UserError(f"{given.source}: dataset.facescrub_group is {group[:40]!r}; Lightleak reads all of FaceScrub")
    name, reading = DATA[data]
    return Converted(
        "training",
        architecture,
        seen or size,
        given.take("seed", int, 42),
        name,
        (("size", seen or size), *reading),
        replace(recipe, view=view),
        defences,
        ignored=given.finish(TRAINING_IGNORED),
    )


def _optimiser(given: _Keys) -> Table:
    name, found = given.only("optimizer")
    place = f"{given.source}: optimizer.{name}"
    if name in ("Adam", "AdamW"):
        decay = 0.0 if name == "Adam" else 1e-2
        known = {"lr": 1e-3, "weight_decay": decay, "betas": ([0.9, 0.999],), "eps": (1e-8,), "amsgrad": (False,)}
    elif name == "SGD":
        known = {"lr": 1e-3, "weight_decay": 0.0, "momentum": 0.0, "nesterov": (False,), "dampening": (0,)}
    else:
        raise UserError(f"{place} is unknown; Lightleak trains with Adam, AdamW or SGD")
    values = _arguments(found, known, place)
    ours = {"lr": "rate", "weight_decay": "weight_decay", "momentum": "momentum"}
    said = f"{place}: lr and weight_decay are numbers"
    numbers = {ours[key]: _number(values[key], f"{said}; {key}") for key in ours if key in values}
    return {"optimiser": name.lower(), **numbers}


def _milestones(given: _Keys, key: str) -> tuple[tuple[int, ...], float]:
    name, found = given.only(key, None)
    if not name:
        return (), 0.1
    if name != "MultiStepLR":
        raise UserError(f"{given.source}: {key}.{name} is unknown; Lightleak has MultiStepLR")
    values = _arguments(found, {"milestones": [], "gamma": 0.1}, f"{given.source}: {key}.{name}")
    steps, gamma = values["milestones"], values["gamma"]
    if not isinstance(steps, list) or not all(type(step) is int and step > 0 for step in steps):
        raise UserError(f"{given.source}: {key}.{name}: milestones is {_shortened(steps)}, expected whole numbers")
    return tuple(steps), _number(gamma, f"{given.source}: {key}.{name}: gamma")


def _views(given: _Keys, key: str) -> tuple[View, int | None]:
    """The random view that torchvision's classes make, and the side that it ends with."""
    view, side = View(), None
    for name, found in given.take(key, dict, {}).items():
        place = f"{given.source}: {key}.{name}"
        found = _table(found, place)
        if name == "RandomResizedCrop":
            known = {"size": None, "scale": [0.08, 1.0], "ratio": [3 / 4, 4 / 3], "antialias": (True,)}
            values = _arguments(found, known, place)
            side = values["size"][0] if isinstance(values["size"], list) and values["size"] else values["size"]
            view = replace(view, scale=_span(values["scale"], place), ratio=_span(values["ratio"], place))
        elif name == "ColorJitter":
            known: Table = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
            values = _arguments(found, known, place).items()
            view = replace(view, **{name: _number(value, f"{place}: {name}") for name, value in values})
        elif name == "RandomHorizontalFlip":
            view = replace(view, flip=_number(_arguments(found, {"p": 0.5}, place)["p"], f"{place}: p"))
        elif name in ("Resize", "CenterCrop") and key != "transformations":
            continue  # of attacks; read there
        else:
            raise UserError(f"{place} is unknown; known are RandomResizedCrop, ColorJitter and RandomHorizontalFlip")
    if side is not None and (type(side) is not int or not 8 <= side <= 1024):
        raise UserError(f"{given.source}: {key}.RandomResizedCrop: size is {_shortened(side)[:40]}, expected a side")
    return view, side


def _span(value: Any, place: str) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2:
        raise UserError(f"{place}: expected two numbers, got {_shortened(value)[:40]}")
    return _number(value[0], place), _number(value[1], place)


def _cuts(given: _Keys, model: str) -> Cuts:
    skip = given.take(f"{model}.skip", list, [])
    mode = given.take(f"{model}.mode", str, "all")
    cfg, itr = given.take(f"{model}.cfg", list, []), given.take(f"{model}.itr", list, [])
    if mode not in ("all", "attention", "mlp"):
        raise UserError(f"{given.source}: {model}.mode is all, attention or mlp, not {mode[:40]!r}")
    whole = [*itr, *(part for each in cfg if isinstance(each, list) for part in each)]
    triples = all(isinstance(each, list) and len(each) == 3 for each in cfg)
    if not triples or not all(type(each) is int and 0 <= each < 1000 for each in whole):
        raise UserError(f"{given.source}: {model}.skip, cfg and itr are lists of numbers")
    factors = tuple(
        _number(each, f"{given.source}: {model}.skip, cfg and itr are lists of numbers; one") for each in skip
    )
    return Cuts(factors, mode, cfg=tuple(map(tuple, cfg)), itr=tuple(itr))


def _defences(given: _Keys, architecture: str, skips: bool) -> tuple[Defence, ...]:
    """The skips that training leaves out or scales, as a defence."""
    cuts = _cuts(given, "model")
    if not cuts.skip or set(cuts.skip) == {1.0}:
        return ()
    if not skips:
        raise UserError(f"{given.source}: skip does nothing there, for the architecture's name does not end in _skip")
    kind = next((name for name in BLOCKS if name in architecture), None)
    factors = {factor for factor in cuts.skip if factor != 1}
    stages = [stage for stage, factor in enumerate(cuts.skip, 1) if factor != 1]
    if "vit_b_16" in architecture and len(stages) == 1:
        block = f"encoder.layers.encoder_layer_{stages[0] - 1}."
        where = block + {"all": "*", "attention": "add", "mlp": "add_2"}[cuts.mode]
    elif kind and len(cuts.skip) == 4:
        if kind == "convnext":
            factors = {float(bool(factor)) for factor in factors} - {1.0}
            stages = [stage for stage, factor in enumerate(cuts.skip, 1) if not factor]
        pattern, digit = BLOCKS[kind]
        where = "last" if stages == [4] else pattern.format("".join(map(digit, stages)))
    else:
        raise UserError(
            f"{given.source}: no defence says what skip {list(cuts.skip)} of {architecture} means; "
            "name the skips with RoLSS(where=...), 'lightleak skips' lists them"
        )
    if len(factors) > 1:
        raise UserError(f"{given.source}: skip has two factors, {sorted(factors)}; a defence has one")
    factor = factors.pop() if factors else 1.0
    return () if factor == 1 else (RoLSS(where),) if factor == 0 else (SSF(factor, where),)


# --- attacks


def _attack(given: _Keys) -> Converted:
    architecture, _ = _architecture(given, "target_model.architecture")
    _architecture(given, "evaluation_model.architecture")
    search = "candidates.candidate_search"
    if given.take("candidates.candidate_file", str, ""):
        raise UserError(f"{given.source}: candidate_file is read by no version of the published code; remove it")
    view, side = _views(given, "attack.transformations")
    transforms = given.take("attack.transformations", dict, {})
    crop = given.take(f"{search}.center_crop", (int, list), 0) or None
    crop = _side(given, f"{search}.center_crop", most=MOST_SIDE) if crop else None
    cropped = _table(transforms.get("CenterCrop"), "CenterCrop").get("size")
    if "CenterCrop" in transforms and _listed(cropped) not in (crop, [crop], [crop, crop]):
        raise UserError(f"{given.source}: candidates are cropped to {crop}, but attacked at {cropped}; expected one")
    size = _side(given, f"{search}.resize", side or 224)
    name, found = given.only("attack.optimizer")
    if name != "Adam":
        raise UserError(f"{given.source}: attack.optimizer is {name[:40]!r}; PPA descends with Adam")
    adam = {"lr": 0.005, "betas": ([0.1, 0.1],), "weight_decay": (0,), "eps": 1e-8}
    adam = _arguments(found, adam, f"{given.source}: attack.optimizer.Adam")
    steps, gamma = _milestones(given, "attack.lr_scheduler")
    if gamma != 0.1:
        raise UserError(f"{given.source}: attack.lr_scheduler: gamma is {gamma}; PPA's rate falls to a tenth")
    attempts = given.take("candidates.num_candidates", int)
    if given.take("final_selection.approach", str, "transforms") != "transforms":
        raise UserError(f"{given.source}: final_selection.approach is unknown; PPA selects by transforms")
    single = given.take("attack.single_w", bool, True)
    cutoff = given.take(f"{search}.truncation_cutoff", int, None)
    attack = PPA(
        candidates=given.take(f"{search}.search_space_size", int),
        attempts=attempts,
        keep=given.take("final_selection.samples_per_target", int, attempts),
        steps=given.take("attack.num_epochs", int),
        rate=_number(adam["lr"], f"{given.source}: attack.optimizer.Adam: lr"),
        milestones=steps,
        critic=_given_number(given, "attack.discriminator_loss_weight", 0.0),
        view=view,
        views=given.take("final_selection.iterations", int, 100),
        cutoff=cutoff if single else None,
        batch=given.take("attack.batch_size", int, 64),
    )
    prior = {
        "crop": crop,
        "psi": _given_number(given, f"{search}.truncation_psi", 1.0),
        "space": "w" if single else "w+",
        "cutoff": None if single else cutoff,
        "clip": given.take("attack.clip", bool, False),
    }
    targets = given.take("attack.targets", (str, int, list), "all")
    targets = [targets] if isinstance(targets, int) else targets
    if targets != "all" and not (isinstance(targets, list) and all(type(t) is int and t >= 0 for t in targets)):
        raise UserError(f"{given.source}: attack.targets is {_shortened(targets)}, expected all, a class or a list")
    files = (given.take("stylegan_model", str), _weights(given, "target"), _weights(given, "evaluation"))
    return Converted(
        "attack",
        architecture,
        size,
        given.take("seed", int, 42),
        attack=attack,
        prior=tuple(prior.items()),
        classes=() if targets == "all" else tuple(targets),
        hints=Hints(size=size, cuts=_cuts(given, "target_model")),
        files=files,
        ignored=given.finish(ATTACK_IGNORED),
    )


def _weights(given: _Keys, model: str) -> str:
    return given.take(f"{model}_model.weights", str, "") or f"{model}.pth"


# --- Python files


def _study(asked: Converted, source: str, ignored: str) -> str:
    names = sorted({type(defence).__name__ for defence in asked.defences})
    reading = ", ".join(f"{name}={value!r}" for name, value in asked.reading)
    imports = f"from lightleak.defences import {', '.join(names)}\n" if names else ""
    return f'''"""The training that {source} asks for, as a study: lightleak study THIS_FILE --here 1{ignored}
"""

from lightleak.data.views import View
{imports}from lightleak.study.tasks import TrainTarget, source
from lightleak.training import Recipe

DATA = {asked.data!r}  # where it lies
RECIPE = {asked.recipe!r}
DEFENCES = {asked.defences!r}


def tasks():
    population = source(DATA, {reading})  # split="published" for the papers' numbers
    yield TrainTarget(population, {asked.architecture!r}, RECIPE, DEFENCES, seed={asked.seed})
'''


def _program(asked: Converted, source: str, ignored: str) -> str:
    prior = ", ".join(f"{name}={value!r}" for name, value in asked.prior)
    generator, target, judge = asked.files
    return f'''"""The attack that {source} asks for: python THIS_FILE{ignored}
"""

import torch

from lightleak.attacks import PPA, Oracle
from lightleak.convert import Cuts, Hints, convert
from lightleak.data.views import View
from lightleak.place import choose, here

GENERATOR = {generator!r}  # the published files, as they are
TARGET = {target!r}
JUDGE = {judge!r}
HINTS = {asked.hints!r}  # skip: what the target's training left out
ATTACK = {asked.attack!r}
CLASSES = {asked.classes!r}  # (): all
OUT = "reconstructions.safetensors"


def main():
    prior = convert(GENERATOR, {prior})
    target, judge = convert(TARGET, HINTS), convert(JUDGE)
    classes = torch.tensor(CLASSES) if CLASSES else torch.arange(target.classes)
    found = ATTACK.run(Oracle(target, ATTACK.access), prior, classes, torch.Generator().manual_seed({asked.seed}))
    found.save(OUT)
    seen = found.drawn_by(prior)  # as large as the generator draws them
    with torch.no_grad():
        parts = torch.arange(len(found)).split(16)
        named = torch.cat([judge(here().put(seen.floats(rows))).argmax(1).cpu() for rows in parts])
    right = (named == found.classes).double().mean()
    print(f"{{OUT}}: {{len(found)}} images of {{len(classes)}} people; the judge names {{right:.1%}} of them")


if __name__ == "__main__":
    with choose("auto").entered():  # a GPU where there is one
        main()
'''
