"""The verbs of ``plmray stats`` on any table of runs: a table of pandas, a file, or a sweep folder."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

from plmray.errors import DataError
from plmray.metrics import METRICS
from plmray.report.tables import audit as audits
from plmray.report.tables import findings
from plmray.report.tables.findings import Row, scored
from plmray.report.tables.table import RunTable, as_number, read_runs
from plmray.stats.effects import Mode
from plmray.sweep.folder.reader import load_resolved
from plmray.trials import selection

if TYPE_CHECKING:
    import pandas as pd

Source = Any  # a table of pandas, columns by name, the path of a CSV, TSV or Parquet file, or of a sweep folder
Names = str | Sequence[str]


def shares(
    table: Source,
    *,
    score: str = "score",
    factors: Names = (),
    candidate: str | None = None,
    seed_column: str | None = None,
    by: Names = (),
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Shares of variance: what each factor, their interactions and the seed explain, a row for each value of ``by``.

    ``factors``: columns that were set; or ``candidate``: the column of candidates that were drawn blindly. A sweep
    folder needs neither: its random candidates in the replicate phase. Source: components of variance of crossed
    designs; intervals resample runs within cells. Raises DataError where the table does not hold such a design.
    """
    _warn(table, score, (*_names(factors), *_names(candidate or ()), *_names(by)), bool(factors or candidate))
    return _framed(map(flat, shares_rows(table, score, factors, candidate, seed_column, by, confidence)))


def delta(
    table: Source,
    *,
    factor: str,
    baseline: str,
    score: str = "score",
    by: Names = (),
    mode: Mode = "welch",
    confidence: float = 0.95,
    pair_by: str | None = None,
) -> pd.DataFrame:
    """Δ of every level of ``factor`` against ``baseline``, with interval, p and verdict.

    In percentage points where all scores lie within ±1 (``unit``). ``mode`` paper: as in Schmirler et al. 2024.
    """
    _warn(table, score, (factor, *_names(by)))
    return _framed(delta_rows(table, score, factor, baseline, by, mode, confidence, pair_by))


