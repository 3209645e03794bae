"""The thread that keeps MLflow up with the sweep, and waits for a server that is away."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from plmray.errors import first_line
from plmray.redact import redacted
from plmray.sweep.tracking.mirror import Mirror, Refused, logger

FLUSH_AT_END_S = 60.0  # without an answer
QUIET_AT_END_S = 5.0
RETRY_S = 5.0


def is_refusal(error: Exception) -> bool:
    """Whether trying again is in vain: MLflow answered, and said no."""
    status = getattr(error, "get_http_status_code", lambda: 500)()
    return isinstance(error, Refused) or (400 <= status < 500 and status not in (408, 429))


class Tracker:
    """Feeds a Mirror from a queue on a thread of its own, so that training never waits for MLflow."""

    def __init__(self, mirror: Mirror) -> None:
        self.mirror = mirror
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._connected = False
        self._warned = False
        self._num_refused = 0
        self._closing = threading.Event()
        self._leave = threading.Event()
        self._last_success = float("inf")
        self._thread = threading.Thread(target=self._work, name="plmray-mlflow", daemon=True)
        self._thread.start()

    def put(self, action: Callable[[], None]) -> None:
        if self.mirror.is_installed():  # without MLflow the folder has it all, and sync can send it later
            self._queue.put(action)

    def close(self, echo: Callable[[str], None]) -> bool:
        """Send what is left, as long as MLflow takes it; a minute without an answer or Ctrl-C ends the wait.

        False where something is left for ``plmray sync``.
        """
        self._last_success = time.monotonic()
        self._closing.set()
        self._queue.put(None)
        try:
            self._thread.join(QUIET_AT_END_S)
            if self._thread.is_alive():
                echo(f"writing {self._queue.qsize()} records to MLflow; Ctrl-C leaves them to plmray sync")
            # A server that takes a request and never answers would hold its thread for many minutes.
            while self._thread.is_alive() and time.monotonic() < self._last_success + FLUSH_AT_END_S + QUIET_AT_END_S:
                self._thread.join(QUIET_AT_END_S)
        except KeyboardInterrupt:
            self._leave.set()
        left = self._leave.is_set() or self._thread.is_alive() or not self._queue.empty()
        return not left and not self._num_refused

    def _work(self) -> None:
        while (action := self._queue.get()) is not None and not self._leave.is_set():
            while not self._try(action):
                if time.monotonic() > self._last_success + FLUSH_AT_END_S:
                    self._queue.put(action)  # left for sync, and seen by close()
                    return
                self._closing.wait(RETRY_S) if not self._closing.is_set() else time.sleep(0.5)
            if self._closing.is_set():
                self._last_success = time.monotonic()

    def _try(self, action: Callable[[], None]) -> bool:
        try:
            if not self._connected:
                self.mirror.connect()
                self._connected = True
            action()
            return True
        except Exception as error:
            refused = is_refusal(error)
            if not self._warned:
                what = "refuses" if refused else "cannot be reached"
                logger.warning(
                    "%s", redacted(f"MLflow at {self.mirror.uri} {what} ({first_line(error)}); the sweep goes on")
                )
                self._warned = True
            self._num_refused += refused
            self._connected = self._connected and refused
            return refused
