"""A second implementation of cut skips: the untouched model, with its joins rescaled while it runs.

It knows nothing of graphs: hooks tell which module is running, and joins are counted within each run of its methods.
"""

import sys
from contextlib import contextmanager

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

ADD = {torch.add, torch.Tensor.add, torch.Tensor.add_, torch.Tensor.__add__, torch.Tensor.__iadd__}
ADD |= {torch.sub, torch.Tensor.sub, torch.Tensor.sub_, torch.Tensor.__sub__, torch.Tensor.__isub__}
STACK = {torch.stack}
CAT = {torch.cat, torch.concat, torch.concatenate}
READ = {
    F.conv1d,
    F.conv2d,
    F.conv3d,
    F.linear,
    torch.conv2d,
    torch.matmul,
    torch.Tensor.matmul,
    torch.Tensor.__matmul__,
}
MOVE = {"chunk", "split", "permute", "transpose", "flatten", "reshape", "view", "__getitem__", "narrow", "unbind"}


class Rescaled(TorchFunctionMode):
    """Run a model under this: shortcuts count `factor`, and what a cut map lost is zero wherever weights read it."""

    def __init__(self, model, skips=(), factor=1.0, masked=False):
        super().__init__()
        self.factor, self.masked = factor, masked
        self.sites = set()  # which joins of which modules have run; a module may be called again
        self.names = {module: name for name, module in model.named_modules()}
        self.skips = {(skip.owner, skip.method, skip.index): skip for skip in skips}
        self.running = [(None, {})]

    @contextmanager
    def watching(self):
        hooks = [m.register_forward_pre_hook(lambda m, _: self.running.append((m, {}))) for m in self.names]
        hooks += [m.register_forward_hook(lambda *_: self.running.pop() and None) for m in self.names]
        try:
            with self:
                yield self
        finally:
            for hook in hooks:
                hook.remove()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        kind = "add" if func in ADD else "cat" if func in CAT else "stack" if func in STACK else None
        parts = [] if kind is None else list(args if kind == "add" else args[0])
        skip = None
        if sum(isinstance(t, torch.Tensor) and t.requires_grad for t in parts) > 1:
            module, counts = self.running[-1]
            frame = sys._getframe(1)
            while frame.f_back is not None and frame.f_locals.get("self") is not module:
                frame = frame.f_back
            site = (self.names.get(module), frame.f_code.co_name, counts.get(frame, 0))
            counts[frame] = counts.get(frame, 0) + 1
            self.sites.add(site)
            skip = self.skips.get(site)
        if kind == "add" and skip:
            (i,) = skip.shortcut
            mask, parts[i] = alive(parts[i]), parts[i] * self.factor
            parts[i].alive = mask if self.factor else None
            args = tuple(parts)
        if kind == "stack" and skip:
            args = ([part * self.factor if i in skip.shortcut else part for i, part in enumerate(parts)], *args[1:])
        if kind == "cat":
            return self.cat(parts, kwargs.get("dim", args[1] if len(args) > 1 else 0), skip)
        if func is F.layer_norm and alive(args[0]) is not None:
            return self.layer_norm(*args, **kwargs)
        if func in READ and args and alive(args[0]) is not None:
            result = func(args[0] * alive(args[0]), *args[1:], **kwargs)
            groups = args[6] if func is not F.linear and len(args) > 6 else kwargs.get("groups", 1)
            if groups == args[0].shape[1] == result.shape[1]:  # a depthwise convolution keeps channels apart
                result.alive = alive(args[0])[:, :, :1, :1]
            return result
        result = func(*args, **kwargs)
        marked = [t for t in (*args, *kwargs.values()) if alive(t) is not None]
        if marked:
            mask = alive(marked[0])
            if getattr(func, "__name__", "") in MOVE:
                moved = func(mask.expand(marked[0].shape).contiguous(), *args[1:], **kwargs)
                for t, m in zip([result], [moved]) if isinstance(result, torch.Tensor) else zip(result, moved):
                    t.alive = m
            elif isinstance(result, torch.Tensor) and result.dim() == mask.dim():
                result.alive = mask[
                    tuple(slice(0, 1) if m != r else slice(None) for m, r in zip(mask.shape, result.shape))
                ]
            elif isinstance(result, torch.Tensor) and result.dim() == 2:
                result.alive = mask.flatten(2)[..., 0] if mask.dim() > 2 else mask
        return result

    def layer_norm(self, x, _, weight=None, bias=None, eps=1e-5):
        """Over the channels that are left; the others stay zero."""
        mask = alive(x)
        kept = mask.expand(x.shape).flatten(0, -2)[0].bool()
        weight, bias = (None if t is None else t[kept] for t in (weight, bias))
        result = torch.zeros_like(x)
        result[..., kept] = F.layer_norm(x[..., kept], [int(kept.sum())], weight, bias, eps)
        result.alive = mask
        return result

    def cat(self, parts, dim, skip):
        masks = []
        for i, part in enumerate(parts):
            mask = torch.ones_like(part) if alive(part) is None else alive(part).expand(part.shape).clone()
            if skip and i in skip.shortcut and part.shape[dim]:
                line = mask.movedim(dim, 0).flatten(1)[:, 0]
                kept = round(self.factor * int(line.sum()))
                gone = line.cumsum(0) > kept
                mask = mask.movedim(dim, 0).clone().index_fill_(0, gone.nonzero()[:, 0], 0).movedim(0, dim)
            masks.append(mask)
        mask = torch.cat(masks, dim).detach()
        joined = torch.cat(parts, dim)
        if bool(mask.all()):
            return joined
        if self.masked:
            return joined * mask
        joined.alive = mask
        return joined


def alive(value):
    return value.__dict__.get("alive") if isinstance(value, torch.Tensor) else None


def rescaled(model, example, skips, factor, masked=False):
    """The untouched model's output, in its present mode, with the chosen skips rescaled while it runs."""
    frozen = [p for p in model.parameters() if p.requires_grad]
    for p in frozen:
        p.requires_grad_(False)
    try:
        with Rescaled(model, skips, factor, masked).watching() as mode:
            output = model(example.clone().requires_grad_() * 1)
    finally:
        for p in frozen:
            p.requires_grad_(True)
    return output, len(mode.sites)
