"""P(best), rank intervals, expected best: planted truth and brute force."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from plmray.stats.ranking import expected_best, rank


@pytest.mark.parametrize(("rounds", "within"), [(250, 0.1), pytest.param(1500, 0.06, marks=pytest.mark.slow)])
def test_p_best_is_calibrated(rounds: int, within: float) -> None:
    """Of all candidates that are said to be the best with probability p, a share of p is."""
    rng = np.random.default_rng(0)
    said, was = [], []
    for _ in range(rounds):
        truth = rng.normal(scale=3.0, size=4)
        found = rank(list(truth[:, None] + rng.normal(size=(4, 6))), 1.0, np.random.default_rng(1))
        said.extend(found.p_best)
        was.extend(truth == truth.max())
    said, was = np.array(said), np.array(was)
    for low, high in ((0.05, 0.35), (0.35, 0.65), (0.65, 0.95)):
        inside = (said > low) & (said < high)
        assert was[inside].mean() == pytest.approx(said[inside].mean(), abs=within)


def test_ranks_follow_the_direction_and_hold_the_truth() -> None:
    rng = np.random.default_rng(1)
    scores = [np.array([1.0, 1.1, 0.9]), np.array([2.0, 2.1, 1.9]), np.array([3.0, 3.1, 2.9])]
    up, down = (rank(scores, sign, rng) for sign in (1.0, -1.0))
    assert up.p_best.argmax() == 2 and down.p_best.argmax() == 0
    assert up.low_rank.tolist() == [3, 2, 1] and down.high_rank.tolist() == [1, 2, 3]


def test_ties_and_constant_scores_share_the_probability() -> None:
    found = rank([np.ones(3)] * 4, 1.0, np.random.default_rng(0))
    assert found.p_best == pytest.approx([0.25] * 4)
    alone = rank([np.array([1.0]), np.array([2.0])], 1.0, np.random.default_rng(0))
    assert np.isnan(alone.p_best).all()  # no spread to judge by


def test_one_candidate_is_the_best_for_certain() -> None:
    assert rank([np.array([1.0, 2.0])], 1.0, np.random.default_rng(0)).p_best.tolist() == [1.0]


def test_beats_is_what_runs_say() -> None:
    """Two candidates with so many seeds that everything is known: Φ of the difference over both spreads."""
    rng = np.random.default_rng(2)
    a, b = rng.normal(1.0, 2.0, size=40_000), rng.normal(0.5, 1.0, size=40_000)
    found = rank([a, b], 1.0, rng)
    assert found.beats(0, 1, 1.0) == pytest.approx(float((a > b).mean()), abs=0.01)
    assert found.beats(0, 1, -1.0) == pytest.approx(float((a < b).mean()), abs=0.01)


def test_expected_best_is_the_mean_over_all_subsets() -> None:
    scores = np.random.default_rng(3).normal(size=8)
    for trials in range(1, 9):
        brute = np.mean([max(subset) for subset in combinations(scores, trials)])
        assert expected_best(scores, trials) == pytest.approx(float(brute), rel=1e-10)
        low = np.mean([min(subset) for subset in combinations(scores, trials)])
        assert expected_best(scores, trials, sign=-1.0) == pytest.approx(float(low), rel=1e-10)
    with pytest.raises(ValueError, match="ask for 1 to 8"):
        expected_best(scores, 9)
