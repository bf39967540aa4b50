"""Convert official StyleGAN2-ADA files to a prior.

The networks are rebuilt from the arguments that the file names, and take its weights only if all names and shapes
agree. A file of another kind of network (class-conditional, another activation or filter) is refused with what
differs.
"""

from pathlib import Path
from typing import Any

import torch

from lightleak.errors import UserError
from lightleak.models.foreign import Network, networks
from lightleak.models.weights import check_keys
from lightleak.priors.stylegan2 import FIR, Discriminator, Generator, StyleGAN2Prior, fir

# The arguments that an official network may have been built with, and the only value that is meant here; ANY: those
# which become settings, and those which decide nothing in single precision without classes.
ANY = object()


def _any(*names: str) -> dict[str, Any]:
    return dict.fromkeys(names, ANY)


GENERATOR: dict[str, dict[str, Any]] = {
    "": {"c_dim": 0, "img_channels": 3, **_any("z_dim", "w_dim", "img_resolution")},
    "mapping_kwargs": {
        "activation": "lrelu",
        "lr_multiplier": 0.01,
        **_any("num_layers", "embed_features", "layer_features", "w_avg_beta"),
    },
    "synthesis_kwargs": {
        "architecture": "skip",
        "use_noise": True,
        "activation": "lrelu",
        "resample_filter": list(FIR),
        **_any("channel_base", "channel_max", "num_fp16_res", "conv_clamp", "fp16_channels_last"),
    },
}
CRITIC: dict[str, dict[str, Any]] = {
    "": {
        "c_dim": 0,
        "img_channels": 3,
        "architecture": "resnet",
        **_any("img_resolution", "channel_base", "channel_max", "num_fp16_res", "conv_clamp", "cmap_dim"),
    },
    "block_kwargs": {
        "activation": "lrelu",
        "resample_filter": list(FIR),
        **_any("freeze_layers", "fp16_channels_last"),
    },
    "mapping_kwargs": _any(
        "num_layers", "embed_features", "layer_features", "activation", "lr_multiplier", "w_avg_beta"
    ),
    "epilogue_kwargs": {"activation": "lrelu", "mbstd_num_channels": 1, "mbstd_group_size": ANY},
}


def convert(path: str | Path, **usage: Any) -> StyleGAN2Prior:
    """The prior in an official StyleGAN2-ADA pickle (its G_ema and, if there, D); `usage` sets the prior's fields.

    Nothing in the file is executed. UserError names what differs from the networks of StyleGAN2Prior.
    """
    found = networks(path, ("G_ema", "D"))
    if "G_ema" not in found:
        raise UserError(f"{path} holds no G_ema, the generator that attacks use")
    critic = _critic(found["D"], f"{path}: D") if "D" in found else None
    return StyleGAN2Prior(_generator(found["G_ema"], f"{path}: G_ema"), critic, **usage)


def _generator(network: Network, source: str) -> Generator:
    given = _arguments(network, "Generator", GENERATOR, source)
    top, synthesis = given[""], given["synthesis_kwargs"]
    if missing := [name for name in ("z_dim", "w_dim", "img_resolution") if name not in top]:
        raise UserError(f"{source} does not say its {', '.join(missing)}")
    with torch.device("meta"):  # nothing is allocated before the shapes are checked
        net = Generator(
            top["img_resolution"],
            top["z_dim"],
            top["w_dim"],
            given["mapping_kwargs"].get("num_layers", 8),
            synthesis.get("channel_base", 32768),
            synthesis.get("channel_max", 512),
            synthesis.get("conv_clamp"),
        )
    return _filled(net, network, source)


def _critic(network: Network, source: str) -> Discriminator:
    given = _arguments(network, "Discriminator", CRITIC, source)
    top = given[""]
    with torch.device("meta"):
        net = Discriminator(
            top.get("img_resolution", 0),
            top.get("channel_base", 32768),
            top.get("channel_max", 512),
            top.get("conv_clamp"),
            given["epilogue_kwargs"].get("mbstd_group_size", 4),
        )
    return _filled(net, network, source)


def _arguments(network: Network, kind: str, known: dict[str, dict[str, Any]], source: str) -> dict[str, dict[str, Any]]:
    """The network's arguments by group; UserError names those that make it another network than ours."""
    if network.kind != kind:
        raise UserError(f"{source} is a {network.kind[:40]!r}, expected a {kind}")
    given = {group: network.arguments.get(group) or {} for group in known if group}
    given[""] = {name: value for name, value in network.arguments.items() if name not in given}
    problems = []
    for group, values in given.items():
        if not isinstance(values, dict):
            problems.append(f"{group} is no table")
            continue
        for name, value in values.items():
            expected = known[group].get(name)
            if name not in known[group]:
                problems.append(f"the setting {str(name)[:40]!r} is unknown")
            elif expected is not ANY and value != expected:
                problems.append(f"{name} is {repr(value)[:40]}, not {expected!r}")
    if problems:
        raise UserError(f"{source} is another kind of network than can be used: {'; '.join(problems[:5])}")
    return given


def _filled(net: Any, network: Network, source: str) -> Any:
    """The network with the file's weights, in single precision."""
    wanted, tensors = net.state_dict(), dict(network.tensors)
    filters = {name for name in (*wanted, *tensors) if name.endswith("resample_filter")}
    if not all(torch.equal(tensors.pop(name, fir()).float(), fir()) for name in filters):
        raise UserError(f"{source} resamples with another filter than {list(FIR)}")
    check_keys({name: value for name, value in wanted.items() if name not in filters}, tensors, source)
    tensors = {name: value.float() for name, value in tensors.items()}
    if broken := [name for name, value in tensors.items() if not value.isfinite().all()]:
        raise UserError(f"{source} has values that are not finite, in {', '.join(broken[:3])}")
    net.load_state_dict(tensors | {name: fir() for name in wanted if name in filters}, assign=True)
    return net
