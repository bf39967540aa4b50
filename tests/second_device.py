"""A second device where there is none: tensors that live "on the card" refuse to meet tensors of the processor.

Inside `card()`, the device "meta" is that card: what is made or moved there holds its numbers like any tensor, reports
`meta` as its device, comes home by `.cpu()`, and an operation that mixes both sides raises RuntimeError, as CUDA's
would. (A number, zero axes, may come from the processor; an index may, too.)
"""

from contextlib import contextmanager
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lightleak import place

CARD = torch.device("meta")
ACROSS = {"aten::_to_copy", "aten::copy_"}  # what moves between devices
INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}


class OnCard(torch.Tensor):
    """Numbers of the processor that say they are elsewhere."""

    @staticmethod
    def __new__(cls, inner):
        if inner.dtype == torch.float64 and CARD.type in place.WITHOUT_FLOAT64:
            raise TypeError("Cannot convert a meta Tensor to float64 dtype as the framework doesn't support float64")
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            layout=inner.layout, device=CARD, requires_grad=False,
        )  # fmt: skip

    def __init__(self, inner):
        self.inner = inner

    @property
    def is_meta(self):
        return False  # it holds its numbers

    def tolist(self):
        return self.inner.tolist()

    def numpy(self, **_):
        raise TypeError("can't convert meta device type tensor to numpy. Use Tensor.cpu() first.")

    def new_tensor(self, data, **kwargs):
        return self.inner.new_tensor(data, **{**kwargs, "device": "cpu"}).to(kwargs.get("device", CARD))

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return computed(function, args, kwargs or {})


def tensors_in(thing):
    """Every tensor in nested lists, tuples and dictionaries (torch's own pytree takes most of a small operation)."""
    if isinstance(thing, torch.Tensor):
        yield thing
    elif isinstance(thing, list | tuple):
        for one in thing:
            yield from tensors_in(one)
    elif isinstance(thing, dict):
        yield from tensors_in(list(thing.values()))


def changed(thing, change):
    """The same nest with every tensor changed."""
    if isinstance(thing, torch.Tensor):
        return change(thing)
    if isinstance(thing, list | tuple):
        inner = [changed(one, change) for one in thing]
        return type(thing)(*inner) if hasattr(thing, "_fields") else type(thing)(inner)
    return {name: changed(one, change) for name, one in thing.items()} if isinstance(thing, dict) else thing


def computed(function, args, kwargs):
    """One operation on either side, or RuntimeError if its tensors lie on both."""
    name = function._schema.name
    tensors = list(tensors_in((args, kwargs)))
    there = [tensor for tensor in tensors if isinstance(tensor, OnCard)]
    here = [tensor for tensor in tensors if not isinstance(tensor, OnCard) and tensor.dim()]
    if name in INDEXED and isinstance(args[0], OnCard):
        here = [tensor for tensor in here if tensor.dtype not in (torch.int64, torch.bool)]
    if there and here and name not in ACROSS:
        raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got meta and cpu")
    device = kwargs.get("device")
    if device is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    plain_args, plain_kwargs = changed((args, kwargs), lambda t: t.inner if isinstance(t, OnCard) else t)
    found = function(*plain_args, **plain_kwargs)
    in_place = name.endswith("_") and not name.endswith("__")  # __rshift__ is none
    if in_place and args and isinstance(args[0], torch.Tensor):
        return args[0]
    stays = bool(there) if device is None else torch.device(device).type == CARD.type
    return changed(found, OnCard) if stays else found


class Card(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return computed(function, args, kwargs or {})


@contextmanager
def card(float64=True):
    """While it lasts, the device "meta" computes; without float64 as Apple's GPUs do."""
    makes = {name: getattr(torch, name) for name in ("tensor", "as_tensor")}  # they fill their tensors unseen

    def made(name):
        return lambda data, *, device=None, **kwargs: (
            makes[name](data, **kwargs) if device is None else makes[name](data, **kwargs).to(device)
        )

    try:
        for name in makes:
            setattr(torch, name, made(name))
        without = place.WITHOUT_FLOAT64 if float64 else (*place.WITHOUT_FLOAT64, CARD.type)
        with Card(), mock.patch.object(place, "WITHOUT_FLOAT64", without):
            yield CARD
    finally:
        for name, function in makes.items():
            setattr(torch, name, function)
