"""Results: one JSON a trial, one table a sweep, and the grid of scores that statistics read."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from plmray.errors import FolderError
from plmray.files import read_json_lines, write_atomic
from plmray.trial import Trial

if TYPE_CHECKING:
    import pyarrow

State = Literal["COMPLETE", "PRUNED", "FAILED"]

_NUMBER_OR_NONE = (int, float, type(None))
_FIELD_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("candidate_id", "origin", "phase", "engine", "reason", "varied"), (str,)),
    **dict.fromkeys(("seed", "tokens"), (int,)),
    **dict.fromkeys(("epochs_run", "seconds"), (int, float)),
    **dict.fromkeys(("score", "test_score", "selected_epoch", "validation_loss"), _NUMBER_OR_NONE),
    **dict.fromkeys(("first_train_loss", "last_train_loss"), _NUMBER_OR_NONE),
    **dict.fromkeys(("test_scores", "parameters", "provenance"), (dict,)),
    "error": (str, type(None)),
    "probe": (bool,),
    "test_classes": (list,),
}


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
    phase: str
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
    test_classes: list[dict[str, Any]] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

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
            result = TrialResult.from_dict(json.loads(path.read_text(encoding="utf-8")))
            _require_sound(result, path.parent.name)
        except (ValueError, TypeError) as error:
            logging.getLogger(__name__).warning("%s is no result (%s); its trial counts as not run", path, error)
        else:
            results.append(result)
    order = {"search": 0, "replicate": 1}
    return sorted(results, key=lambda r: (order.get(r.phase, 2), r.candidate_id, r.seed))


def _require_sound(result: TrialResult, name: str) -> None:
    """Raise ValueError where a result's parts are not what they should be, or belong to another trial."""
    if result.trial_id != name:
        raise ValueError(f"it says it is trial {result.trial_id!r}")
    if result.state not in get_args(State):
        raise ValueError(f"its state is {result.state!r}")
    for field_name, kinds in _FIELD_TYPES.items():
        value = getattr(result, field_name)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ValueError(f"its {field_name} is {value!r}")
    if (result.score is not None) != (result.state == "COMPLETE"):
        raise ValueError(f"a trial that is {result.state} has the score {result.score!r}")


def write_costs(folder: Path, totals: Mapping[str, float]) -> None:
    write_atomic(folder / "costs.json", json.dumps(dict(totals)))


def read_costs(folder: Path) -> dict[str, float]:
    """Sums of seconds and tokens over all runs of a sweep; empty before the first has ended."""
    file = folder / "costs.json"
    costs: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
    return costs


def read_decisions(folder: Path) -> list[dict[str, Any]]:
    """What was decided on the way: rungs, promotions, allocations."""
    return list(read_json_lines(folder / "decisions.jsonl"))


def read_importance(folder: Path) -> dict[str, Any] | None:
    """What Optuna's evaluators said of the searched candidates; None where they were not asked."""
    file = folder / "importance.json"
    found: dict[str, Any] | None = json.loads(file.read_text()) if file.exists() else None
    return found


def read_curves(folder: Path, trials: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """Evaluations of those trials that have some, by trial id."""
    from pyarrow import parquet

    files = {trial: folder / "trials" / trial / "curve.parquet" for trial in trials}
    return {trial: parquet.read_table(file).to_pylist() for trial, file in files.items() if file.exists()}


def costs_summary(totals: Mapping[str, float]) -> dict[str, float]:
    """Where a sweep's time went, and what it made of its devices.

    Driver seconds are those on the path between two jobs; shares of the wall time are of all devices' together.
    ``mfu`` is the useful arithmetic of training over what the devices could have done in that time (large matrix
    products, measured at the start), validation apart. Ratios without a denominator are left out.
    """
    if not totals:
        return {}
    known = {"padding_of": 0.0, "padded_tokens": 0.0, "peak_flops": 0.0, "room_ticks": 0.0, **totals}
    summary = {
        "wall_s": totals["wall_s"],
        "trials": totals["trials"],
        "trials_per_hour": 3600 * totals["trials"] / totals["wall_s"],
        "driver_s_per_trial": totals["driver_s"] / max(1.0, totals["trials"]),
        "worker_starts": totals["worker_starts"],
        "worker_start_s_mean": totals["worker_start_s"] / max(1.0, totals["worker_starts"]),
        "training_share_of_wall": totals["training_s"] / totals["slot_s"],
        "train_tokens": totals["train_tokens"],
        "train_tokens_per_s": totals["train_tokens"] / totals["wall_s"],
    }
    if known["padding_of"]:
        summary["padding_ratio"] = known["padded_tokens"] / known["padding_of"]
    if known["peak_flops"]:
        possible = known["peak_flops"] * totals["slot_s"]
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
    parquet.write_table(results_table(results), sink)
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
