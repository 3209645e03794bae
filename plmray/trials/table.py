"""Results as one table, a row a trial."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plmray.storage import layout
from plmray.storage.atomic import write_atomic
from plmray.trials.result import TrialResult, in_order

if TYPE_CHECKING:
    import pyarrow


# In the order of the contract; what follows it are further facts of a trial.
_COLUMNS: dict[str, str] = {
    "trial_id": "string",
    "candidate_id": "string",
    "origin": "string",
    "phase": "string",
    "seed": "int64",
    "state": "string",
    "score": "float64",
    "test_score": "float64",
    "selected_epoch": "float64",
    "epochs_run": "float64",
    "seconds": "float64",
    "tokens": "int64",
    "engine": "string",
    "error": "string",
    "validation_loss": "float64",
    "first_train_loss": "float64",
    "last_train_loss": "float64",
    "probe": "bool",
    "reason": "string",
    "varied": "string",
}


def results_table(results: Sequence[TrialResult]) -> pyarrow.Table:
    """One row a trial: the contract's columns, then ``param.<key>``, ``provenance.<name>``, ``test.<metric>``."""
    import pyarrow as pa

    types = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}
    columns = {
        name: pa.array([getattr(result, name) for result in results], types[kind]) for name, kind in _COLUMNS.items()
    }
    for prefix, field_name in (("param", "parameters"), ("provenance", "provenance"), ("test", "test_scores")):
        records = [getattr(result, field_name) for result in results]
        for key in sorted({key for record in records for key in record}):
            columns[f"{prefix}.{key}"] = pa.array(_one_type([record.get(key) for record in records]))
    return pa.table(columns)


def write_table(folder: Path, results: Sequence[TrialResult]) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    parquet.write_table(results_table(in_order(results)), sink)
    path = folder / layout.TABLE
    write_atomic(path, sink.getvalue().to_pybytes())
    return path


def _one_type(values: list[Any]) -> list[Any]:
    """Values of one column as one type: numbers stay numbers, a mixture becomes text."""
    present = [value for value in values if value is not None]
    if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in present):
        return [float(v) if v is not None and any(isinstance(p, float) for p in present) else v for v in values]
    if len({type(value) for value in present}) == 1 and not isinstance(present[0], (list, dict)):
        return values
    return [None if v is None else v if isinstance(v, str) else json.dumps(v) for v in values]
