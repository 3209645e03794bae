"""Real local Ray clusters, one test at a time. Two tests here start a nested trainer, no more."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from plmray.sweep.driver import Outcome, run_sweep
from plmray.sweep.folder.reader import read_results
from plmray.sweep.options import RunOptions
from plmray.trials.result import TrialResult
from tests.clusters import ray_cluster
from tests.examples import ROOT, tiny_sweep, write_sweep

pytestmark = pytest.mark.ray


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver sets environment variables for Ray: they end with the test."""
    for name in list(os.environ):
        monkeypatch.setenv(name, os.environ[name])
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def on_ray(folder: Path, storage: str = "ray", **changes: Any) -> Outcome:
    options = RunOptions(storage_path=folder / storage)
    return run_sweep(tiny_sweep(folder, **changes), options, lambda text: None)


def scores(folder: Path) -> dict[str, tuple[str, float | None, float | None]]:
    return {r.trial_id: (r.state, r.score, r.test_score) for r in read_results(folder)}


def command(file: Path, storage: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "plmray", "run", str(file), "-y", "--storage-path", str(storage), *more]


def wait_for_results(folder: Path, count: int, timeout_s: float = 180) -> list[TrialResult]:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if len(found := read_results(folder)) >= count:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{folder} has {len(read_results(folder))} results after {timeout_s} s, expected {count}")


def test_a_sweep_on_ray_equals_the_sweep_in_one_process(tmp_path: Path) -> None:
    """TPE beyond its random start, two at a time: ids, states, scores and test scores are the same."""
    changes = {"search": {"candidates": 13, "seeds": [0, 1], "sampler": "tpe"}, "resources": {"max_concurrent": 2}}
    ray = on_ray(tmp_path, **changes)
    assert ray.exit_code == 0
    # The proposals depend on how many run at a time, so the reference replays the candidates.
    options = RunOptions(storage_path=tmp_path / "local", local=True, replay_from=ray.folder)
    local = run_sweep(tiny_sweep(tmp_path, **changes), options, lambda text: None)
    assert scores(ray.folder) == scores(local.folder)
    assert ray.costs["worker_starts"] >= 1
    assert not (ray.folder / ".tune").exists()


