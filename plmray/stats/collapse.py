"""Runs that did not train: so far below their candidate's other runs that no noise of this sweep explains them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

from plmray.stats.intervals import Array, Scores

FAR = 7.0  # seed SDs below the runs above it
SUSPECT = 4.5  # the same, of the pooled scale, to leave a run out of the noise it is then judged by
CHANCE = 0.02  # a sweep without collapsed runs names one by chance at most about so often
PRIOR_DEGREES = 10.0  # that other candidates' noise counts for, at most: spreads differ
QN = 2.2191  # a quarter of all |differences| of normal runs are smaller than SD / QN
FEW = 20  # candidates; with more a candidate's own runs hardly move the scale of all

Flags = NDArray[np.bool_]
Noise = Callable[[int], tuple[float, float]]  # of the other candidates: SD and degrees of freedom


def collapsed(scores: Scores, sign: float, chance: float = CHANCE) -> list[Flags]:
    """Which runs collapsed: one array of bool a candidate, as ``scores`` has them. ``sign``: +1 where larger is better.

    Going down a candidate's runs from its best one, the first that lies ``FAR`` seed SDs below the mean of those above
    it, and that noise would bring about in fewer than ``chance`` sweeps (Student's t, over all runs), is collapsed, and
    so are those below it; most of a candidate's runs only where they lie together. The seed SD is that of the runs
    above it, steadied by other candidates'. A candidate whose runs are all bad has none: it differs, and that is its
    settings' doing.

    With a single candidate only its own runs speak. Of runs 10 SD down, 5 in 100, it finds nine in ten and more; long
    tails are taken for a collapse in a tenth of sweeps with t noise of three degrees, in about half of those with
    lognormal noise (σ 1) towards the bad side (tests/stats/test_collapse.py holds these).
    Source of the first scale: Rousseeuw & Croux 1993, Qn.
    """
    merits = [sign * np.asarray(own, dtype=float) for own in scores]
    runs = sum(map(len, merits))
    robust = _robust_noise(merits)
    suspects = [_below(own, robust(c), SUSPECT, math.inf) for c, own in enumerate(merits)]
    noise = _pooled_noise([own[~out] for own, out in zip(merits, suspects, strict=True)])
    return [_below(own, noise(c), FAR, chance / max(runs, 1)) for c, own in enumerate(merits)]


def succeeded(scores: Scores, sign: float) -> list[Array]:
    """The scores without collapsed runs; every candidate keeps one at least."""
    return [own[~out] for own, out in zip(scores, collapsed(scores, sign), strict=True)]


def _below(merits: Array, noise: tuple[float, float], far: float, chance: float) -> Flags:
    flags = np.zeros(len(merits), dtype=bool)
    order = np.argsort(-merits, kind="stable")
    prior_sd, degrees = noise[0], min(PRIOR_DEGREES, noise[1])
    least = far * prior_sd * math.sqrt(degrees / max(degrees + len(merits) - 1, 1.0))  # a gap that tells is larger
    if len(merits) < 2 or float(merits.max() - merits.min()) <= least:
        return flags
    for place in range(1, len(merits)):
        above = merits[order[:place]]
        freedom = degrees + place - 1
        squares = degrees * prior_sd**2 + float(((above - above.mean()) ** 2).sum())
        if freedom == 0 or squares == 0:
            continue
        gap = float(above.mean() - merits[order[place]]) / math.sqrt(squares / freedom)
        if gap > far and special.stdtr(freedom, -gap / math.sqrt(1 + 1 / place)) < chance:
            flags[order[place:]] = _is_apart(above, merits[order[place:]])
            break
    return flags


def _is_apart(above: Array, below: Array) -> bool:
    """Whether most runs of a candidate may be called collapsed: they lie together, apart from the others. A candidate
    that is noisier than all others has its runs strewn over the whole range."""
    return len(below) <= len(above) or float(below.std(ddof=1)) <= float(above.min() - below.max())


def _robust_noise(merits: Sequence[Array]) -> Noise:
    """Qn of all pairs of runs of one candidate, of the other candidates: a third of the runs may be anything."""
    pairs = [np.abs(own[:, None] - own[None])[np.triu_indices(len(own), 1)] for own in merits]
    degrees = sum(len(own) - 1 for own in merits)
    everything = _qn(pairs)

    def noise(candidate: int) -> tuple[float, float]:
        if len(merits) > FEW:
            return everything, float(degrees)
        others = [own for c, own in enumerate(pairs) if c != candidate]
        return _qn(others), float(degrees - (len(merits[candidate]) - 1))

    return noise


def _qn(pairs: Sequence[Array]) -> float:
    differences = np.concatenate([*pairs, np.zeros(0)])
    return QN * float(np.quantile(differences, 0.25)) if len(differences) else 0.0


def _pooled_noise(merits: Sequence[Array]) -> Noise:
    squares = np.array([float(((own - own.mean()) ** 2).sum()) for own in merits])
    degrees = np.array([len(own) - 1.0 for own in merits])

    def noise(candidate: int) -> tuple[float, float]:
        freedom = float(degrees.sum() - degrees[candidate])
        return (math.sqrt((squares.sum() - squares[candidate]) / freedom), freedom) if freedom > 0 else (0.0, 0.0)

    return noise
