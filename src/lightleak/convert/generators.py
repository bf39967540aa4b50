"""Convert published GANs of the 64-pixel attacks, recognised by the names and shapes of their tensors, to priors.

Such a prior needs two files: the generator, and the critic or discriminator that was trained with it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightleak.convert.formats import FORMATS
from lightleak.convert.layouts import Shape, State, fits, nearness, recognise
from lightleak.errors import UserError
from lightleak.models import weights
from lightleak.models.weights import check_keys, completed, finite
from lightleak.priors import Prior
from lightleak.priors.conditional64 import ConditionalGenerator, ConditionalPrior, ProjectionDiscriminator
from lightleak.priors.gan64 import Critic, GanPrior, Generator, InversionPrior, MinibatchDiscriminator


@dataclass(frozen=True)
class Half:
    """The layout of one of a GAN's two networks, and the arguments that build it here."""

    name: str
    has: dict[str, Shape]
    lacks: tuple[str, ...]
    build: Callable[[State], nn.Module]


# At 64 pixels a GMI or KED-MI generator has four stages, from 8 w channels; PLG-MI's has four blocks, from 16 w.
GENERATORS: tuple[Half, ...] = (
    Half(
        "generator of GMI and KED-MI",
        {"l1.0.weight": (None, None), "l2_5.0.0.weight": (None, None, 5, 5), "l2_5.3.weight": (None, 3, 5, 5)},
        (),
        lambda state: Generator(64, len(state["l2_5.3.weight"]), state["l1.0.weight"].shape[1]),
    ),
    Half(
        "generator of PLG-MI",
        {"l1.weight": (None, None), "block2.b1.weights.weight": (None, None), "conv6.weight": (3, None, 1, 1)},
        ("block6.c1.weight",),
        lambda state: ConditionalGenerator(
            64, state["conv6.weight"].shape[1], state["l1.weight"].shape[1], len(state["block2.b1.weights.weight"])
        ),
    ),
)
CRITICS: tuple[Half, ...] = (
    Half(
        "critic of GMI (DGWGAN)",
        {"ls.0.weight": (None, 3, 5, 5), "ls.5.weight": (1, None, 4, 4)},
        (),
        lambda state: Critic(64, len(state["ls.0.weight"])),
    ),
    Half(
        "discriminator of KED-MI",
        {
            "layer1.0.weight": (None, 3, None, None),
            "layer4.0.weight": (None, None, 3, 3),
            "mbd1.T": (None, None, None),
            "fc_layer.weight": (None, None),
        },
        (),
        lambda state: MinibatchDiscriminator(
            64,
            len(state["layer1.0.weight"]),
            len(state["fc_layer.weight"]),
            kernels=state["mbd1.T"].shape[1],
            dimensions=state["mbd1.T"].shape[2],
        ),
    ),
    Half(
        "discriminator of PLG-MI",
        {
            "block1.c1.weight_orig": (None,) * 4,
            "block5.c1.weight_orig": (None,) * 4,
            "l6.weight_orig": (1, None),
            "l_y.weight_orig": (None, None),
        },
        (),
        lambda state: ProjectionDiscriminator(64, len(state["block1.c1.weight_orig"]), len(state["l_y.weight_orig"])),
    ),
)
# Which two make a prior. PLG-MI reads its generator's (-1, 1) as if it were [0, 1].
PAIRS: dict[tuple[type, type], Callable[[Any, Any], Prior]] = {
    (Generator, Critic): GanPrior,
    (Generator, MinibatchDiscriminator): InversionPrior,
    (ConditionalGenerator, ProjectionDiscriminator): lambda one, other: ConditionalPrior(one, other, "unit"),
}


def is_of_gan(state: State) -> bool:
    """Whether the tensors are those of a published GAN, or closer to one than to any published classifier."""
    return nearness(state, (*GENERATORS, *CRITICS)) > nearness(state, FORMATS)


def prior(state: State, path: str | Path, critic: str | Path | None) -> Prior:
    """The prior made of a generator's tensors and its critic's file; UserError if one of them does not fit."""
    for half in CRITICS:
        if not fits(state, half.has, half.lacks):
            raise UserError(f"{path} is a {half.name}; convert the generator, and give this with --critic")
    generator = _network(state, GENERATORS, str(path))
    if critic is None:
        raise UserError(
            f"{path} is a {generator[0]}; a prior also needs the critic or discriminator that was trained with it: "
            "--critic FILE"
        )
    names = {name for half in CRITICS for name in half.has}
    found = weights.choose(weights.read(critic), names, lambda part: nearness(part, CRITICS) == 1, str(critic))
    other = _network(found.tensors, CRITICS, str(critic))
    make = PAIRS.get((type(generator[1]), type(other[1])))
    if make is None:
        raise UserError(f"{path} is a {generator[0]}, {critic} a {other[0]}; the two were not trained together")
    return make(generator[1], other[1])


def _network(state: dict[str, Tensor], halves: tuple[Half, ...], source: str) -> tuple[str, nn.Module]:
    """What a network is, and the network with exactly these weights."""
    finite(state, source)
    half = recognise(state, halves, source)
    try:
        with torch.device("meta"):  # nothing is allocated before the shapes are checked
            wanted = half.build(state).state_dict()
    except (KeyError, IndexError, ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        what = f"{error.args[0]} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())[:120]
        raise UserError(f"{source} is no whole {half.name}: {what}") from None
    state = completed(wanted, weights.relevant(state, wanted)[0])
    check_keys(wanted, state, source)
    net = half.build(state)
    net.load_state_dict(state)
    return half.name, net
