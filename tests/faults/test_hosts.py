"""Sweeps over two hosts, and what happens when one of them is lost."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from plmray.config.load import load_sweep
from plmray.sweep.folder.reader import read_results
from plmray.sweep.workers.single_trial import run_trial
from plmray.train.prebuild import extensions_folder
from tests.faults.drivers import (
    DriverProcess,
    Scores,
    assert_scores,
    assert_untouched,
    assert_whole,
    complete,
    fault_sweep,
    finished_files,
    scores,
)
from tests.faults.hosts import HEAD_ADDRESS, SHORT_CHECKS, Host, two_hosts

pytestmark = pytest.mark.ray
MANY = {"candidates": 24, "seeds": [0], "sampler": "random"}
NEIGHBOURS = 2e-6  # float32 scores of a packed trial among other neighbours


def driver_on(host: Host, file: Path, storage: Path, *more: str) -> DriverProcess:
    start = host.command("python", "-u", "-m", "plmray")
    return DriverProcess(file, storage, *more, environment=host.environment, python=start)


def whole_run(tmp_path: Path, **changes: Any) -> Scores:
    """The same sweep in one process on one host."""
    folder = tmp_path / "whole"
    folder.mkdir()
    complete(fault_sweep(folder, **changes), folder / "runs")
    return scores(folder / "runs" / "faulty")


@pytest.mark.parametrize(
    ("loss", "engine"),
    [
        ("crash", "packed"),
        ("crash", "torch"),
        ("cut_off", "packed"),
        pytest.param("cut_off", "torch", marks=pytest.mark.slow),
    ],
)
def test_a_host_is_lost_while_both_train(tmp_path: Path, uri: str, loss: str, engine: str) -> None:
    """Its trials start over on the other host, and the numbers are those of one process."""
    changes = {"search": MANY, "resources": {"engine": engine}}
    file = fault_sweep(tmp_path, **changes)
    with two_hosts(tmp_path, ray=True, environment=SHORT_CHECKS) as (a, b):
        driver = driver_on(a, file, tmp_path / "runs", "--address", HEAD_ADDRESS)
        driver.wait_for_results(3)
        getattr(b, loss)()
        assert driver.end() == 0, driver.output
    folder = tmp_path / "runs" / "faulty"
    assert "FAILED" not in driver.output
    assert engine == "torch" or "jobs go to another one" in driver.output
    assert_whole(folder, whole_run(tmp_path, **changes), uri, tolerance=NEIGHBOURS if engine == "packed" else 0.0)
    assert {r.provenance["host"] for r in read_results(folder)} <= {a.name, b.name}


def test_both_hosts_train(tmp_path: Path, uri: str) -> None:
    """Packs on every host, and a report that says where trials ran."""
    file = fault_sweep(tmp_path, search=MANY, resources={"engine": "packed"})
    with two_hosts(tmp_path, ray=True) as (a, b):
        driver = driver_on(a, file, tmp_path / "runs", "--address", HEAD_ADDRESS)
        assert driver.end() == 0, driver.output
    results = read_results(tmp_path / "runs" / "faulty")
    assert {r.provenance["host"] for r in results} == {a.name, b.name}
    report = (tmp_path / "runs" / "faulty" / "report.md").read_text()
    assert re.search(rf"Trained on {a.name} \(\d+\), {b.name} \(\d+\)\.", report)


def test_storage_that_a_host_does_not_see_is_refused(tmp_path: Path, uri: str) -> None:
    """Each host has a scratch folder of its own: weights kept by b would never come to a."""
    with two_hosts(tmp_path, ray=True) as (a, b):
        driver = driver_on(a, fault_sweep(tmp_path), a.scratch / "runs", "--address", HEAD_ADDRESS)
        assert driver.end() == 2, driver.output
    assert f"{b.name} of the cluster's nodes do not see" in driver.output
    assert "[1/" not in driver.output


def test_a_deepspeed_trial_on_two_hosts_equals_one_process(tmp_path: Path, uri: str) -> None:
    """A worker on each host, ZeRO-2: gloo finds the other host though neither's name can be looked up."""
    space = {"optimizer.lr": {"kind": "choice", "values": [0.003]}}
    changes: dict[str, Any] = {"space": space, "search": {"sampler": "grid", "seeds": [0]}, "replicate": None}
    file = fault_sweep(tmp_path, **changes, resources={"engine": "deepspeed", "workers": 2})
    extensions = {"TORCH_EXTENSIONS_DIR": os.environ.get("TORCH_EXTENSIONS_DIR") or str(extensions_folder())}
    with two_hosts(tmp_path, ray=True, environment=extensions) as (a, _):
        driver = driver_on(a, file, tmp_path / "runs", "--address", HEAD_ADDRESS)
        assert driver.end(400) == 0, driver.output
    (result,) = read_results(tmp_path / "runs" / "faulty")
    assert result.provenance["world_size"] == 2
    tree = yaml.safe_load(file.read_text()) | {"resources": {"engine": "torch"}}
    file.write_text(yaml.safe_dump(tree))
    alone = run_trial(load_sweep(file), result.parameters, result.seed, None, echo=lambda text: None)
    assert (result.trial_id, result.state) == (alone.trial_id, "COMPLETE")
    assert result.score == pytest.approx(alone.score, abs=1e-6)
    assert result.validation_loss == pytest.approx(alone.validation_loss, abs=2e-6)


def test_a_sweep_goes_on_from_another_host(tmp_path: Path, unbroken: Scores, uri: str) -> None:
    """The driver's host is lost; after a minute without a sign of life another one takes the folder over."""
    file, folder = fault_sweep(tmp_path), tmp_path / "runs" / "faulty"
    with two_hosts(tmp_path, ray=False) as (a, b):
        first = driver_on(a, file, tmp_path / "runs", "--local")
        first.wait_for_results(4)
        too_early = driver_on(b, file, tmp_path / "runs", "--local", "--resume")
        assert too_early.end() == 2
        assert "is in use by process" in too_early.output
        assert a.name in too_early.output
        a.crash()
        survived, started = finished_files(folder), time.monotonic()
        second = driver_on(b, file, tmp_path / "runs", "--local", "--resume")
        assert second.end() == 0, second.output
    assert "waiting 60 s for a sign of life" in second.output
    assert time.monotonic() - started > 60
    assert_untouched(survived)
    assert_scores(scores(folder), unbroken)
    assert_whole(folder, unbroken, uri)
