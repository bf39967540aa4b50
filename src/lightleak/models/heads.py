"""Which layers make a network's logits: found by what the logits depend on, not by name or place."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightleak.surgery.observe import undone


def could_be(module: nn.Module, classes: int) -> bool:
    """Whether a module is a linear layer or a convolution with one output per class."""
    width = getattr(module, "out_features", getattr(module, "out_channels", None))
    return isinstance(module, nn.Linear | nn.Conv2d) and width == classes


def heads_of(net: nn.Module, classes: int, logits_of: Callable[[], Tensor]) -> tuple[str, ...]:
    """The names of the layers that make the logits, in the order in which they run; () if not layers alone do.

    `logits_of` runs the network on two different images. The last layer that the logits depend on is shut, then the
    last of those that they still depend on, until there is none. What depends on the images even then is no layer.
    """
    layers = {module: name for name, module in net.named_modules() if could_be(module, classes)}
    shut: list[str] = []
    while True:
        outputs: dict[str, Tensor] = {}

        def seen(module: nn.Module, _: object, output: Tensor, outputs: dict[str, Tensor] = outputs) -> Tensor:
            name = layers[module]
            if name in shut:
                return torch.zeros_like(output)
            outputs.pop(name, None)
            outputs[name] = output.detach().requires_grad_()
            return outputs[name] * 1  # whoever overwrites it must not overwrite a leaf

        handles = [module.register_forward_hook(seen) for module in layers]
        try:
            with undone(net):
                logits = logits_of()
        finally:
            for handle in handles:
                handle.remove()
        found = _on_which(logits, outputs)
        if not found:
            return tuple(reversed(shut)) if torch.allclose(logits[:1], logits[1:], atol=1e-6) else ()
        shut.append(found[-1])


def _on_which(logits: Tensor, outputs: dict[str, Tensor]) -> list[str]:
    """Which of the outputs, in their order, the logits depend on."""
    if not outputs or not logits.requires_grad:
        return []
    directions = torch.linspace(1, 2, logits.numel()).view_as(logits).to(logits)
    slopes = torch.autograd.grad((logits * directions).sum(), list(outputs.values()), allow_unused=True)
    return [name for name, slope in zip(outputs, slopes) if slope is not None and bool(slope.any())]
