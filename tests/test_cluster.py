"""Studies on a Ray cluster and through Slurm's submitit: same results, deaths survived, no process left."""

# ruff: noqa: ARG001

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from lightleak.errors import UserError
from lightleak.study import OnRay, OnSlurm, Store, load, run, study_files

SOURCE = Path(__file__).parents[1] / "src"

STUDY = """
import os, time
from dataclasses import dataclass, field
from lightleak.study import Task

@dataclass(frozen=True)
class Step(Task):
    number: int
    above: tuple[Task, ...] = ()
    mode: str = ""
    cpus: float = field(default=1, compare=False)
    wait: float = field(default=WAIT, compare=False)
    log: str = field(default="", compare=False)

    def run(self, store, folder, watch):
        with open(self.log, "a") as file:
            file.write(f"{self.number} {os.getpid()} {os.getppid()}\\n")
        if self.mode == "dies once" and not (store.scratch(self) / "died").exists():
            (store.scratch(self) / "died").touch()
            os.kill(os.getpid(), 9)
        for step in range(4):
            (folder / f"part{step}.txt").write_text(str(self.number * step))
            time.sleep(self.wait / 4)
            watch(step + 1, total=4, threads=float(os.environ.get("OMP_NUM_THREADS", 0)))
        if self.mode == "raises":
            raise ValueError("on purpose")
        return {"sum": self.number + sum(store.result(task)["sum"] for task in self.above)}

LOG = os.path.join(os.path.dirname(__file__), "log")

def tasks():
    first = [Step(number, log=LOG) for number in range(4)]
    for number in range(4, 10):
        yield Step(number, tuple(first[number % 2 :: 2]), log=LOG)
"""


def study_file(folder, wait=0.05):
    folder.mkdir(exist_ok=True)
    (folder / "log").touch()
    (folder / "far.py").write_text(STUDY.replace("WAIT", str(wait)))
    return folder / "far.py"


def contents(root):
    """All files except made.json, which tells the date."""
    files = [path for path in root.rglob("*") if path.is_file() and path.name != "made.json"]
    return {str(path.relative_to(root)): path.read_bytes() for path in files if "slurm" not in path.parts}


@pytest.fixture
def undisturbed(tmp_path):
    """What the study's store holds when it ran in one process."""
    file = study_file(tmp_path / "undisturbed")
    assert run(load(file), Store(tmp_path / "undisturbed" / "store")) == {}
    return contents(tmp_path / "undisturbed" / "store")


def lines(log):
    return [tuple(map(int, line.split())) for line in log.read_text().splitlines()]


def processes_of_ray():
    found = subprocess.run(["pgrep", "-f", "raylet|gcs_server|ray::"], capture_output=True, text=True)
    return {int(process) for process in found.stdout.split()}


@pytest.fixture
def ray_cleanly(monkeypatch):
    """Ray may be started in this test; afterwards none of its processes and files are left."""
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    before = processes_of_ray()
    yield
    until = time.monotonic() + 30
    while processes_of_ray() - before and time.monotonic() < until:
        time.sleep(0.1)
    assert not processes_of_ray() - before


@pytest.fixture
def two_nodes(ray_cleanly):
    """A cluster of two nodes with one core each, 127.0.0.2 and 127.0.0.3."""
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="ll-")  # Ray's sockets need short paths
    health = {"initial_delay_ms": 0, "period_ms": 500, "failure_threshold": 4, "timeout_ms": 2000}
    settings = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 * 2**20, "temp_dir": folder}
    cluster = Cluster()
    try:
        cluster.add_node(
            node_ip_address="127.0.0.2",
            _system_config={f"health_check_{name}": value for name, value in health.items()},
            **settings,
        )
        cluster.second = cluster.add_node(node_ip_address="127.0.0.3", **settings)
        yield cluster
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_study_on_ray_gives_the_same_and_survives_a_dying_worker(tmp_path, undisturbed, ray_cleanly):
    file = study_file(tmp_path / "far")
    tasks, store = load(file), Store(tmp_path / "far" / "store")
    step, log = type(tasks[0]), str(tmp_path / "far" / "log")
    odd = [step(20, mode="dies once", log=log), step(21, mode="raises", log=log), step(22, cpus=4000, log=log)]
    long = step(23, wait=3.0, log=log)
    events = []
    with OnRay("local", study_files()) as executor:
        failures = run([*tasks, *odd, long], store, executor=executor, listen=events.append)
    assert {failure.task.number: failure.error for failure in failures.values()} == {
        21: "ValueError: on purpose",
        22: failures[odd[2].key].error,
    }
    assert "needs 4000 cores" in failures[odd[2].key].error
    assert store.done(odd[0])
    assert [number for number, _, _ in lines(tmp_path / "far" / "log")].count(20) == 2
    assert os.getpid() not in {process for _, process, _ in lines(tmp_path / "far" / "log")}
    told = [event for event in events if event.kind == "progress" and event.task.key == long.key]
    assert told
    assert all(event.numbers["threads"] == 1 for event in told)
    assert {name: data for name, data in contents(store.root).items() if name in undisturbed} == undisturbed
    assert not list(store.root.glob("*/.*"))


