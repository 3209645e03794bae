"""Which trials speak for what: one meaning each, for statistics, reports, exports and phases alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from plmray.trials.result import TrialResult
from plmray.trials.trial import CONFIRMATION, FIXED_GRID


class Row(Protocol):
    """A trial, as a result or as a row of a table."""

    @property
    def phase(self) -> str: ...
    @property
    def origin(self) -> str: ...
    @property
    def varied(self) -> str: ...
    @property
    def probe(self) -> bool: ...
    @property
    def reason(self) -> str: ...


AnyRow = TypeVar("AnyRow", bound=Row)


def main(rows: Iterable[AnyRow], phase: str | None = None) -> list[AnyRow]:
    """Trials whose seed moves all streams and whose score was not taken by a probe; of one phase, if named: what a
    verdict on it compares, complete or not."""
    return [r for r in rows if not r.varied and not r.probe and phase in (None, r.phase)]


def anchors(rows: Iterable[AnyRow]) -> list[AnyRow]:
    """Trials that no score has chosen: of blindly drawn candidates, on the fixed grid of the replicate phase."""
    drawn = [r for r in main(rows, "replicate") if "random" in str(r.origin).split("+")]
    return [r for r in drawn if (r.reason or "") in ("", FIXED_GRID)]


def varied(rows: Iterable[AnyRow]) -> list[AnyRow]:
    """Trials that move one stream of their seed alone."""
    return [r for r in rows if r.varied]


def scored(results: Iterable[TrialResult]) -> list[TrialResult]:
    return [r for r in results if r.score is not None]


def of(candidate_id: str, results: Iterable[TrialResult]) -> list[TrialResult]:
    return [r for r in results if r.candidate_id == candidate_id]


def by_candidate(results: Iterable[TrialResult]) -> dict[str, list[TrialResult]]:
    """The same by candidate, in the order in which each is first seen."""
    own: dict[str, list[TrialResult]] = {}
    for result in results:
        own.setdefault(result.candidate_id, []).append(result)
    return own


def speaking(results: Iterable[TrialResult]) -> dict[str, list[TrialResult]]:
    """The complete trials that speak for each candidate: its confirmation where it has one, for the others were chosen
    by what they scored; else all."""
    return {c: confirmed(own) or own for c, own in by_candidate(scored(results)).items()}


def confirmed(results: Iterable[TrialResult]) -> list[TrialResult]:
    """Trials that check what was chosen, on seeds of their own."""
    return [r for r in results if r.reason == CONFIRMATION]


def adaptive(results: Iterable[TrialResult]) -> list[TrialResult]:
    """Trials that statistics asked for after they had seen scores."""
    return [r for r in results if r.reason not in ("", FIXED_GRID, CONFIRMATION)]
