"""RoLSS's `skip` options as surgery: which skips the published code leaves out or scales, network by network.

The published code has a factor for each stage: 1 leaves the skips, 0 removes them, and what lies between scales them.
Names and shapes of an additive network are the same with and without its skips, so such a file does not say what
was cut: the options of its training have to be given. A DenseNet's shapes tell it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from lightleak.convert.layouts import State
from lightleak.errors import UserError
from lightleak.models.classifier import Classifier
from lightleak.surgery import find_skips, scale_skips
from lightleak.surgery.skips import Skip

Mode = Literal["all", "attention", "mlp"]
# MobileNetV2's seven groups: the first and the last of its blocks.
GROUPS = ((1, 1), (2, 3), (4, 6), (7, 10), (11, 13), (14, 16), (17, 17))


@dataclass(frozen=True)
class Cuts:
    """RoLSS's training options for skips; () and 1 mean that nothing was cut."""

    skip: tuple[float, ...] = ()  # a factor for each stage; of a MobileNetV2 for each group, of a ViT for each block
    mode: Mode = "all"  # of a transformer: which of its two kinds of skips
    split: float = 1.0  # of a ResNet: the share of stage 3 that keeps its skips; always 0.8 in the released code
    cfg: tuple[tuple[int, int, int], ...] = ()  # of a MaxViT, for each stage: MBConv, window, grid; 0 is cut
    itr: tuple[int, ...] = ()  # of a MaxViT, for each stage: how many of its layers are cut

    def __post_init__(self) -> None:
        if any(not 0 <= factor <= 1 for factor in self.skip) or not 0 <= self.split <= 1:
            raise UserError(f"factors of skips lie between 0 and 1, not {self.skip} with split {self.split}")


WHOLE = Cuts()


def cut(
    classifier: Classifier, cuts: Cuts, source: str, state: State, fill: Callable[[Classifier, State, str], Any]
) -> Classifier:
    """The classifier with these weights and the cuts of its training; `fill(classifier, state, source)` loads them.

    Weights of a network with sums are loaded whole and then cut: the published code keeps what a cut leaves unused.
    """
    architecture = classifier.architecture or ""
    if "densenet" in architecture:
        classifier = _densenet(classifier, cuts, source, state)
        fill(classifier, state, source)
        return classifier
    fill(classifier, state, source)
    if not cuts.skip and cuts.split == 1:
        return classifier
    steps: dict[float, list[Skip]] = {}
    found = find_skips(classifier.net, classifier.example)
    for skip, factor in _factors(architecture, found, cuts).items():
        if factor != 1:
            steps.setdefault(factor, []).append(skip)
    # Removing comes last: a skip that is gone would renumber the stages and the joins beside it.
    for factor in sorted(steps, reverse=True):
        chosen: Any = [skip.name for skip in steps[factor]]
        net = scale_skips(classifier.net, factor, chosen, classifier.example, wake=False)
        classifier = classifier.with_net(net)
    return classifier


def _factors(architecture: str, found: list[Skip], cuts: Cuts) -> dict[Skip, float]:
    """The factor of each skip; UserError if the options are those of another network."""
    kind = next((name for name in STAGES if name in architecture), None)
    if kind is None:
        raise UserError(
            f"the published code has no skip options for {architecture}; convert it whole and cut it with remove_skips"
        )
    stages, stage_of = STAGES[kind]
    stages = stages or max(map(stage_of, found))
    skip = cuts.skip or (1.0,) * stages
    if len(skip) != stages:
        raise UserError(f"skip has {stages} factors for {architecture}, one a stage, not {len(skip)}: {skip}")
    if cuts.split != 1 and kind != "resnet":
        raise UserError(f"split is an option of ResNets' third stage, not of {architecture}")
    if bool(cuts.cfg) != (kind == "maxvit"):
        if kind == "maxvit":
            raise UserError("without cfg, the published MaxViT leaves all skips; leave skip out, or give both")
        raise UserError(f"cfg and itr are options of MaxViT, not of {architecture}")
    factors = {each: skip[stage_of(each) - 1] for each in found}
    if kind == "convnext":  # there the factor only asks whether there is a skip
        factors = {each: float(bool(factor)) for each, factor in factors.items()}
    if kind in ("vit", "maxvit") and cuts.mode != "all":
        factors = {each: factor if _part(each) == cuts.mode else 1.0 for each, factor in factors.items()}
    if kind == "maxvit":
        factors = {each: factor if _is_cut(each, cuts) else 1.0 for each, factor in factors.items()}
    if kind == "resnet" and cuts.split != 1:
        third = [each for each in found if stage_of(each) == 3]
        factors |= dict.fromkeys(third[int(cuts.split * len(third)) :], 0.0)
    return factors


