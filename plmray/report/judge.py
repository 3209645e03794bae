"""From results to a verdict: candidates, seed spread, shares, sources of noise. Computed from results alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from plmray.metrics import METRICS
from plmray.report.cautions import cautions_of
from plmray.report.contest import contest_of
from plmray.report.held_out import test_scores_of
from plmray.report.losses import losses_of, split_off
from plmray.report.parameters import Domains, anchors_missing, levels_of, shares_of_parameters
from plmray.report.questions import best_of_draws, contrasts_of, spread_trends
from plmray.report.rows import candidate_rows, group_rows, rank_correlation, scores_of
from plmray.report.verdict import Verdict
from plmray.seeds import derived_rng
from plmray.stats.collapse import succeeded
from plmray.stats.ranking import rank
from plmray.stats.spread import pooled_seed_sd
from plmray.stats.streams import StreamShares, stream_shares
from plmray.stats.variance import grid_shares
from plmray.trials import selection
from plmray.trials.result import TrialResult, in_order
from plmray.trials.score_grid import ScoreGrid
from plmray.trials.trial import CONFIRMATION


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
    judged, kind = selection.main(results, phase), METRICS[metric]
    sound, fallen = split_off(judged, kind.sign)
    grid = ScoreGrid.from_results(sound)
    ranking = rank(grid.by_candidate(), kind.sign, derived_rng(0, "rank"), confidence) if grid.candidates else None
    rows = candidate_rows(judged, sound, grid, ranking, phase, kind, confidence, _chosen(decisions))
    anchors = selection.anchors(sound)
    speaking = selection.speaking(sound)
    spoken = {c: scores_of(own) for c, own in speaking.items()}
    contest = contest_of(rows, grid, ranking, spoken, kind.sign, confidence, indifference)
    spread = pooled_seed_sd(grid.by_candidate(), confidence)
    anchor_grid = ScoreGrid.from_results(anchors)
    shares = grid_shares(anchor_grid.scores, confidence) if anchors else None
    parameters = shares_of_parameters(anchors, space, confidence) if space else None
    if parameters is not None and shares is not None:
        parameters = replace(parameters, seed=shares.seed_share)  # one seed share in a report: that of the anchors
    verdict = Verdict(
        metric=metric,
        phase=phase,
        candidates=tuple(rows),
        groups=tuple(group_rows(sound, kind, confidence)),
        spread=spread,
        shares=shares,
        parameters=parameters,
        anchors_missing=anchors_missing(len(anchor_grid.candidates), space) if space else 0,
        contest=contest,
        streams=streams_of(results, kind.sign, confidence),
        test_correlation=rank_correlation(rows),
        best_of=best_of_draws(anchor_grid, kind.sign),
        counts=_counts(results),
        losses=losses_of(judged, sound, fallen, space or {}, confidence),
        hosts=dict(Counter(str(r.provenance["host"]) for r in results if "host" in r.provenance)),
        failures=tuple(r for r in results if r.state == "FAILED" or r.has_diverged),
        allocation=next((d for d in decisions if d.get("kind") == "allocation-stop"), None),
        importance=importance,
        confidence=confidence,
        logarithmic=tuple(key for key, domain in (space or {}).items() if getattr(domain, "log", False)),
        contrasts=contrasts_of(anchors, space or {}, confidence),
        trends=spread_trends(sound, space or {}, confidence),
        levels={key: tuple(levels_of(space[key])[0]) for key in space} if space and parameters else {},
        test_scores=test_scores_of(speaking[rows[0].candidate_id], rows[0].candidate_id, confidence) if rows else None,
    )
    return replace(
        verdict, warnings=tuple(cautions_of(verdict, results, grid, anchor_grid, space or {}, proteins or {}))
    )


def _chosen(decisions: Sequence[Mapping[str, Any]]) -> Sequence[str]:
    """Candidates that were fixed before fresh seeds confirmed them, the expected best first."""
    return next((d["candidates"] for d in decisions if d.get("kind") == CONFIRMATION), ())


def candidate_summaries(results: Iterable[TrialResult], metric: str) -> dict[str, dict[str, float]]:
    """score.mean, score.sd, n_seeds and n_collapsed by candidate: over replicate seeds where it has any, else search
    seeds, of the runs that trained."""
    complete = selection.by_candidate(selection.main(selection.scored(in_order(results))))
    chosen = [r for own in complete.values() for r in selection.main(own, "replicate") or own]
    sound, fallen = split_off(chosen, METRICS[metric].sign)
    lost = Counter(r.candidate_id for r in fallen)
    summaries: dict[str, dict[str, float]] = {}
    for candidate_id, own in selection.by_candidate(sound).items():
        scores = scores_of(own)
        summary = {"score.mean": float(scores.mean()), "n_seeds": float(len(scores))}
        if len(scores) > 1:
            summary["score.sd"] = float(scores.std(ddof=1))
        summaries[candidate_id] = summary | {"n_collapsed": float(lost[candidate_id])}
    return summaries


def streams_of(results: Sequence[TrialResult], sign: float, confidence: float = 0.95) -> StreamShares | None:
    """Seed noise by stream, where the sweep moved streams one at a time (``replicate.vary``); of runs that trained."""
    varied = selection.varied(selection.scored(results))
    if not varied:
        return None
    candidates = list(dict.fromkeys(r.candidate_id for r in varied))
    main = selection.main(selection.scored(results), "replicate")
    held = {r.trial_id: r.score for r in main}
    whole = succeeded([scores_of(selection.of(c, main)) for c in candidates], sign)
    by_stream = {}
    for stream in dict.fromkeys(r.varied for r in varied):
        own = [[r for r in selection.of(c, varied) if r.varied == stream] for c in candidates]
        # The trial that holds every stream at the first seed belongs to each of them.
        base = [held.get(trials[0].trial_id.rpartition("-")[0]) if trials else None for trials in own]
        scores = [
            np.array([*(r.score for r in trials), *([] if b is None else [b])], dtype=float)
            for trials, b in zip(own, base, strict=True)
        ]
        by_stream[stream] = succeeded(scores, sign)
    return stream_shares(whole, by_stream, confidence)


def _counts(results: Sequence[TrialResult]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for result in results:
        phase = counts.setdefault(result.phase, {"COMPLETE": 0, "PRUNED": 0, "FAILED": 0})
        phase[result.state] += 1
    return counts
