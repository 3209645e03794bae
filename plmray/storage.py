"""Where sweep folders last: a folder, or an object store that a local copy is written through to.

In a store a sweep has the same files under the same names. The driver works on a local copy and uploads each file
before it goes on, so that the store is never behind what was decided. Credentials come from the environment.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from plmray.errors import PlmrayError, SetupError
from plmray.files import patiently, write_atomic
from plmray.lock import LOCK_FILE, DiskLock, Held, LockPlace, Owner, parse_owner

SCHEMES = ("s3://", "gs://", "az://")
DOWNLOADS_AT_ONCE = 32
WRITE_TEST = ".plmray-write-test"
WEIGHTS = ("adapter", "test_outputs.parquet")  # parts of a trial that only export reads
RETRIES: dict[str, Any] = {"max_retries": 4, "retry_timeout": timedelta(seconds=20)}
TIMEOUT_S = 60

Location = str | Path
T = TypeVar("T")


def is_store(location: Location) -> bool:
    return "://" in str(location)


def child(location: Location, name: str) -> Location:
    return (
        f"{location.rstrip('/')}/{name}" if isinstance(location, str) and is_store(location) else Path(location) / name
    )


class StoreError(PlmrayError, OSError):
    """An object store that did not answer, or said no; its first line is the message."""


class ObjectStore:
    """One prefix of a bucket, ``s3://bucket/prefix``. Every method raises StoreError where the store fails."""

    def __init__(self, url: str) -> None:
        if not url.startswith(SCHEMES):
            raise SetupError(
                f"{url}: expected a folder, or an address such as s3://bucket/prefix ({', '.join(SCHEMES)})"
            )
        from obstore.exceptions import BaseError
        from obstore.store import from_url

        self.url = url.rstrip("/")
        try:
            options: Any = {"retry_config": RETRIES, "client_options": _client_options()}
            self._store: Any = from_url(self.url, **options)
        except (BaseError, ValueError) as error:
            raise SetupError(f"{url} cannot be used: {_first_line(error)}") from error

    def put(self, name: str, content: bytes | Path) -> None:
        import obstore

        try:
            self._asked(lambda: obstore.put(self._store, name, content))
        except FileNotFoundError as error:
            raise StoreError(f"{self.url}: there is no such bucket") from error

    def get(self, name: str) -> bytes:
        """Raises FileNotFoundError where there is none."""
        import obstore

        return self._asked(lambda: bytes(obstore.get(self._store, name).bytes()))

    def names(self) -> list[str]:
        """Everything under the prefix, relative to it."""
        import obstore

        return self._asked(lambda: [entry["path"] for page in obstore.list(self._store) for entry in page])

    def delete(self, names: Collection[str]) -> None:
        import obstore

        if names:
            self._asked(lambda: obstore.delete(self._store, list(names)))

    def pull(self, folder: Path, *, weights: bool = False) -> None:
        """Bring everything here but the lock; a trial's weights only if asked. obstore refuses names with '..'."""
        passing = (LOCK_FILE, WRITE_TEST)
        wanted = [name for name in self.names() if name not in passing and (weights or not _is_weight(name))]

        def fetch(name: str) -> None:
            with contextlib.suppress(FileNotFoundError):  # a driver removed it since
                write_atomic(folder / name, self.get(name), durable=False)

        with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
            list(pool.map(fetch, wanted))

    def push(self, folder: Path, name: str) -> None:
        self.put(name, folder / name)

    def push_tree(self, folder: Path, prefix: str) -> None:
        """All files under a folder, with ``prefix`` before their names."""
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                self.put(f"{prefix}/{file.relative_to(folder)}", file)

    def lock(self) -> StoreLock:
        return StoreLock(self)

    def _asked(self, question: Callable[[], T]) -> T:
        from obstore.exceptions import BaseError

        try:
            return question()
        except BaseError as error:
            raise StoreError(f"{self.url}: {_first_line(error)}") from error


class StoreLock:
    """A lock object, made and replaced only if nobody else did: the store decides who was first."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self._beats = 0

    @property
    def home(self) -> str:
        return self.store.url

    def read(self) -> Held | None:
        import obstore

        try:
            found, content = self.store._asked(lambda: _with_content(obstore.get(self.store._store, LOCK_FILE)))
        except FileNotFoundError:
            return None
        return Held(parse_owner(content), json.dumps([found.meta["e_tag"], found.meta["version"]]))

    def create(self, owner: Owner) -> bool:
        return self._put(owner, "create")

    def remove(self, held: Held) -> None:
        """Conditional deletes are not for every store: what was seen is first replaced by nobody's lock."""
        if self._put({"token": "ended"}, _version(held)):
            self.store.delete([LOCK_FILE])

    def beat(self, owner: Owner) -> None:
        self._beats += 1
        held = self.read()
        if held is not None and held.token == owner["token"]:
            self._put({**owner, "beats": self._beats}, _version(held))

    def _put(self, owner: Owner, mode: Any) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        content = json.dumps(dict(owner)).encode()
        try:
            self.store._asked(lambda: obstore.put(self.store._store, LOCK_FILE, content, mode=mode))
        except StoreError as error:
            if isinstance(error.__cause__, AlreadyExistsError | PreconditionError):
                return False
            raise
        return True


