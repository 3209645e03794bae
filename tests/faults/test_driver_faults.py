"""What happens to the driver: killed, interrupted, doubled, its clock set, its records damaged."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from plmray.config.load import load_sweep
from plmray.errors import FolderError
from plmray.sweep.driver import run_sweep
from plmray.sweep.folder.reader import read_results
from plmray.sweep.options import RunOptions
from tests.faults.drivers import (
    TRIALS,
    DriverProcess,
    Scores,
    assert_untouched,
    assert_whole,
    complete,
    fault_sweep,
    finished_files,
    scores,
    until,
)


def test_kill_nine_at_ten_random_moments(tmp_path: Path, unbroken: Scores, uri: str) -> None:
    """The same sweep is killed ten times, anywhere from its first import to its report, and then left alone."""
    file, rng = fault_sweep(tmp_path), np.random.default_rng(10)
    folder, survived, counts = tmp_path / "runs" / "faulty", dict[Path, int](), set[int]()
    for number in range(10):
        driver = DriverProcess(file, tmp_path / "runs", "--local", "--resume")
        if number % 3 == 0:
            time.sleep(float(rng.uniform(0.0, 8.0)))
        else:
            done = len(survived)
            until(lambda driver=driver, done=done: driver.ended or len(finished_files(folder)) > done)  # type: ignore[misc]
            time.sleep(float(rng.uniform(0.0, 0.5)))
        driver.kill()
        assert_untouched(survived)
        survived = finished_files(folder)
        counts.add(len(survived))
    assert len(counts - {0, TRIALS}) >= 3, "too few kills came while it trained"
    last = DriverProcess(file, tmp_path / "runs", "--local", "--resume")
    assert last.end() == 0, last.output
    assert_untouched(survived)
    assert_whole(folder, unbroken, uri)


def test_kill_nine_under_asha_resumes_and_replays(tmp_path: Path, uri: str) -> None:
    """Arrival decides there, so the resumed sweep is repeated exactly from its own records."""
    search = {"candidates": 8, "seeds": [0, 1], "sampler": "tpe", "scheduler": "asha", "min_epochs": 5}
    file = fault_sweep(tmp_path, search=search)
    driver = DriverProcess(file, tmp_path / "runs", "--local")
    driver.wait_for_results(5)
    driver.kill()
    survived = finished_files(tmp_path / "runs" / "faulty")
    complete(file, tmp_path / "runs")
    assert_untouched(survived)
    resumed = scores(tmp_path / "runs" / "faulty")
    assert_whole(tmp_path / "runs" / "faulty", resumed, uri)
    options = RunOptions(storage_path=tmp_path / "again", local=True, replay_from=tmp_path / "runs" / "faulty")
    again = run_sweep(load_sweep(file), options, lambda text: None)
    assert scores(again.folder) == resumed
    assert any(state == "PRUNED" for state, *_ in resumed.values())


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_asked_to_end_it_concludes(tmp_path: Path, unbroken: Scores, uri: str, name: str) -> None:
    """Ctrl-C, or what ray job stop, Slurm and Kubernetes send: a report of what is there, and exit code 130."""
    file, folder = fault_sweep(tmp_path), tmp_path / "runs" / "faulty"
    driver = DriverProcess(file, tmp_path / "runs", "--local")
    driver.wait_for_results(4)
    driver.signal(getattr(signal, name))
    assert driver.end() == 130, driver.output
    assert "Go on with --resume" in driver.output
    assert (folder / "report.md").exists()
    assert not (folder / "lock.json").exists()
    survived = finished_files(folder)
    complete(file, tmp_path / "runs")
    assert_untouched(survived)
    assert_whole(folder, unbroken, uri)


def test_asked_to_end_before_it_has_begun(tmp_path: Path, uri: str) -> None:
    """It waits for another host's driver to show life, as it could for data or GPUs."""
    lock = tmp_path / "runs" / "faulty" / "lock.json"
    lock.parent.mkdir(parents=True)
    lock.write_text('{"host": "elsewhere", "pid": 1, "token": "of another"}')
    driver = DriverProcess(fault_sweep(tmp_path), tmp_path / "runs", "--local")
    driver.wait_for("waiting 60 s for a sign of life")
    driver.signal(signal.SIGTERM)
    assert driver.end(20) == 130, driver.output
    assert "interrupted; finished trials are safe" in driver.output
    assert "of another" in lock.read_text()


def test_ctrl_c_twice_leaves_at_once(tmp_path: Path, unbroken: Scores, uri: str) -> None:
    """The second one comes while the report is written."""
    file, folder = fault_sweep(tmp_path), tmp_path / "runs" / "faulty"
    driver = DriverProcess(file, tmp_path / "runs", "--local")
    driver.wait_for_results(4)
    driver.signal(signal.SIGINT)
    time.sleep(0.05)
    driver.signal(signal.SIGINT)
    started = time.monotonic()
    assert driver.end() == 130, driver.output
    assert time.monotonic() - started < 10
    survived = finished_files(folder)
    complete(file, tmp_path / "runs")
    assert_untouched(survived)
    assert_whole(folder, unbroken, uri)


