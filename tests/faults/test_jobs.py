"""`ray job submit` end to end with results in an object store: stopped, read, and resumed on another cluster."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from plmray.storage.home import local_copy
from plmray.storage.object_store import ObjectStore
from plmray.sweep.folder.reader import read_results
from tests.clusters import ray_cluster
from tests.examples import ROOT
from tests.faults.drivers import Scores, assert_scores, fault_sweep
from tests.s3 import BUCKET, S3Server, s3_server

pytestmark = pytest.mark.ray
SECRETS = {"MLFLOW_TRACKING_PASSWORD": "swordfish-and-more", "HF_TOKEN": "hf_abcdefghijklmnop"}


def ray_job(cluster: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    action, *rest = arguments
    command = ["ray", "job", action, f"--address={cluster['DASHBOARD']}", *rest]
    return subprocess.run(command, env=dict(cluster), capture_output=True, text=True, timeout=300)


def work_folder(folder: Path) -> Path:
    """As from a checkout: code and the sweep, without what .rayignore names."""
    work = folder / "work"
    shutil.copytree(ROOT / "plmray", work / "plmray", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".rayignore", work)
    fault_sweep(work)
    return work


def submit(
    cluster: Mapping[str, str], work: Path, storage: str, uri: str, *more: str
) -> subprocess.CompletedProcess[str]:
    settings: dict[str, object] = {"env_vars": {"MLFLOW_TRACKING_URI": uri, "RAY_JOB_STOP_WAIT_TIME_S": "60"}}
    run = ["plmray", "run", "sweep.yaml", "-y", "--resume", "--storage-path", storage]
    return ray_job(
        cluster, "submit", f"--working-dir={work}", "--runtime-env-json", json.dumps(settings), *more, "--", *run
    )


def results_of(store: ObjectStore) -> int:
    return sum(name.endswith("result.json") for name in store.names())


def test_a_job_is_stopped_and_another_cluster_goes_on(
    tmp_path: Path, unbroken: Scores, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = work_folder(tmp_path)
    with s3_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        storage, store = f"s3://{BUCKET}/jobs", ObjectStore(f"s3://{BUCKET}/jobs/faulty")
        logs = _stopped_job(tmp_path, work, server, store, storage, uri)
        assert "Go on with --resume" in logs
        assert "report.md" in store.names()
        before = {name: store.get(name) for name in store.names() if name.endswith("result.json")}
        with ray_cluster(tmp_path, {**server.environment, **SECRETS}) as other:
            done = submit(other, work, storage, uri)
        assert done.returncode == 0, done.stdout + done.stderr
        assert all(store.get(name) == content for name, content in before.items()), "a finished trial ran again"
        with local_copy(store.url) as copy:
            found = {r.trial_id: (r.state, r.score, r.test_score) for r in read_results(copy)}
            assert_scores(found, unbroken)
        everything = b"".join(store.get(name) for name in store.names()) + (logs + done.stdout + done.stderr).encode()
    for secret in (*SECRETS.values(), server.environment["AWS_SECRET_ACCESS_KEY"], "a" * 32):
        assert secret.encode() not in everything, "a secret was written or logged"


def _stopped_job(tmp_path: Path, work: Path, server: S3Server, store: ObjectStore, storage: str, uri: str) -> str:
    """Submit, stop after three results, and return what `ray job logs` says."""
    with ray_cluster(tmp_path, {**server.environment, **SECRETS}) as cluster:
        begun = submit(cluster, work, storage, uri, "--no-wait", "--submission-id=first")
        assert begun.returncode == 0, begun.stdout + begun.stderr
        deadline = time.monotonic() + 180
        while results_of(store) < 3:
            assert time.monotonic() < deadline, ray_job(cluster, "logs", "first").stdout
            time.sleep(0.1)
        stopped = ray_job(cluster, "stop", "first")
        assert "stopped" in stopped.stdout + stopped.stderr
        return ray_job(cluster, "logs", "first").stdout


@pytest.mark.slow
def test_the_script_for_one_machine(tmp_path: Path) -> None:
    """cluster/local.sh: the quickstart as a job from a checkout, bundled weights and all."""
    checkout = tmp_path / "checkout"
    for name in ("plmray", "sweeps", "search_spaces", "cluster"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".rayignore", checkout)
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = ["bash", str(checkout / "cluster" / "local.sh"), str(tmp_path / "storage")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    states = Counter(r.state for r in read_results(tmp_path / "storage" / "quickstart"))
    assert states.total() == 26
    assert states.keys() <= {"COMPLETE", "PRUNED"}


def test_the_upload_of_a_checkout_is_small(tmp_path: Path) -> None:
    """What a job takes along: code, sweeps and the bundled encoder; no environment, data or results."""
    from ray._private.runtime_env.packaging import create_package

    (tmp_path / "checkout" / "plmray_runs" / "x").mkdir(parents=True)
    for name in ("plmray", "sweeps", "search_spaces", "cluster", "tests"):
        shutil.copytree(ROOT / name, tmp_path / "checkout" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (".rayignore", ".gitignore", "README.md"):
        shutil.copy(ROOT / file, tmp_path / "checkout")
    for large in ("plmray_runs/x/weights.txt", "mlflow.db", "model.safetensors", "proteins.parquet"):
        (tmp_path / "checkout" / large).write_bytes(os.urandom(2**22))
    package = tmp_path / "package.zip"
    create_package(str(tmp_path / "checkout"), package, include_gitignore=True)
    assert package.stat().st_size < 5e6
    import zipfile

    names = zipfile.ZipFile(package).namelist()
    assert "plmray/assets/esm2_plmray_1.6M/model.safetensors" in names
    assert not [name for name in names if name.startswith("plmray_runs")]
