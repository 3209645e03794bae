"""One arm against another over several tasks, whose scores have units of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from plmray.stats.intervals import Array, Estimate

RESAMPLES = 2000


def over_tasks(
    tasks: Sequence[tuple[Array, Array]], sign: float, rng: np.random.Generator, confidence: float = 0.95
) -> tuple[Estimate, Estimate]:
    """(probability of improvement, mean Δ), means over tasks that weigh the same.

    ``tasks``: (n_baseline,) and (n_arm,) scores of each; ``sign``: +1 where larger is better. The probability that a
    run of the arm beats a run of the baseline is Mann and Whitney's U / (n m), ties counting half. Intervals resample
    runs within each task (stratified bootstrap, percentiles), with deviations widened by √(n / (n - 1)), for a resample
    of a few runs spreads less than they do; NaN where an arm of any task has one run. They speak of other runs on these
    tasks, not of other tasks. Source: Agarwal et al. 2021; Mann & Whitney 1947.
    """
    chance = float(np.mean([_chance(low, high, sign) for low, high in tasks]))
    delta = float(np.mean([high.mean() - low.mean() for low, high in tasks]))
    if any(min(len(low), len(high)) < 2 for low, high in tasks):
        return Estimate(chance, math.nan, math.nan), Estimate(delta, math.nan, math.nan)
    drawn = np.zeros((2, RESAMPLES))
    for low, high in tasks:
        lows, highs = (_resampled(own, rng) for own in (low, high))
        gaps = sign * (highs[:, :, None] - lows[:, None, :])
        drawn[0] += ((gaps > 0) + 0.5 * (gaps == 0)).mean(axis=(1, 2)) / len(tasks)
        drawn[1] += (highs.mean(axis=1) - lows.mean(axis=1)) / len(tasks)
    tail = (1 - confidence) / 2
    (chance_low, delta_low), (chance_high, delta_high) = np.quantile(drawn, [tail, 1 - tail], axis=1)
    return Estimate(chance, float(chance_low), float(chance_high)), Estimate(delta, float(delta_low), float(delta_high))


def _chance(low: Array, high: Array, sign: float) -> float:
    gaps = sign * (high[:, None] - low[None, :])
    return float(((gaps > 0) + 0.5 * (gaps == 0)).mean())


def _resampled(own: Array, rng: np.random.Generator) -> Array:
    """(RESAMPLES, n)."""
    drawn = own[rng.integers(len(own), size=(RESAMPLES, len(own)))]
    wider: Array = own.mean() + (drawn - own.mean()) * math.sqrt(len(own) / (len(own) - 1))
    return wider
