"""Where the runs of ``plmray stats`` come from, and which way their scores point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from plmray.metrics import METRICS
from plmray.report.tables.findings import scored
from plmray.report.tables.table import RunTable, read_runs
from plmray.sweep.folder.reader import load_resolved
from plmray.trials import selection
from plmray.trials.trial import CONFIRMATION

Source = Any  # a table of pandas, columns by name, the path of a CSV, TSV or Parquet file, or of a sweep folder
Names = str | Sequence[str]


def runs_of(source: Source, score: str, anchors: bool = False) -> RunTable:
    """The runs that have a score; of a sweep folder what a verdict compares, or its ``anchors`` alone."""
    runs, _ = scored(table_of(source), score)
    return _of_sweep(runs, anchors) if is_folder(source) else runs


def unscored(source: Source, score: str) -> int:
    """How many runs have no score, and are left out."""
    return scored(table_of(source), score)[1]


def table_of(source: Source) -> RunTable:
    if hasattr(source, "to_dict") and hasattr(source, "columns"):
        columns = {str(name): [None if v != v else v for v in source[name].tolist()] for name in source.columns}
        return RunTable("table", columns)
    if isinstance(source, Mapping):
        return RunTable("table", {str(name): list(values) for name, values in source.items()})
    return read_runs(Path(source))


def is_folder(source: Source) -> bool:
    return isinstance(source, str | Path) and Path(source).is_dir()


def _of_sweep(runs: RunTable, anchors: bool) -> RunTable:
    """Anchors, or what speaks for each candidate: its confirmation where it has one; scores chose its other seeds."""
    names = ("phase", "varied", "probe", "origin", "reason", "candidate_id")
    cells = zip(*(runs.column(name) for name in names), strict=True)
    rows = [SimpleNamespace(place=n, **dict(zip(names, own, strict=True))) for n, own in enumerate(cells)]
    if anchors:
        return runs.where([row.place for row in selection.anchors(rows)])
    phase: Literal["search", "replicate"] = "replicate" if any(r.phase == "replicate" for r in rows) else "search"
    own = selection.main(rows, phase)
    confirmed = {r.candidate_id for r in own if r.reason == CONFIRMATION}
    return runs.where([r.place for r in own if r.reason == CONFIRMATION or r.candidate_id not in confirmed])


def sign_of(source: Source, score: str, minimize: bool) -> float:
    """A sweep folder knows the direction of its metric; of other tables the name of the column tells."""
    if minimize or not is_folder(source):
        return -1.0 if minimize or is_error(score) else 1.0
    return METRICS[load_resolved(Path(source)).objective.metric].sign


def is_error(score: str) -> bool:
    """Whether a column of scores is one where smaller is better, by its name."""
    name = score.lower().rsplit(".", 1)[-1]
    known = METRICS.get(name)
    return known.direction == "minimize" if known else any(word in name for word in ("loss", "rmse", "perplexity"))


def names_of(given: Names) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)
