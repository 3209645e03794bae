"""What a verdict said, beside what fresh seeds of the same candidates say.

    python -m tests.benchmarks.fresh_seeds DIR FRESH

``FRESH``: the folder of the same candidates replayed on seeds that DIR never used (``--replay-from``).
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import numpy as np
from scipy import special

from plmray.report.rows import scores_of
from plmray.report.text import interval
from plmray.report.write import judge_folder
from plmray.stats.effects import welch_delta
from plmray.sweep.folder.reader import load_resolved, read_results
from plmray.trials import selection


def main(folder: Path, fresh: Path) -> None:
    said = judge_folder(folder, load_resolved(folder), read_results(folder))
    came = judge_folder(fresh, load_resolved(fresh), read_results(fresh))
    runs = selection.by_candidate(selection.scored(selection.main(read_results(fresh), "replicate")))
    scores = {candidate: scores_of(own) for candidate, own in runs.items()}
    for row in said.candidates[:6]:
        told = f"{interval(row.mean)}, P(best) {row.p_best:.2f}, adaptive {row.adaptive}"
        click.echo(f"{row.candidate_id}: {told}; fresh {scores[row.candidate_id].mean():.4f}")
    contest = said.contest
    if contest is not None:
        one, other = scores[contest.best], scores[contest.second]
        found = welch_delta(other, one)
        chance = special.ndtr(found.value / np.hypot(one.std(ddof=1), other.std(ddof=1)))
        click.echo(
            f"better with {contest.p_better:.2f}; difference {found.value:.4f} [{found.low:.4f}, {found.high:.4f}]"
        )
        click.echo(f"one run beats one with {contest.p_beats:.2f}; fresh {chance:.2f}")
    order = sorted(scores, key=lambda candidate: -scores[candidate].mean())  # larger is better
    ranks = [row.ranks[0] <= 1 + order.index(row.candidate_id) <= row.ranks[1] for row in said.candidates]
    click.echo(f"rank intervals hold {np.mean(ranks):.2f} of {len(ranks)}")
    fixed = [row for row in said.candidates if not row.adaptive]
    held = sum(row.mean.low <= scores[row.candidate_id].mean() <= row.mean.high for row in fixed)
    click.echo(f"intervals of means that no score chose hold {held} of {len(fixed)}")
    for verdict, name in ((said, "said"), (came, "fresh")):
        parts = {} if verdict.parameters is None else verdict.parameters.parameters
        shares = {key: f"{100 * own.value:.0f}" for key, own in parts.items()}
        seed = "-" if verdict.shares is None else f"{100 * verdict.shares.seed_share.value:.0f}"
        click.echo(f"{name}: shares {shares}, seed {seed} %, seed SD {interval(verdict.spread.sd)}")
        click.echo(f"{name}: best of draws {verdict.best_of.get(20)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
