"""What happens to the storage under a running sweep: full, read-only, gone for a while, gone for good."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.drivers import (
    DriverProcess,
    Scores,
    assert_untouched,
    assert_whole,
    complete,
    fault_sweep,
    finished_files,
)


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True, capture_output=True)


def umount(path: Path) -> None:
    subprocess.run(["umount", "-l", str(path)], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of one's own."""
    path = tmp_path / "disk"
    path.mkdir()
    try:
        mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", path)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system may be mounted here")
    try:
        yield path
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            umount(path)


def fill(disk: Path) -> None:
    with (disk / "ballast").open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(b"x" * 4096)


def go_away(disk: Path) -> None:
    """Unmounted, as a file server that is gone; what is on it stays (it is bound elsewhere)."""
    elsewhere = disk.parent / "elsewhere"
    elsewhere.mkdir()
    mount("--bind", disk, elsewhere)
    umount(disk)


def come_back(disk: Path) -> None:
    mount("--bind", disk.parent / "elsewhere", disk)
    umount(disk.parent / "elsewhere")


Change = Callable[[Path], None]
FAULTS: dict[str, tuple[Change, Change, str]] = {
    "full": (fill, lambda disk: (disk / "ballast").unlink(), "No space left on device"),
    "read-only": (
        lambda disk: mount("-o", "remount,ro", disk),
        lambda disk: mount("-o", "remount,rw", disk),
        "Read-only file system",
    ),
    "gone": (go_away, come_back, "No such file or directory"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_storage_that_comes_back_is_waited_for(
    disk: Path, tmp_path: Path, unbroken: Scores, uri: str, fault: str
) -> None:
    breaks, mends, reason = FAULTS[fault]
    driver = DriverProcess(fault_sweep(tmp_path), disk / "runs", "--local")
    driver.wait_for_results(4)
    breaks(disk)
    driver.wait_for(f"cannot be written ({reason}); trying again for 600 s")
    assert fault != "gone" or not list(disk.iterdir()), "something was written where nothing is mounted"
    mends(disk)
    assert driver.end() == 0, driver.output
    assert "can be written again" in driver.output
    assert_whole(disk / "runs" / "faulty", unbroken, uri)


@pytest.mark.parametrize("fault", FAULTS)
def test_storage_that_stays_away_ends_the_sweep_and_resume_completes_it(
    disk: Path, tmp_path: Path, unbroken: Scores, uri: str, fault: str
) -> None:
    breaks, mends, reason = FAULTS[fault]
    file = fault_sweep(tmp_path)
    driver = DriverProcess(file, disk / "runs", "--local", environment={"PLMRAY_STORAGE_PATIENCE_S": "2"})
    driver.wait_for_results(4)
    breaks(disk)
    assert driver.end() == 2, driver.output
    assert f"could not be written for 2 s ({reason}). What was finished before is safe" in driver.output
    assert "Traceback" not in driver.output
    mends(disk)
    survived = finished_files(disk / "runs" / "faulty")
    complete(file, disk / "runs")
    assert_untouched(survived)
    assert_whole(disk / "runs" / "faulty", unbroken, uri)


def test_a_read_only_folder_is_refused_before_anything_starts(disk: Path, tmp_path: Path) -> None:
    mount("-o", "remount,ro", disk)
    driver = DriverProcess(fault_sweep(tmp_path), disk / "runs", "--local")
    assert driver.end() == 2
    assert f"--storage-path {disk / 'runs'} cannot be written (Read-only file system)" in driver.output
