"""How long the command line takes to answer, in seconds of processor time.

    python benchmarks/startup.py            # all
    python benchmarks/startup.py --quick    # those that import nothing heavy

Help, version and wrong command lines import nothing heavy: half a second at most. `lightleak skips` is compared with a
process that only imports what it needs (torch, timm, rich and tyro) and builds the same network: at most 1.3 times.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src"
ANSWERS = {
    "lightleak --version": ["--version"],
    "lightleak --help": ["--help"],
    "a wrong verb": ["skip"],
    "a wrong flag": ["train", "--bogus"],
    "a missing argument": ["attack"],
    "a wrong setting": ["train", "--out", "x", "--recipe.epochs", "0"],
    "a wrong flag of an attack": ["attack", "--out", "x", "attack:ppa", "--attack.stepps", "3"],
    "an attack that is none": ["attack", "--out", "x", "attack:nope"],
    "a data set that is none": ["train", "--out", "x", "--data", "nope"],
    "a network that is none": ["train", "--out", "x", "--architecture", "timm:nope"],
    "a setting that is none": ["train", "--out", "x", "--data", "faces", "--settings", "peple", "4"],
    "a setting of a defence": ["train", "--out", "x", "--defence", "ssf(factr=1)"],
    "a preset that is none": ["attack", "--out", "x", "--target", "src", "--preset", "nope"],
    "a study's setting": ["study", "rolss_by_truth", "--settings", "nonsense", "1"],
    "a file that is not there": ["attack", "--out", "x", "--target", "nowhere"],
}
SKIPS = ["skips", "timm:resnet18", "--json"]
BARE = """
import lightleak  # beside a torch without CUDA, timm does not import without it
import tyro, rich.console, rich.table, torch, timm
net = timm.create_model("resnet18", num_classes=1000)
"""


def seconds(command, rounds):
    """Median processor seconds of a command and what it starts."""
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    taken = []
    for _ in range(rounds):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        if done.returncode not in (0, 2):  # 2: a wrong command line, told
            raise SystemExit(done.stderr.decode())
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return statistics.median(taken)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args(arguments)
    lightleak = [sys.executable, "-m", "lightleak"]
    found = {}
    for name, line in ANSWERS.items():
        found[name] = seconds([*lightleak, *line], chosen.rounds)
        print(f"{name}: {found[name]:.2f} s (at most 0.5)")
    if not chosen.quick:
        bare, skips = (seconds(c, chosen.rounds) for c in ([sys.executable, "-c", BARE], [*lightleak, *SKIPS]))
        found |= {"bare": bare, "lightleak skips": skips, "ratio": skips / bare}
        print(
            f"lightleak skips: {skips:.2f} s, what it needs alone: {bare:.2f} s, {skips / bare:.2f} times (at most 1.3)"
        )
    return found


if __name__ == "__main__":
    main()
