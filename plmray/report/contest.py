"""The best candidate against the second: by how much, how surely, and how many seeds would settle it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from plmray.stats.effects import Delta, flips, welch_delta
from plmray.stats.intervals import Array
from plmray.stats.power import seeds_needed, welch_power
from plmray.stats.ranking import Ranking, chance_to_beat
from plmray.trials.score_grid import ScoreGrid

if TYPE_CHECKING:
    from plmray.report.rows import CandidateRow

SEEDS_SHOWN = (2, 3, 5, 8, 12, 20, 30, 50, 80, 120)


@dataclass(frozen=True)
class Contest:
    """``delta``: best - second by Welch, descriptive, as both were chosen for their means. ``p_beats``: one run of the
    best beats one run of the second; NaN where no candidate has two seeds, for then nothing is known of luck.
    ``more_seeds``: each needs, for a power of .8 at the observed difference and moderated SDs; None beyond 10,000 or
    without a spread. ``power``: by seeds each. ``flips_on``: the scale on which the verdict changes. ``against_best``:
    Δ of every other candidate against the best, by candidate."""

    best: str
    second: str
    delta: Delta
    p_beats: float
    more_seeds: int | None
    power: dict[int, float]
    flips_on: str | None
    against_best: dict[str, Delta]

    @property
    def has_spread(self) -> bool:
        """Whether anything is known of the seed's luck."""
        return math.isfinite(self.p_beats)

    @property
    def is_settled(self) -> bool:
        return self.delta.verdict != "undecided"


def contest_of(
    rows: Sequence[CandidateRow], grid: ScoreGrid, ranking: Ranking | None, sign: float, confidence: float
) -> Contest | None:
    """None with fewer than two candidates."""
    if ranking is None or len(rows) < 2:
        return None
    scores = dict(zip(grid.candidates, grid.by_candidate(), strict=True))
    sds = dict(zip(grid.candidates, ranking.sds.tolist(), strict=True))
    best, second = rows[0].candidate_id, rows[1].candidate_id
    gap = abs(float(scores[best].mean() - scores[second].mean()))
    have = min(len(scores[best]), len(scores[second]))
    spreads = sds[best], sds[second]
    needed = seeds_needed(gap, *spreads, alpha=1 - confidence) if np.isfinite(spreads).all() else None
    power = {n: welch_power(gap, *spreads, n, 1 - confidence) for n in SEEDS_SHOWN} if needed is not None else {}
    return Contest(
        best,
        second,
        welch_delta(scores[second], scores[best], confidence),
        chance_to_beat(*_pair(scores, sds, best), *_pair(scores, sds, second), sign),
        None if needed is None else max(0, needed - have),
        power,
        _flips(scores[second], scores[best], confidence),
        {row.candidate_id: welch_delta(scores[best], scores[row.candidate_id], confidence) for row in rows[1:]},
    )


def _pair(scores: dict[str, Array], sds: dict[str, float], candidate: str) -> tuple[float, float]:
    return float(scores[candidate].mean()), sds[candidate]


def _flips(second: Array, best: Array, confidence: float) -> str | None:
    inside = min(second.min(), best.min()) >= -1 and max(second.max(), best.max()) <= 1
    return flips(second, best, confidence) if inside else None
