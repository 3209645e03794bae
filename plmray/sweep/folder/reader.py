"""What a sweep folder holds: settings, results, decisions, curves, the tracking store."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from plmray.config.fields.sweep import SweepSpec
from plmray.errors import FolderError, first_line
from plmray.hashing import SCHEMA_VERSION
from plmray.redact import redacted
from plmray.storage import layout
from plmray.storage.atomic import read_json, read_json_lines, write_atomic
from plmray.trials.result import TrialResult, in_order


def tracking_record(uri: str, data: Mapping[str, Any]) -> str:
    """What a later sync needs: the store, without passwords, and the data set's name, hash, source and counts."""
    return json.dumps({"uri": redacted(uri), "data": dict(data)})


def recorded_tracking(path: Path) -> dict[str, Any]:
    """What ``tracking_record`` kept. Raises FolderError where the sweep has not begun."""
    file = path / layout.TRACKING
    if not file.exists():
        raise FolderError(f"{path} has no {layout.TRACKING}: its sweep has not begun; run it with --resume")
    found = read_json(file, "resume the sweep once, and it is written again")
    uri, data = found.get("uri"), found.get("data")
    if not (isinstance(uri, str) and isinstance(data, dict) and {"name", "hash", "source", "profile"} <= data.keys()):
        raise FolderError(f"{file} is damaged: resume the sweep once, and it is written again")
    return found


LARGEST_NUMBER = 1e100  # a loss beyond it has diverged; statistics of larger ones overflow
CURVE_NUMBERS = ("step", "epoch", "score", "validation_loss")

_NUMBERS = ("score", "test_score", "selected_epoch", "epochs_run", "seconds")
_MEASURED = ("trainable_parameters", "train_flops", "validation_flops", "padding_ratio", "peak_flops")


@cache
def _strict_result() -> TypeAdapter[TrialResult]:
    return TypeAdapter(TrialResult)


def write_result(folder: Path, result: TrialResult) -> None:
    write_atomic(layout.trial_folder(folder, result.trial_id) / layout.RESULT, json.dumps(result.to_dict(), indent=1))


def read_results(folder: Path) -> list[TrialResult]:
    """All finished trials of a sweep folder, by phase, candidate and seed. A result that cannot be read is
    left to run again: results are written whole, so such a file is not ours."""
    results = []
    for path in sorted((folder / layout.TRIALS).glob(f"*/{layout.RESULT}")):
        try:
            result = _strict_result().validate_json(path.read_bytes())
            _require_sound(result, path.parent.name)
        except (ValueError, IsADirectoryError) as error:
            reason = first_line(error)
            logging.getLogger(__name__).warning("%s is no result (%s); its trial counts as not run", path, reason)
        else:
            results.append(result)
    return in_order(results)


def _require_sound(result: TrialResult, name: str) -> None:
    """Raise ValueError where a result belongs to another trial, or its parts cannot be."""
    if result.trial_id != name:
        raise ValueError(f"it says it is trial {result.trial_id!r}")
    if not 0 <= result.seed < 2**32 or not 0 <= result.tokens < 2**63:
        raise ValueError(f"its seed is {result.seed}, its tokens are {result.tokens}")
    numbers = {**{key: getattr(result, key) for key in _NUMBERS}, **result.test_scores}
    numbers |= {key: result.provenance.get(key) for key in _MEASURED}
    for key, value in numbers.items():
        if value is not None and (not isinstance(value, int | float) or abs(value) > LARGEST_NUMBER):
            raise ValueError(f"its {key} is {value!r}")
    if any({"class", "units"} - row.keys() for row in result.test_classes):
        raise ValueError("its test_classes lack a class or its units")
    if (result.score is not None) != (result.state == "COMPLETE"):
        raise ValueError(f"a trial that is {result.state} has the score {result.score!r}")


def read_decisions(folder: Path) -> list[dict[str, Any]]:
    """What was decided on the way: rungs, promotions, allocations."""
    return list(read_json_lines(folder / layout.DECISIONS))


