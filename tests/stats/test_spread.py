"""Planted truth for the moderated spread; scipy for the spread test."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats

from plmray.stats.spread import equal_spread_p as equal
from plmray.stats.spread import moderated_sds, pooled_seed_sd


def test_spread_test_is_scipys_bartlett() -> None:
    rng = np.random.default_rng(0)
    scores = [rng.normal(size=size) * (1 + size / 5) for size in (3, 5, 4, 8)]
    assert equal([*scores, np.ones(1)]) == pytest.approx(stats.bartlett(*scores).pvalue, rel=1e-12)
    assert equal([np.ones(3), np.arange(3.0)]) is None and equal([np.arange(3.0)]) is None


def test_the_spread_test_has_power_at_three_seeds() -> None:
    """Spreads of 1 : 5, 20 candidates; Brown-Forsythe, of version 0.1.0, found none of them."""
    rng = np.random.default_rng(1)
    sds = np.exp(rng.uniform(0, math.log(5), size=(200, 20, 1)))
    noise = rng.normal(size=(200, 20, 3))
    found = [equal(list(own)) or 0.0 for own in noise * sds]
    assert np.mean(np.array(found) < 0.05) > 0.4
    assert np.mean([(equal(list(own)) or 0.0) < 0.05 for own in noise]) < 0.1


@pytest.mark.parametrize("spreads", [1.0, 5.0])
def test_pooled_intervals_hold_spreads_that_differ(spreads: float) -> None:
    """.80 of them held the truth in version 0.1.0, where spreads were 1 : 5."""
    rng = np.random.default_rng(2)
    truth = 1.0 if spreads == 1 else math.sqrt((spreads**2 - 1) / (2 * math.log(spreads)))
    held = 0
    for _ in range(400):
        sds = np.exp(rng.uniform(0, math.log(spreads), size=(8, 1)))
        found = pooled_seed_sd(list(rng.normal(size=(8, 3)) * sds)).sd
        held += found.low <= truth <= found.high
    assert held / 400 > 0.92


def test_one_candidate_has_the_plain_chi_square_interval() -> None:
    scores = np.random.default_rng(3).normal(size=6)
    found, bounds = pooled_seed_sd([scores]).sd, stats.chi2.ppf([0.975, 0.025], 5)
    assert [found.low, found.high] == pytest.approx(scores.std(ddof=1) * np.sqrt(5 / bounds), rel=1e-10)


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
