"""The grid of scores, candidates by seeds, that statistics read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plmray.trials.result import TrialResult


@dataclass(frozen=True)
class ScoreGrid:
    """Scores of candidates over seeds, (n_candidates, n_seeds); NaN where a trial has no score."""

    candidates: tuple[str, ...]
    seeds: tuple[int, ...]
    scores: NDArray[np.float64]

    @classmethod
    def from_results(cls, results: Iterable[TrialResult]) -> ScoreGrid:
        complete = [result for result in results if result.score is not None]
        candidates = tuple(dict.fromkeys(result.candidate_id for result in complete))
        seeds = tuple(sorted({result.seed for result in complete}))
        scores = np.full((len(candidates), len(seeds)), np.nan)
        for result in complete:
            scores[candidates.index(result.candidate_id), seeds.index(result.seed)] = result.score
        return cls(candidates, seeds, scores)

    def by_candidate(self) -> list[NDArray[np.float64]]:
        """The scores each candidate has, without the gaps."""
        return [row[np.isfinite(row)] for row in self.scores]
