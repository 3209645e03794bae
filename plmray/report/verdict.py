"""The numbers of a report: candidates, seed spread, shares, sources of noise. Computed from results alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from plmray.metrics import METRICS, Metric
from plmray.report.cautions import cautions_of
from plmray.report.contest import Contest, contest_of
from plmray.report.held_out import TestScores, test_scores_of
from plmray.report.parameters import Domains, anchors_missing, shares_of_parameters
from plmray.report.rows import CandidateRow, GroupRow
from plmray.seeds import derived_rng
from plmray.stats.intervals import Array, Estimate, failure_rate, mean_interval, within
from plmray.stats.ranking import Ranking, expected_best, rank
from plmray.stats.spread import SeedSpread, pooled_seed_sd
from plmray.stats.streams import StreamShares, stream_shares
from plmray.stats.surrogate import ParameterShares
from plmray.stats.variance import AnchorShares, grid_shares
from plmray.trials import selection
from plmray.trials.result import TrialResult, in_order
from plmray.trials.score_grid import ScoreGrid

EXPECTED_BEST_OF = (1, 2, 5, 10, 20, 50, 100)


@dataclass(frozen=True)
class Verdict:
    """``parameters``: shares of single hyperparameters, None with fewer than ten anchors each (``anchors_missing``).

    ``best_of``: what the best of so many blind draws would have been on average. ``importance``: what Optuna's
    evaluators say of the searched candidates, see ``sweep.phases.importance``. ``logarithmic``: parameters that are
    sampled on a log scale. ``test_scores``: all metrics of the best candidate. ``hosts``:
    where how many trials trained.
    """

    metric: str
    phase: str
    candidates: tuple[CandidateRow, ...]
    groups: tuple[GroupRow, ...]
    spread: SeedSpread
    shares: AnchorShares | None
    parameters: ParameterShares | None
    anchors_missing: int
    contest: Contest | None
    streams: StreamShares | None
    test_correlation: float
    best_of: Mapping[int, float]
    counts: Mapping[str, Mapping[str, int]]
    failures: tuple[TrialResult, ...]
    hosts: Mapping[str, int]
    allocation: Mapping[str, Any] | None = None
    importance: Mapping[str, Any] | None = None
    confidence: float = 0.95
    logarithmic: tuple[str, ...] = ()
    test_scores: TestScores | None = None
    warnings: tuple[str, ...] = field(default=())

    @property
    def best(self) -> CandidateRow | None:
        return self.candidates[0] if self.candidates else None


def judge(
    results: Sequence[TrialResult],
    metric: str,
    confidence: float = 0.95,
    *,
    space: Domains | None = None,
    decisions: Sequence[Mapping[str, Any]] = (),
    importance: Mapping[str, Any] | None = None,
    proteins: Mapping[str, int] | None = None,
    indifference: float | None = None,
) -> Verdict:
    """The verdict of a sweep: from the replicate phase where there is one, else from the search.

    Validation scores rank; test scores are shown and rank nothing. ``proteins``: of each split. ``indifference``: a
    difference of scores that does not matter.
    """
    results = in_order(results)
    phase = "replicate" if any(r.phase == "replicate" for r in selection.scored(results)) else "search"
    judged, sign = selection.main(results, phase), METRICS[metric].sign
    grid, ranking = _ranked([r for own in selection.speaking(judged).values() for r in own], sign, confidence)
    rows = _candidate_rows(judged, grid, ranking, phase, METRICS[metric], confidence)
    anchors = selection.anchors(judged)
    contest = contest_of(rows, grid, ranking, sign, confidence, indifference)
    spread = pooled_seed_sd(ScoreGrid.from_results(judged).by_candidate(), confidence)
    anchor_grid = ScoreGrid.from_results(anchors)
    correlation = rank_correlation(rows)
    shares = grid_shares(anchor_grid.scores, confidence) if anchors else None
    parameters = shares_of_parameters(anchors, space, confidence) if space else None
    if parameters is not None and shares is not None:
        parameters = replace(parameters, seed=shares.seed_share)  # one seed share in a report: that of the anchors
    return Verdict(
        metric=metric,
        phase=phase,
        candidates=tuple(rows),
        groups=tuple(_groups(judged, METRICS[metric], confidence)),
        spread=spread,
        shares=shares,
        parameters=parameters,
        anchors_missing=anchors_missing(len(anchor_grid.candidates), space) if space else 0,
        contest=contest,
        streams=streams_of(results, confidence),
        test_correlation=correlation,
        best_of=_best_of(anchor_grid, sign),
        counts=_counts(results),
        hosts=dict(Counter(str(r.provenance["host"]) for r in results if "host" in r.provenance)),
        failures=tuple(r for r in results if r.state == "FAILED" or (r.state == "PRUNED" and _diverged(r))),
        allocation=next((d for d in decisions if d.get("kind") == "allocation-stop"), None),
        importance=importance,
        confidence=confidence,
        logarithmic=tuple(key for key, domain in (space or {}).items() if getattr(domain, "log", False)),
        test_scores=test_scores_of(judged, rows[0].candidate_id, confidence) if rows else None,
        warnings=tuple(
            cautions_of(
                results,
                phase,
                rows,
                grid,
                spread,
                contest,
                correlation,
                parameters,
                METRICS[metric],
                space or {},
                proteins or {},
            )
        ),
    )


def candidate_summaries(results: Iterable[TrialResult]) -> dict[str, dict[str, float]]:
    """score.mean, score.sd and n_seeds by candidate: over replicate seeds where it has any, else search seeds."""
    summaries: dict[str, dict[str, float]] = {}
    complete = selection.main(selection.scored(in_order(results)))
    for candidate_id, own in selection.by_candidate(complete).items():
        scores = _scores(selection.main(own, "replicate") or own)
        summary = {"score.mean": float(scores.mean()), "n_seeds": float(len(scores))}
        if len(scores) > 1:
            summary["score.sd"] = float(scores.std(ddof=1))
        summaries[candidate_id] = summary
    return summaries


def streams_of(results: Sequence[TrialResult], confidence: float = 0.95) -> StreamShares | None:
    """Seed noise by stream, where the sweep moved streams one at a time (``replicate.vary``)."""
    varied = selection.varied(selection.scored(results))
    if not varied:
        return None
    candidates = list(dict.fromkeys(r.candidate_id for r in varied))
    main = selection.main(selection.scored(results), "replicate")
    held = {r.trial_id: r.score for r in main}
    whole = [_scores(selection.of(c, main)) for c in candidates]
    by_stream = {}
    for stream in dict.fromkeys(r.varied for r in varied):
        own = [[r for r in selection.of(c, varied) if r.varied == stream] for c in candidates]
        # The trial that holds every stream at the first seed belongs to each of them.
        base = [held.get(trials[0].trial_id.rpartition("-")[0]) if trials else None for trials in own]
        by_stream[stream] = [
            np.array([*(r.score for r in trials), *([] if b is None else [b])], dtype=float)
            for trials, b in zip(own, base, strict=True)
        ]
    return stream_shares(whole, by_stream, confidence)


def rank_correlation(rows: Sequence[CandidateRow]) -> float:
    """Spearman's correlation of mean validation and test scores over candidates; NaN with fewer than five.

    Over candidates, not trials: seeds of one candidate say nothing of which candidate to choose.
    """
    pairs = np.array([(r.mean.value, r.test_mean.value) for r in rows if math.isfinite(r.test_mean.value)])
    if len(pairs) < 5 or np.ptp(pairs[:, 0]) == 0 or np.ptp(pairs[:, 1]) == 0:
        return math.nan
    from scipy import stats

    return float(stats.spearmanr(pairs[:, 0], pairs[:, 1]).statistic)


def _ranked(judged: Sequence[TrialResult], sign: float, confidence: float) -> tuple[ScoreGrid, Ranking | None]:
    grid = ScoreGrid.from_results(judged)
    if not grid.candidates:
        return grid, None
    return grid, rank(grid.by_candidate(), sign, derived_rng(0, "rank"), confidence)


def _candidate_rows(
    judged: Sequence[TrialResult],
    grid: ScoreGrid,
    ranking: Ranking | None,
    phase: str,
    metric: Metric,
    confidence: float,
) -> list[CandidateRow]:
    """Best mean first; but the first two places go to candidates whose means no choice of seeds has biased."""
    if ranking is None:
        return []
    speaking, sign = selection.speaking(judged), metric.sign
    by_mean = sorted(range(len(grid.candidates)), key=lambda i: -sign * float(ranking.means[i]))
    leaders = [i for i in by_mean if not selection.adaptive(speaking[grid.candidates[i]])][:2]
    order = [*leaders, *(i for i in by_mean if i not in leaders)]
    worst = sign * float((sign * _scores(selection.scored(judged))).min())
    rows = []
    for index in order:
        candidate_id = grid.candidates[index]
        every = selection.of(candidate_id, judged)
        own = selection.scored(every)
        shown = speaking[candidate_id]
        scores = _scores(own)
        lost = sum(r.score is None for r in every)
        rows.append(
            CandidateRow(
                candidate_id,
                own[0].origin,
                phase,
                own[0].parameters,
                _bounded(mean_interval(_scores(shown), confidence), metric),
                float(scores.std(ddof=1)) if len(scores) > 1 else math.nan,
                len(scores),
                _bounded(mean_interval(_test_scores(shown), confidence), metric),
                (_mean(r.first_train_loss for r in own), _mean(r.last_train_loss for r in own)),
                own[0].provenance.get("trainable_parameters"),
                float(ranking.shrunken[index]),
                float(ranking.p_best[index]),
                (float(ranking.low_rank[index]), float(ranking.high_rank[index])),
                failure_rate(lost, len(every), confidence),
                float(np.mean([*scores, *[worst] * lost])),
                len(shown),
                confirmed=bool(selection.confirmed(shown)),
                adaptive=bool(selection.adaptive(shown)),
            )
        )
    return rows


def _scores(results: Iterable[TrialResult]) -> Array:
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


def _groups(judged: Sequence[TrialResult], metric: Metric, confidence: float) -> Iterable[GroupRow]:
    """Levels of text parameters. The interval is over seeds: each seed's mean over the level's candidates
    is one observation, so it speaks of these candidates under other seeds, not of other candidates."""
    complete = selection.scored(judged)
    for key in sorted({key for r in complete for key, value in r.parameters.items() if isinstance(value, str)}):
        for level in sorted({str(r.parameters[key]) for r in complete if key in r.parameters}):
            own = [r for r in complete if r.parameters.get(key) == level]
            grid = ScoreGrid.from_results(own)
            by_seed = grid.scores[:, np.isfinite(grid.scores).all(axis=0)].mean(axis=0)
            mean = _bounded(mean_interval(by_seed, confidence), metric)
            yield GroupRow(key, level, mean, len(grid.candidates), len(own))


def _best_of(anchors: ScoreGrid, sign: float) -> dict[int, float]:
    means = np.array([scores.mean() for scores in anchors.by_candidate()])
    return {n: expected_best(means, n, sign) for n in EXPECTED_BEST_OF if n <= len(means)}


def _counts(results: Sequence[TrialResult]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for result in results:
        phase = counts.setdefault(result.phase, {"COMPLETE": 0, "PRUNED": 0, "FAILED": 0})
        phase[result.state] += 1
    return counts


def _diverged(result: TrialResult) -> bool:
    return result.error is not None and "diverged" in result.error
