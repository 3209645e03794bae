"""Results: one JSON a trial, one table a sweep, and the grid of scores that statistics read."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Union

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter

from plmray.errors import FolderError
from plmray.files import read_json, read_json_lines, write_atomic
from plmray.trial import Trial

if TYPE_CHECKING:
    import pyarrow

State = Literal["COMPLETE", "PRUNED", "FAILED"]

LARGEST_NUMBER = 1e100  # a loss beyond it has diverged; statistics of larger ones overflow
CURVE_NUMBERS = ("step", "epoch", "score", "validation_loss")
_COSTS = {"wall_s", "slot_s", "trials", "driver_s", "worker_starts", "worker_start_s", "training_s", "train_tokens"}
_NUMBERS = ("score", "test_score", "selected_epoch", "epochs_run", "seconds")
_MEASURED = ("trainable_parameters", "train_flops", "validation_flops", "padding_ratio", "peak_flops")


@dataclass(frozen=True)
class TrialResult:
    """The end of one trial. Made by ``complete``, ``pruned`` or ``failed``: only a complete one has a score.

    ``score`` is the objective on validation at the selected checkpoint, ``test_score`` the same
    metric on test there. ``selected_epoch`` and ``epochs_run`` are in epochs, ``seconds`` of training and
    evaluation, ``tokens`` real ones seen in training; the train losses are those before the first and
    the last evaluation. ``reason``: why the trial ran; ``varied``: the stream that its seed moved alone, else ''.
    ``test_scores``: every metric that fits the task, on test; ``test_classes``: the same class by class.
    """

    trial_id: str
    candidate_id: str
    origin: str
    phase: Literal["search", "replicate"]
    seed: int
    state: State
    score: float | None = None
    test_score: float | None = None
    selected_epoch: float | None = None
    validation_loss: float | None = None
    first_train_loss: float | None = None
    last_train_loss: float | None = None
    epochs_run: float = 0.0
    seconds: float = 0.0
    tokens: int = 0
    engine: str = ""
    error: str | None = None
    probe: bool = False
    reason: str = ""
    varied: str = ""
    test_scores: dict[str, float] = field(default_factory=dict)
    test_classes: list[dict[str, Union[str, float, None]]] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    __pydantic_config__: ClassVar = ConfigDict(strict=True, extra="forbid")  # of files that are read

    @classmethod
    def complete(cls, trial: Trial, *, score: float, **facts: Any) -> TrialResult:
        return cls(**_identity(trial), state="COMPLETE", score=score, **facts)

    @classmethod
    def pruned(cls, trial: Trial, error: str | None, **facts: Any) -> TrialResult:
        """Stopped early for its candidate's sake, or diverged (``error`` says so)."""
        return cls(**_identity(trial), state="PRUNED", error=error, **facts)

    @classmethod
    def failed(cls, trial: Trial, error: str, **facts: Any) -> TrialResult:
        return cls(**_identity(trial), state="FAILED", error=error, **facts)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> TrialResult:
        return cls(**record)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@cache
def _strict_result() -> TypeAdapter[TrialResult]:
    return TypeAdapter(TrialResult)


def _identity(trial: Trial) -> dict[str, Any]:
    return {
        "trial_id": trial.id,
        "candidate_id": trial.candidate.id,
        "origin": trial.candidate.origin,
        "phase": trial.phase,
        "seed": trial.seed,
        "reason": trial.reason,
        "varied": trial.varied or "",
        "parameters": dict(trial.candidate.parameters),
    }


def write_result(folder: Path, result: TrialResult) -> None:
    write_atomic(folder / "trials" / result.trial_id / "result.json", json.dumps(result.to_dict(), indent=1))


def read_results(folder: Path) -> list[TrialResult]:
    """All finished trials of a sweep folder, by phase, candidate and seed. A result that cannot be read is
    left to run again: results are written whole, so such a file is not ours."""
    results = []
    for path in sorted((folder / "trials").glob("*/result.json")):
        try:
            result = _strict_result().validate_json(path.read_bytes())
            _require_sound(result, path.parent.name)
        except (ValueError, IsADirectoryError) as error:
            reason = str(error).splitlines()[0]
            logging.getLogger(__name__).warning("%s is no result (%s); its trial counts as not run", path, reason)
        else:
            results.append(result)
    return in_order(results)


def in_order(results: Iterable[TrialResult]) -> list[TrialResult]:
    """By phase, candidate and seed. What judges results sorts them first: the order of arrival is the machine's."""
    order = {"search": 0, "replicate": 1}
    return sorted(results, key=lambda r: (order.get(r.phase, 2), r.candidate_id, r.seed, r.trial_id))


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


