"""Candidates of a table of runs, best first."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from plmray.errors import DataError
from plmray.report.tables.findings import (
    PERCENT,
    Row,
    arms_of,
    cells_of,
    place_of,
    refuse_repeats,
    scores_of,
    unit_factor,
)
from plmray.report.tables.table import RunTable
from plmray.seeds import derived_rng
from plmray.stats.improvement import over_tasks
from plmray.stats.intervals import Array
from plmray.stats.ranking import rank


def rank_rows(
    table: RunTable,
    score: str,
    candidate: Sequence[str],
    by: Sequence[str],
    sign: float,
    confidence: float,
    pair_by: str | None = None,
) -> list[Row]:
    """Candidates, best mean first: P(best), rank interval, and the chance that one run beats one of the next.

    ``pair_by``: what a seed does to all candidates alike is taken out, of a complete grid of candidates and seeds.
    ``sd_borrowed``: a candidate of one run has the spread of the others.
    """
    rows: list[Row] = []
    for key, own in table.groups(by):
        cells = cells_of(own, score, candidate)
        if pair_by is not None:
            cells = _without_seed_effect(own, score, candidate, pair_by, place_of(by, key))
        found = rank([scores for _, scores in cells], sign, derived_rng(0, "rank"), confidence)
        order = np.argsort(-sign * found.means, kind="stable")
        for place, index in enumerate(order):
            after = order[place + 1] if place + 1 < len(order) else None
            beats = None if after is None else found.beats(int(index), int(after), sign)
            rows.append(
                {
                    **dict(zip(by, key, strict=True)),
                    **dict(zip(candidate, cells[index][0], strict=True)),
                    "mean": float(found.means[index]),
                    "shrunken_mean": float(found.shrunken[index]),
                    "seed_sd": float(found.sds[index]),
                    "sd_borrowed": len(cells[index][1]) == 1,
                    "n_seeds": len(cells[index][1]),
                    "p_best": float(found.p_best[index]),
                    "rank_low": _whole(found.low_rank[index]),
                    "rank_high": _whole(found.high_rank[index]),
                    "p_beats_next": beats,
                }
            )
    return rows


def improvement_rows(
    table: RunTable, score: str, factor: str, baseline: str, by: Sequence[str], sign: float, confidence: float
) -> list[Row]:
    """Every other level of ``factor`` against ``baseline``, over all values of ``by`` that have both."""
    arms: dict[str, list[tuple[Array, Array]]] = {}
    for _, level, first, second, unit in arms_of(table, score, factor, baseline, by):
        arms.setdefault(level, []).append((scores_of(first, score) * unit, scores_of(second, score) * unit))
    named = "points" if unit_factor(table.numbers(score)) == PERCENT else "score"
    rows = []
    for level, tasks in arms.items():
        chance, mean = over_tasks(tasks, sign, derived_rng(0, f"improvement {level}"), confidence)
        rows.append(
            {
                "level": level,
                "tasks": len(tasks),
                "p_improvement": chance.value,
                "p_low": chance.low,
                "p_high": chance.high,
                "mean_delta": mean.value,
                "delta_low": mean.low,
                "delta_high": mean.high,
                "unit": named,
            }
        )
    return rows


def _without_seed_effect(
    table: RunTable, score: str, candidate: Sequence[str], pair_by: str, where: str
) -> list[tuple[tuple[str, ...], Array]]:
    """Scores less their seed's mean over candidates; of k candidates they keep (k - 1) / k of the noise that is their
    own, which is made up for. Raises DataError where a candidate lacks a seed."""
    refuse_repeats(table, [*candidate, pair_by])
    groups = [
        (name, dict(zip(own.texts(pair_by), scores_of(own, score), strict=True)))
        for name, own in table.groups(candidate)
    ]
    seeds = sorted({seed for _, own in groups for seed in own})
    lacking = next(((name, seed) for name, own in groups for seed in seeds if seed not in own), None)
    if lacking is not None:
        message = (
            f"{place_of(candidate, lacking[0])} has no run with {pair_by} = {lacking[1]}; pairing needs every seed"
        )
        raise DataError.of(where or pair_by, message, table.source)
    grid = np.array([[own[seed] for seed in seeds] for _, own in groups])
    means = grid.mean(axis=1, keepdims=True)
    own = (grid - means - grid.mean(axis=0) + grid.mean()) * math.sqrt(len(grid) / max(1, len(grid) - 1))
    return [(name, row) for (name, _), row in zip(groups, means + own, strict=True)]


def _whole(value: float) -> int | None:
    return int(value) if math.isfinite(value) else None