CARDS = """
import os
from dataclasses import dataclass
from lightleak.study import Task

@dataclass(frozen=True)
class Seen(Task):
    number: int
    gpus = 1.0

    def run(self, store, folder, watch):
        return {"process": os.getpid(), "cards": os.environ["CUDA_VISIBLE_DEVICES"]}

def tasks():
    return [Seen(number) for number in range(6)]
"""


def test_a_process_that_ray_gave_a_card_sees_no_other_one(tmp_path, ray_cleanly, monkeypatch):
    import ray

    (tmp_path / "cards.py").write_text(CARDS)
    monkeypatch.setattr(ray, "init", partial(ray.init, num_cpus=2, num_gpus=2))  # Ray believes it
    tasks, store = load(tmp_path / "cards.py"), Store(tmp_path / "store")
    with OnRay("local", study_files()) as executor:
        assert run(tasks, store, executor=executor) == {}
    found = [store.result(task) for task in tasks]
    assert {one["cards"] for one in found} == {"0", "1"}
    assert len({one["process"] for one in found}) == len(tasks)  # CUDA would go on with a process's first card


@pytest.mark.slow
def test_a_node_that_dies_in_the_middle_costs_only_what_it_was_at(tmp_path, undisturbed, two_nodes):
    file = study_file(tmp_path / "far", wait=2.0)
    store, log = Store(tmp_path / "far" / "store"), tmp_path / "far" / "log"
    tasks, ended = load(file), []
    victims = set()

    def kill_second_node():
        while len({parent for _, _, parent in lines(log)}) < 2:  # both nodes are at work
            time.sleep(0.02)
        raylet = two_nodes.second.all_processes["raylet"][0].process.pid
        victims.update(process for _, process, parent in lines(log) if parent == raylet)
        two_nodes.remove_node(two_nodes.second, allow_graceful=False)

    with OnRay(two_nodes.address, study_files()) as executor:
        assert executor.slots() == 2
        killer = threading.Thread(target=kill_second_node)
        killer.start()
        failures = run(tasks, store, executor=executor, retries=3, listen=ended.append)
        killer.join()
    assert failures == {}
    assert victims
    assert contents(store.root) == undisturbed
    begun = [number for number, _, _ in lines(log)]
    assert 10 < len(begun) <= 10 + len(victims)  # what the node was at began once more, nothing else
    assert sum(event.kind == "finished" for event in ended) == 10


