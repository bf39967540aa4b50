"""BiDO's training step against a plain step and against a plain transcription of the published regulariser, in one run.

The published regulariser, written down in plain form: for each layer the kernels of the layer, the image and the label
are made anew, each with an inversion of its own, four a layer. Ours: each kernel once, all factorised together.

First both must give the same sums on the same layers (1 % relative; the published inverse is in float32, where its
ridge nearly drowns). Then three steps take turns; ratios of medians are printed. Machines differ and are shared, so
single times mean nothing.

    python benchmarks/bido.py            # ten rounds
    python benchmarks/bido.py --quick    # three
"""

import argparse

import torch
from torch.nn import functional as F

from lightleak.defences import BiDO
from lightleak.models.zoo import build
from lightleak.study.costs import in_turn
from lightleak.training.loop import Batch, cross_entropy, hidden

CLASSES, SIZE, BATCH, SIGMA, RIDGE = 100, 64, 64, 5.0, 1e-5


def plain_kernel(values):
    """Gaussian kernel of the published code."""
    values = values.flatten(1)
    square = (values * values).sum(1, keepdim=True)
    distance = square - 2 * values @ values.T + square.T
    return torch.exp(-distance / (2 * SIGMA**2 * values.shape[1]))


def plain_dependence(a, b, linear):
    """The published measure of two variables: both kernels, both inverses."""
    count = len(a)
    centre = torch.eye(count, dtype=a.dtype) - torch.ones(count, count, dtype=a.dtype) / count
    first = plain_kernel(a) @ centre
    second = (b @ b.T if linear else plain_kernel(b)) @ centre
    ridge = RIDGE * count * torch.eye(count, dtype=a.dtype)
    return ((first @ torch.inverse(first + ridge)) * (second @ torch.inverse(second + ridge)).T).sum()


def plain_sums(images, labels, layers, double=False):
    """The two sums of the published loop, layer by layer."""
    as_wanted = (lambda x: x.double()) if double else (lambda x: x.float())
    labels, images = as_wanted(F.one_hot(labels, CLASSES)), as_wanted(images).flatten(1)
    layers = [as_wanted(layer).flatten(1) for layer in layers]
    return (
        sum(plain_dependence(layer, images, False) for layer in layers),
        sum(plain_dependence(layer, labels, True) for layer in layers),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    rounds = 3 if parser.parse_args().quick else 10
    torch.manual_seed(0)
    classifier = build("timm:resnet18", CLASSES, SIZE).train()
    images, labels = torch.rand(BATCH, 3, SIZE, SIZE), torch.randint(CLASSES, (BATCH,))
    batch = Batch(classifier, images, labels, 0.0)
    defence = BiDO()
    x, y = defence.weights
    names = defence.watched(classifier)
    optimiser = torch.optim.Adam(classifier.parameters(), 1e-4)

    def step(regulariser=None):
        with hidden(classifier, names) as outputs:
            loss = cross_entropy(batch)
        if regulariser:
            image, label = regulariser([outputs[name] for name in names])
            loss = loss + x * image - y * label
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    def ours(layers):
        return tuple(defence._measure(batch, layers).values())

    def published(layers):
        return plain_sums(images, labels, layers)

    with torch.no_grad(), hidden(classifier, names) as outputs:
        classifier(images)
        layers = [outputs[name] for name in names]
        for mine, exact in zip(ours(layers), plain_sums(images, labels, layers, double=True)):
            torch.testing.assert_close(mine, exact, rtol=1e-2, atol=0.0)
    base, mine, theirs = in_turn([step, lambda: step(ours), lambda: step(published)], rounds)
    print(f"BiDO on {len(names)} layers of ResNet-18, {BATCH} images of {SIZE} x {SIZE}: equal sums;", end=" ")
    print(
        f"a step is {mine / base:.2f} times a plain one, the published regulariser's {theirs / base:.2f} times", end=" "
    )
    print(f"({rounds} rounds, medians)")


if __name__ == "__main__":
    main()
