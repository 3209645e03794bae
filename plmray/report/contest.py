"""The best candidate against the second: how surely it is better, whether that matters, what seeds would settle it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plmray.stats.effects import Delta, flips, welch_delta
from plmray.stats.intervals import Array
from plmray.stats.power import assurance, more_seeds_for
from plmray.stats.ranking import Ranking
from plmray.trials.score_grid import ScoreGrid

if TYPE_CHECKING:
    from plmray.report.rows import CandidateRow

SEEDS_SHOWN = (1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 120, 200)
AFFORDABLE = SEEDS_SHOWN[-1]
SURE = 0.95  # of being better, and of being as good
PART_OF_SPREAD = 0.1  # of the spread between candidates: a difference that nobody chooses by, where none is stated


@dataclass(frozen=True)
class Contest:
    """What the posterior says of the best and the second. ``delta``: best - second by Welch, descriptive, as both were
    chosen for their means. ``p_better``: the mean of the best is better; ``p_beats``: one run of it beats one run of
    the second; NaN where no candidate has two seeds, for then nothing is known of luck. ``indifference``: a difference
    that does not matter: ``is_stated`` by the sweep, else a tenth of the spread between candidates; ``p_close``: theirs
    is no larger.

    ``more_seeds``: of each, for a chance of .8 that Welch's test tells them apart then, averaged over the posterior;
    None where AFFORDABLE have less. ``power``: that chance by further seeds of each. ``flips_on``: the scale on which
    the verdict changes. ``against_best``: Δ of every other candidate against the best, by candidate."""

    best: str
    second: str
    delta: Delta
    p_better: float
    p_beats: float
    indifference: float
    p_close: float
    more_seeds: int | None
    power: dict[int, float]
    flips_on: str | None
    against_best: dict[str, Delta]
    is_stated: bool = False

    @property
    def has_spread(self) -> bool:
        """Whether anything is known of the seed's luck."""
        return math.isfinite(self.p_beats)

    @property
    def is_settled(self) -> bool:
        return self.p_better >= SURE

    @property
    def is_turned(self) -> bool:
        """Whether the second is surely better: the first was chosen before their confirmation."""
        return self.p_better <= 1 - SURE

    @property
    def is_indifferent(self) -> bool:
        """Whether either may be taken."""
        return self.p_close >= SURE


def contest_of(
    rows: Sequence[CandidateRow],
    grid: ScoreGrid,
    ranking: Ranking | None,
    scores: Mapping[str, Array],
    sign: float,
    confidence: float,
    indifference: float | None = None,
) -> Contest | None:
    """None with fewer than two candidates. ``scores``: those that speak for each candidate, its confirmation where it
    has one; ``ranking``: of all scores, in the order of ``grid``. ``indifference``: as the sweep states it, in the
    score's unit."""
    if ranking is None or len(rows) < 2:
        return None
    best, second = rows[0].candidate_id, rows[1].candidate_id
    one, other = scores[best], scores[second]
    within = indifference if indifference is not None else PART_OF_SPREAD * _spread(ranking)
    chances = _chances(ranking, grid, best, second, sign, within, (one, other), 1 - confidence)
    return Contest(
        best,
        second,
        welch_delta(other, one, confidence),
        *chances,
        _flips(other, one, confidence),
        {row.candidate_id: welch_delta(one, scores[row.candidate_id], confidence) for row in rows[1:]},
        is_stated=indifference is not None,
    )


def _spread(ranking: Ranking) -> float:
    """SD between candidates, of their posterior means."""
    return float(ranking.shrunken.std(ddof=1))


def _chances(
    ranking: Ranking,
    grid: ScoreGrid,
    best: str,
    second: str,
    sign: float,
    within: float,
    scores: tuple[Array, Array],
    alpha: float,
) -> tuple[float, float, float, float, int | None, dict[int, float]]:
    """``p_better`` to ``power`` of a Contest."""
    posterior = ranking.posterior
    if posterior is None:
        return math.nan, math.nan, within, math.nan, None, {}
    places = grid.candidates.index(best), grid.candidates.index(second)
    gap = posterior.means[:, places[0]] - posterior.means[:, places[1]]
    sds = posterior.sds[:, places[0]], posterior.sds[:, places[1]]
    seen, have = float(scores[0].mean() - scores[1].mean()), (len(scores[0]), len(scores[1]))
    return (
        posterior.p_better(*places, sign),
        posterior.beats(*places, sign),
        within,
        posterior.p_close(*places, within),
        more_seeds_for(gap, *sds, seen, have, alpha=alpha, most=AFFORDABLE),
        {n: assurance(gap, *sds, seen, have, n, alpha) for n in SEEDS_SHOWN},
    )


def _flips(second: Array, best: Array, confidence: float) -> str | None:
    inside = min(second.min(), best.min()) >= -1 and max(second.max(), best.max()) <= 1
    return flips(second, best, confidence) if inside else None
