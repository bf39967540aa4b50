"""PLG-MI and its evaluation against plain transcriptions of the published loops, in one run, on the same weights.

Three jobs, networks with the published layers at a quarter of the channels (so that a laptop can):

- a step of the prior's training: one update of the generator, five of the discriminator;
- a step of the inversion, 12 identities;
- the evaluation of 12 of 300 people, 5 images each: accuracy by a judge, and the distance to the nearest of 8,100
  private images.

Plain, as published: all networks keep their gradients; made images of the discriminator's updates carry gradients, and
the target sees them only to print an accuracy; 1 x 1 convolutions after enlarging and before pooling; crops image by
image; two passes of the target; a full sort for the two largest logits; images resized one by one through 8 bits; the
judge with gradients on; distances in a double loop.

First both must give the same numbers. Then they are timed in turn; ratios of medians are printed. Machines differ and
are shared, so single times mean nothing.

    python benchmarks/plgmi.py                                                  # a quarter as wide, seven rounds
    python benchmarks/plgmi.py --quick                                          # three rounds
    python benchmarks/plgmi.py --jobs inversion --width 64 --target face:vgg16 --identities 16  # as published
"""

import argparse
import copy
import os
import time
from dataclasses import replace
from functools import partial

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads must not count as work

import torch
from PIL import Image
from torch.nn import functional as F

from lightleak.attacks import PLGMI, Oracle
from lightleak.data import augmentation as parts
from lightleak.data.augmentation import DRAWS, STAGE1, Augmentation
from lightleak.data.population import Images
from lightleak.metrics.recognition import hits, nearest
from lightleak.models.zoo import build
from lightleak.priors.conditional64 import ConditionalGenerator, ConditionalPrior, ProjectionDiscriminator
from lightleak.priors.fit import PlgMi
from lightleak.priors.fit.plgmi import _start, plgmi_step
from lightleak.study.costs import in_turn
from lightleak.training.losses import max_margin

WIDTH, CLASSES, BATCH, IDENTITIES = 16, 60, 16, 12
SIDE = 64  # what the small judge sees; the published one sees 112
PRIVATE = 300  # people whose private images, 27 each, the published loop walks through for every image


# ---------------------------------------------------------------------------------------------------------------------
# The published forward passes, with the weights of ours


def plain_generator(net, latents, classes):
    """Every block enlarges before its 1 x 1 convolution."""
    maps = net.l1(latents).view(len(latents), -1, 4, 4)
    for name in net.blocks:
        block = net.get_submodule(name)
        wide = F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)
        main = F.interpolate(F.relu(block.b1(maps, classes)), scale_factor=2, mode="bilinear", align_corners=False)
        maps = block.c2(F.relu(block.b2(block.c1(main), classes))) + block.c_sc(wide)
    return torch.tanh(net.get_submodule(f"conv{net.last}")(F.relu(net.get_submodule(f"b{net.last}")(maps))))


def plain_discriminator(net, images, classes):
    """Every block but the first pools after its 1 x 1 convolution."""
    maps = images
    for name in net.blocks:
        block = net.get_submodule(name)
        main = F.avg_pool2d(block.c2(F.relu(block.c1(maps if block.first else F.relu(maps)))), 2)
        maps = main + (block.c_sc(F.avg_pool2d(maps, 2)) if block.first else F.avg_pool2d(block.c_sc(maps), 2))
    seen = F.relu(maps).sum((2, 3))
    return net.get_submodule(f"l{net.last}")(seen).flatten() + (net.l_y(classes) * seen).sum(1)


def plain_augmentation(setting, images, draws):
    """Crops image by image; colours, mirrors and rotations as ours, which the tests hold to plain steps."""
    left, top, side = setting.boxes(draws, images.shape[-1])
    cropped = []
    for image, x, y, s in zip(images, left.int().tolist(), top.int().tolist(), side.int().tolist(), strict=True):
        piece = image[None, :, y : y + s, x : x + s]
        cropped.append(F.interpolate(piece, images.shape[-2:], mode="bilinear", align_corners=True))
    whole = torch.cat(cropped)
    changed = parts._recolour(whole, draws[:, 3:6], setting.brightness, setting.contrast)
    seen = torch.where(parts._columns(draws[:, 7] < setting.colour), changed, whole)
    seen = torch.where(parts._columns(draws[:, 6] < setting.flip), seen.flip(3), seen)
    angle = (2 * draws[:, 9] - 1) * torch.pi * setting.degrees / 180
    return torch.where(parts._columns(draws[:, 8] < setting.turn), parts._turn(seen, angle), seen)


