"""stats: is it the hyperparameter or the seed, for any table of runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from plmray.cli.options import FilePath, format_option, print_rows, print_tree, table_option

Command = Callable[..., None]

table_argument = click.argument("table", metavar="TABLE", type=FilePath)
score_option = click.option("--score", default="score", show_default=True, help="Column of scores.")
by_option = click.option(
    "--by", multiple=True, metavar="COLUMN", help="Judge every value of it apart; may be repeated."
)
confidence_option = click.option(
    "--confidence", type=click.FloatRange(0.5, 0.999), default=0.95, show_default=True, help="Of intervals."
)


@click.group()
def stats() -> None:
    """Judge any table of runs: a CSV, TSV or Parquet file with a row a run, or a sweep folder."""


@stats.command()
@table_argument
@score_option
@click.option("--factor", "factors", multiple=True, metavar="COLUMN", help="A fixed factor; may be repeated.")
@click.option("--candidate", metavar="COLUMN", help="Instead of factors: candidates drawn blindly from their space.")
@click.option("--seed-column", metavar="COLUMN", help="Refuse repeats; with --candidate, a seed may move all alike.")
@by_option
@confidence_option
@table_option
def shares(
    table: Path,
    score: str,
    factors: tuple[str, ...],
    candidate: str | None,
    seed_column: str | None,
    by: tuple[str, ...],
    confidence: float,
    form: str,
) -> None:
    """Shares of variance: what each factor, their interactions and the seed explain.

    On a sweep folder, without options, of its random candidates (anchors) in the replicate phase.
    """
    from plmray.report.tables import verbs

    if candidate is not None and factors:
        raise click.UsageError("give --factor or --candidate, not both")
    _require(table, candidate or factors, "--factor or --candidate")
    _tell(table, score, (*factors, *((candidate,) if candidate else ()), *by), by)
    rows = verbs.shares_rows(table, score, factors, candidate, seed_column, by, confidence)
    print_rows(rows if form == "json" else [verbs.flat(row) for row in rows], form)


def _delta_options(command: Command) -> Command:
    for option in reversed(
        (
            table_argument,
            score_option,
            click.option("--factor", required=True, metavar="COLUMN", help="Column of the arms."),
            click.option("--baseline", required=True, metavar="VALUE", help="The arm that others are compared with."),
            by_option,
            confidence_option,
            table_option,
        )
    ):
        command = option(command)
    return command


@stats.command()
@_delta_options
@click.option(
    "--mode",
    type=click.Choice(["welch", "paper"]),
    default="welch",
    show_default=True,
    help="paper: as in the published Figure 1.",
)
@click.option("--pair-by", metavar="COLUMN", help="Pair arms by this column (the seed).")
def delta(
    table: Path,
    score: str,
    factor: str,
    baseline: str,
    by: tuple[str, ...],
    confidence: float,
    form: str,
    mode: Any,
    pair_by: str | None,
) -> None:
    """Δ of every arm against a baseline, with interval and verdict; in percentage points for scores within ±1."""
    from plmray.report.tables import told, verbs

    if mode == "paper" and pair_by is not None:
        raise click.UsageError("--mode paper is unpaired; drop --pair-by")
    if mode == "paper" and confidence != 0.95:
        raise click.UsageError("--mode paper knows 95 % alone; drop --confidence")
    _tell(table, score, (factor, *by), by)
    for message in told.idle_pairing(table, score, factor, baseline, by, pair_by):
        click.echo(f"mind: {message}", err=True)
    print_rows(verbs.delta_rows(table, score, factor, baseline, by, mode, confidence, pair_by), form)


@stats.command("seeds-needed")
@_delta_options
@click.option("--power", type=click.FloatRange(0.01, 0.9999), default=0.8, show_default=True)
@click.option("--alpha", type=click.FloatRange(1e-6, 0.5), default=0.05, show_default=True)
@click.option("--effect", type=float, help="Smallest difference of interest, in the unit of delta.")
def seeds_needed(
    table: Path,
    score: str,
    factor: str,
    baseline: str,
    by: tuple[str, ...],
    confidence: float,
    form: str,
    power: float,
    alpha: float,
    effect: float | None,
) -> None:
    """Seeds an arm that find the observed Δ (noisy), and the smallest difference of interest."""
    from plmray.report.tables import findings, sources

    _tell(table, score, (factor, *by), by)
    runs = sources.runs_of(table, score)
    print_rows(findings.seeds_needed_rows(runs, score, factor, baseline, by, confidence, power, alpha, effect), form)


@stats.command()
@table_argument
@score_option
@click.option("--candidate", multiple=True, metavar="COLUMN", help="Column that names a candidate; may be repeated.")
@by_option
@click.option("--minimize", is_flag=True, help="Smaller scores are better.")
@click.option("--pair-by", metavar="COLUMN", help="Take out what this column (the seed) does to all candidates alike.")
@confidence_option
@table_option
def rank(
    table: Path,
    score: str,
    candidate: tuple[str, ...],
    by: tuple[str, ...],
    minimize: bool,
    pair_by: str | None,
    confidence: float,
    form: str,
) -> None:
    """Rank candidates by their mean over seeds, with the probability that each is the best."""
    from plmray.report.tables import sources, verbs

    _require(table, candidate, "--candidate")
    _tell(table, score, (*candidate, *by), by)
    if not minimize and not table.is_dir() and sources.is_error(score):
        click.echo(f"{score}: smaller is taken to be better", err=True)
    print_rows(verbs.rank_rows(table, score, candidate, by, minimize, confidence, pair_by), form)


@stats.command()
@_delta_options
@click.option("--minimize", is_flag=True, help="Smaller scores are better.")
def improvement(
    table: Path,
    score: str,
    factor: str,
    baseline: str,
    by: tuple[str, ...],
    confidence: float,
    form: str,
    minimize: bool,
) -> None:
    """Over several tasks (--by): the chance that a run of an arm beats a run of the baseline, and the mean Δ."""
    from plmray.report.tables import verbs

    if not by:
        raise click.UsageError("give --by, the column of tasks that it is the mean over")
    _tell(table, score, (factor, *by), by)
    print_rows(verbs.improvement_rows(table, score, factor, baseline, by, minimize, confidence), form)


@stats.command()
@table_argument
@score_option
@click.option("--curves", required=True, type=FilePath, help="Training logs: one row an evaluation.")
@click.option(
    "--curve-key",
    "keys",
    multiple=True,
    metavar="TEXT",
    help="How a column names its logs: 'training=mode:frozen=frozen,finetuned=full|lora'.",
)
@click.option("--valid-loss", default="valid_loss", show_default=True, help="Column of the logs.")
@click.option("--test-score", default="test_score", show_default=True, help="Column of the logs.")
@format_option
def audit(
    table: Path, score: str, curves: Path, keys: tuple[str, ...], valid_loss: str, test_score: str, form: str
) -> None:
    """Find scores that were chosen on the test set."""
    from plmray.report.tables import verbs

    _tell(table, score)
    tree = verbs.audit_tree(table, curves, score, keys, valid_loss, test_score)
    if form == "json":
        print_tree(tree)
        return
    summary = tree["summary"]
    print_rows([{k: v for k, v in g.items() if k != "findings"} | g["findings"] for g in summary["groups"]], "table")
    counts = ", ".join(f"{count} {name}" for name, count in summary["findings"].items())
    click.echo(f"{summary['n_runs']} runs: {counts}; in {summary['both']} both rules meet in one evaluation")


def _tell(table: Path, score: str, named: tuple[str, ...] = (), by: tuple[str, ...] = ()) -> None:
    """What a reader of the rows must know, on stderr."""
    from plmray.report.tables import sources, told

    if count := sources.unscored(table, score):
        click.echo(f"{count} runs without a score are left out", err=True)
    if named:
        for message in (*told.mixed_columns(table, score, named), *told.collapsed_runs(table, score, named, by)):
            click.echo(f"mind: {message}", err=True)


def _require(table: Path, given: Any, option: str) -> None:
    if not given and not table.is_dir():
        raise click.UsageError(f"give {option}")
