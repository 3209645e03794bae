"""What a sweep needs of this machine, looked at one by one, each with what to do."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from plmray.errors import first_line
from plmray.storage.home import home_of
from plmray.storage.object_store import Location, is_store

LOW_DISK_BYTES = 2e9
LOW_MEMORY_BYTES = 4e9


@dataclass(frozen=True)
class Finding:
    state: Literal["ok", "mind", "bad"]
    what: str
    found: str
    advice: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def examine(storage_path: Location, address: str | None) -> Iterator[Finding]:
    yield from _packages()
    yield from _devices()
    yield _memory()
    yield from _storage(storage_path)
    yield from _ray(address)
    yield _mlflow()
    yield _compiled_parts()


def _packages() -> Iterator[Finding]:
    for extra, modules in (
        ("train", ("torch", "transformers", "peft")),
        ("ray", ("ray", "optuna", "mlflow", "deepspeed")),
    ):
        missing = [module for module in modules if find_spec(module) is None]
        advice = f"pip install '.[{extra}]'" if missing else ""
        yield Finding(
            "bad" if missing else "ok", f"packages ({extra})", f"missing {missing}" if missing else "all", advice
        )


def _devices() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("ok", "CPU", f"{cores} cores")
    if find_spec("torch") is None:
        return
    import torch

    if not torch.cuda.is_available():
        yield Finding("mind", "GPU", "none", "small encoders train on a CPU; larger ones want a GPU")
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        found = f"{torch.cuda.get_device_name(index)}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free"
        bf16 = torch.cuda.is_bf16_supported()
        advice = "" if bf16 else "no bf16 here: set train.precision: fp32"
        yield Finding("ok" if bf16 else "mind", f"GPU {index}", found, advice)


def _memory() -> Finding:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return Finding("mind", "memory", "unknown on this system")
    state: Literal["ok", "mind"] = "ok" if free > LOW_MEMORY_BYTES else "mind"
    advice = "" if state == "ok" else "each worker takes about 1 GB and its encoder; lower --max-concurrent"
    return Finding(state, "memory", f"{free / 1e9:.1f} GB available", advice)


def _storage(place: Location) -> Iterator[Finding]:
    from plmray.errors import PlmrayError
    from plmray.sweep.on_ray.job_environment import require_lasting

    if is_store(place):
        try:
            with home_of(place, ".plmray-doctor"):
                yield Finding("ok", "storage", f"{place} can be written")
        except PlmrayError as error:
            yield Finding("bad", "storage", str(error))
        return
    path = Path(place)
    existing = next(parent for parent in [path.absolute(), *path.absolute().parents] if parent.exists())
    try:
        require_lasting("--storage-path", path, "Give an absolute path on storage that every node shares.")
    except PlmrayError as error:
        yield Finding("bad", "storage", str(error), "give --storage-path /absolute/path")
    if not os.access(existing, os.W_OK):
        yield Finding("bad", "storage", f"{existing} cannot be written", "choose another --storage-path")
        return
    free = shutil.disk_usage(existing).free
    state: Literal["ok", "mind"] = "ok" if free > LOW_DISK_BYTES else "mind"
    advice = "" if state == "ok" else "set resources.keep: none, or choose another --storage-path"
    yield Finding(state, "storage", f"{path}: {free / 1e9:.1f} GB free", advice)


def _ray(address: str | None) -> Iterator[Finding]:
    target = address or os.environ.get("RAY_ADDRESS")
    if not target:
        yield Finding("ok", "Ray", "a private local instance starts with the sweep", "")
        return
    has_token = bool(os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"))
    has_token = has_token or Path(os.path.expanduser("~/.ray/auth_token")).exists()  # noqa: PTH111  raises nothing without a home
    mode = os.environ.get("RAY_AUTH_MODE", "unset")
    advice = "" if mode == "token" and has_token else "clusters ask for a token by default: export RAY_AUTH_MODE=token"
    yield Finding("ok" if not advice else "mind", "Ray authentication", f"mode {mode}, token {has_token}", advice)
    if find_spec("ray") is None:
        return
    import ray

    try:
        ray.init(address=target, log_to_driver=False, configure_logging=False)
        resources = ray.cluster_resources()
        yield Finding("ok", "Ray", f"{target}: {resources.get('CPU', 0):.0f} CPUs, {resources.get('GPU', 0):.0f} GPUs")
    except Exception as error:
        yield Finding(
            "bad", "Ray", f"{target}: {first_line(error)}", "check the address, that the cluster is up, and its token"
        )
    finally:
        ray.shutdown()


def _mlflow() -> Finding:
    from plmray.sweep.tracking.mirror import tracking_uri

    uri = tracking_uri(None, Path.cwd())
    if find_spec("mlflow") is None:
        return Finding("bad", "MLflow", "not installed", "pip install '.[ray]'")
    if uri.startswith("http"):
        import urllib.request

        try:
            with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=5):
                return Finding("ok", "MLflow", f"{uri} answers")
        except OSError as error:
            return Finding("mind", "MLflow", f"{uri}: {error}", "sweeps run without it; send later with plmray sync")
    return Finding("ok", "MLflow", uri)


def _compiled_parts() -> Finding:
    if find_spec("deepspeed") is None or find_spec("torch") is None:
        return Finding("mind", "DeepSpeed", "not installed", "needed for more than one worker a trial")
    from plmray.train.prebuild import missing_parts

    missing = missing_parts()
    advice = "plmray prebuild (a few minutes, once)" if missing else ""
    return Finding(
        "mind" if missing else "ok", "DeepSpeed parts", f"not compiled: {missing}" if missing else "compiled", advice
    )
