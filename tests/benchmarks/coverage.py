"""How often intervals hold the planted truth, and how far unclipped variance components are from it on average.

Sweeps with known means, spreads and effects, normal and not; nominal 95 %. *Claimed* intervals must reach .935;
*descriptive* ones are labelled so wherever they are shown. Two Monte Carlo standard errors are allowed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from plmray.stats.factors import factor_shares
from plmray.stats.variance import anchor_shares
from tests.benchmarks.common import Answer, main
from tests.benchmarks.coverage_cases import ROWS, Case, cases, factor_runs

CLAIM, NOMINAL = 0.935, 0.95


def measure(case: Case, rounds: int) -> dict[str, Any]:
    rng = np.random.default_rng(11)
    held = offered = 0
    number = max(100, rounds // 10) if case.slow else rounds
    for _ in range(number):
        found = case.draw(rng)
        if found is not None and not math.isnan(found.low):
            offered += 1
            held += found.low <= case.truth <= found.high
    coverage = held / max(1, offered)
    error = math.sqrt(NOMINAL * (1 - NOMINAL) / max(1, offered))
    return {
        "coverage": round(coverage, 4),
        "offered": round(offered / number, 3),
        "rounds": number,
        "claimed": case.claimed,
        "reaches the claim": coverage >= CLAIM - 2 * error,
    }


def component_bias(rounds: int) -> dict[str, float]:
    """Bias of unclipped components as a share of the total variance."""
    rng = np.random.default_rng(12)
    factors = [factor_shares(*factor_runs(rng)).variances for _ in range(rounds)]
    truth = {"model": float((ROWS**2).mean()), "training": 0.25, "model:training": 0.0, "seed": 1.0}
    total = sum(truth.values())
    bias = {name: float(np.mean([f[name] for f in factors]) - truth[name]) / total for name in truth}
    counts = (2, 3, 5, 3, 2, 5, 4, 3)
    anchors = [anchor_shares([rng.normal(rng.normal(), 0.5, size=n) for n in counts]) for _ in range(rounds)]
    found = [own for own in anchors if own is not None]
    bias["anchors: candidate"] = float(np.mean([a.candidate_variance for a in found]) - 1.0) / 1.25
    bias["anchors: seed"] = float(np.mean([a.seed_variance for a in found]) - 0.25) / 1.25
    return {name: round(value, 4) for name, value in bias.items()}


def run(quick: bool) -> Answer:
    rounds = 200 if quick else 4000
    answer = Answer("coverage")
    table = {case.name: measure(case, rounds) for case in cases()}
    for name, row in table.items():
        if row["claimed"]:
            answer.gates[name] = row["reaches the claim"]
    bias = component_bias(rounds)
    answer.gates["unclipped components: bias below 5 % of the total"] = max(map(abs, bias.values())) < 0.05
    answer.figures = {"nominal": NOMINAL, "coverage": table, "bias": bias}
    return answer


if __name__ == "__main__":
    main("coverage", run, __doc__ or "")