def rank(
    table: Source,
    *,
    candidate: Names = (),
    score: str = "score",
    by: Names = (),
    minimize: bool = False,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Candidates by their mean over seeds, best first, with the probability that each is the best."""
    _warn(table, score, (*_names(candidate), *_names(by)), bool(candidate))
    if not minimize and not is_folder(table) and is_error(score):
        warnings.warn(f"{score}: smaller is taken to be better", stacklevel=2)
    return _framed(rank_rows(table, score, candidate, by, minimize, confidence))


def seeds_needed(
    table: Source,
    *,
    factor: str,
    baseline: str,
    score: str = "score",
    by: Names = (),
    confidence: float = 0.95,
    power: float = 0.8,
    alpha: float = 0.05,
    effect: float | None = None,
) -> pd.DataFrame:
    """Seeds an arm that would find the observed Δ, and the smallest difference of interest ``effect``."""
    _warn(table, score, (factor, *_names(by)))
    runs = runs_of(table, score)
    rows = findings.seeds_needed_rows(runs, score, factor, baseline, _names(by), confidence, power, alpha, effect)
    return _framed(rows)


def audit(
    table: Source,
    curves: Source,
    *,
    score: str = "score",
    keys: Names = (),
    valid_loss: str = "valid_loss",
    test_score: str = "test_score",
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Which rule chose each reported score, and a summary of groups. ``keys``: as ``--curve-key`` of the command line.

    ``curves``: training logs, one row an evaluation.
    """
    found = audit_tree(table, curves, score, keys, valid_loss, test_score)
    return _framed(found["runs"]), found["summary"]


def shares_rows(
    table: Source,
    score: str,
    factors: Names,
    candidate: str | None,
    seed_column: str | None,
    by: Names,
    confidence: float,
) -> list[Row]:
    """The rows of ``shares``, shares and their interval nested."""
    if candidate is not None and factors:
        raise _usage("give factors or candidate, not both")
    runs = runs_of(table, score, anchors=True)
    if factors:
        return findings.shares_rows(runs, score, _names(factors), _names(by), seed_column, confidence)
    named = candidate or _candidate_of(table, "factors or candidate")
    seed = seed_column or ("seed" if is_folder(table) else None)
    return findings.random_shares_rows(runs, score, named, _names(by), seed, confidence)


def delta_rows(
    table: Source,
    score: str,
    factor: str,
    baseline: str,
    by: Names,
    mode: Mode,
    confidence: float,
    pair_by: str | None,
) -> list[Row]:
    """The rows of ``delta``."""
    if mode == "paper" and pair_by is not None:
        raise _usage("mode paper is unpaired; drop pair_by")
    if mode == "paper" and confidence != 0.95:
        raise _usage("mode paper knows 95 % alone; drop confidence")
    runs = runs_of(table, score)
    return findings.delta_rows(runs, score, factor, baseline, _names(by), mode, confidence, pair_by)


def rank_rows(table: Source, score: str, candidate: Names, by: Names, minimize: bool, confidence: float) -> list[Row]:
    """The rows of ``rank``."""
    named = _names(candidate) or (_candidate_of(table, "candidate"),)
    return findings.rank_rows(
        runs_of(table, score), score, named, _names(by), _sign(table, score, minimize), confidence
    )


def audit_tree(
    table: Source, curves: Source, score: str, keys: Names, valid_loss: str, test_score: str
) -> dict[str, Any]:
    """``runs`` and ``summary`` of ``audit``."""
    columns = audits.CurveColumns(valid_loss=valid_loss, test_score=test_score)
    parsed = [audits.CurveKey.parse(key) for key in _names(keys)]
    logs = table_of(curves)
    for name in (valid_loss, test_score):
        logs.refuse_thousands(name)
    return audits.audit_tree(runs_of(table, score), logs, score, parsed, columns)


def runs_of(source: Source, score: str, anchors: bool = False) -> RunTable:
    """The runs that have a score; of a sweep folder what a verdict compares, or its ``anchors`` alone."""
    runs, _ = scored(table_of(source), score)
    return _of_sweep(runs, anchors) if is_folder(source) else runs


def mixed_columns(source: Source, score: str, named: Names) -> Iterator[str]:
    """What nobody named and yet differs between runs that count as repetitions: its spread passes for the seed's.

    ``named``: factors, candidates and ``by``. Texts with two values or more in a cell; not names of runs.
    """
    if is_folder(source):
        return
    table = scored(table_of(source), score)[0]
    keys = list(zip(*(table.texts(name) for name in _names(named)), strict=True)) or [()] * len(table)
    for name, values in table.columns.items():
        texts = [str(value) for value in values]
        if (
            name in (score, *_names(named))
            or len(set(texts)) > len(texts) / 2
            or _is_number(values)
            or "seed" in name.lower()
        ):
            continue
        cells: dict[tuple[str, ...], set[str]] = {}
        for key, text in zip(keys, texts, strict=True):
            cells.setdefault(key, set()).add(text)
        most = max(len(found) for found in cells.values())
        if most > 1:
            yield f"'{name}' has up to {most} values among runs that count as repetitions: name it (by), or drop some"


def is_error(score: str) -> bool:
    """Whether a column of scores is one where smaller is better, by its name."""
    name = score.lower().rsplit(".", 1)[-1]
    known = METRICS.get(name)
    return known.direction == "minimize" if known else any(word in name for word in ("loss", "rmse", "perplexity"))


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


def flat(row: Row) -> Row:
    """A row of shares with its shares in columns of their own."""
    low, high = row["seed_interval"]
    rest = {k: v for k, v in row.items() if k not in ("shares", "seed_interval", "variances", "n_runs")}
    return (
        rest
        | {f"share.{k}": v for k, v in row["shares"].items()}
        | {"seed.low": low, "seed.high": high, "n": row["n_runs"]}
    )


def _of_sweep(runs: RunTable, anchors: bool) -> RunTable:
    names = ("phase", "varied", "probe", "origin", "reason")
    cells = zip(*(runs.column(name) for name in names), strict=True)
    rows = [SimpleNamespace(place=n, **dict(zip(names, own, strict=True))) for n, own in enumerate(cells)]
    phase: Literal["search", "replicate"] = "replicate" if any(r.phase == "replicate" for r in rows) else "search"
    chosen = selection.anchors(rows) if anchors else selection.main(rows, phase)
    return runs.where([row.place for row in chosen])


def _sign(source: Source, score: str, minimize: bool) -> float:
    """A sweep folder knows the direction of its metric; of other tables the name of the column tells."""
    if minimize or not is_folder(source):
        return -1.0 if minimize or is_error(score) else 1.0
    return METRICS[load_resolved(Path(source)).objective.metric].sign


def _is_number(values: Sequence[Any]) -> bool:
    try:
        return all(as_number(value) is not None for value in values if value is not None)
    except (TypeError, ValueError):
        return False


def _candidate_of(source: Source, what: str) -> str:
    if not is_folder(source):
        raise _usage(f"give {what}")
    return "candidate_id"


def _warn(source: Source, score: str, named: Names, is_named: bool = True) -> None:
    for message in mixed_columns(source, score, named) if is_named else ():
        warnings.warn(message, stacklevel=3)


def _names(given: Names) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _usage(message: str) -> DataError:
    return DataError.of("", message)


def _framed(rows: Any) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(list(rows))
