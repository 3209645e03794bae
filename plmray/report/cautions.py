"""What a reader of a verdict must know before believing it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from plmray.stats.spread import UNEQUAL_BELOW, SeedSpread
from plmray.stats.surrogate import ParameterShares
from plmray.stats.variance import seed_main_effect
from plmray.trials.result import TrialResult
from plmray.trials.score_grid import ScoreGrid

if TYPE_CHECKING:
    from plmray.report.contest import Contest
    from plmray.report.rows import CandidateRow

INFORMS_FROM = 0.3  # rank correlation of validation with test


def cautions_of(
    results: Sequence[TrialResult],
    phase: str,
    rows: Sequence[CandidateRow],
    grid: ScoreGrid,
    spread: SeedSpread,
    contest: Contest | None,
    test_correlation: float,
    parameters: ParameterShares | None,
) -> Iterable[str]:
    yield from _of_selection(results, phase, rows)
    yield from _of_seeds(rows, grid, spread)
    if any(r.test_scores and r.test_score is None for r in results):
        yield "the objective is undefined on the test proteins (all alike, or none positive): it has no test score"
    if contest is not None and contest.flips_on is not None:
        yield (
            f"on the {contest.flips_on} scale the difference between the two best changes its verdict: scores near "
            "their bound are squeezed, so do not rest on it"
        )
    if test_correlation < INFORMS_FROM:
        yield (
            f"validation hardly informs the test here (rank correlation {test_correlation:.2f} over trials): the best "
            "on validation need not be the best on test"
        )
    if parameters is not None and parameters.lack_of_fit_p < 0.05:
        yield (
            f"the surrogate behind the shares of single hyperparameters misses more than seed noise "
            f"(p = {parameters.lack_of_fit_p:.2g}); more anchors would help"
        )
    for name, what in (("torch", "torch"), ("device", "device"), ("engine_class", "engine")):
        kinds = sorted({str(r.provenance[name]) for r in results if name in r.provenance})
        if len(kinds) > 1:
            yield f"trials come from more than one {what}: {', '.join(kinds)}"


def _of_selection(results: Sequence[TrialResult], phase: str, rows: Sequence[CandidateRow]) -> Iterable[str]:
    if phase == "search":
        yield (
            "no replicate trial has a score: these scores chose the winner, so the winner's mean is too good "
            "(winner's curse), and there is no test score"
        )
    elif len(rows) > 1 and not rows[0].confirmed:
        yield f"the best of {len(rows)} means is a little too good: the seeds that rank the candidates also judge them"
    if any(r.test_score is not None for r in results if r.phase == "search"):
        yield "test scores were taken during the search: the test set is no longer untouched"
    adaptive = sum(row.adaptive for row in rows)
    if adaptive:
        yield (
            f"{adaptive} candidates have as many seeds as their scores earned them and no confirmation: their means "
            "are biased by when they stopped, and their intervals describe, no more"
        )


def _of_seeds(rows: Sequence[CandidateRow], grid: ScoreGrid, spread: SeedSpread) -> Iterable[str]:
    shared = seed_main_effect(grid.scores)
    if shared is not None and shared < 0.05:
        yield (
            f"the same seed moves all candidates alike (p = {shared:.2g}): the interval of the seed spread takes seeds "
            "as independent between candidates and is too narrow here"
        )
    if spread.equal_p is not None and spread.equal_p < UNEQUAL_BELOW:
        yield (
            f"the seed's spread differs between candidates (p = {spread.equal_p:.2g}): the pooled SD is an average, "
            "without an interval"
        )
    if rows and rows[0].num_seeds < 3:
        yield f"the best candidate has {rows[0].num_seeds} seed(s): too few to tell luck from merit"
    if any(row.failures.value > 0 for row in rows[:1]):
        yield "the best candidate lost trials: its mean is of those that succeeded"
