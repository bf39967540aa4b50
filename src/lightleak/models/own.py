"""A network that the user's own Python makes: `mymodel.py:make_model`, with weights from any container.

Their Python is executed, as `python mymodel.py` would be: that is their choice. Files of weights execute nothing.
"""

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from lightleak.errors import UserError
from lightleak.models import normalisation, trial, weights
from lightleak.models.classifier import load
from lightleak.models.named import file_and_name
from lightleak.models.normalisation import Normalisation
from lightleak.models.trial import Item
from lightleak.models.wrap import Classifier, say
from lightleak.place import here

# Where libraries note the side of the images that a network takes, and what their functions call the number of classes.
SIDES = ("pretrained_cfg.input_size", "default_cfg.input_size", "config.image_size", "visual.image_size")
OWN_SIDES = ("input_size", "image_size", "img_size", "size")
CLASSES = ("num_classes", "classes", "n_classes", "num_labels", "nb_classes")


def own(
    spec: str | nn.Module,
    weights_file: str | Path | None = None,
    *,
    size: int | tuple[int, int] | None = None,
    classes: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    class_names: tuple[str, ...] = (),
    entry: str | None = None,
    output: Item = None,
) -> Classifier:
    """The Classifier around a network that `spec`, FILE.py:NAME, makes, with weights from a file, in eval mode.

    NAME is a function or class that returns any `nn.Module` when it is called without arguments (or with the number of
    classes alone), or such a module; a module may also be given itself. Its Python is executed. `weights_file`: any
    container that `weights.read` takes, of which nothing is executed; None: the weights that NAME's network has.
    `size`, `classes`, `mean`, `std`: None for what the network says of itself. `entry`: which of several networks in
    the file. `output`: which of several outputs. What was concluded rather than stated is in `notes`. Raises UserError,
    in one line, for weights of another network, and for what cannot be read.
    """
    net = unwrapped(spec if isinstance(spec, nn.Module) else made(spec, classes))
    origin = None if isinstance(spec, nn.Module) else spec
    content = None if weights_file is None else weights.read(weights_file)
    told: dict[str, Any] = {}
    notes: tuple[str, ...] = ()
    if content is not None:
        found = weights.agree(content, net.state_dict(), str(weights_file), entry)
        net.load_state_dict(found.tensors)
        notes = found.notes
        for note in notes:
            say(note)
        config = weights.beside(str(weights_file))
        class_names = class_names or found.class_names or weights.names_beside(config)
        told = {
            "file": Path(str(weights_file)).name,
            "entry": found.place,
            "beside": found.beside,
            "notes": list(notes),
        }
    sides = size if size is not None else side_of(net)
    if sides is None:
        raise UserError(f"{spec} does not say which images it takes; state their side in pixels, --size")
    count = classes or _counted(net, sides, normalisation.of(net, mean, std), len(mean) if mean else None, output)
    named = class_names if len(class_names) == count else ()
    result = Classifier(
        net, size=sides, classes=count, mean=mean, std=std, class_names=named, output=output, origin=origin
    )
    result.reading = replace(result.reading, notes=(*notes, *result.reading.notes))
    result.record = {"own": {"net": origin or type(net).__name__, **told}}
    return result.eval()


def opened(
    spec: str | None,
    file: str | Path | None,
    *,
    size: int | tuple[int, int] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    entry: str | None = None,
    output: Item = None,
) -> Classifier:
    """The classifier in a checkpoint of Lightleak's, or the network of `spec`, FILE.py:NAME, with a file's weights.

    A saved Classifier of an own network is rebuilt with `spec`; its record, surgery, size, normalisation and choice of
    output are kept. Raises UserError if it is asked for others.
    """
    saved = file is not None and is_checkpoint(file)
    if saved and not (entry is mean is std is None):
        raise UserError(f"{file} says itself how its images are normalised: leave --mean, --std and --entry out")
    if saved and size is not None:
        raise UserError(f"{file} says at how many pixels its network sees: leave --size out")
    if spec is None:
        if file is None:
            raise UserError("give a checkpoint, or --net FILE.py:NAME with --weights FILE")
        return load(file)
    if file is not None and saved:
        found = load(file, unwrapped(made(spec)))
        if output is not None and str(output) != found.reading.item:
            kept = "its only output" if found.reading.item is None else f"output {found.reading.item!r}"
            raise UserError(
                f"{file} was saved with {kept} as the logits; leave --output {output} out, or convert again"
            )
        return here().put(found)
    return here().put(own(spec, file, size=size, mean=mean, std=std, entry=entry, output=output))


