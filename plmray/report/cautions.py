"""What a reader of a verdict must know before believing it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from plmray.config.fields.space import ChoiceDomain
from plmray.metrics import METRICS, Metric
from plmray.report.losses import Losses
from plmray.report.parameters import Domains, position
from plmray.report.text import plain_name
from plmray.stats.spread import UNEQUAL_BELOW, SeedSpread
from plmray.stats.variance import seed_main_effect
from plmray.trials.result import TrialResult
from plmray.trials.score_grid import ScoreGrid

if TYPE_CHECKING:
    from plmray.report.rows import CandidateRow
    from plmray.report.verdict import Verdict

INFORMS_FROM = 0.3  # rank correlation of validation with test
EDGE, NEAR_EDGE = 0.1, 1 / 3  # parts of a range at its end: for the best candidate, for the second
FEW_PROTEINS = 100
GAP = 5.0  # seed SDs between validation and test


def cautions_of(
    verdict: Verdict,
    results: Sequence[TrialResult],
    grid: ScoreGrid,
    anchor_grid: ScoreGrid,
    space: Domains,
    proteins: Mapping[str, int],
) -> Iterable[str]:
    """``verdict``: without its warnings; ``grid``, ``anchor_grid``: of the runs that trained; ``proteins``: how many
    each split has, where that is known."""
    rows, spread, contest = verdict.candidates, verdict.spread, verdict.contest
    metric, parameters, test_correlation = METRICS[verdict.metric], verdict.parameters, verdict.test_correlation
    yield from _of_selection(results, verdict.phase, rows)
    yield from _of_losses(verdict.losses)
    yield from _of_seeds(rows, grid, anchor_grid, spread)
    yield from _of_edges(rows, space)
    yield from _of_proteins(rows, metric, proteins)
    yield from _of_gap(rows, metric, spread)
    if any(r.test_scores and r.test_score is None for r in results):
        yield "the objective is undefined on the test proteins (all alike, or none positive): it has no test score"
    if contest is not None and contest.flips_on is not None:
        yield (
            f"on the {contest.flips_on} scale the difference between the two best changes its verdict: scores near "
            "their bound are squeezed, so do not rest on it"
        )
    if test_correlation < INFORMS_FROM:
        yield (
            f"validation hardly informs the test here (rank correlation {test_correlation:.2f} over candidates): the "
            "best on validation need not be the best on test"
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


def _of_edges(rows: Sequence[CandidateRow], space: Domains) -> Iterable[str]:
    """Parameters whose two best candidates lie at one end of what was searched: the best may lie beyond."""
    for key, domain in space.items():
        own = [row.parameters[key] for row in rows[:2] if key in row.parameters]
        if isinstance(domain, ChoiceDomain) or len(own) < 2 or domain.grid_size() < 3:
            continue
        first, second = (position(domain, value) for value in own)
        for end, far, near in (("low", 1 - first, 1 - second), ("high", first, second)):
            if far >= 1 - EDGE and near >= 1 - NEAR_EDGE:
                shown = f"{own[0]:.3g}" if isinstance(own[0], float) else own[0]
                yield f"the best values of {key} lie at the {end} end of its range ({shown}): extend it"


def _of_proteins(rows: Sequence[CandidateRow], metric: Metric, proteins: Mapping[str, int]) -> Iterable[str]:
    """Splits so small that which proteins they hold moves the score, whatever the seeds say."""
    for split, mean in (("validation", rows[0].mean), ("test", rows[0].test_mean)) if rows else ():
        count = proteins.get(split, 0)
        if 0 < count < FEW_PROTEINS and math.isfinite(mean.value):
            error = metric.error_over(mean.value, count)
            much = f": by chance of the proteins alone {mean.value:.2f} is ± {1.96 * error:.2f}" if error else ""
            yield f"the {split} set has {count} proteins{much}; intervals here are over seeds, on these very proteins"


def _of_gap(rows: Sequence[CandidateRow], metric: Metric, spread: SeedSpread) -> Iterable[str]:
    if not rows or not math.isfinite(rows[0].test_mean.value) or not spread.sd.value > 0:
        return
    gap = metric.sign * (rows[0].mean.value - rows[0].test_mean.value)
    if abs(gap) > GAP * spread.sd.value and abs(gap) > 0.03 * max(1.0, abs(rows[0].mean.value)):
        side = "better" if gap > 0 else "worse"
        yield (
            f"validation is {abs(gap):.3f} {side} than the test for the best candidate, "
            f"{abs(gap) / spread.sd.value:.0f} seed SDs: the two sets differ, so a validation score does not say what "
            "to expect on the test"
        )


def _of_selection(results: Sequence[TrialResult], phase: str, rows: Sequence[CandidateRow]) -> Iterable[str]:
    if phase == "search":
        yield (
            "no replicate trial has a score: these scores chose the winner, so the winner's mean is too good "
            "(winner's curse), and there is no test score"
        )
    elif len(rows) > 1 and not rows[0].confirmed:
        yield f"the best of {len(rows)} means is a little too good: the seeds that rank the candidates also judge them"
    if phase == "replicate" and rows and not any(r.test_scores or r.test_score is not None for r in results):
        yield (
            "there are no test proteins: nothing here says how good the winner is on unseen ones. Mark some (set = "
            "test), or let task.split draw them"
        )
    if any(r.test_score is not None for r in results if r.phase == "search"):
        yield "test scores were taken during the search: the test set is no longer untouched"
    adaptive = sum(row.adaptive for row in rows)
    if adaptive:
        yield (
            f"{adaptive} candidates have as many seeds as their scores earned them and no confirmation: their means "
            "are biased by when they stopped, and their intervals describe, no more"
        )


def _of_losses(losses: Losses) -> Iterable[str]:
    if losses.collapses:
        shown = ", ".join(c.trial_id for c in losses.collapses[:3])
        more = f" and {len(losses.collapses) - 3} more" if len(losses.collapses) > 3 else ""
        yield (
            f"{len(losses.collapses)} of {losses.runs} runs collapsed far below their candidate's other seeds ({shown}"
            f"{more}): they count in the rate of lost runs, not in means and spreads"
        )
    for key in losses.depends_on:
        yield f"runs are lost under some values of {plain_name(key)} more than under others: see the table of lost runs"


def _of_seeds(
    rows: Sequence[CandidateRow], grid: ScoreGrid, anchor_grid: ScoreGrid, spread: SeedSpread
) -> Iterable[str]:
    shared = seed_main_effect(grid.scores)
    if shared is None:  # candidates with seeds of their own beside a grid of anchors
        shared = seed_main_effect(anchor_grid.scores)
    if shared is not None and shared < 0.05:
        yield (
            f"the same seed moves all candidates alike (p = {shared:.2g}): the interval of the seed spread takes seeds "
            "as independent between candidates and is too narrow here"
        )
    if spread.equal_p is not None and spread.equal_p < UNEQUAL_BELOW:
        yield (
            f"the seed's spread differs between candidates (p = {spread.equal_p:.2g}), or has long tails: the pooled "
            "SD is an average of unlike ones, and its interval the wider for it"
        )
    if rows and rows[0].num_seeds < 3:
        yield f"the best candidate has {rows[0].num_seeds} seed(s): too few to tell luck from merit"
    if any(row.failures.value > 0 for row in rows[:1]):
        yield "the best candidate lost trials: its mean is of those that succeeded"
