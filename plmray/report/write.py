"""A verdict as Markdown, JSON and terminal text."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from plmray.files import write_atomic
from plmray.report.verdict import Verdict
from plmray.stats.intervals import Estimate

ROWS_SHOWN = 10


def headline(verdict: Verdict) -> str:
    """The verdict in one or two sentences."""
    best = verdict.best
    if best is None:
        return "No candidate completed: see the failures below."
    text = f"Best candidate: {best.candidate_id}, {verdict.metric} {_interval(best.mean)} over {_seeds(best.num_seeds)}"
    if math.isfinite(best.test_mean.value):
        text += f" (test {_interval(best.test_mean)})"
    shares = verdict.shares
    if shares is None:
        return text + ". Fewer than two random candidates have scores: the seed's share of the variance is unknown."
    seed = f"{_percent(shares.seed_share.value)} {_percent_interval(shares.seed_share)}"
    text += f". Across {shares.num_candidates} random candidates the seed explains {seed} of the variance"
    return text + (", the hyperparameters the rest." if shares.candidate_variance > 0 else _too_small())


def markdown(verdict: Verdict, name: str, costs: Mapping[str, float] | None = None) -> str:
    return "\n".join(_lines(verdict, name, costs)) + "\n"


def to_json(verdict: Verdict, name: str, costs: Mapping[str, float] | None = None) -> str:
    """The report as JSON; what cannot be estimated is null."""
    tree = {"name": name, "headline": headline(verdict), **asdict(verdict), "costs": dict(costs or {})}
    return json.dumps(without_nan(tree), indent=1)


def write_report(
    folder: Path, verdict: Verdict, name: str, costs: Mapping[str, float] | None = None, out: Path | None = None
) -> list[Path]:
    """Write report.md and report.json; returns their paths, the readable one first."""
    target = out or folder
    write_atomic(target / "report.md", markdown(verdict, name, costs))
    write_atomic(target / "report.json", to_json(verdict, name, costs))
    return [target / "report.md", target / "report.json"]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table that also reads well in a terminal: columns are padded."""
    cells = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def _lines(verdict: Verdict, name: str, costs: Mapping[str, float] | None) -> Iterator[str]:
    yield f"# {name}"
    yield ""
    yield headline(verdict)
    yield ""
    for warning in verdict.warnings:
        yield f"> **Mind:** {warning}"
        yield ""
    yield from _candidate_lines(verdict)
    yield from _spread_lines(verdict)
    yield from _group_lines(verdict)
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
            _interval(row.mean),
            _number(row.sd),
            str(row.num_seeds),
            _interval(row.test_mean),
            f"{_number(row.train_loss[0])} → {_number(row.train_loss[1])}",
            f"{row.trainable_parameters:,}" if row.trainable_parameters else "-",
            ", ".join(f"{key}={_short(value)}" for key, value in row.parameters.items()) or "(as in the sweep file)",
        )
        for row in verdict.candidates[:ROWS_SHOWN]
    ]
    level = f"[{100 * verdict.confidence:g} %]"
    own = f"{verdict.metric}, mean {level}"
    header = [
        "candidate",
        "origin",
        own,
        "seed SD",
        "seeds",
        f"test, mean {level}",
        "train loss",
        "trainable",
        "settings",
    ]
    yield from table(header, rows)
    if len(verdict.candidates) > ROWS_SHOWN:
        yield f"… and {len(verdict.candidates) - ROWS_SHOWN} more in results.parquet"
    yield ""


def _spread_lines(verdict: Verdict) -> Iterator[str]:
    yield "## Seed against hyperparameters"
    yield ""
    spread = verdict.spread
    if spread.degrees:
        yield f"Seed SD, pooled over candidates: {_interval(spread.sd)} ({spread.degrees} degrees of freedom)."
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
            ("candidate (all hyperparameters)", f"{shares.candidate_variance:.3g}", _share(shares.candidate_share)),
            ("seed", f"{shares.seed_variance:.3g}", _share(shares.seed_share)),
        ],
    )
    yield ""
    yield (
        f"From {shares.num_candidates} candidates drawn blindly from the space ({shares.num_trials} trials)"
        + (_too_small() if shares.candidate_variance <= 0 else ".")
    )
    yield ""


def _group_lines(verdict: Verdict) -> Iterator[str]:
    if not verdict.groups:
        return
    yield "## By setting"
    yield ""
    rows = [
        (group.parameter, group.level, _interval(group.mean), str(group.num_candidates), str(group.num_trials))
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
    for result in verdict.failures:
        reason = (result.error or "").splitlines()[0]
        yield f"- {result.trial_id} ({result.state}): {reason}"
    if verdict.failures:
        yield ""


def _seeds(count: int) -> str:
    return f"{count} seed" if count == 1 else f"{count} seeds"


def _too_small() -> str:
    return "; differences between candidates are too small to see."


def _interval(estimate: Estimate) -> str:
    if not math.isfinite(estimate.value):
        return "-"
    if not math.isfinite(estimate.low):
        return _number(estimate.value)
    return f"{_number(estimate.value)} [{_number(estimate.low)}, {_number(estimate.high)}]"


def _share(estimate: Estimate) -> str:
    return f"{_percent(estimate.value)} {_percent_interval(estimate)}"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %" if math.isfinite(value) else "-"


def _percent_interval(estimate: Estimate) -> str:
    return f"[{100 * estimate.low:.0f}, {100 * estimate.high:.0f}]" if math.isfinite(estimate.low) else ""


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "-"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return value