@pytest.mark.slow  # tests/faults kills the driver of a cluster again and again
def test_kill_nine_of_the_driver_and_resume(tmp_path: Path) -> None:
    """Uninterrupted, and killed half-way and resumed: equal ids, states and scores; nothing runs twice."""
    search = {"candidates": 8, "seeds": [0, 1], "sampler": "tpe", "scheduler": "none"}
    file = write_sweep(tmp_path, search=search)
    subprocess.run(command(file, tmp_path / "whole"), check=True, capture_output=True)
    victim = subprocess.Popen(command(file, tmp_path / "killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_results(tmp_path / "killed" / "tiny", 6)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    folder = tmp_path / "killed" / "tiny"
    finished = {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/result.json")}
    assert len(finished) < 22
    done = subprocess.run(command(file, tmp_path / "killed", "--resume"), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert scores(folder) == scores(tmp_path / "whole" / "tiny")
    assert all(path.stat().st_mtime_ns == when for path, when in finished.items()), "a finished trial ran again"


@pytest.mark.slow  # tests/faults does the same, once and twice
def test_interrupt_is_clean_and_resumable(tmp_path: Path) -> None:
    file = write_sweep(tmp_path, search={"candidates": 30, "seeds": [0, 1], "sampler": "random"})
    driver = subprocess.Popen(
        command(file, tmp_path / "runs"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_for_results(tmp_path / "runs" / "tiny", 4)
    driver.send_signal(signal.SIGINT)
    output, _ = driver.communicate(timeout=120)
    assert driver.returncode == 130, output
    assert "Go on with --resume" in output
    assert (tmp_path / "runs" / "tiny" / "report.md").exists()
    assert not (tmp_path / "runs" / "tiny" / "lock.json").exists()


def test_a_worker_that_dies_is_a_row_and_the_others_go_on(tmp_path: Path) -> None:
    """One learning rate makes its worker exit hard: retried, then FAILED with a reason; exit code 1."""
    script = tmp_path / "sweep_with_a_killer.py"
    script.write_text(
        "import os, sys\n"
        "from pathlib import Path\n"
        "from plmray.sweep.on_ray import trainables\n"
        "from plmray.sweep.options import RunOptions\n"
        "from plmray.sweep.driver import run_sweep\n"
        "from plmray.config.load import load_sweep\n"
        "class Killer(trainables.CandidateTrainable):\n"
        "    def step(self):\n"
        "        if self.config['job']['candidate']['parameters']['optimizer.lr'] == 0.002:\n"
        "            os._exit(1)\n"
        "        return super().step()\n"
        "trainables.CandidateTrainable = Killer\n"
        "o = run_sweep(load_sweep(Path(sys.argv[1])), RunOptions(storage_path=Path(sys.argv[2])), print)\n"
        "sys.exit(o.exit_code)\n"
    )
    space = {"optimizer.lr": {"kind": "choice", "values": [0.001, 0.002, 0.003]}}
    search = {"sampler": "grid", "seeds": [0]}
    resources = {"engine": "torch", "retries": 1}
    file = write_sweep(tmp_path, space=space, search=search, replicate=None, resources=resources)
    done = subprocess.run([sys.executable, str(script), str(file), "runs"], capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    states = {r.parameters["optimizer.lr"]: r for r in read_results(Path("runs/tiny"))}
    assert {lr: r.state for lr, r in states.items()} == {0.001: "COMPLETE", 0.002: "FAILED", 0.003: "COMPLETE"}
    assert states[0.002].error
    rows = parquet.read_table("runs/tiny/results.parquet").to_pylist()
    assert sum(row["state"] == "FAILED" for row in rows) == 1
    assert "FAILED" in Path("runs/tiny/report.md").read_text()


def test_deepspeed_sweep_on_two_workers_equals_torch(cluster: dict[str, str], tmp_path: Path) -> None:
    """The shipped sweep: Tune, a TorchTrainer of two workers, ZeRO-2, optimizer on the CPU (nested trainer 1).

    Another Ray runs on this machine meanwhile, which must neither be joined nor stand in the way.
    """
    from plmray.config.load import load_sweep
    from plmray.sweep.workers.single_trial import run_trial

    file = ROOT / "sweeps" / "deepspeed.yaml"
    outcome = run_sweep(load_sweep(file), RunOptions(storage_path=tmp_path / "runs"), lambda text: None)
    results = read_results(outcome.folder)
    assert [r.state for r in results] == ["COMPLETE", "COMPLETE"]
    torch = load_sweep(file, ["resources={engine: torch}"])
    for result in results:
        facts = result.provenance
        assert facts["engine_class"] == "DeepSpeedEngine"
        assert (facts["zero_stage"], facts["world_size"], facts["offload_optimizer"]) == (2, 2, True)
        alone = run_trial(torch, result.parameters, result.seed, None, echo=lambda text: None)
        assert alone.trial_id == result.trial_id
        assert result.score == pytest.approx(alone.score, abs=1e-6)
        assert result.validation_loss == pytest.approx(alone.validation_loss, abs=2e-6)


def test_a_host_that_dies_comes_back_and_the_culprit_fails_alone(tmp_path: Path) -> None:
    """One learning rate kills the process that all trials share: the others complete, it fails by itself."""
    script = tmp_path / "sweep_with_a_poisonous_trial.py"
    script.write_text(
        "import os, sys\n"
        "from pathlib import Path\n"
        "from plmray.sweep.on_ray import host_actor\n"
        "from plmray.sweep.options import RunOptions\n"
        "from plmray.sweep.driver import run_sweep\n"
        "from plmray.config.load import load_sweep\n"
        "class Poisoned(host_actor.PackActor):\n"
        "    def _take_orders(self, host):\n"
        "        super()._take_orders(host)\n"
        "        training = [seat.job.candidate for seat in host.seats.values() if seat.runs]\n"
        "        if 0.002 in [candidate.parameters['optimizer.lr'] for candidate in training]:\n"
        "            os._exit(1)\n"
        "host_actor.PackActor = Poisoned\n"
        "o = run_sweep(load_sweep(Path(sys.argv[1])), RunOptions(storage_path=Path(sys.argv[2])), print)\n"
        "sys.exit(o.exit_code)\n"
    )
    space = {"optimizer.lr": {"kind": "choice", "values": [0.001, 0.002, 0.003, 0.004]}}
    search = {"sampler": "grid", "seeds": [0]}
    file = write_sweep(tmp_path, space=space, search=search, replicate=None, resources={"cpus_per_worker": 2})
    done = subprocess.run([sys.executable, str(script), str(file), "runs"], capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    found = {r.parameters["optimizer.lr"]: r for r in read_results(Path("runs/tiny"))}
    states = {rate: result.state for rate, result in found.items()}
    assert states == {0.001: "COMPLETE", 0.002: "FAILED", 0.003: "COMPLETE", 0.004: "COMPLETE"}
    assert "its process died" in (found[0.002].error or "")


@pytest.mark.slow
def test_a_multi_worker_candidate_is_judged_by_its_probe(tmp_path: Path) -> None:
    """ASHA on worker groups: the first seed faces it alone and is left out of the mean (nested trainer 2)."""
    search = {"candidates": 3, "seeds": [0, 1], "sampler": "random", "scheduler": "asha", "min_epochs": 1}
    outcome = on_ray(tmp_path, search=search, replicate=None, resources={"workers": 2})
    results = read_results(outcome.folder)
    assert len(results) == 6
    for candidate in {r.candidate_id for r in results}:
        own = [r for r in results if r.candidate_id == candidate]
        if all(r.state == "COMPLETE" for r in own):
            assert [r.probe for r in own] == [True, False]
    assert any(r.state == "PRUNED" for r in results)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[dict[str, str]]:
    with ray_cluster(tmp_path) as environment:
        yield environment


def test_ray_job_submit_leaves_its_results_behind(cluster: dict[str, str], tmp_path: Path) -> None:
    """The working folder of the job is a throw-away copy; results, report and MLflow store are not in it."""
    work = tmp_path / "work"
    # As from a checkout: what .rayignore lets through comes first on the job's path.
    shutil.copytree(ROOT / "plmray", work / "plmray", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".rayignore", work)
    write_sweep(work, search={"candidates": 2, "seeds": [0], "sampler": "random"})
    storage = tmp_path / "storage"
    job = ["ray", "job", "submit", f"--address={cluster['DASHBOARD']}", f"--working-dir={work}", "--"]
    run = ["plmray", "run", "sweep.yaml", "-y"]
    refused = subprocess.run([*job, *run], env=cluster, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "Give an absolute path on storage that every node shares" in refused.stdout + refused.stderr
    done = subprocess.run([*job, *run, "--storage-path", str(storage)], env=cluster, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.rmtree(work)
    assert len(read_results(storage / "tiny")) == 2 + 3 * 2
    assert (storage / "mlflow.db").exists()
    listed = subprocess.run(
        [sys.executable, "-m", "plmray", "trials", str(storage / "tiny"), "-f", "json"], capture_output=True, text=True
    )
    assert len(json.loads(listed.stdout)) == 8


SAYING = """
import ray
from plmray.sweep.on_ray.notes import Notes, say_to_driver

ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
said = []
notes = Notes(said.append)

@ray.remote
def work(channel):
    say = say_to_driver(channel)
    say("embedding: 1 of 2")
    say("embedding: 2 of 2 ✓")

ray.get(work.remote(Notes(said.append).channel))  # another driver's
ray.get(work.remote(notes.channel))
notes.show()
notes.show()
notes.close()
print(ascii(said))
"""


def test_what_a_process_says_reaches_its_own_drivers_terminal(tmp_path: Path) -> None:
    """The newest line, once, through a real cluster's store."""
    done = subprocess.run([sys.executable, "-c", SAYING], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.stdout.splitlines()[-1] == ascii(["embedding: 2 of 2 ✓"]), done.stdout + done.stderr
