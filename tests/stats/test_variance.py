"""Planted truth and an outside oracle (scipy's one-way ANOVA and distributions)."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from plmray.stats.intervals import mean_interval, sd_interval_factors
from plmray.stats.spread import pooled_seed_sd
from plmray.stats.variance import anchor_shares, grid_shares, seed_main_effect


def planted(rng: np.random.Generator, candidates: int, seeds: int, sd_candidate: float, sd_seed: float) -> list:
    means = rng.normal(scale=sd_candidate, size=candidates)
    return [rng.normal(mean, sd_seed, size=seeds) for mean in means]


def test_components_recover_planted_values_without_bias() -> None:
    rng = np.random.default_rng(0)
    found = [anchor_shares(planted(rng, 8, 3, 1.0, 0.5)) for _ in range(4000)]
    candidate = np.mean([share.candidate_variance for share in found if share])
    seed = np.mean([share.seed_variance for share in found if share])
    assert candidate == pytest.approx(1.0, abs=0.05 * 1.25)
    assert seed == pytest.approx(0.25, abs=0.05 * 1.25)


@pytest.mark.parametrize(("candidates", "seeds"), [(4, 3), (8, 2), (6, 5)])
def test_share_and_sd_intervals_cover_the_truth(candidates: int, seeds: int) -> None:
    rng = np.random.default_rng(1)
    truth = 1.0 / (1.0 + 0.25)
    in_share = in_sd = 0
    rounds = 2000
    for _ in range(rounds):
        scores = planted(rng, candidates, seeds, 1.0, 0.5)
        share = anchor_shares(scores)
        spread = pooled_seed_sd(scores).sd
        assert share is not None
        in_share += share.candidate_share.low <= truth <= share.candidate_share.high
        in_sd += spread.low <= 0.5 <= spread.high
    # They allow for unlike spreads and long tails, and so hold normal sweeps more often than they say.
    assert in_share / rounds > 0.94 and in_sd / rounds > 0.94


@pytest.mark.parametrize(("effects", "spreads", "reached"), [("exponential", 1.0, 0.92), ("normal", 5.0, 0.94)])
def test_share_intervals_hold_skewed_effects_and_unlike_spreads(effects: str, spreads: float, reached: float) -> None:
    """The F pivot of version 0.1.0 held .85 and .91 of them."""
    rng = np.random.default_rng(4)
    held, square = 0, (spreads**2 - 1) / (2 * np.log(spreads)) if spreads > 1 else 1.0
    for _ in range(300):
        means = rng.exponential(size=8) if effects == "exponential" else rng.normal(size=8)
        sds = 0.5 * np.exp(rng.uniform(0, np.log(spreads), size=8)) / np.sqrt(square)
        share = anchor_shares([rng.normal(mean, sd, size=3) for mean, sd in zip(means, sds, strict=True)])
        held += share is not None and share.seed_share.low <= 0.2 <= share.seed_share.high
    assert held / 300 > reached


def test_pure_noise_gives_the_seed_everything_within_the_interval() -> None:
    rng = np.random.default_rng(2)
    shares = [anchor_shares(planted(rng, 6, 3, 0.0, 1.0)) for _ in range(500)]
    assert np.mean([share.seed_share.high for share in shares if share]) == pytest.approx(1.0, abs=0.01)
    assert np.mean([share.candidate_variance for share in shares if share]) == pytest.approx(0.0, abs=0.03)


def test_against_one_way_anova() -> None:
    scores = planted(np.random.default_rng(3), 5, 4, 1.0, 1.0)
    found = anchor_shares(scores)
    assert found is not None
    ratio = stats.f_oneway(*scores).statistic
    within = np.mean([s.var(ddof=1) for s in scores])
    assert found.seed_variance == pytest.approx(within)
    assert found.candidate_variance == pytest.approx((ratio - 1) * within / 4)
    assert found.any_difference_p == pytest.approx(stats.f_oneway(*scores).pvalue)


def test_intervals_against_scipy_distributions() -> None:
    low, high = sd_interval_factors(7)
    assert (low, high) == pytest.approx((np.sqrt(7 / stats.chi2.ppf(0.975, 7)), np.sqrt(7 / stats.chi2.ppf(0.025, 7))))
    scores = np.array([0.3, 0.5, 0.4])
    expected = stats.t.interval(0.95, 2, scores.mean(), stats.sem(scores))
    found = mean_interval(scores)
    assert (found.low, found.high) == pytest.approx(expected)


def test_unbalanced_seeds_pool_by_degrees_of_freedom() -> None:
    scores = [np.array([0.0, 2.0]), np.array([1.0, 1.0, 4.0]), np.array([9.0])]
    spread = pooled_seed_sd(scores)
    assert spread.degrees == 3
    assert spread.sd.value == pytest.approx(np.sqrt((2.0 + 6.0) / 3))


def test_a_seed_that_moves_all_candidates_alike_is_seen() -> None:
    rng = np.random.default_rng(4)
    noise = [seed_main_effect(rng.normal(size=(6, 3))) for _ in range(2000)]
    assert np.mean([p < 0.05 for p in noise if p is not None]) == pytest.approx(0.05, abs=0.015)
    shared = [seed_main_effect(rng.normal(size=(6, 3)) + 3 * rng.normal(size=3)) for _ in range(200)]
    assert np.mean([p < 0.05 for p in shared if p is not None]) > 0.8
    assert seed_main_effect(np.array([[1.0, np.nan], [2.0, 3.0]])) is None


def test_too_little_to_say() -> None:
    single = [np.array([0.3]), np.array([0.4])]
    assert anchor_shares(single) is None
    assert anchor_shares([np.array([0.3, 0.4])]) is None
    assert np.isnan(pooled_seed_sd(single).sd.value)
    assert np.isnan(mean_interval(np.array([0.3])).low)
    assert np.isnan(mean_interval(np.array([])).value)


def test_seeds_that_move_all_candidates_alike_count_as_the_seeds() -> None:
    """Crossed layout: V_candidate 1, seed main effect 1, the rest .25."""
    rng = np.random.default_rng(3)
    shares, candidates = [], []
    for _ in range(300):
        grid = rng.normal(size=(10, 1)) + rng.normal(size=8) + 0.5 * rng.normal(size=(10, 8))
        found = grid_shares(grid)
        assert found is not None
        if found.crossed:
            shares.append(found.seed_share.low <= 1.25 / 2.25 <= found.seed_share.high)
            candidates.append(found.candidate_variance)
    assert len(shares) > 290
    assert np.mean(shares) > 0.9
    assert np.mean(candidates) == pytest.approx(1.0, abs=0.1)


def test_a_grid_with_gaps_or_without_a_seed_effect_is_nested() -> None:
    rng = np.random.default_rng(4)
    grid = rng.normal(size=(6, 1)) + rng.normal(size=(6, 4))
    grid[2, 1] = np.nan
    found = grid_shares(grid)
    assert found is not None and not found.crossed
    assert found == anchor_shares([row[np.isfinite(row)] for row in grid])
