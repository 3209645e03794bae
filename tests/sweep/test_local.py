"""Whole sweeps in one process, with a real MLflow store: results, tree, report, resume after kill -9."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pyarrow import parquet

from plmray.config.load import LoadedSweep
from plmray.data.datasets import load_data
from plmray.errors import FolderError
from plmray.sweep.driver import Outcome, run_sweep
from plmray.sweep.folder.reader import read_results, write_result
from plmray.sweep.options import RunOptions
from plmray.sweep.tracking.sync import sync_folder
from plmray.sweep.workers.single_trial import run_trial
from plmray.trials.result import TrialResult
from tests.examples import sweep_tree, tiny_sweep, write_sweep, write_toy
from tests.model.families import write_checkpoint


def run(folder: Path, storage: str = "runs", **changes: Any) -> Outcome:
    options = RunOptions(storage_path=folder / storage, local=True)
    return run_sweep(tiny_sweep(folder, **changes), options, lambda text: None)


def scores(folder: Path) -> dict[str, tuple[str, float | None, float | None]]:
    return {r.trial_id: (r.state, r.score, r.test_score) for r in read_results(folder)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    folder = tmp_path_factory.mktemp("finished")
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    try:
        return folder, run(folder)
    finally:
        del os.environ["MLFLOW_TRACKING_URI"]


def mlflow_runs(uri: str) -> dict[str, Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    return {r.data.tags["plmray.key"]: r for r in client.search_runs(experiments, max_results=1000)}


def test_outcome_and_folder(finished: tuple[Path, Outcome]) -> None:
    folder, outcome = finished
    assert outcome.exit_code == 0
    assert outcome.folder == folder / "runs" / "tiny"
    names = {path.name for path in outcome.folder.iterdir()}
    assert {"resolved.yaml", "candidates.jsonl", "results.parquet", "report.md", "report.json", "trials"} <= names
    assert "lock.json" not in names
    assert {"driver_s_per_trial", "worker_start_s_mean", "training_share_of_wall"} <= outcome.costs.keys()


def test_results_table_is_as_promised(finished: tuple[Path, Outcome]) -> None:
    table = parquet.read_table(finished[1].folder / "results.parquet")
    promised = [
        "trial_id",
        "candidate_id",
        "origin",
        "phase",
        "seed",
        "state",
        "score",
        "test_score",
        "selected_epoch",
        "epochs_run",
        "seconds",
        "tokens",
        "engine",
        "error",
    ]
    assert table.column_names[: len(promised)] == promised
    rows = table.to_pylist()
    assert len(rows) == 3 * 2 + 3 * 2
    assert all(row["param.optimizer.lr"] > 0 and row["provenance.torch"] for row in rows)
    for row in rows:
        assert (row["test_score"] is not None) == (row["phase"] == "replicate")
        assert row["tokens"] == 2 * 48 * 14
    assert {row["origin"] for row in rows if row["phase"] == "replicate"} == {"searched", "random"}


def test_curves_and_adapters_lie_where_promised(finished: tuple[Path, Outcome]) -> None:
    for result in read_results(finished[1].folder):
        own = finished[1].folder / "trials" / result.trial_id
        curve = parquet.read_table(own / "curve.parquet").to_pylist()
        assert [point["step"] for point in curve] == [6, 12]
        assert min(point["validation_loss"] for point in curve) == result.validation_loss
        assert (own / "adapter" / "head.safetensors").exists() == (result.phase == "replicate")


def test_mlflow_shows_sweep_candidates_trials(finished: tuple[Path, Outcome]) -> None:
    outcome = finished[1]
    runs = mlflow_runs(outcome.tracking_uri)
    sweep = runs["sweep"]
    results = read_results(outcome.folder)
    assert len(runs) == 1 + len({r.candidate_id for r in results}) + len(results)
    for result in results:
        trial, candidate = runs[f"trial:{result.trial_id}"], runs[f"candidate:{result.candidate_id}"]
        assert trial.data.tags["mlflow.parentRunId"] == candidate.info.run_id
        assert candidate.data.tags["mlflow.parentRunId"] == sweep.info.run_id
        assert trial.data.metrics["score"] == result.score
        assert trial.data.metrics.get("test_score") == result.test_score
        assert trial.data.params["seed"] == str(result.seed)
        assert trial.info.status == "FINISHED"
        replicates = [r.score for r in results if r.candidate_id == result.candidate_id and r.phase == "replicate"]
        own = replicates or [r.score for r in results if r.candidate_id == result.candidate_id]
        assert candidate.data.metrics["score.mean"] == pytest.approx(np.mean(own))
        assert candidate.data.metrics["n_seeds"] == len(own)
    assert sweep.data.metrics["share.seed"] + sweep.data.metrics["share.hyperparameters"] == pytest.approx(1)
    assert sweep.inputs.dataset_inputs[0].dataset.name == "landscape"


def test_sync_adds_nothing_to_a_complete_store_and_fills_an_empty_one(finished: tuple[Path, Outcome]) -> None:
    from mlflow import MlflowClient

    folder, outcome = finished
    before = mlflow_runs(outcome.tracking_uri)
    sync_folder(outcome.folder, None)
    after = mlflow_runs(outcome.tracking_uri)
    assert before.keys() == after.keys()
    other = f"sqlite:///{folder}/other.db"
    sync_folder(outcome.folder, other)
    filled = mlflow_runs(other)
    assert filled.keys() == before.keys()
    for key, run_before in before.items():
        if key.startswith("trial:"):
            assert filled[key].data.metrics == run_before.data.metrics
            for uri, found in ((outcome.tracking_uri, after[key]), (other, filled[key])):
                history = MlflowClient(tracking_uri=uri).get_metric_history(found.info.run_id, "validation/loss")
                assert [point.step for point in history] == [6, 12]


def test_a_trial_whose_driver_died_before_ending_its_run_is_ended_by_sync(finished: tuple[Path, Outcome]) -> None:
    from mlflow import MlflowClient

    outcome = finished[1]
    left = next(run for key, run in mlflow_runs(outcome.tracking_uri).items() if key.startswith("trial:"))
    MlflowClient(tracking_uri=outcome.tracking_uri).update_run(left.info.run_id, status="RUNNING")
    sync_folder(outcome.folder, None)
    assert {run.info.status for run in mlflow_runs(outcome.tracking_uri).values()} == {"FINISHED"}


def test_report_says_the_verdict(finished: tuple[Path, Outcome]) -> None:
    text = (finished[1].folder / "report.md").read_text()
    assert finished[1].headline in text
    assert "the seed explains" in text
    tree = json.loads((finished[1].folder / "report.json").read_text())
    assert tree["candidates"][0]["num_seeds"] == 2


def test_one_trial_alone_equals_the_same_trial_of_the_sweep(finished: tuple[Path, Outcome], tmp_path: Path) -> None:
    result = next(r for r in read_results(finished[1].folder) if r.phase == "replicate")
    alone = run_trial(
        tiny_sweep(tmp_path), result.parameters, result.seed, None, take_test=True, echo=lambda text: None
    )
    assert (alone.trial_id, alone.score, alone.test_score) == (result.trial_id, result.score, result.test_score)


def test_a_second_run_needs_resume_and_resume_needs_the_same_sweep(tmp_path: Path) -> None:
    from plmray.errors import FolderError

    first = run(tmp_path, replicate=None)
    with pytest.raises(FolderError, match="Add --resume"):
        run(tmp_path, replicate=None)
    before = {path: path.stat().st_mtime_ns for path in first.folder.glob("trials/*/result.json")}
    resume = RunOptions(storage_path=tmp_path / "runs", local=True, resume=True)
    run_sweep(tiny_sweep(tmp_path, replicate=None), resume, lambda text: None)
    assert before == {path: path.stat().st_mtime_ns for path in first.folder.glob("trials/*/result.json")}
    changed = tiny_sweep(tmp_path, replicate=None, search={"candidates": 9, "sampler": "random"})
    with pytest.raises(FolderError, match=r"changed since this sweep began \(search\)"):
        run_sweep(changed, resume, lambda text: None)


@pytest.mark.slow  # tests/sweep/test_ray.py does the same on Ray
def test_kill_nine_and_resume_equals_an_uninterrupted_run(tmp_path: Path) -> None:
    search = {"candidates": 6, "seeds": [0, 1], "sampler": "tpe", "scheduler": "none"}
    file = write_sweep(tmp_path, search=search)
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}

    def command(storage: str, *more: str) -> list[str]:
        return [sys.executable, "-m", "plmray", "run", str(file), "--local", "-y", "--storage-path", storage, *more]

    subprocess.run(command("whole"), check=True, env=environment, capture_output=True)
    victim = subprocess.Popen(command("killed"), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(read_results(tmp_path / "killed" / "tiny")) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    finished = {p: p.stat().st_mtime_ns for p in (tmp_path / "killed" / "tiny").glob("trials/*/result.json")}
    assert 5 <= len(finished) < 18
    done = subprocess.run(command("killed", "--resume"), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert scores(tmp_path / "killed" / "tiny") == scores(tmp_path / "whole" / "tiny")
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in finished.items()), "a finished trial ran again"


def test_replay_from_another_folder_repeats_it(tmp_path: Path) -> None:
    search = {"candidates": 5, "seeds": [0], "sampler": "tpe", "scheduler": "asha", "min_epochs": 1}
    first = run(tmp_path, "first", search=search)
    assert any(result.state == "PRUNED" for result in read_results(first.folder))
    options = RunOptions(storage_path=tmp_path / "again", local=True, replay_from=first.folder)
    again = run_sweep(tiny_sweep(tmp_path, search=search), options, lambda text: None)
    assert scores(again.folder) == scores(first.folder)


def test_a_diverging_candidate_is_pruned_and_the_sweep_completes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One learning rate turns the loss into NaN under seed 1: the candidate is out, with both its seeds."""
    from plmray.train.engines import TorchEngine

    inner = TorchEngine.train_step

    def explosive(self: TorchEngine, step: Any) -> float:
        loss = inner(self, step)
        lost = self.settings.optimizer.lr == 0.9 and self.model.dropout_source.streams.seed == 1
        return float("nan") if lost and step.index > 7 else loss

    monkeypatch.setattr(TorchEngine, "train_step", explosive)
    space = {"optimizer.lr": {"kind": "choice", "values": [0.003, 0.9]}}
    search = {"sampler": "grid", "seeds": [0, 1]}
    outcome = run(tmp_path, space=space, search=search, replicate=None, resources={"engine": "torch"})
    results = read_results(outcome.folder)
    lost = [r for r in results if r.parameters["optimizer.lr"] == 0.9]
    assert outcome.exit_code == 0
    assert [r.state for r in lost] == ["PRUNED", "PRUNED"]
    assert [r.score for r in lost] == [None, None]
    assert "its candidate diverged under seed 1" in (lost[0].error or "")
    assert "diverged: the loss was nan" in (lost[1].error or "")
    assert {r.state for r in results if r not in lost} == {"COMPLETE"}


