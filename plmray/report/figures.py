"""Figures of a verdict as SVG: readable in print, in the colour-blind-safe palette of Okabe and Ito."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from plmray.report.text import plain_name
from plmray.report.verdict import Verdict
from plmray.stats.effects import Delta
from plmray.stats.intervals import Estimate
from plmray.trials import selection
from plmray.trials.result import TrialResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLACK, ORANGE, SKY, GREEN, BLUE, RED = "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00"
GREY = "#999999"
VERDICT_COLOURS = {"positive": BLUE, "undecided": GREY, "negative": RED}
SHOWN = 12
CURVES_SHOWN = COLLAPSES_SHOWN = 5

Curves = Mapping[str, Sequence[Mapping[str, Any]]]  # evaluations by trial id


def figures_of(verdict: Verdict, results: Sequence[TrialResult], curves: Curves) -> dict[str, str]:
    """SVG text by title; those without data are left out. ``curves``: of replicate trials."""
    drawn: dict[str, str] = {}
    for title, height, draw in _figures(verdict, results, curves):
        drawn[title] = _svg(height, draw)
    return drawn


def _figures(
    verdict: Verdict, results: Sequence[TrialResult], curves: Curves
) -> Iterable[tuple[str, float, Callable[[Axes], None]]]:
    if verdict.shares is not None:
        yield "Shares of the variance of one run", 2.6, lambda axes: _shares(axes, verdict)
    if verdict.candidates:
        yield "Candidates, mean and interval over seeds", 3.6, lambda axes: _ranked(axes, verdict)
    if verdict.contest is not None and verdict.contest.against_best:
        yield "Δ against the best candidate", 3.6, lambda axes: _tiles(axes, verdict)
    anchors = selection.anchors(selection.scored(results))
    for key in _numeric(anchors):
        title = f"Score by {plain_name(key)}, random candidates"
        yield title, 3.0, lambda axes, key=key: _effect(axes, verdict, anchors, key)  # type: ignore[misc]
    if curves:
        yield "Learning curves, mean and range over seeds", 3.4, lambda axes: _curves(axes, verdict, results, curves)
    if any(c.trial_id in curves for c in verdict.losses.collapses):
        yield "Runs that collapsed, and the other seeds", 3.0, lambda axes: _collapses(axes, verdict, results, curves)
    if verdict.contest is not None and verdict.contest.power:
        yield "Further seeds to tell the two best apart", 2.8, lambda axes: _power(axes, verdict)
    tested = [r for r in selection.main(results) if r.test_score is not None]
    if len(tested) >= 5:
        yield "Validation and test, a dot a trial", 3.4, lambda axes: _scatter(axes, verdict, tested)


def _svg(height: float, draw: Callable[[Axes], None]) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # A fixed salt and no date: the same verdict gives the same file.
    with rc_context({"svg.hashsalt": "plmray", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(7.2, height), layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes)
        sink = io.StringIO()
        figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None})
    text = sink.getvalue()
    return text[text.index("<svg") :]


def _shares(axes: Axes, verdict: Verdict) -> None:
    assert verdict.shares is not None
    rows: list[tuple[str, Estimate, str]] = []
    if verdict.parameters is not None:
        rows += [(plain_name(name), own, BLUE) for name, own in verdict.parameters.parameters.items()]
        rows.append(("interactions", verdict.parameters.interactions, SKY))
    else:
        rows.append(("all hyperparameters", verdict.shares.candidate_share, BLUE))
    rows.append(("seed", verdict.shares.seed_share, ORANGE))
    for place, (_, own, colour) in enumerate(reversed(rows)):
        axes.barh(place, 100 * own.value, color=colour, height=0.6)
        if math.isfinite(own.low):
            axes.plot([100 * own.low, 100 * own.high], [place, place], color=BLACK, linewidth=1.2)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in reversed(rows)])
    axes.set_xlabel(f"share of the variance, % [{100 * verdict.confidence:g} % interval]")
    axes.set_xlim(0, 100)


def _ranked(axes: Axes, verdict: Verdict) -> None:
    rows = verdict.candidates[:SHOWN]
    for place, row in enumerate(reversed(rows)):
        colour = ORANGE if "random" in row.origin.split("+") else BLUE
        if math.isfinite(row.mean.low):
            axes.plot([row.mean.low, row.mean.high], [place, place], color=colour, linewidth=1.5)
        axes.plot(row.mean.value, place, "o" if row.confirmed else "s" if row.adaptive else "D", color=colour, ms=5)
    labels = [f"{row.candidate_id} ({row.num_seeds})" for row in reversed(rows)]
    axes.set_yticks(range(len(rows)), labels, family="monospace", fontsize=7)
    axes.set_xlabel(f"{verdict.metric}; orange: random, blue: searched; ● confirmed, ■ adaptive, ◆ fixed (seeds)")


def _tiles(axes: Axes, verdict: Verdict) -> None:
    assert verdict.contest is not None
    deltas: list[tuple[str, Delta]] = list(verdict.contest.against_best.items())[:SHOWN]
    for place, (_, own) in enumerate(reversed(deltas)):
        axes.barh(place, 1.0, color=VERDICT_COLOURS[own.verdict], height=0.9)
        half = f" ± {own.half_width:.3g}" if math.isfinite(own.half_width) else ""
        axes.text(0.5, place, f"{own.value:+.3g}{half}", ha="center", va="center", color="white", fontsize=8)
    names = [name for name, _ in reversed(deltas)]
    axes.set_yticks(range(len(deltas)), names, family="monospace", fontsize=7)
    axes.set_xticks([])
    axes.spines[["bottom", "left"]].set_visible(False)
    level = f"{100 * verdict.confidence:g} %"
    axes.set_xlabel(f"grey: undecided at {level} (Welch, unadjusted); red: lower score, blue: higher")


def _effect(axes: Axes, verdict: Verdict, anchors: Sequence[TrialResult], key: str) -> None:
    own = [r for r in anchors if key in r.parameters]
    x = np.array([float(r.parameters[key]) for r in own])
    y = np.array([r.score for r in own], dtype=float)
    axes.plot(x, y, ".", color=BLUE, alpha=0.35, markersize=4)
    means = {value: float(y[x == value].mean()) for value in sorted(set(x))}
    where, height = np.array(list(means)), np.array(list(means.values()))
    axes.plot(where, height, "o", color=BLUE, markersize=3.5)
    sd = verdict.spread.sd.value
    if math.isfinite(sd):
        axes.errorbar(where, height, yerr=sd, fmt="none", ecolor=ORANGE, elinewidth=2, alpha=0.8)
    if verdict.parameters is not None and key in verdict.levels:
        curve, levels = verdict.parameters.curves[key], [float(value) for value in verdict.levels[key]]
        axes.plot(levels, [e.value for e in curve], color=BLACK, linewidth=1.2)
        axes.fill_between(levels, [e.low for e in curve], [e.high for e in curve], color=BLACK, alpha=0.15, linewidth=0)
    if key in verdict.logarithmic:
        axes.set_xscale("log")
    axes.set_xlabel(f"{plain_name(key)}; orange: ± the pooled seed SD; black: mean over all other settings")
    axes.set_ylabel(verdict.metric)


def _curves(axes: Axes, verdict: Verdict, results: Sequence[TrialResult], curves: Curves) -> None:
    colours = (BLUE, ORANGE, GREEN, RED, SKY)
    for row, colour in zip(verdict.candidates[:CURVES_SHOWN], colours, strict=False):
        trials = [r.trial_id for r in selection.main(selection.of(row.candidate_id, results))]
        by_epoch: dict[float, list[float]] = {}
        for trial in trials:
            for point in curves.get(trial, ()):
                by_epoch.setdefault(float(point["epoch"]), []).append(float(point["score"]))
        epochs = sorted(by_epoch)
        axes.plot(epochs, [np.mean(by_epoch[e]) for e in epochs], color=colour, linewidth=1.2, label=row.candidate_id)
        low, high = ([f(by_epoch[e]) for e in epochs] for f in (min, max))
        axes.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"validation {verdict.metric}")
    axes.legend(fontsize=7, frameon=False)


def _collapses(axes: Axes, verdict: Verdict, results: Sequence[TrialResult], curves: Curves) -> None:
    fallen = {c.trial_id: c.candidate_id for c in verdict.losses.collapses[:COLLAPSES_SHOWN]}
    for trial in (r.trial_id for r in selection.main(results, verdict.phase) if r.candidate_id in fallen.values()):
        points = curves.get(trial, ())
        epochs, scores = ([float(point[name]) for point in points] for name in ("epoch", "score"))
        colour = RED if trial in fallen else GREY
        axes.plot(epochs, scores, color=colour, linewidth=1.4 if trial in fallen else 0.8)
    axes.set_xlabel("epoch; red: collapsed")
    axes.set_ylabel(f"validation {verdict.metric}")


def _power(axes: Axes, verdict: Verdict) -> None:
    assert verdict.contest is not None
    seeds, power = list(verdict.contest.power), list(verdict.contest.power.values())
    axes.plot(seeds, power, "o-", color=BLUE, markersize=4)
    axes.axhline(0.8, color=ORANGE, linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks(seeds, [str(n) for n in seeds])
    axes.minorticks_off()
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("further seeds of each, averaged over what is not known")
    axes.set_ylabel("chance to tell them apart")


def _scatter(axes: Axes, verdict: Verdict, tested: Sequence[TrialResult]) -> None:
    for origin, colour in (("searched", BLUE), ("random", ORANGE)):
        own = [r for r in tested if (origin == "random") == ("random" in r.origin.split("+"))]
        pairs = np.array([(r.score, r.test_score) for r in own], dtype=float).reshape(-1, 2)
        axes.plot(pairs[:, 0], pairs[:, 1], ".", color=colour, alpha=0.5, label=origin)
    axes.set_xlabel(f"validation {verdict.metric}")
    axes.set_ylabel(f"test {verdict.metric}")
    axes.legend(fontsize=7, frameon=False)


def _numeric(anchors: Sequence[TrialResult]) -> list[str]:
    keys = dict.fromkeys(key for r in anchors for key in r.parameters)
    return [key for key in keys if _varies(anchors, key) and _all_numbers(anchors, key)]


def _varies(anchors: Sequence[TrialResult], key: str) -> bool:
    return len({r.parameters[key] for r in anchors if key in r.parameters}) > 1


def _all_numbers(anchors: Sequence[TrialResult], key: str) -> bool:
    values = [r.parameters[key] for r in anchors if key in r.parameters]
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