def write_costs(folder: Path, totals: Mapping[str, float]) -> None:
    write_atomic(folder / "costs.json", json.dumps(dict(totals)))


def read_costs(folder: Path) -> dict[str, float]:
    """Sums of seconds and tokens over all runs of a sweep; empty before the first has ended."""
    file = folder / "costs.json"
    costs = read_json(file, "remove it: it says where time went, no more") if file.exists() else {}
    if costs and not (costs.keys() >= _COSTS and all(isinstance(v, int | float) and v >= 0 for v in costs.values())):
        raise FolderError(
            f"{file} lacks numbers, or has some that are none; remove it: it says where time went, no more"
        )
    return costs


def read_decisions(folder: Path) -> list[dict[str, Any]]:
    """What was decided on the way: rungs, promotions, allocations."""
    return list(read_json_lines(folder / "decisions.jsonl"))


def read_importance(folder: Path) -> dict[str, Any] | None:
    """What Optuna's evaluators said of the searched candidates; None where they were not asked."""
    file = folder / "importance.json"
    return read_json(file, "remove it; the next --resume makes it again") if file.exists() else None


def read_curves(folder: Path, trials: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """Evaluations of those trials that have some that can be read, by trial id."""
    found = {trial: read_curve(folder / "trials" / trial / "curve.parquet") for trial in trials}
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
        logging.getLogger(__name__).warning("%s is left out: %s", file, str(error).splitlines()[0])
        return []
    return [row for row in rows if all(isinstance(row.get(name), int | float) for name in CURVE_NUMBERS)]


def costs_summary(totals: Mapping[str, float]) -> dict[str, float]:
    """Where a sweep's time went, and what it made of its devices.

    Driver seconds are those on the path between two jobs; shares of the wall time are of all devices' together.
    ``mfu`` is the useful arithmetic of training over what the devices could have done in that time (large matrix
    products, measured at the start), validation apart. Ratios without a denominator are left out.
    """
    if not totals:
        return {}
    known = {"padding_of": 0.0, "padded_tokens": 0.0, "peak_flops": 0.0, "room_ticks": 0.0, **totals}
    wall_s = max(totals["wall_s"], 1e-9)
    summary = {
        "wall_s": totals["wall_s"],
        "trials": totals["trials"],
        "trials_per_hour": 3600 * totals["trials"] / wall_s,
        "driver_s_per_trial": totals["driver_s"] / max(1.0, totals["trials"]),
        "worker_starts": totals["worker_starts"],
        "worker_start_s_mean": totals["worker_start_s"] / max(1.0, totals["worker_starts"]),
        "training_share_of_wall": totals["training_s"] / max(totals["slot_s"], 1e-9),
        "train_tokens": totals["train_tokens"],
        "train_tokens_per_s": totals["train_tokens"] / wall_s,
    }
    if known["padding_of"]:
        summary["padding_ratio"] = known["padded_tokens"] / known["padding_of"]
    if known["peak_flops"]:
        possible = known["peak_flops"] * max(totals["slot_s"], 1e-9)
        summary["mfu"] = known["train_flops"] / possible
        summary["mfu_validation"] = known["validation_flops"] / possible
    if known["room_ticks"]:
        summary["pack_occupancy"] = known["slot_ticks"] / known["room_ticks"]
    if known.get("process_bytes"):
        summary["candidate_process_mb"] = known["process_bytes"] / 1e6
    return summary


def require_folder(folder: Path) -> Path:
    """A sweep folder that exists. Raises FolderError naming what was expected."""
    if not (folder / "resolved.yaml").is_file():
        raise FolderError(f"{folder} is no sweep folder (no resolved.yaml); expected <storage path>/<sweep name>")
    return folder


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
    path = folder / "results.parquet"
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


@dataclass(frozen=True)
class ScoreGrid:
    """Scores of candidates over seeds, (n_candidates, n_seeds); NaN where a trial has no score."""

    candidates: tuple[str, ...]
    seeds: tuple[int, ...]
    scores: NDArray[np.float64]

    @classmethod
    def from_results(cls, results: Iterable[TrialResult]) -> ScoreGrid:
        complete = [result for result in results if result.score is not None]
        candidates = tuple(dict.fromkeys(result.candidate_id for result in complete))
        seeds = tuple(sorted({result.seed for result in complete}))
        scores = np.full((len(candidates), len(seeds)), np.nan)
        for result in complete:
            scores[candidates.index(result.candidate_id), seeds.index(result.seed)] = result.score
        return cls(candidates, seeds, scores)

    def by_candidate(self) -> list[NDArray[np.float64]]:
        """The scores each candidate has, without the gaps."""
        return [row[np.isfinite(row)] for row in self.scores]
