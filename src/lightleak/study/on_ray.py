"""Tasks on a Ray cluster whose nodes share the folder of the store; results never travel through Ray."""

import logging
import os
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from lightleak.errors import UserError
from lightleak.study.payload import Cluster, perform
from lightleak.study.pool import WorkerDied
from lightleak.study.task import Task


class OnRay(Cluster):
    """Runs each call on a node with enough free cores (and graphics processors, if the cluster has any).

    address: "host:port" of a running cluster, "auto" for the one of this machine, "local" to start one here for the
    time of the study. A worker or node that dies gives WorkerDied, so that the engine starts its task again elsewhere.
    """

    def __init__(self, address: str = "auto", files: Mapping[str, Path] | None = None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError:
            raise UserError("a Ray cluster needs the extra: pip install 'lightleak[cluster]'") from None
        _check_reached(address)
        self.ray, self.files = ray, dict(files or {})
        self.calls: dict[Future, Any] = {}
        self.closed = False
        here: dict[str, Any] = {}
        if address == "local":
            here = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        elif address.startswith("127."):  # a cluster within one machine
            here = {"_node_ip_address": address.partition(":")[0]}
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, namespace="lightleak", **here)
        except (ConnectionError, ValueError, RuntimeError, AssertionError) as error:
            raise _nobody(address, error) from None
        self.remote = ray.remote(max_retries=0)(perform)
        # CUDA asks once in a process which cards it sees: whoever is given one begins a process and ends it. Ray knows
        # that where a function is declared with cards, not from `options`.
        self.on_card = ray.remote(max_retries=0, num_gpus=1, max_calls=1)(perform)

    def slots(self) -> int:
        """The cluster's cores."""
        return int(self.ray.cluster_resources().get("CPU", 0))

    def submit(self, function: Callable, task: Task, *arguments: Any) -> Future:  # pyright: ignore
        """The future of `function(task, *arguments)`; UserError in it if no node is large enough."""
        future: Future = Future()
        gpus = task.gpus if self.ray.cluster_resources().get("GPU", 0) else 0
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= task.cpus and node.get("GPU", 0) >= gpus for node in nodes):
            largest = max((node.get("CPU", 0) for node in nodes), default=0)
            future.set_exception(
                UserError(f"{task.label} needs {task.cpus:g} cores and {gpus:g} GPUs; the largest node has {largest:g}")
            )
            return future
        remote = self.on_card if gpus else self.remote
        call = remote.options(num_cpus=task.cpus, num_gpus=gpus, name=task.label)
        reference = call.remote(self.payload(function, task, *arguments))
        self.calls[future] = reference
        reference.future().add_done_callback(lambda ended: self._settle(future, ended))
        return future

    def _settle(self, future: Future, ended: Future) -> None:
        """Pass the outcome on; every death that is not the task's own doing is one that deserves another try."""
        self.calls.pop(future, None)
        if not future.set_running_or_notify_cancel():
            return
        error = ended.exception()
        if error is None:
            future.set_result(ended.result())
        elif isinstance(error, self.ray.exceptions.RayTaskError):
            future.set_exception(RuntimeError(str(error).strip().splitlines()[-1]))
        elif isinstance(error, self.ray.exceptions.RayError):
            future.set_exception(WorkerDied(f"its process died ({str(error).strip().splitlines()[0][:160]})"))
        else:
            future.set_exception(error)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """Stop what still runs and leave the cluster (end it, if it was started for this)."""
        if self.closed:
            return
        self.closed = True
        for reference in list(self.calls.values()):
            self.ray.cancel(reference, force=True)
        self.ray.shutdown()


def _check_reached(address: str) -> None:
    """UserError if nobody answers at "host:port": Ray itself goes on trying for minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or "/" in host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise _nobody(address, error) from None


def _nobody(address: str, error: Exception) -> UserError:
    line = " ".join(str(error).split())[:200]
    return UserError(f"there is no Ray cluster at {address} ({line}); 'ray start --head' starts one")
