"""All that is promised of a graphics card, checked on whatever card is there, against the published loop beside it.

    python benchmarks/gpu.py --minutes 10 --out DIR            # the checks, most valuable first, as time allows
    python benchmarks/gpu.py --minutes 10 --out DIR --only same step   # some of them
    python benchmarks/gpu.py --minutes 1 --out DIR --tiny --device cpu   # a toy on the processor: does it run?
    python benchmarks/gpu.py --prior 8 --out DIR               # the learnt prior of faces: eight minutes of training

Every ratio is a median over pairs timed in turn in this process. What is done is written to DIR/gpu.json and
DIR/gpu.md after each check, so that a run that is cut off leaves what it found; a check that fails or does not fit
into the memory is noted with its reason, and the next one runs. It runs from the source tree alone.
"""
# ruff: noqa: E402 (the source tree comes first, so that nothing needs to be installed)

import argparse
import json
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT / "src", ROOT / "benchmarks"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import ppa
import torch
from torch.nn import functional as F

from lightleak import __version__
from lightleak.attacks import ATTACKS, PPA, Oracle, Reconstruction
from lightleak.data import faces
from lightleak.data.population import Images
from lightleak.errors import UserError
from lightleak.models.zoo import build
from lightleak.place import Place, choose
from lightleak.priors import RenderedPrior
from lightleak.study.costs import in_turn
from lightleak.training import RECIPES
from lightleak.training.loop import mechanism_of, one_epoch, optimiser_of
from lightleak.training.plan import Plan


@dataclass(frozen=True)
class Scale:
    """How large each check is."""

    step: ppa.Size
    selection: ppa.Size
    small: ppa.Size
    rounds: int = 7
    slice: float = 25.0  # seconds of the paper's whole run
    network: str = "timm:resnet101"
    pixels: int = 224
    batch: int = 128
    steps: int = 30  # of training
    painted: int = 6000
    attempts: tuple[int, int] = (100, 10_000)
    attacked: tuple[int, int] = (7, 64)  # batches whose results are compared
    people: int = 8


SELECTED: dict[str, int] = {"batch": 25, "candidates": 25, "attempts": 25, "keep": 5, "views": 16}
FULL = Scale(
    step=replace(ppa.PAPER, batch=16), selection=replace(ppa.PAPER, **SELECTED), small=replace(ppa.FULL, **SELECTED)
)
TINY = Scale(
    step=ppa.QUICK, selection=ppa.QUICK, small=ppa.QUICK, rounds=1, slice=0.2, network="timm:resnet10t", pixels=32,
    batch=8, steps=2, painted=8, attempts=(4, 12), attacked=(3, 4), people=2,
)  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """Where and how large."""

    place: Place
    scale: Scale
    tiny: bool

    def peak(self, job: Callable[[], Any]) -> int:
        """Bytes of the card that a job holds at most, or of this process where there is no card."""
        device = self.place.device
        if device.type != "cuda":
            job()
            return ppa.peak_memory() * 1024
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        job()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)

    def seconds(self, job: Callable[[], Any], rounds: int | None = None) -> float:
        """Median wall seconds of a job, after one that is not counted."""

        def clock() -> float:
            self.place.wait()
            return time.perf_counter()

        return in_turn([job], rounds or self.scale.rounds, clock=clock)[0]


# ---------------------------------------------------------------------------------------------------------------------
# The checks: name -> what was found. A value with a target says so in TARGETS.


def same(bench: Bench) -> dict[str, Any]:
    """Both sides give the same images, gradients, scores and features."""
    size = bench.scale.step if bench.tiny else replace(ppa.FULL, batch=2)
    apart, rounding = ppa.differences(ppa.World(size, str(bench.place.device)))
    if max(apart.values()) > 1e-4:
        raise UserError(f"the two sides do not compute the same: {apart}")
    return {"relative differences": apart, "gradients in float32": rounding}


def paths(bench: Bench) -> dict[str, Any]:
    """Every attack, and what is measured of it, on the device; beside the same on the processor."""
    people = bench.scale.people
    settings = {"images": 6, "size": 32, "public_people": 4, "public_images": 4, "judge_images": 6, "test_images": 4}
    population = faces.population(people=people, **settings)
    found: dict[str, Any] = {}
    from lightleak.metrics.evaluate import evaluate

    torch.manual_seed(0)
    target, judge = (build(name, people, 32) for name in ("timm:resnet10t", "timm:resnet14t"))
    prior = RenderedPrior(size=32)
    attacks = {
        "ppa": PPA(candidates=16, attempts=2, keep=1, steps=4, views=4, batch=8),
        "guess": ATTACKS["guess"](),
    }
    for name, attack in attacks.items():
        told = {}
        for where in (bench.place, Place()):
            with where.entered():
                oracle = Oracle(where.put(target), attack.access)
                result = attack.run(oracle, prior, torch.arange(people), torch.Generator().manual_seed(0))
                measured = evaluate(result, where.put(judge), population, factors=prior.factors_of)
                told[where] = {n: m.value for n, m in measured.measures.items() if m is not None}
        one, other = told[bench.place], told[Place()]
        found[name] = max(abs(one[n] - other[n]) / max(abs(other[n]), 1e-6) for n in other if n != "fid")
    return {"largest relative difference of a metric": found}


