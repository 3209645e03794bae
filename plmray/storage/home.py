"""Where a sweep folder lives: on a disk, or in an object store behind a local copy."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from plmray.errors import SetupError
from plmray.storage import layout
from plmray.storage.atomic import patiently
from plmray.storage.lock import DiskLock, LockPlace
from plmray.storage.object_store import WRITE_TEST, Location, ObjectStore, StoreError, child, is_store, marks_of
from plmray.storage.store_lock import StoreLock


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
        return StoreLock(self.store) if self.store else DiskLock(self.path)


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
            write(layout.trial_folder(Path(home), trial_id))

        patiently(written, home, say)
        return
    store = ObjectStore(home)
    with tempfile.TemporaryDirectory(prefix="plmray-") as folder:
        patiently(lambda: write(Path(folder)), folder, say)
        patiently(lambda: store.push_tree(Path(folder), f"{layout.TRIALS}/{trial_id}"), store.url, say)


def holds_sweep(storage: Location, name: str) -> bool:
    """Whether a sweep of that name has begun there."""
    place = child(storage, name)
    if isinstance(place, Path):
        return (place / layout.RESOLVED).exists()
    try:
        ObjectStore(place).get(layout.RESOLVED)
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
