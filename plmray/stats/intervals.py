"""Intervals: of means over seeds, of failure rates, of seeds and proteins together, and of bounded metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]
Scores = Sequence[Array]
Score = Callable[[Array, Array], float]
Transform = Literal["fisher", "logit"]

PARTS_LIMIT, LEAST_DEGREES = 0.9, 0.5
EDGE = 1e-6  # how near to a bound a transformed score may come


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; ``low`` and ``high`` are NaN where the data give none."""

    value: float
    low: float
    high: float


def mean_interval(scores: Array, confidence: float = 0.95) -> Estimate:
    """Student-t interval of a mean over (n_seeds,) scores; no interval from a single seed.

    Assumes normal scores. Speaks of other seeds on the same data, not of other proteins.
    """
    mean = float(scores.mean()) if len(scores) else math.nan
    if len(scores) < 2:
        return Estimate(mean, math.nan, math.nan)
    half = special.stdtrit(len(scores) - 1, 0.5 + confidence / 2) * scores.std(ddof=1) / math.sqrt(len(scores))
    return Estimate(mean, mean - float(half), mean + float(half))


def within(estimate: Estimate, low: float, high: float) -> Estimate:
    """The interval cut to the bounds of what it is of: a score cannot lie beyond them, so coverage is as before."""
    return Estimate(estimate.value, max(low, estimate.low), min(high, estimate.high)) if _known(estimate) else estimate


def _known(estimate: Estimate) -> bool:
    return math.isfinite(estimate.low) and math.isfinite(estimate.high)


def sd_interval_factors(degrees: float, confidence: float = 0.95) -> tuple[float, float]:
    """What an SD with ``degrees`` degrees of freedom is multiplied by to get its χ² interval."""
    tail = (1 - confidence) / 2
    upper, lower = special.chdtri(degrees, tail), special.chdtri(degrees, 1 - tail)
    return math.sqrt(degrees / float(upper)), math.sqrt(degrees / float(lower))


def effective_degrees(squares: Array, degrees: Array) -> float:
    """What Σ squares / Σ degrees is worth in degrees of freedom of a χ², from how much its parts differ.

    ``squares``: (n_parts,) sums of squares with (n_parts,) ``degrees``: of one spread and normal values, they differ by
    chance alone, and Σ degrees is right; where spreads differ or tails are long they differ more, and it is less. By
    Satterthwaite's moments, with the upper ``PARTS_LIMIT`` limit of the variance between parts instead of its estimate,
    which a few parts hardly know; half a degree a part at the least. One part tells nothing of others: its degrees.
    Source: Satterthwaite 1946; the limit was chosen by simulation (tests/benchmarks/coverage.py).
    """
    parts, total = len(squares), float(degrees.sum())
    if parts < 2 or total == 0:
        return total
    mean = float(squares.sum()) / total
    between = parts / (parts - 1) * float(((squares - degrees * mean) ** 2).sum()) / total**2
    limit = between * (parts - 1) / float(special.chdtri(parts - 1, PARTS_LIMIT))
    return min(max(2 * mean**2 / limit, LEAST_DEGREES * parts), total) if limit > 0 else total


def failure_rate(failures: int, trials: int, confidence: float = 0.95) -> Estimate:
    """Clopper-Pearson interval of a rate: covers at least ``confidence`` whatever the rate. NaN without trials."""
    if trials == 0:
        return Estimate(math.nan, math.nan, math.nan)
    tail = (1 - confidence) / 2
    low = float(special.betaincinv(failures, trials - failures + 1, tail)) if failures else 0.0
    high = float(special.betaincinv(failures + 1, trials - failures, 1 - tail)) if failures < trials else 1.0
    return Estimate(failures / trials, low, high)


