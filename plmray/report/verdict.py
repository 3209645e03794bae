"""The numbers of a report: candidates, seed spread, anchors. Computed from results alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from plmray.metrics import METRICS
from plmray.results import ScoreGrid, TrialResult
from plmray.stats.intervals import Estimate, mean_interval
from plmray.stats.spread import SeedSpread, pooled_seed_sd
from plmray.stats.variance import AnchorShares, anchor_shares, seed_main_effect


@dataclass(frozen=True)
class CandidateRow:
    """One candidate in one phase. ``sd`` is over its own seeds, NaN with fewer than two.

    ``train_loss`` is the mean over seeds before the first and before the last evaluation.
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


@dataclass(frozen=True)
class GroupRow:
    """All replicate trials that share one level of a categorical parameter."""

    parameter: str
    level: str
    mean: Estimate
    num_candidates: int
    num_trials: int


@dataclass(frozen=True)
class Verdict:
    metric: str
    phase: str
    candidates: tuple[CandidateRow, ...]
    groups: tuple[GroupRow, ...]
    spread: SeedSpread
    shares: AnchorShares | None
    counts: Mapping[str, Mapping[str, int]]
    failures: tuple[TrialResult, ...]
    confidence: float = 0.95
    warnings: tuple[str, ...] = field(default=())

    @property
    def best(self) -> CandidateRow | None:
        return self.candidates[0] if self.candidates else None


def judge(results: Sequence[TrialResult], metric: str, confidence: float = 0.95) -> Verdict:
    """The verdict of a sweep: from the replicate phase where there is one, else from the search."""
    replicates = [r for r in results if r.phase == "replicate"]
    phase = "replicate" if any(r.score is not None for r in replicates) else "search"
    judged = [r for r in results if r.phase == phase and not r.probe]
    rows = sorted(_candidate_rows(judged, phase, confidence), key=lambda row: -METRICS[metric].sign * row.mean.value)
    anchors = [r for r in judged if "random" in r.origin.split("+")] if phase == "replicate" else []
    return Verdict(
        metric=metric,
        phase=phase,
        candidates=tuple(rows),
        groups=tuple(_groups(judged, confidence)),
        spread=pooled_seed_sd(ScoreGrid.from_results(judged).by_candidate(), confidence),
        shares=anchor_shares(ScoreGrid.from_results(anchors).by_candidate(), confidence),
        counts=_counts(results),
        failures=tuple(r for r in results if r.state == "FAILED" or (r.state == "PRUNED" and _diverged(r))),
        confidence=confidence,
        warnings=tuple(_warnings(results, phase, rows, ScoreGrid.from_results(judged))),
    )


def candidate_summaries(results: Iterable[TrialResult]) -> dict[str, dict[str, float]]:
    """score.mean, score.sd and n_seeds by candidate: over replicate seeds where it has any, else search seeds."""
    summaries: dict[str, dict[str, float]] = {}
    complete = [r for r in results if r.score is not None and not r.probe]
    for candidate_id in dict.fromkeys(r.candidate_id for r in complete):
        own = [r for r in complete if r.candidate_id == candidate_id]
        scores = np.array([r.score for r in own if r.phase == "replicate"] or [r.score for r in own], dtype=float)
        summary = {"score.mean": float(scores.mean()), "n_seeds": float(len(scores))}
        if len(scores) > 1:
            summary["score.sd"] = float(scores.std(ddof=1))
        summaries[candidate_id] = summary
    return summaries


def _candidate_rows(judged: Sequence[TrialResult], phase: str, confidence: float) -> Iterable[CandidateRow]:
    complete = [r for r in judged if r.score is not None]
    for candidate_id in dict.fromkeys(r.candidate_id for r in complete):
        own = [r for r in complete if r.candidate_id == candidate_id]
        scores = np.array([r.score for r in own], dtype=float)
        tests = np.array([r.test_score for r in own if r.test_score is not None], dtype=float)
        yield CandidateRow(
            candidate_id,
            own[0].origin,
            phase,
            own[0].parameters,
            mean_interval(scores, confidence),
            float(scores.std(ddof=1)) if len(scores) > 1 else math.nan,
            len(scores),
            mean_interval(tests, confidence),
            (_mean(r.first_train_loss for r in own), _mean(r.last_train_loss for r in own)),
            own[0].provenance.get("trainable_parameters"),
        )


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else math.nan


def _groups(judged: Sequence[TrialResult], confidence: float) -> Iterable[GroupRow]:
    """Levels of text parameters. The interval is over seeds: each seed's mean over the level's candidates
    is one observation, so it speaks of these candidates under other seeds, not of other candidates."""
    complete = [r for r in judged if r.score is not None]
    for key in sorted({key for r in complete for key, value in r.parameters.items() if isinstance(value, str)}):
        for level in sorted({str(r.parameters[key]) for r in complete if key in r.parameters}):
            own = [r for r in complete if r.parameters.get(key) == level]
            grid = ScoreGrid.from_results(own)
            by_seed = grid.scores[:, np.isfinite(grid.scores).all(axis=0)].mean(axis=0)
            yield GroupRow(key, level, mean_interval(by_seed, confidence), len(grid.candidates), len(own))


def _counts(results: Sequence[TrialResult]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for result in results:
        phase = counts.setdefault(result.phase, {"COMPLETE": 0, "PRUNED": 0, "FAILED": 0})
        phase[result.state] += 1
    return counts


def _diverged(result: TrialResult) -> bool:
    return result.error is not None and "diverged" in result.error


def _warnings(
    results: Sequence[TrialResult], phase: str, rows: Sequence[CandidateRow], grid: ScoreGrid
) -> Iterable[str]:
    if phase == "search":
        yield (
            "no replicate trial has a score: these scores chose the winner, so the winner's mean is too good "
            "(winner's curse), and there is no test score"
        )
    elif len(rows) > 1:
        yield f"the best of {len(rows)} means is a little too good: the seeds that rank the candidates also judge them"
    shared = seed_main_effect(grid.scores)
    if shared is not None and shared < 0.05:
        yield (
            f"the same seed moves all candidates alike (p = {shared:.2g}): the intervals of the seed spread and of the "
            "shares take seeds as independent between candidates and are too narrow here"
        )
    if rows and rows[0].num_seeds < 3:
        yield f"the best candidate has {rows[0].num_seeds} seed(s): too few to tell luck from merit"
    for name, what in (("torch", "torch"), ("device", "device"), ("engine_class", "engine")):
        kinds = sorted({str(r.provenance[name]) for r in results if name in r.provenance})
        if len(kinds) > 1:
            yield f"trials come from more than one {what}: {', '.join(kinds)}"
