"""Answers over the space against planted truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from plmray.config.fields.space import ChoiceDomain, FloatDomain
from plmray.report.judge import judge
from plmray.report.questions import best_of_draws, contrasts_of, spread_trends
from plmray.trials.result import TrialResult
from plmray.trials.score_grid import ScoreGrid
from tests.report.test_verdict import SPACE, shown, sweep, trial


def test_one_choice_against_another_is_over_candidates() -> None:
    """Three seeds are no three candidates: the interval holds the planted .2 and is no wider than it must."""
    held = widths = 0.0
    for number in range(60):
        rng = np.random.default_rng(number)
        results = []
        for place in range(24):
            kind, rest = ["linear", "dense"][place % 2], rng.normal(0, 0.3)
            parameters = {"optimizer.lr": float(10 ** rng.uniform(-4, -2)), "head.kind": kind}
            truth = 0.2 * (kind == "dense") + rest
            results += [trial(f"c{place:02d}", s, truth + 0.05 * rng.normal(), parameters=parameters) for s in range(3)]
        (found,) = contrasts_of(results, SPACE, 0.95)
        assert (found.one, found.other, found.counts, found.paired) == ("linear", "dense", (12, 12), False)
        held += found.delta.low <= -0.2 <= found.delta.high
        widths += found.delta.high - found.delta.low
    assert held / 60 > 0.82
    assert widths / 60 == pytest.approx(2 * 2.07 * math.sqrt(2 * (0.09 + 0.0025 / 3) / 12), rel=0.1)


def test_the_same_other_settings_are_compared_pair_by_pair() -> None:
    rng = np.random.default_rng(0)
    results = []
    for place in range(8):
        rate, rest = float(10 ** rng.uniform(-4, -2)), rng.normal(0, 1.0)
        for kind in ("linear", "dense"):
            parameters = {"optimizer.lr": rate, "head.kind": kind}
            score = rest + 0.2 * (kind == "dense")
            results += [
                trial(f"c{place}{kind}", s, score + 0.02 * rng.normal(), parameters=parameters) for s in range(3)
            ]
    (found,) = contrasts_of(results, SPACE, 0.95)
    assert found.paired and found.counts == (8, 8)
    assert -0.25 < found.delta.low < found.delta.value < found.delta.high < -0.15


def test_a_spread_that_grows_with_the_rate_is_seen_and_a_level_one_is_not() -> None:
    def planted(growth: float, rng: np.random.Generator) -> list[TrialResult]:
        results = []
        for place in range(20):
            where = rng.uniform()
            sd = 0.01 * growth**where
            parameters = {"optimizer.lr": float(10 ** (-4 + 2 * where)), "head.kind": "linear"}
            results += [trial(f"c{place:02d}", s, 0.5 + sd * rng.normal(), parameters=parameters) for s in range(4)]
        return results

    held = 0
    for number in range(40):
        (found,) = spread_trends(planted(4.0, np.random.default_rng(number)), SPACE, 0.95)
        held += found.ratio.low <= 4.0 <= found.ratio.high
    assert held / 40 > 0.85
    level = [spread_trends(planted(1.0, np.random.default_rng(n)), SPACE, 0.95)[0].p_holm < 0.05 for n in range(60)]
    assert np.mean(level) < 0.15


def test_the_best_of_blind_draws_loses_the_luck() -> None:
    """Twenty anchors of SD 1 and seed SD 1, two seeds: the highest mean seen is too good by far."""
    seen, true, picked, truth, worth = [], [], [], [], []
    for number in range(60):
        rng = np.random.default_rng(number)
        means = rng.normal(size=20)
        scores = means[:, None] + rng.normal(size=(20, 2))
        grid = ScoreGrid(tuple(map(str, range(20))), (0, 1), scores)
        own = best_of_draws(grid, 1.0)[20]
        seen.append(own.seen), true.append(own.true), picked.append(own.picked)
        truth.append(means.max()), worth.append(means[scores.mean(axis=1).argmax()])
    assert np.mean(seen) > np.mean(truth) + 0.2
    assert np.mean(true) == pytest.approx(np.mean(truth), abs=0.15)
    assert np.mean(picked) == pytest.approx(np.mean(worth), abs=0.15)


def test_marginal_curves_follow_the_planted_response() -> None:
    """Score = 2 · place of the rate, +.5 for one head: each curve is the mean over all else."""
    results = sweep(40, 3, 0.05, lambda rate, kind: (rate + 4) + 0.5 * (kind == "dense"))
    verdict = judge(results, "spearman", space=SPACE)
    assert verdict.parameters is not None
    rates = np.log10(np.array(verdict.levels["optimizer.lr"], dtype=float))
    curve = verdict.parameters.curves["optimizer.lr"]
    assert [e.value for e in curve] == pytest.approx(rates + 4 + 0.25, abs=0.1)
    kinds = dict(zip(verdict.levels["head.kind"], verdict.parameters.curves["head.kind"], strict=True))
    assert kinds["dense"].value - kinds["linear"].value == pytest.approx(0.5, abs=0.08)
    text = shown(verdict)
    for words in ("over the space", "spread depend on a setting", "all else averaged", "have bought"):
        assert words in text


def test_little_says_nothing() -> None:
    few = [trial(f"c{n}", s, 0.5 + 0.1 * n + 0.01 * s, parameters={"head.kind": "linear"}) for n in range(3) for s in range(2)]  # fmt: skip # noqa: E501
    space = {"head.kind": ChoiceDomain(kind="choice", values=["linear", "dense"]),
             "optimizer.lr": FloatDomain(kind="float", low=1e-4, high=1e-2, log=True)}  # fmt: skip
    assert contrasts_of(few, space, 0.95) == () and spread_trends(few, space, 0.95) == ()
    shown(judge(few, "spearman", space=space))
