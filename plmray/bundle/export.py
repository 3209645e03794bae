"""From a sweep folder to a bundle: the replicated seeds of one candidate, with all that predicting needs."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from plmray.bundle.card import model_card
from plmray.bundle.folder import BundleFacts, seed_folder
from plmray.config.backbone_names import family, local_folder, longest_residues, weights_hash
from plmray.config.catalog.backbones import known_backbone
from plmray.config.fields.sweep import SweepSpec
from plmray.config.parameters import with_parameters
from plmray.errors import FolderError, nearest_name
from plmray.metrics import METRICS
from plmray.model.backbones import fetch_weights
from plmray.report.losses import split_off
from plmray.report.rows import CandidateRow
from plmray.report.verdict import OverProteins, Verdict
from plmray.report.write import judge_folder
from plmray.storage import layout
from plmray.storage.atomic import read_json, write_atomic
from plmray.sweep.folder.reader import load_resolved, read_resolved, read_results, require_folder, require_schema
from plmray.train.checkpoint import CHECKPOINT_FILES, HEAD_FILE, require_whole
from plmray.trials import selection
from plmray.trials.identity import candidate_id
from plmray.trials.result import TrialResult
from plmray.trials.trial import identifying_settings, identifying_task


def export(folder: Path, out: Path, candidate: str | None = None) -> BundleFacts:
    """Write a bundle of the best replicated candidate, or of ``candidate``. Raises FolderError where none has weights.

    The bundle appears whole or not at all.
    """
    if out.exists():
        raise FolderError(f"{out} is there already; give another name, or remove it")
    spec, results = load_resolved(require_folder(folder)), read_results(folder)
    require_schema(folder)
    row, verdict = _chosen(folder, spec, results, candidate)
    trials = _trials_with_weights(folder, results, row.candidate_id, METRICS[spec.objective.metric].sign)
    base = Path(read_resolved(folder)["folder"])
    facts = _facts(folder, base, spec, row, trials, _scores(row, trials, verdict.over_proteins))
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        facts = _with_backbone(facts, base, temporary)
        for trial in trials:
            _copy_weights(
                layout.trial_folder(folder, trial.trial_id) / layout.ADAPTER, seed_folder(temporary, trial.seed)
            )
        facts.write(temporary)
        write_atomic(temporary / "README.md", model_card(facts))
        write_atomic(temporary / "MLmodel", yaml.safe_dump(mlflow_model(), sort_keys=False))
        temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return facts


def _copy_weights(source: Path, target: Path) -> None:
    """The files of a checkpoint, whole, and no others; a link could lead anywhere."""
    target.mkdir(parents=True)
    for name in CHECKPOINT_FILES:
        if (source / name).is_symlink():
            raise FolderError(f"{source / name} is a link; a checkpoint has files of its own")
        if (source / name).is_file():
            shutil.copy2(source / name, target / name)
    require_whole(source)


def mlflow_model() -> dict[str, Any]:
    """What tells MLflow how to load the folder: by our own loader, without a pickle."""
    loader = {"loader_module": "plmray.bundle.pyfunc", "data": ".", "env": {}}
    return {"flavors": {"python_function": loader}}


def _chosen(
    folder: Path, spec: SweepSpec, results: Sequence[TrialResult], candidate: str | None
) -> tuple[CandidateRow, Verdict]:
    verdict = judge_folder(folder, spec, results)
    replicated = {result.candidate_id for result in selection.main(results, "replicate")}
    rows = [row for row in verdict.candidates if row.candidate_id in replicated or not replicated]
    if candidate is None and rows:
        return rows[0], verdict
    found = next((row for row in verdict.candidates if row.candidate_id == candidate), None)
    if found is None:
        known = [row.candidate_id for row in verdict.candidates]
        hint = nearest_name(candidate or "", known) if known else "no trial is complete yet"
        raise FolderError(f"{folder} has no finished candidate '{candidate}'; {hint}")
    return found, verdict


def _trials_with_weights(
    folder: Path, results: Sequence[TrialResult], candidate: str, sign: float
) -> list[TrialResult]:
    """One trial a seed: of the replicate phase where it has some; a run that collapsed predicts for nobody."""
    sound = [r for phase in ("replicate", "search") for r in split_off(selection.main(results, phase), sign)[0]]
    own = selection.of(candidate, sound)
    kept = [r for r in own if (layout.trial_folder(folder, r.trial_id) / layout.ADAPTER / HEAD_FILE).is_file()]
    replicated = selection.main(kept, "replicate")
    if not kept:
        raise FolderError(
            f"no weights were kept of {candidate}: resources.keep decides (replicate: of the replicate phase; best: of "
            "all). Set it and run the sweep under another name."
        )
    return sorted(replicated or kept, key=lambda result: result.seed)


def _facts(
    folder: Path,
    base: Path,
    spec: SweepSpec,
    row: CandidateRow,
    trials: Sequence[TrialResult],
    scores: dict[str, Any],
) -> BundleFacts:
    file = folder / layout.DATA
    if not file.is_file():
        raise FolderError(
            f"{folder} has no {layout.DATA}: an earlier plmray made it. Resume the sweep once, then export."
        )
    data = _read_data(file)
    try:
        settings = with_parameters(spec.train, row.parameters)
    except ValidationError as error:
        raise FolderError(f"{row.candidate_id} has parameters that do not fit its sweep: {error}") from error
    if settings.pooling == "padded_mean":
        raise FolderError(
            "pooling: padded_mean makes a prediction depend on its neighbours; it is for comparison alone"
        )
    task, provenance = spec.task, trials[0].provenance
    fetch_weights(settings.backbone, base)
    weights = weights_hash(settings.backbone, base)
    identity = candidate_id(
        settings=identifying_settings(settings, task.level),
        task=identifying_task(task) | {"metric": spec.objective.metric},
        data_hash=data["hash"],
        weights_hash=weights,
        precision=data["precision"],
    )
    if identity != row.candidate_id:
        raise FolderError(
            f"{row.candidate_id} was trained on other data, at another precision or on other weights of "
            f"'{settings.backbone.name}' than are here now; bring those back, then export"
        )
    return BundleFacts(
        name=spec.name,
        candidate_id=row.candidate_id,
        kind=task.kind,
        level=task.level,
        metric=spec.objective.metric,
        classes=tuple(data["classes"]),
        settings=settings,
        family=family(settings.backbone, base),
        precision=data["precision"],
        weights_hash=weights,
        data_hash=data["hash"],
        tokenizer=data["tokenizer"],
        seeds=tuple(trial.seed for trial in trials),
        window=tuple(data["window"]),
        longest=longest_residues(settings.backbone, base),
        cut_at=task.max_length if task.over_length == "cut" else None,
        columns={field: name for field in ("sequence", "id") if (name := getattr(task.columns, field)) is not None},
        scores=scores,
        software={key: provenance[key] for key in ("plmray", "torch", "transformers", "peft") if key in provenance},
    )


def _read_data(file: Path) -> dict[str, Any]:
    """``data.json``. Raises FolderError where it is not what a sweep writes."""
    advice = "resume the sweep once, and it is written again"
    data = read_json(file, advice)
    kinds = {"hash": str, "precision": str, "classes": list, "window": list, "tokenizer": dict}
    wrong = [key for key, kind in kinds.items() if not isinstance(data.get(key), kind)]
    if wrong:
        raise FolderError(f"{file} is damaged ({', '.join(wrong)}); {advice}")
    return data


def _scores(row: CandidateRow, trials: Sequence[TrialResult], both: OverProteins | None) -> dict[str, Any]:
    """Numbers of the verdict; null where there is none. ``both``: over other proteins, too."""
    over = both.scores.get(row.candidate_id) if both else None
    tests = [trial.test_scores for trial in trials]
    found = {name: [t[name] for t in tests if math.isfinite(t.get(name, math.nan))] for t in tests for name in t}
    means = {name: sum(values) / len(values) for name, values in found.items() if values}
    numbers = {
        "mean": row.mean.value,
        "low": row.mean.low,
        "high": row.mean.high,
        "seed_sd": row.sd,
        "num_seeds": row.num_seeds,
        "test_mean": row.test_mean.value,
        "test_low": row.test_mean.low,
        "test_high": row.test_mean.high,
        "test_proteins_low": over.low if over else math.nan,
        "test_proteins_high": over.high if over else math.nan,
    }
    known = {name: None if value != value else value for name, value in numbers.items()}
    return known | {"test_scores": means}


def _with_backbone(facts: BundleFacts, base: Path, out: Path) -> BundleFacts:
    """Copy an encoder that came from a local folder; others are found by their name."""
    backbone = facts.settings.backbone
    source = local_folder(backbone.name, base) if backbone.init == "pretrained" else None
    if source is None or known_backbone(backbone.name) is not None:
        return facts
    wanted = [file for file in source.iterdir() if file.suffix in (".json", ".txt", ".model", ".safetensors")]
    if not any(file.suffix == ".safetensors" for file in wanted):
        raise FolderError(
            f"{source} has no safetensors, and a bundle holds no pickles; save the model anew, then export"
        )
    (out / "backbone").mkdir(parents=True)
    for file in wanted:
        shutil.copy2(file, out / "backbone" / file.name)
    inside = backbone.model_copy(update={"name": "./backbone"})
    return replace(facts, settings=facts.settings.model_copy(update={"backbone": inside}))
