"""Seed allocation: how often each rule ends with the truly best candidate, at equal numbers of trials.

Planted sweeps: candidates' means and seed noise are normal. The setting of reference has 24 candidates whose SD is .9,
seed SD 1.5 and five seeds a candidate on average; the others ask whether the rule is ever worse than uniform.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from plmray.stats.allocation import Arms, next_trial
from tests.benchmarks.common import Answer, main

Run = Callable[[int], float]  # a new score of a candidate
Rule = Callable[["Setting", Run, np.random.Generator], int]  # the candidate it ends with


@dataclass(frozen=True)
class Setting:
    name: str
    candidates: int
    sd_candidate: float
    sd_seed: tuple[float, float]  # lowest and highest of the candidates
    seeds: int  # a candidate, on average

    @property
    def budget(self) -> int:
        return self.candidates * self.seeds


REFERENCE = Setting("24 candidates, SD .9, seed SD 1.5", 24, 0.9, (1.5, 1.5), 5)
SETTINGS = (
    REFERENCE,
    Setting("6 candidates, SD 1, seed SD 1", 6, 1.0, (1.0, 1.0), 5),
    Setting("12 candidates, SD .3, seed SD 1.5", 12, 0.3, (1.5, 1.5), 5),
    Setting("12 candidates, SD 1, seed SD .5 to 3", 12, 1.0, (0.5, 3.0), 5),
    Setting("24 candidates, SD 3, seed SD .5", 24, 3.0, (0.5, 0.5), 5),
    Setting("24 candidates, SD .9, seed SD 1.5, few seeds", 24, 0.9, (1.5, 1.5), 3),
)


def uniform(setting: Setting, run: Run, rng: np.random.Generator) -> int:
    return int(np.argmax([np.mean([run(c) for _ in range(setting.seeds)]) for c in range(setting.candidates)]))


def thompson(setting: Setting, run: Run, rng: np.random.Generator, in_flight: int = 1) -> int:
    """Ours. ``in_flight``: trials that are decided on before the first of them has ended."""
    scores: list[list[float]] = [[] for _ in range(setting.candidates)]
    flying: list[int] = []
    for _ in range(setting.budget):
        waiting = np.bincount(flying, minlength=setting.candidates)
        arms = Arms([np.array(own) for own in scores], waiting, np.ones(setting.candidates))
        flying.append(next_trial(arms, 1.0, rng).candidate)
        if len(flying) >= in_flight:
            done = flying.pop(0)
            scores[done].append(run(done))
    for done in flying:
        scores[done].append(run(done))
    return int(np.argmax([np.mean(own) for own in scores]))


def thompson_in_flight(setting: Setting, run: Run, rng: np.random.Generator) -> int:
    return thompson(setting, run, rng, in_flight=8)


def smac(setting: Setting, run: Run, rng: np.random.Generator) -> int:
    """Racing as in SMAC: a challenger doubles its seeds as long as it is ahead of the incumbent on as many."""
    scores: list[list[float]] = [[] for _ in range(setting.candidates)]
    incumbent, left = 0, setting.budget
    order: list[int] = []
    while left > 0:
        scores[incumbent].append(run(incumbent))
        left -= 1
        order = order or [int(c) for c in rng.permutation(setting.candidates) if c != incumbent]
        challenger, batch = order.pop(), 1
        while left > 0 and challenger != incumbent:
            for _ in range(min(batch, left, len(scores[incumbent]) - len(scores[challenger]))):
                scores[challenger].append(run(challenger))
                left -= 1
            count = len(scores[challenger])
            if count == 0 or np.mean(scores[challenger]) < np.mean(scores[incumbent][:count]):
                break
            if count >= len(scores[incumbent]):
                incumbent = challenger
                break
            batch *= 2
    return incumbent


def f_race(setting: Setting, run: Run, rng: np.random.Generator) -> int:
    """All survivors run seed after seed; who is worse than the leader at p < .05 (t, paired by round) goes."""
    alive, left = list(range(setting.candidates)), setting.budget
    scores: list[list[float]] = [[] for _ in range(setting.candidates)]
    while left >= len(alive):
        for candidate in alive:
            scores[candidate].append(run(candidate))
        left -= len(alive)
        if len(alive) == 1:
            break
        if len(scores[alive[0]]) >= 3:
            best = max(alive, key=lambda c: float(np.mean(scores[c])))
            alive = [
                c for c in alive
                if c == best or stats.ttest_rel(scores[best], scores[c], alternative="greater").pvalue >= 0.05
            ]  # fmt: skip
    return max(alive, key=lambda c: float(np.mean(scores[c])))


def ocba(setting: Setting, run: Run, rng: np.random.Generator) -> int:
    """Optimal computing budget allocation (Chen et al. 2000), one trial at a time."""
    scores = [[run(c), run(c)] for c in range(setting.candidates)]
    for _ in range(setting.budget - 2 * setting.candidates):
        means, sds = np.array([np.mean(s) for s in scores]), np.array([np.std(s, ddof=1) for s in scores])
        best = int(means.argmax())
        gaps = np.maximum(means[best] - means, 1e-9)
        weights = (sds / gaps) ** 2
        weights[best] = 0
        weights[best] = sds[best] * math.sqrt(float((weights**2 / np.maximum(sds, 1e-9) ** 2).sum()))
        wanted = weights / weights.sum() * (sum(map(len, scores)) + 1)
        lacking = int((wanted - np.array([len(s) for s in scores])).argmax())
        scores[lacking].append(run(lacking))
    return int(np.argmax([np.mean(s) for s in scores]))


RULES: dict[str, Rule] = {
    "uniform": uniform,
    "SMAC-like": smac,
    "F-race-like": f_race,
    "OCBA": ocba,
    "plmray": thompson,
    "plmray, 8 in flight": thompson_in_flight,
}


def simulate(setting: Setting, rule: Rule, rounds: int) -> tuple[float, float]:
    """P(correct best) and the mean regret, over ``rounds`` planted sweeps, the same ones for every rule."""
    right, regret = 0, 0.0
    for number in range(rounds):
        rng = np.random.default_rng([7, number])
        means = rng.normal(scale=setting.sd_candidate, size=setting.candidates)
        sds = rng.uniform(*setting.sd_seed, size=setting.candidates)
        streams = [np.random.default_rng([8, number, c]) for c in range(setting.candidates)]
        choice = rule(setting, lambda c: float(streams[c].normal(means[c], sds[c])), rng)  # noqa: B023
        right += choice == int(means.argmax())
        regret += float(means.max() - means[choice])
    return right / rounds, regret / rounds


def run(quick: bool) -> Answer:
    rounds = 200 if quick else 2000
    answer = Answer("allocation")
    table: dict[str, Any] = {}
    for setting in SETTINGS:
        found = {name: simulate(setting, rule, rounds) for name, rule in RULES.items()}
        table[setting.name] = {name: {"p_best": p, "regret": round(r, 4)} for name, (p, r) in found.items()}
        base, ours = found["uniform"][0], found["plmray"][0]
        noise = math.sqrt((base * (1 - base) + ours * (1 - ours)) / rounds)
        answer.gates[f"not worse than uniform: {setting.name}"] = ours >= base - 2 * noise
    reference = table[REFERENCE.name]
    answer.gates["better by .1 in the setting of reference"] = (
        reference["plmray"]["p_best"] >= reference["uniform"]["p_best"] + 0.1
    )
    answer.ratios = {n: reference["plmray"]["p_best"] / f["p_best"] for n, f in reference.items() if n != "plmray"}
    answer.figures = {"rounds": rounds, "p_best": table}
    return answer


if __name__ == "__main__":
    main("allocation", run, __doc__ or "")
