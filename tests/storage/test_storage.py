"""Sweeps whose folder lasts in an object store: a real S3 server on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from plmray.errors import FolderError, SetupError
from plmray.storage import atomic, lock, object_store
from plmray.storage.home import home_of, keep_trial_files, local_copy
from plmray.storage.lock import FolderLock
from plmray.storage.object_store import ObjectStore, StoreError
from plmray.storage.store_lock import StoreLock
from plmray.sweep.driver import Outcome, run_sweep
from plmray.sweep.folder.reader import read_results
from plmray.sweep.folder.writer import SweepFolder
from plmray.sweep.options import RunOptions
from plmray.trials.result import TrialResult
from tests.examples import tiny_sweep, write_sweep
from tests.s3 import BUCKET, S3Server, s3_server


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@pytest.fixture
def bucket(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a prefix of one's own, with the credentials for it in the environment."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{tmp_path.name}"


def run(folder: Path, storage: str | Path, *, resume: bool = False, **changes: Any) -> Outcome:
    options = RunOptions(storage_path=storage, local=True, resume=resume)
    return run_sweep(tiny_sweep(folder, **changes), options, lambda text: None)


def scores(results: list[TrialResult]) -> dict[str, tuple[str, float | None, float | None]]:
    return {r.trial_id: (r.state, r.score, r.test_score) for r in results}


def plmray(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "plmray", *arguments], capture_output=True, text=True)


def test_a_sweep_in_a_store_is_the_sweep_in_a_folder(bucket: str, tmp_path: Path) -> None:
    """Same files under the same names, same numbers; every command that takes DIR takes the address."""
    outcome = run(tmp_path, bucket)
    assert outcome.exit_code == 0
    assert outcome.address == f"{bucket}/tiny"
    assert not outcome.folder.exists()
    beside = run(tmp_path, tmp_path / "runs")
    own = {str(f.relative_to(beside.folder)) for f in beside.folder.rglob("*") if f.is_file()}
    assert set(ObjectStore(outcome.address).names()) == own
    with local_copy(outcome.address) as copy:
        assert scores(read_results(copy)) == scores(read_results(beside.folder))
    listed = plmray("trials", outcome.address, "-f", "json")
    assert len(json.loads(listed.stdout)) == len(scores(read_results(beside.folder))), listed.stderr
    assert plmray("best", outcome.address).returncode == 0
    written = plmray("report", outcome.address, "--confidence", "0.9")
    assert f"written: {outcome.address}/report.md" in written.stdout
    assert b"[90 %" in ObjectStore(outcome.address).get("report.md")
    synced = plmray("sync", outcome.address, "--uri", f"sqlite:///{tmp_path}/other.db")
    assert synced.returncode == 0, synced.stderr
    exported = plmray("export", outcome.address, "-o", str(tmp_path / "bundle"))
    assert exported.returncode == 0, exported.stderr
    assert list((tmp_path / "bundle").glob("seeds/*/head.safetensors"))


def test_a_killed_driver_is_resumed_from_the_store_on_another_machine(bucket: str, tmp_path: Path) -> None:
    """Nothing of the first machine is left but what the store has."""
    search = {"candidates": 6, "seeds": [0, 1], "sampler": "tpe"}
    file = write_sweep(tmp_path, search=search)
    command = [sys.executable, "-m", "plmray", "run", str(file), "--local", "-y", "--storage-path", bucket]
    victim = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    store, deadline = ObjectStore(f"{bucket}/tiny"), time.monotonic() + 120
    while sum(n.endswith("result.json") for n in store.names()) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    victim.kill()
    victim.wait()
    with local_copy(store.url) as copy:
        before = {r.trial_id: r for r in read_results(copy)}
    assert 5 <= len(before) < 18
    again = run(tmp_path, bucket, resume=True, search=search)
    assert again.exit_code == 0
    whole = run(tmp_path, tmp_path / "whole", search=search)
    with local_copy(store.url) as copy:
        after = {r.trial_id: r for r in read_results(copy)}
    assert scores(list(after.values())) == scores(read_results(whole.folder))
    assert all(after[trial_id].seconds == result.seconds for trial_id, result in before.items()), "one ran again"


def test_a_second_run_needs_resume(bucket: str, tmp_path: Path) -> None:
    run(tmp_path, bucket)
    with pytest.raises(FolderError, match=f"{bucket}/tiny holds a sweep with"):
        run(tmp_path, bucket)


def test_a_store_that_is_silent_for_a_while_delays_and_loses_nothing(
    server: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "RETRY_S", 0.1)
    monkeypatch.setattr(object_store, "RETRIES", {"max_retries": 0})
    monkeypatch.setattr(object_store, "TIMEOUT_S", 1)
    said: list[str] = []

    def stumble(text: str) -> None:
        said.append(text)
        if text.startswith("[3/"):
            server.pause()
            threading.Timer(4.0, server.go_on).start()

    outcome = run_sweep(tiny_sweep(tmp_path), RunOptions(storage_path=bucket, local=True), stumble)
    assert outcome.exit_code == 0
    assert any("cannot be written" in line for line in said)
    assert any("can be written again" in line for line in said)
    beside = run(tmp_path, tmp_path / "runs")
    with local_copy(outcome.address) as copy:
        assert scores(read_results(copy)) == scores(read_results(beside.folder))


def test_one_driver_at_a_time(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A living owner is named, a silent one is replaced after a while, and whoever lost the lock stops."""
    monkeypatch.setattr(lock, "STALE_AFTER_S", 1.0)
    monkeypatch.setattr(lock, "WATCH_S", 0.05)
    monkeypatch.setattr(lock, "HEARTBEAT_S", 0.2)

    def place() -> StoreLock:
        return StoreLock(ObjectStore(f"{bucket}/one"))

    with FolderLock(place()) as first:
        with pytest.raises(FolderError, match=f"{bucket}/one is in use by process {os.getpid()}"), FolderLock(place()):
            pass
        first.check()
    theirs = FolderLock(place())
    theirs._owner = {**theirs._owner, "host": "elsewhere"}
    with theirs:
        with pytest.raises(FolderError, match=r"in use by process .* on elsewhere"), FolderLock(place()):
            pass  # its heartbeat was seen
        theirs._stop.set()  # it hangs
        time.sleep(0.3)
        with FolderLock(place()) as mine:
            mine.check()
            with pytest.raises(FolderError, match="lost the folder to process"):
                theirs.check()
    assert place().read() is None


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://no-such-bucket/x", "--storage-path s3://no-such-bucket/x/tiny: there is no such bucket"),
        ("ftp://server/x", "expected a folder, or an address such as s3://bucket/prefix"),
    ],
)
def test_bad_addresses(bucket: str, tmp_path: Path, address: str, message: str) -> None:
    with pytest.raises(SetupError, match=message):
        run(tmp_path, address)


