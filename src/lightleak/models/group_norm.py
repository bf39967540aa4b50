"""Group norm in place of batch norm (Wu and He, ECCV 2018): each image is normalised on its own, not with its batch."""

from typing import Any

from timm.layers.norm_act import BatchNormAct2d, GroupNormAct
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightleak.errors import UserError
from lightleak.surgery.copies import copied


def batch_norms(net: nn.Module) -> dict[str, _BatchNorm]:
    """The batch norms of a network by name, except those whose parameters are all frozen."""

    def frozen(layer: nn.Module) -> bool:
        wanted = [parameter.requires_grad for parameter in layer.parameters()]
        return bool(wanted) and not any(wanted)

    return {n: layer for n, layer in net.named_modules() if isinstance(layer, _BatchNorm) and not frozen(layer)}


def groups_of(channels: int, most: int = 32) -> int:
    """The number of equal groups that channels are divided into: at most `most`, of four channels or more if possible.

    A group of one or two channels on a map of one pixel, as late layers see of small images, is normalised to nothing.
    """
    fewest = min(4, channels)
    return max(groups for groups in range(1, most + 1) if channels % groups == 0 and channels // groups >= fewest)


def regroup(net: nn.Module, change: dict[str, Any]) -> nn.Module:
    """A copy of `net` whose batch norms are replaced by group norms, as change["groups"] (name -> groups) says.

    Gains and offsets stay, running statistics are lost. A name that the network no longer has is passed over: surgery
    may have dropped the layer since.
    """
    net = copied(net)
    modules = dict(net.named_modules())
    for name, groups in change["groups"].items():
        old = modules.get(name)
        if old is None:
            continue
        if not isinstance(old, _BatchNorm):
            raise UserError(f"group norm takes the place of a batch norm; {name!r} is a {type(old).__name__}")
        parent, _, child = name.rpartition(".")
        setattr(net.get_submodule(parent), child, _grouped(old, int(groups)))
    return net


def _grouped(old: _BatchNorm, groups: int) -> nn.GroupNorm:
    channels = old.num_features
    if not 1 <= groups <= channels or channels % groups:
        raise UserError(f"{channels} channels cannot be cut into {groups} equal groups")
    if isinstance(old, BatchNormAct2d):  # with dropping and activation inside
        new = GroupNormAct(channels, groups, eps=old.eps, affine=old.affine)
        new.drop, new.act = old.drop, old.act  # pyright: ignore[reportAttributeAccessIssue]
    else:
        new = nn.GroupNorm(groups, channels, old.eps, old.affine)
    if old.affine:
        new.weight, new.bias = old.weight, old.bias
        new = new.to(old.weight.device)
    return new.train(old.training)
