"""How many seeds it takes to tell two arms apart."""

from __future__ import annotations

import math

from scipy import special

from plmray.stats.effects import welch_error

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
