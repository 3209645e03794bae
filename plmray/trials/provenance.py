"""What produced a number: versions, commit, machine. Recorded with every trial, never part of its id."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import plmray

LIBRARIES = ("torch", "transformers", "peft", "deepspeed", "ray", "optuna", "mlflow", "numpy", "scipy")


def software() -> dict[str, Any]:
    facts: dict[str, Any] = {"plmray": plmray.__version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            facts[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return facts


def commit(folder: Path) -> str | None:
    """Commit of the folder the sweep file lies in, with '+changes' where it is not clean; None outside git."""
    try:
        head = _git(folder, "rev-parse", "HEAD")
        return head + ("+changes" if _git(folder, "status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