def test_a_second_driver_is_refused_and_disturbs_nothing(tmp_path: Path, unbroken: Scores, uri: str) -> None:
    file = fault_sweep(tmp_path)
    first = DriverProcess(file, tmp_path / "runs", "--local")
    first.wait_for_results(2)
    second = DriverProcess(file, tmp_path / "runs", "--local", "--resume")
    assert second.end() == 2
    assert f"is in use by process {first.process.pid}" in second.output
    assert first.end() == 0, first.output
    assert_whole(tmp_path / "runs" / "faulty", unbroken, uri)


SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <sys/time.h>
/* The wall clock is CLOCK_JUMP_S seconds off from when there is a file CLOCK_JUMP_FILE. */
int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int answer = real(id, now);
    if (id == CLOCK_REALTIME && answer == 0 && access(getenv("CLOCK_JUMP_FILE"), F_OK) == 0)
        now->tv_sec += atol(getenv("CLOCK_JUMP_S"));
    return answer;
}
time_t time(time_t *place) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (place) *place = now.tv_sec;
    return now.tv_sec;
}
int gettimeofday(struct timeval *restrict place, void *restrict zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    place->tv_sec = now.tv_sec;
    place->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""


@pytest.mark.parametrize("jump_s", [-86400, 86400])
def test_a_clock_that_jumps_a_day_changes_nothing(tmp_path: Path, unbroken: Scores, uri: str, jump_s: int) -> None:
    (tmp_path / "shim.c").write_text(SHIM)
    shim = tmp_path / "shim.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(shim), str(tmp_path / "shim.c"), "-ldl"], check=True)
    jump = {"LD_PRELOAD": str(shim), "CLOCK_JUMP_S": str(jump_s), "CLOCK_JUMP_FILE": str(tmp_path / "jump")}
    driver = DriverProcess(fault_sweep(tmp_path), tmp_path / "runs", "--local", environment=jump)
    driver.wait_for_results(4)
    (tmp_path / "jump").touch()
    assert driver.end() == 0, driver.output
    days = {line[:10] for line in (tmp_path / "runs" / "faulty" / "sweep.log").read_text().splitlines()}
    assert len(days) >= 2, f"the clock did not jump while it ran: {driver.output}"
    assert_whole(tmp_path / "runs" / "faulty", unbroken, uri)


def test_damaged_results_run_again_and_no_other(tmp_path: Path, unbroken: Scores, uri: str) -> None:
    file, folder = fault_sweep(tmp_path), tmp_path / "runs" / "faulty"
    driver = DriverProcess(file, tmp_path / "runs", "--local")
    driver.wait_for_results(8)
    driver.kill()
    whole, *victims = sorted(folder.glob("trials/*/result.json"))[:6]
    half = victims[0].read_text()[:200]
    of_another_time = '{"trial": "x", "score": 1}'
    damages = ["", half, whole.read_text(), of_another_time, "\x00\xff" * 100]
    for victim, content in zip(victims, damages, strict=True):
        victim.write_text(content, encoding="latin-1")
    others = {path: when for path, when in finished_files(folder).items() if path not in victims}
    again = DriverProcess(file, tmp_path / "runs", "--local", "--resume")
    assert again.end() == 0, again.output
    assert all(f"{victim} is no result" in again.output for victim in victims), again.output
    assert_untouched(others)
    assert_whole(folder, unbroken, uri)


def test_a_truncated_checkpoint_is_named_and_can_be_made_again(tmp_path: Path, unbroken: Scores, uri: str) -> None:
    from plmray.bundle.export import export

    file, folder = fault_sweep(tmp_path), tmp_path / "runs" / "faulty"
    complete(file, tmp_path / "runs")
    best = max((r for r in read_results(folder) if r.phase == "replicate"), key=lambda r: r.score or -1)
    for weights in folder.glob(f"trials/{best.candidate_id}*/adapter/*.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(FolderError, match=r"has no readable weights .*remove .* --resume"):
        export(folder, tmp_path / "bundle", best.candidate_id)
    assert not (tmp_path / "bundle").exists()
    for trial in folder.glob(f"trials/{best.candidate_id}*"):
        if (trial / "adapter").exists():
            shutil.rmtree(trial)
    complete(file, tmp_path / "runs")
    export(folder, tmp_path / "bundle", best.candidate_id)
    assert_whole(folder, unbroken, uri)


def test_records_cut_short_by_a_crash_are_taken_up_again(tmp_path: Path, unbroken: Scores, uri: str) -> None:
    """The last lines of candidates.jsonl and decisions.jsonl end in the middle: their writes never returned."""
    file, folder = fault_sweep(tmp_path), tmp_path / "runs" / "faulty"
    driver = DriverProcess(file, tmp_path / "runs", "--local")
    driver.wait_for_results(TRIALS - 4)
    driver.kill()
    for name in ("candidates.jsonl", "decisions.jsonl"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) - 20])
    complete(file, tmp_path / "runs")
    assert_whole(folder, unbroken, uri)
