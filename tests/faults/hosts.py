"""Two hosts on one machine: network namespaces with their own address, name, interface and scratch folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.examples import ROOT

HEAD_ADDRESS = "10.77.0.1:6379"
# A lost host is noticed in seconds instead of a quarter of a minute, a busy one is not taken for lost.
SHORT_CHECKS = {
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
}


@dataclass
class Host:
    name: str
    ip: str
    own: Path  # what stands at ``scratch`` here
    scratch: Path
    environment: dict[str, str]

    def command(self, *command: str) -> list[str]:
        """Run in its network, under its name, with its own scratch folder."""
        script = f'hostname {self.name} && mount --bind {self.own} {self.scratch} && exec "$@"'
        return ["ip", "netns", "exec", self.name, "unshare", "--uts", "--mount", "bash", "-c", script, "bash", *command]

    def run(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*command), env=self.environment, text=True, **options)

    def pids(self) -> list[int]:
        listed = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True)
        return [int(pid) for pid in listed.stdout.split()]

    def crash(self) -> None:
        """Everything on it is gone at once, as when a machine loses its power."""
        while pids := self.pids():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def cut_off(self) -> None:
        """Its cable is pulled; its processes go on."""
        subprocess.run(["ip", "-n", self.name, "link", "set", "eth0", "down"], check=True)


@contextlib.contextmanager
def two_hosts(
    folder: Path,
    *,
    ray: bool,
    joined: int = 2,
    names: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[tuple[Host, Host]]:
    """Hosts a and b with a CPU each; ``ray``: as a Ray cluster with its head on a. Skips where there is no right to.

    ``joined``: how many are in the cluster.
    """
    names = names or [f"plm{os.getpid() % 100000}{letter}" for letter in "ab"]
    made = shutil.which("ip") and subprocess.run(["ip", "netns", "add", names[0]], capture_output=True).returncode == 0
    if not made:
        pytest.skip("network namespaces cannot be made here (root and iproute2 needed)")
    root = Path(tempfile.mkdtemp(prefix="ph", dir="/tmp"))  # short: Ray's socket names must fit in 107 characters
    (root / "s").mkdir()
    (token := folder / "token").write_text("a" * 32)
    hosts = []
    for number, name in enumerate(names, start=1):
        (root / name).mkdir()
        own = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
        own |= {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "OMP_NUM_THREADS": "1",
            "TMPDIR": str(root / "s"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            **(environment or {}),
        }
        hosts.append(Host(name, f"10.77.0.{number}", root / name, root / "s", own))
    try:
        _connect(hosts)
        if ray:
            _start_ray(hosts[:joined])
        yield hosts[0], hosts[1]
    finally:
        for host in hosts:
            host.crash()
            subprocess.run(["ip", "netns", "del", host.name], capture_output=True)
        shutil.rmtree(root, ignore_errors=True)


def _connect(hosts: list[Host]) -> None:
    a, b = hosts
    ends = ["netns", a.name, "type", "veth", "peer", "name", "eth0", "netns", b.name]
    subprocess.run(["ip", "netns", "add", b.name], check=True)
    subprocess.run(["ip", "link", "add", "eth0", *ends], check=True)
    for host in hosts:
        subprocess.run(["ip", "-n", host.name, "addr", "add", f"{host.ip}/24", "dev", "eth0"], check=True)
        for link in ("eth0", "lo"):
            subprocess.run(["ip", "-n", host.name, "link", "set", link, "up"], check=True)


def _start_ray(hosts: Sequence[Host]) -> None:
    where = [["--head", "--port=6379"], [f"--address={HEAD_ADDRESS}"]]
    for host, own in zip(hosts, where, strict=False):
        common = [f"--node-ip-address={host.ip}", "--num-cpus=1", "--disable-usage-stats"]
        common += [f"--temp-dir={host.scratch}/ray", "--object-store-memory=100000000"]
        done = host.run("ray", "start", *own, *common, capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr
