"""Verdicts of made-up results: planted truth first, then everything that is missing, equal or broken."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from plmray.config.fields.space import ChoiceDomain, FloatDomain
from plmray.metrics import METRICS
from plmray.report.headline import headline
from plmray.report.html import page
from plmray.report.judge import judge
from plmray.report.markdown import markdown
from plmray.report.verdict import Verdict
from plmray.report.write import to_json
from plmray.trials import selection
from plmray.trials.result import TrialResult

SPACE = {
    "optimizer.lr": FloatDomain(kind="float", low=1e-4, high=1e-2, log=True),
    "head.kind": ChoiceDomain(kind="choice", values=["linear", "dense"]),
}


def trial(
    candidate: str, seed: int, score: float | None, test: float | None = 0.5, origin: str = "random", **changes: Any
) -> TrialResult:
    facts: dict[str, Any] = {
        "trial_id": f"{candidate}-s{seed}",
        "candidate_id": candidate,
        "origin": origin,
        "phase": "replicate",
        "seed": seed,
        "state": "COMPLETE" if score is not None else "FAILED",
        "score": score,
        "test_score": test if score is not None else None,
        "error": None if score is not None else "the worker died",
        "reason": "fixed grid",
    }
    return TrialResult(**{**facts, **changes})


def sweep(anchors: int, seeds: int, sd: float, score: Callable[[float, str], float]) -> list[TrialResult]:
    """Random candidates over SPACE with normal seed noise; the test score follows validation."""
    rng = np.random.default_rng(5)
    results = []
    for number in range(anchors):
        parameters = {"optimizer.lr": float(10 ** rng.uniform(-4, -2)), "head.kind": ["linear", "dense"][number % 2]}
        truth = score(math.log10(parameters["optimizer.lr"]), str(parameters["head.kind"]))
        for seed in range(seeds):
            own = truth + sd * rng.normal()
            results.append(trial(f"c{number:02d}", seed, own, own - 0.1, parameters=parameters))
    return results


def shown(verdict: Verdict) -> str:
    """Every form of the report can be made; the text of one."""
    text = markdown(verdict, "made-up")
    assert "nan" not in text.lower().replace("finance", "")
    json.loads(to_json(verdict, "made-up"), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert page(text, {}).startswith("<!doctype html>")
    return text


def test_planted_shares_come_back_in_the_sentence() -> None:
    """Var of the rate's effect: 4/12; of the head: .01; of the seed: .04."""
    results = sweep(40, 4, 0.2, lambda rate, kind: rate + 0.2 * (kind == "dense"))
    verdict = judge(results, "spearman", space=SPACE)
    assert verdict.parameters is not None and verdict.shares is not None
    truth = (4 / 12) / (4 / 12 + 0.01 + 0.04)
    rate = verdict.parameters.parameters["optimizer.lr"]
    assert rate.low < truth < rate.high
    assert verdict.shares.seed_share.low < 0.04 / (4 / 12 + 0.01 + 0.04) < verdict.shares.seed_share.high
    assert re.match(r"Learning rate explains \d\d % \[\d\d, \d\d\] of the variance, the seed \d+ %", headline(verdict))
    assert sum(row.p_best for row in verdict.candidates) == pytest.approx(1.0)
    assert "By hyperparameter" in shown(verdict)


def test_fewer_anchors_say_how_many_are_missing() -> None:
    verdict = judge(sweep(8, 3, 0.2, lambda rate, kind: rate), "spearman", space=SPACE)
    assert verdict.parameters is None and verdict.anchors_missing == 12
    assert "need 12 more random candidates" in shown(verdict)


def test_pure_noise_is_called_too_small_to_see() -> None:
    found = [judge(sweep(8, 4, 0.2, lambda rate, kind: 0.5), "spearman", space=SPACE)]
    assert found[0].shares is not None
    assert found[0].shares.seed_share.high > 0.9
    shown(found[0])


def test_test_scores_rank_nothing() -> None:
    results = sweep(8, 3, 0.2, lambda rate, kind: rate)
    turned = [TrialResult(**{**r.to_dict(), "test_score": -(r.test_score or 0.0)}) for r in results]
    one, other = (judge(rows, "spearman", space=SPACE) for rows in (results, turned))
    assert [row.candidate_id for row in one.candidates] == [row.candidate_id for row in other.candidates]
    assert one.contest == other.contest and one.shares == other.shares
    assert any("hardly informs the test" in warning for warning in other.warnings)
    assert not any("hardly informs the test" in warning for warning in one.warnings)


