"""The posterior behind P(best): against closed forms, numerical integrals and planted truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from plmray.stats.posterior import posterior_of
from plmray.stats.power import more_seeds_for
from tests.benchmarks.reliability import SETTINGS, measure


def test_one_candidate_has_the_t_interval() -> None:
    scores = np.array([0.61, 0.64, 0.58, 0.66, 0.60])
    found = posterior_of([scores], np.random.default_rng(0), 200_000)
    assert found is not None
    expected = stats.t(4, scores.mean(), scores.std(ddof=1) / np.sqrt(5)).ppf([0.05, 0.5, 0.95])
    # Its spread has a weak prior of its own, so that its tails are a little shorter than t's.
    assert np.quantile(found.means[:, 0], [0.05, 0.5, 0.95]) == pytest.approx(expected, abs=0.006)


def test_means_are_those_of_a_numerical_integral() -> None:
    """Many seeds a candidate: σ is known, and the posterior of μ is one integral over τ."""
    rng = np.random.default_rng(1)
    truth, size = np.array([0.0, 0.4, 0.5, 1.4, 0.2]), 2000
    scores = [mean + rng.normal(size=size) * 10 for mean in truth]
    found = posterior_of(scores, rng, 40_000)
    assert found is not None
    means, noise = np.array([own.mean() for own in scores]), np.mean([own.var(ddof=1) for own in scores]) / size
    width = max(float(means.std(ddof=1)), float(np.sqrt(noise)))

    def weight(tau: float) -> float:
        total = noise + tau**2
        residual = ((means - means.mean()) ** 2).sum()
        prior = stats.halfcauchy(scale=width).pdf(tau)
        return float(prior * total ** (-(len(means) - 1) / 2) * np.exp(-residual / total / 2))

    def mean_of(best: int) -> float:
        def term(tau: float) -> float:
            share = tau**2 / (tau**2 + noise)
            return weight(tau) * float(means.mean() + share * (means[best] - means.mean()))

        return integrate.quad(term, 0, 60)[0] / integrate.quad(weight, 0, 60)[0]

    assert found.means.mean(axis=0) == pytest.approx([mean_of(c) for c in range(5)], abs=0.01)
    assert np.median(found.sds, axis=0) == pytest.approx([10.0] * 5, rel=0.05)


def test_spreads_of_their_own_are_found_where_candidates_have_them() -> None:
    rng = np.random.default_rng(2)
    true = np.repeat([0.5, 4.0], 10)
    found = posterior_of([sd * rng.normal(size=8) for sd in true], rng, 4000)
    alike = posterior_of([rng.normal(size=8) for _ in range(20)], rng, 4000)
    assert found is not None and alike is not None
    medians = np.median(found.sds, axis=0)
    assert medians[:10].mean() == pytest.approx(0.5, rel=0.3) and medians[10:].mean() == pytest.approx(4.0, rel=0.3)
    assert np.median(alike.sds, axis=0).std() < 0.15


def test_a_chosen_candidate_is_pulled_back_by_as_much_as_chance_gave_it() -> None:
    """Mean of the winner among 24 close candidates, in seed SDs above its truth: as seen .6, in the posterior none."""
    rng = np.random.default_rng(3)
    seen, said = [], []
    for _ in range(120):
        truth = 0.6 * rng.normal(size=24)
        scores = list(truth[:, None] + rng.normal(size=(24, 3)))
        means = np.array([own.mean() for own in scores])
        best = int(means.argmax())
        found = posterior_of(scores, rng, 400)
        assert found is not None
        seen.append(means[best] - truth[best])
        said.append(found.means[:, best].mean() - truth[best])
    assert np.mean(seen) > 0.5 and abs(np.mean(said)) < 0.2


def test_runs_in_flight_narrow_as_if_they_had_come_in_at_the_mean() -> None:
    rng = np.random.default_rng(4)
    scores = [mean + 0.1 * rng.normal(size=3) for mean in (0.5, 0.6, 0.9)]
    now = posterior_of(scores, np.random.default_rng(0), 20_000)
    then = posterior_of(scores, np.random.default_rng(0), 20_000, np.array([0, 0, 30]))
    assert now is not None and then is not None
    assert then.means[:, 2].std() < 0.5 * now.means[:, 2].std()
    told = then.means[:, 2].mean()
    assert now.means[:, 2].mean() - 0.01 < told < scores[2].mean() + 0.01  # less noise, less pull


def test_without_a_spread_nothing_is_said_and_constants_stay() -> None:
    assert posterior_of([np.array([1.0]), np.array([2.0])], np.random.default_rng(0), 10) is None
    found = posterior_of([np.ones(3), np.ones(3), np.zeros(2)], np.random.default_rng(0), 10)
    assert found is not None and found.p_best(1.0).tolist() == [0.5, 0.5, 0.0]
    assert found.beats(0, 1, 1.0) == 0.5 and found.beats(0, 2, 1.0) == 1.0 and found.beats(0, 2, -1.0) == 0.0


@pytest.mark.parametrize("setting", SETTINGS[:2], ids=lambda setting: setting.name)
def test_what_is_said_of_the_best_is_true_as_often(setting: object) -> None:
    """Small form of the benchmark: version 0.1.0 said .36 where .18 was true."""
    found = measure(setting, 100)  # type: ignore[arg-type]
    assert abs(found["P(best) said"] - found["P(best) true"]) < 0.12
    assert abs(found["beats said"] - found["beats true"]) < 0.06 and found["rank interval"] > 0.92


def test_further_seeds_tell_apart_as_often_as_is_said() -> None:
    """Over planted sweeps the two best get the seeds that are asked for: Welch's test then decides in four of five."""
    rng = np.random.default_rng(5)
    decided, asked = [], []
    for _ in range(150):
        truth = rng.normal(size=12)
        scores = [mean + rng.normal(size=4) for mean in truth]
        found = posterior_of(scores, rng, 1000)
        assert found is not None
        first, second = np.argsort([-own.mean() for own in scores])[:2]
        gap = found.means[:, first] - found.means[:, second]
        seen = float(scores[first].mean() - scores[second].mean())
        more = more_seeds_for(gap, found.sds[:, first], found.sds[:, second], seen, (4, 4))
        if more is None:
            continue
        asked.append(more)
        one, other = (np.concatenate([scores[c], truth[c] + rng.normal(size=more)]) for c in (first, second))
        decided.append(stats.ttest_ind(one, other, equal_var=False).pvalue < 0.05)
    assert len(decided) > 20 and 0.68 < np.mean(decided) < 0.92
