"""Shares of single hyperparameters add up, and are what an outside regression finds."""

from __future__ import annotations

import numpy as np
import pytest

from plmray.config.fields.space import FloatDomain, OrdinalDomain
from plmray.report.parameters import shares_of_parameters
from plmray.trials.result import TrialResult
from plmray.trials.trial import FIXED_GRID

SPACE = {
    "optimizer.lr": FloatDomain(kind="float", low=5e-4, high=1e-2, log=True),
    "head.hidden": OrdinalDomain(kind="ordinal", values=[16, 32, 64]),
    "head.dropout": FloatDomain(kind="float", low=0.0, high=0.5),
}


def surface(place: np.ndarray) -> np.ndarray:
    """(n,) a rate with a ridge, a width that helps, a dropout that hurts, and no interaction."""
    return -1.2 * (place[:, 0] - 0.6) ** 2 + 0.15 * place[:, 1] - 0.2 * place[:, 2]


def sweep(rng: np.random.Generator, anchors: int, seeds: int) -> tuple[list[TrialResult], np.ndarray, np.ndarray]:
    place = np.column_stack([rng.uniform(size=anchors), rng.integers(3, size=anchors) / 2, rng.uniform(size=anchors)])
    scores = surface(place)[:, None] + 0.03 * rng.normal(size=(anchors, seeds))
    results = []
    for n, (rate, width, dropout) in enumerate(place):
        parameters = {
            "optimizer.lr": SPACE["optimizer.lr"].at(rate),
            "head.hidden": [16, 32, 64][round(2 * width)],
            "head.dropout": 0.5 * dropout,
        }
        for seed in range(seeds):
            facts = {"origin": "random", "phase": "replicate", "seed": seed, "state": "COMPLETE", "reason": FIXED_GRID}
            score = float(scores[n, seed])
            results.append(TrialResult(f"c{n}-s{seed}", f"c{n}", parameters=parameters, score=score, **facts))
    return results, place, scores


def by_regression(place: np.ndarray, scores: np.ndarray) -> list[float]:
    """First-order shares of one run's variance by orthogonal Legendre polynomials, least squares: nothing of ours."""
    terms = [(j, power) for j, degree in ((0, 4), (1, 2), (2, 4)) for power in range(1, degree + 1)]
    columns = [np.ones(len(place)), *(np.polynomial.Legendre.basis(p)(2 * place[:, j] - 1) for j, p in terms)]
    found, *_ = np.linalg.lstsq(np.stack(columns, axis=1), scores.mean(axis=1), rcond=None)
    rng = np.random.default_rng(1)
    fresh = np.column_stack([rng.uniform(size=20_000), rng.integers(3, size=20_000) / 2, rng.uniform(size=20_000)])
    parts = np.zeros((3, len(fresh)))
    for value, (j, power) in zip(found[1:], terms, strict=True):
        parts[j] += value * np.polynomial.Legendre.basis(power)(2 * fresh[:, j] - 1)
    noise = float(scores.var(axis=1, ddof=1).mean())
    total = parts.sum(axis=0).var() + noise
    return [float(part.var() / total) for part in parts]


@pytest.mark.parametrize("seed", range(3))
def test_shares_are_those_of_a_regression_and_add_up(seed: int) -> None:
    results, place, scores = sweep(np.random.default_rng(seed), anchors=150, seeds=2)
    found = shares_of_parameters(results, SPACE)
    assert found is not None
    expected = by_regression(place, scores)
    own = [estimate.value for estimate in found.parameters.values()]
    assert own == pytest.approx(expected, abs=0.02)
    assert sum(own) + found.interactions.value + found.seed.value == pytest.approx(1.0, abs=0.01)
