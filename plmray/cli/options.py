"""Options and output that several commands share."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

FilePath = click.Path(path_type=Path)
format_option = click.option("-f", "--format", "form", type=click.Choice(["table", "json"]), default="table")
table_option = click.option("-f", "--format", "form", type=click.Choice(["table", "json", "csv"]), default="table")
set_option = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a field.")
data_root_option = click.option("--data-root", type=FilePath, help="Folder of known data sets (or PLMRAY_DATA).")
sweep_folder = click.argument("folder", metavar="DIR", type=FilePath)


def require(*modules: str) -> None:
    """Raise SetupError naming what to install, before a command fails half-way."""
    from importlib.util import find_spec

    from plmray.errors import SetupError

    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise SetupError(f"{', '.join(missing)} is not installed; run, in the checkout: pip install '.[all]'")


def print_rows(rows: Sequence[dict[str, Any]], form: str) -> None:
    """Rows as a table, JSON or CSV; columns are the union of their keys, in order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if form == "json":
        print_tree(list(rows))
    elif form == "csv":
        import csv

        writer = csv.DictWriter(sys.stdout, columns)
        writer.writeheader()
        writer.writerows(rows)
    else:
        from plmray.report.text import table

        shown = [[_cell(row.get(column)) for column in columns] for row in rows]
        click.echo("\n".join(table(columns, shown)) if rows else "nothing yet")


def print_tree(tree: Any) -> None:
    """As JSON; what is no number is null."""
    from plmray.report.text import without_nan

    click.echo(json.dumps(without_nan(tree), indent=1))


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return "-"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
