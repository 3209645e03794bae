"""Runs that came to nothing: collapsed, diverged or failed; how many, which, and under which settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plmray.config.fields.space import ChoiceDomain
from plmray.report.parameters import Domains, position
from plmray.report.text import interval, number, plain_name, share, short
from plmray.stats.collapse import collapsed
from plmray.stats.effects import holm
from plmray.stats.intervals import Estimate, failure_rate
from plmray.text import table
from plmray.trials import selection
from plmray.trials.result import TrialResult

SEEN = 0.05  # adjusted p from which losses are said to depend on a parameter


@dataclass(frozen=True)
class Collapse:
    """A run that ended far below the other seeds of its candidate."""

    trial_id: str
    candidate_id: str
    score: float
    others: float  # mean of the candidate's runs that trained
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Losses:
    """Of ``runs``, ``lost`` ones collapsed, diverged or failed: all other numbers of a verdict are of those that
    trained, and speak of what is reached given success.

    ``rate``: with Clopper-Pearson's interval, which takes runs as independent. ``anchors``: random candidates that ran,
    ``untrained``: those of them that have no run left. ``depends_on``: parameters that losses go with, with the rate by
    part of their domain."""

    lost: int
    runs: int
    rate: Estimate
    collapses: tuple[Collapse, ...]
    anchors: int
    untrained: int
    depends_on: Mapping[str, Mapping[str, Estimate]]


def split_off(judged: Sequence[TrialResult], sign: float) -> tuple[list[TrialResult], list[TrialResult]]:
    """Scored trials that trained, and those that collapsed."""
    groups = selection.by_candidate(selection.scored(judged))
    flags = collapsed([np.array([r.score for r in own], dtype=float) for own in groups.values()], sign)
    marked = [pair for own, out in zip(groups.values(), flags, strict=True) for pair in zip(own, out, strict=True)]
    return [r for r, out in marked if not out], [r for r, out in marked if out]


def losses_of(
    judged: Sequence[TrialResult],
    sound: Sequence[TrialResult],
    fallen: Sequence[TrialResult],
    space: Domains,
    confidence: float,
) -> Losses:
    """``judged``: all trials of the phase; ``sound`` and ``fallen``: as ``split_off`` gives them. Runs that a scheduler
    stopped for their candidate's sake are not in the account."""
    judged = [r for r in judged if not r.was_stopped]
    kept, lost = selection.by_candidate(sound), len(judged) - len(sound)
    anchors = {r.candidate_id for r in selection.anchors(judged)}
    return Losses(
        lost,
        len(judged),
        failure_rate(lost, len(judged), confidence),
        tuple(_collapse(r, kept[r.candidate_id]) for r in fallen),
        len(anchors),
        len(anchors - kept.keys()),
        _dependencies(judged, {r.trial_id for r in sound}, space, confidence) if lost else {},
    )


def _collapse(run: TrialResult, kept: Sequence[TrialResult]) -> Collapse:
    others = float(np.mean([r.score for r in kept if r.score is not None]))
    assert run.score is not None
    return Collapse(run.trial_id, run.candidate_id, run.score, others, run.parameters)


def _dependencies(
    judged: Sequence[TrialResult], sound: set[str], space: Domains, confidence: float
) -> dict[str, dict[str, Estimate]]:
    """Parameters that candidates with a lost run and those without differ in, Holm's p below .05.

    A candidate counts once, whatever its seeds: rank sum of a numeric parameter's values, Fisher's exact test of each
    choice against the others (the smallest p times the number of choices).
    """
    candidates = selection.by_candidate(judged)
    with_loss = {c: any(r.trial_id not in sound for r in own) for c, own in candidates.items()}
    known = {key: [c for c in candidates if key in candidates[c][0].parameters] for key in space}
    p = {
        key: _p_value(space[key], {c: candidates[c][0].parameters[key] for c in known[key]}, with_loss) for key in space
    }
    seen = [key for key, adjusted in zip(p, holm(list(p.values())), strict=True) if adjusted < SEEN]
    return {key: dict(_rates(key, space[key], judged, sound, confidence)) for key in seen}


def _p_value(domain: Any, values: Mapping[str, Any], with_loss: Mapping[str, bool]) -> float:
    from scipy import stats

    lost = [value for c, value in values.items() if with_loss[c]]
    kept = [value for c, value in values.items() if not with_loss[c]]
    if not lost or not kept:
        return float("nan")
    if not isinstance(domain, ChoiceDomain):
        first, second = (np.array([position(domain, value) for value in group]) for group in (lost, kept))
        return float(stats.mannwhitneyu(first, second).pvalue)
    tables = [[[sum(v == level for v in group), sum(v != level for v in group)] for group in (lost, kept)]
              for level in domain.values]  # fmt: skip
    return min(1.0, len(tables) * min(float(stats.fisher_exact(np.array(cells)).pvalue) for cells in tables))


def _rates(
    key: str, domain: Any, judged: Sequence[TrialResult], sound: set[str], confidence: float
) -> Iterator[tuple[str, Estimate]]:
    own = [r for r in judged if key in r.parameters]
    for name, part in _parts(domain, own, key):
        yield name, failure_rate(sum(r.trial_id not in sound for r in part), len(part), confidence)


def _parts(domain: Any, own: Sequence[TrialResult], key: str) -> Iterable[tuple[str, list[TrialResult]]]:
    if isinstance(domain, ChoiceDomain):
        return [(short(v), [r for r in own if r.parameters[key] == v]) for v in domain.values]
    halves = [[r for r in own if (position(domain, r.parameters[key]) < 0.5) is low] for low in (True, False)]
    ends = [[r.parameters[key] for r in half] for half in halves]
    return [(f"{short(min(e))} to {short(max(e))}", h) for e, h in zip(ends, halves, strict=True) if h]


def loss_lines(losses: Losses) -> Iterator[str]:
    """A section of the report; nothing where nothing was lost."""
    if not losses.lost:
        return
    yield "## Runs that came to nothing"
    yield ""
    yield f"{losses.lost} of {losses.runs} runs, {share(losses.rate)}: all other numbers are of those that trained."
    yield ""
    if losses.collapses:
        rows = [
            (
                c.trial_id,
                number(c.score),
                number(c.others),
                ", ".join(f"{k}={short(v)}" for k, v in c.parameters.items()),
            )
            for c in losses.collapses
        ]
        yield from table(("collapsed", "score", "its candidate's other runs", "settings"), rows)
        yield ""
    for key, rates in losses.depends_on.items():
        cells = [(name, interval(rate)) for name, rate in rates.items()]
        yield from table((plain_name(key), "rate of lost runs"), cells)
        yield ""
