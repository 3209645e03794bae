"""Planted functions whose shares are known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from plmray.stats.surrogate import parameter_shares

COLUMNS = {"rate": [0], "width": [1], "kind": [2, 3]}
SEED_SD = 0.3


def space(rng: np.random.Generator, size: int) -> np.ndarray:
    kind = rng.integers(2, size=size)
    return np.column_stack([rng.uniform(size=(size, 2)), kind == 0, kind == 1]).astype(float)


def effect(x: np.ndarray) -> np.ndarray:
    """Var: sin² → 1/2 for the rate, 0 for the width, .25 for the kind, and an interaction of .09 · Var(x0 part)."""
    return np.sin(2 * np.pi * x[:, 0]) + x[:, 2] + 0.0 * x[:, 1]


TRUTH = {"rate": 0.5 / (0.5 + 0.25 + 0.09), "width": 0.0, "kind": 0.25 / (0.5 + 0.25 + 0.09)}


def judged(rng: np.random.Generator, anchors: int = 40, seeds: int = 5):
    codes = space(rng, anchors)
    scores = effect(codes)[:, None] + SEED_SD * rng.normal(size=(anchors, seeds))
    noise = float(scores.var(axis=1, ddof=1).mean())
    counts = np.full(anchors, seeds)
    draws = space(rng, 2048), space(rng, 2048)
    return parameter_shares(codes, scores.mean(axis=1), counts, noise, anchors * (seeds - 1), COLUMNS, draws, rng)


def test_recovers_planted_shares_and_gives_noise_to_the_seed() -> None:
    found = [judged(np.random.default_rng(seed)) for seed in range(8)]
    for name, truth in TRUTH.items():
        assert np.mean([f.parameters[name].value for f in found]) == pytest.approx(truth, abs=0.05), name
    assert np.mean([f.seed.value for f in found]) == pytest.approx(0.09 / 0.84, abs=0.03)
    assert np.mean([f.interactions.value for f in found]) < 0.07
    assert np.mean([f.lack_of_fit_p > 0.05 for f in found]) > 0.6


def test_pure_noise_is_the_seeds() -> None:
    """Where fANOVA would hand everything to the parameters."""
    rng = np.random.default_rng(0)
    codes = space(rng, 40)
    scores = rng.normal(size=(40, 5))
    noise = float(scores.var(axis=1, ddof=1).mean())
    draws = space(rng, 2048), space(rng, 2048)
    found = parameter_shares(codes, scores.mean(axis=1), np.full(40, 5), noise, 160, COLUMNS, draws, rng)
    assert found.seed.value > 0.8
    assert all(estimate.value < 0.15 for estimate in found.parameters.values())