def plain_margin(logits, classes):
    """All logits sorted, to find the largest two."""
    order = logits.argsort(dim=1, descending=True)
    best = torch.where(order[:, 0] == classes, order[:, 1], order[:, 0])
    return logits.gather(1, best[:, None])[:, 0] - logits.gather(1, classes[:, None])[:, 0]


# ---------------------------------------------------------------------------------------------------------------------
# The three jobs


def plain_training_step(run, settings, pixels, target):
    """One iteration of the published training."""
    rng = run.rng
    z = torch.randn(settings.batch, settings.latents, generator=rng)
    c = torch.randint(CLASSES, (settings.batch,), generator=rng)
    draws = torch.rand(settings.batch, DRAWS, generator=rng)
    run.discriminator.eval()  # so that the spectral norms of both are the same
    made = plain_generator(run.generator, z, c)
    margin = plain_margin(target(plain_augmentation(STAGE1, (made + 1) / 2, draws)), c).mean()
    loss = -plain_discriminator(run.discriminator, made, c).mean() + settings.margin * margin
    run.generator_adam.zero_grad()
    loss.backward()
    run.generator_adam.step()
    run.discriminator.train()
    told = {"margin": margin.item()}
    for _ in range(settings.critic_steps):
        y = torch.randint(CLASSES, (settings.batch,), generator=rng)
        which = run.chosen[y, torch.randint(settings.top, (settings.batch,), generator=rng)]
        real = pixels[which].float() / 255
        real = 2 * (real + torch.rand(real.shape, generator=rng) / 256) - 1
        z = torch.randn(settings.batch, settings.latents, generator=rng)
        c = torch.randint(CLASSES, (settings.batch,), generator=rng)
        made = plain_generator(run.generator, z, c)
        on_real = plain_discriminator(run.discriminator, real, y)
        on_made = plain_discriminator(run.discriminator, made, c)
        hinge = F.relu(1 - on_real).mean() + F.relu(1 + on_made).mean()
        run.discriminator_adam.zero_grad()
        hinge.backward()
        run.discriminator_adam.step()
        told["hinge"] = hinge.item()
        told["accuracy"] = (target(made).argmax(1) == c).float().mean().item()
    return told


def plain_inversion_step(generator, target, latents, classes, draws):
    """One step of the published inversion; returns its loss."""
    latents = latents.clone().requires_grad_()
    adam = torch.optim.Adam([latents], lr=0.1)
    made = (plain_generator(generator, latents, classes) + 1) / 2
    losses = [plain_margin(target(plain_augmentation(Augmentation(), made, draws[:, v])), classes) for v in range(2)]
    loss = losses[0].mean() + losses[1].mean()
    adam.zero_grad()
    loss.backward()
    adam.step()
    return loss.item()


def our_inversion_step(oracle, prior, latents, classes, draws):
    """One step of ours, as `PLGMI.descend` does it."""
    attack = PLGMI()
    latents = latents.clone().requires_grad_()
    adam = torch.optim.Adam([latents], 0.1)
    images = prior.decode(latents, classes).repeat_interleave(2, 0)
    margins = max_margin(oracle.logits(attack.view(images, draws.flatten(0, 1))), classes.repeat_interleave(2))
    (latents.grad,) = torch.autograd.grad(margins.sum(), latents)
    adam.step()
    return float(margins.detach().sum()) / len(classes)


def plain_evaluation(judge, images, classes, private, labels):
    """Accuracy and distance by loops over images."""
    right, features = 0, []
    for start in range(0, len(images), 10):
        seen = []
        for image in images[start : start + 10]:
            picture = Image.fromarray((image.permute(1, 2, 0) * 255).byte().numpy()).resize(
                (SIDE, SIDE), Image.BILINEAR
            )
            seen.append(torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(SIDE, SIDE, 3))
        batch = torch.stack(seen).permute(0, 3, 1, 2).float() / 255
        found, logits = judge.features_and_logits(batch)
        features.append(found.detach())
        right += int((logits.argmax(1) == classes[start : start + 10]).sum())
    total = 0.0
    for feature, label in zip(torch.cat(features), classes, strict=True):
        best = torch.tensor(float("inf"))
        for other, owner in zip(private, labels, strict=True):
            if owner == label:
                best = torch.minimum(best, (feature - other).pow(2).sum())
        total += best.item()
    return right / len(images), total / len(images)


