"""Adversarial examples: images close to the given ones that a network classifies differently.

Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks" (ICLR 2018): projected gradient descent

    x' <- clip( x' -+ step * sign(gradient of the cross-entropy),  x - epsilon, x + epsilon ),  within [0, 1]
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightleak.models.classifier import Classifier
from lightleak.randomness import uniforms


def perturbed(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    step: float,
    steps: int,
    towards: bool,
    start: Tensor | None = None,
) -> Tensor:
    """Images N x 3 x H x W in [0, 1], no pixel further than `epsilon` from its own; no gradient flows through them.

    `towards` the `labels` or away from them; `start`: what is added at first, N x 3 x H x W within +-epsilon (None:
    nothing). The network is asked in the mode that it is in, and its parameters get no gradients.
    """
    images = images.detach()
    low, high = (images - epsilon).clamp(min=0), (images + epsilon).clamp(max=1)
    seen = images if start is None else (images + start).clamp(low, high)
    for _ in range(steps):
        with torch.enable_grad():
            seen = seen.detach().requires_grad_()
            loss = F.cross_entropy(classifier(seen).float(), labels, reduction="sum")
            (slope,) = torch.autograd.grad(loss, seen)
        seen = seen.detach() + (-step if towards else step) * slope.sign()
        seen = seen.clamp(low, high)
    return seen.detach()


def random_start(images: Tensor, keys: Tensor, epsilon: float) -> Tensor:
    """What is added to images N x 3 x H x W at first: uniform within +-epsilon, by each one's key (int64, N)."""
    return (2 * uniforms(keys.to(images.device), *images.shape[1:]) - 1).to(images) * epsilon


def other_labels(drawn: Tensor, labels: Tensor, classes: int) -> Tensor:
    """`drawn` classes, N, where one that is the label itself becomes the next class."""
    return torch.where(drawn == labels, (drawn + 1) % classes, drawn)


@contextmanager
def answering(network: nn.Module) -> Iterator[None]:
    """Put the network in eval mode inside this context; afterwards every module has its own mode again."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