def seed_and_protein_interval(
    score: Score,
    targets: Array,
    predictions: Array,
    rng: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = 1000,
    families: Sequence[Any] | None = None,
) -> Estimate:
    """Interval of a candidate's mean score over other seeds *and* other test proteins.

    ``targets``: (n_proteins,) or one array a protein of residue values, as an object array; ``predictions``:
    (n_seeds, n_proteins) of the same form. Whole proteins are resampled, never residues, and the same resample serves
    every seed: variance = bootstrap variance over proteins of the mean over seeds + s² / n_seeds, with a t quantile of
    Satterthwaite's degrees of freedom. ``families``: (n_proteins,) of labels; proteins of one family come and go
    together, for homologues are no independent evidence: taken one by one, ten a family, the interval holds .64.
    Fewer than ten seeds are not resampled themselves. Give each candidate the same state of ``rng`` to compare
    candidates on the same proteins. Blind to split noise. Source: Bouthillier et al. 2021; Field & Welsh 2007 for
    whole families. Raises ValueError with fewer than two seeds, proteins or families.
    """
    num_seeds, num_proteins = predictions.shape
    if num_seeds < 2 or num_proteins < 2:
        raise ValueError(f"needs two seeds and two proteins, found {num_seeds} and {num_proteins}")
    by_seed = np.array([score(_joined(targets), _joined(row)) for row in predictions])
    resample = family_resampler(num_proteins, families)
    means = []
    for _ in range(resamples):
        rows = resample(rng)
        means.append(np.mean([score(_joined(targets[rows]), _joined(row[rows])) for row in predictions]))
    over_seeds = float(by_seed.var(ddof=1)) / num_seeds, num_seeds - 1.0
    return two_way_interval(float(by_seed.mean()), over_seeds, np.array(means), resample.units, confidence)


def two_way_interval(
    mean: float, over_seeds: tuple[float, float], resampled: Array, units: int, confidence: float = 0.95
) -> Estimate:
    """Of a mean, or of a difference of two. ``over_seeds``: its variance over seeds and that one's degrees of freedom;
    ``resampled``: (n_resamples,) of it over resampled proteins, ``units`` of which come and go alone. Resamples on
    which a metric is undefined are left out. NaN where nothing spreads or no degrees are left."""
    known = resampled[np.isfinite(resampled)]
    if over_seeds[1] < 1 or len(known) < 2:
        return Estimate(mean, math.nan, math.nan)
    over_proteins = float(known.var(ddof=1)) * units / (units - 1)  # a resample of n spreads (n - 1) / n of what n do
    variance = over_seeds[0] + over_proteins
    if variance == 0:
        return Estimate(mean, math.nan, math.nan)
    degrees = variance**2 / (over_seeds[0] ** 2 / over_seeds[1] + over_proteins**2 / (units - 1))
    half = float(special.stdtrit(degrees, 0.5 + confidence / 2)) * math.sqrt(variance)
    return Estimate(mean, mean - half, mean + half)


@dataclass(frozen=True)
class Resampler:
    """Rows of proteins, drawn with replacement, whole families at a time. ``members``: rows of each."""

    members: Sequence[NDArray[np.int64]]

    @property
    def units(self) -> int:
        return len(self.members)

    def __call__(self, rng: np.random.Generator) -> NDArray[np.int64]:
        return np.concatenate([self.members[n] for n in rng.integers(self.units, size=self.units)])


def family_resampler(num_proteins: int, families: Sequence[Any] | None = None) -> Resampler:
    """Raises ValueError where fewer than two families are left."""
    if families is None:
        return Resampler([np.array([row]) for row in range(num_proteins)])
    rows: dict[Any, list[int]] = {}
    for row, family in enumerate(families):
        rows.setdefault(family, []).append(row)
    if len(rows) < 2 or len(families) != num_proteins:
        raise ValueError(f"needs a family for each of {num_proteins} proteins, two at least, found {len(rows)}")
    return Resampler([np.array(own) for own in rows.values()])


def _joined(values: Array) -> Array:
    """Residue values of proteins end to end; values of whole proteins as they are."""
    return np.concatenate(list(values)) if values.dtype == object else values


def transformed(scores: Array, transform: Transform) -> Array:
    """Fisher's z of correlations (-1 to 1), or the logit of accuracies (0 to 1): there spreads no longer depend on
    how near a score is to its bound. Scores at a bound are moved inside by 1e-6. Raises ValueError outside the bounds.
    """
    low = -1.0 if transform == "fisher" else 0.0
    if scores.min(initial=1.0) < low or scores.max(initial=low) > 1.0:
        raise ValueError(f"{transform} needs scores from {low:g} to 1, found {scores.min():g} to {scores.max():g}")
    inside = np.clip(scores, low + EDGE, 1.0 - EDGE)
    changed: Array = np.arctanh(inside) if transform == "fisher" else special.logit(inside)
    return changed
