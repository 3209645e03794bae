"""Planted sweeps whose truth is known, one a row of the coverage table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from plmray.stats.collapse import succeeded
from plmray.stats.effects import paired_delta, paper_delta, welch_delta
from plmray.stats.factors import factor_shares
from plmray.stats.intervals import Estimate, failure_rate, mean_interval, seed_and_protein_interval
from plmray.stats.spread import moderated_sds, pooled_seed_sd
from plmray.stats.surrogate import parameter_shares
from plmray.stats.variance import anchor_shares, grid_shares

Rng = np.random.Generator
Draw = Callable[[Rng], "Estimate | None"]  # one planted sweep's interval; None where it is refused


@dataclass(frozen=True)
class Case:
    """``truth`` lies in the interval or not. ``claimed``: the interval promises coverage under this setting.

    ``slow``: costs so much that a tenth of the rounds must do."""

    name: str
    draw: Draw
    truth: float
    claimed: bool = True
    slow: bool = False


def cases() -> Iterator[Case]:
    for low, high in ((2, 2), (3, 3), (5, 5), (2, 5), (3, 5)):
        for ratio in (1.0, 3.0):
            spread = "equal spreads" if ratio == 1 else "spreads 1 : 3"
            yield Case(f"Welch Δ, {low} against {high}, {spread}", _welch(low, high, ratio), 0.5)
    for low, high in ((3, 3), (3, 5)):
        yield Case(f"paper Δ, {low} against {high}", _paper(low, high), 0.0, claimed=False)
    for seeds in (2, 3, 5):
        yield Case(f"mean over {seeds} seeds", lambda rng, n=seeds: mean_interval(rng.normal(size=n)), 0.0)  # type: ignore[misc]
        yield Case(f"moderated mean, 8 candidates × {seeds}", _moderated(seeds), 0.0, claimed=False)
        yield Case(f"share of the seed, 8 anchors × {seeds}", _anchors(8, seeds), 0.2)
    yield Case("share of the seed, 40 anchors × 5", _anchors(40, 5), 0.2)
    yield Case("share of the seed, 12 anchors × 2 to 5 seeds", _anchors(12, 0), 0.2)
    yield Case("share of the seed, 12 × 5, seeds move all alike", _crossed(), 0.5)
    yield from _pooled_cases()
    yield from _anchor_cases()
    yield from _factor_cases()
    for seeds in (3, 5, 8):
        yield Case(f"mean over {seeds} seeds, lognormal", _skewed_mean(seeds), 0.0, claimed=False)
        yield Case(f"Welch Δ, {seeds} against {seeds}, runs collapse, of those that trained", _collapsing(seeds), 0.5)
        yield Case(f"paired Δ, {seeds} seeds, arms without correlation", _paired(seeds), 0.5)
    for rate in (0.02, 0.3):
        yield Case(f"failure rate {rate:g} of 20", lambda rng, p=rate: failure_rate(rng.binomial(20, p), 20), rate)  # type: ignore[misc]
    yield Case("seeds × proteins, 5 seeds, 60 proteins", _proteins(60, 1), 0.0, slow=True)
    yield Case("seeds × proteins, 5 seeds, 60 proteins in families of ten", _proteins(60, 10), 0.0, slow=True)
    yield Case("seeds × proteins, 5 seeds, 300 proteins in families of ten", _proteins(300, 10), 0.0, slow=True)
    yield Case("share of one hyperparameter, 40 anchors × 5", _parameter, PARAMETER_TRUTH, claimed=False, slow=True)


def _welch(low: int, high: int, ratio: float) -> Draw:
    def draw(rng: Rng) -> Estimate:
        found = welch_delta(rng.normal(size=low), rng.normal(0.5, ratio, size=high))
        return Estimate(found.value, found.low, found.high)

    return draw


def _paper(low: int, high: int) -> Draw:
    def draw(rng: Rng) -> Estimate:
        found = paper_delta(50 + rng.normal(size=low), 50 + rng.normal(size=high))
        return Estimate(found.value, found.low, found.high)

    return draw


def _moderated(seeds: int) -> Draw:
    def draw(rng: Rng) -> Estimate:
        sds = np.sqrt(6 / rng.chisquare(6, size=8))
        scores = list(rng.normal(size=(8, seeds)) * sds[:, None])
        found = moderated_sds(scores)
        half = stats.t.ppf(0.975, found.degrees[0]) * found.sds[0] / math.sqrt(seeds)
        return Estimate(float(scores[0].mean()), float(scores[0].mean() - half), float(scores[0].mean() + half))

    return draw


NOISE: dict[str, tuple[Callable[[Rng, int], Any], float]] = {  # of one candidate's runs, with its variance
    "normal": (lambda rng, n: rng.normal(size=n), 1.0),
    "t of 3 degrees": (lambda rng, n: rng.standard_t(3, size=n), 3.0),
    "lognormal": (lambda rng, n: rng.lognormal(0, 0.5, size=n), (math.exp(0.25) - 1) * math.exp(0.25)),
    "exponential": (lambda rng, n: rng.exponential(size=n), 1.0),
}
LOST = -10.0  # seed SDs that a collapsed run is down


def _pooled_cases() -> Iterator[Case]:
    for candidates, seeds in ((8, 3), (8, 5), (20, 3)):
        for noise, (_, variance) in NOISE.items():
            claimed = noise != "t of 3 degrees"  # whose variance no sample knows well
            name = f"pooled SD, {candidates} × {seeds}, {noise}"
            yield Case(name, _pooled(candidates, seeds, noise), math.sqrt(variance), claimed)
        truth = math.sqrt(24 / (2 * math.log(5)))
        yield Case(
            f"pooled SD, {candidates} × {seeds}, spreads 1 : 5", _pooled(candidates, seeds, "normal", 5.0), truth
        )
        lost = _pooled(candidates, seeds, "normal", 1.0, 0.05)
        yield Case(f"pooled SD, {candidates} × {seeds}, .05 of runs collapse, of those that trained", lost, 1.0)


def _pooled(candidates: int, seeds: int, noise: str, ratio: float = 1.0, lost: float = 0.0) -> Draw:
    draw_noise = NOISE[noise][0]

    def draw(rng: Rng) -> Estimate | None:
        sds = np.exp(rng.uniform(0, math.log(ratio), size=candidates))
        scores = [sd * draw_noise(rng, seeds) + LOST * (rng.uniform(size=seeds) < lost) for sd in sds]
        return pooled_seed_sd(succeeded(scores, 1.0) if lost else scores).sd

    return draw


def _anchor_cases() -> Iterator[Case]:
    effects: dict[str, Callable[[Rng, int], Any]] = {
        "exponential effects": lambda rng, n: rng.exponential(size=n),
        "effects of t with 3 degrees": lambda rng, n: rng.standard_t(3, size=n) / math.sqrt(3),
    }
    for anchors in (8, 20, 40):
        for name, draw in effects.items():
            claimed = "t with" not in name
            yield Case(f"share of the seed, {anchors} anchors × 3, {name}", _anchors(anchors, 3, draw), 0.2, claimed)
        row = f"share of the seed, {anchors} anchors × 3"
        yield Case(f"{row}, .15 of runs without a score", _anchors(anchors, 3, missing=0.15), 0.2)
        yield Case(f"{row}, spreads 1 : 5", _anchors(anchors, 3, ratio=5.0), 0.2)
        yield Case(f"{row}, .05 of runs collapse, of those that trained", _anchors(anchors, 3, lost=0.05), 0.2)


def _anchors(
    candidates: int,
    seeds: int,
    effects: Callable[[Rng, int], Any] = lambda rng, n: rng.normal(size=n),
    ratio: float = 1.0,
    missing: float = 0.0,
    lost: float = 0.0,
) -> Draw:
    """V_candidate 1, V_seed .25. ``seeds`` 0: two to five each. Spreads even on a log scale up to ``ratio`` times."""
    square = (ratio**2 - 1) / (2 * math.log(ratio)) if ratio > 1 else 1.0

    def draw(rng: Rng) -> Estimate | None:
        scores = []
        for mean in effects(rng, candidates):
            count = seeds or int(rng.integers(2, 6))
            sd = 0.5 * math.exp(rng.uniform(0, math.log(ratio))) / math.sqrt(square)
            own = rng.normal(mean, sd, size=count) + 0.5 * LOST * (rng.uniform(size=count) < lost)
            scores.append(own[rng.uniform(size=count) >= missing])
        found = anchor_shares(succeeded(scores, 1.0) if lost else scores)
        return found and found.seed_share

    return draw


def _crossed() -> Draw:
    """V_candidate 1, V of the seed's main effect .6, of the rest .4."""

    def draw(rng: Rng) -> Estimate | None:
        shared = rng.normal(size=5) * math.sqrt(0.6)
        found = grid_shares(rng.normal(size=(12, 1)) + shared + rng.normal(size=(12, 5)) * math.sqrt(0.4))
        return found.seed_share if found is not None and found.crossed else None

    return draw


