"""Where a sweep's jobs run: in this process, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from plmray.config.catalog.engines import ENGINES, EngineName
from plmray.config.load import LoadedSweep
from plmray.errors import SetupError
from plmray.plan.packing import jobs_at_once
from plmray.sweep.folder.costs import Costs
from plmray.sweep.options import RunOptions
from plmray.sweep.workers.context import Bench
from plmray.sweep.workers.device import Device, device_of
from plmray.sweep.workers.in_process import Here, PackedHere
from plmray.sweep.workers.packed import Host
from plmray.sweep.workers.serial import Worker
from plmray.trials.job import Place


@dataclass(frozen=True)
class Machines:
    """``place`` makes the place of a bench's jobs."""

    has_gpu: bool
    place: Callable[[Bench], Place]


@contextmanager
def open_machines(
    sweep: LoadedSweep, engine: EngineName, options: RunOptions, costs: Costs, echo: Callable[[str], None]
) -> Iterator[Machines]:
    """This process where ``options`` say local, else a Ray cluster, left at the end. Raises SetupError."""
    if options.local:
        yield _this_process(sweep, engine, costs, echo)
        return
    from plmray.sweep.on_ray.cluster import RayCluster
    from plmray.sweep.on_ray.place import RayPlace

    cluster = RayCluster(sweep.spec, engine, options, costs, echo)
    try:
        yield Machines(cluster.has_gpu, lambda bench: RayPlace(cluster, bench))
    finally:
        cluster.close()


def _this_process(sweep: LoadedSweep, engine: EngineName, costs: Costs, echo: Callable[[str], None]) -> Machines:
    import torch

    if sweep.spec.resources.workers > 1:
        raise SetupError(f"--local is one process, the sweep asks for {sweep.spec.resources.workers} workers")

    def place(bench: Bench) -> Place:
        if not ENGINES[engine].has_hosts:
            return Here(Worker(bench, device=Device(echo)))
        length, device = bench.data.mean_length, device_of(bench).type
        at_once = jobs_at_once(sweep.spec, sweep.family, 1, length, device)
        return PackedHere(Host(bench, say=echo), at_once, costs)

    return Machines(torch.cuda.is_available(), place)
