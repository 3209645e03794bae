"""The verdict in one sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator

from plmray.report.text import interval, percent, plain_name, seeds, share, short
from plmray.report.verdict import Verdict
from plmray.stats.intervals import Estimate


def headline(verdict: Verdict) -> str:
    """What explains the spread; who is best and how surely; what would settle it."""
    if verdict.best is None:
        return _nothing(verdict)
    text = "; ".join((*_sources(verdict), _best(verdict), *_contest(verdict), *_lost(verdict)))
    return text[0].upper() + text[1:] + "."


def _nothing(verdict: Verdict) -> str:
    """Why there is no winner."""
    if verdict.failures:
        return "No candidate completed: see the failures below."
    if verdict.counts:
        return "No candidate completed: every trial that ended was pruned."
    return "No trial has ended yet: run the sweep again with --resume to go on."


def _sources(verdict: Verdict) -> Iterator[str]:
    shares, parameters = verdict.shares, verdict.parameters
    if shares is None:
        yield "the seed's share of the variance is unknown (it takes two random candidates with two seeds)"
    elif shares.candidate_variance <= 0:
        yield f"differences between {_anchors(verdict)} are too small to see beside the seed"
    elif parameters is not None:
        name = max(parameters.parameters, key=lambda key: parameters.parameters[key].value)
        top, seed = parameters.parameters[name], shares.seed_share
        yield f"{plain_name(name)} explains {share(top)} of the variance, the seed {share(seed)}"
    else:
        seed = shares.seed_share
        yield (
            f"across {_anchors(verdict).removeprefix('the ')} the seed explains {share(seed)} of the variance, the "
            f"hyperparameters together {percent(shares.candidate_share.value)}"
        )


def _anchors(verdict: Verdict) -> str:
    """How many candidates were drawn blindly, and how many of them never trained."""
    losses = verdict.losses
    if not losses.untrained:
        return f"the {losses.anchors} random candidates"
    trained = losses.anchors - losses.untrained
    return f"{trained} of {losses.anchors} random candidates ({losses.untrained} never trained)"


def _best(verdict: Verdict) -> str:
    best = verdict.best
    assert best is not None
    text = f"the best candidate, {best.candidate_id}, has {verdict.metric} {interval(best.mean)} over "
    text += f"{best.interval_seeds} fresh seeds" if best.confirmed else seeds(best.num_seeds)
    return text + (f" ({_test(verdict, best.test_mean)})" if math.isfinite(best.test_mean.value) else "")


def _test(verdict: Verdict, over_seeds: Estimate) -> str:
    """The test score, over other proteins too where the outputs tell."""
    both = verdict.over_proteins
    split = verdict.streams.spreads.get("split") if verdict.streams is not None else None
    known = f" (another moves the validation score by an SD of {short(split.sd.value)})" if split is not None else ""
    if both is None or not math.isfinite(both.best.low):
        return f"test {interval(over_seeds)} over seeds, on these very proteins and this one split{known}"
    what = "families" if both.are_families else "proteins"
    return f"test {interval(both.best)} over seeds and {what}, on this one split{known}"


def _contest(verdict: Verdict) -> Iterator[str]:
    contest = verdict.contest
    if contest is None:
        return
    if not contest.has_spread:
        yield "with one seed a candidate nothing tells merit from luck: give them two seeds or more to compare them"
        return
    yield f"one run of it beats one of the second with probability {contest.p_beats:.2f}"
    known = "" if contest.is_stated else ", a tenth of the spread between candidates,"
    close = f"differ by no more than {short(contest.indifference)}{known}"
    if contest.is_settled:
        yield f"its mean is better with probability {contest.p_better:.2f}"
    elif contest.is_turned:
        yield (
            f"chosen before its confirmation, which speaks for the second, {contest.second}: its mean is better with "
            f"probability {1 - contest.p_better:.2f}"
        )
    elif contest.is_indifferent:
        yield f"the two {close} with probability {contest.p_close:.2f}: take either"
    elif contest.more_seeds is not None:
        yield f"undecided: about {contest.more_seeds} more seeds of both would tell them apart with probability .8"
    else:
        most, chance = max(contest.power.items())
        yield (
            f"undecided: even {most} more seeds of both would tell them apart with probability {chance:.2f} only (they "
            f"{close} with probability {contest.p_close:.2f})"
        )


def _lost(verdict: Verdict) -> Iterator[str]:
    losses = verdict.losses
    if losses.lost:
        yield f"{losses.lost} of {losses.runs} runs came to nothing, and these numbers are of those that trained"