def test_smaller_is_better_for_an_error() -> None:
    verdict = judge(
        [trial("a", s, 1.0 + 0.1 * s) for s in range(3)] + [trial("b", s, 2.0 + 0.1 * s) for s in range(3)], "mse"
    )
    assert verdict.best is not None and verdict.best.candidate_id == "a"
    assert verdict.contest is not None and verdict.contest.p_beats > 0.9


CASES: dict[str, tuple[Sequence[TrialResult], str]] = {
    "nothing": ([], "No trial has ended yet"),
    "all failed": ([trial("a", 1, None), trial("a", 2, None, error="")], "no message"),
    "one candidate": ([trial("a", s, 0.5 + 0.01 * s) for s in range(3)], "over 3 seeds"),
    "one candidate, one seed": ([trial("a", 1, 0.5)], "1 seed"),
    "one seed each": ([trial(name, 1, value) for name, value in (("a", 0.5), ("b", 0.6))], "too few to tell luck"),
    "constant scores": ([trial(n, s, 0.5) for n in "ab" for s in range(3)], "take either"),
    "ties": (
        [trial(n, s, 0.5 + 0.1 * s) for n in "abc" for s in range(3)],
        "undecided: even 200 more seeds",
    ),
    "unbalanced": (
        [trial("a", s, 0.5 + 0.01 * s) for s in range(6)] + [trial("b", s, 0.6 + 0.02 * s) for s in range(2)],
        "2 seeds",
    ),
    "failed trials": (
        [*(trial("a", s, 0.5 + 0.01 * s) for s in range(3)), trial("a", 9, None)],
        "lost trials",
    ),
    "pruned candidates": (
        [trial("a", s, 0.5 + s, phase="search") for s in range(2)]
        + [trial("b", s, None, phase="search", state="PRUNED", error="stopped by asha") for s in range(2)],
        "winner's curse",
    ),
    "test taken in the search": (
        [trial("a", s, 0.5 + s, phase="search") for s in range(2)],
        "no longer untouched",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_stated_answer_for_everything_that_can_be_missing(case: str) -> None:
    results, expected = CASES[case]
    verdict = judge(results, "spearman", space=SPACE)
    assert expected in shown(verdict)


def test_failures_are_counted_three_ways() -> None:
    results = [*(trial("a", s, 0.8) for s in range(3)), trial("a", 9, None), *(trial("b", s, 0.2) for s in range(3))]
    best = judge(results, "spearman").best
    assert best is not None
    assert best.mean.value == pytest.approx(0.8)
    assert best.mean_with_failures == pytest.approx((3 * 0.8 + 0.2) / 4)
    assert best.failures.low < 0.25 < best.failures.high


def test_unequal_spreads_widen_the_pooled_interval() -> None:
    rng = np.random.default_rng(0)
    results = [trial(f"c{n}", s, float(rng.normal(0, 0.001 if n else 1.0))) for n in range(4) for s in range(12)]
    verdict = judge(results, "spearman")
    assert verdict.spread.sd.high > 4 * verdict.spread.sd.value and verdict.spread.effective < 3
    assert any("spread differs" in warning for warning in verdict.warnings)


def test_confirmed_means_are_of_fresh_seeds_alone() -> None:
    lucky = [trial("a", s, 0.65 + 0.01 * s, reason="leads a draw", origin="searched") for s in range(4)]
    fresh = [trial("a", s, 0.5 + 0.01 * s, reason="confirmation", origin="searched") for s in range(10, 14)]
    others = [trial("b", s, 0.4 + 0.01 * s, reason="leads a draw", origin="searched") for s in range(4)]
    verdict = judge([*lucky, *fresh, *others], "spearman")
    best = verdict.best
    assert best is not None and best.confirmed and best.interval_seeds == 4
    assert best.mean.value == pytest.approx(0.615)
    assert verdict.candidates[1].adaptive
    assert any("no confirmation" in warning for warning in verdict.warnings)


def test_the_winner_is_chosen_before_it_is_confirmed() -> None:
    """A was lucky while seeds were shared out, and C, twice, more so; on fresh seeds B is a little better than A, and C
    has none. The first mean is that of A, whom its fresh seeds did not choose; B may be better, and that is said."""
    scores = {
        "a": ([0.68, 0.67, 0.69, 0.68], [0.66, 0.65, 0.67, 0.66, 0.65]),
        "b": ([0.64, 0.65, 0.63, 0.66], [0.66, 0.66, 0.655, 0.66, 0.665]),
        "c": ([0.69, 0.71], []),
    }
    results = [
        trial(name, seed + shift, score, reason=reason, origin="searched")
        for name, (early, late) in scores.items()
        for reason, shift, own in (("leads a draw", 0, early), ("confirmation", 50, late))
        for seed, score in enumerate(own)
    ]
    for chosen in (["a", "b"], ["b", "a"]):
        verdict = judge(results, "spearman", decisions=[{"kind": "confirmation", "candidates": chosen, "seeds": []}])
        best = verdict.candidates[0]
        assert best.candidate_id == chosen[0] and best.confirmed
        assert best.mean.value == pytest.approx(np.mean(scores[chosen[0]][1]))
        # The second is whoever is expected to be best of the others, confirmed or not.
        assert verdict.contest is not None and verdict.contest.second == "c"
        shown(verdict)


def test_a_confirmation_that_turns_the_order_is_told() -> None:
    early = [trial(n, s, 0.6 + 0.01 * s + (n == "a") * 0.01, reason="leads a draw") for n in "ab" for s in range(3)]
    late = [trial(n, 50 + s, 0.6 + 0.01 * s + (n == "b") * 0.07, reason="confirmation") for n in "ab" for s in range(8)]
    results = [*early, *late]
    verdict = judge(results, "spearman", decisions=[{"kind": "confirmation", "candidates": ["a", "b"], "seeds": []}])
    assert verdict.best is not None and verdict.best.candidate_id == "a"
    assert "which speaks for the second, b: its mean is better with probability 0.9" in headline(verdict)


def collapsing(rate: float, kind: str) -> float:
    return 0.6 + 0.02 * rate + 0.01 * (kind == "dense")


def test_one_collapsed_run_leaves_the_verdict_where_it_was() -> None:
    """Twelve anchors by three seeds; version 0.1.0 then named another winner, and saw no differences."""
    whole = sweep(12, 3, 0.005, collapsing)
    fallen = [replace(r, score=0.35) if r.trial_id == "c06-s1" else r for r in whole]
    before, after = judge(whole, "spearman", space=SPACE), judge(fallen, "spearman", space=SPACE)
    assert before.best is not None and after.best is not None and before.shares and after.shares
    assert after.best.candidate_id == before.best.candidate_id
    assert abs(after.shares.seed_share.value - before.shares.seed_share.value) < 0.03
    assert [c.trial_id for c in after.losses.collapses] == ["c06-s1"] and not before.losses.collapses
    text = shown(after)
    assert "| c06-s1" in text and "1 of 36 runs came to nothing" in text and "1 of 36 runs collapsed" in text
    row = next(row for row in after.candidates if row.candidate_id == "c06")
    assert row.failures.low < 1 / 3 < row.failures.high and row.mean_with_failures < 0.55


def test_anchors_that_never_train_stay_in_the_account_with_what_they_share() -> None:
    """High rates diverge on every seed: 'across 12 random candidates' would hide them."""
    whole = sweep(30, 3, 0.005, collapsing)
    high = {r.candidate_id for r in whole if r.parameters["optimizer.lr"] > 3e-3}
    results = [
        replace(r, score=None, test_score=None, state="PRUNED", error="diverged: the loss is infinite")
        if r.candidate_id in high else r for r in whole
    ]  # fmt: skip
    verdict = judge(results, "spearman", space=SPACE)
    assert verdict.losses.anchors == 30 and verdict.losses.untrained == len(high)
    text = shown(verdict)
    assert f"{30 - len(high)} of 30 random candidates ({len(high)} never trained)" in headline(
        replace(verdict, parameters=None)
    )
    assert "optimizer.lr" in verdict.losses.depends_on
    rates = list(verdict.losses.depends_on["optimizer.lr"].values())
    assert rates[0].value == 0 < rates[1].low
    assert "| learning rate" in text


def test_runs_that_a_scheduler_stopped_came_to_no_harm() -> None:
    kept = [trial("a", s, 0.5 + 0.01 * s, phase="search") for s in range(3)]
    stopped = [trial("b", s, None, phase="search", state="PRUNED", error="stopped by asha") for s in range(3)]
    assert judge([*kept, *stopped], "spearman").losses.lost == 0


def test_streams_are_compared_and_leave_the_ranking_alone() -> None:
    """Each candidate's score is what its init seed and its order seed add: SDs .3 and .1."""
    rng = np.random.default_rng(1)
    added = {(name, n): rng.normal(0, sd, size=6) for n, sd in (("init", 0.3), ("order", 0.1)) for name in "abcdefgh"}
    main = [trial(n, s, float(added[n, "init"][s] + added[n, "order"][s])) for n in "abcdefgh" for s in range(6)]
    varied = [
        trial(n, s, float(added[n, stream][s] + added[n, other][0]), varied=stream, trial_id=f"{n}-s0-{stream}{s}")
        for stream, other in (("init", "order"), ("order", "init"))
        for n in "abcdefgh"
        for s in range(1, 6)
    ]
    verdict = judge([*main, *varied], "spearman")
    assert verdict.streams is not None
    assert verdict.streams.shares["init"] == pytest.approx(0.9, abs=0.08)
    assert {row.num_seeds for row in verdict.candidates} == {6}
    assert "stream moved alone" in shown(verdict)


def test_figures_are_whole_svg_and_always_the_same(tmp_path: Path) -> None:
    from plmray.report.figures import figures_of

    results = sweep(40, 3, 0.2, lambda rate, kind: rate)
    verdict = judge(results, "spearman", space=SPACE)
    points = [{"epoch": float(e), "score": 0.1 * e} for e in range(1, 4)]
    curves = {r.trial_id: points for r in results}
    first, again = (figures_of(verdict, results, curves) for _ in range(2))
    assert first == again
    assert len(first) >= 6
    for svg in first.values():
        assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert "Learning curves, mean and range over seeds" in page(markdown(verdict, "made-up"), first)


def test_the_order_of_rows_changes_no_digit() -> None:
    """Results arrive as machines finish; the report of version 0.1.0 differed in whole percents."""
    results = sweep(24, 3, 0.02, lambda rate, head: 0.5 + 0.1 * rate + 0.05 * (head == "dense"))
    results += [replace(r, trial_id=f"{r.trial_id}-order7", varied="order", seed=7) for r in results[:9]]
    expected = to_json(judge(results, "spearman", space=SPACE), "s")
    rng = np.random.default_rng(0)
    for _ in range(3):
        shuffled = [results[i] for i in rng.permutation(len(results))]
        assert to_json(judge(shuffled, "spearman", space=SPACE), "s") == expected


def test_one_seed_a_candidate_says_nothing_of_luck() -> None:
    """The default of a search: version 0.1.0 said that one run beats one run with probability 1.00, and take either."""
    verdict = judge([trial("a", 0, 0.6, phase="search"), trial("b", 0, 0.5, phase="search")], "spearman")
    assert verdict.contest is not None and not verdict.contest.has_spread and not verdict.contest.power
    for text in (headline(verdict), markdown(verdict, "s", {})):
        assert "nothing tells merit from luck" in text
        assert "probability" not in text and "take either" not in text and "affordable" not in text
    assert json.loads(to_json(verdict, "s"))["contest"]["p_beats"] is None


@pytest.mark.parametrize(("metric", "scores", "bounds"), [("accuracy", [0.99, 1.0], (0, 1)), ("spearman", [1.0, 0.97], (-1, 1)), ("mse", [0.1, 0.01], (0, math.inf))])  # fmt: skip # noqa: E501
def test_no_interval_leaves_the_bounds_of_its_metric(
    metric: str, scores: list[float], bounds: tuple[float, float]
) -> None:
    own = [trial("a", n, s, s, test_scores={metric: s}, parameters={"head.kind": "x"}) for n, s in enumerate(scores)]
    verdict = judge(own, metric)
    assert verdict.best is not None and verdict.test_scores is not None
    found = [verdict.best.mean, verdict.best.test_mean, verdict.test_scores.metrics[metric], verdict.groups[0].mean]
    for estimate in found:
        assert bounds[0] <= estimate.low <= estimate.value <= estimate.high <= bounds[1]


def test_a_test_set_that_leaves_the_objective_undefined_is_told() -> None:
    own = [trial("a", n, 0.7 + n / 100, None, test_scores={"accuracy": 1.0}) for n in range(3)]
    verdict = judge(own, "auroc")
    assert any("undefined on the test proteins" in warning for warning in verdict.warnings)
    assert verdict.best is not None and math.isnan(verdict.best.test_mean.value)


def test_a_missing_test_set_is_told_in_the_report() -> None:
    own = [trial(name, n, 0.7 + n / 100, None) for name in "ab" for n in range(3)]
    assert any("there are no test proteins" in warning for warning in judge(own, "spearman").warnings)
    tested = [trial(name, n, 0.7 + n / 100, 0.5 + n / 100) for name in "ab" for n in range(3)]
    assert not any("no test proteins" in warning for warning in judge(tested, "spearman").warnings)


def test_the_figure_of_random_candidates_has_no_trial_that_scores_chose() -> None:
    chosen = trial("a", 9, 0.9, reason="leader: P(best) .8")
    held = [trial("a", 1, 0.5), trial("a", 2, 0.5, reason="")]
    assert selection.anchors([*held, chosen]) == held
    assert not selection.anchors([trial("a", 1, 0.5, reason="confirmation"), trial("a", 1, 0.5, varied="init")])


def test_a_report_has_one_seed_share() -> None:
    results = sweep(24, 3, 0.02, lambda rate, head: 0.5 + 0.1 * rate + 0.05 * (head == "dense"))
    verdict = judge(results, "spearman", space=SPACE)
    assert verdict.parameters is not None and verdict.shares is not None
    assert verdict.parameters.seed == verdict.shares.seed_share
    assert len({line.split("|")[-2] for line in markdown(verdict, "s", {}).splitlines() if "| seed  " in line}) == 1


def test_a_bar_in_a_name_breaks_no_table() -> None:
    own = [trial("a", n, 0.5 + n / 100, parameters={"head.kind": "a|b"}) for n in range(3)]
    text = markdown(judge(own, "spearman"), "s", {})
    html = page(text, {})
    assert "a|b" in re.sub("<[^>]*>", " ", html) and "\\|" not in html
    for table in re.findall("<table>.*?</table>", html):
        widths = {len(re.findall("<t[hd]>", row)) for row in re.findall("<tr>.*?</tr>", table)}
        assert len(widths) == 1, table


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ([], "No trial has ended yet: run the sweep again with --resume"),
        ([trial("a", 1, None, state="PRUNED", error=None)], "every trial that ended was pruned"),
        ([trial("a", 1, None)], "see the failures below"),
    ],
)
def test_without_a_winner_the_reason_is_told(results: list[TrialResult], words: str) -> None:
    assert words in headline(judge(results, "spearman"))