def test_a_time_limit_fails_trials_once_and_a_promotion_waits_for_them(tmp_path: Path) -> None:
    """Everything fails for want of time; resumed with time, the search completes and its best are replicated."""
    limit = {"max_hours_per_trial": 1e-9}
    first = run(tmp_path, resources=limit)
    assert first.exit_code == 1
    assert all("max_hours_per_trial" in (r.error or "") for r in read_results(first.folder) if r.state == "FAILED")
    resume = RunOptions(storage_path=tmp_path / "runs", local=True, resume=True)
    outcome = run_sweep(tiny_sweep(tmp_path), resume, lambda text: None)
    results = read_results(outcome.folder)
    assert outcome.exit_code == 0
    assert "searched" in {r.origin for r in results if r.phase == "replicate"}
    runs = mlflow_runs(outcome.tracking_uri)
    assert {runs[f"trial:{r.trial_id}"].info.status for r in results} == {"FINISHED"}
    assert all(runs[f"trial:{r.trial_id}"].data.metrics["score"] == r.score for r in results)


def test_a_tracking_server_that_is_down_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from plmray.sweep.tracking import tracker

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(tracker, "FLUSH_AT_END_S", 1.0)
    monkeypatch.setattr(tracker, "RETRY_S", 0.2)
    outcome = run(tmp_path)
    assert outcome.exit_code == 0
    assert not outcome.tracking_complete
    store = f"sqlite:///{tmp_path}/later.db"
    sync_folder(outcome.folder, store)
    assert len([key for key in mlflow_runs(store) if key.startswith("trial:")]) == 12


