"""The files of a report: Markdown, JSON and HTML."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from plmray.config.fields.sweep import SweepSpec
from plmray.report.headline import headline
from plmray.report.judge import judge
from plmray.report.markdown import markdown
from plmray.report.proteins import over_proteins
from plmray.report.text import without_nan
from plmray.report.verdict import Verdict
from plmray.storage import layout
from plmray.storage.atomic import write_atomic
from plmray.sweep.folder.costs import costs_summary, read_costs
from plmray.sweep.folder.reader import read_counts, read_curves, read_decisions, read_importance, read_kin
from plmray.trials import selection
from plmray.trials.result import TrialResult, in_order


def judge_folder(
    folder: Path,
    spec: SweepSpec,
    results: Sequence[TrialResult],
    confidence: float = 0.95,
    families: Mapping[str, str] | None = None,
) -> Verdict:
    """The verdict of a sweep folder: from its results, its space, what was decided on the way, and kept test outputs.

    ``families``: of test proteins, by id, which are no evidence independent of each other; default: those that the
    split kept together.
    """
    verdict = judge(
        results,
        spec.objective.metric,
        confidence,
        space=spec.space,
        decisions=read_decisions(folder),
        importance=read_importance(folder),
        proteins=read_counts(folder),
        indifference=spec.replicate.indifference if spec.replicate else None,
    )
    kin = families if families is not None else read_kin(folder) or None
    return replace(verdict, over_proteins=over_proteins(folder, verdict, results, kin))


def write_report(
    folder: Path, verdict: Verdict, name: str, results: Sequence[TrialResult], out: Path | None = None
) -> list[Path]:
    """Write report.md, report.html and report.json; returns their paths, the readable one first.

    Without matplotlib the page has no figures.
    """
    from plmray.report.html import page

    target, costs, results = out or folder, costs_summary(read_costs(folder)), in_order(results)
    text = markdown(verdict, name, costs)
    write_atomic(target / layout.REPORT, text)
    write_atomic(target / layout.REPORT_DATA, to_json(verdict, name, costs))
    write_atomic(target / layout.PAGE, page(text, _figures(folder, verdict, results)))
    return [target / file for file in layout.REPORT_FILES]


def to_json(verdict: Verdict, name: str, costs: Mapping[str, float] | None = None) -> str:
    """The report as JSON; what cannot be estimated is null."""
    tree = {"name": name, "headline": headline(verdict), **asdict(verdict), "costs": dict(costs or {})}
    return json.dumps(without_nan(tree), indent=1)


def _figures(folder: Path, verdict: Verdict, results: Sequence[TrialResult]) -> dict[str, str]:
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        return {}
    from plmray.report.figures import COLLAPSES_SHOWN, CURVES_SHOWN, figures_of

    shown = {row.candidate_id for row in verdict.candidates[:CURVES_SHOWN]}
    shown |= {c.candidate_id for c in verdict.losses.collapses[:COLLAPSES_SHOWN]}
    own = [r.trial_id for r in selection.main(results, verdict.phase) if r.candidate_id in shown]
    return figures_of(verdict, results, read_curves(folder, own))
