"""What happens to Ray's processes under a driver: workers and hosts are killed, the driver is, memory is refused."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from plmray.sweep.folder.reader import read_results
from tests.faults.drivers import (
    DriverProcess,
    Scores,
    assert_untouched,
    assert_whole,
    complete,
    fault_sweep,
    finished_files,
    until,
)

pytestmark = pytest.mark.ray
PACKED = {"resources": {"engine": "packed", "max_concurrent": 1}}
NEIGHBOURS = 2e-6  # float32 scores of a packed trial among other neighbours


def ray_processes(driver: DriverProcess, name: str) -> list[psutil.Process]:
    """Ray's processes of that title below a driver with a cluster of its own."""
    below = psutil.Process(driver.process.pid).children(recursive=True)
    return [process for process in below if name in " ".join(title(process))]


def title(process: psutil.Process) -> list[str]:
    try:
        found: list[str] = process.cmdline()
    except psutil.Error:
        return []
    return found


@pytest.mark.parametrize(
    ("changes", "process"), [({}, "ray::CandidateTrainable"), (PACKED, "ray::PackActor")], ids=["worker", "host actor"]
)
def test_a_killed_process_is_replaced_and_nothing_is_lost(
    tmp_path: Path, unbroken: Scores, uri: str, changes: dict[str, object], process: str
) -> None:
    """kill -9 from outside, twice."""
    driver = DriverProcess(fault_sweep(tmp_path, **changes), tmp_path / "runs")
    for count in (3, 8):
        driver.wait_for_results(count)
        until(lambda: bool(ray_processes(driver, process)))
        for victim in ray_processes(driver, process):
            victim.kill()
    assert driver.end() == 0, driver.output
    assert_whole(tmp_path / "runs" / "faulty", unbroken, uri, tolerance=NEIGHBOURS if changes else 0.0)


def test_the_driver_of_a_cluster_is_killed_again_and_again(tmp_path: Path, unbroken: Scores, uri: str) -> None:
    """Ray's own agents end a minute later by themselves; what trains ends at once."""
    file, folder = fault_sweep(tmp_path), tmp_path / "runs" / "faulty"
    survived: dict[Path, int] = {}
    for _ in range(3):
        driver = DriverProcess(file, tmp_path / "runs", "--resume")
        done = len(survived)
        until(lambda done=done: len(finished_files(folder)) > done + 2, 120)  # type: ignore[misc]
        below = [p for p in psutil.Process(driver.process.pid).children(recursive=True) if "Agent" not in str(title(p))]
        driver.kill()
        assert not psutil.wait_procs(below, timeout=30)[1], "what trains outlived its driver"
        assert_untouched(survived)
        survived = finished_files(folder)
    complete(file, tmp_path / "runs")
    assert_untouched(survived)
    assert_whole(folder, unbroken, uri)


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_on_ray(tmp_path: Path, unbroken: Scores, uri: str, times: int) -> None:
    """Once: it concludes. Twice: it leaves. Either way --resume completes the sweep, and no process stays."""
    file, folder = fault_sweep(tmp_path), tmp_path / "runs" / "faulty"
    driver = DriverProcess(file, tmp_path / "runs")
    driver.wait_for_results(4)
    below = psutil.Process(driver.process.pid).children(recursive=True)
    for _ in range(times):
        driver.signal(signal.SIGINT)
        time.sleep(0.3)
    assert driver.end(60) == 130, driver.output
    assert times > 1 or (folder / "report.md").exists()
    assert not psutil.wait_procs(below, timeout=30)[1], "Ray's processes outlived their driver"
    survived = finished_files(folder)
    complete(file, tmp_path / "runs")
    assert_untouched(survived)
    assert_whole(folder, unbroken, uri)


GREEDY = """
import psutil, resource, sys
from plmray.cli import main
import torch, plmray.sweep.driver, plmray.sweep.workers.serial
resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 2 * 2**30,) * 2)
sys.argv[0] = "plmray"
main()
"""


def test_a_trial_that_wants_more_memory_than_there_is_fails_alone(tmp_path: Path, uri: str) -> None:
    """The process may have 2 GB more; one head's weights, gradients and moments would take 4."""
    script = tmp_path / "limited.py"
    script.write_text(GREEDY)
    space = {"head.hidden": {"kind": "choice", "values": [8, 1_000_000, 16]}}
    file = fault_sweep(tmp_path, space=space, search={"sampler": "grid", "seeds": [0, 1]}, replicate=None)
    tree = yaml.safe_load(file.read_text())
    tree["train"]["head"] = {"kind": "dense"}
    tree["train"]["backbone"]["shape"]["width"] = 256
    file.write_text(yaml.safe_dump(tree))
    driver = DriverProcess(file, tmp_path / "runs", "--local", python=[sys.executable, str(script)])
    assert driver.end() == 1, driver.output
    results = read_results(tmp_path / "runs" / "faulty")
    states = {(r.parameters["head.hidden"], r.state) for r in results}
    assert states == {(8, "COMPLETE"), (1_000_000, "FAILED"), (16, "COMPLETE")}
    assert all("memory" in (r.error or "") for r in results if r.state == "FAILED")
    assert "FAILED" in (tmp_path / "runs" / "faulty" / "report.md").read_text()