def cautions(results: Sequence[TrialResult], metric: str = "spearman", **facts: Any) -> str:
    return "\n".join(judge(results, metric, **facts).warnings)


def test_a_best_value_at_the_end_of_its_range_is_told() -> None:
    def told(score: Callable[[float], float]) -> str:
        results = []
        for number, exponent in enumerate(np.linspace(-4, -2, 13)):
            parameters = {"optimizer.lr": float(10**exponent), "head.kind": "dense"}
            results += [trial(f"c{number}", s, score(exponent) + 0.001 * s, parameters=parameters) for s in range(3)]
        return cautions(results, space=SPACE)

    assert "the best values of optimizer.lr lie at the high end of its range (0.01)" in told(lambda rate: rate)
    assert "at the low end of its range (0.0001)" in told(lambda rate: -rate) and "head.kind" not in told(lambda r: r)
    assert "end of its range" not in told(lambda rate: -((rate + 3) ** 2))


def test_few_proteins_are_told_with_what_they_are_worth() -> None:
    """Against the spread of Spearman's correlation over drawn sets of as many proteins."""
    from scipy import stats

    own = [trial("a", s, 0.60 + 0.01 * s, 0.60 + 0.01 * s) for s in range(3)]
    told = cautions(own, proteins={"validation": 24, "test": 2000})
    assert "the validation set has 24 proteins: by chance of the proteins alone 0.61 is ± 0.28" in told
    assert "the test set" not in told
    assert "proteins" not in cautions(own) and "the test set" not in cautions(own, proteins={"test": 100})
    rng = np.random.default_rng(0)
    for truth, count in ((0.6, 24), (0.2, 60), (0.85, 40)):
        pairs = rng.multivariate_normal([0, 0], [[1, truth], [truth, 1]], size=(3000, count))
        found = [float(stats.spearmanr(pair[:, 0], pair[:, 1]).statistic) for pair in pairs]
        assert METRICS["spearman"].error_over(float(np.mean(found)), count) == pytest.approx(np.std(found), rel=0.12)


def test_a_gap_between_validation_and_test_is_told() -> None:
    def pair(gap: float) -> list[TrialResult]:
        return [trial(c, s, 0.9 + 0.01 * s, 0.9 + 0.01 * s - gap) for c in "ab" for s in range(4)]

    assert "validation is 0.150 better than the test for the best candidate, 12 seed SDs" in cautions(pair(0.15))
    assert "worse than the test" in cautions(pair(-0.1)) and "0.100 worse than" in cautions(pair(0.1), "mse")
    assert "seed SDs" not in cautions(pair(0.02))


def test_validation_is_held_to_the_test_over_candidates_and_never_over_the_seeds_of_one() -> None:
    """Version 0.1.0 took five seeds of one candidate for a statement about choosing candidates."""
    rng = np.random.default_rng(3)
    alone = [trial("a", s, 0.8 + 0.01 * rng.normal(), 0.8 + 0.01 * rng.normal()) for s in range(12)]
    verdict = judge(alone, "spearman")
    assert math.isnan(verdict.test_correlation) and "hardly informs" not in "\n".join(verdict.warnings)
