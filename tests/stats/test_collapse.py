"""Collapsed runs: named where they are far down, and never where noise is only large or skewed a little."""

from __future__ import annotations

import numpy as np
import pytest

from plmray.stats.collapse import collapsed, succeeded


def planted(candidates: int, seeds: int, rate: float, depth: float, rounds: int) -> tuple[int, int, int]:
    """Runs that collapsed, of them those that were found, and false ones; half of the sweeps turned upside down."""
    rng = np.random.default_rng([candidates, seeds])
    down = found = false = 0
    for number in range(rounds):
        sign = 1.0 if number % 2 else -1.0
        truth = rng.uniform(size=(candidates, seeds)) < rate
        merits = rng.normal(size=(candidates, 1)) + rng.normal(size=(candidates, seeds)) - depth * truth
        flags = np.array(collapsed(list(sign * merits), sign))
        down, found, false = down + truth.sum(), found + (flags & truth).sum(), false + (flags & ~truth).sum()
    return int(down), int(found), int(false)


@pytest.mark.parametrize(("candidates", "seeds"), [(8, 3), (12, 3), (40, 5)])
def test_deep_collapses_are_found_and_nothing_else(candidates: int, seeds: int) -> None:
    down, found, false = planted(candidates, seeds, 0.05, 30.0, 60)
    assert found >= 0.97 * down > 0 and false <= 6


def test_ten_sds_down_are_found_nine_times_in_ten() -> None:
    down, found, false = planted(12, 3, 0.05, 10.0, 100)
    assert found >= 0.85 * down and false <= 1


@pytest.mark.parametrize(("noise", "most"), [("t of three degrees", 0.2), ("lognormal", 0.7)])
def test_long_tails_are_sometimes_taken_for_a_collapse(noise: str, most: float) -> None:
    """What a reader is told of the method's errors: about .1 and .45 of sweeps of 8 × 3."""
    rng, named = np.random.default_rng(6), 0
    for _ in range(200):
        own = rng.standard_t(3, size=(8, 3)) if noise.startswith("t ") else -rng.lognormal(size=(8, 3))
        named += any(flags.any() for flags in collapsed(list(rng.normal(size=(8, 1)) + own), 1.0))
    assert named / 200 < most


def test_normal_noise_collapses_nothing() -> None:
    """One in fifty sweeps names a run, two at most of a candidate of three."""
    assert planted(8, 3, 0.0, 0.0, 300)[2] <= 12
    assert planted(20, 2, 0.0, 0.0, 100)[2] <= 4


def test_two_of_three_seeds_can_collapse() -> None:
    """At a rate too high for most seeds the one that trained says what is reached."""
    rng = np.random.default_rng(0)
    scores = [0.8 + 0.01 * rng.normal(size=3) for _ in range(6)] + [np.array([0.1, 0.79, 0.12])]
    assert [flags.tolist() for flags in collapsed(scores, 1.0)][-1] == [True, False, True]
    assert succeeded(scores, 1.0)[-1].tolist() == [0.79]


def test_a_noisy_candidate_is_not_a_collapsed_one() -> None:
    """Its runs are strewn over a range a thousand times the others' spread."""
    rng = np.random.default_rng(0)
    scores = [rng.normal(0, 1.0 if n == 0 else 0.001, size=12) for n in range(4)]
    assert not any(flags.any() for flags in collapsed(scores, 1.0))


@pytest.mark.parametrize(
    "scores",
    [[], [np.array([0.5])], [np.array([0.5]), np.array([0.1])], [np.full(3, 0.5), np.full(3, 0.1)], [np.zeros(0)]],
)
def test_without_a_spread_nothing_is_said(scores: list[np.ndarray]) -> None:  # type: ignore[type-arg]
    assert not any(flags.any() for flags in collapsed(scores, 1.0))
    assert [len(own) for own in succeeded(scores, 1.0)] == [len(own) for own in scores]
