"""Skip surgery over the whole zoo: every classifier of torchvision, every architecture of timm, a line of JSON each.

    python benchmarks/surgery_zoo.py                      # all, one of each class first; interrupted, it continues
    python benchmarks/surgery_zoo.py timm:resnet18 ...    # these
    python benchmarks/surgery_zoo.py --sample 100         # a random hundred
    python benchmarks/surgery_zoo.py --summary            # results/surgery-zoo.md from the records

Each model runs in a process of its own that is given up after a time limit. Models are made without pretrained weights,
at 64 pixels where they allow it; weights that start at 0 or near it (LayerScale, the last norm of a block) are moved
away from there, since a cut behind them would not show. What is checked is listed in `examine`.
"""

# ruff: noqa: E402, the paths come first

import argparse
import contextlib
import gc
import hashlib
import json
import math
import multiprocessing
import queue
import random
import resource
import statistics
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from lightleak import compat  # noqa: F401, I001
import timm
import torch
import torchvision
from torch import nn

from lightleak import surgery
from lightleak.surgery.unused import reached
from surgery_oracle import rescaled

RECORDS = ROOT / "results" / "surgery-zoo.jsonl"
SUMMARY = ROOT / "results" / "surgery-zoo.md"
OUTLINES = Path(tempfile.gettempdir()) / "lightleak-surgery-zoo-outlines.jsonl"
TOO_LARGE = 500_000_000  # parameters: model, copy, gradients and activations must fit into 24 GB beside other work
LEFT_MEMORY = 20 * 2**30  # bytes beside what a fresh process has: who needs more is too large for 24 GB as well
MOST_MEMORY = 2_500_000  # KiB: a process that ever held more is replaced after its model
SIZES = (64, 112, 128, None)  # pixels, 112 for patches of 14; None is the model's own


def names() -> list[str]:
    found = [f"timm:{name}" for name in timm.list_models()]
    from torchvision.models import list_models

    return [f"torchvision:{name}" for name in list_models(module=torchvision.models)] + found


def build(name: str, size: int | None) -> tuple[nn.Module, int, int]:
    """A model with ten classes, the channels and pixels it reads."""
    library, _, name = name.partition(":")
    if library == "torchvision":
        from torchvision.models import get_model

        own = 299 if name == "inception_v3" else 224
        options = {"image_size": size} if name.startswith("vit_") and size else {}
        if name.startswith(("googlenet", "inception")):
            options["init_weights"] = False
            size = None
        if name.startswith("maxvit"):
            size = None
        return get_model(name, weights=None, num_classes=10, **options), 3, size or own
    options = [{"drop_path_rate": 0.1}, {}]
    if size:
        options = [{"img_size": size, **each} for each in options] + options
    for option in options:
        try:
            model = timm.create_model(name, num_classes=10, **option)
            break
        except TypeError as error:
            problem = error
    else:
        raise problem
    channels, height, _ = model.pretrained_cfg["input_size"]  # type: ignore[index]
    return model, channels, size or height


def outline(name: str) -> dict:
    """Parameters and a fingerprint of the structure, without making weights where the model can be made without."""
    problem: Exception = RuntimeError("no size")
    for device in ("meta", "cpu"):
        for size in SIZES:
            try:
                with torch.device(device):
                    model, channels, pixels = build(name, size)
            except (RuntimeError, AssertionError, ValueError, IndexError, NotImplementedError, TypeError) as error:
                problem = error
                continue
            shapes = [(key, tuple(t.shape)) for key, t in model.state_dict().items()]
            text = repr((type(model).__name__, repr(model), shapes, channels, pixels))
            return {
                "class": type(model).__name__,
                "parameters": sum(p.numel() for p in model.parameters()),
                "fingerprint": hashlib.sha256(text.encode()).hexdigest()[:16],
            }
    raise problem


def prepared(name: str) -> tuple[nn.Module, torch.Tensor]:
    """The model and the smallest example that it reads."""
    problem: Exception = RuntimeError("no size")
    for size in SIZES:
        try:
            torch.manual_seed(0)
            model, channels, pixels = build(name, size)
            example = torch.rand(2, channels, pixels, pixels, generator=torch.Generator().manual_seed(1))
            model.eval()
            with torch.no_grad():
                model(example)
            return model, example
        except (RuntimeError, AssertionError, ValueError, IndexError, ZeroDivisionError) as error:
            problem = error
    raise problem


