"""What the statistics say of a table of runs, one row a finding: the same for tables made elsewhere and for sweeps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from plmray.errors import DataError
from plmray.report.tables.table import RunTable
from plmray.stats.effects import (
    Delta,
    Mode,
    benjamini_hochberg,
    flips,
    holm,
    paired_delta,
    paper_delta,
    seed_block_correlation,
    welch_delta,
)
from plmray.stats.factors import factor_shares
from plmray.stats.intervals import Array, Estimate
from plmray.stats.power import cautious_sd, seeds_needed
from plmray.stats.variance import anchor_shares, grid_shares

Row = dict[str, Any]
PERCENT = 100.0


def scored(table: RunTable, score: str) -> tuple[RunTable, int]:
    """The runs that have a score, and how many have none. Raises DataError where none has."""
    table.refuse_thousands(score)
    values = table.numbers(score)
    rows = np.flatnonzero(np.isfinite(values))
    if len(rows) == 0:
        raise DataError.of(score, "no run has a score; expected numbers in this column", table.source)
    return table.where(rows.tolist()), len(values) - len(rows)


def unit_factor(values: Array) -> float:
    """100 where all scores lie within ±1, so that differences read in percentage points; else 1."""
    return PERCENT if float(np.abs(values).max()) <= 1 else 1.0


def shares_rows(
    table: RunTable, score: str, factors: Sequence[str], by: Sequence[str], seed_column: str | None, confidence: float
) -> list[Row]:
    """Shares of variance of fixed factors, a row for every combination of ``by``."""
    rows = []
    for key, own in table.groups(by):
        if seed_column is not None:
            refuse_repeats(own, [*factors, seed_column])
        levels = {name: own.texts(name) for name in factors}
        try:
            found = factor_shares(own.numbers(score), levels, confidence)
        except ValueError as error:
            raise DataError.of(place_of(by, key), str(error), own.source) from error
        rows.append(
            {
                **dict(zip(by, key, strict=True)),
                "shares": dict(found.shares),
                "seed_interval": [found.seed_interval.low, found.seed_interval.high],
                "variances": dict(found.variances),
                "n_runs": len(own),
            }
        )
    return rows


def random_shares_rows(
    table: RunTable, score: str, candidate: str, by: Sequence[str], seed_column: str | None, confidence: float
) -> list[Row]:
    """Candidate against seed, for candidates that are a blind sample of their space.

    With ``seed_column`` a seed that moves all candidates alike counts as the seed's.
    """
    rows = []
    for key, own in table.groups(by):
        if seed_column is None:
            found = anchor_shares([scores for _, scores in cells_of(own, score, [candidate])], confidence)
        else:
            found = grid_shares(_grid(own, score, candidate, seed_column), confidence)
        if found is None:
            message = "shares need two candidates and one with two runs"
            raise DataError.of(place_of(by, key), message, own.source)
        rows.append(
            {
                **dict(zip(by, key, strict=True)),
                "shares": {"hyperparameters": found.candidate_share.value, "seed": found.seed_share.value},
                "seed_interval": [found.seed_share.low, found.seed_share.high],
                "variances": {"hyperparameters": found.candidate_variance, "seed": found.seed_variance},
                "n_runs": found.num_trials,
            }
        )
    return rows


def delta_rows(
    table: RunTable,
    score: str,
    factor: str,
    baseline: str,
    by: Sequence[str],
    mode: Mode,
    confidence: float,
    pair_by: str | None = None,
) -> list[Row]:
    """Every other level of ``factor`` against ``baseline``, a row for each and every combination of ``by``.

    In percentage points where all scores of the table lie within ±1, in all rows or in none: ``unit`` says which. p
    values are adjusted over all rows. ``pair_by``: the seeds that both arms ran are blocks, in every row that has two.
    """
    rows = []
    for key, level, first, second, unit in arms_of(table, score, factor, baseline, by):
        low, high = scores_of(first, score) * unit, scores_of(second, score) * unit
        blocks = _blocks(first, second, score, pair_by, unit) if pair_by is not None else np.zeros((2, 0))
        if mode == "paper":
            found = paper_delta(low, high)
        elif blocks.shape[1] > 1:
            found = paired_delta(blocks[0], blocks[1], confidence)
        else:
            found = welch_delta(low, high, confidence)
        row = {**dict(zip(by, key, strict=True)), **_delta_row(found), "level": level}
        row["unit"] = "points" if unit == PERCENT else "score"
        if pair_by is not None:
            row |= {"paired": found.paired, "seed_correlation": seed_block_correlation(blocks).value}
        scale = (
            flips(low / unit, high / unit, confidence)
            if unit == PERCENT and mode == "welch" and pair_by is None
            else None
        )
        rows.append(row | {"flips_on": scale})
    p_values = [row["p"] for row in rows]
    for row, strict, lenient in zip(rows, holm(p_values), benjamini_hochberg(p_values), strict=True):
        row |= {"p_holm": float(strict), "p_bh": float(lenient)}
    return rows


def seeds_needed_rows(
    table: RunTable,
    score: str,
    factor: str,
    baseline: str,
    by: Sequence[str],
    confidence: float,
    power: float,
    alpha: float,
    effect: float | None,
) -> list[Row]:
    """The Δ rows with the seeds an arm that find the observed Δ, and ``effect`` (in the rows' unit) where given.

    ``…_cautious``: at the 80 % upper limit of both SDs.
    """
    rows = delta_rows(table, score, factor, baseline, by, "welch", confidence)
    arms = arms_of(table, score, factor, baseline, by)
    for row, (_, _, first, second, unit) in zip(rows, arms, strict=True):
        pair = [scores_of(arm, score) * unit for arm in (first, second)]
        if min(map(len, pair)) < 2:
            row |= {"n_observed": None, "n_observed_cautious": None}
            continue
        sds = [float(s.std(ddof=1)) for s in pair]
        careful = [cautious_sd(sd, len(s) - 1) for sd, s in zip(sds, pair, strict=True)]
        wanted = {"observed": row["delta"]} | ({} if effect is None else {"effect": effect})
        for name, size in wanted.items():
            row[f"n_{name}"] = seeds_needed(size, sds[0], sds[1], power, alpha)
            row[f"n_{name}_cautious"] = seeds_needed(size, careful[0], careful[1], power, alpha)
    return rows


def arms_of(
    table: RunTable, score: str, factor: str, baseline: str, by: Sequence[str]
) -> Iterable[tuple[tuple[str, ...], str, RunTable, RunTable, float]]:
    unit = unit_factor(table.numbers(score))
    for key, own in table.groups(by):
        arms = {level[0]: runs for level, runs in own.groups([factor])}
        baseline = _spelled(baseline, arms)
        if baseline not in arms:
            place = place_of(by, key) or factor
            message = f"no run with {factor} = '{baseline}'; found {', '.join(sorted(arms))}"
            raise DataError.of(place, message, own.source)
        for level, runs in arms.items():
            if level != baseline:
                yield key, level, arms[baseline], runs, unit


def _spelled(name: str, known: Iterable[str]) -> str:
    """A level as the table spells it: Parquet may hold 0.001 where a person writes 1e-3, or True for true."""
    for level in known:
        if level == name or level.lower() == name.lower() or _same_number(level, name):
            return level
    return name


def _same_number(one: str, other: str) -> bool:
    try:
        return float(one) == float(other)
    except ValueError:
        return False


def _delta_row(found: Delta) -> Row:
    half = found.half_width
    return {"delta": found.value, "half_width": half, "verdict": found.verdict, "p": found.p}


def _blocks(first: RunTable, second: RunTable, score: str, pair_by: str, unit: float) -> Array:
    """(2, n_seeds) scores of the seeds that both arms ran."""
    for arm in (first, second):
        refuse_repeats(arm, [pair_by])
    low, high = (dict(zip(arm.texts(pair_by), scores_of(arm, score) * unit, strict=True)) for arm in (first, second))
    common = sorted(set(low) & set(high))
    return np.array([[arm[seed] for seed in common] for arm in (low, high)])


def seed_correlation(
    table: RunTable, score: str, factor: str, baseline: str, by: Sequence[str], pair_by: str
) -> Estimate:
    """How alike the arms of all rows of ``delta`` move under the same seed."""
    arms = arms_of(table, score, factor, baseline, by)
    return seed_block_correlation(*(_blocks(first, second, score, pair_by, 1.0) for _, _, first, second, _ in arms))


def refuse_repeats(table: RunTable, names: Sequence[str]) -> None:
    seen: set[tuple[str, ...]] = set()
    for key in zip(*(table.texts(name) for name in names), strict=True):
        if key in seen:
            message = f"two runs with {place_of(names, key)}; a seed is one repetition: drop one, or name the column that tells them apart"  # noqa: E501
            raise DataError.of(names[-1], message, table.source)
        seen.add(key)


def _grid(table: RunTable, score: str, candidate: str, seed_column: str) -> Array:
    """(n_candidates, n_seeds), NaN where a candidate did not run a seed."""
    refuse_repeats(table, [candidate, seed_column])
    rows, columns = (table.texts(name) for name in (candidate, seed_column))
    places = [sorted(set(names)) for names in (rows, columns)]
    grid = np.full((len(places[0]), len(places[1])), math.nan)
    for row, column, value in zip(rows, columns, table.numbers(score), strict=True):
        grid[places[0].index(row), places[1].index(column)] = value
    return grid


def cells_of(table: RunTable, score: str, names: Sequence[str]) -> list[tuple[tuple[str, ...], Array]]:
    return [(key, scores_of(own, score)) for key, own in table.groups(names)]


def scores_of(table: RunTable, score: str) -> Array:
    return table.numbers(score)


def place_of(names: Sequence[str], key: Sequence[str]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in zip(names, key, strict=True))
