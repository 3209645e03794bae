"""Where a published score comes from: the lowest validation loss, the best test score over epochs, or neither."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from plmray.stats.intervals import Array

Finding = Literal["validation-selected", "test-selected", "unexplained", "no-curve"]
FINDINGS: tuple[Finding, ...] = ("validation-selected", "test-selected", "unexplained", "no-curve")

TOLERANCE = 1e-6
DECIMALS_OF_A_ROUNDED_SCORE = 4


@dataclass(frozen=True)
class Curve:
    """One training log. ``valid_loss``, ``test_score``: (n_evaluations,), NaN where missing. ``name``: says which."""

    name: str
    valid_loss: Array
    test_score: Array

    @property
    def at_lowest_valid(self) -> float:
        """The test score at the first evaluation with the lowest validation loss; NaN without validation losses."""
        if not np.isfinite(self.valid_loss).any():
            return math.nan
        return float(self.test_score[int(np.nanargmin(self.valid_loss))])

    @property
    def best_test(self) -> float:
        return float(np.nanmax(self.test_score)) if np.isfinite(self.test_score).any() else math.nan


@dataclass(frozen=True)
class RunAudit:
    """``both``: the lowest validation loss and the best test score meet in one evaluation, so the finding cannot tell
    them apart and takes the better one. ``curve``: the log that was compared. ``note``: what else was noticed."""

    reported: float
    at_lowest_valid: float
    best_test: float
    finding: Finding
    both: bool
    curve: str = ""
    note: str = ""


@dataclass(frozen=True)
class GroupAudit:
    """Runs that differ in the seed alone. ``verdict``: the finding of all its runs that one log explains, 'mixed' where
    they differ. ``unreported_seeds``: with a log of the same kind but no reported score."""

    runs: int
    findings: Mapping[Finding, int]
    verdict: str
    unreported_seeds: tuple[Hashable, ...]


def audit_run(
    reported: float, curves: Sequence[Curve], decimals: int | None = None, tolerance: float = TOLERANCE
) -> RunAudit:
    """Compare one reported score with the logs it may come from; validation takes precedence.

    ``decimals``: of the longest score of its column; with at most four of them the column is taken as rounded, and so
    compared. A single short number says nothing of that. Equality is no proof of how a checkpoint was chosen:
    another rule may pick the same epoch.
    """
    if not curves:
        return RunAudit(reported, math.nan, math.nan, "no-curve", False)
    decimals = 99 if decimals is None else decimals
    rounded = decimals <= DECIMALS_OF_A_ROUNDED_SCORE
    near = max(tolerance, 0.5 * 10.0**-decimals * (1 + 1e-9)) if rounded else tolerance
    audits = [_against(reported, curve, near, f"rounded to {decimals} decimals" if rounded else "") for curve in curves]
    return min(audits, key=lambda audit: (FINDINGS.index(audit.finding), _distance(audit)))


def _against(reported: float, curve: Curve, near: float, note: str) -> RunAudit:
    at_lowest, best = curve.at_lowest_valid, curve.best_test
    by_validation, by_test = abs(reported - at_lowest) <= near, abs(reported - best) <= near
    finding: Finding = "validation-selected" if by_validation else "test-selected" if by_test else "unexplained"
    if math.isnan(at_lowest):
        note = "its log has no validation loss"
    elif finding == "unexplained":
        note = ""
    return RunAudit(reported, at_lowest, best, finding, by_validation and by_test, curve.name, note)


def _distance(audit: RunAudit) -> float:
    """How far a score is from its log; of several unexplained logs the nearest is shown."""
    distances = [abs(audit.reported - value) for value in (audit.at_lowest_valid, audit.best_test) if value == value]
    return min(distances, default=math.inf)


def decimals_of(value: float) -> int:
    """Digits behind the point in a score's shortest exact text."""
    text = repr(float(value))
    return 99 if "e" in text else len(text.partition(".")[2].rstrip("0"))


def swapped_with(audit: RunAudit, others: Iterable[tuple[str, float]], tolerance: float = TOLERANCE) -> str:
    """The run whose own score an unexplained one equals, by name; '' for none. ``others``: names and their scores at
    the lowest validation loss."""
    if audit.finding != "unexplained":
        return ""
    return next((name for name, score in others if abs(audit.reported - score) <= tolerance), "")


def audit_group(
    audits: Sequence[tuple[Hashable, RunAudit]], curve_seeds: Mapping[str, Iterable[Hashable]], kinds: Mapping[str, str]
) -> GroupAudit:
    """Judge the runs of one group, ``audits`` with their seeds.

    ``kinds``: curve name to the kind of its log (its mode); ``curve_seeds``: the seeds that have a log, by kind.
    """
    findings = Counter(audit.finding for _, audit in audits)
    explained = [audit for _, audit in audits if audit.finding in ("validation-selected", "test-selected")]
    # A run that fits both rules says nothing against either.
    telling = {audit.finding for audit in explained if not audit.both} or {audit.finding for audit in explained}
    verdict = telling.pop() if len(telling) == 1 else "mixed" if telling else _verdict_without_proof(findings)
    used = Counter(kinds[audit.curve] for audit in explained)
    kind = used.most_common(1)[0][0] if used else None
    unreported = sorted(set(curve_seeds[kind]) - {seed for seed, _ in audits}, key=str) if kind is not None else []
    return GroupAudit(len(audits), {name: findings.get(name, 0) for name in FINDINGS}, verdict, tuple(unreported))


def _verdict_without_proof(findings: Mapping[Finding, int]) -> str:
    return "unexplained" if findings.get("unexplained") else "no-curve"
