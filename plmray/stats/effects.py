"""Δ: how much better one arm is than another, by Welch, as the published study has it, or paired."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from plmray.stats.intervals import Array, Estimate, transformed

Mode = Literal["welch", "paper"]
Sign = Literal["positive", "undecided", "negative"]

PAPER_QUANTILE = 1.96
LEVEL = 0.95


@dataclass(frozen=True)
class Delta:
    """``value``: arm - baseline, in the scores' unit; ``low``, ``high``: its interval, NaN where an arm has one score.

    ``p``: two-sided, NaN with the interval. ``counts``: scores of (baseline, arm). ``paired``: whether seeds were
    used as blocks.
    """

    value: float
    low: float
    high: float
    p: float
    counts: tuple[int, int]
    paired: bool = False

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    @property
    def verdict(self) -> Sign:
        """By whether 0 lies in the interval; an unknown interval decides nothing."""
        return "positive" if self.low > 0 else "negative" if self.high < 0 else "undecided"


def welch_delta(baseline: Array, arm: Array, confidence: float = LEVEL) -> Delta:
    """Welch's t interval of mean(arm) - mean(baseline), for (n_seeds,) scores each.

    Assumes normal scores, not equal spreads. Simulated coverage of 95 %: .975 at 2 against 2 seeds, .965 at 3
    against 3, .935 at 2 against 5. No interval where an arm has fewer than two scores, or where nothing spreads.
    Rank tests are not offered: 3 against 3 cannot get below p = .10.
    Source: scipy.stats.ttest_ind(equal_var=False).
    """
    value = float(arm.mean() - baseline.mean())
    counts = (len(baseline), len(arm))
    if min(counts) < 2:
        return Delta(value, math.nan, math.nan, math.nan, counts)
    error, degrees = welch_error(baseline.std(ddof=1), arm.std(ddof=1), *counts)
    if error == 0:
        return Delta(value, math.nan, math.nan, math.nan, counts)
    half = float(special.stdtrit(degrees, 0.5 + confidence / 2)) * error
    p = 2 * float(special.stdtr(degrees, -abs(value) / error))
    return Delta(value, value - half, value + half, p, counts)


def welch_error(sd_a: float, sd_b: float, num_a: int, num_b: int) -> tuple[float, float]:
    """Standard error of a difference of means and its degrees of freedom (Welch-Satterthwaite); NaN degrees at 0."""
    a, b = sd_a**2 / num_a, sd_b**2 / num_b
    if a + b == 0:
        return 0.0, math.nan
    return math.sqrt(a + b), (a + b) ** 2 / (a**2 / (num_a - 1) + b**2 / (num_b - 1))


def paper_delta(baseline: Array, arm: Array) -> Delta:
    """The published study's Δ of Figure 1, for (n_seeds,) scores in percent.

    Each mean is rounded to one decimal before they are subtracted; the half-width is 1.96 (SE_baseline + SE_arm),
    ddof 1. Descriptive: standard errors are added where variances should be, and 1.96 stands where a t quantile of few
    degrees of freedom should, so it covers no stated share of repetitions. p is Welch's.
    """
    value = round(round(float(arm.mean()), 1) - round(float(baseline.mean()), 1), 1)
    if min(len(baseline), len(arm)) < 2:
        return Delta(value, math.nan, math.nan, math.nan, (len(baseline), len(arm)))
    half = PAPER_QUANTILE * sum(float(s.std(ddof=1)) / math.sqrt(len(s)) for s in (baseline, arm))
    if half == 0:
        return Delta(value, math.nan, math.nan, math.nan, (len(baseline), len(arm)))
    return Delta(value, value - half, value + half, welch_delta(baseline, arm).p, (len(baseline), len(arm)))


def seed_block_correlation(*grids: Array, confidence: float = LEVEL) -> Estimate:
    """How alike arms move under the same seed: the correlation of two arms' scores at one seed, arm means removed.

    ``grids``: each (n_arms, n_seeds), complete, all with as many arms; their sums of squares are pooled, so that one
    answer is given for all of them. From the two-way layout: with F = MS_seed / MS_residual and k arms, ρ = (F - 1) /
    (F + k - 1), and the same with F / F_q for the bounds; ``low`` is one-sided. NaN with fewer than two arms or three
    seeds, or where nothing is left over. Source: Shrout & Fleiss 1979, ICC(3, 1).
    """
    squares, degrees = np.zeros(2), np.zeros(2)
    arms = 0
    for grid in grids:
        arms, seeds = grid.shape
        if arms < 2 or seeds < 3:
            continue
        by_seed = grid.mean(axis=0) - grid.mean()
        residual = grid - grid.mean(axis=1, keepdims=True) - by_seed
        squares += arms * float((by_seed**2).sum()), float((residual**2).sum())
        degrees += seeds - 1, (arms - 1) * (seeds - 1)
    if degrees[0] == 0 or squares[1] == 0:
        return Estimate(math.nan, math.nan, math.nan)
    ratio = float(squares[0] / degrees[0] / (squares[1] / degrees[1]))
    bounds = [ratio / float(special.fdtri(degrees[0], degrees[1], q)) for q in (confidence, 1 - confidence)]
    value, low, high = ((f - 1) / (f + arms - 1) for f in (ratio, *bounds))
    return Estimate(value, low, high)


def paired_delta(baseline: Array, arm: Array, confidence: float = LEVEL) -> Delta:
    """Δ of arms that ran the same (n_seeds,) seeds in the same order: a t interval of the differences.

    Whether seeds are blocks is decided before the scores are seen, or by ``seed_block_correlation`` over many rows: a
    row that is paired because its own scores agree claims too much (.57 to .77 of 95 % at 3 to 8 seeds). Pairing halves
    the degrees of freedom, and the same seed is not the same draw across ranks, heads or batch sizes.
    """
    differences = arm - baseline
    value, counts = float(differences.mean()), (len(baseline), len(arm))
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
    if error == 0:
        return Delta(value, math.nan, math.nan, math.nan, counts, paired=True)
    degrees = len(differences) - 1
    half = float(special.stdtrit(degrees, 0.5 + confidence / 2)) * error
    p = 2 * float(special.stdtr(degrees, -abs(value) / error))
    return Delta(value, value - half, value + half, p, counts, paired=True)


def holm(p_values: Sequence[float]) -> NDArray[np.float64]:
    """Holm's adjusted p values: the chance of any false claim stays below the level. NaN stays NaN, not counted."""
    return _adjusted(p_values, lambda p, rank, count: np.maximum.accumulate(p * (count - rank)))


