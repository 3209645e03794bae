"""The verbs of ``plmray stats`` on any table of runs: a table of pandas, a file, or a sweep folder."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from plmray.errors import DataError
from plmray.report.tables import audit as audits
from plmray.report.tables import findings, ranks
from plmray.report.tables.findings import Row
from plmray.report.tables.sources import Names, Source, is_error, is_folder, names_of, runs_of, sign_of, table_of
from plmray.report.tables.told import collapsed_runs, idle_pairing, mixed_columns
from plmray.stats.effects import Mode

if TYPE_CHECKING:
    import pandas as pd


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
    _warn(table, score, (*names_of(factors), *names_of(candidate or ()), *names_of(by)), by, bool(factors or candidate))
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
    _warn(table, score, (factor, *names_of(by)), by)
    for message in idle_pairing(table, score, factor, baseline, by, pair_by):
        warnings.warn(message, stacklevel=2)
    return _framed(delta_rows(table, score, factor, baseline, by, mode, confidence, pair_by))


def rank(
    table: Source,
    *,
    candidate: Names = (),
    score: str = "score",
    by: Names = (),
    minimize: bool = False,
    confidence: float = 0.95,
    pair_by: str | None = None,
) -> pd.DataFrame:
    """Candidates by their mean over seeds, best first, with the probability that each is the best.

    ``pair_by``: the column of seeds that all candidates ran, whose common effect is taken out. Of a sweep folder with a
    confirmation: of the confirming seeds, as the means of its report are; the report's P(best) is of all seeds.
    """
    _warn(table, score, (*names_of(candidate), *names_of(by)), by, bool(candidate))
    if not minimize and not is_folder(table) and is_error(score):
        warnings.warn(f"{score}: smaller is taken to be better", stacklevel=2)
    return _framed(rank_rows(table, score, candidate, by, minimize, confidence, pair_by))


def improvement(
    table: Source,
    *,
    factor: str,
    baseline: str,
    by: Names,
    score: str = "score",
    minimize: bool = False,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Over several tasks (``by``): the chance that a run of an arm beats a run of the baseline, and the mean Δ.

    Every task weighs the same; intervals resample runs within tasks. Source: Agarwal et al. 2021.
    """
    _warn(table, score, (factor, *names_of(by)), by)
    return _framed(improvement_rows(table, score, factor, baseline, by, minimize, confidence))


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
    _warn(table, score, (factor, *names_of(by)), by)
    runs = runs_of(table, score)
    rows = findings.seeds_needed_rows(runs, score, factor, baseline, names_of(by), confidence, power, alpha, effect)
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
        return findings.shares_rows(runs, score, names_of(factors), names_of(by), seed_column, confidence)
    named = candidate or _candidate_of(table, "factors or candidate")
    seed = seed_column or ("seed" if is_folder(table) else None)
    return findings.random_shares_rows(runs, score, named, names_of(by), seed, confidence)


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
    return findings.delta_rows(runs, score, factor, baseline, names_of(by), mode, confidence, pair_by)


def improvement_rows(
    table: Source, score: str, factor: str, baseline: str, by: Names, minimize: bool, confidence: float
) -> list[Row]:
    """The rows of ``improvement``."""
    sign = sign_of(table, score, minimize)
    return ranks.improvement_rows(runs_of(table, score), score, factor, baseline, names_of(by), sign, confidence)


def rank_rows(
    table: Source,
    score: str,
    candidate: Names,
    by: Names,
    minimize: bool,
    confidence: float,
    pair_by: str | None = None,
) -> list[Row]:
    """The rows of ``rank``."""
    named = names_of(candidate) or (_candidate_of(table, "candidate"),)
    return ranks.rank_rows(
        runs_of(table, score), score, named, names_of(by), sign_of(table, score, minimize), confidence, pair_by
    )


def audit_tree(
    table: Source, curves: Source, score: str, keys: Names, valid_loss: str, test_score: str
) -> dict[str, Any]:
    """``runs`` and ``summary`` of ``audit``."""
    columns = audits.CurveColumns(valid_loss=valid_loss, test_score=test_score)
    parsed = [audits.CurveKey.parse(key) for key in names_of(keys)]
    logs = table_of(curves)
    for name in (valid_loss, test_score):
        logs.refuse_thousands(name)
    return audits.audit_tree(runs_of(table, score), logs, score, parsed, columns)


def flat(row: Row) -> Row:
    """A row of shares with its shares in columns of their own."""
    low, high = row["seed_interval"]
    rest = {k: v for k, v in row.items() if k not in ("shares", "seed_interval", "variances", "n_runs")}
    return (
        rest
        | {f"share.{k}": v for k, v in row["shares"].items()}
        | {"seed.low": low, "seed.high": high, "n": row["n_runs"]}
    )


def _candidate_of(source: Source, what: str) -> str:
    if not is_folder(source):
        raise _usage(f"give {what}")
    return "candidate_id"


def _warn(source: Source, score: str, named: Names, by: Names, is_named: bool = True) -> None:
    if is_named:
        for message in (*mixed_columns(source, score, named), *collapsed_runs(source, score, named, by)):
            warnings.warn(message, stacklevel=3)


def _usage(message: str) -> DataError:
    return DataError.of("", message)


def _framed(rows: Any) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(list(rows))
