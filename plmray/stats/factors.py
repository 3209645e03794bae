"""Shares of variance over fixed factors: what each factor, their interactions, and the seed contribute."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations, product

import numpy as np

from plmray.stats.intervals import Array, Estimate

SEED = "seed"


@dataclass(frozen=True)
class Shares:
    """``shares`` by source, summing to 1: factors, interactions as ``a:b``, and ``seed``. ``variances``: the unclipped
    components, negative where a source is too small to see. ``seed_interval``: of the seed's share, NaN where the
    bootstrap has nothing to go by. ``degrees``: of the seed variance."""

    shares: Mapping[str, float]
    variances: Mapping[str, float]
    seed_interval: Estimate
    degrees: int


def factor_shares(
    scores: Array,
    factors: Mapping[str, Sequence[object]],
    rng: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Shares:
    """Shares of two or more crossed fixed factors, cells of any size; the seed is what varies within a cell.

    ``scores``: (n_runs,); ``factors``: name to (n_runs,) levels. On unweighted cell means, with h = mean(1 / n_cell):
    V_S = mean(effect_S²) - s² h Π_S(levels - 1) / cells for every set S of factors, V_seed = s² pooled over cells.
    Shares are of Σ max(V, 0). The interval of the seed's share is a parametric bootstrap around effects shrunk by
    √(V / raw), so that resampled effects are as large as the estimated ones.

    The levels are taken as all there are: shares say nothing of other models or settings, and depend on which levels
    were chosen. One spread for all cells is assumed. Raises ValueError naming the cells where a combination has no run,
    or where no cell has two. Source: two-way fixed-effects ANOVA on cell means (Searle, Casella & McCulloch 1992).
    """
    if SEED in factors:
        raise ValueError("the seed is what varies within a cell, no factor; drop --factor seed")
    cells = _Cells.of(scores, factors)
    variances = _components(cells.means[None], np.array([cells.variance]), cells)
    shares = _shares(variances)
    simulated = _shares(_components(*_resampled(cells, variances, rng, resamples), cells))[SEED]
    tail = (1 - confidence) / 2
    low, high = np.quantile(simulated, [tail, 1 - tail]) if cells.variance > 0 else (math.nan, math.nan)
    return Shares(
        {name: float(values[0]) for name, values in shares.items()},
        {name: float(values[0]) for name, values in variances.items()},
        Estimate(float(shares[SEED][0]), float(low), float(high)),
        cells.degrees,
    )


@dataclass(frozen=True)
class _Cells:
    """``means`` and ``counts``: one axis a factor. ``variance``: pooled within cells."""

    names: tuple[str, ...]
    means: Array
    counts: Array
    variance: float
    degrees: int

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
        residuals = scores - means[tuple(np.array(where).T)]
        return cls(tuple(levels), means, counts, float((residuals**2).sum()) / degrees, degrees)


def _components(means: Array, variance: Array, cells: _Cells) -> dict[str, Array]:
    """Unclipped components by source. ``means``: (rounds, *levels), ``variance``: (rounds,)."""
    noise = variance * float(np.mean(1 / cells.counts)) / cells.means.size
    found = {}
    for subset, effect in _effects(means):
        freedom = math.prod(cells.means.shape[axis] - 1 for axis in subset)
        raw = (effect**2).mean(axis=tuple(range(1, effect.ndim)))
        found[":".join(cells.names[axis] for axis in subset)] = raw - noise * freedom
    return {**found, SEED: variance}


def _effects(means: Array) -> Iterator[tuple[tuple[int, ...], Array]]:
    """Every set of factors with its effects, broadcastable to ``means``: inclusion and exclusion of marginal means."""
    count = means.ndim - 1
    for size in range(1, count + 1):
        for subset in combinations(range(count), size):
            parts = []
            for inner_size in range(size + 1):
                for inner in combinations(subset, inner_size):
                    over = tuple(axis + 1 for axis in range(count) if axis not in inner)
                    parts.append((-1) ** (size - inner_size) * means.mean(axis=over, keepdims=True))
            yield subset, reduce(np.add, parts)


def _resampled(
    cells: _Cells, variances: Mapping[str, Array], rng: np.random.Generator, resamples: int
) -> tuple[Array, Array]:
    """Cell means and seed variances of sweeps like this one, whose effects are as large as estimated."""
    truth = np.full_like(cells.means, cells.means.mean())
    for subset, effect in _effects(cells.means[None]):
        raw = float((effect**2).mean())
        kept = max(float(variances[":".join(cells.names[axis] for axis in subset)][0]), 0.0)
        truth = truth + effect[0] * math.sqrt(kept / raw if raw > 0 else 0.0)
    noise = rng.normal(size=(resamples, *cells.means.shape)) * np.sqrt(cells.variance / cells.counts)
    variance = cells.variance * rng.chisquare(cells.degrees, size=resamples) / cells.degrees
    return truth + noise, variance


def _shares(variances: Mapping[str, Array]) -> dict[str, Array]:
    clipped = {name: np.maximum(values, 0.0) for name, values in variances.items()}
    total = sum(clipped.values())
    with np.errstate(invalid="ignore", divide="ignore"):
        return {name: values / total for name, values in clipped.items()}
