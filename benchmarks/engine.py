"""What the study engine costs: a task's overhead, a scan of finished tasks, and what a second Ray node gains.

python benchmarks/engine.py [--work wait|compute] [--nodes]; prints medians and ratios. The two clusters take turns.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from lightleak.study import OnRay, Store, load, run, schedule, study_files

STUDY = """
import time
from dataclasses import dataclass
from lightleak.study import Task

@dataclass(frozen=True)
class Step(Task):
    number: int
    seconds: float = 0.0
    work: str = "wait"

    def run(self, store, folder, watch):
        if self.work == "compute":  # in the processor's own cache
            until = time.process_time() + self.seconds
            total = 0
            while time.process_time() < until:
                total += sum(range(1000))
        else:
            time.sleep(self.seconds)
        return {"number": self.number}

def tasks():
    return [Step(number) for number in range(COUNT)]
"""


def study(folder: Path, count: int):
    """The class of a step, from a study's file."""
    file = folder / "bench.py"
    file.write_text(STUDY.replace("COUNT", str(count)))
    return type(load(file)[0])


def overhead(step, folder: Path) -> None:
    """Milliseconds a task that does nothing."""
    times, computed = [], []
    for repeat in range(5):
        store, began, cpu = Store(folder / f"overhead{repeat}"), time.perf_counter(), time.process_time()
        assert run([step(number) for number in range(40)], store) == {}
        times.append((time.perf_counter() - began) / 40)
        computed.append((time.process_time() - cpu) / 40)
    told = f"{1000 * median(computed):.1f} ms of them computing"
    print(f"engine: {1000 * median(times):.1f} ms a task, {told} (median of 5 runs of 40; allowed: 50)")


def scan(step, folder: Path) -> None:
    """Seconds to find 10,000 tasks finished."""
    store = Store(folder / "scan")
    tasks = [step(number) for number in range(10_000)]
    (store.root / "Step").mkdir(parents=True)
    for task in tasks:
        store.folder(task).mkdir()
        (store.folder(task) / "result.json").write_text("{}")
    times, computed = [], []
    for _ in range(5):
        fresh, began, cpu = [step(number) for number in range(10_000)], time.perf_counter(), time.process_time()
        assert not schedule(fresh, store).todo
        times.append(time.perf_counter() - began)
        computed.append(time.process_time() - cpu)
    told = f"{median(computed):.2f} s of them computing"
    print(f"scan: {median(times):.2f} s for 10,000 finished tasks, {told} (median of 5; allowed: 2)")


def nodes(step, folder: Path, work: str, rounds: int, count: int, seconds: float) -> None:
    """The same study on one and on two Ray nodes of one core each, in turns."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ratios = []
    for turn in range(rounds):
        took = {}
        for size in (1, 2) if turn % 2 else (2, 1):
            temporary = tempfile.mkdtemp(prefix="ll-")
            cluster = Cluster()
            for node in range(size):
                settings = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 * 2**20}
                cluster.add_node(node_ip_address=f"127.0.0.{node + 2}", temp_dir=temporary, **settings)
            with OnRay(cluster.address, study_files()) as executor:
                store = Store(folder / f"nodes{turn}-{size}")
                warm = [step(1000 + number, 1.0) for number in range(2 * size)]  # a worker process on each node
                assert run(warm, store, executor=executor) == {}
                began = time.perf_counter()
                assert run([step(n, seconds, work) for n in range(count)], store, executor=executor) == {}
                took[size] = time.perf_counter() - began
            cluster.shutdown()
            shutil.rmtree(temporary, ignore_errors=True)
        ratios.append(took[1] / took[2])
    told = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"nodes: two are {median(ratios):.2f} times as fast as one ({work}, {count} tasks of {seconds} s; {told})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", action="store_true", help="also the two Ray nodes")
    parser.add_argument("--work", choices=("wait", "compute"), default="compute")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=2.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        step = study(folder, 1)
        overhead(step, folder)
        scan(step, folder)
        if asked.nodes:
            nodes(step, folder, asked.work, asked.rounds, asked.count, asked.seconds)


if __name__ == "__main__":
    sys.exit(main())
