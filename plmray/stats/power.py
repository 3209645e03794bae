"""How many seeds it takes to tell two arms apart."""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from plmray.stats.effects import welch_error
from plmray.stats.intervals import Array

MOST_SEEDS = 10_000
LARGEST_SHIFT = 37.0


def welch_power(effect: float, sd_a: float, sd_b: float, num_seeds: int, alpha: float = 0.05) -> float:
    """Chance that Welch's two-sided test at ``alpha`` finds ``effect`` with ``num_seeds`` seeds an arm.

    From the noncentral t distribution at Welch-Satterthwaite's degrees of freedom; takes the SDs as known and the
    scores as normal. Source: statsmodels' TTestIndPower, to which it is equal at equal SDs.
    """
    if num_seeds < 2:
        return 0.0
    error, degrees = welch_error(sd_a, sd_b, num_seeds, num_seeds)
    if error == 0:
        return 1.0 if effect else 0.0
    critical, shift = float(special.stdtrit(degrees, 1 - alpha / 2)), abs(effect) / error
    return 1 - _noncentral_cdf(critical, degrees, shift) + _noncentral_cdf(-critical, degrees, shift)


def _noncentral_cdf(t: float, degrees: float, shift: float) -> float:
    exact = float(special.nctdtr(degrees, shift, t)) if shift < LARGEST_SHIFT else math.nan
    if math.isfinite(exact):
        return exact
    # The series underflows far out; Johnson and Welch's normal approximation (1940) is within .005 there.
    return float(special.ndtr((t * (1 - 1 / (4 * degrees)) - shift) / math.sqrt(1 + t**2 / (2 * degrees))))


def seeds_needed(effect: float, sd_a: float, sd_b: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Smallest number of seeds an arm with which Welch's test has ``power``; None above 10,000.

    At an observed effect the answer is noisy: the effect itself is an estimate. Repeat it at a cautious SD
    (``cautious_sd``).
    """
    if effect == 0 or not math.isfinite(effect):
        return None
    low, high = 1, 2
    while welch_power(effect, sd_a, sd_b, high, alpha) < power:
        low, high = high, 2 * high
        if low >= MOST_SEEDS:
            return None
    while high - low > 1:  # power grows with seeds
        middle = (low + high) // 2
        low, high = (low, middle) if welch_power(effect, sd_a, sd_b, middle, alpha) >= power else (middle, high)
    return high


def cautious_sd(sd: float, degrees: int, confidence: float = 0.8) -> float:
    """Upper limit of an SD estimated with ``degrees`` degrees of freedom: true SDs lie below it with ``confidence``."""
    return sd * math.sqrt(degrees / float(special.chdtri(degrees, confidence)))


def assurance(
    gap: Array, sd_one: Array, sd_other: Array, seen: float, have: tuple[int, int], more: int, alpha: float = 0.05
) -> float:
    """Chance that Welch's test at ``alpha`` tells two candidates apart once ``more`` seeds of each have come in.

    ``gap``, ``sd_one``, ``sd_other``: (draws,) of what is believed of their difference and spreads; ``seen``: the
    difference of their means now, over ``have`` seeds of each. The seeds that are there count with what they said; the
    new ones are drawn from the beliefs. So the chance is averaged over what is not known, where power at the observed
    difference takes it for the truth. Source: O'Hagan et al. 2005, assurance; takes the SDs of each draw as known.
    """
    counts = have[0] + more, have[1] + more
    variances = sd_one**2, sd_other**2
    error = np.sqrt(variances[0] / counts[0] + variances[1] / counts[1])
    kept = have[0] / counts[0], have[1] / counts[1]
    # Of the difference then: what stays of the one now, and the spread of what is to come.
    expected = gap + (seen - gap) * (kept[0] + kept[1]) / 2
    spread = np.sqrt(variances[0] * more / counts[0] ** 2 + variances[1] * more / counts[1] ** 2)
    critical = float(special.stdtrit(max(1, sum(counts) - 2), 1 - alpha / 2)) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        above, below = (expected - critical) / spread, (-expected - critical) / spread
    found = np.where(spread > 0, special.ndtr(above) + special.ndtr(below), np.abs(expected) > critical)
    return float(found.mean())


def more_seeds_for(
    gap: Array,
    sd_one: Array,
    sd_other: Array,
    seen: float,
    have: tuple[int, int],
    power: float = 0.8,
    alpha: float = 0.05,
    most: int = 200,
) -> int | None:
    """Fewest further seeds of each with an ``assurance`` of ``power``; None where ``most`` have less."""

    def reached(more: int) -> bool:
        return assurance(gap, sd_one, sd_other, seen, have, more, alpha) >= power

    if not reached(most):
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high
