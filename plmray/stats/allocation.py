"""Which candidate runs its next seed: top-two Thompson sampling on moderated posteriors, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from plmray.stats.intervals import Array
from plmray.stats.ranking import posterior_draws
from plmray.stats.spread import moderated_sds

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
    Source: Russo 2020 (top-two Thompson sampling); posteriors as in ``ranking.rank``.
    """
    counts = np.array([len(scores) for scores in arms.scores]) + arms.in_flight
    if counts.min() < FIRST_SEEDS:
        return Choice(int(counts.argmin()), f"first {FIRST_SEEDS} seeds")
    if any(len(scores) == 0 for scores in arms.scores):  # in flight still: the one with the fewest is the best guess
        return Choice(int(counts.argmin()), "no score yet")
    means, errors, degrees = _posteriors(arms, counts)
    if not np.isfinite(errors).all():
        return Choice(int(counts.argmin()), "no spread known yet")
    draws = sign * posterior_draws(means, errors, degrees, rng, CHALLENGES)
    firsts = draws.argmax(axis=1)
    leader = int(firsts[0])
    others = firsts[firsts != leader]
    challenger = int(others[0]) if len(others) else _second(means, errors, sign, leader)
    worth = np.array([LEADER_SHARE / arms.costs[leader], (1 - LEADER_SHARE) / arms.costs[challenger]])
    if len(means) == 1 or rng.random() < worth[0] / worth.sum():
        return Choice(leader, "leads a draw")
    return Choice(challenger, "challenges", leader)


def standing(scores: Sequence[Array], sign: float, rng: np.random.Generator) -> Standing | None:
    """How sure the choice of the best is, from finished scores alone; None while a candidate has none, or no spread
    is known."""
    if not scores or any(len(own) == 0 for own in scores):
        return None
    counts = np.array([len(own) for own in scores])
    arms = Arms(scores, np.zeros(len(scores), np.int64), np.ones(len(scores)))
    means, errors, degrees = _posteriors(arms, counts)
    if not np.isfinite(errors).all():
        return None
    draws = sign * posterior_draws(means, errors, degrees, rng, DRAWS)
    first = draws == draws.max(axis=1, keepdims=True)
    p_best = (first / first.sum(axis=1, keepdims=True)).mean(axis=0)
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


def _posteriors(arms: Arms, counts: NDArray[np.int64]) -> tuple[Array, Array, Array]:
    moderated = moderated_sds(arms.scores)
    means = np.array([float(scores.mean()) for scores in arms.scores])
    return means, moderated.sds / np.sqrt(counts), moderated.degrees


def _second(means: Array, errors: Array, sign: float, leader: int) -> int:
    """The most likely challenger where no draw named one: the nearest in standard errors of the difference."""
    if len(means) == 1:
        return leader
    gaps = sign * (means[leader] - means) / np.maximum(np.hypot(errors, errors[leader]), 1e-300)
    gaps[leader] = math.inf
    return int(gaps.argmin())