def shaken(model: nn.Module) -> None:
    """Move weights away from 0, where branches would be silent."""
    rng = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() < 2 or min(p.abs().max(), p.abs().mean() * 50) < 1e-2 or "gamma" in name:
                noise = torch.rand(p.shape, generator=rng)
                p.copy_(0.1 * (noise - 0.5) if name.endswith("bias") or p.dim() > 2 else 0.5 + noise)
        for name, b in model.named_buffers():
            if name.endswith("running_var"):
                b.copy_(0.5 + torch.rand(b.shape, generator=rng))
            elif name.endswith("running_mean"):
                b.copy_(0.1 * torch.randn(b.shape, generator=rng))


def tensor(output: object) -> torch.Tensor:
    while not isinstance(output, torch.Tensor):
        output = output.logits if hasattr(output, "logits") else output[0]  # type: ignore[attr-defined, index]
    return output


def far(a: object, b: object) -> float:
    """The largest difference, relative to the largest value."""
    a, b = tensor(a).detach().double(), tensor(b).detach().double()
    return float((a - b).abs().max() / a.abs().max().clamp_min(1e-9))


def run(model: nn.Module, example: torch.Tensor, training: bool) -> torch.Tensor:
    model.train(training)
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    torch.manual_seed(3)
    with torch.no_grad():
        output = tensor(model(example))
        for n, b in model.named_buffers():
            b.copy_(buffers[n])
    return output


def examine(model: nn.Module, example: torch.Tensor) -> dict:
    """Everything that is claimed of surgery, tried on one model."""
    shaken(model)
    model.eval()
    record: dict = {}
    started = time.process_time()
    joins = surgery.find_joins(model, example)
    record["find_cpu_seconds"] = round(time.process_time() - started, 2)
    skips = [join for join in joins if join.is_skip]
    record["joins"] = sum(join.kind in ("add", "cat") for join in joins)
    record["stuck"] = [join.name for join in joins if join.is_stuck]
    record["counted"] = rescaled(model, example, [], 1.0)[1]
    stages = Counter(skip.stage for skip in skips)
    record["stages"] = [stages[stage] for stage in range(1, max(stages, default=0) + 1)]
    record["add"] = sum(skip.kind == "add" for skip in skips)
    record["cat"] = sum(skip.kind == "cat" for skip in skips)
    if not skips:
        return record
    before = {key: value.clone() for key, value in model.state_dict().items()}
    same = surgery.scale_skips(model, 1.0, "all", example)
    record["same_keys"] = list(same.state_dict()) == list(model.state_dict())
    record["same_class"] = isinstance(same, type(model))
    whole = run(model, example, False)
    record["eval"] = far(whole, run(same, example, False))
    record["train"] = far(run(model, example, True), run(same, example, True))
    del same
    model.eval()
    chosen = [skip for skip in skips if skip.stage == max(stages)]
    record["cut"] = [len(chosen), chosen[0].name]
    sizes = {math.prod(skip.resolution) for skip in skips}
    pyramid = min(sizes - {1}, default=1) <= 4  # small images may leave one pixel for the last stage
    trunk = [skip for skip in chosen if pyramid or math.prod(skip.resolution) > 1]
    record["trunk"] = len(trunk)
    ghosts = {n for n, _ in model.named_parameters()} - reached(model, example)
    for factor in (0.0, 0.5):
        started = time.process_time()
        cut = surgery.scale_skips(model, factor, "last", example)
        seconds = round(time.process_time() - started, 2)
        masked = surgery.recipe(cut)[-1]["masked"]
        expected = rescaled(model, example, chosen, factor, masked)[0]
        output = run(cut, example, False)
        cut.eval()
        if factor:
            flows = reached(cut, example)
        else:  # by a real backward pass, which says the same and costs more
            tensor(cut(example)).logsumexp(1).sum().backward()
            flows = {n for n, p in cut.named_parameters() if p.grad is not None}
        without = sorted({n for n, _ in cut.named_parameters()} - flows - ghosts)
        record[f"factor {factor}"] = {
            "far": far(expected, output),
            "changed": far(whole, output),
            "masked": masked,
            "parameters": sum(p.numel() for p in cut.parameters()),
            "without_gradient": without[:3],
            "cpu_seconds": seconds,
        }
        del cut
    after = model.state_dict()
    record["untouched"] = all(torch.equal(after[key], value) for key, value in before.items())
    return record


