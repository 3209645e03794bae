"""Lines of a sweep folder are what they should be, or a message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from plmray.errors import FolderError
from plmray.sweep.folder.records import read_candidates
from plmray.sweep.folder.writer import SweepFolder

CANDIDATE = {"index": 0, "number": 0, "id": "c0", "phase": "search", "origin": "blind", "parameters": {}}


@pytest.mark.parametrize(
    ("change", "place"),
    [({"number": None}, "number"), ({"phase": "other"}, "phase"), ({"parameters": 3}, "parameters")],
)
def test_damaged_candidates_are_named(tmp_path: Path, change: dict[str, Any], place: str) -> None:
    (tmp_path / "candidates.jsonl").write_text(json.dumps({**CANDIDATE, **change}) + "\n")
    with pytest.raises(FolderError, match=rf"record 1 is damaged \({place}: "):
        read_candidates(tmp_path / "candidates.jsonl")


def test_records_of_a_damaged_sweep_are_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "candidates.jsonl").write_text('{"index": 0}\n')
    with pytest.raises(FolderError, match="record 1 is damaged"):
        SweepFolder(tmp_path / "own").adopt_records(tmp_path / "other")
    assert not (tmp_path / "own").exists()
