"""An S3 server of one's own on loopback (moto), with a bucket."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

from tests.examples import free_port

BUCKET = "sweeps"


class S3Server:
    """Starts, stops and starts again; what a stopped one held is gone, as moto keeps it in memory."""

    def __init__(self) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find it."""
        return {
            "AWS_ACCESS_KEY_ID": "test-access-key",
            "AWS_SECRET_ACCESS_KEY": "test-secret-key",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.address,
        }

    def start(self) -> None:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(urllib.request.Request(f"{self.address}/{BUCKET}", method="PUT"))
                return
            time.sleep(0.05)
        raise AssertionError("moto did not start")

    def pause(self) -> None:
        """Answer nobody for a while, with everything still there."""
        self._send("STOP")

    def go_on(self) -> None:
        self._send("CONT")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _send(self, name: str) -> None:
        import signal

        assert self._process is not None
        self._process.send_signal(getattr(signal, f"SIG{name}"))


@contextlib.contextmanager
def s3_server() -> Iterator[S3Server]:
    server = S3Server()
    server.start()
    try:
        yield server
    finally:
        server.stop()
