"""PPA on a StyleGAN2 against a plain transcription of the published loop: same weights and latents, in one run.

Three jobs, each done as the published code does it and by the library:

    step       one step of the descent: synthesis, crops, target, loss, gradient, Adam
    selection  scoring of candidates, then judging of optimised latents through many views
    metrics    attack accuracy of all and of the kept, two feature distances, FID and PRDC features

Published, in plain form: weights modulated for each image and grouped convolutions, a style product for each layer,
the whole image and then its centre, single precision, every parameter collecting gradients, one crop for a batch, one
synthesis for each use of the images. What is left out on both sides: real images' features (published: anew in every
run), the face network (as the library's own: 64 or 112 pixels), W&B.

First both sides must give the same images, gradients, scores and features (1e-4 relative). Then they are timed in
turn. Processor time is what is compared (wall time beside it): it says the same on a machine that others use too.

    python benchmarks/ppa.py                       # 256 pixels, ResNet-101 at 224, batch 8: minutes
    python benchmarks/ppa.py --quick               # a toy: seconds
    python benchmarks/ppa.py --out results         # also writes ppa-speed.json and ppa-speed.md
    python benchmarks/ppa.py --slice 120 --device cuda   # how long the paper's whole run would take here
"""

import argparse
import copy
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads must not count as work

import torch
from torch.nn import functional as F

from lightleak.attacks import PPA, Oracle
from lightleak.attacks.draws import Rows
from lightleak.attacks.frame import Part
from lightleak.attacks.steps import candidate_scores, confidence_over_views, view_draws
from lightleak.data.views import resized
from lightleak.models.zoo import build
from lightleak.priors.stylegan2 import Generator, StyleGAN2Prior

XI, SLOPE, GAIN = 1e-4, 0.2, math.sqrt(2)


@dataclass(frozen=True)
class Size:
    """What is compared."""

    generator: int = 256
    base: int = 16384
    styles: int = 512
    widest: int = 512
    crop: int = 200  # of 256, as 800 of 1024
    target: str = "timm:resnet101"
    pixels: int = 224
    classes: int = 530
    batch: int = 8
    judge: str = "torchvision:inception_v3"
    judged: int = 299
    candidates: int = 4  # a share of the 2000 for each of 530 classes
    attempts: int = 4
    keep: int = 2
    views: int = 16


FULL = Size()
QUICK = Size(
    generator=32, base=512, styles=32, widest=32, crop=26, target="timm:resnet18", pixels=32, classes=10, batch=4,
    judge="timm:resnet10t", judged=32, candidates=8, attempts=4, keep=2, views=4,
)  # fmt: skip
PAPER = replace(FULL, generator=1024, base=32768, crop=800)
RUN = {"identities": 530, "latents": 16, "steps": 50, "candidates": 2000, "views": 100}  # Koh et al., FaceScrub


class World:
    """Networks with random weights, alike on both sides: the target and the judge are made to differ between images."""

    def __init__(self, size: Size, device: str = "cpu", judge: bool = True) -> None:
        torch.manual_seed(0)
        self.size, self.device = size, torch.device(device)
        self.generator = Generator(size.generator, size.styles, size.styles, 8, size.base, size.widest)
        for name, value in self.generator.named_parameters():
            if name.endswith("noise_strength"):
                torch.nn.init.constant_(value, 0.05)
        self.generator.to(self.device)
        self.target = build(size.target, size.classes, size.pixels).eval().to(self.device)
        self.judge = build(size.judge, size.classes, size.judged).eval().to(self.device) if judge else None
        rng = torch.Generator().manual_seed(0)
        prior = StyleGAN2Prior(copy.deepcopy(self.generator))
        self.latents = prior.sample(max(size.batch, size.candidates), rng)
        self.classes = torch.randint(size.classes, (size.batch,), generator=rng)


# ---------------------------------------------------------------------------------------------------------------------
# The published side


def fir(x, up):
    """Up-sampling by zero insertion, and the 4 x 4 filter, one channel at a time; `up` 1 only filters."""
    taps = x.new_tensor([1.0, 3.0, 3.0, 1.0])
    kernel = torch.outer(taps, taps) / 64 * 4
    n, c, h, w = x.shape
    if up == 2:
        x = F.pad(x.reshape(n, c, h, 1, w, 1), [0, 1, 0, 0, 0, 1]).reshape(n, c, 2 * h, 2 * w)
        x = F.pad(x, [2, 1, 2, 1])
    else:
        x = F.pad(x, [1, 1, 1, 1])
    return F.conv2d(x, kernel.expand(c, 1, 4, 4).contiguous(), groups=c)


