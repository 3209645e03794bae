"""Rows of a verdict: one a candidate, one a group of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plmray.stats.intervals import Estimate


@dataclass(frozen=True)
class CandidateRow:
    """One candidate in one phase. ``mean`` and ``test_mean`` are of its confirmation seeds where it has any, else of
    all its seeds; ``adaptive`` is true where statistics chose the number of seeds and none confirm the mean.

    ``sd`` is over its own seeds, NaN with fewer than two; ``p_best``, ``ranks`` and ``shrunken_mean`` use moderated SDs
    of all candidates. ``train_loss``: mean over seeds before the first and the last evaluation. ``failures``: rate of
    trials without a score; ``mean_with_failures`` counts each as the worst score of the phase; ``interval_seeds``: of
    ``mean``.
    """

    candidate_id: str
    origin: str
    phase: str
    parameters: Mapping[str, Any]
    mean: Estimate
    sd: float
    num_seeds: int
    test_mean: Estimate
    train_loss: tuple[float, float]
    trainable_parameters: int | None
    shrunken_mean: float
    p_best: float
    ranks: tuple[float, float]
    failures: Estimate
    mean_with_failures: float
    interval_seeds: int
    confirmed: bool = False
    adaptive: bool = False


@dataclass(frozen=True)
class GroupRow:
    """All replicate trials that share one level of a categorical parameter."""

    parameter: str
    level: str
    mean: Estimate
    num_candidates: int
    num_trials: int