def benjamini_hochberg(p_values: Sequence[float]) -> NDArray[np.float64]:
    """Benjamini-Hochberg's adjusted p values: the share of false claims among claims. NaN stays NaN, not counted."""
    return _adjusted(p_values, lambda p, rank, count: np.minimum.accumulate((p * count / (rank + 1))[::-1])[::-1])


def _adjusted(
    p_values: Sequence[float], adjust: Callable[[Array, NDArray[np.int64], int], Array]
) -> NDArray[np.float64]:
    values = np.asarray(p_values, dtype=float)
    known = np.flatnonzero(np.isfinite(values))
    order = known[np.argsort(values[known], kind="stable")]
    out = np.full(len(values), math.nan)
    if len(order):
        out[order] = np.minimum(adjust(values[order], np.arange(len(order)), len(order)), 1.0)
    return out


def flips(baseline: Array, arm: Array, confidence: float = LEVEL) -> str | None:
    """The scale on which a Welch verdict changes for scores between 0 and 1 (Fisher's z or logit), or None.

    A bounded metric squeezes differences near its bound; a conclusion that depends on the scale is not robust.
    """
    plain = welch_delta(baseline, arm, confidence).verdict
    both = np.concatenate([baseline, arm])
    for scale in ("fisher", "logit"):
        if both.min() >= (-1 if scale == "fisher" else 0) and both.max() <= 1:
            there = welch_delta(transformed(baseline, scale), transformed(arm, scale), confidence)
            if there.verdict != plain:
                return scale
    return None
