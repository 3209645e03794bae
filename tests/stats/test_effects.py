"""Δ, pairing, multiplicity, power: scipy and statsmodels are the oracles."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower

from plmray.stats.effects import (
    benjamini_hochberg,
    flips,
    holm,
    paired_delta,
    paper_delta,
    seed_block_correlation,
    welch_delta,
)
from plmray.stats.power import cautious_sd, seeds_needed, welch_power


@pytest.mark.parametrize("sizes", [(2, 2), (3, 5), (5, 3), (20, 4)])
def test_welch_is_scipys(sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(sum(sizes))
    low, high = rng.normal(size=sizes[0]), rng.normal(0.5, 3, size=sizes[1])
    found = welch_delta(low, high)
    oracle = stats.ttest_ind(high, low, equal_var=False)
    interval = oracle.confidence_interval(0.95)
    assert (found.low, found.high, found.p) == pytest.approx((interval.low, interval.high, oracle.pvalue), rel=1e-10)


def test_one_seed_or_no_spread_decides_nothing() -> None:
    for low, high in ((np.array([1.0]), np.array([2.0, 3.0])), (np.ones(3), np.full(3, 2.0))):
        for found in (welch_delta(low, high), paper_delta(low, high)):
            assert found.verdict == "undecided"
            assert math.isnan(found.low) and math.isnan(found.p)


def test_paper_mode_rounds_before_it_subtracts() -> None:
    found = paper_delta(np.array([10.04, 10.05]), np.array([10.16, 10.18]))
    assert found.value == pytest.approx(0.2)  # 10.2 - 10.0; unrounded it would be 0.125


def test_adjusted_p_values_are_statsmodels() -> None:
    p = np.array([0.01, math.nan, 0.04, 0.03, 0.2, 0.01])
    known = np.isfinite(p)
    for ours, name in ((holm, "holm"), (benjamini_hochberg, "fdr_bh")):
        assert ours(p)[known] == pytest.approx(multipletests(p[known], method=name)[1], rel=1e-12)
        assert math.isnan(ours(p)[1])


def test_seed_correlation_recovers_the_planted_one() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(400):
        grid = rng.normal(size=(4, 10)) + rng.normal(size=10)  # equal shares: correlation .5
        found.append(seed_block_correlation(grid))
    assert np.median([f.value for f in found]) == pytest.approx(0.5, abs=0.05)
    assert np.mean([f.low <= 0.5 for f in found]) == pytest.approx(0.95, abs=0.03)


def test_pairs_are_scipys() -> None:
    rng = np.random.default_rng(1)
    low, high = rng.normal(size=8), rng.normal(0.2, size=8)
    found, oracle = paired_delta(low, high), stats.ttest_rel(high, low)
    interval = oracle.confidence_interval(0.95)
    assert (found.low, found.high, found.p) == pytest.approx((interval.low, interval.high, oracle.pvalue), rel=1e-10)
    assert found.paired and paired_delta(np.zeros(3), np.ones(3)).verdict == "undecided"


def test_rows_pool_their_seed_correlation() -> None:
    """Three seeds tell little; thirty rows of three tell."""
    rng = np.random.default_rng(2)
    alike = [rng.normal(size=(2, 3)) + 1.5 * rng.normal(size=3) for _ in range(30)]
    apart = [rng.normal(size=(2, 3)) for _ in range(30)]
    assert seed_block_correlation(*alike).low > 0 > seed_block_correlation(*apart).low
    assert seed_block_correlation(alike[0], np.zeros((2, 1))) == seed_block_correlation(alike[0])


def test_power_is_statsmodels_at_equal_spreads() -> None:
    for size, seeds in ((0.5, 10), (1.5, 4), (2.0, 30)):
        oracle = TTestIndPower().power(size, nobs1=seeds, alpha=0.05)
        assert welch_power(size, 1.0, 1.0, seeds) == pytest.approx(oracle, abs=1e-6)


def test_power_is_what_simulated_tests_find_at_unequal_spreads() -> None:
    rng = np.random.default_rng(2)
    low, high = rng.normal(size=(20_000, 6)), rng.normal(2.0, 2.0, size=(20_000, 6))
    found = np.mean(stats.ttest_ind(low, high, axis=1, equal_var=False).pvalue < 0.05)
    assert welch_power(2.0, 1.0, 2.0, 6) == pytest.approx(found, abs=0.02)


def test_seeds_needed_is_the_smallest_that_has_the_power() -> None:
    for effect, sds in ((1.0, (1.0, 1.0)), (0.2, (0.3, 0.9)), (17.0, (0.01, 3.0)), (100.0, (1.0, 1.0))):
        number = seeds_needed(effect, *sds)
        assert number is not None
        assert welch_power(effect, *sds, number) >= 0.8
        assert number == 2 or welch_power(effect, *sds, number - 1) < 0.8
    assert seeds_needed(0.0, 1.0, 1.0) is None
    assert seeds_needed(1e-4, 1.0, 1.0) is None


def test_cautious_sd_is_an_upper_limit() -> None:
    rng = np.random.default_rng(3)
    found = [cautious_sd(float(rng.normal(size=4).std(ddof=1)), 3) for _ in range(4000)]
    assert np.mean(np.array(found) >= 1.0) == pytest.approx(0.8, abs=0.02)


def test_a_conclusion_that_depends_on_the_scale_is_flagged() -> None:
    low, high = np.array([0.90, 0.96, 0.93]), np.array([0.985, 0.995, 0.99])
    assert flips(low, high) == "fisher"
    assert flips(low, low + 0.02) is None
