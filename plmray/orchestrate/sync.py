"""Replaying a sweep folder into MLflow: the folder is the truth, MLflow the mirror."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from plmray.errors import SetupError
from plmray.orchestrate import provenance
from plmray.orchestrate.folder import SweepFolder
from plmray.orchestrate.tracking import Mirror, log_outcome, tracking_uri
from plmray.report.verdict import candidate_summaries, judge
from plmray.report.write import write_report
from plmray.results import costs_summary, read_costs, write_table
from plmray.spec.checks import flat
from plmray.spec.sweep import SweepSpec


def sync_folder(path: Path, uri: str | None) -> tuple[int, str]:
    """Send everything of a sweep folder that MLflow lacks. Returns the number of trials and the store.

    Raises SetupError when the store cannot be reached.
    """
    folder = SweepFolder(path)
    resolved = yaml.safe_load((path / "resolved.yaml").read_text())
    spec = SweepSpec.model_validate_json(json.dumps(resolved["sweep"]))
    store = uri or recorded_store(path) or tracking_uri(spec.tracking.uri, Path.cwd())
    metric = spec.objective.metric
    mirror = Mirror(store, spec.tracking.experiment, folder.sweep_id, spec.name, metric, path)
    try:
        mirror.connect()
    except Exception as error:
        raise SetupError(f"MLflow at {store} cannot be reached: {str(error).splitlines()[0]}") from error
    tags = {"plmray.folder": str(path.resolve())}
    tags |= {f"plmray.version.{name}": str(version) for name, version in provenance.software().items()}
    data = {"name": spec.task.dataset or "files", "hash": "", "source": spec.task.files or "", "profile": {}}
    mirror.start_sweep(sweep_params(spec), tags, data)
    results = list(folder.results.values())
    for result in results:
        mirror.log_curve(result, folder.read_curve(result.trial_id))
        mirror.finish_trial(result)
    write_table(path, results)
    verdict = judge(results, metric)
    costs = costs_summary(read_costs(path))
    write_report(path, verdict, spec.name, costs)
    mirror.finish_candidates(candidate_summaries(results))
    log_outcome(
        mirror, verdict, path, costs, "complete" if not any(r.state == "FAILED" for r in results) else "failures"
    )
    return len(results), store


def sweep_params(spec: SweepSpec) -> dict[str, object]:
    params: dict[str, object] = {f"train.{key}": value for key, value in flat(spec.train).items()}
    return params | {f"search.{key}": value for key, value in flat(spec.search).items() if key != "given"}


def record_store(path: Path, uri: str) -> None:
    from plmray.files import write_atomic

    write_atomic(path / "tracking.json", json.dumps({"uri": uri}))


def recorded_store(path: Path) -> str | None:
    file = path / "tracking.json"
    return str(json.loads(file.read_text())["uri"]) if file.exists() else None
