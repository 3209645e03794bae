"""Reliability: whether what a verdict says of the best candidate is true as often as it is said.

Planted sweeps: candidates' means are normal with SD τ (in seed SDs), seed noise is normal, its SD one for all or even
on a log scale between two. Said against true: P(best) of the candidate that is said to be best, in bins; P(one run of
the first beats one of the second); rank intervals; how often a P(best) of .95 names the best; the winner's mean.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from plmray.stats.allocation import SURE
from plmray.stats.ranking import rank
from tests.benchmarks.common import Answer, main

BINS = (0.0, 0.3, 0.5, 0.7, 0.9, 1.01)
WITHIN, RANKS, SURE_TRUE = 0.05, 0.93, 0.93


@dataclass(frozen=True)
class Setting:
    name: str
    candidates: int
    between: float
    seeds: int
    spreads: tuple[float, float] = (1.0, 1.0)


SETTINGS = (
    Setting("24 candidates, τ .3, 3 seeds", 24, 0.3, 3),
    Setting("8 candidates, τ 1, 3 seeds", 8, 1.0, 3),
    Setting("24 candidates, τ .6, 5 seeds", 24, 0.6, 5),
    Setting("24 candidates, τ .6, spreads 1 : 5, 3 seeds", 24, 0.6, 3, (1.0, 5.0)),
    Setting("5 candidates, τ .3, 5 seeds", 5, 0.3, 5),
    Setting("2 candidates, τ 1, 3 seeds", 2, 1.0, 3),
    Setting("40 candidates, τ 3, 2 seeds", 40, 3.0, 2),
)


def measure(setting: Setting, rounds: int, seed: int = 7) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    said: list[tuple[float, bool]] = []
    beats: list[tuple[float, float]] = []
    held: list[float] = []
    biases: list[float] = []
    for _ in range(rounds):
        truth = setting.between * rng.normal(size=setting.candidates)
        sds = np.exp(rng.uniform(*np.log(setting.spreads), size=setting.candidates))
        scores = [mean + sd * rng.normal(size=setting.seeds) for mean, sd in zip(truth, sds, strict=True)]
        found = rank(scores, 1.0, rng)
        best = int(found.p_best.argmax())
        said.append((float(found.p_best[best]), bool(truth[best] == truth.max())))
        first, second = np.argsort(-found.means)[:2]
        true = special.ndtr((truth[first] - truth[second]) / np.hypot(sds[first], sds[second]))
        beats.append((found.beats(int(first), int(second), 1.0), float(true)))
        ranks = (-truth).argsort().argsort() + 1
        held.append(float(((found.low_rank <= ranks) & (ranks <= found.high_rank)).mean()))
        biases.append(float((found.shrunken[best] - truth[best]) / sds[best]))
    return figures(np.array(said), np.array(beats), held, biases)


def figures(said: Any, beats: Any, held: list[float], biases: list[float]) -> dict[str, Any]:
    bins = []
    for low, high in itertools.pairwise(BINS):
        inside = said[(said[:, 0] >= low) & (said[:, 0] < high)]
        if len(inside):
            bins.append(
                {"said": round(inside[:, 0].mean(), 3), "true": round(inside[:, 1].mean(), 3), "n": len(inside)}
            )
    sure = said[said[:, 0] >= SURE]
    return {
        "P(best) said": round(float(said[:, 0].mean()), 3),
        "P(best) true": round(float(said[:, 1].mean()), 3),
        "beats said": round(float(beats[:, 0].mean()), 3),
        "beats true": round(float(beats[:, 1].mean()), 3),
        "rank interval": round(float(np.mean(held)), 3),
        "sure": len(sure),
        "sure and true": round(float(sure[:, 1].mean()), 3) if len(sure) else None,
        "bias of the winner's mean, seed SDs": round(float(np.mean(biases)), 3),
        "bins": bins,
    }


def run(quick: bool) -> Answer:
    answer = Answer("reliability")
    for setting in SETTINGS:
        found = measure(setting, 200 if quick else 500)
        answer.figures[setting.name] = found
        close = abs(found["P(best) said"] - found["P(best) true"]) <= WITHIN
        answer.gates[f"{setting.name}: said and true within {WITHIN}"] = (
            close and abs(found["beats said"] - found["beats true"]) <= WITHIN and found["rank interval"] >= RANKS
        )
        few = found["sure"] < 30
        answer.gates[f"{setting.name}: sure is true in {SURE_TRUE}"] = few or found["sure and true"] >= SURE_TRUE
    return answer


if __name__ == "__main__":
    main("reliability", run, __doc__ or "")
