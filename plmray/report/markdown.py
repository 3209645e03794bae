"""A verdict as Markdown that also reads well in a terminal: the sentence first, then the tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from plmray.report.headline import headline
from plmray.report.held_out import test_lines
from plmray.report.losses import loss_lines
from plmray.report.questions import question_lines
from plmray.report.text import interval, number, percent, plain_name, share, short, too_small
from plmray.report.verdict import Verdict
from plmray.stats.intervals import Estimate
from plmray.storage import layout
from plmray.text import table

ROWS_SHOWN = 10


def markdown(verdict: Verdict, name: str, costs: Mapping[str, float] | None = None) -> str:
    return "\n".join(_lines(verdict, name, costs)) + "\n"


def _lines(verdict: Verdict, name: str, costs: Mapping[str, float] | None) -> Iterator[str]:
    yield f"# {name}"
    yield ""
    yield headline(verdict)
    yield ""
    for warning in verdict.warnings:
        yield f"> **Mind:** {warning}"
        yield ""
    yield from _candidate_lines(verdict)
    yield from _contest_lines(verdict)
    yield from _spread_lines(verdict)
    yield from _parameter_lines(verdict)
    yield from question_lines(verdict)
    yield from _stream_lines(verdict)
    yield from _group_lines(verdict)
    yield from _test_lines(verdict)
    if verdict.test_scores is not None:
        yield from test_lines(verdict.test_scores)
    yield from _protein_lines(verdict)
    yield from loss_lines(verdict.losses)
    yield from _trial_lines(verdict)
    if costs:
        yield "## Where the time went"
        yield ""
        yield from table(("", ""), [(key.replace("_", " "), f"{value:.3g}") for key, value in costs.items()])
        yield ""


def _candidate_lines(verdict: Verdict) -> Iterator[str]:
    yield f"## Candidates ({verdict.phase} phase, best first)"
    yield ""
    rows = [
        (
            row.candidate_id,
            row.origin,
            interval(row.mean) + (" ✓" if row.confirmed else " ~" if row.adaptive else ""),
            f"{row.p_best:.2f}" if math.isfinite(row.p_best) else "-",
            _ranks(row.ranks),
            number(row.shrunken_mean),
            number(row.sd),
            str(row.num_seeds),
            interval(row.test_mean),
            f"{number(row.train_loss[0])} → {number(row.train_loss[1])}",
            f"{row.trainable_parameters:,}" if row.trainable_parameters else "-",
            ", ".join(f"{key}={short(value)}" for key, value in row.parameters.items()) or "(as in the sweep file)",
        )
        for row in verdict.candidates[:ROWS_SHOWN]
    ]
    level = f"[{100 * verdict.confidence:g} %]"
    own = f"{verdict.metric}, mean {level}"
    header = [
        "candidate",
        "origin",
        own,
        "P(best)",
        "ranks",
        "shrunken",
        "seed SD",
        "seeds",
        f"test, mean {level}",
        "train loss",
        "trainable",
        "settings",
    ]
    yield from table(header, rows)
    if len(verdict.candidates) > ROWS_SHOWN:
        yield f"… and {len(verdict.candidates) - ROWS_SHOWN} more in {layout.TABLE}"
    yield ""
    if any(row.confirmed or row.adaptive for row in verdict.candidates):
        yield "✓ mean and interval of fresh confirmation seeds alone; ~ seeds shared out by the scores: descriptive."
        yield ""


def _ranks(ranks: tuple[float, float]) -> str:
    return f"{ranks[0]:.0f}-{ranks[1]:.0f}" if math.isfinite(ranks[0]) else "-"


def _contest_lines(verdict: Verdict) -> Iterator[str]:
    contest = verdict.contest
    if contest is None:
        return
    yield "## The best against the second"
    yield ""
    delta = Estimate(contest.delta.value, contest.delta.low, contest.delta.high)
    yield (
        f"{contest.best} - {contest.second}: {interval(delta)} (Welch; chosen for their means, so descriptive). "
        + (
            f"The mean of the first is better with probability {contest.p_better:.2f}, one run of it beats one run of "
            f"the second with {contest.p_beats:.2f}; they differ by no more than {number(contest.indifference)} with "
            f"{contest.p_close:.2f}"
            + (
                "."
                if contest.is_stated
                else " (a tenth of the spread between candidates; replicate.indifference states one)."
            )
            if contest.has_spread
            else "With one seed a candidate nothing tells merit from luck."
        )
    )
    yield ""
    if contest.power:
        yield from table(
            ("further seeds of each", *map(str, contest.power)),
            [("chance to tell them apart", *(f"{p:.2f}" for p in contest.power.values()))],
        )
        yield ""
    if verdict.allocation is not None:
        stop = verdict.allocation
        yield f"Adaptive allocation stopped after {stop['trials']} trials: {stop['reason']}."
        yield ""


def _spread_lines(verdict: Verdict) -> Iterator[str]:
    yield "## Seed against hyperparameters"
    yield ""
    spread = verdict.spread
    if spread.degrees:
        yield f"Seed SD, pooled over candidates: {interval(spread.sd)} ({spread.degrees} degrees of freedom)."
    else:
        yield "No candidate has two seeds: the seed spread is unknown."
    yield ""
    shares = verdict.shares
    if shares is None:
        yield "Shares of variance need at least two random candidates and two seeds (`replicate.random`)."
        yield ""
        return
    yield from table(
        ("source", "variance", f"share [{100 * verdict.confidence:g} %]"),
        [
            ("candidate (all hyperparameters)", f"{shares.candidate_variance:.3g}", share(shares.candidate_share)),
            ("seed", f"{shares.seed_variance:.3g}", share(shares.seed_share)),
        ],
    )
    yield ""
    yield (
        f"From {shares.num_candidates} candidates drawn blindly from the space ({shares.num_trials} trials)"
        + (too_small() if shares.candidate_variance <= 0 else ".")
        + (
            f" Whether they differ at all: p = {shares.any_difference_p:.2g} (F test)."
            if math.isfinite(shares.any_difference_p)
            else ""
        )
    )
    yield ""


def _parameter_lines(verdict: Verdict) -> Iterator[str]:
    level = f"share [{100 * verdict.confidence:g} %]"
    found = verdict.parameters
    if found is not None:
        yield "### By hyperparameter"
        yield ""
        rows = [(plain_name(name), share(own)) for name, own in found.parameters.items()]
        rows += [("interactions", share(found.interactions)), ("seed", share(found.seed))]
        yield from table(("source", level), rows)
        yield ""
        yield (
            "First-order shares over the declared space, by a Gaussian process on the random candidates: intervals are "
            "descriptive, as they hold for smooth responses and too seldom where one has a step or a cliff. The seed's "
            "is that of the table above, so that they need not add up to 100 %."
        )
        yield ""
    elif verdict.anchors_missing and verdict.shares is not None:
        yield f"Shares of single hyperparameters need {verdict.anchors_missing} more random candidates."
        yield ""
    if verdict.importance is not None:
        yield from _importance_lines(verdict.importance)


def _importance_lines(found: Mapping[str, Any]) -> Iterator[str]:
    kind = (
        "proposed by an optimiser: it speaks of where that looked, not of the space" if found["adaptive"] else "drawn"
    )
    yield f"Optuna's importance, of {found['candidates']} searched candidates ({kind}):"
    yield ""
    rows = [
        (plain_name(name), f"{100 * value:.0f} %", f"{found['ped_anova'].get(name, math.nan):.2f}")
        for name, value in found["fanova"].items()
    ]
    rows.append(("residual (seed)", f"{100 * found['residual']:.0f} %", "-"))
    yield from table(("hyperparameter", "fANOVA", "PED-ANOVA (relative)"), rows)
    yield ""


def _stream_lines(verdict: Verdict) -> Iterator[str]:
    streams = verdict.streams
    if streams is None:
        return
    yield "## Where the seed's noise comes from"
    yield ""
    rows = [(name, interval(spread.sd), percent(streams.shares[name])) for name, spread in streams.spreads.items()]
    rows.append(("all but the split at once", interval(streams.whole.sd), "-"))
    yield from table(("stream moved alone", f"SD [{100 * verdict.confidence:g} %]", "share of their sum"), rows)
    yield ""
    yield "Training is chaotic: one stream alone can make as much noise as all, so these variances need not add up."
    yield "The split is held in every other trial; its noise comes on top."
    yield ""


def _test_lines(verdict: Verdict) -> Iterator[str]:
    if math.isfinite(verdict.test_correlation):
        yield f"Rank correlation of validation and test over candidates: {verdict.test_correlation:.2f}."
        yield ""


def _protein_lines(verdict: Verdict) -> Iterator[str]:
    both = verdict.over_proteins
    if both is None or not math.isfinite(both.best.low):
        return
    what = "families of test proteins" if both.are_families else "test proteins, taken as unrelated to each other"
    text = f"Test score over other seeds and other proteins ({both.units} {what}): {interval(both.best)}"
    if both.delta is not None and math.isfinite(both.delta.low):
        text += f"; best - second, both on the same proteins: {interval(both.delta)}"
    yield f"{text}. Other splits are not in it."
    yield ""


def _group_lines(verdict: Verdict) -> Iterator[str]:
    if not verdict.groups:
        return
    yield "## By setting"
    yield ""
    rows = [
        (group.parameter, group.level, interval(group.mean), str(group.num_candidates), str(group.num_trials))
        for group in verdict.groups
    ]
    yield from table(
        (
            "setting",
            "value",
            f"{verdict.metric}, mean [{100 * verdict.confidence:g} % over seeds]",
            "candidates",
            "trials",
        ),
        rows,
    )
    yield ""
    yield "Candidates of one value differ in their other settings too: a description, not a fair contest."
    yield ""


def _trial_lines(verdict: Verdict) -> Iterator[str]:
    yield "## Trials"
    yield ""
    rows = [(phase, *(str(count) for count in states.values())) for phase, states in verdict.counts.items()]
    yield from table(("phase", "complete", "pruned", "failed"), rows)
    yield ""
    if len(verdict.hosts) > 1:
        yield f"Trained on {', '.join(f'{host} ({count})' for host, count in sorted(verdict.hosts.items()))}."
        yield ""
    for result in verdict.failures:
        reason = next(iter((result.error or "").splitlines()), "no message")
        yield f"- {result.trial_id} ({result.state}): {reason}"
    if verdict.failures:
        yield ""
