"""Planted truth for the moderated spread; scipy for the spread test."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats

from plmray.stats.spread import equal_spread_p as equal
from plmray.stats.spread import moderated_sds, pooled_seed_sd


def test_spread_test_is_scipys_levene_about_the_median() -> None:
    rng = np.random.default_rng(0)
    scores = [rng.normal(size=size) * (1 + size / 5) for size in (3, 5, 4, 8)]
    assert equal(scores) == pytest.approx(stats.levene(*scores, center="median").pvalue, rel=1e-12)


def test_no_chi_square_interval_where_spreads_differ() -> None:
    rng = np.random.default_rng(1)
    unlike = [rng.normal(scale=scale, size=12) for scale in (1, 1, 1, 9)]
    alike = [rng.normal(size=12) for _ in range(4)]
    assert math.isnan(pooled_seed_sd(unlike).sd.low)
    assert pooled_seed_sd(alike).sd.low < 1 < pooled_seed_sd(alike).sd.high


def test_prior_of_spreads_recovers_planted_values() -> None:
    """σ² ~ s₀² d₀ / χ²(d₀), scores normal: many candidates give d₀ and s₀ back."""
    rng = np.random.default_rng(2)
    prior_degrees, prior_sd = 8.0, 0.7
    variances = prior_sd**2 * prior_degrees / rng.chisquare(prior_degrees, size=20_000)
    found = moderated_sds(list(rng.normal(size=(20_000, 5)) * np.sqrt(variances)[:, None]))
    assert found.prior_degrees == pytest.approx(prior_degrees, rel=0.08)
    assert found.prior_sd == pytest.approx(prior_sd, rel=0.01)


def test_moderated_variance_is_the_weighted_mean_of_own_and_prior() -> None:
    """Against limma's squeezeVar, written out."""
    rng = np.random.default_rng(3)
    scores = [rng.normal(scale=scale, size=4) for scale in (0.1, 0.3, 1.0, 3.0, 9.0)]
    found = moderated_sds(scores)
    own = np.array([s.var(ddof=1) for s in scores])
    d0, s0 = found.prior_degrees, found.prior_sd**2
    assert 0 < d0 < 5  # these spreads differ by far more than chance
    assert found.sds**2 == pytest.approx((d0 * s0 + 3 * own) / (d0 + 3), rel=1e-12)
    excess = np.log(own).var(ddof=1) - special.polygamma(1, 1.5)
    assert special.polygamma(1, d0 / 2) == pytest.approx(excess, rel=1e-8)


def test_no_candidate_is_known_better_than_all_together() -> None:
    """Two equal candidates with two seeds each are not told apart with P(best) >= .95 more often than they should."""
    from plmray.stats.ranking import rank

    rng = np.random.default_rng(6)
    sure = [rank(list(rng.normal(size=(2, 2))), 1.0, rng).p_best.max() >= 0.95 for _ in range(300)]
    assert np.mean(sure) < 0.17
    assert moderated_sds(list(rng.normal(size=(4, 3)))).degrees.max() <= 8


def test_one_seed_borrows_and_says_so() -> None:
    rng = np.random.default_rng(4)
    found = moderated_sds([rng.normal(size=5), rng.normal(size=5), np.array([0.3])])
    assert found.borrowed.tolist() == [False, False, True]
    assert found.sds[2] == pytest.approx(found.prior_sd)
    assert np.isnan(moderated_sds([np.array([1.0]), np.array([2.0])]).sds).all()


def test_constant_scores_have_no_spread_and_no_warning() -> None:
    with np.errstate(all="raise"):
        assert moderated_sds([np.ones(3), np.ones(3)]).sds.tolist() == [0.0, 0.0]
        assert pooled_seed_sd([np.ones(3), np.ones(3)]).sd.value == 0.0