def affine(layer, w):
    """One layer's style, from its own copy of w."""
    return F.linear(w, layer.weight * (1 / math.sqrt(w.shape[1])), layer.bias)


def styled(layer, x, w, up):
    """A modulated convolution as one grouped convolution with weights of each image's own."""
    n, inputs, h, side = x.shape
    weight = layer.weight[None] * affine(layer.affine, w)[:, None, :, None, None]
    weight = weight * (weight.square().sum([2, 3, 4]) + 1e-8).rsqrt()[:, :, None, None, None]
    outputs = weight.shape[1]
    x = x.reshape(1, n * inputs, h, side)
    if up:
        weight = weight.transpose(1, 2).reshape(n * inputs, outputs, 3, 3)
        x = fir(F.conv_transpose2d(x, weight, stride=2, groups=n), 1)
    else:
        x = F.conv2d(x, weight.reshape(n * outputs, inputs, 3, 3), padding=1, groups=n)
    x = x.reshape(n, outputs, x.shape[2], x.shape[3])
    x = x + layer.noise_const * layer.noise_strength
    x = x + layer.bias[None, :, None, None]
    return F.leaky_relu(x, SLOPE) * GAIN


def colours(layer, x, w):
    """A modulated 1 x 1 convolution to colours, also with weights of each image's own."""
    n, inputs, h, side = x.shape
    style = affine(layer.affine, w) * (1 / math.sqrt(inputs))
    weight = layer.weight[None] * style[:, None, :, None, None]
    y = F.conv2d(x.reshape(1, n * inputs, h, side), weight.reshape(n * 3, inputs, 1, 1), groups=n)
    return y.reshape(n, 3, h, side) + layer.bias[None, :, None, None]


def published_images(generator, w):
    """The whole image, about in [-1, 1], of styles N x slots x L."""
    synthesis, slot, image = generator.synthesis, 0, None
    x = synthesis.b4.const[None].repeat(len(w), 1, 1, 1)
    for size in synthesis.sizes:
        block = getattr(synthesis, f"b{size}")
        if size > 4:
            x = styled(block.conv0, x, w[:, slot], True)
            slot += 1
        x = styled(block.conv1, x, w[:, slot], False)
        slot += 1
        y = colours(block.torgb, x, w[:, slot])
        image = y if image is None else fir(image, 2) + y
    return image


def centre(images, crop):
    """The middle, of whole images."""
    start = round((images.shape[2] - crop) / 2)
    return images[..., start : start + crop, start : start + crop]


def resize(images, pixels):
    """Bilinear and antialiased."""
    return F.interpolate(images, (pixels, pixels), mode="bilinear", antialias=True, align_corners=False)


def spread(generator, w):
    """One w repeated over all slots."""
    return w[:, None].repeat(1, generator.synthesis.slots, 1)


def published_poincare(logits, classes):
    """Over one-hot vectors, without guards."""
    u = logits / logits.abs().sum(1, keepdim=True)
    v = torch.clip(torch.eye(logits.shape[1], device=logits.device)[classes] - XI, 0, 1)
    gap = (u - v).square().sum(1)
    return torch.arccosh(1 + 2 * gap / ((1 - u.square().sum(1)) * (1 - v.square().sum(1))))


def random_crop(images, scale, ratio, rng, pixels):
    """One box for the whole batch, of whole pixels."""
    area = pixels * pixels * (scale[0] + (scale[1] - scale[0]) * float(torch.rand((), generator=rng)))
    low, high = math.log(ratio[0]), math.log(ratio[1])
    shape = math.exp(low + (high - low) * float(torch.rand((), generator=rng)))
    width, height = (min(pixels, round(math.sqrt(area * s))) for s in (shape, 1 / shape))
    top = int(torch.randint(pixels - height + 1, (), generator=rng))
    left = int(torch.randint(pixels - width + 1, (), generator=rng))
    return resize(images[..., top : top + height, left : left + width], pixels)


