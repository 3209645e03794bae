"""Rows of a verdict: one a candidate, one a group of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plmray.metrics import Metric
from plmray.stats.intervals import Array, Estimate, failure_rate, mean_interval, within
from plmray.stats.ranking import Ranking
from plmray.trials import selection
from plmray.trials.result import TrialResult
from plmray.trials.score_grid import ScoreGrid


@dataclass(frozen=True)
class CandidateRow:
    """One candidate in one phase, of its runs that trained. ``mean`` and ``test_mean`` are of its confirmation seeds
    where it has any, else of all its seeds; ``adaptive`` is true where statistics chose the number of seeds and none
    confirm the mean.

    ``sd`` is over its own seeds, NaN with fewer than two; ``p_best``, ``ranks`` and ``shrunken_mean`` are of one
    posterior of all candidates and all their seeds. ``train_loss``: mean over seeds before the first and the last
    evaluation. ``failures``: rate of trials that failed, diverged or collapsed; ``mean_with_failures`` counts a
    collapsed one as it scored and one without a score as the worst of the phase; ``interval_seeds``: of ``mean``.
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


def candidate_rows(
    judged: Sequence[TrialResult],
    sound: Sequence[TrialResult],
    grid: ScoreGrid,
    ranking: Ranking | None,
    phase: str,
    metric: Metric,
    confidence: float,
    chosen: Sequence[str] = (),
) -> list[CandidateRow]:
    """Best expected mean first, after the one that was chosen before its confirmation: so the first mean is of a
    candidate that its own fresh seeds did not choose. Without a confirmation the first is one of a fixed grid, if there
    is any.

    ``judged``: all trials of the phase; ``sound``: those that trained; ``grid`` and ``ranking``: of these.
    """
    if ranking is None:
        return []
    own, speaking, sign = selection.by_candidate(sound), selection.speaking(sound), metric.sign
    expected = sorted(range(len(grid.candidates)), key=lambda i: -sign * float(ranking.shrunken[i]))
    confirmed = [c for c in chosen if c in speaking] + [c for c, runs in speaking.items() if selection.confirmed(runs)]
    leaders = [grid.candidates.index(c) for c in confirmed][:1]
    if not leaders:
        leaders = [i for i in expected if not selection.adaptive(own[grid.candidates[i]])][:1]
    worst = sign * float((sign * scores_of(selection.scored(judged))).min())
    order = [*leaders, *(i for i in expected if i not in leaders)]
    return [_row(i, judged, own, speaking, grid, ranking, phase, metric, confidence, worst) for i in order]


def _row(
    index: int,
    judged: Sequence[TrialResult],
    sound: Mapping[str, list[TrialResult]],
    speaking: Mapping[str, list[TrialResult]],
    grid: ScoreGrid,
    ranking: Ranking,
    phase: str,
    metric: Metric,
    confidence: float,
    worst: float,
) -> CandidateRow:
    candidate_id = grid.candidates[index]
    every = [r for r in selection.of(candidate_id, judged) if not r.was_stopped]
    own, shown = sound[candidate_id], speaking[candidate_id]
    scores = scores_of(own)
    return CandidateRow(
        candidate_id,
        own[0].origin,
        phase,
        own[0].parameters,
        _bounded(mean_interval(scores_of(shown), confidence), metric),
        float(scores.std(ddof=1)) if len(scores) > 1 else math.nan,
        len(scores),
        _bounded(mean_interval(_test_scores(shown), confidence), metric),
        (_mean(r.first_train_loss for r in own), _mean(r.last_train_loss for r in own)),
        own[0].provenance.get("trainable_parameters"),
        float(ranking.shrunken[index]),
        float(ranking.p_best[index]),
        (float(ranking.low_rank[index]), float(ranking.high_rank[index])),
        failure_rate(len(every) - len(own), len(every), confidence),
        float(np.mean([worst if r.score is None else r.score for r in every])),
        len(shown),
        confirmed=bool(selection.confirmed(shown)),
        adaptive=bool(selection.adaptive(shown)),
    )


def group_rows(sound: Sequence[TrialResult], metric: Metric, confidence: float) -> Iterable[GroupRow]:
    """Levels of text parameters. The interval is over seeds: each seed's mean over the level's candidates
    is one observation, so it speaks of these candidates under other seeds, not of other candidates."""
    for key in sorted({key for r in sound for key, value in r.parameters.items() if isinstance(value, str)}):
        for level in sorted({str(r.parameters[key]) for r in sound if key in r.parameters}):
            own = [r for r in sound if r.parameters.get(key) == level]
            grid = ScoreGrid.from_results(own)
            by_seed = grid.scores[:, np.isfinite(grid.scores).all(axis=0)].mean(axis=0)
            mean = _bounded(mean_interval(by_seed, confidence), metric)
            yield GroupRow(key, level, mean, len(grid.candidates), len(own))


def rank_correlation(rows: Sequence[CandidateRow]) -> float:
    """Spearman's correlation of mean validation and test scores over candidates; NaN with fewer than five.

    Over candidates, not trials: seeds of one candidate say nothing of which candidate to choose.
    """
    pairs = np.array([(r.mean.value, r.test_mean.value) for r in rows if math.isfinite(r.test_mean.value)])
    if len(pairs) < 5 or np.ptp(pairs[:, 0]) == 0 or np.ptp(pairs[:, 1]) == 0:
        return math.nan
    from scipy import stats

    return float(stats.spearmanr(pairs[:, 0], pairs[:, 1]).statistic)


def scores_of(results: Iterable[TrialResult]) -> Array:
    return np.array([r.score for r in results], dtype=float)


def _test_scores(results: Iterable[TrialResult]) -> Array:
    """Those that are defined."""
    known = [r.test_score for r in results if r.test_score is not None]
    return np.array([value for value in known if math.isfinite(value)], dtype=float)


def _bounded(estimate: Estimate, metric: Metric) -> Estimate:
    return within(estimate, metric.low, metric.high)


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else math.nan
