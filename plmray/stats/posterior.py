"""One posterior of candidates' means and spreads, behind every claim about who is best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from plmray.stats.intervals import Array

SCALES = 32  # of τ, the SD between candidates
DEGREES = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 1e6])  # of the prior of spreads; the last: one spread for all
SPREADS = 41  # of s₀, the common spread
SWEEPS = 6  # between means and spreads
CELLS = 4_000_000  # numbers held at a time


@dataclass(frozen=True)
class Posterior:
    """Joint draws: ``means`` and ``sds`` are (draws, n_candidates): a candidate's mean over seeds, and the SD of its
    runs."""

    means: Array
    sds: Array

    def p_best(self, sign: float) -> Array:
        """(n_candidates,) how often each comes out first; equal ones share."""
        merit = sign * self.means
        first = merit == merit.max(axis=1, keepdims=True)
        shares: Array = (first / first.sum(axis=1, keepdims=True)).mean(axis=0)
        return shares

    def beats(self, one: int, other: int, sign: float) -> float:
        """P(one run of ``one`` beats one run of ``other``), over the draws. Source: Bouthillier et al. 2021."""
        gap = sign * (self.means[:, one] - self.means[:, other])
        spread = np.hypot(self.sds[:, one], self.sds[:, other])
        with np.errstate(invalid="ignore", divide="ignore"):
            chances = np.where(spread > 0, special.ndtr(gap / spread), (1 + np.sign(gap)) / 2)
        return float(chances.mean())

    def p_better(self, one: int, other: int, sign: float) -> float:
        """P(the mean of ``one`` is better than that of ``other``); ties count half."""
        gap = sign * (self.means[:, one] - self.means[:, other])
        return float(((gap > 0) + 0.5 * (gap == 0)).mean())

    def p_close(self, one: int, other: int, within: float) -> float:
        """P(the two means differ by no more than ``within``)."""
        return float((np.abs(self.means[:, one] - self.means[:, other]) <= within).mean())


def posterior_of(
    scores: Sequence[Array], rng: np.random.Generator, draws: int, in_flight: NDArray[np.int64] | None = None
) -> Posterior | None:
    """Draws from y_cs ~ N(μ_c, σ_c²), μ_c ~ N(m, τ²), σ_c² ~ scaled inverse χ²(d₀, s₀²).

    ``scores``: one array of finite scores a candidate, at least one each. m is flat, τ half-Cauchy with the scale of
    the means' own spread, d₀ and s₀ even on log grids: candidates that were chosen for high scores are pulled back as
    far as their spread is noise, and what is not known of τ, d₀ and s₀ widens the draws. ``in_flight``: runs that count
    as if they had come in at the mean. None where no candidate has two scores. Where nothing spreads, means are as they
    are.

    Takes scores as normal and candidates as exchangeable: a set of copies of one setting beside a few others is not.
    Source: Gelman et al. 2013, sections 5.4 and 14; Smyth 2004 for the spreads.
    """
    counts = np.array([len(own) for own in scores], dtype=float)
    means = np.array([float(own.mean()) for own in scores])
    degrees = counts - 1
    squares = np.array([float(((own - own.mean()) ** 2).sum()) for own in scores])
    if not degrees.any():
        return None
    if not squares.any():
        return Posterior(np.tile(means, (draws, 1)), np.zeros((draws, len(means))))
    prior_degrees, prior = _spread_prior(squares, degrees, rng, draws)
    variances = _scaled(prior_degrees * prior + squares, prior_degrees + degrees, rng)
    for _ in range(SWEEPS):  # of Gibbs: a mean far out is a sign of a large spread, too
        drawn = _all_means(means, variances / counts, rng)
        squared = squares + counts * (means - drawn) ** 2
        variances = _scaled(prior_degrees * prior + squared, prior_degrees + counts, rng)
    effective = counts if in_flight is None else counts + in_flight
    return Posterior(_all_means(means, variances / effective, rng), np.sqrt(variances))


def _scaled(squares: Array, degrees: Array, rng: np.random.Generator) -> Array:
    """Variances from their scaled inverse χ², of (draws, n_candidates) sums of squares and degrees."""
    found: Array = squares / rng.chisquare(np.broadcast_to(degrees, squares.shape))
    return found


def _all_means(means: Array, noise: Array, rng: np.random.Generator) -> Array:
    """``_means`` in parts that fit the memory."""
    size = max(1, CELLS // (SCALES * len(means)))
    return np.concatenate([_means(means, noise[n : n + size], rng) for n in range(0, len(noise), size)])


def _spread_prior(squares: Array, degrees: Array, rng: np.random.Generator, draws: int) -> tuple[Array, Array]:
    """(draws, 1) of d₀ and s₀², from what the spreads within candidates say of them."""
    known = degrees > 0
    pooled = squares.sum() / degrees.sum()
    grid = pooled * np.exp(np.linspace(-4, 4, SPREADS))
    likelihood = np.stack([_spread_likelihood(squares[known], degrees[known], d, grid) for d in DEGREES])
    weights = np.exp(likelihood - likelihood.max())
    chosen = rng.choice(weights.size, size=draws, p=weights.ravel() / weights.sum())
    return DEGREES[chosen // SPREADS, None], grid[chosen % SPREADS, None]


def _spread_likelihood(squares: Array, degrees: Array, prior_degrees: float, grid: Array) -> Array:
    """(SPREADS,) log likelihood of sums of squares under each s₀²: s_c² / s₀² ~ F(d_c, d₀)."""
    half, own = prior_degrees / 2, degrees / 2
    ratio = squares[None, :] / (prior_degrees * grid[:, None])
    constant = special.gammaln(half + own) - special.gammaln(half)
    scale = own * np.log(prior_degrees * grid[:, None])
    found: Array = (constant - scale - (half + own) * np.log1p(ratio)).sum(axis=1)
    return found


def _means(means: Array, noise: Array, rng: np.random.Generator) -> Array:
    """(draws, n_candidates) of μ_c, given (draws, n_candidates) variances ``noise`` of the observed means."""
    if len(means) == 1:
        single: Array = means + rng.normal(size=noise.shape) * np.sqrt(noise)
        return single
    width = max(float(means.std(ddof=1)), math.sqrt(float(np.median(noise))))
    scales = width * np.tan(np.pi / 2 * (np.arange(SCALES) + 0.5) / SCALES)  # even in the prior's probability
    total = noise[:, None, :] + scales[None, :, None] ** 2
    weights = 1 / total
    sums = weights.sum(axis=2)
    centres = (weights * means).sum(axis=2) / sums
    misfit = (weights * (means - centres[..., None]) ** 2).sum(axis=2)
    logs = 0.5 * (np.log(weights).sum(axis=2) - np.log(sums) - misfit)
    chances = np.exp(logs - logs.max(axis=1, keepdims=True))
    cumulated = np.cumsum(chances, axis=1)
    chosen = (rng.uniform(size=(len(noise), 1)) * cumulated[:, -1:] > cumulated).sum(axis=1)
    rows = np.arange(len(noise))
    centre = centres[rows, chosen] + rng.normal(size=len(noise)) / np.sqrt(sums[rows, chosen])
    between = scales[chosen, None] ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(noise > 0, between / (between + noise), 1.0)
    own = centre[:, None] + share * (means - centre[:, None])
    drawn: Array = own + rng.normal(size=noise.shape) * np.sqrt(share * noise)
    return drawn