def is_checkpoint(path: str | Path) -> bool:
    """Whether a file is a Classifier that Lightleak saved."""
    try:
        with safe_open(path, "pt") as file:
            return "lightleak" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def made(spec: str, classes: int | None = None) -> nn.Module:
    """The network that FILE.py:NAME makes, by executing that file; UserError that says where its code failed."""
    path, name = file_and_name(spec)
    say(f"the Python in {path} is executed, as you asked for {spec}; files of weights execute nothing")
    with _explained(spec, path):
        module = _imported(path)
    if not hasattr(module, name):
        public = [each for each, value in vars(module).items() if callable(value) and not each.startswith("_")]
        raise UserError(f"{path} has no {name!r}; it has {', '.join(public[:8]) or 'no functions'}")
    maker = getattr(module, name)
    if not isinstance(maker, nn.Module):
        if not callable(maker):
            raise UserError(f"{spec} is of type {type(maker).__name__}, expected a function, a class or a network")
        arguments = _arguments(maker, spec, classes)
        with _explained(spec, path):
            maker = maker(**arguments)
    if not isinstance(maker, nn.Module):
        raise UserError(f"{spec} returns something of type {type(maker).__name__}, expected a torch.nn.Module")
    return maker


def unwrapped(net: nn.Module) -> nn.Module:
    """The network inside the wrappers of torch.compile and DataParallel."""
    while True:
        inner = getattr(net, "_orig_mod", None)
        if inner is None and isinstance(net, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = net.module
        if not isinstance(inner, nn.Module):
            return net
        net = inner


def side_of(net: nn.Module) -> int | tuple[int, int] | None:
    """The side of the images that a network says it takes, or their height and width; None if it does not say."""
    for place in (*SIDES, *OWN_SIDES):
        here: Any = net
        for part in place.split("."):
            here = here.get(part) if isinstance(here, dict) else getattr(here, part, None)
        if type(here) is int and here > 0:
            return here
        if isinstance(here, tuple | list) and len(here) in (2, 3) and all(type(side) is int for side in here):
            height, width = here[-2:]
            return height if height == width else (height, width)
    return None


def _imported(path: Path) -> Any:
    """The file as a module; what lies beside it can be imported, as when Python runs it."""
    name = f"_lightleak_own_{path.resolve().as_posix().encode().hex()[-40:]}"
    described = importlib.util.spec_from_file_location(name, path.resolve())
    if described is None or described.loader is None:
        raise UserError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(described)
    folder = str(path.resolve().parent)
    sys.modules[name] = module  # dataclasses and pickles in it look themselves up
    sys.path.insert(0, folder)
    try:
        described.loader.exec_module(module)
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
    return module


def _arguments(maker: Any, spec: str, classes: int | None) -> dict[str, Any]:
    """The number of classes, if a function asks for it; UserError if it asks for more."""
    try:
        parameters = inspect.signature(maker).parameters.values()
    except (TypeError, ValueError):
        return {}
    free = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    named = [p.name for p in parameters if p.name in CLASSES]
    asked = {named[0]: classes} if named and classes is not None else {}
    if missing := [p.name for p in free if p.name not in asked]:
        raise UserError(f"{spec} wants arguments ({', '.join(missing)}); name a function that needs none")
    return asked


@contextmanager
def _explained(spec: str, path: Path) -> Iterator[None]:
    """Errors of the user's own code, as one line that says where."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        steps = [step for step in traceback.extract_tb(error.__traceback__) if Path(step.filename) == path.resolve()]
        line = getattr(error, "lineno", None) or (steps[-1].lineno if steps else None)
        where = f", line {line} of {path.name}" if line else ""
        told = " ".join(str(error).split())[:160]
        raise UserError(f"{spec} failed: {type(error).__name__}: {told}{where}") from error


def _counted(
    net: nn.Module, sides: int | tuple[int, int], told: Normalisation, channels: int | None, output: Item
) -> int:
    """How many classes a network knows, by what it returns."""
    both = (sides, sides) if isinstance(sides, int) else sides
    return trial.width(net, both, (told.mean, told.std), channels, output)


__all__ = ["is_checkpoint", "made", "opened", "own", "side_of", "unwrapped"]
