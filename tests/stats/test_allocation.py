"""Seed allocation on planted sweeps; the full form is tests/benchmarks/allocation.py."""

from __future__ import annotations

import numpy as np
import pytest

from plmray.stats.allocation import Arms, next_trial, standing, stop_reason
from tests.benchmarks.allocation import REFERENCE, simulate, thompson, uniform


def arms(scores: list[list[float]], flying: list[int] | None = None, costs: list[float] | None = None) -> Arms:
    count = len(scores)
    return Arms([np.array(s) for s in scores], np.array(flying or [0] * count), np.array(costs or [1.0] * count))


def chosen(state: Arms, sign: float = 1.0, rounds: int = 400) -> np.ndarray:
    picks = [next_trial(state, sign, np.random.default_rng(n)).candidate for n in range(rounds)]
    return np.bincount(picks, minlength=len(state.scores)) / rounds


@pytest.mark.slow
def test_better_than_uniform_in_the_setting_of_reference() -> None:
    base, ours = (simulate(REFERENCE, rule, 150)[0] for rule in (uniform, thompson))
    assert ours >= base + 0.05


def test_everyone_has_two_seeds_first() -> None:
    assert next_trial(arms([[1.0], [1.0, 2.0]]), 1.0, np.random.default_rng(0)).candidate == 0
    choice = next_trial(arms([[1.0], [1.0, 2.0], []], [1, 0, 0]), 1.0, np.random.default_rng(0))
    assert choice.candidate == 2 and choice.reason == "first 2 seeds"


def test_the_leader_takes_about_half_and_the_hopeless_nothing() -> None:
    shares = chosen(arms([[5.0, 5.2, 5.1], [5.0, 4.9, 5.3], [0.0, 0.1, 0.2]]))
    assert shares[2] < 0.02
    assert 0.3 < shares[0] < 0.7
    assert chosen(arms([[5.0, 5.2, 5.1], [5.0, 4.9, 5.3], [0.0, 0.1, 0.2]]), sign=-1.0)[2] > 0.4


def test_cheap_trials_are_preferred_and_flying_ones_count() -> None:
    alike = [[1.0, 1.2, 0.8], [1.0, 1.2, 0.8]]
    assert chosen(arms(alike, costs=[1.0, 4.0]))[0] > 0.7
    trailing = [[1.0, 1.2, 0.8], [0.9, 1.1, 0.7], [0.7, 0.9, 0.5]]
    open_, flying = chosen(arms(trailing)), chosen(arms(trailing, [0, 0, 50]))
    assert flying[2] < 0.7 * open_[2]


def test_stops_when_sure_indifferent_or_spent() -> None:
    rng = np.random.default_rng(0)
    clear = standing([np.array([5.0, 5.1, 4.9]), np.array([0.0, 0.1, -0.1])], 1.0, rng)
    level = standing([np.array([5.0, 5.1, 4.9]), np.array([5.0, 5.1, 4.9])], 1.0, rng)
    assert clear is not None and level is not None
    assert stop_reason(clear, 6, 20, None, 3) == "sure"
    assert stop_reason(level, 6, 20, None, 3) is None
    assert stop_reason(level, 6, 20, 1.0, 3) == "indifferent"
    assert stop_reason(level, 20, 20, None, 3) == "budget"
    assert stop_reason(clear, 2, 20, None, 1) is None
    assert standing([np.array([1.0]), np.array([])], 1.0, rng) is None


def test_constant_scores_end_in_a_tie() -> None:
    found = standing([np.ones(3), np.ones(3)], 1.0, np.random.default_rng(0))
    assert found is not None and found.p_best.tolist() == [0.5, 0.5]