def work(inbox: multiprocessing.Queue, outbox: multiprocessing.Queue) -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    addresses = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (addresses + LEFT_MEMORY, resource.RLIM_INFINITY))
    while True:
        task, name = inbox.get()
        record: dict = {"model": name}
        try:
            record |= outline(name) if task == "outline" else trial(name)
        except surgery.SurgeryError as error:
            record["refused"] = str(error)
        except Exception as error:
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else ""
            if isinstance(error, MemoryError) or "allocate memory" in str(error):
                record["too_large"] = True
            else:
                record["failed"] = f"{type(error).__name__}: {reason}"
        gc.collect()
        spent = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > MOST_MEMORY  # large models leave too much behind
        outbox.put((record, spent))


def trial(name: str) -> dict:
    started = time.process_time()
    model, example = prepared(name)
    built = round(time.process_time() - started, 2)
    return {"pixels": example.shape[-1], "build_cpu_seconds": built, **examine(model, example)}


class Worker:
    """A process that examines models, replaced when it dies or takes too long."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.inbox, self.outbox = context.Queue(), context.Queue()
        self.process = context.Process(target=work, args=(self.inbox, self.outbox), daemon=True)
        self.process.start()

    def end(self) -> None:
        self.process.kill()
        self.process.join()

    def ask(self, task: str, name: str, limit: float) -> dict:
        """What there is to know about a model, or how it failed."""
        self.inbox.put((task, name))
        deadline = time.monotonic() + limit
        while self.process.is_alive() and time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                record, spent = self.outbox.get(timeout=1)
                if spent:
                    self.end()
                return record
        reason = f"gave up after {limit:.0f} s" if self.process.is_alive() else "the process died (out of memory?)"
        self.end()
        return {"model": name, "failed": reason}


def sweep(wanted: list[str], limit: float) -> None:
    """First the smallest model of each class, then the second of each...: an interrupted sweep has seen the most."""
    seen = {record["model"]: record for record in read(RECORDS)}
    outlines = {record["model"]: record for record in read(OUTLINES)}
    worker = Worker()

    def ask(task: str, name: str) -> dict:
        nonlocal worker
        if not worker.process.is_alive():
            worker = Worker()
        return worker.ask(task, name, limit)

    for name in wanted:
        if name not in seen and name not in outlines:
            outlines[name] = ask("outline", name)
            write(OUTLINES, outlines[name])
    todo = [name for name in wanted if name not in seen]
    todo.sort(key=lambda name: (outlines[name].get("parameters", 0), name))
    rank: Counter = Counter()
    order = {}
    for name in todo:
        order[name] = rank[outlines[name].get("class")]
        rank[outlines[name].get("class")] += 1
    todo.sort(key=order.__getitem__)
    known = {r["fingerprint"]: r["model"] for r in seen.values() if "fingerprint" in r and "same_as" not in r}
    for count, name in enumerate(todo):
        record = outlines[name]
        if record.get("fingerprint") in known:
            record = {**record, "same_as": known[record["fingerprint"]]}
        elif record.get("parameters", 0) > TOO_LARGE:
            record = {**record, "too_large": True}
        elif "failed" not in record:
            record = {**record, **ask("trial", name)}
        if "fingerprint" in record:
            known.setdefault(record["fingerprint"], name)
        write(RECORDS, record)
        print(f"{count + 1}/{len(todo)} {name} {verdict(record)}", flush=True)
        if count % 60 == 59:  # what the models leave behind in memory
            worker.end()
    worker.end()


def write(path: Path, record: dict) -> None:
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


CLOSE = 1e-3
MOVED = 1e-5  # a cut that reaches the output moves it by more, even where random weights damp it; rounding by 1e-7


def verdict(record: dict) -> str:
    """One word or the first thing that is wrong."""
    for word in ("failed", "refused"):
        if word in record:
            return f"{word}: {record[word]}"
    if "same_as" in record:
        return f"same as {record['same_as']}"
    if "too_large" in record:
        return "too large"
    if record["joins"] != record["counted"]:
        return f"counted {record['counted']} joins at run time, found {record['joins']}"
    if not record["stages"]:
        return "no skips"
    if max(record["eval"], record["train"]) > CLOSE or not record["same_keys"] or not record["untouched"]:
        return f"differs at factor 1: eval {record['eval']:.0e}, train {record['train']:.0e}"
    for factor in ("factor 0.0", "factor 0.5"):
        if not record[factor]["far"] <= CLOSE:
            return f"{factor} is off by {record[factor]['far']:.0e}"
        if record[factor]["without_gradient"]:
            return f"{factor} leaves {record[factor]['without_gradient']} without gradient"
    if record["factor 0.0"]["changed"] <= MOVED:
        return "last leaves the function as it was"
    if record.get("trunk") == 0:
        return "last cuts no block of the trunk"
    return "cut"


def worked(word: str) -> bool:
    return word in ("cut", "no skips") or word.startswith(("same as", "too large"))


def summary() -> str:
    records = read(RECORDS)
    verdicts = {record["model"]: verdict(record) for record in records}
    kinds = Counter(word.split(":")[0].split(" ")[0] for word in verdicts.values())
    tried = [r for r in records if "same_as" not in r and "too_large" not in r]
    skipped = [r for r in tried if r.get("stages")]
    exact = [
        r
        for r in tried
        if "failed" not in r and "refused" not in r and max(r.get("eval", 0), r.get("train", 0)) <= CLOSE
    ]
    cut = [r for r in tried if verdicts[r["model"]] == "cut"]
    with_skips = len(tried) - sum(v == "no skips" for v in (verdicts[r["model"]] for r in tried))
    seconds = [r["factor 0.0"]["cpu_seconds"] for r in skipped if "cpu_seconds" in r.get("factor 0.0", {})]
    bits = [r for r in tried if r.get("eval") == 0 == r.get("train")]
    lines = [
        "# Skip surgery over the zoo",
        "",
        f"`python benchmarks/surgery_zoo.py` with torch {torch.__version__}, torchvision {torchvision.__version__}, "
        f"timm {timm.__version__}; one line of JSON a model in `surgery-zoo.jsonl`.",
        "",
        "| | |",
        "|---|---|",
        f"| names of classifiers | {len(names())} |",
        f"| not reached by this run (the larger ones of each class come last) | {len(set(names()) - set(verdicts))} |",
        f"| the same network as another name (only the weights differ) | {kinds['same']} |",
        f"| too large to try here (over {TOO_LARGE // 10**6} million parameters, or {LEFT_MEMORY // 2**30} GiB at the "
        f"smallest images that it reads) | {kinds['too']} |",
        f"| tried | {len(tried)} |",
        f"| the same function at factor 1, in eval and in train mode | {len(exact)} ({len(exact) / len(tried):.1%}); "
        f"to the last bit {len(bits)} |",
        f"| without skips | {len(tried) - with_skips} |",
        f"| last stage removed and scaled by 0.5: agrees with rescaling at run time, every parameter gets a gradient "
        f"| {len(cut)} of {with_skips} ({len(cut) / max(with_skips, 1):.1%}) |",
        f"| of these with what was cut from concatenations set to zero, since a reader needs the full width "
        f"| {sum(r['factor 0.0']['masked'] for r in cut)} |",
        f"| CPU seconds to remove a stage, median and worst | {statistics.median(seconds or [0]):.2f}, "
        f"{max(seconds, default=0):.1f} |",
        "",
        "## What did not work",
        "",
        *([f"- `{m}`: {v}" for m, v in verdicts.items() if not worked(v)] or ["Nothing."]),
        "",
        "## Too large",
        "",
        ", ".join(f"`{r['model']}` ({r['parameters'] / 1e6:.0f} M)" for r in records if "too_large" in r) or "none",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("models", nargs="*")
    parser.add_argument("--sample", type=int, help="only so many, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=900, help="seconds a model")
    parser.add_argument("--retry", action="store_true", help="try again what did not work")
    parser.add_argument("--records", type=Path, help="another file for the records")
    parser.add_argument("--summary", action="store_true", help="only write the summary")
    arguments = parser.parse_args()
    global RECORDS, SUMMARY
    if arguments.records:
        RECORDS, SUMMARY = arguments.records, arguments.records.with_suffix(".md")
    RECORDS.parent.mkdir(exist_ok=True)
    if arguments.retry:
        kept = [record for record in read(RECORDS) if worked(verdict(record))]
        RECORDS.write_text("".join(json.dumps(record) + "\n" for record in kept))
    if not arguments.summary:
        wanted = arguments.models or names()
        if arguments.sample:
            wanted = random.Random(arguments.seed).sample(wanted, arguments.sample)
        sweep(wanted, arguments.limit)
    SUMMARY.write_text(summary())


if __name__ == "__main__":
    main()
