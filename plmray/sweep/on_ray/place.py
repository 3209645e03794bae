"""The place of a sweep's jobs on a Ray cluster, and what a process may take there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plmray.config.backbone_names import family
from plmray.config.catalog.engines import ENGINES
from plmray.errors import SetupError
from plmray.interrupt import Interrupted
from plmray.plan.packing import jobs_at_once
from plmray.storage.object_store import is_store
from plmray.sweep.on_ray.capacity import bundles_on, least, living_nodes, nodes_without, usable_cpus
from plmray.sweep.on_ray.cluster import RayCluster
from plmray.sweep.on_ray.notes import Notes
from plmray.sweep.workers.context import Bench
from plmray.trials.job import Job, JobSource, job_key

if TYPE_CHECKING:
    from plmray.sweep.on_ray.host_pool import PackHosts


CANDIDATE_PROCESS_BYTES = 180e6  # measured: 140-170 MB
CANDIDATES_PER_CPU = 8  # a process takes two CPU-seconds to start
MEMORY_SHARE = 0.25


class RayPlace:
    """A place with as many slots as jobs fit on the cluster.

    Raises SetupError where a node does not see the folder that it would keep weights in.
    """

    def __init__(self, cluster: RayCluster, bench: Bench) -> None:
        import ray

        _require_seen(bench)
        self.cluster, self.bench = cluster, bench
        self.concurrency = self.devices = cluster.shape.slots
        self._notes = Notes(cluster.echo)
        self._bench_ref = ray.put(bench)
        self._hosts = self._make_hosts() if ENGINES[bench.engine].has_hosts else None
        if self._hosts is not None:
            device = "cuda" if bench.use_gpu else "cpu"
            most = least(cluster.max_concurrent, self._fitting_processes())
            own = family(bench.spec.train.backbone, bench.base)
            length = bench.data.mean_length
            self.concurrency = jobs_at_once(bench.spec, own, self.devices, length, device, most)

    def _make_hosts(self) -> PackHosts:
        from plmray.sweep.on_ray.host_pool import PackHosts

        shape, scratch = self.cluster.shape, Path(self.cluster.scratch)
        return PackHosts(shape.slots, shape.per_worker, scratch, self.cluster.echo, self._notes.channel)

    def _mend(self) -> None:
        """Look after hosts whose node is lost; show what processes say."""
        self._notes.show()
        need = self.cluster.shape.per_worker
        if self._hosts is not None:
            self._hosts.mend(lambda: sum(bundles_on(node, need) for node in living_nodes()))

    def _fitting_processes(self) -> int:
        """Candidates in flight at most: each has a process of its own on this node, which only waits."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
        return max(2, min(int(memory * MEMORY_SHARE / CANDIDATE_PROCESS_BYTES), CANDIDATES_PER_CPU * usable_cpus()))

    def run(self, source: JobSource) -> None:
        """Run all jobs of a source. Raises Interrupted when the user stopped it."""
        from plmray.sweep.on_ray.tune_adapters import Bridge, fit

        ended = self._hosts.free if self._hosts else None
        retries = self.bench.spec.resources.retries
        bridge = Bridge(source, self._config, self.cluster.costs, self.concurrency, retries, ended, self._mend)
        try:
            fit(bridge, self._trainable(), self.cluster.scratch, self._reuse)
        finally:
            self._notes.close()
            if self._hosts is not None:
                self.cluster.costs.add_packs(self._hosts.facts())
        if bridge.failure is not None:
            raise bridge.failure
        if bridge.live or bridge.again or not bridge.exhausted:
            raise Interrupted

    @property
    def _reuse(self) -> bool:
        return not ENGINES[self.bench.engine].has_groups

    def _trainable(self) -> Any:
        from ray import tune

        from plmray.sweep.on_ray.trainables import CandidateTrainable, PackedCandidate, run_on_group

        engine = ENGINES[self.bench.engine]
        if not engine.has_hosts and not engine.has_groups:
            return tune.with_resources(CandidateTrainable, self.cluster.shape.per_worker)
        # The Tune process of a pack or a worker group only waits: it takes no CPU that others need.
        waiting = PackedCandidate if engine.has_hosts else run_on_group
        return tune.with_resources(waiting, {"node:__internal_head__": 0.001})

    def _config(self, job: Job) -> dict[str, Any]:
        bench = {"ref": self._bench_ref, "notes": self._notes.channel}
        config: dict[str, Any] = {"job": job.to_dict(), "bench": bench}
        if self._hosts is not None:
            return config | {"key": job_key(job), "hosts": self._hosts.place(job)}
        if not self._reuse:
            shape = self.cluster.shape
            config |= {"workers": shape.workers, "resources": shape.per_worker, "store": self.cluster.scratch}
        return config


def _require_seen(bench: Bench) -> None:
    if bench.home is None or is_store(bench.home) or bench.spec.resources.keep == "none":
        return
    blind = nodes_without(bench.home)
    if blind:
        raise SetupError(
            f"{', '.join(blind)} of the cluster's nodes do not see {bench.home}, where trials keep their "
            "weights. Give a --storage-path on storage that every node shares, or an object store; or set "
            "resources.keep=none."
        )