class Published:
    """The published code's way through the three jobs."""

    def __init__(self, world: World) -> None:
        self.size = world.size
        self.generator, self.net = copy.deepcopy(world.generator).eval(), copy.deepcopy(world.target.net).eval()
        self.judge = copy.deepcopy(world.judge).eval() if world.judge else None
        for network in (self.generator, self.net):
            network.requires_grad_(True)

    def images(self, w, pixels):
        return resize(centre(published_images(self.generator, spread(self.generator, w)), self.size.crop), pixels)

    def gradient(self, latents, classes, crop=None):
        """The gradient in w, of the mean loss."""
        w = latents[:, None].clone().requires_grad_()
        images = published_images(self.generator, w.repeat(1, self.generator.synthesis.slots, 1))
        images = resize(centre(images, self.size.crop), self.size.pixels)
        if crop is not None:
            images = random_crop(images, (0.9, 1.0), (1.0, 1.0), crop, self.size.pixels)
        published_poincare(self.net(images), classes).mean().backward()
        return w

    def step(self, latents, classes):
        w = self.gradient(latents, classes, torch.Generator().manual_seed(0))
        gradient, w = w.grad, w.detach().requires_grad_()
        adam = torch.optim.Adam([w], 0.005, betas=(0.1, 0.1))
        w.grad = gradient
        adam.step()

    @torch.no_grad()
    def scores(self, latents):
        rows = []
        for chunk in latents.split(self.size.batch):
            images = published_images(self.generator, spread(self.generator, chunk)).clamp(-1, 1)
            images = resize(centre(images, self.size.crop), self.size.pixels)
            rows.append((self.net(images).softmax(1) + self.net(images.flip(3)).softmax(1)) / 2)
        return torch.cat(rows)

    @torch.no_grad()
    def select(self, candidates, attempts, label):
        scores = self.scores(candidates)
        for _ in range(self.size.attempts):
            best = scores[:, label].sort(descending=True).indices[0]
            scores[best, label] = -1.0
        rng, total = torch.Generator().manual_seed(0), 0
        images = self.images(attempts, self.size.pixels)
        for _ in range(self.size.views):
            seen = random_crop(images, (0.5, 0.9), (0.8, 1.2), rng, self.size.pixels)
            seen = seen.flip(3) if torch.rand((), generator=rng) < 0.5 else seen
            total = total + self.net(seen).softmax(1)[:, label]
        return total.topk(self.size.keep).indices

    @torch.no_grad()
    def measure(self, attempts, kept):
        """Each number synthesises its images anew."""
        accuracy = self.judge.net(self.images(attempts, self.size.judged))  # unfiltered
        self.judge.net(self.images(kept, self.size.judged))  # filtered: the reported number
        features = []
        for _ in range(3):  # FID, PRDC, distance in the judge's features; the same network stands for FID's
            images = self.images(kept, self.size.judged)
            features.append(self.judge.features_and_logits(images * 0.5 + 0.5)[0])
        self.images(kept, 160)  # distance in a face network's features, the network itself left out
        return accuracy, features[0]


# ---------------------------------------------------------------------------------------------------------------------
# Ours


class Ours:
    """The library's."""

    def __init__(self, world: World, precision="float32") -> None:
        self.size, self.device = world.size, world.device
        self.oracle = Oracle(world.target, precision=precision)
        self.prior = StyleGAN2Prior(
            copy.deepcopy(world.generator), crop=world.size.crop, clip=False, precision=precision
        )
        self.exact = replace(self.prior, precision="float32") if precision != "float32" else self.prior
        self.judge = copy.deepcopy(world.judge).eval().requires_grad_(False) if world.judge else None
        self.attack = PPA(steps=1, batch=world.size.batch, views=world.size.views)

    def gradient(self, latents, classes):
        """The gradient in w, of the mean loss, without crops."""
        w = latents.clone().requires_grad_()
        images = resized(self.prior.decode(w), self.size.pixels)
        loss = published_poincare(self.oracle.logits(images), classes).mean()
        return torch.autograd.grad(loss, w)[0]

    def step(self, latents, classes):
        attempts = torch.arange(len(latents))
        part = Part(0, classes, attempts.to(classes.device))
        self.attack.descend(self.oracle, self.prior, latents, part, lambda *_, **__: None)

    def scores(self, latents):
        return candidate_scores(self.oracle, self.prior, latents, self.size.batch)

    @torch.no_grad()
    def select(self, candidates, attempts, label):
        self.scores(candidates)[:, label].topk(self.size.attempts)
        images = resized(self.prior.decode(attempts), self.size.pixels)
        labels = torch.full((len(attempts),), label, device=images.device)
        draws = view_draws(1, labels, torch.arange(len(attempts)), self.size.views)
        view, batch = self.attack.judging, 4 * self.size.batch
        rows = Rows(1, labels, torch.arange(len(attempts), device=labels.device))
        return confidence_over_views(self.oracle, images, rows, view, draws, batch).topk(self.size.keep).indices

    @torch.no_grad()
    def measure(self, attempts, kept):
        """One synthesis, in single precision, and one look of the judge; the kept are rows of all."""
        images = resized(self.exact.decode(attempts), self.size.judged)
        features, logits = self.judge.features_and_logits(images)
        return logits, features[: len(kept)]


