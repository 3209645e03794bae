"""trials, best, report, sync and ui: looking at what was computed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from plmray.cli.options import FilePath, given_folder, print_rows, require, sweep_folder, table_option
from plmray.storage.object_store import child, is_store

if TYPE_CHECKING:
    from plmray.api import SweepResults


@click.command()
@sweep_folder
@table_option
def trials(folder: Path, form: str) -> None:
    """List the finished trials of a sweep folder."""
    results = _opened(folder).results
    columns = ("trial_id", "origin", "phase", "seed", "state", "score", "test_score", "epochs_run", "seconds")
    print_rows([{name: getattr(result, name) for name in columns} for result in results], form)


@click.command()
@sweep_folder
@table_option
def best(folder: Path, form: str) -> None:
    """Rank the candidates of a sweep folder, best first."""
    from plmray.api import candidate_rows

    rows = candidate_rows(_opened(folder).verdict)
    print_rows(rows, form)


@click.command()
@sweep_folder
@click.option("--out", type=FilePath, help="Folder for the report (default: DIR).")
@click.option("--confidence", type=click.FloatRange(0.5, 0.999), default=0.95, show_default=True)
@click.option("--families", type=FilePath, help="Families of test proteins: MMseqs2's cluster table, or id and family.")
def report(folder: Path, out: Path | None, confidence: float, families: Path | None) -> None:
    """Write the report of a sweep folder again and print it."""
    paths = _opened(folder).report(out, confidence=confidence, families=families)
    click.echo(paths[0].read_text(encoding="utf-8"))
    click.echo(f"written: {', '.join(str(child(out or given_folder(), path.name)) for path in paths)}")


def _opened(folder: Path) -> SweepResults:
    from plmray.api import SweepResults
    from plmray.sweep.folder.reader import require_folder

    return SweepResults(require_folder(folder), given_folder())


@click.command()
@sweep_folder
@click.option("--uri", help="MLflow tracking URI (default: the one the sweep used).")
def sync(folder: Path, uri: str | None) -> None:
    """Replay a sweep folder into MLflow; what is there already is left alone."""
    from plmray.sweep.folder.reader import require_folder

    require_folder(folder)
    require("mlflow")
    from plmray.sweep.tracking.sync import sync_folder

    count, where = sync_folder(folder, uri, str(given) if is_store(given := given_folder()) else None)
    click.echo(f"{count} trials in {where}")


@click.command()
@click.option("--uri", help="MLflow tracking URI (default: MLFLOW_TRACKING_URI, else ./mlflow.db).")
@click.option("--port", type=int, default=5000, show_default=True)
def ui(uri: str | None, port: int) -> None:
    """Open the MLflow user interface on the store that sweeps here write to."""
    require("mlflow")
    from plmray.sweep.tracking.mirror import tracking_uri

    store = tracking_uri(uri, Path.cwd())
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store, "--host", "127.0.0.1"]
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    os.execv(sys.executable, [*command, "--port", str(port)])