ROWS, COLUMNS = np.linspace(-2, 2, 8), np.array([-0.5, 0.5])


def _factor_truth() -> float:
    return 1.0 / (1.0 + float((ROWS**2).mean() + (COLUMNS**2).mean()))


def factor_runs(rng: Rng) -> tuple[Any, dict[str, list[int]]]:
    runs = [(i, j) for i in range(8) for j in range(2) for _ in range((3, 5)[j])]
    scores = np.array([ROWS[i] + COLUMNS[j] for i, j in runs]) + rng.normal(size=len(runs))
    return scores, {"model": [i for i, _ in runs], "training": [j for _, j in runs]}


def _factors() -> Draw:
    return lambda rng: factor_shares(*factor_runs(rng)).seed_interval


def _factor_cases() -> Iterator[Case]:
    yield Case("share of the seed, 8 × 2 fixed factors, 3 and 5 runs", _factors(), _factor_truth())
    small, square = np.array([[0.0, 0.7], [0.7, 1.4]]), np.add.outer(np.linspace(-1, 1, 3), np.linspace(-1, 1, 3))
    wide = np.add.outer(ROWS, COLUMNS)
    for name, effects, counts, sds in (
        ("2 × 2, 2 runs", small, (2, 2), (1.0, 1.0)),
        ("3 × 3, 2 runs", square, (2, 2, 2), (1.0, 1.0, 1.0)),
        ("4 × 2, 3 runs, no effects", np.zeros((4, 2)), (3, 3), (1.0, 1.0)),
        ("8 × 2, 2 and 5 runs of spreads 5 : 1", wide, (2, 5), (5.0, 1.0)),
        ("8 × 2, 2 and 5 runs of spreads 1 : 5", wide, (2, 5), (1.0, 5.0)),
    ):
        seed = float(np.mean(np.square(sds)))
        truth = seed / (seed + float(effects.var()))
        yield Case(f"share of the seed, fixed factors {name}", _cells(effects, counts, sds), truth)


