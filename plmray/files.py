"""Files that exist only when they are finished, and a lock that says whose a folder is."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from plmray.errors import FolderError

HEARTBEAT_S = 10.0
STALE_AFTER_S = 60.0


def write_atomic(path: Path, content: str | bytes) -> None:
    """The whole of a file: see ``atomic_stream``."""
    with atomic_stream(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def atomic_stream(path: Path) -> Iterator[BinaryIO]:
    """Write beside the target, flush to disk, then rename: readers see the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def append_json_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append one record and flush it to disk before returning.

    A line that a crash cut short is closed first, so that it spoils no later record.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(record, allow_nan=False) + "\n"
    with path.open("ab+") as stream:
        if stream.tell() > 0:
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                line = "\n" + line
        stream.write(line.encode())
        stream.flush()
        os.fsync(stream.fileno())


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Records of a JSON-lines file. A line cut short by a crash is skipped: its write never returned."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict):
            yield record


class FolderLock:
    """Ownership of a sweep folder by one driver.

    A dead owner on this host is replaced at once; an owner elsewhere after 60 s without a heartbeat.
    Use as a context manager. Raises FolderError with the owner's name while another driver lives.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lock.json"
        self.token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> FolderLock:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while not self._create():
            self._refuse_or_remove()
        self._thread = threading.Thread(target=self._beat, name="plmray-lock", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * HEARTBEAT_S)
        if self.is_mine():
            self.path.unlink(missing_ok=True)

    def is_mine(self) -> bool:
        return _read_owner(self.path).get("token") == self.token

    def check(self) -> None:
        """Raise FolderError when another driver has taken the folder over (call before a write)."""
        if not self.is_mine():
            owner = _read_owner(self.path)
            raise FolderError(
                f"{self.path.parent}: this driver lost the folder to {_describe(owner)}. "
                "Nothing more is written here; let the other driver finish."
            )

    def _create(self) -> bool:
        # Written aside and linked, because a half-written lock would look like nobody's.
        temporary = self.path.with_name(f".lock.{self.token}.tmp")
        temporary.write_text(json.dumps(_this_process(self.token)))
        try:
            os.link(temporary, self.path)
            return True
        except FileExistsError:
            return False
        except OSError as error:
            raise FolderError(
                f"{self.path.parent} cannot be locked ({error.strerror}): its file system has no hard links. "
                "Choose a --storage-path on another one."
            ) from error
        finally:
            temporary.unlink(missing_ok=True)

    def _refuse_or_remove(self) -> None:
        owner = _read_owner(self.path)
        if _is_alive(owner, self.path):
            raise FolderError(
                f"{self.path.parent} is in use by {_describe(owner)}. Wait for it to end, stop it, or "
                "give this sweep another name or --storage-path."
            )
        stale = self.path.with_name(f".lock.stale.{self.token}")
        try:
            self.path.rename(stale)
        except FileNotFoundError:
            return
        if _read_owner(stale).get("token") != owner.get("token"):
            # Another driver replaced the dead owner between our look and our rename: give it back.
            with contextlib.suppress(FileExistsError):
                os.link(stale, self.path)
        stale.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            # A shared file system may stumble; the next beat tries again.
            with contextlib.suppress(OSError):
                if self.is_mine():
                    os.utime(self.path)


def _this_process(token: str) -> dict[str, Any]:
    return {
        "host": _host(),
        "pid": os.getpid(),
        "process_start": _process_start(os.getpid()),
        "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "token": token,
    }


def _host() -> str:
    """Where a process id means something: the host, and on Linux the container (its pid namespace)."""
    try:
        return f"{socket.gethostname()} ({Path('/proc/self/ns/pid').readlink()})"
    except OSError:
        return socket.gethostname()


def _read_owner(path: Path) -> dict[str, Any]:
    try:
        owner = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _describe(owner: Mapping[str, Any]) -> str:
    return f"process {owner.get('pid', '?')} on {owner.get('host', '?')} since {owner.get('since', '?')}"


def _is_alive(owner: Mapping[str, Any], path: Path) -> bool:
    if owner.get("host") == _host():
        start = _process_start(int(owner.get("pid", -1)))
        return start is not None and start == owner.get("process_start")
    try:
        return time.time() - path.stat().st_mtime < STALE_AFTER_S
    except FileNotFoundError:
        return False


def _process_start(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot (Linux), so that a reused pid is told apart."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self/stat").exists() else _signalled(pid)
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def _signalled(pid: int) -> str | None:
    """Without /proc: whether the process exists at all."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return "exists"
    return "exists"