def read_importance(folder: Path) -> dict[str, Any] | None:
    """What Optuna's evaluators said of the searched candidates; None where they were not asked."""
    file = folder / layout.IMPORTANCE
    return read_json(file, "remove it; the next --resume makes it again") if file.exists() else None


def read_counts(folder: Path) -> dict[str, int]:
    """How many proteins each split has; of a task of residues and where it is unknown nothing.

    Folders of 0.1.0 do not say which of the two a task is.
    """
    file = folder / layout.DATA
    facts = read_json(file, "resume the sweep once, and it is written again") if file.exists() else {}
    counts = facts.get("counts")
    if facts.get("level") != "protein" or not isinstance(counts, dict):
        return {}
    return {str(name): count for name, count in counts.items() if type(count) is int}


def read_kin(folder: Path) -> dict[str, str]:
    """Families of test proteins by id, where the split kept families together."""
    file = folder / layout.DATA
    facts = read_json(file, "resume the sweep once, and it is written again") if file.exists() else {}
    found = facts.get("families")
    return {str(name): str(own) for name, own in found.items()} if isinstance(found, dict) else {}


def read_curves(folder: Path, trials: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """Evaluations of those trials that have some that can be read, by trial id."""
    found = {trial: read_curve(layout.trial_folder(folder, trial) / layout.CURVE) for trial in trials}
    return {trial: curve for trial, curve in found.items() if curve}


def read_curve(file: Path) -> list[dict[str, Any]]:
    """A trial's evaluations; none where the file is missing or damaged: a curve decides nothing."""
    import pyarrow as pa
    from pyarrow import parquet

    if not file.exists():
        return []
    try:
        rows: list[dict[str, Any]] = parquet.read_table(file).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        logging.getLogger(__name__).warning("%s is left out: %s", file, first_line(error))
        return []
    return [row for row in rows if all(isinstance(row.get(name), int | float) for name in CURVE_NUMBERS)]


def require_folder(folder: Path) -> Path:
    """A sweep folder that exists. Raises FolderError naming what was expected."""
    if not (folder / layout.RESOLVED).is_file():
        raise FolderError(f"{folder} is no sweep folder (no {layout.RESOLVED}); expected <storage path>/<sweep name>")
    return folder


def load_resolved(folder: Path) -> SweepSpec:
    """The sweep of a sweep folder, as ``resolved.yaml`` keeps it. Raises FolderError."""
    try:
        return SweepSpec.model_validate_json(json.dumps(read_resolved(folder)["sweep"]))
    except ValueError as error:
        raise _damaged(folder, error) from error


def read_resolved(folder: Path) -> dict[str, Any]:
    """``resolved.yaml`` of a sweep folder: ``sweep_id``, the ``folder`` of its file, ``sweep``. Raises FolderError."""
    try:
        tree: dict[str, Any] = yaml.safe_load((folder / layout.RESOLVED).read_bytes())
        if not isinstance(tree["sweep"], dict) or not all(isinstance(tree[k], str) for k in ("sweep_id", "folder")):
            raise ValueError("expected sweep_id, folder and sweep")
        json.dumps(tree)  # dates and circles are none of ours
    except (OSError, ArithmeticError, ValueError, TypeError, KeyError, RecursionError, yaml.YAMLError) as error:
        raise _damaged(folder, error) from error
    return tree


def require_schema(folder: Path, address: str = "") -> None:
    """Raise FolderError where a sweep was made by a version whose numbers under the same settings were others.

    Reading and judging it is fine; going on with it, or exporting its weights, would mix the two.
    """
    found = read_resolved(folder).get("schema", 1)
    if found != SCHEMA_VERSION:
        raise FolderError(
            f"{address or folder} was made under schema {found}, this plmray writes {SCHEMA_VERSION}: the same "
            "settings give other numbers (version 0.1.0 read the residues D, T and I of ESM2 as one another). Its "
            "report can still be read; to go on, run the sweep under another name or --storage-path."
        )


def _damaged(folder: Path, error: Exception) -> FolderError:
    return FolderError(
        f"{folder / layout.RESOLVED} cannot be read ({first_line(error)}); restore it, or use another folder"
    )
