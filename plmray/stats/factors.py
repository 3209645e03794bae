"""Shares of variance over fixed factors: what each factor, their interactions, and the seed contribute."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations, product

import numpy as np
from scipy import optimize, special

from plmray.stats.intervals import Array, Estimate

SEED = "seed"


@dataclass(frozen=True)
class Shares:
    """``shares`` by source, summing to 1: factors, interactions as ``a:b``, and ``seed``. ``variances``: the unclipped
    components, negative where a source is too small to see. ``seed_interval``: of the seed's share, NaN where
    nothing spreads. ``degrees``: of the seed variance."""

    shares: Mapping[str, float]
    variances: Mapping[str, float]
    seed_interval: Estimate
    degrees: int


def factor_shares(
    scores: Array,
    factors: Mapping[str, Sequence[object]],
    confidence: float = 0.95,
) -> Shares:
    """Shares of two or more crossed fixed factors, cells of any size; the seed is what varies within a cell.

    ``scores``: (n_runs,); ``factors``: name to (n_runs,) levels. On unweighted cell means:
    V_S = mean(effect_S²) - noise Π_S(levels - 1) / cells for every set S of factors, where noise = mean(s_c² / n_c);
    V_seed = mean(s_c²), so that cells may spread unlike. Where a cell has one run both are of the variance pooled over
    cells, which takes one spread for all. Shares are of Σ max(V, 0). The interval of the seed's share inverts the
    noncentral F of all cells: it holds .95 to .99 with two runs a cell or more, spreads 1 : 5 or not.

    The levels are taken as all there are: shares say nothing of other models or settings, and depend on which levels
    were chosen. Raises ValueError naming the cells where a combination has no run,
    or where no cell has two. Source: two-way fixed-effects ANOVA on cell means (Searle, Casella & McCulloch 1992).
    """
    if SEED in factors:
        raise ValueError("the seed is what varies within a cell, no factor; drop --factor seed")
    cells = _Cells.of(scores, factors)
    variances = _components(cells)
    shares = _shares(variances)
    return Shares(shares, variances, Estimate(shares[SEED], *_seed_interval(cells, confidence)), cells.degrees)


@dataclass(frozen=True)
class _Cells:
    """``means`` and ``counts``: one axis a factor. ``variance``: of a run, mean over cells; ``noise``: of their means.
    ``df_within``, ``df_between``: effective degrees of freedom of the noise, and of the means if nothing else moved
    them."""

    names: tuple[str, ...]
    means: Array
    counts: Array
    variance: float
    noise: float
    degrees: int
    df_within: float
    df_between: float

    @classmethod
    def of(cls, scores: Array, factors: Mapping[str, Sequence[object]]) -> _Cells:
        levels = {name: sorted(set(values), key=str) for name, values in factors.items()}
        single = [name for name, found in levels.items() if len(found) < 2]
        if single:
            raise ValueError(f"factor {', '.join(single)} has one level; shares need factors that vary")
        where = list(zip(*(map(levels[name].index, values) for name, values in factors.items()), strict=True))
        shape = tuple(len(found) for found in levels.values())
        sums, counts = np.zeros(shape), np.zeros(shape)
        np.add.at(sums, tuple(np.array(where).T), scores)
        np.add.at(counts, tuple(np.array(where).T), 1.0)
        empty = [place for place in product(*map(range, shape)) if counts[place] == 0]
        if empty:
            shown = [" × ".join(str(levels[n][i]) for n, i in zip(levels, place, strict=True)) for place in empty[:3]]
            more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
            raise ValueError(f"no run for {', '.join(shown)}{more}; shares need every combination: drop a level")
        means = sums / counts
        degrees = int((counts - 1).sum())
        if degrees == 0:
            raise ValueError("no combination has two runs; the seed's share needs repetitions")
        squares = np.zeros(shape)
        np.add.at(squares, tuple(np.array(where).T), (scores - means[tuple(np.array(where).T)]) ** 2)
        return cls(tuple(levels), means, counts, *_noise(squares.ravel(), counts.ravel(), degrees))


def _noise(squares: Array, counts: Array, degrees: int) -> tuple[float, float, int, float, float]:
    """``variance`` to ``df_between`` of the cells."""
    size, pooled = len(counts), float(squares.sum()) / degrees
    if counts.min() < 2 or pooled == 0:
        return pooled, pooled * float((1 / counts).mean()), degrees, float(degrees), size - 1.0
    own, freedom = squares / (counts - 1), counts - 1
    within = float(own.sum() ** 2 / (own**2 / (freedom + 2)).sum())  # E(s⁴) = σ⁴ (1 + 2 / d)
    parts = own / counts
    between = float(parts.sum() ** 2 / (parts**2).sum()) * (size - 1) / size
    return float(own.mean()), float(parts.mean()), degrees, within, max(1.0, between)


def _components(cells: _Cells) -> dict[str, float]:
    """Unclipped components by source."""
    noise = cells.noise / cells.means.size
    found = {}
    for subset, effect in _effects(cells.means):
        freedom = math.prod(cells.means.shape[axis] - 1 for axis in subset)
        found[":".join(cells.names[axis] for axis in subset)] = float((effect**2).mean()) - noise * freedom
    return {**found, SEED: cells.variance}


def _effects(means: Array) -> Iterator[tuple[tuple[int, ...], Array]]:
    """Every set of factors with its effects, broadcastable to ``means``: inclusion and exclusion of marginal means."""
    count = means.ndim
    for size in range(1, count + 1):
        for subset in combinations(range(count), size):
            parts = []
            for inner_size in range(size + 1):
                for inner in combinations(subset, inner_size):
                    over = tuple(axis for axis in range(count) if axis not in inner)
                    parts.append((-1) ** (size - inner_size) * means.mean(axis=over, keepdims=True))
            yield subset, reduce(np.add, parts)


def _seed_interval(cells: _Cells, confidence: float) -> tuple[float, float]:
    """Of V_seed / (V_seed + variance of the cells' true means): noncentral F, inverted.

    Exact for cells of one size and one spread, but for Satterthwaite's degrees of freedom, which hold elsewhere too.
    NaN where nothing spreads. Source: Steiger 2004, on noncentral intervals of explained variance.
    """
    size = cells.means.size
    if cells.noise == 0:
        return math.nan, math.nan
    ratio, tail = float(cells.means.var(ddof=1)) / cells.noise, (1 - confidence) / 2
    bounds = []
    for probability in (1 - tail, tail):
        shift = _noncentrality(ratio, cells.df_between, cells.df_within, probability) / cells.df_between
        between = shift * (size - 1) / size * cells.noise
        bounds.append(cells.variance / (cells.variance + between))
    return bounds[1], bounds[0]


def _noncentrality(ratio: float, df_one: float, df_two: float, probability: float) -> float:
    """The noncentrality under which F lies below ``ratio`` with ``probability``; 0 where it does so less often."""
    if special.fdtr(df_one, df_two, ratio) <= probability:
        return 0.0
    high = max(1.0, ratio * df_one)
    while special.ncfdtr(df_one, df_two, high, ratio) > probability:
        high *= 2
    return float(optimize.brentq(lambda nc: special.ncfdtr(df_one, df_two, nc, ratio) - probability, 0.0, high))


def _shares(variances: Mapping[str, float]) -> dict[str, float]:
    total = sum(max(value, 0.0) for value in variances.values())
    return {name: max(value, 0.0) / total if total > 0 else math.nan for name, value in variances.items()}