# ---------------------------------------------------------------------------------------------------------------------
# Comparison


def jobs(side, world):
    """Name and function of each job."""
    size = world.size
    latents, classes = world.latents.to(world.device), world.classes.to(world.device)
    start, attempts = latents[: size.batch], latents[: size.attempts]
    return {
        "step": lambda: side.step(start, classes),
        "selection": lambda: side.select(latents[: size.candidates], attempts, 0),
        "metrics": lambda: side.measure(attempts, attempts[: size.keep]),
    }


def apart(a, b):
    """Relative distance of two tensors."""
    return float((a - b).norm() / b.norm())


def differences(world):
    """How far the two sides are apart: gradients in double precision, since a deep network's rectifiers turn rounding
    errors of single precision into far larger differences of its gradient (told beside it), the rest in single.
    """
    published, ours, size = Published(world), Ours(world), world.size
    latents, classes = world.latents.to(world.device)[:2], world.classes.to(world.device)[:2]
    with torch.no_grad():
        whole = centre(published_images(published.generator, spread(published.generator, latents)), size.crop)
        found = {"images": apart(ours.prior.decode(latents) * 2 - 1, whole)}
    single = published.gradient(latents, classes).grad[:, 0]
    rounding = apart(ours.gradient(latents, classes), single)
    ours.prior = replace(ours.prior, clip=True)
    found["scores"] = apart(ours.scores(latents), published.scores(latents))
    if world.judge:
        pairs = zip(ours.measure(latents, latents[:1]), published.measure(latents, latents[:1]), strict=True)
        found |= {name: apart(a, b) for name, (a, b) in zip(("logits", "features"), pairs, strict=True)}
    double = copy.copy(world)
    double.generator, double.target = copy.deepcopy(world.generator).double(), copy.deepcopy(world.target).double()
    double.judge = None
    exact = Published(double).gradient(latents.double(), classes).grad[:, 0]
    found["gradients"] = apart(Ours(double).gradient(latents.double(), classes), exact)
    return found, {"ours against published": rounding, "published against exact": apart(single, exact)}


def drift(world, steps):
    """Mean confidence after some steps in both precisions, and the largest difference of one image's."""
    latents, classes = world.latents.to(world.device)[: world.size.batch], world.classes.to(world.device)
    attempts, exact = torch.arange(world.size.batch), Ours(world)
    told = {}
    for precision in ("float32", "bfloat16"):
        ours = Ours(world, precision)
        attack = replace(ours.attack, steps=steps)
        part = Part(0, classes, attempts.to(classes.device))
        found = attack.descend(ours.oracle, ours.prior, latents, part, lambda *_, **__: None)
        with torch.no_grad():  # both judged in single precision
            scores = exact.oracle.scores(resized(exact.prior.decode(found), world.size.pixels))
        told[precision] = scores.gather(1, classes[:, None])[:, 0]
    most = float((told["bfloat16"] - told["float32"]).abs().max())
    return {"steps": steps, "largest difference": most} | {name: float(t.mean()) for name, t in told.items()}


