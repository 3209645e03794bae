"""Answers over the space: is one choice better than another, and does the seed's spread grow with a setting?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy import special

from plmray.config.fields.space import ChoiceDomain
from plmray.report.parameters import Domains, position
from plmray.report.text import interval, number, plain_name, short
from plmray.report.verdict import BestOf, Contrast, SpreadTrend, Verdict
from plmray.seeds import derived_rng
from plmray.stats.effects import holm, paired_delta, welch_delta
from plmray.stats.intervals import Array, Estimate
from plmray.stats.posterior import posterior_of
from plmray.stats.ranking import expected_best
from plmray.text import table
from plmray.trials import selection
from plmray.trials.result import TrialResult
from plmray.trials.score_grid import ScoreGrid

EXPECTED_BEST_OF = (1, 2, 5, 10, 20, 50, 100)
BEST_OF_DRAWS = 500
FEWEST = 5  # candidates of a level, or with a spread of their own


def contrasts_of(anchors: Sequence[TrialResult], space: Domains, confidence: float) -> tuple[Contrast, ...]:
    """Every two levels of every choice, over random candidates that trained: a candidate counts once, by its mean.

    Candidates were drawn blindly, so that all else is alike on both sides up to chance: the interval is over other
    candidates and seeds. Where the same other settings ran with both levels, five times or more, they are compared
    pair by pair.
    """
    own = selection.by_candidate(anchors)
    means = {c: float(np.mean([r.score for r in runs if r.score is not None])) for c, runs in own.items()}
    found = []
    for key, domain in space.items():
        if not isinstance(domain, ChoiceDomain):
            continue
        by_level = {v: {_rest(runs, key): means[c] for c, runs in own.items() if runs[0].parameters.get(key) == v}
                    for v in domain.values}  # fmt: skip
        for one, other in combinations([v for v in domain.values if len(by_level[v]) >= FEWEST], 2):
            found.append(_contrast(key, one, other, by_level, confidence))
    return tuple(Contrast(*c[:6], float(p)) for c, p in zip(found, holm([c[6] for c in found]), strict=True))


def _contrast(
    key: str, one: Any, other: Any, by_level: Mapping[Any, Mapping[str, float]], confidence: float
) -> tuple[str, str, str, Estimate, tuple[int, int], bool, float]:
    both = sorted(by_level[one].keys() & by_level[other].keys())
    paired = len(both) >= FEWEST
    first, second = (np.array([own[rest] for rest in both] if paired else list(own.values()))
                     for own in (by_level[one], by_level[other]))  # fmt: skip
    delta = (paired_delta if paired else welch_delta)(second, first, confidence)
    counts = len(first), len(second)
    return key, short(one), short(other), Estimate(delta.value, delta.low, delta.high), counts, paired, delta.p


def _rest(runs: Sequence[TrialResult], key: str) -> str:
    return repr(sorted((k, v) for k, v in runs[0].parameters.items() if k != key))


def spread_trends(sound: Sequence[TrialResult], space: Domains, confidence: float) -> tuple[SpreadTrend, ...]:
    """How many times larger the seed's SD is at the top of each numeric range than at its bottom.

    Least squares of log s² - its bias on the place in the range, over candidates with two runs that trained or more,
    with the t interval of the slope. Source: Bartlett & Kendall 1946.
    """
    found = []
    for key, domain in space.items():
        if isinstance(domain, ChoiceDomain):
            continue
        rows = [(position(domain, runs[0].parameters[key]), np.array([r.score for r in runs], dtype=float))
                for runs in selection.by_candidate(sound).values() if key in runs[0].parameters]  # fmt: skip
        known = [(x, s.var(ddof=1), len(s) - 1) for x, s in rows if len(s) > 1 and np.ptp(s) > 0]
        if len(known) > FEWEST and len({x for x, _, _ in known}) > 2:
            found.append((key, *_slope(np.array(known), confidence)))
    adjusted = holm([p for _, _, p in found])
    return tuple(SpreadTrend(key, ratio, float(p)) for (key, ratio, _), p in zip(found, adjusted, strict=True))


def _slope(rows: Array, confidence: float) -> tuple[Estimate, float]:
    """Ratio of SDs over the whole range, and p of no slope. ``rows``: (n, 3) of place, s² and degrees."""
    place, half = rows[:, 0] - rows[:, 0].mean(), rows[:, 2] / 2
    logs = np.log(rows[:, 1]) - special.digamma(half) + np.log(half)
    slope = float((place * logs).sum() / (place**2).sum())
    missed = logs - logs.mean() - slope * place
    degrees = len(rows) - 2
    error = math.sqrt(float((missed**2).sum()) / degrees / float((place**2).sum()))
    width = float(special.stdtrit(degrees, 0.5 + confidence / 2)) * error
    ratio = Estimate(*(math.exp(min(max(v / 2, -50.0), 50.0)) for v in (slope, slope - width, slope + width)))
    return ratio, 2 * float(special.stdtr(degrees, -abs(slope) / error)) if error > 0 else math.nan


def best_of_draws(anchors: ScoreGrid, sign: float) -> dict[int, BestOf]:
    """What the best of n blind draws would have been, for the numbers of draws that there were."""
    scores = anchors.by_candidate()
    means = np.array([own.mean() for own in scores])
    posterior = posterior_of(scores, derived_rng(0, "best of draws"), BEST_OF_DRAWS) if len(scores) > 1 else None
    found = {}
    for n in (n for n in EXPECTED_BEST_OF if n <= len(means)):
        seen = expected_best(means, n, sign)
        if posterior is None:
            found[n] = BestOf(seen, math.nan, math.nan)
            continue
        true = float(np.mean([expected_best(own, n, sign) for own in posterior.means]))
        found[n] = BestOf(seen, true, expected_best(means, n, sign, posterior.means.mean(axis=0)))
    return found


def question_lines(verdict: Verdict) -> Iterator[str]:
    """Sections of the report."""
    if verdict.contrasts:
        yield "## One choice against another, over the space"
        yield ""
        rows = [
            (plain_name(c.parameter), f"{c.one} - {c.other}", interval(c.delta), f"{c.p_holm:.2g}",
             f"{c.counts[0]} pairs" if c.paired else f"{c.counts[0]} and {c.counts[1]}")
            for c in verdict.contrasts
        ]  # fmt: skip
        header = ("setting", "difference", f"Δ [{100 * verdict.confidence:g} %]", "p (Holm)", "random candidates")
        yield from table(header, rows)
        yield ""
    if verdict.trends:
        yield "## Does the seed's spread depend on a setting?"
        yield ""
        trends = [(plain_name(t.parameter), f"{interval(t.ratio)} times", f"{t.p_holm:.2g}") for t in verdict.trends]
        yield from table(("setting", "seed SD at the top of its range over that at the bottom", "p (Holm)"), trends)
        yield ""
    if verdict.parameters is not None and verdict.levels:
        yield "## How the score moves with each setting, all else averaged"
        yield ""
        for key, curve in verdict.parameters.curves.items():
            pairs = zip(verdict.levels[key], curve, strict=True)
            shown = ", ".join(f"{short(value)}: {interval(estimate)}" for value, estimate in pairs)
            yield f"- {plain_name(key)}: {shown}"
        yield ""
    yield from _best_of_lines(verdict)


def _best_of_lines(verdict: Verdict) -> Iterator[str]:
    if len(verdict.best_of) < 2:
        return
    rows = [(str(n), number(own.seen), number(own.true), number(own.picked)) for n, own in verdict.best_of.items()]
    yield "## What so many blind draws would have bought"
    yield ""
    header = ("blind draws", "highest mean seen", "truly best of them", "the one with the highest mean is worth")
    yield from table(header, rows)
    yield ""
