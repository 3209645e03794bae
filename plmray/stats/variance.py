"""How much of the spread of scores is the seed, and how much the candidate.

Only anchors (candidates drawn blindly from the space) may enter ``anchor_shares``: candidates an
optimiser proposed are no sample of the space, and their spread says nothing about it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from plmray.stats.intervals import Estimate, Scores


@dataclass(frozen=True)
class AnchorShares:
    """Variance components of anchors. ``candidate_variance`` may be negative: read it as too small to see."""

    candidate_variance: float
    seed_variance: float
    candidate_share: Estimate
    seed_share: Estimate
    num_candidates: int
    num_trials: int


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
