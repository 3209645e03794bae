from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from plmray import files
from plmray.errors import FolderError
from plmray.files import FolderLock, append_json_line, read_json_lines, write_atomic


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


def test_an_owner_elsewhere_is_replaced_after_a_minute_of_silence(tmp_path: Path) -> None:
    owner = {"host": "elsewhere", "pid": 1, "process_start": "1", "since": "then", "token": "theirs"}
    (tmp_path / "lock.json").write_text(json.dumps(owner))
    with pytest.raises(FolderError, match="on elsewhere"), FolderLock(tmp_path):
        pass
    silent = time.time() - files.STALE_AFTER_S - 1
    os.utime(tmp_path / "lock.json", (silent, silent))
    with FolderLock(tmp_path) as lock:
        assert lock.is_mine()
    assert not (tmp_path / "lock.json").exists()


def test_who_lost_the_folder_stops_writing(tmp_path: Path) -> None:
    with FolderLock(tmp_path) as lock:
        owner = {"host": files._host(), "pid": 1, "process_start": "1", "since": "now", "token": "theirs"}
        (tmp_path / "lock.json").write_text(json.dumps(owner))
        with pytest.raises(FolderError, match="lost the folder"):
            lock.check()
    assert (tmp_path / "lock.json").exists()  # theirs stays


def test_a_line_cut_short_spoils_no_other(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    append_json_line(file, {"n": 1})
    with file.open("a") as stream:
        stream.write('{"n": 2')
    append_json_line(file, {"n": 3})
    assert [record["n"] for record in read_json_lines(file)] == [1, 3]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "result.json"
    write_atomic(file, "old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomic(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