def _group(skip: Skip) -> int:
    block = _number(skip, 0)
    return next(group for group, (first, last) in enumerate(GROUPS, 1) if first <= block <= last)


def _number(skip: Skip, place: int) -> int:
    """One of the numbers in the name of the module that owns a skip."""
    return int(re.findall(r"\d+", skip.owner)[place])


def _part(skip: Skip) -> str:
    """Of a transformer block's two skips: the first goes around attention, the second around the MLP."""
    if skip.owner.endswith("MBconv"):
        return "neither"
    return "mlp" if skip.name.endswith("add_2") else "attention"


def _is_cut(skip: Skip, cuts: Cuts) -> bool:
    """Whether MaxViT's options cut this one; by default the published code leaves all of them."""
    stage, layer = _number(skip, 0), _number(skip, 1)
    place = next(i for i, name in enumerate(("MBconv", "window_attention", "grid_attention")) if name in skip.owner)
    asked = bool(cuts.cfg) and not cuts.cfg[stage][place] and (not cuts.itr or layer < cuts.itr[stage])
    if asked and place == 0 and cuts.skip[stage] != 1:
        raise UserError(
            "cfg asks to cut the skip of MaxViT's MBConv; there the published code scales the other branch by mistake, "
            "a network that surgery of skips cannot make"
        )
    return asked


# How many factors there are for a kind of network (0: one a block), and which of them is a skip's.
STAGES: dict[str, tuple[int, Callable[[Skip], int]]] = {
    "resnet": (4, lambda skip: _number(skip, 0)),  # layer4.1
    "mobilenet": (7, _group),  # features.3
    "convnext": (4, lambda skip: (_number(skip, 0) + 1) // 2),  # features.1.0, features.3.0, ...
    "efficientnet": (7, lambda skip: _number(skip, 0)),  # features.6.1
    "maxvit": (4, lambda skip: _number(skip, 0) + 1),  # blocks.0.layers.0.layers.grid_attention
    "vit": (0, lambda skip: _number(skip, 0) + 1),  # encoder.layers.encoder_layer_0, blocks.0
    "ir": (4, lambda skip: skip.stage),
}


# --- DenseNets


@dataclass(frozen=True)
class Widths:
    """The channels that the layers of a dense block read, from its input and older maps: in full, and those kept."""

    input: int
    growth: int
    kept_input: int
    kept_growth: int

    def explained_by(self, factor: float) -> bool:
        """Whether a factor keeps exactly these channels (Python rounds halves to even, as the published code does)."""
        return (round(factor * self.input), round(factor * self.growth)) == (self.kept_input, self.kept_growth)


def _densenet(classifier: Classifier, cuts: Cuts, source: str, state: State) -> Classifier:
    """The network with the cuts that the file's shapes tell."""
    told = [_widths(state, block, source) for block in (1, 2, 3, 4)]
    factors = cuts.skip or tuple(_simplest(widths, source) for widths in told)
    wrong = [block for block, (factor, widths) in enumerate(zip(factors, told), 1) if not widths.explained_by(factor)]
    if wrong or len(factors) != 4:
        shapes = tuple(_simplest(widths, source) for widths in told)
        raise UserError(f"{source} was cut with the factors {shapes}, as its shapes tell, not {factors}")
    for factor in sorted({factor for factor in factors if factor != 1}, reverse=True):
        stages = [stage for stage, each in enumerate(factors, 1) if each == factor]
        found = find_skips(classifier.net, classifier.example)
        names: Any = [skip.name for skip in found if _number(skip, 0) in stages]
        classifier = classifier.with_net(scale_skips(classifier.net, factor, names, classifier.example, wake=False))
    return classifier


def _widths(state: State, block: int, source: str) -> Widths:
    place = f"features.denseblock{block}.denselayer"
    try:
        first, second, third = (len(state[f"{place}{layer}.norm1.weight"]) for layer in (1, 2, 3))
        growth = len(state[f"{place}1.conv2.weight"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{source} does not hold a whole DenseNet: it has no {error.args[0]}") from None
    return Widths(first, growth, second - growth, third - second)


def _simplest(widths: Widths, source: str) -> float:
    """The factor with the fewest digits that explains the widths."""
    for digits in range(5):
        for number in range(10**digits + 1):
            if widths.explained_by(number / 10**digits):
                return number / 10**digits
    raise UserError(f"{source} has a dense block with widths that no factor explains: {widths}")