def _cells(effects: Any, counts: tuple[int, ...], sds: tuple[float, ...]) -> Draw:
    cells = [(i, j) for i, j in np.ndindex(*effects.shape) for _ in range(counts[j])]
    factors = {"a": [i for i, _ in cells], "b": [j for _, j in cells]}

    def draw(rng: Rng) -> Estimate:
        scores = np.array([effects[i, j] + sds[j] * rng.normal() for i, j in cells])
        return factor_shares(scores, factors).seed_interval

    return draw


def _skewed_mean(seeds: int) -> Draw:
    def draw(rng: Rng) -> Estimate:
        return mean_interval(rng.lognormal(0, 0.5, size=seeds) - math.exp(0.125))

    return draw


def _collapsing(seeds: int) -> Draw:
    """Δ of two of eight candidates, one of which loses a run in ten."""

    def draw(rng: Rng) -> Estimate:
        scores = list(rng.normal(size=(8, seeds)))
        scores[0] = scores[0] + 0.5 + LOST * (rng.uniform(size=seeds) < 0.1)
        arm, baseline = succeeded(scores, 1.0)[:2]
        found = welch_delta(baseline, arm)
        return Estimate(found.value, found.low, found.high)

    return draw


def _paired(seeds: int) -> Draw:
    def draw(rng: Rng) -> Estimate:
        found = paired_delta(rng.normal(size=seeds), rng.normal(0.5, size=seeds))
        return Estimate(found.value, found.low, found.high)

    return draw


def _proteins(count: int, family: int) -> Draw:
    """A mean of per-protein errors: families of SD 1 whose members are all alike, proteins of SD .3, seeds of SD .2."""
    families = np.repeat(np.arange(count // family), family)

    def draw(rng: Rng) -> Estimate:
        errors = rng.normal(size=count // family)[families] + 0.3 * rng.normal(size=count)
        errors = errors + rng.normal(size=(5, 1)) * 0.2
        kin = families if family > 1 else None
        return seed_and_protein_interval(
            lambda t, p: float((p - t).mean()), np.zeros(count), errors, rng, resamples=200, families=kin
        )

    return draw


def _effect(x: Any) -> Any:
    return 3 * x[:, 0] + np.sin(2 * np.pi * x[:, 1])


PARAMETER_TRUTH = 0.75 / (0.75 + 0.5 + 0.09)


def _parameter(rng: Rng) -> Estimate:
    codes = rng.uniform(size=(40, 3))
    scores = _effect(codes)[:, None] + 0.3 * rng.normal(size=(40, 5))
    noise = float(scores.var(axis=1, ddof=1).mean())
    draws = rng.uniform(size=(2048, 3)), rng.uniform(size=(2048, 3))
    columns = {"a": [0], "b": [1], "c": [2]}
    found = parameter_shares(codes, scores.mean(axis=1), np.full(40, 5), noise, 160, columns, draws, rng)
    return found.parameters["a"]
