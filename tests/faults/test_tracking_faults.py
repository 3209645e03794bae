"""What happens to the tracking server: down, slow, silent, back. A real MLflow server on SQLite."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.examples import free_port
from tests.faults.drivers import DriverProcess, Scores, assert_whole, fault_sweep


class MLflowServer:
    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        stores = [
            "--backend-store-uri",
            f"sqlite:///{folder}/server.db",
            "--artifacts-destination",
            str(folder / "files"),
        ]
        self._command = [sys.executable, "-m", "mlflow", "server", *stores, "--port", str(self.port), "--workers", "4"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        quiet = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_TRACKING_URI": ""}
        self._process = subprocess.Popen(
            self._command, env=quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )

    def wait_until_healthy(self, timeout_s: float = 120) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.address}/health", timeout=2):
                    return
            except OSError:
                time.sleep(0.3)
        raise AssertionError(f"{self.address} did not answer within {timeout_s} s")

    def signal(self, number: signal.Signals) -> None:
        """To the server and its workers."""
        if self._process is not None:
            os.killpg(self._process.pid, number)

    def kill(self) -> None:
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MLflowServer]:
    running = MLflowServer(tmp_path)
    try:
        yield running
    finally:
        running.kill()


@pytest.fixture
def address(server: MLflowServer, uri: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    return server.address


def test_a_server_that_is_down_slow_killed_and_back_has_everything_at_the_end(
    tmp_path: Path, unbroken: Scores, server: MLflowServer, address: str
) -> None:
    """It comes up after the sweep has begun, hangs for a while, is killed and comes back: no sync is needed."""
    driver = DriverProcess(fault_sweep(tmp_path), tmp_path / "runs", "--local")
    driver.wait_for_results(2)
    server.start()
    server.wait_until_healthy()
    server.signal(signal.SIGSTOP)
    time.sleep(3)
    server.signal(signal.SIGCONT)
    time.sleep(1)
    server.kill()
    time.sleep(1)
    server.start()
    assert driver.end() == 0, driver.output
    assert "MLflow has not everything" not in driver.output
    assert_whole(tmp_path / "runs" / "faulty", unbroken, address, sync=False)


def test_a_server_that_never_answers_delays_the_end_by_a_minute_and_sync_completes(
    tmp_path: Path, unbroken: Scores, server: MLflowServer, address: str
) -> None:
    """It takes requests and is silent: training goes on, and the sweep ends all the same."""
    server.start()
    server.wait_until_healthy()
    driver = DriverProcess(fault_sweep(tmp_path), tmp_path / "runs", "--local")
    driver.wait_for_results(3)
    server.signal(signal.SIGSTOP)
    driver.wait_for("[18/18]")
    last = time.monotonic()
    assert driver.end(180) == 0, driver.output
    assert time.monotonic() - last < 90
    assert "MLflow has not everything yet; once it is reachable run: plmray sync" in driver.output
    server.signal(signal.SIGCONT)
    assert_whole(tmp_path / "runs" / "faulty", unbroken, address)
