"""`lightleak skips`: the skip connections of a network, as a table or JSON."""

from dataclasses import asdict, replace
from json import dumps as as_json
from pathlib import Path

import tyro
from rich.markup import escape
from rich.table import Table

from lightleak import surgery
from lightleak.cli.arguments import NOTHING, Own, OwnNet, check_network, classifier_of
from lightleak.cli.kinds import Count, Model
from lightleak.errors import UserError
from lightleak.models import zoo
from lightleak.models.classifier import Classifier
from lightleak.models.named import is_spec
from lightleak.models.own import is_checkpoint
from lightleak.terminal import console


def main(
    model: tyro.conf.Positional[Model | None] = None,
    size: Count | None = None,
    json: bool = False,
    joins: bool = False,
    own: OwnNet = NOTHING,
) -> None:
    """Show the skip connections of timm:NAME, torchvision:NAME, face:NAME, a checkpoint or a network of your own.

    Example: lightleak skips timm:resnet101

    Example: lightleak skips mymodel.py:make_model --size 112

    Args:
        model: a name, FILE.py:NAME, or the path of a checkpoint; a pattern such as "timm:res*" lists names that fit.
            By default the network of --net.
        size: side length of the images; by default the model's own.
        json: print JSON with everything that is known.
        joins: also list the joins that are no skips, and why.
        own: the network that a checkpoint of an own network was saved from, or weights of one.
    """
    model = _named(model, own)
    if "*" in model:
        print("\n".join(zoo.matching(model)))
        return
    classifier = _classifier(model, size, own)
    found = (surgery.find_joins if joins else surgery.find_skips)(classifier.net, classifier.example)
    if json:
        print(as_json([asdict(join) for join in found], indent=1))
        return
    skips = [join for join in found if join.is_skip]
    table = Table(title=f"{model}: {len(skips)} skip connections at {classifier.size} x {classifier.size}")
    for name in ("name", "kind", "stage", "channels", "resolution"):
        table.add_column(name, justify="right" if name in ("stage", "channels") else "left", no_wrap=True)
    if console.width >= 100 or joins:  # a narrow terminal has room for the essentials only; --json tells all
        table.add_column("goes around")
        table.add_column("projection")
    for join in found:
        row = [join.name, join.kind, str(join.stage or "–"), str(join.channels), " x ".join(map(str, join.resolution))]
        around, projection = endpoints(join.owner, join.around), endpoints(join.owner, join.projection)
        row += [around, projection] if join.is_skip else [f"no skip: {join.reason}", ""]
        table.add_row(*map(escape, row[: len(table.columns)]), style=None if join.is_skip else "dim")
    console.print(table)
    if skips:
        stages = {stage: sum(join.stage == stage for join in skips) for stage in sorted({j.stage for j in skips})}
        told = ", ".join(f"stage {stage}: {count}" for stage, count in stages.items())
        console.print(f"{told}. 'last' means stage {max(stages)}.", highlight=False)


def check_arguments(model: str | None, own: Own) -> None:
    """UserError, before anything is read, unless `model` and `own` together name one network."""
    model = _named(model, own)
    if is_spec(model):
        if own.net not in (None, model):
            raise UserError(f"{model} and --net {own.net} are two networks; give one of them")
        check_network(None, replace(own, net=model), "a checkpoint")
    elif not _is_of_library(model):
        check_network(Path(model), own, "a checkpoint")
    elif own != NOTHING:
        raise UserError(
            f"{model} is a library's network; --net, --weights, --entry, --mean, --std and --output are of a network "
            "of your own: give FILE.py:NAME in its place"
        )


def _named(model: str | None, own: Own) -> str:
    if model is None and own.net is None:
        raise UserError(
            "name a network: timm:NAME, FILE.py:NAME, a checkpoint, or --net FILE.py:NAME with --weights FILE"
        )
    return model or str(own.net)


def _is_of_library(model: str) -> bool:
    return ":" in model and not Path(model).exists()


def _classifier(model: str, size: int | None, own: Own) -> Classifier:
    if not is_spec(model) and _is_of_library(model):
        return zoo.build(model, 1000, size).eval()
    file = None if is_spec(model) else Path(model)
    saved = file is not None or (own.weights is not None and is_checkpoint(own.weights))
    if file is None:
        own = replace(own, net=model)
    classifier = classifier_of(file, own, None if saved else size)
    if size is not None:
        classifier.size = size
    return classifier


def endpoints(owner: str, modules: tuple[str, ...]) -> str:
    """The first and the last of some modules, by their names within their owner."""
    own = [name.removeprefix(f"{owner}.") for name in modules]
    return own[0] if len(own) == 1 else f"{own[0]} … {own[-1]}" if own else ""
