"""Every fault is judged against the same sweep, run once without one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.drivers import TRIALS, Scores, complete, fault_sweep, scores


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here not in item.path.parents:
            continue
        if item.get_closest_marker("slow") is None:
            item.add_marker(pytest.mark.faults)


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Scores:
    """Ids, states and scores of the sweep when nothing goes wrong."""
    folder = tmp_path_factory.mktemp("unbroken")
    before = dict(os.environ)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    try:
        complete(fault_sweep(folder), folder)
    finally:
        os.environ.clear()
        os.environ.update(before)
    found = scores(folder / "faulty")
    assert len(found) == TRIALS
    return found


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An MLflow store that the drivers of a test share, as those of a user do."""
    address = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield address
