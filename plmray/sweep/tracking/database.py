"""A new SQLite database of MLflow: there whole, or not at all."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

SQLITE = "sqlite:///"


def make_database(uri: str) -> None:
    """Make MLflow's tables in a file beside, then put it in its place.

    MLflow makes its tables one by one: a driver that is killed meanwhile would leave a database that no later one can
    open. Does nothing for another store, or where the file is there.
    """
    file = Path(uri.removeprefix(SQLITE).partition("?")[0])
    if not uri.startswith(SQLITE) or file.name in ("", ":memory:") or file.exists():
        return
    from mlflow import MlflowClient

    file.parent.mkdir(parents=True, exist_ok=True)
    # MLflow keeps an engine for every address it has seen: another try has another name.
    begun = file.with_name(f".{file.name}.{uuid.uuid4().hex}.tmp")
    try:
        MlflowClient(tracking_uri=f"{SQLITE}{begun}").search_experiments(max_results=1)
        os.link(begun, file)
    except OSError:  # another driver was quicker, or these disks know no links
        if not file.exists():
            begun.replace(file)
    finally:
        begun.unlink(missing_ok=True)
