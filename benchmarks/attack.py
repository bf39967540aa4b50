"""PPA's descent against a plain transcription of the published step, in one run, on the same weights and latents.

The published step, written down in plain form: all parameters of generator and target require gradients, memory is
contiguous, one random crop for the batch through torchvision's resized_crop, the distance over one-hot vectors,
its mean. Ours: everything frozen, channels_last, a crop for each image, the closed form, the sum.

First both must give the same loss without crops (1e-4 relative). Then they are timed in turn; the ratio of medians is
printed. Machines differ and are shared, so single times mean nothing.

    python benchmarks/attack.py            # ten rounds
    python benchmarks/attack.py --quick    # three
"""

import argparse
import copy
import statistics
import time

import torch

from lightleak.attacks import Oracle
from lightleak.attacks.steps import poincare
from lightleak.data.views import DRAWS, View
from lightleak.models.zoo import build
from lightleak.priors import GanPrior
from lightleak.priors.gan64 import Critic, Generator

CLASSES, SIZE, BATCH, XI = 100, 64, 32, 1e-4


def plain_poincare(logits, classes):
    """The published loss: one-hot vectors, no guards."""
    u = logits / logits.abs().sum(1, keepdim=True)
    v = torch.clip(torch.eye(logits.shape[1])[classes] - XI, 0, 1)
    gap = (u - v).square().sum(1)
    return torch.arccosh(1 + 2 * gap / ((1 - u.square().sum(1)) * (1 - v.square().sum(1))))


def plain_step(generator, target, latents, classes, rng):
    """One step of the published loop."""
    from torchvision.transforms.v2.functional import resized_crop

    latents = latents.clone().requires_grad_()
    adam = torch.optim.Adam([latents], 0.005, betas=(0.1, 0.1))
    images = generator(latents)
    side = round(SIZE * float((0.9 + 0.1 * torch.rand((), generator=rng)).sqrt()))
    top, left = (int(torch.randint(SIZE - side + 1, (), generator=rng)) for _ in range(2))
    logits = target(resized_crop(images, top, left, side, side, [SIZE, SIZE], antialias=True))
    adam.zero_grad()
    plain_poincare(logits, classes).mean().backward()
    adam.step()


def our_step(oracle, prior, latents, classes, rng):
    """One step of ours, as `PPA.descend` does it."""
    latents = latents.clone().requires_grad_()
    adam = torch.optim.Adam([latents], 0.005, betas=(0.1, 0.1))
    images = prior.decode(latents)
    logits = oracle.logits(View(scale=(0.9, 1.0))(images, torch.rand(BATCH, DRAWS, generator=rng)))
    (latents.grad,) = torch.autograd.grad(poincare(logits, classes).sum(), latents)
    adam.step()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    rounds = 3 if parser.parse_args().quick else 10
    torch.manual_seed(0)
    generator, target = Generator(SIZE), build("timm:resnet18", CLASSES, SIZE)
    plain_generator, plain_target = copy.deepcopy(generator).eval(), copy.deepcopy(target).eval()
    prior, oracle = GanPrior(generator, Critic(SIZE)), Oracle(target)
    rng = torch.Generator().manual_seed(0)
    latents, classes = prior.sample(BATCH, rng), torch.randint(CLASSES, (BATCH,), generator=rng)
    with torch.no_grad():
        ours = poincare(oracle.logits(prior.decode(latents)), classes)
        plain = plain_poincare(plain_target(plain_generator(latents)), classes)
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-3)
    taken = {"plain": [], "ours": []}
    for _ in range(rounds + 1):
        for name, step, networks in (
            ("plain", plain_step, (plain_generator, plain_target)),
            ("ours", our_step, (oracle, prior)),
        ):
            began = time.perf_counter()
            step(*networks, latents, classes, rng)
            taken[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(times[1:]) for name, times in taken.items()}
    print(f"attack step, batch {BATCH}, {SIZE} x {SIZE}, ResNet-18: equal losses; ours is", end=" ")
    print(f"{medians['plain'] / medians['ours']:.2f} times as fast as the plain loop ({rounds} rounds, medians)")


if __name__ == "__main__":
    main()
