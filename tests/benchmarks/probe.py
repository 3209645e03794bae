"""The bundled encoder as a frozen probe, against the same architecture with random weights: five seeds a side.

    python -m tests.benchmarks.probe [--quick] [--json PATH]

A linear head on frozen states: secondary structure (a tenth of the training proteins) and disorder. Random weights are
drawn anew for every seed. No number here is a speed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from plmray.config.catalog.backbones import BUNDLED
from plmray.config.load import load_sweep
from plmray.stats.effects import welch_delta
from plmray.sweep.workers.single_trial import run_trial
from tests.benchmarks.common import DATA, Answer, main
from tests.benchmarks.pretrain import SHAPE
from tests.examples import write_sweep

ARMS = ("bundled", "random")
TASKS: dict[str, dict[str, Any]] = {
    "secondary_structure": {"dataset": "secondary_structure", "train_fraction": 0.1, "over_length": "cut"},
    "disorder": {"dataset": "disorder", "over_length": "cut"},
}


def run(quick: bool) -> Answer:
    answer = Answer("probe")
    seeds = range(101, 103 if quick else 106)
    for name, task in TASKS.items():
        small = {"train_fraction": 0.02} if quick else {}
        scores = {arm: np.array([test_score(task | small, arm, seed) for seed in seeds]) for arm in ARMS}
        for arm, own in scores.items():
            answer.figures[f"{name}, {arm}"] = {
                "mean": float(own.mean()),
                "sd": float(own.std(ddof=1)),
                "scores": own.tolist(),
            }
        found = welch_delta(scores["random"], scores["bundled"])
        answer.figures[f"{name}, difference"] = {"value": found.value, "low": found.low, "high": found.high}
        answer.gates[f"{name}: bundled above random (95 %, Welch)"] = bool(found.low > 0)
    return answer


def test_score(task: dict[str, Any], arm: str, seed: int) -> float:
    """At the lowest validation loss, of one trial."""
    random = {"name": "random", "init": "random", "init_seed": seed, "shape": SHAPE.model_dump()}
    train = {
        "backbone": BUNDLED if arm == "bundled" else random,
        "adapter": {"kind": "none"},
        "head": {"kind": "linear"},
        "optimizer": {"lr": 3e-3},
        "epochs": 10,
    }
    one: dict[str, Any] = {"space": {}, "search": {"candidates": 1}, "replicate": None, "objective": {}}
    with tempfile.TemporaryDirectory() as folder:
        sweep = load_sweep(write_sweep(Path(folder), task=task, train=train, **one))
        result = run_trial(sweep, {}, seed, DATA, take_test=True, echo=lambda text: None)
    assert result.test_score is not None, result.error
    sys.stderr.write(f"{task['dataset']} {arm} {seed}: {result.test_score:.4f}\n")
    return result.test_score


if __name__ == "__main__":
    main("probe", run, __doc__ or "")
