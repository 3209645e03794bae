"""A Ray cluster as `ray start --head` makes it, with its own ports, token and folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.examples import free_port


@contextlib.contextmanager
def ray_cluster(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[dict[str, str]]:
    """Its environment for clients; ``DASHBOARD``: where jobs go. Ended without touching any other Ray."""
    session = Path(tempfile.mkdtemp(prefix="plmtest", dir="/tmp"))
    token = folder / "token"
    token.write_text("a" * 32)
    own = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), **(environment or {})}
    own["PATH"] = f"{Path(sys.executable).parent}:{own['PATH']}"
    own["DASHBOARD"] = f"http://127.0.0.1:{(dashboard := free_port())}"
    start = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--port=0", "--num-cpus=2"]
    start += [f"--dashboard-port={dashboard}", f"--temp-dir={session}", "--disable-usage-stats"]
    start += [f"--dashboard-agent-listen-port={free_port()}"]
    subprocess.run(start, check=True, env=own, capture_output=True)
    try:
        yield own
    finally:
        subprocess.run(["pkill", "-9", "-f", str(session)])
        shutil.rmtree(session, ignore_errors=True)
