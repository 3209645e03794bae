"""Drivers to break: the sweep that fault tests run, as a process that can be killed, and what must hold afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyarrow import parquet

from plmray.config.load import load_sweep
from plmray.storage.atomic import read_json_lines
from plmray.sweep.driver import run_sweep
from plmray.sweep.folder.reader import read_results
from plmray.sweep.folder.writer import SweepFolder
from plmray.sweep.options import RunOptions
from plmray.sweep.tracking.sync import sync_folder
from plmray.trials.result import TrialResult
from tests.examples import sweep_tree

Scores = dict[str, tuple[str, float | None, float | None]]


def fault_sweep(folder: Path, **changes: Any) -> Path:
    """18 trials of a fraction of a second: 12 candidates (TPE learns from the eleventh on), then 3 × 2 fresh seeds."""
    tree = sweep_tree(name="faulty", search={"candidates": 12, "seeds": [0], "sampler": "tpe"})
    tree["train"]["epochs"] = 8
    tree["resources"] = {"engine": "torch", "max_concurrent": 1}  # proposals as in one process
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump({**tree, **changes}))
    return file


TRIALS = 12 + 3 * 2


def scores(folder: Path) -> Scores:
    return {r.trial_id: (r.state, r.score, r.test_score) for r in read_results(folder)}


class DriverProcess:
    """``plmray run`` as a process of its own; ``lines`` grows with its output."""

    def __init__(
        self,
        file: Path,
        storage: object,
        *more: str,
        environment: Mapping[str, str] | None = None,
        python: Sequence[str] = (sys.executable, "-u", "-m", "plmray"),
    ) -> None:
        command = [*python, "run", str(file), "-y", "--storage-path", str(storage)]
        self.process = subprocess.Popen(
            [*command, *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def wait_for(self, text: str, timeout_s: float = 120) -> None:
        """Until a line holds ``text``. Raises AssertionError with the output where none does."""
        deadline = time.monotonic() + timeout_s
        while not any(text in line for line in self.lines):
            if time.monotonic() > deadline or (self.process.poll() is not None and not self._reader.is_alive()):
                raise AssertionError(f"no line with {text!r}:\n{self.output}")
            time.sleep(0.02)

    def wait_for_results(self, count: int) -> None:
        self.wait_for(f"[{count}/")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9, of the driver alone."""
        self.process.kill()
        self.process.wait()

    def end(self, timeout_s: float = 240) -> int:
        """Its exit code."""
        code = self.process.wait(timeout_s)
        self._reader.join(10)
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))


def until(ready: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def complete(file: Path, storage: Path) -> str:
    """The sweep to its good end, here, without Ray: begun, or gone on with. What it said."""
    said: list[str] = []
    outcome = run_sweep(load_sweep(file), RunOptions(storage_path=storage, local=True, resume=True), said.append)
    assert outcome.exit_code == 0, said
    return "\n".join(said)


def assert_scores(found: Scores, expected: Scores, tolerance: float = 0.0) -> None:
    assert {trial: state for trial, (state, *_) in found.items()} == {t: state for t, (state, *_) in expected.items()}
    for trial, (_, *numbers) in expected.items():
        for now, then in zip(found[trial][1:], numbers, strict=True):
            assert now == then or (tolerance and now == pytest.approx(then, abs=tolerance, rel=0)), trial


def assert_whole(folder: Path, expected: Scores, uri: str, *, tolerance: float = 0.0, sync: bool = True) -> None:
    """The folder is consistent, has the expected trials and no others, and MLflow equals it after a sync."""
    assert_scores(scores(folder), expected, tolerance)
    results = {r.trial_id: r for r in read_results(folder)}
    assert_consistent(folder, results)
    if sync:
        sync_folder(folder, uri)
    assert_mirrored(results, folder, uri)


def assert_consistent(folder: Path, results: Mapping[str, TrialResult]) -> None:
    assert not list(folder.rglob("*.tmp")), "half-written files are left"
    assert not (folder / "lock.json").exists()
    assert {path.name for path in (folder / "trials").iterdir()} == set(results)
    records = list(read_json_lines(folder / "candidates.jsonl"))
    places = [(record["phase"], record["index"]) for record in records]
    assert len(set(places)) == len(places), "a candidate is recorded twice"
    assert {record["id"] for record in records} >= {r.candidate_id for r in results.values()}
    rows = parquet.read_table(folder / "results.parquet").to_pylist()
    assert sorted(row["trial_id"] for row in rows) == sorted(results)
    assert (folder / "report.md").stat().st_size > 0
    for trial_id, result in results.items():
        curve = parquet.read_table(folder / "trials" / trial_id / "curve.parquet").to_pylist()
        steps = [point["step"] for point in curve]
        assert steps == sorted(set(steps)), "a curve has a step twice"
        assert result.state != "COMPLETE" or min(p["validation_loss"] for p in curve) == result.validation_loss


def assert_mirrored(results: Mapping[str, TrialResult], folder: Path, uri: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    own = f"tags.`plmray.sweep_id` = '{SweepFolder(folder).sweep_id}'"
    runs = client.search_runs(experiments, own, max_results=5000)
    keys = [run.data.tags["plmray.key"] for run in runs]
    assert len(keys) == len(set(keys)), "a run is there twice"
    trials = {r.data.tags["plmray.trial_id"]: r for r in runs if r.data.tags["plmray.key"].startswith("trial:")}
    assert set(trials) == set(results)
    status = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAILED": "FAILED"}
    for trial_id, result in results.items():
        run = trials[trial_id]
        assert run.info.status == status[result.state]
        assert run.data.metrics.get("score") == result.score
        logged = [point.step for point in client.get_metric_history(run.info.run_id, "validation/loss")]
        curve = parquet.read_table(folder / "trials" / trial_id / "curve.parquet").to_pylist()
        assert sorted(logged) == [point["step"] for point in curve]


def finished_files(folder: Path) -> dict[Path, int]:
    """Results that are there, with their times: those must never be written again."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/result.json")}


def assert_untouched(files: Mapping[Path, int]) -> None:
    assert all(path.stat().st_mtime_ns == when for path, when in files.items()), "a finished trial ran again"
