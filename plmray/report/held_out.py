"""What the best candidate does on the test proteins: every metric, and class by class. It ranks nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plmray.metrics import METRICS
from plmray.report.text import interval, number
from plmray.stats.intervals import Estimate, mean_interval, within
from plmray.text import table
from plmray.trials import selection
from plmray.trials.result import TrialResult


@dataclass(frozen=True)
class TestScores:
    """``metrics``: means over seeds of every metric that fits the task; ``classes``: the same class by class."""

    candidate_id: str
    num_seeds: int
    metrics: dict[str, Estimate]
    classes: tuple[dict[str, Any], ...]


def test_scores_of(judged: Sequence[TrialResult], candidate_id: str, confidence: float) -> TestScores | None:
    """Of one candidate's trials; None where no test was taken."""
    own = [r for r in selection.of(candidate_id, judged) if r.test_scores and r.state == "COMPLETE"]
    if not own:
        return None
    found = {name: [r.test_scores.get(name, np.nan) for r in own] for r in own for name in r.test_scores}
    means = {name: _bounded_mean(name, f, confidence) for name, f in found.items()}
    tables = [r.test_classes for r in own if r.test_classes]
    return TestScores(candidate_id, len(own), means, tuple(_mean_rows(tables)))


def _bounded_mean(name: str, scores: Sequence[float], confidence: float) -> Estimate:
    """Of the seeds on which the metric is defined: none, if the test proteins leave it undefined."""
    mean = mean_interval(np.array([v for v in scores if np.isfinite(v)]), confidence)
    return within(mean, METRICS[name].low, METRICS[name].high) if name in METRICS else mean


def _mean_rows(tables: Sequence[list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    for rows in zip(*tables, strict=True):
        first = rows[0]
        names = dict.fromkeys(k for row in rows for k in row if k not in ("class", "units"))
        means = {k: float(np.mean([row[k] for row in rows if k in row])) for k in names}
        yield {"class": first["class"], "units": first["units"], **means}


def test_lines(found: TestScores) -> Iterator[str]:
    """A section of the report."""
    yield f"## {found.candidate_id} on the test proteins"
    yield ""
    rows = [(name, interval(estimate)) for name, estimate in found.metrics.items()]
    yield from table(("metric", f"mean over {found.num_seeds} seeds"), rows)
    yield ""
    if found.classes:
        names = list(dict.fromkeys(key for row in found.classes for key in row))
        yield from table(names, [[_cell(row.get(name)) for name in names] for row in found.classes])
        yield ""


def _cell(value: Any) -> str:
    return "-" if value is None else number(value) if isinstance(value, float) else str(value)
