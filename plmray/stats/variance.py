"""How much of the spread of scores is the seed, and how much the candidate.

Only anchors (candidates drawn blindly from the space) may enter ``anchor_shares``: candidates an
optimiser proposed are no sample of the space, and their spread says nothing about it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from plmray.stats.intervals import Estimate, Scores


@dataclass(frozen=True)
class AnchorShares:
    """Variance components of anchors. ``candidate_variance`` may be negative: read it as too small to see.

    ``crossed``: the same seed moves all candidates alike, and the seed's variance holds that part too.
    """

    candidate_variance: float
    seed_variance: float
    candidate_share: Estimate
    seed_share: Estimate
    num_candidates: int
    num_trials: int
    crossed: bool = False


def seed_main_effect(grid: NDArray[np.float64]) -> float | None:
    """p value of 'the same seed moves every candidate alike', from a complete (n_candidates, n_seeds) grid.

    Two-way layout without replication: F = MS_seed / MS_residual. None for an incomplete or too small grid.
    """
    rows, columns = grid.shape
    if rows < 2 or columns < 2 or not np.isfinite(grid).all():
        return None
    seeds = grid.mean(axis=0) - grid.mean()
    residual = grid - grid.mean(axis=1, keepdims=True) - seeds
    degrees = (rows - 1) * (columns - 1)
    error = float((residual**2).sum()) / degrees
    if error == 0:
        return None
    ratio = rows * float((seeds**2).sum()) / (columns - 1) / error
    return float(special.fdtrc(columns - 1, degrees, ratio))


def anchor_shares(scores: Scores, confidence: float = 0.95) -> AnchorShares | None:
    """Shares of variance of a one-way random-effects layout: candidates drawn at random, seeds within.

    V_seed = s² (pooled); V_candidate = var(cell means, ddof 1) - s²·mean(1/n). The interval of the
    candidate share ρ comes from the F pivot: with F = MS_between / MS_within and its quantiles F_q,
    V_candidate / V_seed = (F / F_q - 1) / n, n being the harmonic mean of seeds (exact when balanced,
    approximate otherwise), and ρ = r / (1 + r) with r cut at 0. The share itself uses max(V_candidate, 0).

    Returns None with fewer than two candidates, or where none has two scores. Cannot tell single
    parameters apart, and speaks of the space the anchors were drawn from, nothing else.
    Source: Searle, Casella & McCulloch 1992, ch. 3.
    """
    cells = [s for s in scores if len(s) >= 1]
    degrees = sum(len(s) - 1 for s in cells)
    if len(cells) < 2 or degrees < 1:
        return None
    within = sum(float(((s - s.mean()) ** 2).sum()) for s in cells) / degrees
    between = float(np.var([s.mean() for s in cells], ddof=1))
    mean_inverse = float(np.mean([1 / len(s) for s in cells]))
    candidate = between - within * mean_inverse
    low, high = _share_interval(between, within, mean_inverse, len(cells) - 1, degrees, confidence)
    total = max(candidate, 0.0) + within
    share = max(candidate, 0.0) / total if total > 0 else math.nan
    return AnchorShares(
        candidate_variance=candidate,
        seed_variance=within,
        candidate_share=Estimate(share, low, high),
        seed_share=Estimate(1 - share, 1 - high, 1 - low),
        num_candidates=len(cells),
        num_trials=sum(len(s) for s in cells),
    )


def grid_shares(grid: NDArray[np.float64], confidence: float = 0.95) -> AnchorShares | None:
    """Shares of anchors over the same seeds: (n_candidates, n_seeds), NaN where a trial has no score.

    Where the grid is complete and a seed moves all candidates alike (one-sided lower bound of its main effect above 0):
    V_candidate = (MS_c - MS_cs) / n, V_seed = V(main effect) + V(candidate × seed), and a generalized interval, from
    draws of χ² for the three mean squares. Everywhere else ``anchor_shares``: the same seed is not the same draw across
    ranks, heads or batch sizes. Source: Searle, Casella & McCulloch 1992, ch. 4; Burch 2011 for the interval.
    """
    p = seed_main_effect(grid)
    if p is None or p >= 0.05:
        return anchor_shares([row[np.isfinite(row)] for row in grid], confidence)
    rows, columns = grid.shape
    by_candidate, by_seed = grid.mean(axis=1) - grid.mean(), grid.mean(axis=0) - grid.mean()
    residual = grid - grid.mean() - by_candidate[:, None] - by_seed
    sums = np.array([columns * (by_candidate**2).sum(), rows * (by_seed**2).sum(), (residual**2).sum()])
    degrees = np.array([rows - 1, columns - 1, (rows - 1) * (columns - 1)])
    candidate, seed = _crossed_components(sums / degrees, rows, columns)
    drawn = _crossed_components((sums / np.random.default_rng(0).chisquare(degrees, size=(4000, 3))).T, rows, columns)
    tail = (1 - confidence) / 2
    low, high = np.quantile(_share(*drawn), [tail, 1 - tail])
    share = float(_share(candidate, seed))
    return AnchorShares(
        candidate_variance=float(candidate),
        seed_variance=float(seed),
        candidate_share=Estimate(share, float(low), float(high)),
        seed_share=Estimate(1 - share, 1 - float(high), 1 - float(low)),
        num_candidates=rows,
        num_trials=rows * columns,
        crossed=True,
    )


def _crossed_components(squares: NDArray[np.float64], rows: int, columns: int) -> tuple[Any, Any]:
    """V_candidate and V_seed (main effect, cut at 0, and interaction) from (3, …) mean squares."""
    candidate, seed, interaction = squares
    return (candidate - interaction) / columns, np.maximum(seed - interaction, 0.0) / rows + interaction


def _share(candidate: Any, seed: Any) -> Any:
    return np.maximum(candidate, 0.0) / (np.maximum(candidate, 0.0) + seed)


def _share_interval(
    between: float, within: float, mean_inverse: float, df_between: int, df_within: int, confidence: float
) -> tuple[float, float]:
    if within == 0:
        return (math.nan, math.nan)
    ratio = between / (within * mean_inverse)
    tail = (1 - confidence) / 2
    shares = []
    for probability in (1 - tail, tail):
        quantile = special.fdtri(df_between, df_within, probability)
        variance_ratio = max(0.0, (ratio / float(quantile) - 1) * mean_inverse)
        shares.append(variance_ratio / (1 + variance_ratio))
    return shares[0], shares[1]
