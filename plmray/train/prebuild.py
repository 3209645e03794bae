"""DeepSpeed's compiled parts: where they lie, whether they are there, and compiling them once."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from plmray.hashing import content_hash
from plmray.storage.atomic import user_cache

STALE_LOCK_S = 600.0
PARTS = {"cpu_adam": "CPUAdamBuilder"}


def extensions_folder() -> Path:
    """Compiled parts of this host and this environment.

    A home folder may be shared by hosts whose processors differ; and parts that one environment compiled another would
    compile again (other paths of torch and Python), or load to its harm (another Python).
    """
    given = os.environ.get("TORCH_EXTENSIONS_DIR")
    if given:
        return Path(given)
    built_by = content_hash([sys.prefix, sys.version, *(_version(name) for name in ("torch", "deepspeed"))])[:12]
    return user_cache() / "plmray" / "torch_extensions" / socket.gethostname() / built_by


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def prepare_environment(has_gpu: bool) -> None:
    """What DeepSpeed reads from the environment; call it before deepspeed is imported."""
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(extensions_folder()))
    if not has_gpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    scripts = str(Path(sys.executable).parent)  # ninja lies beside python
    if scripts not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}"
    remove_stale_locks()


def missing_parts() -> list[str]:
    return [part for part in PARTS if not (extensions_folder() / part / f"{part}.so").exists()]


def remove_stale_locks() -> list[Path]:
    """A killed build leaves a lock that every later one would wait for; builds take minutes, so old ones go."""
    stale = [lock for part in PARTS if _is_stale(lock := extensions_folder() / part / "lock")]
    for lock in stale:
        lock.unlink(missing_ok=True)
    return stale


def _is_stale(lock: Path) -> bool:
    try:
        return time.time() - lock.stat().st_mtime > STALE_LOCK_S
    except FileNotFoundError:
        return False


def prebuild_deepspeed() -> Iterator[str]:
    """Compile what is missing; yields a line for each part."""
    import torch

    prepare_environment(torch.cuda.is_available())
    missing = missing_parts()
    for part in PARTS:
        if part not in missing:
            yield f"{part}: already in {extensions_folder()}"
    if not missing:
        return
    from deepspeed.ops.op_builder import CPUAdamBuilder

    started = time.monotonic()
    CPUAdamBuilder().load(verbose=False)
    yield f"cpu_adam: compiled in {time.monotonic() - started:.0f} s into {extensions_folder()}"
