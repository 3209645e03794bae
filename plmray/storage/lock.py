"""Whose a sweep folder is: one driver at a time, on a file system or in an object store.

No clock is trusted. An owner on this host is asked for by its process, one elsewhere is watched: its lock must
change within a minute as this process counts it, or it is taken over.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from plmray.errors import FolderError, FolderInUse, LockRefused
from plmray.storage import layout

HEARTBEAT_S = 10.0
STALE_AFTER_S = 60.0
WATCH_S = 1.0
NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK)

Owner = Mapping[str, Any]


@dataclass(frozen=True)
class Held:
    """A lock as it was seen: its owner, and a mark that every heartbeat changes."""

    owner: Owner
    mark: str

    @property
    def token(self) -> object:
        return self.owner.get("token")


class LockPlace(Protocol):
    """Where a lock is kept. Every method but ``home`` may raise OSError while the storage is away."""

    @property
    def home(self) -> str:
        """What the lock guards, as messages name it."""

    def read(self) -> Held | None:
        """The lock, or None where nobody holds it."""

    def create(self, owner: Owner) -> bool:
        """Take a lock that nobody holds; False where somebody does."""

    def remove(self, held: Held) -> None:
        """End a lock as it was seen; one that changed since stays."""

    def beat(self, owner: Owner) -> None:
        """Show that the owner lives."""


class FolderLock:
    """Ownership of a sweep folder by one driver.

    A dead owner on this host is replaced at once; an owner elsewhere after 60 s without a heartbeat.
    Use as a context manager. Raises FolderError with the owner's name while another driver lives.
    """

    def __init__(self, place: Path | LockPlace, say: Callable[[str], None] = lambda _: None) -> None:
        self.place: LockPlace = DiskLock(place) if isinstance(place, Path) else place
        self.say = say
        self.token = uuid.uuid4().hex
        self._owner = _this_process(self.token)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> FolderLock:
        while not self.place.create(self._owner):
            held = self.place.read()
            if held is not None and held.token == self.token:
                break  # a store kept it and its answer was lost
            if held is not None:
                self._refuse_or_remove(held)
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
        with contextlib.suppress(OSError):  # storage that is away: the next driver finds this process dead
            held = self.place.read()
            if held is not None and held.token == self.token:
                self.place.remove(held)

    def is_mine(self) -> bool:
        held = self.place.read()
        return held is not None and held.token == self.token

    def check(self) -> None:
        """Raise FolderError when another driver has taken the folder over (call before a write)."""
        held = self.place.read()
        if held is None or held.token != self.token:
            taker = describe(held.owner) if held else "a driver that has ended since"
            raise FolderError(
                f"{self.place.home}: this driver lost the folder to {taker}. "
                "Nothing more is written here; let the other driver finish, or go on with --resume."
            )

    def _refuse_or_remove(self, held: Held) -> None:
        if self._lives(held):
            owner = describe(held.owner)
            raise FolderInUse(
                f"{self.place.home} is in use by {owner}. Wait for it to end, stop it, or give this sweep another name "
                "or --storage-path.",
                owner,
            )
        now = self.place.read()
        if now is not None and now.token == held.token:
            self.place.remove(now)

    def _lives(self, held: Held) -> bool:
        if held.owner.get("host") == _host():
            pid = held.owner.get("pid")
            start = _process_start(pid) if isinstance(pid, int) else None
            return start is not None and start == held.owner.get("process_start")
        self.say(
            f"{self.place.home} was locked by {describe(held.owner)}; waiting {STALE_AFTER_S:g} s for a sign of life"
        )
        deadline = time.monotonic() + STALE_AFTER_S
        while time.monotonic() < deadline:
            time.sleep(min(WATCH_S, STALE_AFTER_S))
            now = self.place.read()
            if now is None:
                return False
            if now != held:
                return True
        return False

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            # Storage may stumble; the next beat tries again.
            with contextlib.suppress(OSError):
                if self.is_mine():
                    self.place.beat(self._owner)


class DiskLock:
    """A lock file in a folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / layout.LOCK

    @property
    def home(self) -> str:
        return str(self.path.parent)

    def read(self) -> Held | None:
        try:
            mark = str(self.path.stat().st_mtime_ns)
            return Held(parse_owner(self.path.read_bytes()), mark)
        except FileNotFoundError:
            if not self.path.parent.is_dir():
                raise  # the storage is away, which says nothing of the lock
            return None

    def create(self, owner: Owner) -> bool:
        # Written aside and linked, because a half-written lock would look like nobody's.
        temporary = self.path.with_name(f".lock.{owner['token']}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(owner), encoding="utf-8")
            os.link(temporary, self.path)
            return True
        except FileExistsError:
            if not self.path.parent.is_dir():
                raise LockRefused(f"{self.path.parent} is a file; expected a folder, or nothing") from None
            return False
        except OSError as error:
            why = ": its file system has no hard links" if error.errno in NO_HARD_LINKS else ""
            raise LockRefused(
                f"{self.path.parent} cannot be locked ({error.strerror}){why}. Make it writable, or choose another "
                "--storage-path."
            ) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def remove(self, held: Held) -> None:
        stale = self.path.with_name(f".lock.stale.{uuid.uuid4().hex}")
        try:
            self.path.rename(stale)
        except FileNotFoundError:
            return
        if parse_owner(stale.read_bytes()).get("token") != held.token:
            # Another driver replaced the dead owner between our look and our rename: give it back.
            with contextlib.suppress(FileExistsError):
                os.link(stale, self.path)
        stale.unlink(missing_ok=True)

    def beat(self, owner: Owner) -> None:  # noqa: ARG002
        # The old time plus one: a clock that was set back must not make two beats look alike.
        now = max(time.time_ns(), self.path.stat().st_mtime_ns + 1)
        os.utime(self.path, ns=(now, now))


def parse_owner(content: bytes) -> Owner:
    """What a lock says; nothing where it says nothing that can be read."""
    try:
        owner = json.loads(content)
    except (json.JSONDecodeError, UnicodeDecodeError):
        return {}
    return owner if isinstance(owner, dict) else {}


def describe(owner: Owner) -> str:
    return f"process {owner.get('pid', '?')} on {owner.get('host', '?')} since {owner.get('since', '?')}"


def _this_process(token: str) -> Owner:
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


def _process_start(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot (Linux), so that a reused pid is told apart."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
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
