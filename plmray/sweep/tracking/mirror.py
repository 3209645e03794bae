"""MLflow as a live mirror of the sweep folder: sweep run → candidate runs → trial runs.

One writer, in the driver, on its own thread. A tracking server that is down delays nothing: what it
missed is sent later, or by ``plmray sync``, which replays the folder. Nothing is ever read back.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from plmray.redact import redacted
from plmray.report.verdict import Verdict
from plmray.storage import layout
from plmray.sweep.tracking.database import make_database
from plmray.trials.result import TrialResult
from plmray.trials.trial import Candidate

logger = logging.getLogger(__name__)

_CURVE_METRICS = {
    "train_loss": "train/loss",
    "validation_loss": "validation/loss",
    "learning_rate": "learning_rate",
}


def tracking_uri(given: str | None, default_folder: Path) -> str:
    """The store: from the sweep file, then MLFLOW_TRACKING_URI, then SQLite in ``default_folder``."""
    return given or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{default_folder.resolve() / 'mlflow.db'}"


@dataclass
class Mirror:
    """Runs of one sweep in MLflow, created as they are first spoken of and found again by our own tags."""

    uri: str
    experiment: str
    sweep_id: str
    sweep_name: str
    metric: str
    _client: Any = None
    _experiment_id: str = ""
    _runs: dict[str, str] = field(default_factory=dict)
    _finished: set[str] = field(default_factory=set)
    _described: set[str] = field(default_factory=set)
    _last_step: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def is_installed() -> bool:
        return find_spec("mlflow") is not None

    def connect(self) -> None:
        """Open the store, find the experiment and the runs an earlier driver made. Raises where it is down."""
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        from mlflow import MlflowClient

        make_database(self.uri)
        client = MlflowClient(tracking_uri=self.uri)
        experiment = client.get_experiment_by_name(self.experiment)
        if experiment is not None and experiment.lifecycle_stage == "deleted":
            raise Refused(f"its experiment '{self.experiment}' is deleted; restore it, or rename tracking.experiment")
        self._experiment_id = (
            experiment.experiment_id
            if experiment
            else client.create_experiment(self.experiment, artifact_location=self._artifacts())
        )
        self._find_runs(client)
        self._client = client

    def start_sweep(self, params: Mapping[str, Any], tags: Mapping[str, str], data: Mapping[str, Any]) -> None:
        run_id = self._run("sweep", self.sweep_name, None, tags)
        if "sweep" not in self._described:
            self._log_params(run_id, params)
            self._log_input(run_id, data)
            self._described.add("sweep")

    def start_candidate(self, candidate: Candidate) -> None:
        self._candidate_run(candidate.id, candidate.origin, candidate.parameters)

    def log_curve(self, trial: TrialResult, evaluations: Sequence[Mapping[str, Any]]) -> None:
        """Evaluations of a trial, each step once however often it is told."""
        from mlflow.entities import Metric

        run_id = self._trial_run(trial)
        if f"trial:{trial.trial_id}" in self._finished:
            return
        last = self._last_step.get(run_id, 0)
        fresh = [e for e in evaluations if e["step"] > last]
        now = int(time.time() * 1000)
        metrics = [
            Metric(name, float(evaluation[key]), now, int(evaluation["step"]))
            for evaluation in fresh
            for key, name in {**_CURVE_METRICS, "score": f"validation/{self.metric}"}.items()
        ]
        for start in range(0, len(metrics), 1000):
            self._client.log_batch(run_id, metrics=metrics[start : start + 1000])
        if fresh:
            self._last_step[run_id] = max(e["step"] for e in fresh)

    def finish_trial(self, result: TrialResult) -> None:
        key = f"trial:{result.trial_id}"
        if key in self._finished:
            return
        run_id = self._trial_run(result)
        numbers = {
            "score": result.score,
            "test_score": result.test_score,
            "selected_epoch": result.selected_epoch,
            "epochs_run": result.epochs_run,
            "seconds": result.seconds,
            "tokens": result.tokens,
            **{f"test/{name}": value for name, value in result.test_scores.items()},
        }
        tags = {"plmray.state": result.state, "plmray.engine": result.engine}
        tags |= {f"plmray.provenance.{name}": str(value) for name, value in result.provenance.items()}
        if result.error:
            tags["plmray.error"] = redacted(result.error)[:5000]
        self._log(run_id, numbers, tags)
        status = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAILED": "FAILED"}[result.state]
        self._client.set_terminated(run_id, status)
        self._finished.add(key)

    def finish_candidates(self, summaries: Mapping[str, Mapping[str, float]]) -> None:
        """score.mean, score.sd and n_seeds of every candidate; one without a score was pruned throughout."""
        for key, run_id in self._runs.items():
            kind, _, candidate_id = key.partition(":")
            if kind == "candidate":
                numbers = summaries.get(candidate_id)
                self._log(run_id, numbers or {}, {})
                self._client.set_terminated(run_id, "FINISHED" if numbers else "KILLED")

    def finish_sweep(self, numbers: Mapping[str, float], files: Sequence[Path], status: str) -> None:
        run_id = self._runs["sweep"]
        self._log(run_id, numbers, {"plmray.status": status})
        for file in files:
            if file.exists():
                self._client.log_artifact(run_id, str(file))
        self._client.set_terminated(run_id, "FINISHED" if status == "complete" else "FAILED")

    def _artifacts(self) -> str | None:
        """SQLite has no place for files of its own: they go beside the database."""
        if not self.uri.startswith("sqlite:///"):
            return None
        return (Path(self.uri.removeprefix("sqlite:///")).resolve().parent / "mlartifacts" / self.experiment).as_uri()

    def _find_runs(self, client: Any) -> None:
        token: str | None = None
        while True:
            page = client.search_runs(
                [self._experiment_id], f"tags.`plmray.sweep_id` = '{self.sweep_id}'", max_results=1000, page_token=token
            )
            for run in page:
                key = run.data.tags.get("plmray.key", "")
                self._runs[key] = run.info.run_id
                if run.inputs.dataset_inputs if key == "sweep" else run.data.params:
                    self._described.add(key)
                if not key.startswith("trial:"):
                    continue
                ended = run.info.status != "RUNNING"  # a driver may have died between the state and the end
                if ended and run.data.tags.get("plmray.state") in ("COMPLETE", "PRUNED"):  # a failed one may run again
                    self._finished.add(key)
                else:
                    history = client.get_metric_history(run.info.run_id, "validation/loss")
                    self._last_step[run.info.run_id] = max((point.step for point in history), default=0)
            token = page.token
            if not token:
                return

    def _run(self, key: str, name: str, parent: str | None, tags: Mapping[str, str]) -> str:
        if key not in self._runs:
            all_tags = {
                "mlflow.runName": name,
                "mlflow.user": os.environ.get("USER", "plmray"),
                "plmray.sweep_id": self.sweep_id,
                "plmray.key": key,
                **tags,
            }
            if parent is not None:
                all_tags["mlflow.parentRunId"] = parent
            run = self._client.create_run(self._experiment_id, tags=all_tags, run_name=name)
            self._runs[key] = run.info.run_id
        return self._runs[key]

    def _candidate_run(self, candidate_id: str, origin: str, parameters: Mapping[str, Any]) -> str:
        key = f"candidate:{candidate_id}"
        tags = {"plmray.candidate_id": candidate_id, "plmray.origin": origin}
        run_id = self._run(key, candidate_id, self._runs["sweep"], tags)
        if key not in self._described:
            self._log_params(run_id, parameters)
            self._described.add(key)
        return run_id

    def _trial_run(self, trial: TrialResult) -> str:
        parent = self._candidate_run(trial.candidate_id, trial.origin, trial.parameters)
        key = f"trial:{trial.trial_id}"
        tags = {
            "plmray.trial_id": trial.trial_id,
            "plmray.candidate_id": trial.candidate_id,
            "plmray.phase": trial.phase,
            "plmray.seed": str(trial.seed),
            **({"plmray.reason": trial.reason} if trial.reason else {}),
            **({"plmray.varied": trial.varied} if trial.varied else {}),
        }
        run_id = self._run(key, f"{trial.phase} {trial.varied or 'seed'} {trial.seed}", parent, tags)
        if key not in self._described:
            self._log_params(run_id, {**trial.parameters, "seed": trial.seed})
            self._described.add(key)
        return run_id

    def _log(self, run_id: str, numbers: Mapping[str, float | int | None], tags: Mapping[str, str]) -> None:
        from mlflow.entities import Metric, RunTag

        now = int(time.time() * 1000)
        metrics = [Metric(n, float(v), now, 0) for n, v in numbers.items() if v is not None and v == v]
        self._client.log_batch(run_id, metrics=metrics, tags=[RunTag(name, value) for name, value in tags.items()])

    def _log_params(self, run_id: str, parameters: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        named = [Param(key, str(value)[:500]) for key, value in parameters.items()]
        if named:
            self._client.log_batch(run_id, params=named)

    def _log_input(self, run_id: str, data: Mapping[str, Any]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=str(data["name"]),
            digest=str(data["hash"])[:36],
            source_type="plmray",
            source=str(data["source"]),
            profile=str(data["profile"]),
        )
        self._client.log_inputs(run_id, datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", "sweep")])])


class Refused(Exception):
    """What MLflow will not take, however often it is told."""


def log_outcome(mirror: Mirror, verdict: Verdict, folder: Path, costs: Mapping[str, float], status: str) -> None:
    """The end of a sweep on its run: shares with their intervals, costs, report and table."""
    numbers: dict[str, float] = {f"cost.{key}": value for key, value in costs.items()}
    if verdict.shares is not None:
        for name, share in (("seed", verdict.shares.seed_share), ("hyperparameters", verdict.shares.candidate_share)):
            numbers |= {f"share.{name}": share.value, f"share.{name}.low": share.low, f"share.{name}.high": share.high}
    if verdict.parameters is not None:
        numbers |= {f"share.{name}": share.value for name, share in verdict.parameters.parameters.items()}
    if verdict.spread.degrees:
        numbers["seed.sd"] = verdict.spread.sd.value
    files = [folder / name for name in (*layout.REPORT_FILES, layout.TABLE, layout.RESOLVED)]
    mirror.finish_sweep(numbers, files, status)