def step(bench: Bench, precision: str = "bfloat16") -> dict[str, Any]:
    """One step of the descent: time and memory of both sides."""
    world = ppa.World(bench.scale.step, str(bench.place.device), judge=False)
    table = ppa.compare(world, precision, bench.scale.rounds, ["step"])["step"]
    found = {
        "ratio": table["ratio of wall times"], "ours, ms": 1000 * table["ours"],
        "published, ms": 1000 * table["ours"] * table["ratio"],
    }  # fmt: skip
    if bench.place.device.type == "cuda":
        sides = (ppa.Published(world), ppa.Ours(world, precision))
        published, ours = (bench.peak(ppa.jobs(side, world)["step"]) for side in sides)
        found |= {"peak, GB": ours / 1e9, "published peak, GB": published / 1e9, "memory ratio": published / ours}
    return found


def step_float32(bench: Bench) -> dict[str, Any]:
    """The same in float32, TF32 off on both sides."""
    return step(bench, "float32")


def twice(bench: Bench) -> dict[str, Any]:
    """The same bytes from two runs; how far other batches are apart."""
    size = bench.scale.step if bench.tiny else replace(ppa.FULL, batch=8)
    world = ppa.World(size, str(bench.place.device), judge=False)
    ours = ppa.Ours(world)
    classes = torch.arange(4 if not bench.tiny else 2)

    def run(batch: int) -> Reconstruction:
        attack = PPA(candidates=16, attempts=4, keep=2, steps=5, views=4, batch=batch)
        with bench.place.entered():
            return attack.run(Oracle(world.target), ours.prior, classes, torch.Generator().manual_seed(0))

    small, large = bench.scale.attacked
    first, again, other = run(large), run(large), run(small)
    return {
        "same batch, same bytes": torch.equal(first.latents, again.latents) and torch.equal(first.images, again.images),
        "another batch, largest difference of a latent": float((first.latents - other.latents).abs().max()),
    }


def selection(bench: Bench) -> dict[str, Any]:
    """Scoring of candidates and judging through many views, at the paper's size and at 256 pixels."""
    found = {}
    for name, size in (("1024", bench.scale.selection), ("256", bench.scale.small)):
        world = ppa.World(size, str(bench.place.device), judge=False)
        table = ppa.compare(world, "bfloat16", bench.scale.rounds, ["selection"])["selection"]
        found[f"ratio at {name}"] = table["ratio of wall times"]
    return found


def projection(bench: Bench) -> dict[str, Any]:
    """How long the paper's whole run would take, from a slice of it."""
    world = ppa.World(bench.scale.step, str(bench.place.device), judge=False)
    hours = ppa.project(world, "bfloat16", bench.scale.slice)
    return {f"{name}, minutes": 60 * value for name, value in hours.items()}


def training(bench: Bench) -> dict[str, Any]:
    """Images a second of ours with augmentation, and of a plain loop whose bytes lie on the device, without."""
    scale, device = bench.scale, bench.place.device
    count = scale.batch * scale.steps
    pixels = torch.randint(256, (min(count, 4096), 3, scale.pixels, scale.pixels), dtype=torch.uint8)
    images = Images(pixels, torch.arange(len(pixels)) % 530)
    lowered = bench.place.computes_bfloat16()
    recipe = replace(RECIPES["rolss"], batch=scale.batch, least_steps=scale.steps, epochs=1)
    staged = images.on(device)

    def plain() -> None:
        net = build(scale.network, 530, scale.pixels).net.to(device, memory_format=torch.channels_last).train()
        optimiser = torch.optim.Adam(net.parameters(), 1e-3)
        bytes_there, labels = images.pixels.to(device), images.labels.to(device)

        def steps() -> None:
            for _ in range(scale.steps):
                index = torch.randint(len(bytes_there), (scale.batch,)).to(device)
                batch = bytes_there[index].float().div_(255).sub_(0.5).div_(0.5)
                with torch.autocast(device.type, torch.bfloat16, enabled=lowered):
                    loss = F.cross_entropy(net(batch.contiguous(memory_format=torch.channels_last)), labels[index])
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()

        rates["plain"] = count / bench.seconds(steps, 2)

    def ours() -> None:
        classifier = build(scale.network, 530, scale.pixels).to(device)
        classifier.net.to(memory_format=torch.channels_last)
        optimiser, mechanism = optimiser_of(classifier, recipe), mechanism_of(Plan(), recipe, len(images))
        job = lambda: one_epoch(classifier, optimiser, staged, recipe, Plan(), mechanism, 0)  # noqa: E731
        rates["ours"] = mechanism.steps * scale.batch / bench.seconds(job, 2)

    rates: dict[str, float] = {}
    plain()
    ours()
    return {
        "ours, images a second": rates["ours"], "plain loop, images a second": rates["plain"],
        "share of the plain loop": rates["ours"] / rates["plain"],
    }  # fmt: skip


