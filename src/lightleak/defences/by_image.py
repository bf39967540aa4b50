"""Whether each image has a gradient of its own: what a bound on every image's gradient rests on, tried on data.

    1. no image's logits, nor the slope of its loss, move with another image of the batch
    2. nothing in the network remembers the images that it was shown, but for its weights
    3. as many gradients are found as there are images, of the lengths and directions of one backward pass per image

A network that fails would be trained with an epsilon that does not hold, or along gradients that are none.
"""

from dataclasses import replace

import torch
from torch import Tensor

from lightleak import randomness
from lightleak.defences.ghost import Hooks, listening
from lightleak.errors import UserError
from lightleak.models.classifier import Classifier
from lightleak.surgery.copies import copied
from lightleak.training.plan import Batch, Loss

WORKING = "timm's ResNets, DenseNets, ConvNeXts and ViTs work"
# How far two ways of computing the same in float32 may lie apart, relative to its size.
TOLERANCE = 1e-3


def check(classifier: Classifier, loss: Loss, batch: Batch, hooks_of: Hooks) -> None:
    """UserError unless 1 to 3 hold of this network, in the modes it is in; nothing of it or of `batch` is changed.

    `loss` is a mean over the images of a batch; `batch` holds two images or more, better four.
    """
    classifier = classifier.with_net(copied(classifier.net))
    kept = {name: buffer.clone() for name, buffer in classifier.net.named_buffers()}
    _each_alone(classifier, loss, batch)
    moved = [n for n, b in classifier.net.named_buffers() if not torch.equal(b, kept[n])]
    if moved:
        raise UserError(
            f"DP-SGD cannot train {_name(classifier)}: it keeps statistics of the images it is shown "
            f"({_some(moved)}), which no noise covers; freeze or exchange those layers"
        )
    try:
        _each_found(classifier, batch, hooks_of)
    except UserError:
        if not _found_in_double(classifier, batch, hooks_of):
            raise


def _found_in_double(classifier: Classifier, batch: Batch, hooks_of: Hooks) -> bool:
    """3 in float64: in float32 a ReLU at its edge may fall either way when sums are added in another order."""
    try:
        precise = classifier.with_net(copied(classifier.net).double())
        _each_found(precise, replace(batch, classifier=precise, images=batch.images.double()), hooks_of)
    except (UserError, RuntimeError, TypeError):  # a device or a network may not know float64
        return False
    return True


def _each_alone(classifier: Classifier, loss: Loss, batch: Batch) -> None:
    """1: exchange all images but the first, with the same draws, and see whether anything of the first moves."""

    def of_first(rows: list[int]) -> tuple[Tensor, Tensor]:
        pixels, labels = batch.images[rows].clone().requires_grad_(), batch.labels[rows]
        with randomness.own(0, classifier.device):
            logits = classifier(pixels).detach()[0]
        with randomness.own(0, classifier.device):
            (slope,) = torch.autograd.grad(loss(Batch(classifier, pixels, labels, batch.progress)), pixels)
        return logits, slope[0]

    count = len(batch.images)
    pixels = batch.images.clone().requires_grad_()
    with randomness.own(0, classifier.device):
        logits = classifier(pixels)
    if logits.shape[0] != count or not logits.isfinite().all():
        raise UserError(
            f"DP-SGD cannot train {_name(classifier)}: of {count} images it makes logits of shape "
            f"{tuple(logits.shape)}, with {int((~logits.isfinite()).sum())} values that are no numbers"
        )
    directions = torch.linspace(1, 2, logits.shape[1]).to(logits)
    mixed = False
    for image in range(count):
        (slope,) = torch.autograd.grad((logits[image] * directions).sum(), pixels, retain_graph=True)
        others = torch.arange(count) != image
        mixed = mixed or bool(slope[others.to(slope.device)].abs().sum() != 0)  # NaN counts as mixed
    here, exchanged = of_first(list(range(count))), of_first([0] * count)
    apart = [float((a - b).norm() / a.norm().clamp_min(1e-12)) for a, b in zip(here, exchanged)]
    if mixed or not max(apart) <= TOLERANCE:
        raise UserError(
            f"DP-SGD cannot train {_name(classifier)}: an image's loss moves with the other images of its batch, so "
            "no bound on one image's gradient bounds what that image does, and no epsilon would hold; "
            f"take a network that treats each image alone ({WORKING})"
        )


def _each_found(classifier: Classifier, batch: Batch, hooks_of: Hooks) -> None:
    """3: lengths, and the gradient of each image among the others, against one backward pass per image."""
    named = {name: p for name, p in classifier.net.named_parameters() if p.requires_grad}
    count = len(batch.images)

    def heights() -> Tensor:
        with randomness.own(0, classifier.device):
            logits = classifier(batch.images)
        return (logits * torch.linspace(1, 2, logits.shape[1]).to(logits)).sum(1)

    alone = [
        torch.autograd.grad(height, list(named.values()), retain_graph=True, allow_unused=True) for height in heights()
    ]
    size = sum(float(g.square().sum()) for row in alone for g in row if g is not None) ** 0.5
    wrong = []
    try:
        with listening(classifier.net, hooks_of) as gradients_of:
            found = gradients_of(heights().mean(), count).parts
        for place, (name, parameter) in enumerate(named.items()):
            expected = torch.stack([torch.zeros_like(parameter) if r[place] is None else r[place] for r in alone])  # pyright: ignore[reportArgumentType, reportCallIssue]
            got, lengths = torch.zeros_like(expected), expected.new_zeros(count)
            if (part := found.get(parameter)) is not None:
                if part.count != count:
                    shape = (part.count, *parameter.shape)
                    wrong.append(f"{name} ({shape}, not {count} times {tuple(parameter.shape)})")
                    continue
                got = torch.stack([part.weighted(one) for one in torch.eye(count).to(expected)])
                lengths = part.squares().sqrt()
            apart = max(float((got - expected).norm()), float((lengths - expected.flatten(1).norm(dim=1)).norm()))
            if not apart <= TOLERANCE * (float(expected.norm()) + 1e-2 * size):
                wrong.append(f"{name} (other values)")
    except Exception as error:  # Opacus and torch.func raise what they like
        raise UserError(f"{_refusal(classifier, [])}: {' '.join(str(error).split())[:160]}; {WORKING}") from error
    if wrong:
        raise UserError(f"{_refusal(classifier, wrong)}; {WORKING}")


def _refusal(classifier: Classifier, wrong: list[str]) -> str:
    return f"Opacus cannot clip the gradient of each image in {_name(classifier)}" + (
        f": it finds others than one backward pass per image does for {_some(wrong)}" if wrong else ""
    )


def _name(classifier: Classifier) -> str:
    return classifier.architecture or type(classifier.net).__name__


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
