"""A bundle as an MLflow model: ``mlflow.pyfunc.load_model(BUNDLE).predict(table)``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plmray.bundle.ensemble import Ensemble
from plmray.bundle.predict import columns, lines
from plmray.bundle.proteins import protein_faults
from plmray.data.checks import shortened
from plmray.data.formats import Row
from plmray.errors import DataError


class BundleModel:
    """What MLflow calls: a table with a column 'sequence' (and 'id') to the table that ``plmray predict`` writes."""

    def __init__(self, folder: Path) -> None:
        self.ensemble = Ensemble(folder)

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> Any:  # noqa: ARG002
        sequences = [str(sequence) for sequence in model_input["sequence"]]
        names = list(model_input["id"]) if "id" in model_input else list(range(len(sequences)))
        rows = [
            Row("", n, str(name), s, "", None, None) for n, (name, s) in enumerate(zip(names, sequences, strict=True))
        ]
        facts, header = self.ensemble.facts, columns(self.ensemble.facts)
        faults = [fault for row in rows for fault in protein_faults(row, set(), facts)]
        if faults:
            raise DataError(shortened(faults))
        predicted = zip(rows, self.ensemble.predict(sequences), strict=True)
        table = [dict(zip(header, line, strict=True)) for row, own in predicted for line in lines(facts, row, own)]
        numbers = [name for name in header if name.startswith("probability.") or name in ("prediction", "seed_sd")]
        made = type(model_input)(table, columns=header)
        return made.assign(**{name: [float(row[name] or "nan") for row in table] for name in numbers})


def _load_pyfunc(data_path: str) -> BundleModel:
    """MLflow's entry point of a loader module."""
    return BundleModel(Path(data_path))
