"""Arms over several tasks: scipy's U, planted truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from plmray.stats.improvement import over_tasks


def test_the_chance_is_scipys_u() -> None:
    rng = np.random.default_rng(0)
    tasks = [(rng.integers(5, size=4).astype(float), rng.integers(6, size=5).astype(float)) for _ in range(3)]
    chance, delta = over_tasks(tasks, 1.0, rng)
    oracle = [stats.mannwhitneyu(high, low).statistic / 20 for low, high in tasks]
    assert chance.value == pytest.approx(np.mean(oracle))
    assert delta.value == pytest.approx(np.mean([high.mean() - low.mean() for low, high in tasks]))
    assert over_tasks(tasks, -1.0, rng)[0].value == pytest.approx(1 - np.mean(oracle))


def test_intervals_hold_the_planted_truth() -> None:
    """Eight tasks, five runs an arm, the arm half a seed SD better."""
    held = np.zeros(2)
    truth = stats.norm.cdf(0.5 / math.sqrt(2)), 0.5
    for number in range(150):
        rng = np.random.default_rng(number)
        found = over_tasks([(rng.normal(size=5), rng.normal(0.5, size=5)) for _ in range(8)], 1.0, rng)
        held += [own.low <= true <= own.high for own, true in zip(found, truth, strict=True)]
    assert (held / 150 > 0.9).all()


def test_one_run_has_no_interval() -> None:
    chance, delta = over_tasks([(np.array([0.1]), np.array([0.2, 0.3]))], 1.0, np.random.default_rng(0))
    assert chance.value == 1.0 and math.isnan(chance.low) and math.isnan(delta.low)