@torch.no_grad()
def our_evaluation(judge, images, classes, private, labels):
    """The same from one pass and one table of distances a person."""
    both = [judge.features_and_logits(F.interpolate(part, (SIDE, SIDE), mode="bilinear", antialias=True))
            for part in images.split(64)]  # fmt: skip
    features, logits = torch.cat([one for one, _ in both]), torch.cat([other for _, other in both])
    return float(hits(logits, classes).double().mean()), float(nearest(features, classes, private, labels).mean())


def race(rounds, plain, ours):
    """The ratio of median times of the processor of two jobs that take turns."""
    theirs, own = in_turn([plain, ours], rounds, clock=time.process_time)
    return theirs / own


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--jobs", nargs="+", default=["training", "inversion", "evaluation"])
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--target", default="face:vgg16-narrow")
    parser.add_argument("--identities", type=int, default=IDENTITIES)
    chosen = parser.parse_args()
    rounds = 3 if chosen.quick else 7
    torch.manual_seed(0)
    target = build(chosen.target, CLASSES).eval()
    if "training" in chosen.jobs:
        training(target, chosen.width, rounds)
    if "inversion" in chosen.jobs:
        inversion(target, chosen.width, chosen.identities, rounds)
    if "evaluation" in chosen.jobs:
        evaluation(rounds)


def training(target, width, rounds):
    rng = torch.Generator().manual_seed(0)

    settings = PlgMi(width=width, discriminator_width=width, top=4, batch=BATCH)
    pixels = torch.randint(256, (80, 3, 64, 64), dtype=torch.uint8, generator=rng)
    chosen = torch.randint(80, (CLASSES, 4), generator=rng)
    oracle = Oracle(target)
    images = Images(pixels, torch.zeros(80, dtype=torch.int64))
    ours, plain = (_start(images, settings, 0, "cpu", oracle.logits, chosen) for _ in range(2))
    plain_target = copy.deepcopy(target)
    first, second = plgmi_step(ours, settings, pixels), plain_training_step(plain, settings, pixels, plain_target)
    for name in ("margin", "hinge"):
        torch.testing.assert_close(first[name], second[name], rtol=5e-3, atol=5e-3)
    ratio = race(
        rounds,
        lambda: plain_training_step(plain, settings, pixels, plain_target),
        lambda: plgmi_step(ours, settings, pixels),
    )
    print(f"training step, batch {BATCH}: equal losses; ours is {ratio:.2f} times as fast ({rounds} rounds, medians)")


def inversion(target, width, identities, rounds):
    rng = torch.Generator().manual_seed(0)
    oracle, plain_target = Oracle(target), copy.deepcopy(target)
    generator = ConditionalGenerator(64, width, 128, CLASSES)
    plain_net = copy.deepcopy(generator).eval()
    prior = ConditionalPrior(generator, ProjectionDiscriminator(64, width, CLASSES))
    latents, classes = prior.sample(identities, rng), torch.arange(identities) % CLASSES
    draws = torch.rand(identities, 2, DRAWS, generator=rng)
    one = our_inversion_step(oracle, prior, latents, classes, draws)
    other = plain_inversion_step(plain_net, plain_target, latents, classes, draws)
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    rough, coarse = Oracle(target, precision="bfloat16"), replace(prior, precision="bfloat16")
    for precision, asked, used in (("float32", oracle, prior), ("bfloat16", rough, coarse)):
        ratio = race(
            rounds,
            lambda: plain_inversion_step(plain_net, plain_target, latents, classes, draws),
            partial(our_inversion_step, asked, used, latents, classes, draws),
        )
        told = "equal losses; " if precision == "float32" else ""
        print(f"inversion step, {identities} identities, {precision}: {told}ours is {ratio:.2f} times as fast")


def evaluation(rounds):
    rng = torch.Generator().manual_seed(0)
    judge = build("face:ir18-narrow", CLASSES).eval()
    found = torch.rand(IDENTITIES * 5, 3, 64, 64, generator=rng)
    labels = torch.arange(IDENTITIES).repeat_interleave(5)
    private, owners = torch.randn(PRIVATE * 27, 128, generator=rng), torch.arange(PRIVATE).repeat_interleave(27)
    one, other = (f(judge, found, labels, private, owners) for f in (our_evaluation, plain_evaluation))
    torch.testing.assert_close(torch.tensor(one), torch.tensor(other), rtol=2e-2, atol=2e-2)  # 8 bits and truncation
    ratio = race(
        min(rounds, 3),
        lambda: plain_evaluation(judge, found, labels, private, owners),
        lambda: our_evaluation(judge, found, labels, private, owners),
    )
    print(f"evaluation of {len(found)} images: equal numbers; ours is {ratio:.2f} times as fast")


if __name__ == "__main__":
    main()
