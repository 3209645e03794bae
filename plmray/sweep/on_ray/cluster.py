"""Running jobs on Ray: Tune decides when, a source of jobs decides what, a scheduler hook decides how long.

Tune's searcher, scheduler and callback are thin adapters of one JobSource that lives in the driver, so that
Optuna, pruning and results see the same events on Ray as in one process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from plmray.config.catalog.engines import ENGINES, EngineName
from plmray.config.fields.sweep import SweepSpec
from plmray.errors import SetupError, first_line
from plmray.interrupt import StopSignals
from plmray.sweep.folder.costs import Costs
from plmray.sweep.on_ray.capacity import living_nodes, shape_of, total, usable_cpus
from plmray.sweep.on_ray.job_environment import inside_ray_job

OBJECT_STORE_BYTES = 512 * 2**20

GPU_WAIT_S = 1800.0
GPU_POLL_S = 5.0
GCS_PORT_VARIABLE = "RAY_GCS_SERVER_PORT"

# Before ray is imported: quiet, quick, and no niceness that lets any other job starve a worker.
DRIVER_ENVIRONMENT = {
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # the sweep folder is the truth; Tune's own state is never read
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}
WORKER_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # also how often reports of a worker group are fetched
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "MALLOC_ARENA_MAX": "1",  # or a reused process grows with every trial
    "TOKENIZERS_PARALLELISM": "false",
}


class ClusterOptions(Protocol):
    """What a user says of the cluster."""

    @property
    def address(self) -> str | None: ...

    @property
    def max_concurrent(self) -> int | None: ...

    @property
    def wait_for_gpus(self) -> int: ...


class RayCluster:
    """A Ray cluster to run a sweep on: joined by address, or private to this driver and gone with it."""

    def __init__(
        self,
        spec: SweepSpec,
        engine: EngineName,
        options: ClusterOptions,
        costs: Costs,
        echo: Callable[[str], None],
    ) -> None:
        self.spec, self.engine, self.costs, self.echo = spec, engine, costs, echo
        self.max_concurrent = options.max_concurrent
        self._asked_for_gpus = False
        self._temporary: Path | None = None
        # On every node a folder of its own. Tune's and Train's state is written there and never read; hosts note
        # who trained when they died. A node that is lost takes its notes along: it was no trial's fault.
        self.scratch = new_folder("plmray-scratch-")
        try:
            self._connect(options.address or os.environ.get("RAY_ADDRESS") or ("auto" if inside_ray_job() else None))
            with StopSignals():  # ray.init has put a handler of its own in their place
                self._wait_for_gpus(options.wait_for_gpus)
            self.nodes = living_nodes()
            self.shape = shape_of(spec, engine, self.nodes, self.max_concurrent)
        except BaseException:
            self.close()
            raise

    @property
    def has_gpu(self) -> bool:
        return total(self.nodes).get("GPU", 0) > 0

    def close(self) -> None:
        import ray

        if self._asked_for_gpus:
            from ray.autoscaler.sdk import request_resources

            with contextlib.suppress(Exception):  # the cluster may be gone
                request_resources(bundles=[])
        ray.shutdown()
        for folder in (self._temporary, self.scratch):
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def _connect(self, address: str | None) -> None:
        if address is not None and address.startswith("ray://"):
            raise SetupError(
                f"--address {address} is a Ray Client address, which would move the driver away from its sweep folder. "
                "Run on the cluster: ray job submit --working-dir . -- plmray run …"
            )
        address = None if address == "local" else address
        os.environ.update({key: value for key, value in DRIVER_ENVIRONMENT.items() if key not in os.environ})
        os.environ.update({key: value for key, value in WORKER_ENVIRONMENT.items() if key not in os.environ})
        if address is None:  # read when ray is imported: every socket of a private cluster on loopback
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        import ray

        options = self._private_options() if address is None else {}
        try:
            gcs_address = _own_gcs_address() if address is None else _gcs_address_of(address)
            # Ray Train gives placement groups back through a helper that looks the cluster up by itself:
            # told nothing, it fails where another Ray runs on the machine, and the next trial waits for ever.
            environment = {**WORKER_ENVIRONMENT, "RAY_ADDRESS": gcs_address}
            ray.init(
                address="local" if address is None else gcs_address,
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env={"env_vars": environment},
                **options,
            )
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise SetupError(
                f"Ray at {address or 'this machine'} cannot be used ({first_line(error)}). Check the address and that "
                "the cluster is up; clusters want a token by default (RAY_AUTH_MODE=token); plmray doctor says more."
            ) from error
        finally:
            os.environ.pop(GCS_PORT_VARIABLE, None)
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)

    def _wait_for_gpus(self, wanted: int) -> None:
        """Ask an autoscaling cluster for GPUs and wait for them: it adds nodes only when asked, and a sweep counts
        its devices once. Raises SetupError where they are not there in time."""
        if not wanted:
            return
        from ray.autoscaler.sdk import request_resources

        self._asked_for_gpus = True
        deadline, found = time.monotonic() + GPU_WAIT_S, -1
        while (now := int(total(living_nodes()).get("GPU", 0))) < wanted:
            request_resources(bundles=[{"GPU": 1}] * wanted)  # another driver's request would replace ours
            if now != found:
                self.echo(f"waiting for GPUs: {now} of {wanted} are up")
                found = now
            if time.monotonic() > deadline:
                raise SetupError(
                    f"{now} of {wanted} GPUs are up after {GPU_WAIT_S / 60:g} minutes; `ray status` tells why. Ask for "
                    "fewer with --wait-for-gpus, or raise the cluster's limits."
                )
            time.sleep(GPU_POLL_S)

    def _private_options(self) -> dict[str, Any]:
        # A short path: Ray's socket names must fit in about 107 characters.
        self._temporary = Path(new_folder("plmray", "/tmp"))
        needs_group = ENGINES[self.engine].has_groups
        return {
            "num_cpus": usable_cpus(),
            "object_store_memory": OBJECT_STORE_BYTES,
            "_temp_dir": str(self._temporary),
            # Without it every stopped worker group would leak its placement group.
            "include_dashboard": needs_group,
            "dashboard_host": "127.0.0.1",
        }


def new_folder(prefix: str, preferred: str | None = None) -> str:
    """A new folder for temporary files, in ``preferred`` if that can be. Raises SetupError where none can be made."""
    try:
        with contextlib.suppress(OSError):
            return tempfile.mkdtemp(prefix=prefix, dir=preferred)
        return tempfile.mkdtemp(prefix=prefix)
    except OSError as error:
        raise SetupError(
            f"no folder for temporary files can be written ({error.strerror or error}). Set TMPDIR to one that can, "
            "with a short path (Ray's sockets lie there), or run without Ray: --local"
        ) from error


def _own_gcs_address() -> str:
    """Choose the port of a private cluster's control store beforehand, so that its address is known to all."""
    import ray

    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    os.environ[GCS_PORT_VARIABLE] = str(port)
    return f"{ray.util.get_node_ip_address()}:{port}"


def _gcs_address_of(address: str) -> str:
    """HOST:PORT as it is; 'auto' by asking the cluster it finds."""
    if address != "auto":
        return address
    import ray

    found: str = ray.init(address="auto", log_to_driver=False, logging_level="ERROR").address_info["gcs_address"]
    ray.shutdown()
    return found
