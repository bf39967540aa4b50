"""Guards removed one at a time: each time, a test that is named beside it must fail.

    python benchmarks/mutants.py            # all
    python benchmarks/mutants.py epsilon    # those whose name contains the word

A guard that no test holds can be lost without anybody noticing. Every row below is a line that decides what is
reported. The sources are copied, the line is changed there, and the tests run on the copy. A row whose line is no
longer found is an error too: put the new line in. The exit code is 1 if a mutant survives.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Mutant:
    """A line, what it becomes, and the tests of which one must fail (files or -k expressions within a file)."""

    name: str
    file: str  # below src/lightleak
    old: str
    new: str
    tests: str  # arguments of pytest


MUTANTS = (
    Mutant("a comparison across priors", "report/fairness.py",
           '        "prior": record.prior.name,\n        "prior settings": record.prior.settings,\n', "",
           "tests/test_collect.py -k dropped"),
    Mutant("the interval's expansion for few people", "metrics/evidence.py",
           "return min(low, mean - below), max(high, mean + above)", "return low, high",
           "tests/test_evidence.py -k interval"),
    Mutant("Student's t for few people", "metrics/evidence.py", "t = _student(level, spread.freedom)", "t = 1.96",
           "tests/test_evidence.py -k t_interval"),
    Mutant("seeds as random effects", "metrics/evidence.py", "if of_seeds > rest:", "if False:",
           "tests/test_evidence.py -k seeds_interval_closed"),
    Mutant("parallel branches are no skips", "surgery/flow.py", "if low > 1 and 2 * low > high:", "if False:",
           "tests/test_guards.py"),
    Mutant("parallel branches, the factor", "surgery/flow.py", "if low > 1 and 2 * low > high:",
           "if low > 1 and low > high:", "tests/test_guards.py"),
    Mutant("epsilon above 0", "defences/dp.py", 'not 0 < self.epsilon < float("inf")', "False",
           "tests/test_dp.py -k bad"),
    Mutant("noise follows from epsilon", "defences/dp.py",
           "if (spent(middle, delta, rate, steps, accountant) or 0.0) > epsilon:", "if False:",
           "tests/test_dp.py -k epsilon"),
    Mutant("NaN ranks last", "metrics/recognition.py", "torch.where(scores.isfinite().all(1), rank, scores.shape[1])",
           "rank", "tests/test_metrics.py"),
    Mutant("training that diverged", "training/loop.py",
           "wrong = [name for name, value in numbers.items() if not math.isfinite(value)]", "wrong = []; return",
           "tests/test_training.py"),
    Mutant("evidence: the residual counts once", "metrics/evidence.py", "total = of_seeds + of_units - rest",
           "total = of_seeds + of_units", "tests/test_evidence.py -k add"),
    Mutant("evidence: never below people alone", "metrics/evidence.py", "total, freedom = of_units, units - 1",
           "total, freedom = of_seeds, units - 1", "tests/test_evidence.py -k differ_add"),
    Mutant("evidence: zeros are people, not certainty", "metrics/evidence.py", "if inside else self.people, t)",
           "if inside else 10**9, t)", "tests/test_evidence.py -k success"),
    Mutant("evidence: one success says no more than none", "metrics/evidence.py", "self.people * max(1, aside - 1)",
           "self.people * max(1, aside + 9)", "tests/test_evidence.py -k lowers"),
    Mutant("evidence: families are the unit", "metrics/evidence.py", "    if clusters is None:\n        return table\n",
           "    return table\n", "tests/test_evidence.py -k families"),
    Mutant("evidence: a family counts by its people", "metrics/evidence.py", "* (len(which) / table.shape[1])", "* 0.5",
           "tests/test_evidence.py -k families"),
    Mutant("evidence: edges of a difference stay open", "metrics/evidence.py",
           "down, up = math.hypot(half, low, other_high), math.hypot(half, high, other_low)", "down = up = half",
           "tests/test_evidence.py -k against_none"),
    Mutant("evidence: networks that agree may differ", "metrics/evidence.py", "gap.mean - max(down, least)",
           "gap.mean - down", "tests/test_evidence.py -k always_agree"),
    Mutant("evidence: worlds are the unit", "metrics/evidence.py", "/ len(means)\n", "/ people\n",
           "tests/test_evidence.py -k worlds"),
    Mutant("evidence: Holm never falls", "metrics/evidence.py", "largest = max(largest, min(1.0,",
           "largest = max(0.0, min(1.0,", "tests/test_evidence.py -k holm"),
    Mutant("evidence: at least as many by chance", "metrics/evidence.py", "bdtrc(successes - 1, trials",
           "bdtrc(successes, trials", "tests/test_evidence.py -k chance"),
    Mutant("evidence: Fieller's covariance", "metrics/evidence.py", "middle = drop * loss - t * t * both",
           "middle = drop * loss", "tests/test_evidence.py -k fieller"),
    Mutant("evidence: a verdict needs two trainings", "report/verdicts.py", "difference.units < LEAST", "False",
           "tests/test_verdicts.py -k lacks"),
    Mutant("evidence: a verdict needs the corrected p", "report/verdicts.py", "if p >= SURELY or", "if",
           "tests/test_verdicts.py -k lacks"),
    Mutant("evidence: a tie is no right member", "metrics/truth.py", "((others <= reach) & same).sum(1) == 0",
           "((others < own[:, None]) & same).sum(1) == 0", "tests/test_families.py -k twins"),
    Mutant("missing values are not averaged", "metrics/evidence.py", "if not values.isfinite().all():", "if False:",
           "tests/test_evidence.py -k missing"),
    Mutant("training and judge never lend to each other", "data/division.py",
           "if parts[index] in (VALIDATION, TEST)]", "]", "tests/test_people.py -k division"),
    Mutant("a picture's part is its own", "data/division.py",
           'values = [number("picture", seed, key) for key in keys]',
           "values = [(index + 0.5) / len(keys) for index in range(len(keys))]", "tests/test_people.py -k picture"),
    Mutant("a person's side is its own", "data/division.py", "low = sum(value < 0.5 for value, _ in ranked)",
           "low = len(ranked) // 2", "tests/test_people.py -k people_more"),
    Mutant("only expected formats are opened", "data/images.py", "Image.open(path, formats=formats())",
           "Image.open(path)", "tests/test_people.py -k eps"),
    Mutant("grey is scaled by its depth", "data/images.py", "own if stated or not bits else bits", "16",
           "tests/test_people.py -k depth"),
    Mutant("a camera's pictures are scaled alike", "data/decoded.py", "if good[name].bits != joint:", "if False:",
           "tests/test_people.py -k camera"),
    Mutant("people of equal names and other factors", "data/people.py",
           "if first.who and second.who and first.who != second.who:", "if False:", "tests/test_people.py -k rendered"),
    Mutant("a public picture is no private one", "data/collections.py", "images.at(fresh), [finding]",
           "images, [finding]", "tests/test_people.py tests/test_published.py -k private"),
    Mutant("a damaged cache", "data/decoded.py", "if not whole or check != _check(pixels):", "if not whole:",
           "tests/test_data.py -k cache"),
)  # fmt: skip


def tried(mutant: Mutant, sources: Path) -> str:
    """ "killed", "survived", "stale" (its line is gone) or "broken" (its tests do not run)."""
    place = sources / "lightleak" / mutant.file
    text = place.read_text(encoding="utf-8")
    if text.count(mutant.old) < 1:
        return "stale"
    place.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", "-o"]
        command += [f"pythonpath={sources}", *_words(mutant.tests)]
        environment = {**os.environ, "PYTHONPATH": str(sources), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
        return {0: "survived", 1: "killed"}.get(done.returncode, "broken")
    finally:
        place.write_text(text, encoding="utf-8")


def _words(tests: str) -> list[str]:
    words = tests.split()
    return [word for word in words if not word.startswith("tests/") or (ROOT / word).exists()]


def main() -> int:
    """Try those whose name contains the argument."""
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    found: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory(prefix="lightleak-mutants-") as folder:
        sources = Path(folder) / "src"
        shutil.copytree(ROOT / "src", sources, ignore=shutil.ignore_patterns("__pycache__"))
        for mutant in MUTANTS:
            if word in mutant.name:
                began = time.monotonic()
                found.setdefault(end := tried(mutant, sources), []).append(mutant.name)
                print(f"{end:9} {mutant.name} ({time.monotonic() - began:.0f} s)", flush=True)
    print(", ".join(f"{len(names)} {end}" for end, names in sorted(found.items())))
    return bool(set(found) - {"killed"})


if __name__ == "__main__":
    sys.exit(main())
