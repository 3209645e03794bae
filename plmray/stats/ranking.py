"""Which candidate is best, how sure that is, and what the best of so many is worth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from plmray.stats.intervals import Array, Scores
from plmray.stats.spread import moderated_sds

DRAWS, NUMBERS_AT_MOST = 20_000, 4_000_000  # of the posteriors of all candidates together


@dataclass(frozen=True)
class Ranking:
    """Of (n_candidates,) each: ``means``, ``sds`` (moderated), ``p_best``, ``low_rank`` and ``high_rank`` (1 is best),
    ``shrunken`` means. NaN where no candidate has two seeds."""

    means: Array
    sds: Array
    p_best: Array
    low_rank: Array
    high_rank: Array
    shrunken: Array


def rank(scores: Scores, sign: float, rng: np.random.Generator, confidence: float = 0.95) -> Ranking:
    """Rank candidates by mean score over seeds, each with a posterior of its own.

    ``scores``: one array of finite scores a candidate, at least one score each; ``sign``: +1 where larger is better.
    Monte Carlo over μ_c ~ mean_c + t_ν s_c / √n_c with moderated SDs: P(best) is how often a candidate comes out first,
    the rank interval where it lies in ``confidence`` of the draws. Ties share their luck. Descriptive: moderated
    intervals cover slightly less than they say, and the prior on means is flat.
    """
    moderated = moderated_sds(scores)
    means, counts = np.array([float(s.mean()) for s in scores]), np.array([len(s) for s in scores])
    shrunken = shrunken_means(means, moderated.sds, counts)
    if not np.isfinite(moderated.sds).all():
        unknown = np.full(len(means), math.nan)
        return Ranking(means, moderated.sds, unknown, unknown, unknown, means)
    draws = posterior_draws(means, moderated.sds / np.sqrt(counts), moderated.degrees, rng, _num_draws(len(means)))
    order = np.argsort(-sign * draws + 0.0, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(1, len(means) + 1)[None], axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(ranks, [tail, 1 - tail], axis=0, method="nearest")
    return Ranking(means, moderated.sds, _first_share(sign * draws), low, high, shrunken)


def _num_draws(candidates: int) -> int:
    """Fewer for very many candidates, so that their draws stay within some ten megabytes."""
    return max(1000, min(DRAWS, NUMBERS_AT_MOST // candidates))


def posterior_draws(
    means: Array, errors: Array, degrees: Array, rng: np.random.Generator, draws: int
) -> NDArray[np.float64]:
    """(draws, n_candidates) of mean + t · standard error; infinite degrees draw from the normal."""
    normal = rng.normal(size=(draws, len(means)))
    finite = np.isfinite(degrees)
    scale = np.ones_like(normal)
    if finite.any():
        scale[:, finite] = np.sqrt(degrees[finite] / rng.chisquare(degrees[finite], size=(draws, int(finite.sum()))))
    return means + errors * normal * scale


def _first_share(draws: Array) -> Array:
    """How often each column holds the row's maximum; equal ones share."""
    first = draws == draws.max(axis=1, keepdims=True)
    shares: Array = (first / first.sum(axis=1, keepdims=True)).mean(axis=0)
    return shares


def chance_to_beat(mean_a: float, sd_a: float, mean_b: float, sd_b: float, sign: float = 1.0) -> float:
    """P(one run of A beats one run of B) = Φ(Δ / √(s_A² + s_B²)); 0.5 where they are the same and nothing spreads.

    Takes means and SDs as known. Source: Bouthillier et al. 2021, "probability of outperforming".
    """
    spread = math.hypot(sd_a, sd_b)
    difference = sign * (mean_a - mean_b)
    if spread == 0:
        return 0.5 if difference == 0 else float(difference > 0)
    return float(special.ndtr(difference / spread))


def shrunken_means(means: Array, sds: Array, counts: NDArray[np.int64]) -> Array:
    """Means pulled towards their common mean by how much of their spread is noise: against the winner's curse.

    grand + (1 - B_c)(mean_c - grand) with B_c = (k - 3) / (k - 1) · (s_c² / n_c) / (V + s_c² / n_c) for k candidates
    and V = max(0, var(means) - mean(s² / n)). As they are with fewer than four candidates or unknown SDs. Assumes means
    that scatter normally; for candidates an optimiser chose the scatter is not that of the space.
    Source: empirical Bayes (Morris 1983).
    """
    if len(means) < 4 or not np.isfinite(sds).all():
        return means
    noise = sds**2 / counts
    between = max(0.0, float(means.var(ddof=1) - noise.mean()))
    if not (between + noise > 0).all():
        return means  # nothing spreads
    centre = float(np.average(means, weights=1 / (between + noise)))
    pull = (len(means) - 3) / (len(means) - 1) * noise / (between + noise)
    shrunken: Array = centre + (1 - pull) * (means - centre)
    return shrunken


def expected_best(scores: Array, trials: int, sign: float = 1.0) -> float:
    """What the best of ``trials`` trials would have been on average, from (N,) scores that were seen.

    Unbiased: Σ C(i - 1, n - 1) / C(N, n) · y₍ᵢ₎ over scores in ascending order (of merit). Raises ValueError where
    more trials are asked for than were seen. Source: Tang et al. 2020.
    """
    total = len(scores)
    if not 1 <= trials <= total:
        raise ValueError(f"best of {trials} cannot be estimated from {total} scores; ask for 1 to {total}")
    ordered = np.sort(sign * scores)
    ranks = np.arange(1, total + 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = _log_choose(ranks - 1, trials - 1) - _log_choose(np.array([total]), trials)
    weights = np.where(ranks >= trials, np.exp(logs), 0.0)
    return sign * float((weights * ordered).sum())


def _log_choose(n: NDArray[np.int64], k: int) -> Array:
    chosen: Array = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    return chosen
