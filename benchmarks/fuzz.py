"""Damaged files and wrong command lines: each must end in an answer, or in one line and exit code 2.

    python benchmarks/fuzz.py --minutes 5 --seed 0
    python benchmarks/fuzz.py --only checkpoint --case 17   # one case again, with all that it said

Files of every kind that Lightleak reads are damaged: bytes, values of headers, words, members of archives. Each call is
made in a process of its own (a fork, so that nothing is imported twice) with bounds on memory and processor time, and
watched: no traceback, no exit code but 0, 1 and 2, at most one line with 2, no program started, nothing written outside
of its folder, no more than 700 MiB of memory. A case is a kind, the seed and a number: each one can be repeated.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from importlib import import_module
from pathlib import Path
from random import Random

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))


def main() -> int:
    """Run cases of all kinds in turn until the time is up; 1 if any was a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=10**9, help="of each kind, at most")
    parser.add_argument("--only", default="", help="a kind by its name")
    parser.add_argument("--case", type=int, help="one case again")
    asked = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="lightleak-fuzz-"))
    os.environ["LIGHTLEAK_CACHE"] = str(home / "cache")
    try:
        return _run(asked, home)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _run(asked: argparse.Namespace, home: Path) -> int:
    import torch
    from fuzzing import originals
    from fuzzing.damage import damaged
    from fuzzing.trial import Verdict, tried

    import lightleak
    from lightleak import cli

    torch.set_num_threads(1)
    for verb in cli.VERBS:
        import_module(f"lightleak.cli.{verb}")
    whole = home / "whole"
    whole.mkdir()
    os.chdir(whole)
    kinds = {kind.name: kind for kind in originals.make(whole)}

    def case(name: str, number: int) -> Verdict:
        rng = Random(f"{asked.seed}/{name}/{number}")
        place = home / "case"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(whole, place)
        if name == "command line":
            arguments = mutated(rng.choice(originals.COMMANDS), originals.TOKENS, rng)
            return tried(partial(cli.main, arguments), place, endless=True)
        kind = kinds[name]
        file, call = place / rng.choice(kind.files), rng.choice(kind.calls)
        file.write_bytes(damaged(file.read_bytes(), kind.damage, rng))
        if callable(call):
            return tried(call, place, quiet=True)
        return tried(partial(cli.main, call), place)

    if asked.case is not None:
        verdict = case(asked.only, asked.case)
        print(verdict.said, verdict.did, f"exit code {verdict.code}: {verdict.fault or 'as it should'}", sep="\n")
        return bool(verdict.fault)
    names = [asked.only] if asked.only else [*kinds, "command line"]
    faults: dict[str, list[str]] = {}
    ends: dict[str, Counter] = {name: Counter() for name in names}
    until, number = time.monotonic() + 60 * asked.minutes, 0
    while time.monotonic() < until and number < asked.cases:
        for name in names:
            verdict = case(name, number)
            ends[name]["fault" if verdict.fault else str(verdict.code)] += 1
            if verdict.fault and len(seen := faults.setdefault(f"{name}: {verdict.fault}", [])) < 5:
                seen.append(str(number))
                if len(seen) == 1:
                    print(f"{name}, case {number}: {verdict.fault}", flush=True)
        number += 1
    total = Counter()
    for name in names:
        total.update(ends[name])
        print(f"{name:22}" + "  ".join(f"{end}: {count}" for end, count in sorted(ends[name].items())))
    for what, cases in sorted(faults.items()):
        print(f"fault: {what} (cases {', '.join(cases)})")
    summary = {"version": lightleak.__version__, "seed": asked.seed, "cases": sum(total.values()), **total}
    print(json.dumps(summary))
    return bool(faults)


def mutated(arguments: list[str], tokens: tuple[str, ...], rng: Random) -> list[str]:
    """A command line with one to three words changed."""
    found = list(arguments)
    for _ in range(rng.choice((1, 1, 2, 3))):
        place = rng.randrange(len(found)) if found else 0
        what = rng.randrange(5)
        if what == 0 and found:
            del found[place]
        elif what == 1:
            found.insert(place, rng.choice(tokens))
        elif what == 2 and found:
            found.append(found[place])
        elif found:
            found[place] = rng.choice(tokens)
    return found


if __name__ == "__main__":
    sys.exit(main())
