"""Whether what a verdict promises comes true: the winner's mean, further seeds, take either, one collapsed run.

Planted sweeps go through ``judge`` itself. Candidates' means are normal with SD τ, in seed SDs. *Bias*: mean of the
headline less the truth, after top-two Thompson sampling of the top candidates, anchors on a fixed grid, and fresh seeds
that confirm two candidates fixed beforehand. *Power*: how often Welch's test tells the two best apart once the asked
number of seeds has come in. *Take either*: how often it is said and the two differ by more than the indifference.
*Collapse*: one run of 36 at the bottom.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from plmray.report.judge import judge
from plmray.stats.allocation import Arms, next_trial
from plmray.stats.effects import welch_delta
from plmray.trials.result import TrialResult
from tests.benchmarks.common import Answer, main

BIAS, POWER, EITHER = 0.1, (0.75, 0.88), 0.05
Rng = np.random.Generator


@dataclass(frozen=True)
class Confirmed:
    """``top`` candidates share ``budget`` seeds, ``anchors`` run ``seeds`` each, two are confirmed on ``confirm``."""

    top: int
    anchors: int
    seeds: int
    confirm: int
    between: float = 1.0

    @property
    def name(self) -> str:
        anchors = f" + {self.anchors} anchors × {self.seeds}" if self.anchors else ""
        return f"{self.top} top{anchors}, confirm {self.confirm}, τ {self.between:g}"


CONFIRMED = (
    Confirmed(5, 20, 3, 5),
    Confirmed(6, 40, 5, 8),
    Confirmed(6, 0, 0, 5),
    Confirmed(12, 12, 3, 5, 0.5),
)
# Candidates, τ, seeds, and the indifference that the sweep states.
CLOSE = (
    (8, 1.0, 3, None), (24, 0.6, 5, None), (24, 0.3, 3, None), (5, 0.3, 5, None), (12, 2.0, 3, None), (3, 1.0, 8, None),
    (4, 0.1, 20, 0.6), (4, 0.3, 20, 0.6), (2, 0.0, 12, 0.6),
)  # fmt: skip


def run_of(name: str, seed: int, score: float, origin: str, reason: str = "fixed grid") -> TrialResult:
    return TrialResult(
        f"{name}-s{seed}", name, origin, "replicate", seed, "COMPLETE", score=score, reason=reason, parameters={}
    )


def headline_bias(setting: Confirmed, rng: Rng) -> tuple[float, float]:
    """(bias of the first mean, of the first mean by the rule of version 0.1.0) in seed SDs."""
    names = [f"t{n:02d}" for n in range(setting.top)] + [f"a{n:02d}" for n in range(setting.anchors)]
    truth = dict(zip(names, setting.between * rng.normal(size=len(names)), strict=True))
    top = names[: setting.top]
    early = {name: list(truth[name] + rng.normal(size=setting.seeds)) for name in names[setting.top :]}
    shared = _allocated(top, truth, 5 * setting.top, rng)
    early |= shared
    means = {name: float(np.mean(own)) for name, own in early.items()}
    chosen = sorted(means, key=lambda name: -means[name])[:2]
    late = {name: list(truth[name] + rng.normal(size=setting.confirm)) for name in chosen}
    results = [
        run_of(name, seed, score, "searched" if name in top else "random", "leads" if name in top else "fixed grid")
        for name, own in early.items()
        for seed, score in enumerate(own)
    ]
    results += [
        run_of(n, 500 + s, score, "searched", "confirmation") for n in chosen for s, score in enumerate(late[n])
    ]
    decisions = [{"kind": "confirmation", "candidates": chosen, "seeds": []}]
    best = judge(results, "r2", decisions=decisions).candidates[0]
    # Version 0.1.0: the higher of confirmed means and fixed grids.
    eligible = {n: float(np.mean(late.get(n, early[n]))) for n in names if n in late or n not in top}
    old = max(eligible, key=lambda name: eligible[name])
    return best.mean.value - truth[best.candidate_id], eligible[old] - truth[old]


def _allocated(top: list[str], truth: dict[str, float], budget: int, rng: Rng) -> dict[str, list[float]]:
    scores: dict[str, list[float]] = {name: [] for name in top}
    for _ in range(budget):
        arms = Arms([np.array(scores[n]) for n in top], np.zeros(len(top), np.int64), np.ones(len(top)))
        name = top[next_trial(arms, 1.0, rng).candidate]
        scores[name].append(float(truth[name] + rng.normal()))
    return scores


def promise(candidates: int, between: float, seeds: int, indifference: float | None, rng: Rng) -> dict[str, Any]:
    """What one planted sweep is told of its two best, and what came."""
    truth = between * rng.normal(size=candidates)
    scores = truth[:, None] + rng.normal(size=(candidates, seeds))
    results = [run_of(f"c{n:02d}", s, float(scores[n, s]), "random") for n in range(candidates) for s in range(seeds)]
    contest = judge(results, "r2", indifference=indifference).contest
    assert contest is not None
    one, other = int(contest.best[1:]), int(contest.second[1:])
    apart = None
    if contest.more_seeds is not None and not contest.is_settled and not contest.is_indifferent:
        more = truth[[one, other], None] + rng.normal(size=(2, contest.more_seeds))
        whole = [np.concatenate([scores[n], own]) for n, own in zip((one, other), more, strict=True)]
        apart = welch_delta(whole[1], whole[0]).verdict != "undecided"
    either = contest.is_indifferent and not contest.is_settled
    return {
        "asked": apart is not None,
        "apart": apart,
        "either": either,
        "wrong": either and abs(truth[one] - truth[other]) > contest.indifference,
        "settled": contest.is_settled,
        "settled wrong": contest.is_settled and truth[one] < truth[other],
    }


def collapse(rng: Rng, fall: bool) -> dict[str, Any]:
    """Twelve anchors × three seeds, the seed 5 % of the variance, with one run 25 seed SDs down or not."""
    scores = 4.4 * rng.normal(size=(12, 1)) + rng.normal(size=(12, 3))
    if fall:
        scores[6, 1] -= 25.0
    results = [run_of(f"c{n:02d}", s, float(scores[n, s]), "random") for n in range(12) for s in range(3)]
    verdict = judge(results, "r2")
    assert verdict.shares is not None
    named = [c.trial_id for c in verdict.losses.collapses] == (["c06-s1"] if fall else [])
    return {"best": verdict.candidates[0].candidate_id, "share": verdict.shares.seed_share.value, "named": named}


def run(quick: bool) -> Answer:
    answer, rounds = Answer("verdicts"), 60 if quick else 600
    answer.figures["bias"] = {}
    for setting in CONFIRMED:
        rng = np.random.default_rng(21)
        found = np.array([headline_bias(setting, rng) for _ in range(rounds)])
        error = float(found[:, 0].std() / np.sqrt(rounds))
        answer.figures["bias"][setting.name] = {
            "now": round(float(found[:, 0].mean()), 3), "0.1.0": round(float(found[:, 1].mean()), 3),
            "error": round(error, 3),
        }  # fmt: skip
        answer.gates[f"bias: {setting.name}"] = bool(abs(found[:, 0].mean()) <= BIAS + 2 * error)
    told = [
        {"setting": f"{c} candidates, τ {t:g}, {s} seeds" + (f", δ {d:g}" if d else "")} | figures(c, t, s, d, rounds)
        for c, t, s, d in CLOSE
    ]
    answer.figures["promises"] = told
    asked = sum(row["asked"] for row in told)
    power = sum(row["asked"] * (row["told apart"] or 0.0) for row in told) / max(asked, 1)
    answer.figures["power over all"] = round(power, 3)
    answer.gates[f"further seeds tell apart in {POWER[0]} to {POWER[1]}"] = POWER[0] <= power <= POWER[1]
    said = sum(row["take either"] for row in told)
    answer.gates[f"take either is wrong in at most {EITHER}"] = sum(r["wrong"] for r in told) <= EITHER * said + 2
    answer.figures["collapse"] = collapses(rounds)
    answer.gates["a collapsed run is named and leaves the verdict"] = min(answer.figures["collapse"].values()) >= 0.95
    return answer


def figures(candidates: int, between: float, seeds: int, indifference: float | None, rounds: int) -> dict[str, Any]:
    rng = np.random.default_rng(22)
    rows = [promise(candidates, between, seeds, indifference, rng) for _ in range(rounds)]
    apart = [row["apart"] for row in rows if row["asked"]]
    return {
        "asked": len(apart),
        "told apart": round(float(np.mean(apart)), 3) if apart else None,
        "take either": sum(row["either"] for row in rows),
        "wrong": int(sum(row["wrong"] for row in rows)),
        "settled": sum(row["settled"] for row in rows),
        "settled wrong": int(sum(row["settled wrong"] for row in rows)),
    }


def collapses(rounds: int) -> dict[str, float]:
    pairs = [[collapse(np.random.default_rng([23, n]), fall) for fall in (False, True)] for n in range(rounds)]
    return {
        "same winner": round(float(np.mean([a["best"] == b["best"] for a, b in pairs])), 3),
        "share within 3 points": round(float(np.mean([abs(a["share"] - b["share"]) <= 0.03 for a, b in pairs])), 3),
        "named": round(float(np.mean([b["named"] for _, b in pairs])), 3),
    }


if __name__ == "__main__":
    main("verdicts", run, __doc__ or "")
