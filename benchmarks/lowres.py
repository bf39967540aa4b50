"""GMI and KED-MI against plain transcriptions of the published loops, in one run, on the same weights and batches.

Networks as published: VGG-16 at 64 x 64 as the target, the 64-pixel generator, GMI's critic, KED-MI's discriminator.
Three jobs:

- a step of KED-MI's training: five updates of the discriminator, one of the generator, batches of 64;
- a step of GMI's inversion, and one of KED-MI's, for one batch of identities.

Plain, as published: every network keeps its gradients, so each backward pass also makes those of all weights; the
target is asked about real images in every update, with a graph that is run back through; the discriminator sees its
three batches in three passes; the minibatch discrimination builds its whole table of differences; logs read every loss.
Ours: the target was asked once before training, everything but what moves is frozen, one pass.

First both must give the same numbers. Then they are timed in turn; ratios of medians are printed. The rows marked
bfloat16 let oracle and prior convolve in bfloat16 (`lightleak attack --precision bfloat16`), where the processor
has instructions for it; how far that moves the latents is printed beside it. PLG-MI and the evaluation:
benchmarks/plgmi.py.

    python benchmarks/lowres.py            # five rounds
    python benchmarks/lowres.py --quick    # networks of an eighth of the width, two rounds
    python benchmarks/lowres.py --jobs inversion --identities 64    # in the published batch
"""

import argparse
import copy
import os
import time
from dataclasses import dataclass, field, replace
from functools import partial

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads must not count as work

import torch
from torch import Tensor
from torch.nn import functional as F

from lightleak.attacks import GMI, KEDMI, Oracle
from lightleak.attacks.frame import Part
from lightleak.attacks.steps import identity_loss
from lightleak.data.population import Images
from lightleak.models.zoo import build
from lightleak.priors.fit import KedMi
from lightleak.priors.fit.kedmi import _start, kedmi_step
from lightleak.priors.fit.state import answers
from lightleak.priors.gan64 import Critic, GanPrior, Generator, InversionPrior, MinibatchDiscriminator
from lightleak.study.costs import in_turn

WEIGHT, MOMENTUM, RATE = 100.0, 0.9, 0.02

# ---------------------------------------------------------------------------------------------------------------------
# The published loops


def plain_discrimination(net, images):
    """Features and logits, with the whole table of differences N x N x kernels x dimensions."""
    features = net.features(images)
    points = net.mbd1.project(features).view(len(images), net.kernels, net.dimensions)
    table = (points[:, None] - points[None]).abs().sum(3)
    near = (-table).exp().sum(0) - 1
    return features, net.fc_layer(torch.cat([features, near], 1))


def plain_training_step(run, settings, pixels, target):
    """One iteration of the published training; returns its last losses."""
    told = {}
    other = pixels[:0]
    for _ in range(settings.critic_steps):
        chosen = torch.randint(len(pixels), (settings.batch,), generator=run.rng)
        labelled = pixels[chosen].float() / 255
        real, other = (
            pixels[torch.randint(len(pixels), (settings.batch,), generator=run.rng)].float() / 255 for _ in range(2)
        )
        made = run.generator(torch.randn(settings.batch, settings.latents, generator=run.rng)).detach()
        soft = target(labelled).softmax(1)
        _, on_labelled = plain_discrimination(run.discriminator, labelled)
        _, on_real = plain_discrimination(run.discriminator, real)
        _, on_made = plain_discrimination(run.discriminator, made)
        labels = -(soft * on_labelled.log_softmax(1)).sum(1).mean()
        real_part = F.softplus(on_real.logsumexp(1)).mean() - on_real.logsumexp(1).mean()
        known = (real_part + F.softplus(on_made.logsumexp(1)).mean()) / 2
        run.discriminator_adam.zero_grad()
        (labels + known).backward()
        run.discriminator_adam.step()
        told |= {"labels": labels.item(), "real": known.item()}
    features, logits = plain_discrimination(
        run.discriminator, run.generator(torch.randn(settings.batch, settings.latents, generator=run.rng))
    )
    wanted, _ = plain_discrimination(run.discriminator, other)
    matching = (features.mean(0) - wanted.mean(0)).abs().mean()
    unsure = -(logits.softmax(1) * logits.log_softmax(1)).sum()
    run.generator_adam.zero_grad()
    (matching + settings.entropy / settings.batch * unsure).backward()
    run.generator_adam.step()
    return told | {"matching": matching.item(), "entropy": unsure.item() / settings.batch}


def plain_gmi_steps(generator, critic, target, latents, classes, steps):
    """The published inversion of one batch; returns the latents and the last loss."""
    latents, velocity = latents.clone(), torch.zeros_like(latents)
    loss = torch.zeros(())
    for _ in range(steps):
        latents = latents.detach().requires_grad_()
        made = generator(latents)
        loss = -critic(made).mean() + WEIGHT * F.cross_entropy(target(made), classes)
        for network in (generator, critic, target):
            network.zero_grad()
        loss.backward()
        faster = MOMENTUM * velocity - RATE * latents.grad
        latents = (latents.detach() - MOMENTUM * velocity + (1 + MOMENTUM) * faster).clamp(-1, 1)
        velocity = faster
        loss.item()
    return latents, loss.item()


def plain_kedmi_steps(generator, discriminator, target, noise, classes):
    """The published inversion of one batch, whose images see each other in the discriminator; as above."""
    mean = torch.zeros(len(classes), noise.shape[2], requires_grad=True)
    log_variance = torch.ones(len(classes), noise.shape[2], requires_grad=True)
    adam = torch.optim.Adam([mean, log_variance], lr=RATE)
    loss = torch.zeros(())
    for step in range(noise.shape[1]):
        made = generator(mean + (log_variance / 2).exp() * noise[:, step])
        _, logits = plain_discrimination(discriminator, made)
        odds = logits.logsumexp(1)
        loss = (F.softplus(odds) - odds).mean() + WEIGHT * F.cross_entropy(target(made), classes)
        for network in (generator, discriminator, target):
            network.zero_grad()
        adam.zero_grad()
        loss.backward()
        adam.step()
        loss.item()
    return mean.detach(), loss.item()


# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Given(Part):
    """Searches whose random numbers are given."""

    given: Tensor = field(default_factory=lambda: torch.empty(0))

    def latents(self, prior):  # noqa: ARG002
        return self.given

    def normals(self, *shape, stream=0):  # noqa: ARG002
        return self.given


def our_gmi_steps(oracle, prior, latents, classes, steps):
    """`GMI.descend` for one batch."""
    attack = GMI(attempts=1, steps=steps, averaged=len(classes))
    part = Given(0, classes, torch.zeros_like(classes), given=latents)
    return attack.descend(prior, part, identity_loss(oracle, attack.loss), lambda *_, **__: None).latents


def our_kedmi_steps(oracle, prior, noise, classes):
    """`KEDMI.descend` for one batch."""
    attack = KEDMI(steps=noise.shape[1])
    part = Given(0, classes, torch.zeros_like(classes), given=noise)
    return attack.descend(prior, part, identity_loss(oracle, attack.loss), lambda *_, **__: None).per_class["mean"]


def race(rounds, *jobs):
    """Median seconds of the processor of jobs that take turns."""
    return in_turn(jobs, rounds, clock=time.process_time)


def report(name, times, note=""):
    print(f"{name}: equal results; ours is {times[0] / times[1]:.2f} times as fast{note}", flush=True)
    if len(times) > 2:
        print(f"{name}, bfloat16: ours is {times[0] / times[2]:.2f} times as fast", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--jobs", nargs="+", default=["training", "inversion"])
    parser.add_argument("--identities", type=int, help="inverted in one batch (20, quick 12)")
    parser.add_argument("--rounds", type=int)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    quick, rounds = arguments.quick, arguments.rounds or (2 if arguments.quick else 5)
    width, classes, batch, identities = (8, 60, 16, 12) if quick else (64, 1000, 64, 20)
    torch.manual_seed(0)
    target = build("face:vgg16-narrow" if quick else "face:vgg16", classes, 64).eval()
    if "training" in arguments.jobs:
        training(target, width, batch, rounds)
    if "inversion" in arguments.jobs:
        inversion(target, width, arguments.identities or identities, rounds)


def training(target, width, batch, rounds):
    rng, plain_target = torch.Generator().manual_seed(0), copy.deepcopy(target)
    settings = KedMi(width=width, discriminator_width=width, batch=batch)
    images = Images(
        torch.randint(256, (4 * batch, 3, 64, 64), dtype=torch.uint8, generator=rng), torch.zeros(4 * batch)
    )
    oracle = Oracle(target)
    with torch.no_grad():
        known = answers(oracle.logits, images)
    ours, plain = (_start(images, settings, 0, "cpu", oracle.logits, known) for _ in range(2))
    first = kedmi_step(ours, settings, images.pixels)
    second = plain_training_step(plain, settings, images.pixels, plain_target)
    for name, value in second.items():
        torch.testing.assert_close(first[name], value, rtol=2e-3, atol=2e-3)
    times = race(
        rounds,
        lambda: plain_training_step(plain, settings, images.pixels, plain_target),
        lambda: kedmi_step(ours, settings, images.pixels),
    )
    report(f"KED-MI training step, batch {batch}", times)


def inversion(target, width, identities, rounds):
    rng, plain_target = torch.Generator().manual_seed(0), copy.deepcopy(target)
    labels, classes = torch.arange(identities), target.classes
    oracle, rough = Oracle(target), Oracle(target, precision="bfloat16")
    generator = Generator(64, width, 100)
    for name, network, make in (
        ("GMI", Critic(64, width), GanPrior),
        ("KED-MI", MinibatchDiscriminator(64, width, classes), InversionPrior),
    ):
        plain_nets = copy.deepcopy(generator).eval(), copy.deepcopy(network).eval(), plain_target
        prior = make(copy.deepcopy(generator), network)
        if name == "GMI":
            start = torch.randn(identities, 100, generator=rng)

            def published(steps=2, nets=plain_nets, start=start):
                return plain_gmi_steps(*nets, start, labels, steps)[0]

            def made(oracle, prior=prior, start=start):
                return our_gmi_steps(oracle, prior, start, labels, 2)
        else:
            prior = InversionPrior(prior.generator, prior.discriminator, coupled=identities)
            noise = torch.randn(identities, 2, 100, generator=rng)

            def published(nets=plain_nets, noise=noise):
                return plain_kedmi_steps(*nets, noise, labels)[0]

            def made(oracle, prior=prior, noise=noise):
                return our_kedmi_steps(oracle, prior, noise, labels)

        coarse = replace(prior, precision="bfloat16")
        exact, close, other = published(), made(oracle), made(rough, coarse)
        # Adam makes full steps also where the slope is next to nothing, and there rounding decides on its sign.
        agree = float(((close - exact).abs() < 2e-3).double().mean())
        if agree < 0.9:
            raise SystemExit(f"{name}: only {agree:.0%} of the latents agree after two steps; nothing was timed")
        times = race(rounds, published, partial(made, oracle), partial(made, rough, coarse))
        report(f"{name} inversion, {identities} identities", times)
        print(f"  after two steps bfloat16 moved the latents {float((other - exact).abs().mean()):.1e} apart")


if __name__ == "__main__":
    main()
