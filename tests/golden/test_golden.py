"""A finished sweep and a bundle of an earlier version (see VERSION) give the same numbers when judged, resumed, used.

Where a test here fails, numbers changed under an old id: raise ``SCHEMA_VERSION``, say so in the CHANGELOG, and make
the data anew.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from plmray.bundle.predict import predict_file
from plmray.config.load import load_sweep
from plmray.report.write import judge_folder, to_json
from plmray.sweep.driver import run_sweep
from plmray.sweep.folder.reader import load_resolved, read_results
from plmray.sweep.options import RunOptions
from tests.golden.make import HERE, PLACE, ids

# The same machine gives the same bits; another CPU adds in another order.
TOLERANCE = 1e-4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the golden sweep folder, as if it had been written here."""
    copy = tmp_path / "golden"
    shutil.copytree(HERE / "sweep", copy)
    for file in copy.rglob("*"):
        if file.suffix in (".json", ".yaml", ".jsonl"):
            file.write_text(file.read_text().replace(f"{PLACE}/runs", str(tmp_path)).replace(PLACE, str(HERE)))
    return copy


def test_ids_are_those_of_old() -> None:
    pinned = json.loads((HERE / "ids.json").read_text())
    assert ids() == pinned
    assert len({row["candidate"] for row in pinned.values()}) == len(pinned) == 10


def test_a_sweep_folder_of_old_gives_its_own_verdict(folder: Path) -> None:
    verdict = judge_folder(folder, load_resolved(folder), read_results(folder))
    now, old = json.loads(to_json(verdict, "golden")), json.loads((HERE / "sweep" / "report.json").read_text())
    assert_equal(now, old | {"costs": {}}, 1e-9)


def test_a_sweep_folder_of_old_is_gone_on_with(folder: Path, tmp_path: Path) -> None:
    """Two trials are taken away; they come back as they were, and no other runs again."""
    before = {result.trial_id: result for result in read_results(folder)}
    lost = [next(r.trial_id for r in before.values() if r.phase == phase) for phase in ("search", "replicate")]
    for trial_id in lost:
        shutil.rmtree(folder / "trials" / trial_id)
    untouched = {file: file.stat().st_mtime_ns for file in (folder / "trials").glob("*/result.json")}
    sweep = load_sweep(HERE / "sweep.yaml")
    outcome = run_sweep(sweep, RunOptions(storage_path=tmp_path, local=True, resume=True), lambda text: None)
    assert outcome.exit_code == 0
    assert {file: file.stat().st_mtime_ns for file in untouched} == untouched
    after = {result.trial_id: result for result in read_results(folder)}
    assert after.keys() == before.keys()
    for trial_id in lost:
        for name in ("score", "test_score", "validation_loss"):
            assert_equal(getattr(after[trial_id], name), getattr(before[trial_id], name), TOLERANCE, name)


def test_a_bundle_of_old_predicts_as_it_did(tmp_path: Path) -> None:
    predict_file(HERE / "bundle", HERE / "proteins.fasta", tmp_path / "now.csv", echo=lambda text: None)
    rows = [list(csv.DictReader(file.open())) for file in (tmp_path / "now.csv", HERE / "predictions.csv")]
    assert len(rows[0]) == len(rows[1]) == 16
    for now, old in zip(*rows, strict=True):
        assert now["id"] == old["id"]
        for column in ("prediction", "seed_sd"):
            assert float(now[column]) == pytest.approx(float(old[column]), abs=TOLERANCE)


def assert_equal(now: Any, old: Any, tolerance: float, where: str = "report") -> None:
    """Two trees of JSON, numbers to a relative tolerance."""
    assert type(now) is type(old), where
    if isinstance(old, dict):
        assert now.keys() == old.keys(), where
        for key in old:
            assert_equal(now[key], old[key], tolerance, f"{where}.{key}")
    elif isinstance(old, list):
        assert len(now) == len(old), where
        for number, pair in enumerate(zip(now, old, strict=True)):
            assert_equal(*pair, tolerance, f"{where}[{number}]")
    else:
        assert now == (pytest.approx(old, rel=tolerance) if isinstance(old, float) else old), where
