"""A bundle as an MLflow model: ``mlflow.pyfunc.load_model(BUNDLE).predict(table)``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plmray.bundle.model import Bundle


class BundleModel:
    """What MLflow calls: a table with a column 'sequence' (and 'id') to the table that ``plmray predict`` writes."""

    def __init__(self, folder: Path) -> None:
        self.bundle = Bundle(folder)

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> Any:  # noqa: ARG002
        return self.bundle.predict(model_input)


def _load_pyfunc(data_path: str) -> BundleModel:
    """MLflow's entry point of a loader module."""
    return BundleModel(Path(data_path))
