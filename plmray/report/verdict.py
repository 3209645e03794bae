"""The numbers of a report, in one place: what ``judge`` finds and every form of it shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from plmray.report.contest import Contest
from plmray.report.held_out import TestScores
from plmray.report.losses import Losses
from plmray.report.rows import CandidateRow, GroupRow
from plmray.stats.intervals import Estimate
from plmray.stats.spread import SeedSpread
from plmray.stats.streams import StreamShares
from plmray.stats.surrogate import ParameterShares
from plmray.stats.variance import AnchorShares
from plmray.trials.result import TrialResult


@dataclass(frozen=True)
class OverProteins:
    """Test scores over seeds × proteins. ``scores``: by candidate, the best first, then the second; ``delta``: best -
    second on the same resampled proteins. ``units``: proteins, or families of them (``are_families``), that come and go
    alone."""

    scores: Mapping[str, Estimate]
    delta: Estimate | None
    units: int
    are_families: bool
    resamples: int

    @property
    def best(self) -> Estimate:
        return next(iter(self.scores.values()))


@dataclass(frozen=True)
class BestOf:
    """Of n blind draws: the highest mean ``seen``, noise and all; the ``true`` mean of the truly best; and what the one
    that looks best is worth, ``picked``. NaN where no spread is known."""

    seen: float
    true: float
    picked: float


@dataclass(frozen=True)
class Contrast:
    """``one`` level of a choice against the ``other``, over random candidates: Δ of mean scores, other candidates and
    seeds in its interval. ``counts``: candidates of each; ``paired``: the same other settings with both."""

    parameter: str
    one: str
    other: str
    delta: Estimate
    counts: tuple[int, int]
    paired: bool
    p_holm: float


@dataclass(frozen=True)
class SpreadTrend:
    """``ratio``: seed SD at the top of a parameter's range over that at its bottom."""

    parameter: str
    ratio: Estimate
    p_holm: float


@dataclass(frozen=True)
class Verdict:
    """``parameters``: shares of single hyperparameters, None with fewer than ten anchors each (``anchors_missing``).

    ``best_of``: by number of blind draws. ``levels``: values at which ``parameters.curves`` are. ``importance``: what
    Optuna's evaluators say of the searched candidates, see ``sweep.phases.importance``. ``logarithmic``: parameters
    that are sampled on a log scale. ``test_scores``: all metrics of the best candidate. ``hosts``: where how many
    trials trained.
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
    best_of: Mapping[int, BestOf]
    counts: Mapping[str, Mapping[str, int]]
    losses: Losses
    failures: tuple[TrialResult, ...]
    hosts: Mapping[str, int]
    allocation: Mapping[str, Any] | None = None
    importance: Mapping[str, Any] | None = None
    confidence: float = 0.95
    logarithmic: tuple[str, ...] = ()
    test_scores: TestScores | None = None
    over_proteins: OverProteins | None = None
    contrasts: tuple[Contrast, ...] = ()
    trends: tuple[SpreadTrend, ...] = ()
    levels: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    warnings: tuple[str, ...] = field(default=())

    @property
    def best(self) -> CandidateRow | None:
        return self.candidates[0] if self.candidates else None