RAY_DRIVER = """
import sys
from lightleak.study import OnRay, Store, load, run, study_files
if __name__ == "__main__":
    tasks = load(sys.argv[1])
    with OnRay(sys.argv[3], study_files()) as executor:
        sys.exit(len(run(tasks, Store(sys.argv[2]), executor=executor, retries=30)))
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("victim", ["worker", "driver"])
def test_twenty_kills_on_ray(tmp_path, undisturbed, two_nodes, victim, capsys):
    dice, kills, published_twice, rounds = random.Random(2), 0, 0, 0
    while kills < 20:
        rounds += 1
        folder = tmp_path / f"round{rounds}"
        file, log, root = study_file(folder, wait=0.8), folder / "log", folder / "store"
        (folder / "driver.py").write_text(RAY_DRIVER)
        command = [sys.executable, str(folder / "driver.py"), str(file), str(root), two_nodes.address]
        code = None
        while code != 0:
            seen = len(lines(log))
            done = {int(one["fields"]["number"]) for one in specs(root)}
            process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"})
            begun = seen
            while process.poll() is None:
                if kills == 20 or len(lines(log)) == begun:
                    time.sleep(0.01)
                    continue
                begun = len(lines(log))
                time.sleep(dice.uniform(0, 0.8))
                target = process.pid if victim == "driver" else lines(log)[-1][1]
                if process.poll() is None and Path(f"/proc/{target}").exists():
                    os.kill(target, signal.SIGKILL)
                    kills += 1
            code = process.returncode
            published_twice += len(done & {number for number, _, _ in lines(log)[seen:]})
            until = time.monotonic() + 30  # Ray ends the workers of a driver that is gone
            while any(Path(f"/proc/{pid}").exists() for _, pid, _ in lines(log)) and time.monotonic() < until:
                time.sleep(0.05)
        assert contents(root) == undisturbed
        Store(root).sweep()
        assert not list(root.glob("*/.*"))
    assert published_twice == 0
    with capsys.disabled():
        print(f"\n{kills} kills of a Ray {victim} in {rounds} studies: results identical, nothing published done again")


def specs(root):
    return [json.loads((path / "spec.json").read_text()) for path in root.glob("Step/[!.]*")]


def test_a_study_through_submitit_gives_the_same_and_survives_a_dying_job(tmp_path, undisturbed, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    file = study_file(tmp_path / "far")
    tasks, store = load(file)[:1], Store(tmp_path / "far" / "store")
    step, log = type(tasks[0]), str(tmp_path / "far" / "log")
    odd = [step(20, mode="dies once", log=log), step(21, mode="raises", log=log)]
    folder = store.root / "slurm"
    with OnSlurm(folder, files=study_files(), kind="local", jobs=3) as executor:
        failures = run([*tasks, *odd], store, executor=executor)
    assert {failure.task.number: failure.error for failure in failures.values()} == {21: "ValueError: on purpose"}
    assert store.done(odd[0])
    assert [number for number, _, _ in lines(tmp_path / "far" / "log")].count(20) == 2
    assert os.getpid() not in {process for _, process, _ in lines(tmp_path / "far" / "log")}
    ours = {name: data for name, data in contents(store.root).items() if name in undisturbed}
    assert len({name.split("/")[1] for name in ours}) == 3  # a task and the two that it needs
    assert all(undisturbed[name] == data for name, data in ours.items())
    assert not list(store.root.glob("Step/.*"))
    left = {path.name.partition("_")[0] for path in folder.glob("[!.]*")}
    assert len(left) == 1  # only the files of the job that died are kept


def test_a_job_asks_for_a_card_only_if_its_task_does(tmp_path, monkeypatch):
    """submitit keeps what the job before was submitted with."""
    tasks = load(study_file(tmp_path))[:1]
    kept, asked = {}, []

    class Submitting:
        def update_parameters(self, **settings):
            kept.update(settings)

        def submit(self, *_):
            asked.append(kept.get("slurm_gpus_per_node"))

    with OnSlurm(tmp_path / "jobs", kind="local") as executor:
        executor.closed.set()
        executor.watcher.join()  # it would ask for the jobs' files
        monkeypatch.setattr(executor, "executor", Submitting())
        monkeypatch.setattr(executor, "kind", "slurm")
        monkeypatch.setattr(executor, "_has_gpus", lambda: True)
        for gpus in (0.0, 1.0, 0.0):
            monkeypatch.setattr(type(tasks[0]), "gpus", gpus, raising=False)
            executor.submit(print, tasks[0])
            executor.calls.clear()
        monkeypatch.setattr(executor, "kind", "local")
    assert asked == [None, 1, None]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:99999"])
def test_an_address_where_nobody_answers_is_said_at_once(address):
    """Ray 2.60 went on trying for a quarter of an hour."""
    pytest.importorskip("ray")
    began = time.monotonic()
    with pytest.raises(UserError, match=f"there is no Ray cluster at {address}"):
        OnRay(address)
    assert time.monotonic() - began < 60


def test_what_is_not_there_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"lightleak\[cluster\]"):
        OnRay("auto")
    with pytest.raises(UserError, match=r"lightleak\[slurm\]"):
        OnSlurm(tmp_path)
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(tmp_path))  # no srun there
    with pytest.raises(UserError, match="there is no Slurm here"):
        OnSlurm(tmp_path / "jobs")