def work(world):
    """Multiply-adds of an image's step that no exact method avoids: cropped synthesis, target; forward and backward."""
    counted = {"float32": 0}

    def conv(x, weight, *arguments, **keywords):
        y = original[0](x, weight, *arguments, **keywords)
        counted["float32"] += y.numel() * weight[0].numel()
        return y

    def transposed(x, weight, *arguments, **keywords):
        counted["float32"] += x.numel() * weight[0].numel()
        return original[1](x, weight, *arguments, **keywords)

    original = F.conv2d, F.conv_transpose2d
    hooks = []
    ours = Ours(world)
    for module in ours.oracle._target.net.modules():
        if isinstance(module, torch.nn.Conv2d):
            hooks.append(
                module.register_forward_hook(
                    lambda m, _, y: counted.__setitem__("float32", counted["float32"] + y.numel() * m.weight[0].numel())
                )
            )
    with torch.no_grad():
        ours.oracle.logits(torch.rand(1, 3, world.size.pixels, world.size.pixels, device=world.device))
        target = counted.pop("float32")
        counted["float32"] = 0
        F.conv2d, F.conv_transpose2d = conv, transposed
        try:
            ours.prior.decode(world.latents[:1].to(world.device))
        finally:
            F.conv2d, F.conv_transpose2d = original
    return {"target": target, "generator": counted["float32"], "step": 2 * (target + counted["float32"])}


def product_rate(kind, device, side=1024):
    """Multiply-adds a second of a matrix product, best of five: per second of processor time, or of wall time on a
    GPU.
    """
    a, rates = torch.randn(side, side, device=device).to(kind), []
    for _ in range(6):
        clock = Clock(device)
        a @ a
        rates.append(side**3 / clock.read()[0])
    return max(rates[1:])


class Clock:
    """Processor seconds (on a GPU: wall seconds) and wall seconds since it was made."""

    def __init__(self, device) -> None:
        self.gpu = torch.device(device).type == "cuda"
        self._wait()
        self.began = time.process_time(), time.perf_counter()

    def _wait(self) -> None:
        if self.gpu:
            torch.cuda.synchronize()

    def read(self):
        self._wait()
        wall = time.perf_counter() - self.began[1]
        return (wall if self.gpu else max(time.process_time() - self.began[0], 1e-9)), wall


def compare(world, precision, rounds, wanted):
    """Medians of both sides for each job, timed in turn, and the medians of the pairs' ratios."""
    sides = {"published": jobs(Published(world), world), "ours": jobs(Ours(world, precision), world)}
    table = {}
    for job in wanted:
        taken = {name: [] for name in sides}
        for number in range(rounds + 1):
            for name, side in sides.items():
                clock = Clock(world.device)
                side[job]()
                if number:  # the first is warm-up
                    taken[name].append(clock.read())
        pairs = list(zip(taken["published"], taken["ours"], strict=True))
        table[job] = {
            "ratio": statistics.median(p[0] / o[0] for p, o in pairs),
            "ratio of wall times": statistics.median(p[1] / o[1] for p, o in pairs),
            "ours": statistics.median(o[0] for _, o in pairs),
        }
    return table


def peak(side, precision, arguments):
    """Peak memory of a process that does nothing but two steps of one side, and of one that only made its networks."""
    told, paths = [], os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for steps in (2, 0):
        command = [
            sys.executable,
            __file__,
            "--alone",
            side,
            "--steps",
            str(steps),
            "--precision",
            precision,
            *arguments,
        ]
        output = subprocess.run(command, capture_output=True, text=True, check=True, env=paths).stdout
        told.append(int(output.split()[-1]))
    return {"peak": told[0], "above the networks": told[0] - told[1]}


def alone(world, side, precision, steps):
    """Peak memory of this process in KiB, after some steps of one side."""
    own = Published(world) if side == "published" else Ours(world, precision)
    step = jobs(own, world)["step"]
    for _ in range(steps):
        step()
    return peak_memory()


