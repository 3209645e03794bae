from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from plmray.errors import FolderError
from plmray.storage import atomic
from plmray.storage.atomic import append_json_line, patiently, read_json_lines, write_atomic


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


def test_a_line_that_found_no_room_can_be_appended_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error leaves the file as it was: no half line, and no line twice."""
    file = tmp_path / "records.jsonl"
    append_json_line(file, {"n": 1})
    before, fsync = file.read_bytes(), os.fsync
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        append_json_line(file, {"n": 2})
    assert file.read_bytes() == before
    monkeypatch.setattr(os, "fsync", fsync)
    append_json_line(file, {"n": 2})
    assert [record["n"] for record in read_json_lines(file)] == [1, 2]


def test_patience_ends_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    answers = iter([OSError(errno.ESTALE, "Stale file handle"), OSError(errno.ESTALE, "Stale file handle"), None])

    def action() -> str:
        answer = next(answers)
        if answer is not None:
            raise answer
        return "done"

    monkeypatch.setattr(atomic, "RETRY_S", 0.01)
    assert patiently(action, tmp_path, said.append) == "done"
    assert said == [
        f"{tmp_path} cannot be written (Stale file handle); trying again for 600 s",
        f"{tmp_path} can be written again",
    ]
    monkeypatch.setenv(atomic.PATIENCE_VARIABLE, "0.05")
    with pytest.raises(FolderError, match=r"could not be written for 0.05 s \(gone\).*go on with --resume"):
        patiently(lambda: (_ for _ in ()).throw(OSError("gone")), tmp_path, said.append)
