"""A new database of MLflow is there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from mlflow import MlflowClient

from plmray.sweep.tracking.database import make_database


def test_a_driver_that_dies_while_the_tables_are_made_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in between, version 0.1.0 left a database that MLflow refuses for good."""
    file = tmp_path / "new" / "mlflow.db"

    def killed(self: MlflowClient, max_results: int) -> None:
        assert not file.exists() and max_results == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(MlflowClient, "search_experiments", killed)
    with pytest.raises(KeyboardInterrupt):
        make_database(f"sqlite:///{file}")
    assert not file.exists() and not list(file.parent.iterdir())
    monkeypatch.undo()
    make_database(f"sqlite:///{file}")
    assert [child.name for child in file.parent.iterdir()] == ["mlflow.db"]
    assert MlflowClient(tracking_uri=f"sqlite:///{file}").create_experiment("one") == "1"
    before = file.stat()
    make_database(f"sqlite:///{file}")
    assert file.stat() == before


def test_disks_without_links_and_other_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(source: Path, target: Path) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refused)
    make_database(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert [child.name for child in tmp_path.iterdir()] == ["mlflow.db"]
    for other in ("http://localhost:1", "sqlite://", "postgresql://x/y", str(tmp_path / "mlruns")):
        make_database(other)
    assert [child.name for child in tmp_path.iterdir()] == ["mlflow.db"]
