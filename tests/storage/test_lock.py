from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from plmray.errors import FolderError
from plmray.storage import lock as lock_module
from plmray.storage.lock import FolderLock

ELSEWHERE = {"host": "elsewhere", "pid": 1, "process_start": "1", "since": "then", "token": "theirs"}


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute of silence is half a second here."""
    monkeypatch.setattr(lock_module, "STALE_AFTER_S", 0.5)
    monkeypatch.setattr(lock_module, "WATCH_S", 0.02)
    monkeypatch.setattr(lock_module, "HEARTBEAT_S", 0.1)


def hold(folder: str, ready: object) -> None:
    with FolderLock(Path(folder)):
        ready.set()  # type: ignore[attr-defined]
        time.sleep(60)


def holder(folder: Path) -> multiprocessing.Process:
    ready = multiprocessing.Event()
    process = multiprocessing.Process(target=hold, args=(str(folder), ready))
    process.start()
    assert ready.wait(10)
    return process


def test_a_living_owner_is_named_and_a_dead_one_replaced(tmp_path: Path) -> None:
    process = holder(tmp_path)
    with pytest.raises(FolderError, match=f"in use by process {process.pid}"), FolderLock(tmp_path):
        pass
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with FolderLock(tmp_path) as lock:
        assert lock.is_mine()


@pytest.mark.parametrize("clock_s", [0, -86400 * 365, 86400 * 365], ids=["now", "set back", "set forward"])
def test_an_owner_elsewhere_is_replaced_after_a_minute_of_silence(tmp_path: Path, soon: None, clock_s: float) -> None:
    """Whatever the clocks of the two hosts say: the lock is watched, not dated."""
    file = tmp_path / "lock.json"
    file.write_text(json.dumps(ELSEWHERE))
    os.utime(file, (time.time() + clock_s,) * 2)
    said: list[str] = []
    with FolderLock(tmp_path, said.append) as lock:
        assert lock.is_mine()
    assert "on elsewhere since then; waiting 0.5 s for a sign of life" in said[0]
    assert not file.exists()


@contextlib.contextmanager
def beating(file: Path) -> Iterator[None]:
    """What the owner's heartbeat does to a lock, from elsewhere."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.1):
            os.utime(file)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_an_owner_elsewhere_that_shows_life_is_named(tmp_path: Path, soon: None) -> None:
    file = tmp_path / "lock.json"
    file.write_text(json.dumps(ELSEWHERE))
    with beating(file), pytest.raises(FolderError, match="in use by process 1 on elsewhere"), FolderLock(tmp_path):
        pass
    assert json.loads(file.read_text()) == ELSEWHERE


def test_a_heartbeat_is_seen_though_the_clock_was_set_back(tmp_path: Path, soon: None) -> None:
    with FolderLock(tmp_path) as lock:
        os.utime(tmp_path / "lock.json", (time.time() + 86400,) * 2)
        first = lock.place.read()
        time.sleep(0.5)
        assert lock.place.read() != first


def test_a_lock_that_says_nothing_is_replaced_after_a_while(tmp_path: Path, soon: None) -> None:
    (tmp_path / "lock.json").write_text('{"host": "els')
    with FolderLock(tmp_path) as lock:
        assert lock.is_mine()


def test_storage_that_is_away_is_no_lost_lock(tmp_path: Path) -> None:
    """A folder that is gone may come back; a lock that is gone from its folder was somebody's doing."""
    folder = tmp_path / "sweep"
    with FolderLock(folder) as lock:
        folder.rename(tmp_path / "away")
        with pytest.raises(FileNotFoundError):
            lock.check()
        (tmp_path / "away").rename(folder)
        lock.check()
        (folder / "lock.json").unlink()
        with pytest.raises(FolderError, match="a driver that has ended since"):
            lock.check()


def test_who_lost_the_folder_stops_writing(tmp_path: Path) -> None:
    with FolderLock(tmp_path) as lock:
        owner = {"host": lock_module._host(), "pid": 1, "process_start": "1", "since": "now", "token": "theirs"}
        (tmp_path / "lock.json").write_text(json.dumps(owner))
        with pytest.raises(FolderError, match="lost the folder"):
            lock.check()
    assert (tmp_path / "lock.json").exists()  # theirs stays
