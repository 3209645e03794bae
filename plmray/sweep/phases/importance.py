"""Optuna's view beside ours: importance of hyperparameters among searched candidates, with the seed's share added."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

from plmray.config.fields.sweep import SweepSpec
from plmray.metrics import METRICS
from plmray.stats.spread import pooled_seed_sd
from plmray.storage import layout
from plmray.storage.atomic import write_atomic
from plmray.sweep.phases.study import as_distribution, as_internal
from plmray.trials import selection
from plmray.trials.result import TrialResult, in_order

FEWEST = 10  # complete candidates


def write_importance(folder: Path, spec: SweepSpec, results: Sequence[TrialResult]) -> None:
    """Keep what Optuna says in ``importance.json``; nothing where it has too little to go by."""
    found = importance(spec, results)
    if found is not None:
        write_atomic(folder / layout.IMPORTANCE, json.dumps(found, indent=1))


def importance(spec: SweepSpec, results: Sequence[TrialResult]) -> dict[str, Any] | None:
    """fANOVA's and PED-ANOVA's importance of the parameters that every searched candidate has.

    The candidates were proposed by an optimiser, so this speaks of where it looked, not of the space (``adaptive`` says
    so). On pure noise these evaluators hand everything to the parameters; hence ``residual``, the share of the spread
    of candidate means that is seed luck, by which fANOVA's shares are scaled down. PED-ANOVA's are relative, as Optuna
    gives them. None with fewer than ten complete candidates or two parameters, or without any seed spread.
    """
    results = in_order(results)
    cells = _cells(results)
    keys = [key for key in spec.space if all(key in parameters for parameters, _ in cells)]
    residual = _residual(results, [scores for _, scores in cells])
    if len(cells) < FEWEST or len(keys) < 2 or residual is None or find_spec("sklearn") is None:
        return None
    study = _study(spec, cells, keys)
    fanova = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    ped = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    return {
        "adaptive": spec.search.sampler not in ("random", "sobol", "grid") or spec.search.scheduler != "none",
        "candidates": len(cells),
        "residual": residual,
        "fanova": {key: float(value) * (1 - residual) for key, value in fanova.items()},
        "ped_anova": {key: float(value) for key, value in ped.items()},
    }


Cell = tuple[dict[str, Any], np.ndarray[Any, np.dtype[np.float64]]]


def _cells(results: Sequence[TrialResult]) -> list[Cell]:
    """Parameters and scores of every candidate whose search seeds are all complete."""
    searched = selection.by_candidate(selection.main(results, "search")).values()
    whole = [own for own in searched if len(selection.scored(own)) == len(own)]
    return [(own[0].parameters, np.array([r.score for r in own], dtype=float)) for own in whole]


def _residual(results: Sequence[TrialResult], scores: list[Any]) -> float | None:
    """Share of the variance of candidate means that the seed makes; the spread is borrowed from the replicates where
    the search has one seed."""
    spread = pooled_seed_sd(scores)
    if not spread.degrees:
        replicated = selection.by_candidate(selection.main(selection.scored(results), "replicate"))
        spread = pooled_seed_sd([np.array([r.score for r in own], dtype=float) for own in replicated.values()])
    means = [float(own.mean()) for own in scores]
    if not spread.degrees or len(means) < 2 or np.var(means) == 0:
        return None
    noise = spread.sd.value**2 / float(np.mean([len(own) for own in scores]))
    return min(1.0, noise / float(np.var(means, ddof=1)))


def _study(spec: SweepSpec, cells: Sequence[Cell], keys: Sequence[str]) -> optuna.Study:
    study = optuna.create_study(direction=METRICS[spec.objective.metric].direction)
    distributions = {key: as_distribution(spec.space[key]) for key in keys}
    for parameters, scores in cells:
        params = {key: as_internal(spec.space[key], parameters[key]) for key in keys}
        value = float(scores.mean())
        if math.isfinite(value):
            study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=value))
    return study
