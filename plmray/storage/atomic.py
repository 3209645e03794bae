"""Files that exist only when they are finished, and patience with storage that is away for a while."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from plmray.errors import FolderError, first_line

PATIENCE_S = 600.0
PATIENCE_VARIABLE = "PLMRAY_STORAGE_PATIENCE_S"
RETRY_S = 2.0

T = TypeVar("T")


def write_atomic(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """The whole of a file: see ``atomic_stream``."""
    with atomic_stream(path, durable=durable) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def atomic_stream(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Write beside the target, flush to disk, then rename: readers see the old file or the new one.

    ``durable=False`` leaves the flush out, for copies of what lasts elsewhere.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def append_json_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append one record and flush it to disk before returning.

    A line that a crash cut short is closed first, so that it spoils no later record. After an error the file is as
    it was, so that the record can be appended again.
    """
    line = (json.dumps(record, allow_nan=False) + "\n").encode()
    with path.open("ab+", buffering=0) as stream:
        before = stream.tell()
        if before > 0:
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                line = b"\n" + line
        try:
            if stream.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(stream.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                stream.truncate(before)
            raise


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Records of a JSON-lines file. A line cut short by a crash is skipped: its write never returned."""
    if not path.is_file():
        return
    for line in path.read_bytes().split(b"\n"):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            yield record


def read_json(path: Path, advice: str) -> dict[str, Any]:
    """A JSON object. Raises FolderError with ``advice`` where the file holds none."""
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError(f"it holds {type(found).__name__}, expected an object")
    except (OSError, ValueError, RecursionError) as error:
        raise FolderError(f"{path} cannot be read ({first_line(error)}); {advice}") from error
    return found


def patiently(action: Callable[[], T], where: object, say: Callable[[str], None]) -> T:
    """Do something with storage, again every 2 s while it fails: full disks are cleared and mounts come back.

    Raises FolderError after ten minutes without success (``PLMRAY_STORAGE_PATIENCE_S`` seconds).
    """
    limit_s = float(os.environ.get(PATIENCE_VARIABLE, PATIENCE_S))
    deadline, told = time.monotonic() + limit_s, False
    while True:
        try:
            result = action()
        except OSError as error:
            reason = error.strerror or str(error)
            if time.monotonic() >= deadline:
                raise FolderError(
                    f"{where} could not be written for {limit_s:g} s ({reason}). What was finished before is safe; "
                    "make it writable, then go on with --resume."
                ) from error
            if not told:
                say(f"{where} cannot be written ({reason}); trying again for {limit_s:g} s")
                told = True
            time.sleep(min(RETRY_S, limit_s))
        else:
            if told:
                say(f"{where} can be written again")
            return result


def user_cache() -> Path:
    """Where this user's caches lie: XDG_CACHE_HOME, else ~/.cache, else, without a home, among temporary files."""
    given = os.environ.get("XDG_CACHE_HOME")
    if given:
        return Path(given)
    try:
        return Path.home() / ".cache"
    except RuntimeError:  # neither HOME nor an entry of this user
        return Path(tempfile.gettempdir()) / f"plmray-cache-{os.getuid()}"
