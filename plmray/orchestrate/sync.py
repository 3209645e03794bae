"""Replaying a sweep folder into MLflow: the folder is the truth, MLflow the mirror."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plmray.errors import FolderError, SetupError
from plmray.files import write_atomic
from plmray.orchestrate import provenance
from plmray.orchestrate.folder import SweepFolder
from plmray.orchestrate.tracking import Mirror, log_outcome
from plmray.report.verdict import candidate_summaries
from plmray.report.write import judge_folder, write_report
from plmray.results import costs_summary, read_costs, write_table
from plmray.spec.checks import flat
from plmray.spec.load import load_resolved
from plmray.spec.sweep import SweepSpec


def sync_folder(path: Path, uri: str | None) -> tuple[int, str]:
    """Send everything of a sweep folder that MLflow lacks. Returns the number of trials and the store.

    Raises SetupError when the store cannot be reached.
    """
    folder = SweepFolder(path)
    spec = load_resolved(path)
    store = uri or str(recorded_tracking(path)["uri"])
    metric = spec.objective.metric
    mirror = Mirror(store, spec.tracking.experiment, folder.sweep_id, spec.name, metric)
    try:
        mirror.connect()
    except Exception as error:
        raise SetupError(f"MLflow at {store} cannot be reached: {str(error).splitlines()[0]}") from error
    tags = {"plmray.folder": str(path.resolve())}
    tags |= {f"plmray.version.{name}": str(version) for name, version in provenance.software().items()}
    mirror.start_sweep(sweep_params(spec), tags, recorded_tracking(path)["data"])
    results = list(folder.results.values())
    for result in results:
        mirror.log_curve(result, folder.read_curve(result.trial_id))
        mirror.finish_trial(result)
    write_table(path, results)
    verdict = judge_folder(path, spec, results)
    costs = costs_summary(read_costs(path))
    write_report(path, verdict, spec.name, results)
    mirror.finish_candidates(candidate_summaries(results))
    log_outcome(
        mirror, verdict, path, costs, "complete" if not any(r.state == "FAILED" for r in results) else "failures"
    )
    return len(results), store


def sweep_params(spec: SweepSpec) -> dict[str, object]:
    params: dict[str, object] = {f"train.{key}": value for key, value in flat(spec.train).items()}
    return params | {f"search.{key}": value for key, value in flat(spec.search).items() if key != "given"}


def record_tracking(path: Path, uri: str, data: Mapping[str, Any]) -> None:
    """Keep in the folder what a later sync needs: the store, and the data set's name, hash, source and counts."""
    write_atomic(path / "tracking.json", json.dumps({"uri": uri, "data": dict(data)}))


def recorded_tracking(path: Path) -> dict[str, Any]:
    """What ``record_tracking`` kept. Raises FolderError where the sweep has not begun."""
    file = path / "tracking.json"
    if not file.exists():
        raise FolderError(f"{path} has no tracking.json: its sweep has not begun; run it with --resume")
    found: dict[str, Any] = json.loads(file.read_text())
    return found