def _with_content(found: Any) -> tuple[Any, bytes]:
    return found, bytes(found.bytes())


def _version(held: Held) -> dict[str, str]:
    e_tag, version = json.loads(held.mark)
    return {name: value for name, value in (("e_tag", e_tag), ("version", version)) if value is not None}


@dataclass(frozen=True)
class Home:
    """A sweep's folder: worked on at ``path``, and lasting in ``store`` where there is one."""

    path: Path
    store: ObjectStore | None = None

    @property
    def address(self) -> str:
        return self.store.url if self.store else str(self.path)

    @property
    def lock_place(self) -> LockPlace:
        return self.store.lock() if self.store else DiskLock(self.path)


@contextlib.contextmanager
def home_of(storage: Location, name: str) -> Iterator[Home]:
    """The home of a sweep. Raises SetupError where nothing can be written there."""
    if is_store(storage):
        store = ObjectStore(str(child(str(storage), name)))
        _try_out(store)
        with tempfile.TemporaryDirectory(prefix="plmray-") as folder:
            yield Home(Path(folder) / name, store)
    else:
        yield Home(_writable(Path(storage)) / name)


@contextlib.contextmanager
def local_copy(place: Location, *, weights: bool = False) -> Iterator[Path]:
    """A sweep folder: itself, or a copy of what the store holds, for as long as the context lasts.

    Files beside the trials that changed meanwhile (a report written again) go back to the store.
    """
    if not is_store(place):
        yield Path(place)
        return
    with tempfile.TemporaryDirectory(prefix="plmray-") as folder:
        path = Path(folder) / str(place).rstrip("/").rpartition("/")[2]
        store = ObjectStore(str(place))
        store.pull(path, weights=weights)
        before = marks_of(path)
        yield path
        for name, mark in marks_of(path).items():
            if before.get(name) != mark:
                store.push(path, name)


def keep_trial_files(home: str, trial_id: str, write: Callable[[Path], None], say: Callable[[str], None]) -> None:
    """Let ``write`` put a trial's files where its sweep lasts, on any node, again until they are there.

    Where the sweep folder is not there now nothing is made in its place: its storage is away.
    """
    if not is_store(home):

        def written() -> None:
            if not Path(home).is_dir():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), home)
            write(Path(home) / "trials" / trial_id)

        patiently(written, home, say)
        return
    store = ObjectStore(home)
    with tempfile.TemporaryDirectory(prefix="plmray-") as folder:
        patiently(lambda: write(Path(folder)), folder, say)
        patiently(lambda: store.push_tree(Path(folder), f"trials/{trial_id}"), store.url, say)


def holds_sweep(storage: Location, name: str) -> bool:
    """Whether a sweep of that name has begun there."""
    place = child(storage, name)
    if isinstance(place, Path):
        return (place / "resolved.yaml").exists()
    try:
        ObjectStore(place).get("resolved.yaml")
    except FileNotFoundError:
        return False
    except StoreError as error:
        raise _unusable(error) from error
    return True


def _writable(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / WRITE_TEST
        probe.write_text("", encoding="utf-8")
        probe.unlink()
    except OSError as error:
        raise SetupError(
            f"--storage-path {path} cannot be written ({error.strerror}); choose another folder"
        ) from error
    return path.resolve()


def _try_out(store: ObjectStore) -> None:
    try:
        store.put(WRITE_TEST, b"")
        store.delete([WRITE_TEST])
    except OSError as error:
        raise _unusable(error) from error


def _unusable(error: OSError) -> SetupError:
    return SetupError(
        f"--storage-path {error}. Check the bucket's name, the region, and that credentials are in the environment "
        "(AWS_ACCESS_KEY_ID …, or the machine's role; AWS_ENDPOINT_URL for a store of your own)"
    )


def _client_options() -> dict[str, Any]:
    """A store of one's own may be spoken to without TLS; the environment says so by its address."""
    plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
    return {"timeout": f"{TIMEOUT_S}s", "allow_http": plain}


def marks_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Name, time and size of the files beside the trials."""
    states = {file.name: file.stat() for file in folder.glob("*") if file.is_file()}
    return {name: (state.st_mtime_ns, state.st_size) for name, state in states.items()}


def _is_weight(name: str) -> bool:
    parts = name.split("/")
    return parts[0] == "trials" and len(parts) > 2 and parts[2] in WEIGHTS


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
