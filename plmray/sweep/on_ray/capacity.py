"""What a cluster has, and how many jobs of a sweep fit on it at a time."""

from __future__ import annotations

import contextlib
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

from plmray.config.catalog.engines import ENGINES, EngineName
from plmray.config.fields.sweep import SweepSpec
from plmray.errors import SetupError

NODES_ANSWER_S = 120.0  # a node starts a process for the question
FOLDER_SEEN_S = 10.0


def living_nodes() -> list[dict[str, float]]:
    """The resources of every node that is up."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def nodes_without(folder: str) -> list[str]:
    """Of several nodes that could train, the names of those that do not see a folder. One that is lost has no say."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    if len(nodes) < 2:
        return []
    sees = ray.remote(num_cpus=0, max_retries=0)(_sees)
    asked = {
        sees.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            folder
        ): node
        for node in nodes
    }
    done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=NODES_ANSWER_S)
    blind = []
    for answer in done:
        with contextlib.suppress(ray.exceptions.RayError):
            if not ray.get(answer):
                blind.append(str(asked[answer]["NodeManagerHostname"]))
    return blind


def _sees(folder: str) -> bool:
    """File servers may tell a node late of a folder that was just made."""
    deadline = time.monotonic() + FOLDER_SEEN_S
    while not Path(folder).is_dir():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


def usable_cpus() -> int:
    """CPUs this process may use: its affinity, and the quota of its container."""
    cpus = len(os.sched_getaffinity(0))
    quota = Path("/sys/fs/cgroup/cpu.max")
    limit, _, period = quota.read_text(encoding="utf-8").partition(" ") if quota.exists() else ("max", "", "")
    return cpus if limit == "max" else max(1, min(cpus, int(limit) // int(period)))


@dataclass(frozen=True)
class Shape:
    """What one job takes of the cluster, and how many fit at a time."""

    workers: int
    per_worker: dict[str, float]
    slots: int


def shape_of(spec: SweepSpec, engine: EngineName, nodes: list[dict[str, float]], max_concurrent: int | None) -> Shape:
    """Jobs that fit at a time. Raises SetupError where not even one does: Ray would wait for ever."""
    wanted = spec.resources
    resources = total(nodes)
    gpus_here = resources.get("GPU", 0.0)
    gpus = (1.0 if gpus_here else 0.0) if wanted.gpus_per_trial == "auto" else float(wanted.gpus_per_trial)
    per_worker = {"CPU": float(wanted.cpus_per_worker)}
    if gpus:
        per_worker["GPU"] = gpus / wanted.workers if wanted.gpus_per_trial != "auto" else 1.0
    # Node by node: a worker that fits on no single node would wait for ever.
    bundles = sum(bundles_on(node, per_worker) for node in nodes)
    fits = bundles // wanted.workers
    if fits < 1:
        needed = ", ".join(f"{amount * wanted.workers:g} {kind}" for kind, amount in per_worker.items())
        there = ", ".join(f"{resources.get(kind, 0):g} {kind}" for kind in per_worker)
        raise SetupError(
            f"one trial needs {needed}, the cluster has {there}, and each worker must fit on one node. Lower "
            "resources.workers, cpus_per_worker or gpus_per_trial, or join a larger cluster with --address."
        )
    if ENGINES[engine].has_hosts:  # there the limits count candidates, not processes
        return Shape(wanted.workers, per_worker, fits)
    limits = [fits, max_concurrent or fits]
    if wanted.max_concurrent != "auto":
        limits.append(wanted.max_concurrent)
    return Shape(wanted.workers, per_worker, min(limits))


def bundles_on(node: dict[str, float], per_worker: dict[str, float]) -> int:
    return min(math.floor(node.get(kind, 0.0) / amount + 1e-9) for kind, amount in per_worker.items())


def total(nodes: list[dict[str, float]]) -> dict[str, float]:
    return {kind: sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU")}


def least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)