def painting(bench: Bench) -> dict[str, Any]:
    """A population of 530 painted people at 224 pixels; how far the device's pictures are from the processor's."""
    people = 530 if not bench.tiny else 2
    size = bench.scale.pixels
    each = max(1, bench.scale.painted // people)
    rest = {"public_people": 1, "public_images": 1, "judge_images": 1, "test_images": 1, "validation_images": 1}
    took = {}
    with bench.place.entered():
        began = time.perf_counter()
        there = faces.population(people=people, images=each, size=size, **rest)
        took["seconds"] = time.perf_counter() - began
    few = {**rest, "images": 1, "size": size, "people": people if bench.tiny else 8}
    with bench.place.entered():
        one = faces.population(**few)
    with Place().entered():
        other = faces.population(**few)
    took["images"] = sum(len(getattr(there, name)) for name in ("train", "validation", "test", "judge", "public"))
    took["seconds for 6,000 images"] = took["seconds"] / took["images"] * 6000
    apart = (one.train.pixels.int() - other.train.pixels.int()).abs()
    share = float((apart > 0).double().mean())
    return took | {"largest difference, of 255": int(apart.max()), "pixels that differ": share}


def attempts(bench: Bench) -> dict[str, Any]:
    """The peak memory of an attack of many attempts against one of few, a few of each kept."""
    few, many = bench.scale.attempts
    prior = RenderedPrior(size=64)
    target = bench.place.put(build("timm:resnet10t", 10, 64))

    def run(count: int) -> None:
        attack = PPA(candidates=100, attempts=count // 2, keep=2, steps=1, views=1, batch=32)
        with bench.place.entered():
            attack.run(Oracle(target), prior, torch.arange(2), torch.Generator().manual_seed(0))

    run(few)
    first, second = bench.peak(lambda: run(few)), bench.peak(lambda: run(many))
    return {f"{few} attempts, MB": first / 1e6, f"{many} attempts, MB": second / 1e6, "ratio": second / first}


def gpu_tests(bench: Bench) -> dict[str, Any]:
    """The tests that need a card."""
    if bench.place.device.type != "cuda":
        raise UserError("these tests need a CUDA card")
    import subprocess

    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", str(ROOT / "tests")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return {"exit code": done.returncode, "said": done.stdout.strip().splitlines()[-1:]}


CHECKS: dict[str, tuple[Callable[[Bench], dict[str, Any]], float]] = {  # with the seconds that each may take on a card
    "same": (same, 25),
    "paths": (paths, 20),
    "step": (step, 40),
    "twice": (twice, 25),
    "projection": (projection, 40),
    "training": (training, 60),
    "step in float32": (step_float32, 50),
    "selection": (selection, 50),
    "painting": (painting, 40),
    "attempts": (attempts, 60),
    "tests": (gpu_tests, 90),
}
# (check, value) -> what it should be, and whether more or less of it is better
TARGETS: dict[tuple[str, str], tuple[float, str]] = {
    ("step", "ratio"): (8.0, "at least"),
    ("step", "memory ratio"): (4.0, "at least"),
    ("step in float32", "ratio"): (2.5, "at least"),
    ("selection", "ratio at 1024"): (6.0, "at least"),
    ("selection", "ratio at 256"): (6.0, "at least"),
    ("projection", "whole, minutes"): (16.0, "at most"),
    ("attempts", "ratio"): (1.05, "at most"),
    ("training", "share of the plain loop"): (0.9, "at least"),
    ("painting", "seconds for 6,000 images"): (10.0, "at most"),
}


def met(check: str, name: str, value: Any) -> bool | None:
    """Whether a value meets its target; None if it has none."""
    if (check, name) not in TARGETS:
        return None
    wanted, way = TARGETS[check, name]
    return value >= wanted if way == "at least" else value <= wanted


def measure(bench: Bench, minutes: float, only: list[str], out: Path) -> dict[str, Any]:
    """Run the checks that time allows, in their order; the record is written after each."""
    began = time.monotonic()
    record: dict[str, Any] = {
        "lightleak": __version__, "torch": torch.__version__, "python": platform.python_version(),
        "device": bench.place.name, "tiny": bench.tiny, "checks": {}, "left out": {},
    }  # fmt: skip
    for name, (check, expected) in CHECKS.items():
        if only and name not in only:
            continue
        left = 60 * minutes - (time.monotonic() - began)
        if left < (0 if bench.tiny else expected):
            record["left out"][name] = f"{left:.0f} seconds were left, it may take {expected:.0f}"
            continue
        started = time.monotonic()
        try:
            found: dict[str, Any] = check(bench)
        except Exception as error:  # whatever it is, the next check may work
            line = " ".join(str(error).split())[:400]
            found = {"failed": f"{type(error).__name__}: {line}"}
            traceback.print_exc()
        bench.place.tidy()
        record["checks"][name] = {**found, "seconds": round(time.monotonic() - started, 1)}
        print(f"{name}: {json.dumps(found)[:300]}", flush=True)
        write(record, out)
    write(record, out)
    return record


def write(record: dict[str, Any], out: Path) -> None:
    """The record as JSON and as a table."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "gpu.json").write_text(json.dumps(record, indent=1) + "\n")
    lines = [
        f"# Measured on {record['device']}", "",
        f"Lightleak {record['lightleak']}, torch {record['torch']}"
        + (", a toy that only shows that it runs: no number here means anything" if record["tiny"] else ""),
        "", "| check | value | measured | target | met |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for check, found in record["checks"].items():
        for name, value in found.items():
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            wanted, way = TARGETS.get((check, name), (None, ""))
            judged = None if record["tiny"] else met(check, name, value)
            told = "" if judged is None else "yes" if judged else "no"
            lines.append(f"| {check} | {name} | {shown} | {'' if wanted is None else f'{way} {wanted:g}'} | {told} |")
    lines += [f"| {check} | left out | {why} | | |" for check, why in record["left out"].items()]
    (out / "gpu.md").write_text("\n".join(lines) + "\n")


def learnt_prior(place: Place, minutes: float, out: Path, tiny: bool) -> Path:
    """A StyleGAN2 learnt from public painted faces at 64 pixels for so many minutes, in half precision."""
    from lightleak import priors
    from lightleak.priors.fit import SmallStyleGAN2, fit

    people, size = (2, 32) if tiny else (2000, 64)
    with place.entered():
        population = faces.population(people=2, images=1, size=size, public_people=people, public_images=10)
        settings = SmallStyleGAN2(steps=1, batch=4) if tiny else SmallStyleGAN2(
            base=4096, widest=256, critic_base=4096, critic_widest=256, steps=1_000_000, batch=64, checkpoint_every=500
        )  # fmt: skip
        until = time.monotonic() + 60 * minutes

        class Enough(Exception):
            pass

        def watch(step: int, _: int, **numbers: float) -> None:
            if step % 100 == 0 or tiny:
                print(f"{step}: " + ", ".join(f"{name} {value:.3g}" for name, value in numbers.items()), flush=True)
            if time.monotonic() > until and step > settings.checkpoint_every:
                raise Enough

        with tempfile.TemporaryDirectory() as scratch:
            try:
                prior = fit(population.public, settings, 0, Path(scratch), watch)
            except Enough:  # fewer steps than the checkpoint has seen give what it holds
                prior = fit(population.public, replace(settings, steps=1), 0, Path(scratch))
        prior = replace(prior, critic=None)  # which no attack of ours asks
        prior.generator.half()  # half the file; it is read as float32
        priors.save(prior, out / "faces64")
        priors.show(priors.load(out / "faces64"), out / "faces64" / "samples.png")
    return out / "faces64"


def main(arguments: list[str] | None = None) -> dict[str, Any] | None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", nargs="+", default=[], choices=list(CHECKS))
    parser.add_argument("--tiny", action="store_true", help="toy sizes, to see whether it runs")
    parser.add_argument("--prior", type=float, metavar="MINUTES", help="instead: learn a prior of faces")
    chosen = parser.parse_args(arguments)
    try:
        place = choose(chosen.device)
    except UserError as error:
        raise SystemExit(str(error)) from None
    if chosen.prior is not None:
        print(learnt_prior(place, chosen.prior, chosen.out, chosen.tiny))
        return None
    return measure(Bench(place, TINY if chosen.tiny else FULL, chosen.tiny), chosen.minutes, chosen.only, chosen.out)


if __name__ == "__main__":
    main()