@pytest.mark.slow
def test_a_tracking_server_gets_the_whole_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real MLflow server on loopback, by its URI."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store = [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/server.db",
        "--artifacts-destination",
        str(tmp_path / "files"),
    ]
    command = [sys.executable, "-m", "mlflow", "server", *store, "--host", "127.0.0.1", "--port", str(port)]
    quiet = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(command, env=quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until_healthy(address)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        outcome = run(tmp_path)
        assert outcome.tracking_complete
        runs = mlflow_runs(address)
        assert len([key for key in runs if key.startswith("trial:")]) == 12
        assert runs["sweep"].data.tags["plmray.status"] == "complete"
    finally:
        server.terminate()
        server.wait()


def wait_until_healthy(address: str, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"{address} did not answer within {timeout_s} s")


def test_stats_read_a_sweep_folder(finished: tuple[Path, Outcome]) -> None:
    """The same answers as the report, from the same functions."""
    from click.testing import CliRunner

    from plmray.cli import cli

    folder = str(finished[1].folder)
    report = json.loads((finished[1].folder / "report.json").read_text())
    shares, ranks = (
        json.loads(CliRunner().invoke(cli, ["stats", name, folder, "-f", "json"], catch_exceptions=False).stdout)
        for name in ("shares", "rank")
    )
    assert shares[0]["shares"]["seed"] == pytest.approx(report["shares"]["seed_share"]["value"])
    told = {row["candidate_id"]: (row["mean"]["value"], row["p_best"]) for row in report["candidates"]}
    assert {row["candidate_id"]: (row["mean"], row["p_best"]) for row in ranks} == {
        name: pytest.approx(both) for name, both in told.items()
    }
    assert (finished[1].folder / "report.html").read_text().count("<figure>") >= 3


def test_a_sweep_of_an_earlier_version_can_be_resumed(tmp_path: Path) -> None:
    """Fields that it did not know count as their defaults; a change is still a change."""
    import yaml

    from plmray.errors import FolderError
    from plmray.sweep.folder.writer import SweepFolder

    spec, path = tiny_sweep(tmp_path).spec, tmp_path / "sweep"
    SweepFolder(path).start(spec, resume=False, base=tmp_path)
    tree = yaml.safe_load((path / "resolved.yaml").read_text())
    for section, name in (("task", "train_fraction"), ("task", "positive"), ("train", "class_weights")):
        del tree["sweep"][section][name]
    (path / "resolved.yaml").write_text(yaml.safe_dump(tree))
    SweepFolder(path).start(spec, resume=True, base=tmp_path)
    tree["sweep"]["train"]["epochs"] += 1
    (path / "resolved.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(FolderError, match=r"changed since this sweep began \(train\)"):
        SweepFolder(path).start(spec, resume=True, base=tmp_path)


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file() and f.name != "sweep.log"
    }


@pytest.mark.parametrize("change", ["data", "weights", "schema"])
def test_a_refused_resume_changes_nothing(change: str, tmp_path: Path) -> None:
    """Facts were written before the check: a later export of the finished sweep failed falsely."""
    train = {**sweep_tree()["train"], "backbone": "own", "adapter": {"kind": "none"}}
    write_checkpoint("esm2", tmp_path / "own")
    write_toy(tmp_path / "toy.csv", "protein", "regression")
    task = {"files": "toy.csv", "shared_sequences": "allow"}
    options = RunOptions(storage_path=tmp_path / "runs", local=True)

    def load() -> LoadedSweep:
        return tiny_sweep(tmp_path, task=task, train=train)

    folder = run_sweep(load(), options, lambda text: None).folder
    lost = {"state": "FAILED", "score": None, "test_score": None}
    failed = TrialResult.from_dict({**read_results(folder)[0].to_dict(), **lost})
    write_result(folder, failed)  # a resume would forget it and run it again
    if change == "data":
        text = (tmp_path / "toy.csv").read_text().splitlines()
        (tmp_path / "toy.csv").write_text("\n".join([text[0], *text[2:]]) + "\n")
    elif change == "weights":
        write_checkpoint("esm2", tmp_path / "own", layers=2)
    else:
        tree = yaml.safe_load((folder / "resolved.yaml").read_text())
        (folder / "resolved.yaml").write_text(yaml.safe_dump({k: v for k, v in tree.items() if k != "schema"}))
    before = files_of(folder)
    words = {"data": "are not those it began with", "weights": "weights", "schema": "under schema 1"}[change]
    with pytest.raises(FolderError, match=words):
        run_sweep(load(), replace(options, resume=True), lambda text: None)
    assert files_of(folder) == before


def test_kept_predictions_name_their_proteins(finished: tuple[Path, Outcome], tmp_path: Path) -> None:
    _, outcome = finished
    file = next((outcome.folder / "trials").glob("*/test_outputs.parquet"))
    table = parquet.read_table(file)
    data = load_data(tiny_sweep(tmp_path).spec.task, tmp_path)
    assert table["id"].to_pylist() == list(data.splits["test"].ids)
    assert table["target"].to_pylist() == pytest.approx(data.splits["test"].targets.tolist())
