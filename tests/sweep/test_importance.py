"""Optuna's importance with a seed share beside it, on searched candidates that are made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from plmray.sweep.phases.importance import importance
from plmray.trials.result import TrialResult
from tests.examples import tiny_sweep

SPACE = {
    "optimizer.lr": {"kind": "float", "low": 1e-4, "high": 1e-2, "log": True},
    "adapter.rank": {"kind": "ordinal", "values": [2, 4, 8]},
    "head.kind": {"kind": "choice", "values": ["linear", "dense"]},
}


def searched(rng: np.random.Generator, effect: float, candidates: int = 40) -> list[TrialResult]:
    results = []
    for number in range(candidates):
        parameters = {
            "optimizer.lr": float(10 ** rng.uniform(-4, -2)),
            "adapter.rank": int(rng.choice([2, 4, 8])),
            "head.kind": str(rng.choice(["linear", "dense"])),
        }
        for seed in (0, 1):
            score = effect * np.log10(parameters["optimizer.lr"]) + 0.2 * rng.normal()
            facts = {"trial_id": f"c{number}-s{seed}", "candidate_id": f"c{number}", "origin": "searched", "seed": seed}
            results.append(
                TrialResult(phase="search", state="COMPLETE", score=float(score), parameters=parameters, **facts)
            )
    return results


def test_a_real_effect_is_seen_and_noise_is_left_to_the_seed(tmp_path: Path) -> None:
    spec = tiny_sweep(tmp_path, space=SPACE).spec
    real, noise = (importance(spec, searched(np.random.default_rng(0), effect)) for effect in (1.0, 0.0))
    assert real is not None and noise is not None
    assert real["fanova"]["optimizer.lr"] > 0.7 and real["residual"] < 0.15
    assert noise["residual"] > 0.6
    assert sum(noise["fanova"].values()) == pytest.approx(1 - noise["residual"])
    assert not real["adaptive"]  # this sweep samples at random
    assert importance(spec, searched(np.random.default_rng(0), 1.0, candidates=5)) is None