def peak_memory():
    """KiB; Linux hands a process the peak of whoever started it, unless one asks for that of its own memory."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def project(world, precision, seconds):
    """How long the paper's whole run would take, from as many steps, scores and views as fit into some seconds."""
    size, ours = world.size, Ours(world, precision)
    latents, classes = world.latents.to(world.device), world.classes.to(world.device)
    images = torch.rand(size.batch, 3, size.pixels, size.pixels, device=world.device)
    parts = {
        "descent": (
            lambda: ours.step(latents[: size.batch], classes),
            RUN["identities"] * RUN["latents"] * RUN["steps"],
        ),
        "candidates": (lambda: ours.scores(latents[: size.batch]), RUN["candidates"]),
        "judging": (lambda: ours.oracle.scores(images), RUN["identities"] * RUN["latents"] * RUN["views"]),
    }
    hours = {}
    for name, (part, count) in parts.items():
        part()
        clock, times = Clock(world.device), 0
        while not times or clock.read()[1] < seconds * (0.8 if name == "descent" else 0.1):
            part()
            times += 1
        hours[name] = clock.read()[1] / times / size.batch * count / 3600
    return hours | {"whole": sum(hours.values())}


# ---------------------------------------------------------------------------------------------------------------------


def has_bfloat16():
    """Whether this processor multiplies bfloat16 in hardware."""
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--jobs", nargs="+", default=["step", "selection", "metrics"])
    parser.add_argument("--precision", choices=("float32", "bfloat16"), help="default: both, if the machine has both")
    parser.add_argument("--drift", type=int, help="steps after which precisions are compared (default 50, quick 3)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--slice", type=float, metavar="SECONDS")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--out", type=Path, help="folder for ppa-speed.json")
    parser.add_argument("--alone", choices=("published", "ours"), help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    size = QUICK if chosen.quick else PAPER if chosen.slice else FULL
    size = replace(size, batch=chosen.batch) if chosen.batch else size
    if chosen.alone:
        print(alone(World(size, judge=False), chosen.alone, chosen.precision, chosen.steps))
        return None
    if chosen.slice:
        precision = chosen.precision or "bfloat16"
        world = World(size, chosen.device, judge=False)
        hours = project(world, precision, chosen.slice)
        print(
            f"{RUN['identities']} identities x {RUN['latents']} latents x {RUN['steps']} steps on this {chosen.device}"
        )
        for name, value in hours.items():
            print(f"  {name}: {value:.2f} hours")
        return hours

    rounds = chosen.rounds or (3 if chosen.quick else 5)
    world = World(size, chosen.device, judge="metrics" in chosen.jobs)
    apart_by, rounding = differences(world)
    print("relative differences:", ", ".join(f"{name} {value:.1e}" for name, value in apart_by.items()))
    print("gradients in single precision:", ", ".join(f"{name} {value:.1e}" for name, value in rounding.items()))
    if max(apart_by.values()) > 1e-4:
        raise SystemExit("the two sides do not compute the same; no speed is compared")
    precisions = [chosen.precision] if chosen.precision else ["float32", *(["bfloat16"] if has_bfloat16() else [])]
    macs = work(world)
    record = {
        "size": size.__dict__,
        "threads": chosen.threads,
        "rounds": rounds,
        "differences": apart_by,
        "rounding": rounding,
        "work": macs,
    }
    record |= {"torch": torch.__version__, "processor": platform.machine(), "sides": {}}
    passed = ["--threads", str(chosen.threads), *(["--quick"] if chosen.quick else [])]
    memory = peak("published", "float32", passed) if chosen.device == "cpu" else None
    for precision in precisions:
        table = compare(world, precision, rounds, chosen.jobs)
        for job, row in table.items():
            print(f"{precision} {job}: {row['ratio']:.2f} times as fast (wall {row['ratio of wall times']:.2f})")
        if "step" in table:
            rate = product_rate(getattr(torch, precision), chosen.device)
            floor = macs["step"] * size.batch / rate
            table["step"]["share of the floor"] = floor / table["step"]["ours"]
            print(f"  a step's products alone would take {floor / table['step']['ours']:.0%} of what ours takes")
        if memory:
            own = peak("ours", precision, passed)
            table["memory"] = {name: memory[name] / max(own[name], 1) for name in memory}
            print("  memory: " + ", ".join(f"{name} 1/{value:.2f}" for name, value in table["memory"].items()))
        record["sides"][precision] = table
    if "bfloat16" in precisions:
        steps = chosen.drift if chosen.drift is not None else 3 if chosen.quick else 50
        record["drift"] = drift(world, steps) if steps else None
        print(f"confidence in both precisions: {record['drift']}")
    if chosen.out:
        (chosen.out / "ppa-speed.json").write_text(json.dumps(record, indent=1) + "\n")
    return record


if __name__ == "__main__":
    main()
