"""Replaying a sweep folder into MLflow: the folder is the truth, MLflow the mirror."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from plmray.config.fields.sweep import SweepSpec
from plmray.config.parameters import flat
from plmray.errors import SetupError, first_line
from plmray.redact import redacted
from plmray.report.judge import candidate_summaries
from plmray.report.verdict import Verdict
from plmray.report.write import judge_folder, write_report
from plmray.sweep.folder.costs import costs_summary, read_costs
from plmray.sweep.folder.reader import load_resolved, recorded_tracking
from plmray.sweep.folder.writer import SweepFolder
from plmray.sweep.tracking.mirror import Mirror, log_outcome
from plmray.trials import provenance
from plmray.trials.result import TrialResult
from plmray.trials.table import write_table


def sync_folder(path: Path, uri: str | None, address: str | None = None) -> tuple[int, str]:
    """Send everything of a sweep folder that MLflow lacks. Returns the number of trials and the store.

    ``address``: where the folder lasts, if ``path`` is a copy.

    Raises SetupError when the store cannot be reached.
    """
    folder = SweepFolder(path)
    spec = load_resolved(path)
    store = uri or _with_secrets(str(recorded_tracking(path)["uri"]))
    metric = spec.objective.metric
    mirror = Mirror(store, spec.tracking.experiment, folder.sweep_id, spec.name, metric)
    try:
        mirror.connect()
    except Exception as error:
        raise SetupError(redacted(f"MLflow at {store} cannot be reached: {first_line(error)}")) from error
    tags = {"plmray.folder": address or str(path.resolve())}
    tags |= {f"plmray.version.{name}": str(version) for name, version in provenance.software().items()}
    mirror.start_sweep(sweep_params(spec), tags, recorded_tracking(path)["data"])
    results = list(folder.results.values())
    for result in results:
        mirror.log_curve(result, folder.read_curve(result.trial_id))
        mirror.finish_trial(result)
    verdict = judge_folder(path, spec, results)
    costs = costs_summary(read_costs(path))
    write_outcome(path, verdict, spec.name, results)
    mirror.finish_candidates(candidate_summaries(results, spec.objective.metric))
    log_outcome(
        mirror, verdict, path, costs, "complete" if not any(r.state == "FAILED" for r in results) else "failures"
    )
    return len(results), redacted(store)


def _with_secrets(recorded: str) -> str:
    """The store a sweep used, with the password that the environment has for it."""
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    return given if redacted(given) == recorded else recorded


def sweep_params(spec: SweepSpec) -> dict[str, object]:
    params: dict[str, object] = {f"train.{key}": value for key, value in flat(spec.train).items()}
    return params | {f"search.{key}": value for key, value in flat(spec.search).items() if key != "given"}


def write_outcome(path: Path, verdict: Verdict, name: str, results: Sequence[TrialResult]) -> None:
    """The table of all trials, and the report."""
    write_table(path, results)
    write_report(path, verdict, name, results)
