"""Intervals against scipy and planted truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from plmray.stats.intervals import failure_rate, seed_and_protein_interval, transformed


@pytest.mark.parametrize(("failures", "trials"), [(0, 5), (1, 7), (7, 7), (30, 100)])
def test_failure_rate_is_scipys_exact_interval(failures: int, trials: int) -> None:
    oracle = stats.binomtest(failures, trials).proportion_ci(0.95, method="exact")
    found = failure_rate(failures, trials)
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), rel=1e-9)


def test_two_way_interval_covers_the_mean_over_seeds_and_proteins() -> None:
    """Accuracy with proteins of their own difficulty and seeds of their own skill."""
    rng = np.random.default_rng(0)
    covered = too_narrow = 0
    rounds, truth = 150, 0.7
    for _ in range(rounds):
        difficulty = rng.normal(scale=0.15, size=80)
        skill = rng.normal(scale=0.05, size=4)
        right = (truth + difficulty + skill[:, None] > rng.uniform(size=(4, 80))).astype(float)
        found = seed_and_protein_interval(lambda t, p: float((t == p).mean()), np.ones(80), right, rng, resamples=200)
        covered += found.low <= truth <= found.high
        by_seed = right.mean(axis=1)
        half = stats.t.ppf(0.975, 3) * by_seed.std(ddof=1) / 2
        too_narrow += abs(by_seed.mean() - truth) <= half
    assert covered / rounds > 0.92
    assert covered >= too_narrow


def test_residues_of_a_protein_stay_together() -> None:
    """Proteins whose residues agree perfectly carry as much as one residue each, however long they are."""
    rng = np.random.default_rng(1)
    own = rng.integers(2, size=30).astype(float)
    residues = np.empty(30, dtype=object)
    for row, value in enumerate(own):
        residues[row] = np.full(50, value)
    ones = np.empty(30, dtype=object)
    for row in range(30):
        ones[row] = np.ones(50)
    accuracy = lambda t, p: float((t == p).mean())  # noqa: E731
    by_residue = seed_and_protein_interval(accuracy, ones, np.stack([residues, residues]), np.random.default_rng(2))
    by_protein = seed_and_protein_interval(accuracy, np.ones(30), np.stack([own, own]), np.random.default_rng(2))
    assert (by_residue.low, by_residue.high) == pytest.approx((by_protein.low, by_protein.high), rel=1e-12)


def test_needs_two_seeds() -> None:
    with pytest.raises(ValueError, match="two seeds"):
        seed_and_protein_interval(lambda t, p: 0.0, np.ones(5), np.ones((1, 5)), np.random.default_rng(0))


def test_bounded_scores_unfold() -> None:
    scores = np.array([0.1, 0.5, 0.99])
    assert transformed(scores, "fisher") == pytest.approx(np.arctanh(scores))
    assert transformed(scores, "logit") == pytest.approx(special.logit(scores))
    assert np.isfinite(transformed(np.array([0.0, 1.0]), "logit")).all()
    with pytest.raises(ValueError, match="from 0 to 1"):
        transformed(np.array([-0.2]), "logit")


def test_homologues_are_no_independent_evidence() -> None:
    """Families of ten proteins that share their difficulty: taken one by one they hold .64."""
    rng = np.random.default_rng(5)
    together = alone = 0
    families = np.repeat(np.arange(12), 10)
    for _ in range(120):
        errors = rng.normal(size=12)[families] + 0.2 * rng.normal(size=(3, 120)) + 0.1 * rng.normal(size=(3, 1))
        mean = lambda t, p: float((p - t).mean())  # noqa: E731
        for grouped in (True, False):
            own = seed_and_protein_interval(
                mean, np.zeros(120), errors, rng, resamples=100, families=families if grouped else None
            )
            together += grouped and own.low <= 0 <= own.high
            alone += (not grouped) and own.low <= 0 <= own.high
    assert together / 120 > 0.9 > 0.75 > alone / 120
