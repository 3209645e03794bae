"""Shares of fixed factors: statsmodels' ANOVA as the oracle of balanced cells, planted truth for unbalanced ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from plmray.stats.factors import factor_shares

EFFECTS_A = np.array([1.0, -1.0, 0.0])
EFFECTS_B = np.array([0.5, -0.5])


def runs(rng: np.random.Generator, counts: np.ndarray, sd: float = 1.0) -> tuple[np.ndarray, dict[str, list[int]]]:
    """Additive effects: no interaction. ``counts``: (3, 2) runs a cell."""
    rows = [(i, j) for (i, j), count in np.ndenumerate(counts) for _ in range(count)]
    scores = np.array([EFFECTS_A[i] + EFFECTS_B[j] + sd * rng.normal() for i, j in rows])
    return scores, {"a": [i for i, _ in rows], "b": [j for _, j in rows]}


def test_balanced_components_are_those_of_statsmodels_anova() -> None:
    """V_A = (MS_A - MS_error)(I - 1) / (I J n), from an ANOVA table made by someone else."""
    rng = np.random.default_rng(0)
    scores, factors = runs(rng, np.full((3, 2), 4))
    found = factor_shares(scores, factors).variances
    table = anova_lm(ols("score ~ C(a) * C(b)", pd.DataFrame({"score": scores, **factors})).fit())
    error = table.loc["Residual", "mean_sq"]
    for name, row, freedom in (("a", "C(a)", 2), ("b", "C(b)", 1), ("a:b", "C(a):C(b)", 2)):
        assert found[name] == pytest.approx((table.loc[row, "mean_sq"] - error) * freedom / 24, rel=1e-9)
    assert found["seed"] == pytest.approx(error, rel=1e-9)


def test_unbalanced_components_are_unbiased() -> None:
    rng = np.random.default_rng(1)
    counts = np.array([[2, 5], [3, 2], [4, 3]])
    found = [factor_shares(*runs(rng, counts)).variances for _ in range(3000)]
    means = {name: np.mean([variances[name] for variances in found]) for name in found[0]}
    truth = {"a": np.mean(EFFECTS_A**2), "b": np.mean(EFFECTS_B**2), "a:b": 0.0, "seed": 1.0}
    assert means == pytest.approx(truth, abs=0.05 * sum(truth.values()))


@pytest.mark.parametrize(
    ("counts", "sds", "why"),
    [
        ([[4, 4]] * 3, [[1, 1]] * 3, "alike"),
        ([[2, 2]] * 3, [[1, 1]] * 3, "two runs a cell: .86 to .91 in version 0.1.0"),
        ([[2, 5]] * 3, [[5, 1]] * 3, "the noisy arm has the fewer runs: .24 in version 0.1.0"),
    ],
)
def test_seed_interval_covers_the_planted_share(counts: list[list[int]], sds: list[list[float]], why: str) -> None:
    rng = np.random.default_rng(2)
    seed = float(np.mean(np.square(sds)))
    truth = seed / (seed + np.mean(EFFECTS_A**2) + np.mean(EFFECTS_B**2))
    covered = 0
    for _ in range(300):
        scores, factors = runs(rng, np.array(counts), 0.0)
        noise = np.array([sds[i][j] for i, j in zip(factors["a"], factors["b"], strict=True)])
        found = factor_shares(scores + noise * rng.normal(size=len(scores)), factors).seed_interval
        covered += found.low <= truth <= found.high
    assert covered / 300 > 0.93, why


def test_an_interval_of_cells_alike_is_that_of_scipys_noncentral_f() -> None:
    rng = np.random.default_rng(4)
    scores, factors = runs(rng, np.full((3, 2), 6))
    found = factor_shares(scores, factors).seed_interval
    cells = scores.reshape(3, 2, 6)
    ratio = 6 * cells.mean(axis=2).var(ddof=1) / cells.var(axis=2, ddof=1).mean()
    own = cells.var(axis=2, ddof=1)
    within = own.sum() ** 2 / (own**2 / 7).sum()  # Satterthwaite's degrees
    between = 5.0 * ((own.sum() ** 2 / (own**2).sum()) * 5 / 6) / 5.0
    for bound, probability in ((found.low, 0.025), (found.high, 0.975)):
        shift = (1 / bound - 1) * 36 / 5 * between  # of Σ(μ - μ̄)² n / σ²
        assert stats.ncf.cdf(ratio, between, within, shift) == pytest.approx(probability, abs=1e-6)


def test_three_factors_sum_to_one_and_name_their_interactions() -> None:
    rng = np.random.default_rng(3)
    rows = [(i, j, k) for i in range(2) for j in range(3) for k in range(2) for _ in range(2)]
    factors = {name: [row[n] for row in rows] for n, name in enumerate("abc")}
    found = factor_shares(rng.normal(size=len(rows)), factors).shares
    assert set(found) == {"a", "b", "c", "a:b", "a:c", "b:c", "a:b:c", "seed"}
    assert sum(found.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("scores", "factors", "message"),
    [
        ([1.0, 2.0, 3.0], {"a": "xyx", "b": "ppq"}, "no run for y × q"),
        ([1.0, 2.0, 3.0, 4.0], {"a": "xyxy", "b": "ppqq"}, "no combination has two runs"),
        ([1.0, 2.0], {"a": "xx", "b": "pq"}, "factor a has one level"),
    ],
)
def test_refuses_what_has_no_answer(scores: list[float], factors: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        factor_shares(np.array(scores), factors)


def test_constant_scores_have_no_shares() -> None:
    found = factor_shares(np.ones(8), {"a": "xxxxyyyy", "b": "ppqqppqq"})
    assert np.isnan(list(found.shares.values())).all()
    assert np.isnan(found.seed_interval.low)