def test_names_that_lead_out_of_the_copy_are_refused(bucket: str, tmp_path: Path) -> None:
    import boto3

    store = ObjectStore(f"{bucket}/evil")
    store.put("resolved.yaml", b"")
    key = f"{tmp_path.name}/evil/../../outside"
    boto3.client("s3").put_object(Bucket=BUCKET, Key=key, Body=b"x")
    with pytest.raises(StoreError, match="invalid path"):
        store.pull(tmp_path / "copy")


def test_weights_wait_for_a_full_disk_and_leave_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """safetensors says that a disk is full with an error of its own, after it has written a part."""
    from safetensors import SafetensorError

    from plmray.train import checkpoint

    monkeypatch.setattr(atomic, "RETRY_S", 0.01)
    failures, written = [1, 2], checkpoint.save_file

    def full(tensors: Any, file: Path) -> None:
        written(tensors, file)
        if failures:
            failures.pop()
            raise SafetensorError("No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    (tmp_path / "home").mkdir()
    said: list[str] = []
    state = {"classifier.weight": torch.ones(2)}

    def write(folder: Path) -> None:
        checkpoint.save(folder / "adapter", state, None)

    keep_trial_files(str(tmp_path / "home"), "t", write, said.append)
    assert "No space left on device" in said[0]
    assert "can be written again" in said[1]
    found = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert found == {"home/trials/t/adapter/head.safetensors"}


def test_nothing_is_kept_where_storage_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLMRAY_STORAGE_PATIENCE_S", "0")
    with pytest.raises(FolderError, match=r"could not be written for 0 s \(No such file or directory\)"):
        keep_trial_files(str(tmp_path / "gone"), "t", lambda folder: folder.mkdir(parents=True), lambda text: None)
    assert not list(tmp_path.iterdir())


def test_a_lock_whose_answer_was_lost_is_ours(bucket: str) -> None:
    place = StoreLock(ObjectStore(f"{bucket}/locks"))
    create = place.create
    place.create = lambda owner: create(owner) and False  # type: ignore[method-assign]
    with FolderLock(place) as held:
        assert held.is_mine()


def test_a_driver_that_was_replaced_while_cut_off_uploads_nothing(bucket: str, tmp_path: Path) -> None:
    """The lock is looked at again before what waited is sent."""
    store = ObjectStore(f"{bucket}/replaced")
    with FolderLock(StoreLock(store)) as first:
        folder = SweepFolder(tmp_path, first, store, lambda text: None)
        store.put("lock.json", b'{"token": "another"}')
        with pytest.raises(FolderError, match="this driver lost the folder"):
            folder.write("data.json", "{}")
    assert "data.json" not in store.names()


def test_home_says_what_to_check_when_the_store_is_down(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(object_store, "RETRIES", {"max_retries": 0})
    with pytest.raises(SetupError, match="AWS_ENDPOINT_URL for a store of your own"), home_of(bucket, "x"):
        pass
