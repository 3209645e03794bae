"""Which candidate runs its next seed: top-two Thompson sampling on the posterior of all, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from plmray.stats.collapse import succeeded
from plmray.stats.intervals import Array
from plmray.stats.posterior import posterior_of

FIRST_SEEDS = 2
LEADER_SHARE = 0.5
SURE = 0.95
DRAWS = 2000
CHALLENGES = 100  # joint draws before the runner-up is taken by its probability

StopReason = Literal["sure", "indifferent", "budget"]


@dataclass(frozen=True)
class Arms:
    """What is known when a place is free. ``scores``: one array of finished scores a candidate (never of test);
    ``in_flight``: (n_candidates,) trials that run or wait; ``costs``: (n_candidates,) predicted cost of a trial."""

    scores: Sequence[Array]
    in_flight: NDArray[np.int64]
    costs: Array


@dataclass(frozen=True)
class Choice:
    """The candidate to run next and why, in words that are kept with the trial; ``rival``: whom it challenges."""

    candidate: int
    reason: str
    rival: int | None = None


@dataclass(frozen=True)
class Standing:
    """``p_best``: (n_candidates,). ``expected_loss``: of picking the leader now, in the score's unit."""

    leader: int
    p_best: Array
    expected_loss: float


def next_trial(arms: Arms, sign: float, rng: np.random.Generator) -> Choice:
    """The candidate whose next seed is worth most: asynchronous top-two Thompson sampling.

    Every candidate first gets two seeds, in order. Then the leader of one joint draw from the posteriors with
    probability .5, else a challenger: the first other candidate that leads a further draw; each weighed by one over its
    cost. Trials in flight count as if they had come in at the mean: they narrow a posterior and do not move it, so that
    free places do not all choose the same candidate. ``sign``: +1 where larger is better.
    Source: Russo 2020 (top-two Thompson sampling); the posterior is that of ``ranking.rank``.
    """
    counts = np.array([len(scores) for scores in arms.scores]) + arms.in_flight
    if counts.min() < FIRST_SEEDS:
        return Choice(int(counts.argmin()), f"first {FIRST_SEEDS} seeds")
    if any(len(scores) == 0 for scores in arms.scores):  # in flight still: the one with the fewest is the best guess
        return Choice(int(counts.argmin()), "no score yet")
    posterior = posterior_of(succeeded(arms.scores, sign), rng, CHALLENGES, arms.in_flight)
    if posterior is None:
        return Choice(int(counts.argmin()), "no spread known yet")
    draws = sign * posterior.means
    firsts = draws.argmax(axis=1)
    leader = int(firsts[0])
    others = firsts[firsts != leader]
    challenger = int(others[0]) if len(others) else _second(draws, leader)
    worth = np.array([LEADER_SHARE / arms.costs[leader], (1 - LEADER_SHARE) / arms.costs[challenger]])
    if len(counts) == 1 or rng.random() < worth[0] / worth.sum():
        return Choice(leader, "leads a draw")
    return Choice(challenger, "challenges", leader)


def standing(scores: Sequence[Array], sign: float, rng: np.random.Generator) -> Standing | None:
    """How sure the choice of the best is, from finished scores alone, collapsed runs left out; None while a candidate
    has none, or no spread is known."""
    if not scores or any(len(own) == 0 for own in scores):
        return None
    posterior = posterior_of(succeeded(scores, sign), rng, DRAWS)
    if posterior is None:
        return None
    draws, p_best = sign * posterior.means, posterior.p_best(sign)
    leader = int(p_best.argmax())
    return Standing(leader, p_best, float((draws.max(axis=1) - draws[:, leader]).mean()))


def stop_reason(
    now: Standing | None, trials: int, budget: int, indifference: float | None, fewest: int
) -> StopReason | None:
    """Why to stop: P(best) of .95, an expected loss below ``indifference`` (the score's unit), or a spent budget.

    ``fewest``: seeds of the candidate that has the fewest; with fewer than two nothing is sure. Stopping on what was
    seen biases the means: intervals come from a confirmation on fresh seeds.
    """
    if trials >= budget:
        return "budget"
    if now is None or fewest < FIRST_SEEDS:
        return None
    if now.p_best[now.leader] >= SURE:
        return "sure"
    if indifference is not None and now.expected_loss < indifference:
        return "indifferent"
    return None


def _second(draws: Array, leader: int) -> int:
    """The most likely challenger where no draw named one: the nearest in standard errors of the difference."""
    if draws.shape[1] == 1:
        return leader
    gaps = draws[:, [leader]] - draws
    far = gaps.mean(axis=0) / np.maximum(gaps.std(axis=0), 1e-300)
    far[leader] = math.inf
    return int(far.argmin())
