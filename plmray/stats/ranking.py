"""Which candidate is best, how sure that is, and what the best of so many is worth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from plmray.stats.intervals import Array, Scores
from plmray.stats.posterior import Posterior, posterior_of
from plmray.stats.spread import moderated_sds

DRAWS, NUMBERS_AT_MOST = 2_000, 1_000_000  # of the posterior of all candidates together


@dataclass(frozen=True)
class Ranking:
    """Of (n_candidates,) each: ``means`` as seen, ``sds`` (moderated), ``p_best``, ``low_rank`` and ``high_rank`` (1 is
    best), ``shrunken``: posterior means. NaN, and no ``posterior``, where no candidate has two seeds."""

    means: Array
    sds: Array
    p_best: Array
    low_rank: Array
    high_rank: Array
    shrunken: Array
    posterior: Posterior | None = None

    def beats(self, one: int, other: int, sign: float) -> float:
        """P(one run of ``one`` beats one run of ``other``); NaN without a posterior."""
        return math.nan if self.posterior is None else self.posterior.beats(one, other, sign)


def rank(scores: Scores, sign: float, rng: np.random.Generator, confidence: float = 0.95) -> Ranking:
    """Rank candidates by mean score over seeds, with one posterior for all that is said of them.

    ``scores``: one array of finite scores a candidate, at least one score each; ``sign``: +1 where larger is better.
    P(best) is how often a candidate comes out first among draws of ``posterior_of``, the rank interval where it lies in
    ``confidence`` of them. Ties share their luck. Said and true agree within .05 where candidates scatter normally
    (tests/benchmarks/reliability.py).
    """
    sds = moderated_sds(scores).sds
    means = np.array([float(s.mean()) for s in scores])
    posterior = posterior_of(scores, rng, _num_draws(len(means)))
    if posterior is None:
        unknown = np.full(len(means), math.nan)
        return Ranking(means, sds, unknown, unknown, unknown, means)
    order = np.argsort(-sign * posterior.means + 0.0, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(1, len(means) + 1)[None], axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(ranks, [tail, 1 - tail], axis=0, method="nearest")
    return Ranking(means, sds, posterior.p_best(sign), low, high, posterior.means.mean(axis=0), posterior)


def _num_draws(candidates: int) -> int:
    """Fewer for very many candidates, so that their draws stay within some ten megabytes."""
    return max(1000, min(DRAWS, NUMBERS_AT_MOST // candidates))


def expected_best(scores: Array, trials: int, sign: float = 1.0, worth: Array | None = None) -> float:
    """What the best of ``trials`` trials would have been on average, from (N,) scores that were seen.

    Unbiased: Σ C(i - 1, n - 1) / C(N, n) · y₍ᵢ₎ over scores in ascending order (of merit). ``worth``: (N,) of what each
    is counted as, the score by default; so one learns what the one that looks best is worth, where scores have noise:
    the highest score seen is too good. Raises ValueError where more trials are asked for than were seen.
    Source: Tang et al. 2020.
    """
    total = len(scores)
    if not 1 <= trials <= total:
        raise ValueError(f"best of {trials} cannot be estimated from {total} scores; ask for 1 to {total}")
    order = np.argsort(sign * scores, kind="stable")
    ordered = (sign * (scores if worth is None else worth))[order]
    ranks = np.arange(1, total + 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = _log_choose(ranks - 1, trials - 1) - _log_choose(np.array([total]), trials)
    weights = np.where(ranks >= trials, np.exp(logs), 0.0)
    return sign * float((weights * ordered).sum())


def _log_choose(n: NDArray[np.int64], k: int) -> Array:
    chosen: Array = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    return chosen
