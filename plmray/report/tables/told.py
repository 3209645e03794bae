"""What a reader of a table of findings must know, before the rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from plmray.report.tables.findings import cells_of, place_of, scored, seed_correlation
from plmray.report.tables.sources import Names, Source, is_folder, names_of, runs_of, sign_of, table_of
from plmray.report.tables.table import as_number
from plmray.stats.collapse import CHANCE, collapsed

SHOWN = 3


def mixed_columns(source: Source, score: str, named: Names) -> Iterator[str]:
    """What nobody named and yet differs between runs that count as repetitions: its spread passes for the seed's.

    ``named``: factors, candidates and ``by``. Texts with two values or more in a cell; not names of runs.
    """
    if is_folder(source):
        return
    table = scored(table_of(source), score)[0]
    keys = list(zip(*(table.texts(name) for name in names_of(named)), strict=True)) or [()] * len(table)
    for name, values in table.columns.items():
        texts = [str(value) for value in values]
        if (
            name in (score, *names_of(named))
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


def idle_pairing(
    source: Source, score: str, factor: str, baseline: str, by: Names, pair_by: str | None
) -> Iterator[str]:
    """Where seeds do not move the arms alike, over all rows, pairing only widens intervals."""
    if pair_by is None:
        return
    found = seed_correlation(runs_of(source, score), score, factor, baseline, names_of(by), pair_by)
    if not found.low > 0 and math.isfinite(found.value):
        yield (
            f"over all rows the arms move alike under one {pair_by} by {found.value:.2f} [{found.low:.2f}, "
            f"{found.high:.2f}]: that pairing pays is not shown; without it intervals have twice the degrees of freedom"
        )


def collapsed_runs(source: Source, score: str, named: Names, by: Names = ()) -> Iterator[str]:
    """Runs far below the others of their cell: one of them moves shares, means and intervals by itself.

    Each value of ``by`` is looked at apart, for tasks have noise of their own.
    """
    apart, sign = names_of(by), sign_of(source, score, False)
    within = [name for name in names_of(named) if name not in apart]
    groups = list(runs_of(source, score).groups(apart))
    fallen = []
    for key, own in groups:
        cells = cells_of(own, score, within)
        flags = collapsed([scores for _, scores in cells], sign, CHANCE / len(groups))
        for (cell, scores), out in zip(cells, flags, strict=True):
            place = place_of([*apart, *within], [*key, *cell]) or "the table"
            fallen += [(place, float(value), scores[~out]) for value in scores[out]]
    for place, value, others in fallen[:SHOWN]:
        yield (
            f"a run of {place} seems to have collapsed: {value:.4g} beside {np.min(others):.4g} to "
            f"{np.max(others):.4g}. It is in the numbers; judge the table without it, too"
        )
    if len(fallen) > SHOWN:
        yield f"{len(fallen) - SHOWN} more runs seem to have collapsed"


def _is_number(values: Sequence[Any]) -> bool:
    try:
        return all(as_number(value) is not None for value in values if value is not None)
    except (TypeError, ValueError):
        return False
