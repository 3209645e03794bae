"""Where seed noise comes from: one random stream moved at a time, the others held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from plmray.stats.intervals import Scores
from plmray.stats.spread import SeedSpread, pooled_seed_sd


@dataclass(frozen=True)
class StreamShares:
    """``spreads``: SD a stream, pooled over candidates; ``shares``: of the sum of their variances, so they sum to 1;
    ``whole``: all streams of a trial's seed at once (the split is not among them)."""

    spreads: Mapping[str, SeedSpread]
    shares: Mapping[str, float]
    whole: SeedSpread


def stream_shares(whole: Scores, varied: Mapping[str, Scores], confidence: float = 0.95) -> StreamShares | None:
    """How much noise each random stream makes by itself.

    ``whole``: one array of scores a candidate, all streams moved; ``varied``: by stream, one array a candidate, that
    stream alone moved, the trial at the held seed included. None without two scores of some candidate for each.

    Shares compare the streams with each other. They do not decompose ``whole``: training is chaotic, so that moving one
    stream alone may redraw the whole path, and variances of streams need not add up to that of all at once. Takes the
    held seed as no special one: with the other streams held elsewhere a stream may matter more or less.
    """
    all_at_once = pooled_seed_sd(whole, confidence)
    spreads = {name: pooled_seed_sd(scores, confidence) for name, scores in varied.items()}
    if not spreads or not all(spread.degrees for spread in (all_at_once, *spreads.values())):
        return None
    total = sum(spread.sd.value**2 for spread in spreads.values())
    if total == 0:
        return None
    return StreamShares(spreads, {name: spread.sd.value**2 / total for name, spread in spreads.items()}, all_at_once)
